/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "nat.h"

#define IPV4_CHECKSUM 10
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define IPV6_HOP_LIMIT 7
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24

#define TCP_CHECKSUM 16
#define UDP_CHECKSUM 6
#define ICMP_CHECKSUM 2
#define ICMP_ID 4

static __always_inline __u32 checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return TCP_CHECKSUM;
	return protocol == IPPROTO_UDP ? UDP_CHECKSUM : ICMP_CHECKSUM;
}

/* The part of the sum that a change of address makes. The mapped prefix of IPv4 cancels itself. */
static __always_inline __s64 address_difference(struct addr from, struct addr to)
{
	return bpf_csum_diff((__be32 *)&from, sizeof(from), (__be32 *)&to, sizeof(to), 0);
}

/* Writes an address into the IP header that starts at `l3`. An outer IPv6 header has no checksum that would balance the
 * change in a sum that the device computed, so the kernel is told of it; everything else balances itself. */
static __always_inline int store_address(struct __sk_buff *skb, __u32 l3, bool v4, bool source,
					 const struct addr *address, __u64 flags)
{
	__be32 short_address = addr_v4(address);

	if (v4)
		return bpf_skb_store_bytes(skb, l3 + (source ? IPV4_SOURCE : IPV4_DESTINATION), &short_address,
					   sizeof(short_address), 0);
	return bpf_skb_store_bytes(skb, l3 + (source ? IPV6_SOURCE : IPV6_DESTINATION), address, sizeof(*address),
				   flags);
}

/* Moves one side of the outer header: address, and the checksums that cover it. */
SUBPROGRAM int rewrite_address(struct __sk_buff *skb, const struct flow *f, const struct nat_target *to)
{
	__u64 flags = BPF_F_PSEUDO_HDR;
	__s64 difference;
	__u32 checksum;
	long failed = 0;

	if (!f || !to)
		return DROP_WRITE_ERROR;
	difference = address_difference(to->is_source ? f->source : f->destination, to->address);
	checksum = (f->l4 & L4_OFFSET_MAX) + checksum_offset(f->protocol);
	if (f->protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	/* ICMP's covers no addresses, and neither does SCTP's. */
	if (f->fragment != FRAGMENT_LATER && f->protocol != IPPROTO_ICMP && f->protocol != IPPROTO_SCTP)
		failed |= bpf_l4_csum_replace(skb, checksum, 0, difference, flags);
	if (f->v4)
		failed |= bpf_l3_csum_replace(skb, ETH_HLEN + IPV4_CHECKSUM, 0, difference, 0);
	failed |= store_address(skb, ETH_HLEN, f->v4, to->is_source, &to->address, BPF_F_RECOMPUTE_CSUM);
	return failed ? DROP_WRITE_ERROR : 0;
}

/* Offset of the number that stands for the port; an echo has it in one place for both directions. */
static __always_inline __u32 port_offset(const struct flow *f, bool source)
{
	return is_icmp(f) ? ICMP_ID : source ? 0 : 2;
}

static __always_inline int rewrite_port(struct __sk_buff *skb, const struct flow *f, const struct nat_target *to)
{
	__u32 l4 = f->l4 & L4_OFFSET_MAX;
	__be16 old = to->is_source ? f->source_port : f->destination_port;
	__u64 flags = sizeof(old) | (f->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	__be16 port = to->port;

	if (f->fragment == FRAGMENT_LATER || old == port)
		return 0;
	/* A CRC, which is not computed here. */
	if (f->protocol == IPPROTO_SCTP)
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	if (bpf_l4_csum_replace(skb, l4 + checksum_offset(f->protocol), old, port, flags) ||
	    bpf_skb_store_bytes(skb, l4 + port_offset(f, to->is_source), &port, sizeof(port), 0))
		return DROP_WRITE_ERROR;
	return 0;
}

/* Moves one side of a packet to another address and port. 0 or the reason to drop. */
SUBPROGRAM int rewrite(struct __sk_buff *skb, struct flow *f, const struct nat_target *to)
{
	int reason = rewrite_address(skb, f, to);

	if (reason || !f || !to)
		return reason;
	reason = rewrite_port(skb, f, to);
	if (to->is_source) {
		f->source = to->address;
		f->source_port = to->port;
	} else {
		f->destination = to->address;
		f->destination_port = to->port;
	}
	return reason;
}
