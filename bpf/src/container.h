/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The two programs on the host's end of a pod's device. */

#include "admit.h"
#include "fast.h"
#include "leave.h"

/* The answers that the host's stack needs to find its pods, and nothing that it would forward. */
SUBPROGRAM bool is_for_host_link(const struct flow *f)
{
	return f && (addr_is_on_link(&f->destination) || peer_identity(&f->destination) == IDENTITY_HOST);
}

/* A pod sends from its own address on its own device. */
static __always_inline bool find_sender(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	s->from_here = find_endpoint(&f->source, &s->from) && s->from.ifindex == skb->ifindex;
	return s->from_here;
}

static __always_inline bool find_receiver(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	s->to_here = find_endpoint(&f->destination, &s->to) && s->to.ifindex == skb->ifindex;
	return s->to_here;
}

/* A packet of a known connection to the outside of this node. Its sender is verified; only the tunnel asks who that is. */
SUBPROGRAM int go_known_way(struct __sk_buff *skb, __u64 way)
{
	struct flow f = {};
	struct sides s = { .route = (__u16)way, .nat_port = (__u16)(way >> 16) };

	if (parse(skb, &f) || (s.route & CT_TUNNEL && !find_sender(skb, &f, &s)))
		return drop(skb, &f, &s, DROP_INVALID_PACKET, DIRECTION_EGRESS);
	return send_on(skb, &f, &s);
}

/* Everything else. */
SUBPROGRAM int go_long_way(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = {};
	int reason;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	reason = skb->vlan_present ? DROP_VLAN_FILTERED : parse(skb, &f);
	if (!reason && is_link_chatter(&f))
		reason = DROP_FORBIDDEN_ICMP6;
	if (!reason && is_neighbour_discovery(&f) && is_for_host_link(&f))
		return TC_ACT_OK;
	if (!reason && !find_sender(skb, &f, &s))
		reason = DROP_INVALID_SOURCE_IP;
	if (!reason)
		reason = let_out(skb, &f, &s);
	if (reason) {
		drop(skb, &f, &s, reason, s.refused ? s.refused : DIRECTION_EGRESS);
		return s.refusal ? refuse(skb, &f, s.refusal, 0) : TC_ACT_SHOT;
	}
	return send_on(skb, &f, &s);
}

SEC("classifier")
int from_container(struct __sk_buff *skb)
{
	__u64 way = take_fast_path(skb);

	if (way & NOT_TAKEN)
		return go_long_way(skb);
	return way & WAY_KNOWN ? go_known_way(skb, way) : (int)way;
}

/* What reaches a pod through the host's stack: mostly from the node's own processes. */
SEC("classifier")
int to_container(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .route = CT_STACK };
	int reason;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	reason = parse(skb, &f);
	if (!reason && is_link_chatter(&f))
		reason = DROP_FORBIDDEN_ICMP6;
	if (!reason && is_neighbour_discovery(&f))
		return TC_ACT_OK;
	if (!reason && !find_receiver(skb, &f, &s))
		reason = DROP_UNKNOWN_TARGET;
	if (!reason && has_host_firewall() && peer_identity(&f.source) == IDENTITY_HOST) {
		s.from_host = 1;
		s.from_slot = read_host_slot();
	}
	if (!reason)
		reason = admit(skb, &f, &s, 0, false);
	if (reason)
		return drop(skb, &f, &s, reason, s.refused ? s.refused : DIRECTION_INGRESS);
	count(FORWARDED, DIRECTION_INGRESS, skb->len);
	return TC_ACT_OK;
}
