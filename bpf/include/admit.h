/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Packets that want into a pod from outside of this node's pods. */

#include "deliver.h"
#include "fragments.h"

/* Who sent it. The ipcache knows better than the tunnel's header, which matters for addresses that are not known here yet.
 * Nobody out there can be this node. 0 or the reason to drop. */
SUBPROGRAM int identify_sender(const struct flow *f, struct sides *s, __u32 tunnel_identity)
{
	const struct ipcache_entry *peer;
	struct endpoint local;

	if (!f || !s)
		return DROP_INVALID_SOURCE_IP;
	peer = find_peer(&f->source);
	s->from_identity = peer ? peer->identity : world_identity(&f->source);
	if (s->route & CT_STACK)
		return 0;
	if (s->from_identity == IDENTITY_HOST || find_endpoint(&f->source, &local))
		return DROP_INVALID_SOURCE_IP;
	if (!(s->route & CT_TUNNEL) || !tunnel_identity)
		return 0;
	if (is_world(s->from_identity))
		s->from_identity = tunnel_identity == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : tunnel_identity;
	/* Clients of services come with the address of the node that they came to. */
	else if (is_remote_node(s->from_identity) && tunnel_identity != IDENTITY_HOST && !is_remote_node(tunnel_identity))
		s->from_identity = tunnel_identity;
	return 0;
}

static __always_inline int judge_sender(struct __sk_buff *skb, const struct flow *f, struct sides *s,
					__u32 tunnel_identity)
{
	int reason = identify_sender(f, s, tunnel_identity);

	return reason ? reason : judge(skb, f, s);
}

static __always_inline int admit_icmp_error(struct __sk_buff *skb, const struct flow *f, struct sides *s,
					    __u32 tunnel_identity)
{
	struct relation relation = {};

	if (find_relation(skb, f, &relation)) {
		s->disguised = is_of_service(&relation);
		return 0;
	}
	return judge_sender(skb, f, s, tunnel_identity);
}

/* Where answers go. What came by a service may have said in its first packet alone where it came from. */
static __always_inline __u16 route_of(const struct ct_entry *known, const struct flow *f, const struct sides *s)
{
	return known && known->flags & CT_SERVICE && !opens_connection(f) ? known->flags & CT_ROUTE : s->route;
}

/* Follows or starts the connection. */
SUBPROGRAM int track_in(struct __sk_buff *skb, const struct flow *f, struct sides *s, __u32 tunnel_identity,
			bool only_reply)
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
	if (ct_goes_on(known, f) &&
	    (reply || (!only_reply && known->ingress_generation == slot_generation(s->to_slot) &&
		       (!s->from_host || known->egress_generation == slot_generation(s->from_slot))))) {
		ct_touch(known, f, reply, now);
		s->disguised = reply && known->flags & CT_SERVICE;
		return 0;
	}
	if (only_reply)
		return DROP_CT_UNKNOWN_STATE;
	reason = judge_sender(skb, f, s, tunnel_identity);
	if (reason && known && !reply)
		ct_refuse(known, f->protocol, now);
	if (reason || ct_is_late_answer(known, f, reply))
		return reason;
	if (reply)
		known = NULL;
	fresh = ct_begin(f, known, high, route_of(known, f, s));
	return ct_record(&key, &fresh, f, s, now);
}

/* Decides whether a packet may enter the pod `s->to`, and lets it come from whom the pod expects it. `s->route` says where it came
 * from, which is where replies go. `only_reply`: it came by way of the node's address, so only the answer to a known connection may be
 * behind it. 0 or the reason to drop. */
static __always_inline int admit(struct __sk_buff *skb, struct flow *f, struct sides *s, __u32 tunnel_identity,
				 bool only_reply)
{
	int reason;

	s->to_slot = read_slot(&s->to);
	if (!(s->to_slot & SLOT_OPEN))
		return DROP_ENDPOINT_NOT_READY;
	if (f->fragment) {
		reason = fragment_ports(f);
		if (reason)
			return reason;
	}
	if (f->icmp_error)
		reason = admit_icmp_error(skb, f, s, tunnel_identity);
	else
		reason = track_in(skb, f, s, tunnel_identity, only_reply);
	return !reason && s->disguised ? disguise(skb, f) : reason;
}
