/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What reaches the node from the network. */

#include "host.h"

static __always_inline bool is_own_address(const struct flow *f)
{
	struct addr own = host_address(f->v4);

	return addr_equal(&f->destination, &own);
}

static __always_inline bool may_be_masqueraded(const struct flow *f)
{
	return nat_enabled(f->v4) &&
	       (f->icmp_error || f->fragment == FRAGMENT_LATER || nat_port_in_range(f->destination_port));
}

/* An answer to the quoted packet. */
static __always_inline void turn_around(struct flow *answer, const struct flow *q)
{
	*answer = *q;
	answer->source = q->destination;
	answer->source_port = q->destination_port;
	answer->destination = q->source;
	answer->destination_port = q->source_port;
}

/* An ICMP error about a masqueraded packet: finds the pod by the quoted packet, and moves both. */
SUBPROGRAM int unmasquerade_error(struct __sk_buff *skb, struct flow *f)
{
	struct nat_target pod = {};
	struct quoted quoted = {};
	struct flow answer;
	int reason;

	if (!f || !read_quoted(skb, f, &quoted))
		return 0;
	turn_around(&answer, &quoted.flow);
	if (!nat_find_pod(&answer, &pod))
		return 0;
	pod.is_source = 1;
	reason = rewrite_quoted(skb, f, &quoted, &pod);
	pod.is_source = 0;
	if (!reason)
		reason = rewrite_address(skb, f, &pod);
	f->destination = pod.address;
	return reason;
}

/* Turns the node's address back into the pod's, where the packet answers a masqueraded connection. 0, also when it does not,
 * or the reason to drop. */
SUBPROGRAM int unmasquerade(struct __sk_buff *skb, struct flow *f)
{
	struct nat_target pod = {};

	if (!f)
		return 0;
	if (f->icmp_error)
		return unmasquerade_error(skb, f);
	/* A later fragment of the node's own traffic has no entry here, as its first fragment was of no interest. */
	if (f->fragment && fragment_ports(f))
		return 0;
	if (!nat_has_port(f) || !nat_find_pod(f, &pod))
		return 0;
	return rewrite(skb, f, &pod);
}

static __always_inline int receive(struct __sk_buff *skb, struct flow *f, struct sides *s, __u32 tunnel_identity,
				   bool only_reply)
{
	int reason = admit(skb, f, s, tunnel_identity, only_reply);

	if (reason)
		return drop(skb, f, s, reason, DIRECTION_INGRESS);
	return deliver_to_pod(skb, f, s, DIRECTION_INGRESS);
}

/* For the node itself, unless its address stands for a pod's. */
static __always_inline int receive_own(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	int reason = unmasquerade(skb, f);

	if (!reason && is_own_address(f))
		return enter_host(skb, f, s, 0);
	s->to_here = !reason && find_endpoint(&f->destination, &s->to);
	if (!reason && !s->to_here)
		reason = DROP_UNKNOWN_TARGET;
	if (reason)
		return drop(skb, f, s, reason, DIRECTION_INGRESS);
	/* The ports are known already, and later fragments come with the address of before. */
	f->fragment = FRAGMENT_NONE;
	return receive(skb, f, s, 0, true);
}

/* What cannot be parsed is the stack's, unless the node has a policy, which such a packet must not get past. */
static __always_inline int refuse_unreadable(struct __sk_buff *skb, const struct flow *f, const struct sides *s)
{
	bool is_ip = skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);

	if (!has_host_firewall() || !is_ip || !(read_host_slot() & SLOT_INGRESS_ENFORCED))
		return TC_ACT_OK;
	return drop(skb, f, s, DROP_INVALID_PACKET, DIRECTION_INGRESS);
}

SEC("classifier")
int from_netdev(struct __sk_buff *skb)
{
	struct flow f = {};
	struct sides s = { .route = CT_DIRECT };

	/* Not for this host, or for a VLAN device on top: none of our business. */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_OK;
	if (parse(skb, &f))
		return refuse_unreadable(skb, &f, &s);
	if (is_own_address(&f) && may_be_masqueraded(&f))
		return receive_own(skb, &f, &s);
	s.to_here = !is_own_address(&f) && find_endpoint(&f.destination, &s.to);
	return s.to_here ? receive(skb, &f, &s, 0, false) : enter_host(skb, &f, &s, 0);
}
