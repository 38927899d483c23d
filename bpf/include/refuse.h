/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* ICMP errors to the sender of a packet that does not get through here, so that it need not wait for an answer in vain. */

#include "deliver.h"

#define ICMP_HOPS 64
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP6_UNREACHABLE 1
#define ICMP6_PORT_UNREACHABLE 4
#define ICMP6_PACKET_TOO_BIG 2
#define QUOTE_MAX (sizeof(struct ipv6hdr) + TCP_HEADER_LEN)
#define BUDGET_OF_REFUSALS 1 /* no drop has this number */

enum refusal {
	REFUSE_SILENTLY,
	REFUSE_PORT,	/* nobody serves there */
	REFUSE_TOO_BIG, /* for the way on */
};

/* What an error says. */
struct error_head {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest; /* the MTU, where it is about that */
};

struct error_v4 {
	struct iphdr ip;
	struct error_head head;
};

struct error_v6 {
	struct ipv6hdr ip;
	struct error_head head;
};

/* Between two addresses, as the checksum of ICMPv6 covers them (RFC 8200, section 8.1). */
struct pseudo_header {
	struct addr source;
	struct addr destination;
	__be32 length;
	__be32 next;
};

static __always_inline __sum16 fold_checksum(__s64 sum)
{
	__u32 folded = (__u32)sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return (__sum16)~folded;
}

/* The IP header, and as much of what follows as tells connections apart; 0: this packet cannot be quoted. */
static __always_inline __u32 quote_length(const struct flow *f)
{
	__u32 ip = f->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if (f->l4 != ETH_HLEN + ip || is_icmp(f) || f->fragment == FRAGMENT_LATER)
		return 0;
	return ip + (f->protocol == IPPROTO_TCP ? TCP_HEADER_LEN : SHORT_HEADER_LEN);
}

/* Who is taken to say so: the address that nobody serves at, or this node as a router. */
static __always_inline struct addr refusing_address(const struct flow *f, __u32 refusal)
{
	struct addr own = host_address(f->v4);

	return refusal == REFUSE_TOO_BIG && !addr_is_none(&own) ? own : f->destination;
}

static __always_inline long write_error_v4(struct __sk_buff *skb, const struct flow *f, __u32 refusal, __u32 mtu,
					   __be32 *quote, __u32 quoted)
{
	struct addr from = refusing_address(f, refusal);
	struct error_v4 error = {};

	error.ip.version = 4;
	error.ip.ihl = sizeof(error.ip) / 4;
	error.ip.ttl = ICMP_HOPS;
	error.ip.protocol = IPPROTO_ICMP;
	error.ip.tot_len = bpf_htons(sizeof(error) + quoted);
	error.ip.saddr = addr_v4(&from);
	error.ip.daddr = addr_v4(&f->source);
	error.ip.check = fold_checksum(bpf_csum_diff(NULL, 0, (__be32 *)&error.ip, sizeof(error.ip), 0));
	error.head.type = ICMP_UNREACHABLE;
	error.head.code = refusal == REFUSE_TOO_BIG ? ICMP_FRAGMENTATION_NEEDED : ICMP_PORT_UNREACHABLE;
	error.head.rest = bpf_htonl(refusal == REFUSE_TOO_BIG ? mtu & 0xffff : 0);
	error.head.checksum = fold_checksum(bpf_csum_diff(
		NULL, 0, quote, quoted, bpf_csum_diff(NULL, 0, (__be32 *)&error.head, sizeof(error.head), 0)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), 0);
}

static __always_inline long write_error_v6(struct __sk_buff *skb, const struct flow *f, __u32 refusal, __u32 mtu,
					   __be32 *quote, __u32 quoted)
{
	struct pseudo_header pseudo = { .source = refusing_address(f, refusal), .destination = f->source };
	struct error_v6 error = {};
	__s64 sum;

	pseudo.length = bpf_htonl(sizeof(error.head) + quoted);
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	error.ip.version = 6;
	error.ip.hop_limit = ICMP_HOPS;
	error.ip.nexthdr = IPPROTO_ICMPV6;
	error.ip.payload_len = bpf_htons(sizeof(error.head) + quoted);
	__builtin_memcpy(&error.ip.saddr, &pseudo.source, sizeof(pseudo.source));
	__builtin_memcpy(&error.ip.daddr, &pseudo.destination, sizeof(pseudo.destination));
	error.head.type = refusal == REFUSE_TOO_BIG ? ICMP6_PACKET_TOO_BIG : ICMP6_UNREACHABLE;
	error.head.code = refusal == REFUSE_TOO_BIG ? 0 : ICMP6_PORT_UNREACHABLE;
	error.head.rest = bpf_htonl(refusal == REFUSE_TOO_BIG ? mtu : 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&error.head, sizeof(error.head), sum);
	error.head.checksum = fold_checksum(bpf_csum_diff(NULL, 0, quote, quoted, sum));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), 0);
}

/* Back to the machine or the pod that it came from. */
static __always_inline long turn_frame(struct __sk_buff *skb)
{
	__u16 halves[ETH_ADDR_LEN], turned[ETH_ADDR_LEN]; /* both addresses */

	if (bpf_skb_load_bytes(skb, 0, halves, sizeof(halves)))
		return -1;
#pragma unroll
	for (int i = 0; i < ETH_ADDR_LEN; i++)
		turned[i] = halves[(i + ETH_ADDR_LEN / 2) % ETH_ADDR_LEN];
	return bpf_skb_store_bytes(skb, 0, turned, sizeof(turned), 0);
}

/* Makes the packet an error to its sender, a pod or a machine out there; a verdict. */
SUBPROGRAM int refuse(struct __sk_buff *skb, const struct flow *f, __u32 refusal, __u32 mtu)
{
	__be32 quote[QUOTE_MAX / sizeof(__be32)] = {};
	struct endpoint sender;
	__u32 quoted;
	long failed;

	if (!f)
		return TC_ACT_SHOT;
	quoted = quote_length(f);
	if (quoted < SHORT_HEADER_LEN || quoted > QUOTE_MAX || !within_budget(BUDGET_OF_REFUSALS))
		return TC_ACT_SHOT;
	failed = bpf_skb_load_bytes(skb, ETH_HLEN, quote, quoted);
	failed = failed || bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0);
	failed = failed || bpf_skb_adjust_room(skb, f->v4 ? sizeof(struct error_v4) : sizeof(struct error_v6),
					       BPF_ADJ_ROOM_MAC, 0);
	failed = failed || (f->v4 ? write_error_v4(skb, f, refusal, mtu, quote, quoted)
				  : write_error_v6(skb, f, refusal, mtu, quote, quoted));
	if (failed || turn_frame(skb))
		return TC_ACT_SHOT;
	if (find_endpoint(&f->source, &sender))
		return bpf_redirect_peer(sender.ifindex, 0);
	mark_as_forwarded(skb);
	return bpf_redirect(skb->ifindex, 0);
}
