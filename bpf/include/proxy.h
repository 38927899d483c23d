/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "deliver.h"

/* Packets for the node's DNS proxy keep the addresses and ports that the pod gave them: the socket is chosen here, and a routing
 * rule for the mark says that the packet is for this machine (`node-agent/drivers/src/netlink/rule.rs`). */

#define MARK_TO_PROXY 0x0200

#define TCP_LISTEN_STATE 10 /* enum of the kernel: BPF_TCP_LISTEN */

static __always_inline void fill_tuple(const struct flow *f, struct bpf_sock_tuple *tuple)
{
	if (f->v4) {
		tuple->ipv4.saddr = addr_v4(&f->source);
		tuple->ipv4.daddr = addr_v4(&f->destination);
		tuple->ipv4.sport = f->source_port;
		tuple->ipv4.dport = f->destination_port;
	} else {
		__builtin_memcpy(tuple->ipv6.saddr, &f->source, sizeof(f->source));
		__builtin_memcpy(tuple->ipv6.daddr, &f->destination, sizeof(f->destination));
		tuple->ipv6.sport = f->source_port;
		tuple->ipv6.dport = f->destination_port;
	}
}

/* The proxy listens on the loopback address, where nobody outside of the node reaches it. */
static __always_inline void fill_listener(const struct flow *f, struct bpf_sock_tuple *tuple)
{
	__builtin_memset(tuple, 0, sizeof(*tuple));
	if (f->v4) {
		tuple->ipv4.daddr = bpf_htonl(0x7f000001);
		tuple->ipv4.dport = CFG.dns_port;
	} else {
		tuple->ipv6.daddr[3] = bpf_htonl(1);
		tuple->ipv6.dport = CFG.dns_port;
	}
}

/* Gives the packet to a socket. 0 or the reason to drop. */
static __always_inline int assign(struct __sk_buff *skb, struct bpf_sock *sk)
{
	long failed = bpf_sk_assign(skb, sk, 0);

	bpf_sk_release(sk);
	return failed ? DROP_SOCKET_ASSIGN : 0;
}

/* The socket of a connection that the proxy has taken, or else the one that takes new ones. */
SUBPROGRAM int assign_tcp(struct __sk_buff *skb, const struct flow *f)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;

	if (!f)
		return DROP_SOCKET_LOOKUP;
	size = f->v4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6);
	fill_tuple(f, &tuple);
	sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		if (sk->state != TCP_LISTEN_STATE)
			return assign(skb, sk);
		bpf_sk_release(sk);
	}
	fill_listener(f, &tuple);
	sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	return sk ? assign(skb, sk) : DROP_SOCKET_LOOKUP;
}

SUBPROGRAM int assign_udp(struct __sk_buff *skb, const struct flow *f)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;

	if (!f)
		return DROP_SOCKET_LOOKUP;
	fill_listener(f, &tuple);
	sk = bpf_sk_lookup_udp(skb, &tuple, f->v4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS,
			       0);
	return sk ? assign(skb, sk) : DROP_SOCKET_LOOKUP;
}

/* Without a proxy there is no answer: the client asks again. */
SUBPROGRAM int hand_to_proxy(struct __sk_buff *skb, const struct flow *f, const struct sides *s)
{
	int reason;

	if (!f || !s)
		return TC_ACT_SHOT;
	reason = f->protocol == IPPROTO_TCP ? assign_tcp(skb, f) : assign_udp(skb, f);
	if (reason)
		return drop(skb, f, s, reason, DIRECTION_EGRESS);
	skb->mark = MARK_TO_PROXY;
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return TC_ACT_OK;
}
