/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What reaches the node from the network. */

#include "host.h"
#include "../include/announce.h"

static __always_inline int receive(struct __sk_buff *skb, struct flow *f, struct sides *s, __u32 tunnel_identity,
				   bool only_reply)
{
	int reason = admit(skb, f, s, tunnel_identity, only_reply);

	if (reason)
		return drop(skb, f, s, reason, DIRECTION_INGRESS);
	return deliver_to_pod(skb, f, s, DIRECTION_INGRESS);
}

/* For the node itself, unless its address, or another that stands for a service, stands for somebody else. */
static __always_inline int receive_for_others(struct __sk_buff *skb, struct flow *f, struct sides *s,
					      __u32 tunnel_identity)
{
	struct passage passage = {};
	int reason;

	/* For a process of this node, by a service of another one. */
	if (s->route & CT_SERVICE)
		return enter_host(skb, f, s, tunnel_identity);
	reason = translate_arrival(skb, f, &passage);

	if (reason)
		return turn_down(skb, f, s, &passage, reason, DIRECTION_INGRESS);
	if (passage.way == WAY_STACK)
		return enter_host(skb, f, s, tunnel_identity);
	if (passage.way == WAY_ON)
		return send_elsewhere(skb, f, s, passage.client);
	s->to_here = find_endpoint(&f->destination, &s->to);
	if (!s->to_here)
		return drop(skb, f, s, DROP_UNKNOWN_TARGET, DIRECTION_INGRESS);
	if (passage.way == WAY_POD)
		s->route = CT_DIRECT | CT_SERVICE;
	return receive(skb, f, s, 0, passage.way == WAY_ANSWER);
}

/* What cannot be parsed is the stack's, unless the node has a policy, which such a packet must not get past. */
static __always_inline int refuse_unreadable(struct __sk_buff *skb, const struct flow *f, const struct sides *s)
{
	bool is_ip = skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);

	if (!has_host_firewall() || !is_ip || !(read_host_slot() & SLOT_INGRESS_ENFORCED))
		return TC_ACT_OK;
	return drop(skb, f, s, DROP_INVALID_PACKET, DIRECTION_INGRESS);
}

/* What came by a service of another node is answered straight to the client. 0 or the reason to drop. */
static __always_inline int find_announcement(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	int result = has_long_header(f) ? learn_service(skb, f) : 0;

	if (result != LEARNED)
		return result;
	s->route = CT_DIRECT | CT_SERVICE;
	return 0;
}

SEC("classifier")
int from_netdev(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .route = CT_DIRECT };
	int reason = answer_neighbours(skb);

	if (reason != TC_ACT_UNSPEC)
		return reason;
	/* Not for this host, or for a VLAN device on top: none of our business. */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_OK;
	if (parse(skb, &f))
		return refuse_unreadable(skb, &f, &s);
	reason = find_announcement(skb, &f, &s);
	if (reason)
		return drop(skb, &f, &s, reason, DIRECTION_INGRESS);
	s.to_here = !is_own_address(&f) && find_endpoint(&f.destination, &s.to);
	return s.to_here ? receive(skb, &f, &s, 0, false) : receive_for_others(skb, &f, &s, 0);
}
