/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The two ends of the tunnel that belong to the node itself. */

#include "netdev.h"

/* 0 or the reason to drop. */
SUBPROGRAM int read_tunnel_identity(struct __sk_buff *skb, __u32 *identity)
{
	struct bpf_tunnel_key key = {};

	if (!identity)
		return DROP_TUNNEL_KEY;
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) &&
	    bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
		return DROP_TUNNEL_KEY;
	*identity = key.tunnel_id;
	return 0;
}

SEC("classifier")
int from_overlay(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .route = CT_TUNNEL };
	__u32 identity = 0;
	int reason = read_tunnel_identity(skb, &identity);

	if (!reason)
		reason = parse(skb, &f);
	if (!reason)
		reason = find_announcement(skb, &f, &s);
	/* The sender put the MAC addresses of its own devices there. */
	bpf_skb_change_type(skb, PACKET_HOST);
	s.to_here = !reason && find_endpoint(&f.destination, &s.to);
	if (s.to_here)
		return receive(skb, &f, &s, identity, false);
	/* For the node itself, or for nobody. */
	if (!reason && peer_identity(&f.destination) != IDENTITY_HOST)
		reason = DROP_UNKNOWN_TARGET;
	return reason ? drop(skb, &f, &s, reason, DIRECTION_INGRESS) : receive_for_others(skb, &f, &s, identity);
}

/* From the node's own processes to pods of other nodes. Their identity there is "remote node", not "host": that is what
 * this node is to everybody else. */
SEC("classifier")
int from_host(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .from_identity = IDENTITY_HOST, .route = CT_TUNNEL };
	int reason;

	if (!CFG.tunnel_ifindex || parse(skb, &f) || peer_identity(&f.destination) == IDENTITY_HOST)
		return TC_ACT_OK;
	reason = has_host_firewall() ? leave_host(skb, &f, &s) : 0;
	if (reason)
		return drop(skb, &f, &s, reason, DIRECTION_EGRESS);
	return encapsulate(skb, &f, &s);
}
