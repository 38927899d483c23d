/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The node's own policy: what its processes receive and send. Connections of the node are followed from the start, also while
 * nothing is enforced, so that a policy does not cut off what goes on. Without CONFIG_HOST_FIREWALL nothing of this is there. */

#include "../include/admit.h"
#include "../include/nodeport.h"

/* For this node itself: its addresses, and unicast that no router forwards. */
static __always_inline bool is_for_host(const struct flow *f)
{
	return peer_identity(&f->destination) == IDENTITY_HOST ||
	       (addr_is_on_link(&f->destination) && !addr_is_multicast(&f->destination));
}

/* Follows or starts a connection of which the node is one end. 0 or the reason to drop. */
SUBPROGRAM int track_host(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	__u32 now = now_seconds();
	struct ct_entry *known, fresh;
	struct ct_key key;
	bool high, reply;
	int reason;

	if (!f || !s)
		return DROP_CT_UNKNOWN_STATE;
	high = ct_key_of(f, &key);
	known = ct_find(&key, now);
	reply = known && ct_is_reply(known, high);
	if (ct_goes_on(known, f) && (reply || (known->egress_generation == from_generation(s) &&
					       known->ingress_generation == to_generation(s)))) {
		ct_touch(known, f, reply, now);
		return 0;
	}
	reason = judge(skb, f, s);
	if (reason && known && !reply)
		ct_refuse(known, f->protocol, now);
	if (reason || ct_is_late_answer(known, f, reply))
		return reason;
	fresh = ct_begin(f, reply ? NULL : known, high, s->route);
	return ct_record(&key, &fresh, f, s, now);
}

/* An ICMP error passes when it is about a packet of a known connection. 0 or the reason to drop. */
static __always_inline int ask_host(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	struct relation relation = {};

	if (f->fragment) {
		int reason = fragment_ports(f);

		if (reason)
			return reason;
	}
	if (!f->icmp_error)
		return track_host(skb, f, s);
	return find_relation(skb, f, &relation) ? 0 : judge(skb, f, s);
}

/* A packet from outside of the node that the stack gets. What is not for the node itself is none of its policy's business. */
static __always_inline int enter_host(struct __sk_buff *skb, struct flow *f, struct sides *s, __u32 tunnel_identity)
{
	int reason;

	if (!has_host_firewall() || is_neighbour_discovery(f) || !is_for_host(f))
		return TC_ACT_OK;
	s->to_host = 1;
	s->to_slot = read_host_slot();
	reason = identify_sender(f, s, tunnel_identity);
	if (!reason)
		reason = ask_host(skb, f, s);
	return reason ? drop(skb, f, s, reason, DIRECTION_INGRESS) : TC_ACT_OK;
}

/* What the node's own processes send: 0 or the reason to drop. */
static __always_inline int leave_host(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	s->from_host = 1;
	s->from_slot = read_host_slot();
	s->to_identity = peer_identity(&f->destination);
	return ask_host(skb, f, s);
}

/* The node's own policy on what it sends. 0 or the reason to drop. */
static __always_inline int check_own(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	if (!has_host_firewall() || is_neighbour_discovery(f) || addr_is_multicast(&f->destination) ||
	    peer_identity(&f->source) != IDENTITY_HOST)
		return 0;
	return leave_host(skb, f, s);
}

/* Out of the node by its network device: the node's own traffic, and what it forwards. */
SEC("classifier")
int to_netdev(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .route = CT_DIRECT };
	int reason;

	if (skb->mark == MARK_FORWARDED || skb->vlan_present || parse(skb, &f))
		return TC_ACT_OK;
	reason = check_own(skb, &f, &s);
	if (!reason)
		reason = answer_as_service(skb, &f);
	return reason ? drop(skb, &f, &s, reason, DIRECTION_EGRESS) : TC_ACT_OK;
}
