/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "flow.h"
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_EXTENSION_HEADERS 6
#define L4_OFFSET_MAX 511 /* lets the verifier bound accesses; real packets stay far below */

/* A function that the verifier checks once by itself, not again for every state of its callers. It must not be static, takes
 * pointers that it has to compare with NULL, and returns a number. */
#define SUBPROGRAM __attribute__((noinline))

#define TCP_HEADER_LEN 20
#define SHORT_HEADER_LEN 8 /* UDP, ICMP, and as much of SCTP as matters */

struct ipv6_extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* the rest: fragment header only */
	__be32 id;
};

static __always_inline void *packet_data(const struct __sk_buff *skb)
{
	return (void *)(long)skb->data;
}

static __always_inline void *packet_end(const struct __sk_buff *skb)
{
	return (void *)(long)skb->data_end;
}

/* Makes the first `length` bytes readable through packet pointers. */
static __always_inline bool make_linear(struct __sk_buff *skb, __u32 length)
{
	return packet_data(skb) + length <= packet_end(skb) || bpf_skb_pull_data(skb, length) == 0;
}

static __always_inline int parse_tcp(struct __sk_buff *skb, struct flow *f, __u32 l4)
{
	__u8 *header;

	if (!make_linear(skb, l4 + TCP_HEADER_LEN))
		return DROP_CT_INVALID_HEADER;
	header = packet_data(skb) + l4;
	if ((void *)header + TCP_HEADER_LEN > packet_end(skb))
		return DROP_CT_INVALID_HEADER;
	f->source_port = *(__be16 *)header;
	f->destination_port = *(__be16 *)(header + 2);
	f->tcp_flags = header[13];
	return 0;
}

static __always_inline int parse_short(struct __sk_buff *skb, struct flow *f, __u32 l4)
{
	__u8 *header;

	if (!make_linear(skb, l4 + SHORT_HEADER_LEN))
		return DROP_CT_INVALID_HEADER;
	header = packet_data(skb) + l4;
	if ((void *)header + SHORT_HEADER_LEN > packet_end(skb))
		return DROP_CT_INVALID_HEADER;
	if (is_icmp(f)) {
		f->icmp_type = header[0];
		f->icmp_error = is_icmp_error(f);
		set_icmp_ports(f, *(__be16 *)(header + 4));
	} else {
		f->source_port = *(__be16 *)header;
		f->destination_port = *(__be16 *)(header + 2);
	}
	return 0;
}

static __always_inline int parse_transport(struct __sk_buff *skb, struct flow *f, __u32 l4)
{
	if (l4 > L4_OFFSET_MAX)
		return DROP_INVALID_EXTENSION_HEADER;
	f->l4 = l4;
	if (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP && f->protocol != IPPROTO_SCTP &&
	    f->protocol != (f->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return DROP_UNKNOWN_L4;
	if (f->fragment == FRAGMENT_LATER)
		return 0;
	return f->protocol == IPPROTO_TCP ? parse_tcp(skb, f, l4) : parse_short(skb, f, l4);
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct flow *f)
{
	struct iphdr *ip;
	__u16 fragment;

	if (!make_linear(skb, ETH_HLEN + sizeof(*ip)))
		return DROP_INVALID_PACKET;
	ip = packet_data(skb) + ETH_HLEN;
	if ((void *)(ip + 1) > packet_end(skb) || ip->version != 4 || ip->ihl < 5)
		return DROP_INVALID_PACKET;
	f->v4 = 1;
	f->source = addr_from_v4(ip->saddr);
	f->destination = addr_from_v4(ip->daddr);
	f->protocol = ip->protocol;
	f->hop_limit = ip->ttl;
	fragment = bpf_ntohs(ip->frag_off);
	f->dont_fragment = !!(fragment & IPV4_DONT_FRAGMENT);
	if (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) {
		f->fragment = fragment & IPV4_FRAGMENT_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
		f->fragment_id = ip->id;
	}
	return parse_transport(skb, f, ETH_HLEN + ip->ihl * 4);
}

/* Takes note of a fragment header and gives the length of the extension header; 0: `type` is not one. */
static __always_inline __u32 extension_length(struct flow *f, __u8 type, const struct ipv6_extension *header)
{
	switch (type) {
	case IPPROTO_FRAGMENT:
		f->fragment_id = header->id;
		/* A fragment that is the whole datagram (RFC 6946) is none. */
		if (bpf_ntohs(header->fragment) & IPV6_FRAGMENT_OFFSET)
			f->fragment = FRAGMENT_LATER;
		else if (bpf_ntohs(header->fragment) & 1)
			f->fragment = FRAGMENT_FIRST;
		return sizeof(*header);
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return (header->length + 1) * 8;
	case IPPROTO_AH:
		return (header->length + 2) * 4;
	}
	return 0;
}

static __always_inline bool is_extension(__u8 type)
{
	return type == IPPROTO_HOPOPTS || type == IPPROTO_ROUTING || type == IPPROTO_DSTOPTS ||
	       type == IPPROTO_AH || type == IPPROTO_FRAGMENT;
}

/* Walks the extension headers from `next` on; gives the offset of the transport header, 0 when there is none in reach. */
SUBPROGRAM __u32 skip_extensions(struct __sk_buff *skb, struct flow *f, __u8 next)
{
	struct ipv6_extension header;
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);

	if (!f)
		return 0;
	for (int i = 0; i < IPV6_EXTENSION_HEADERS && is_extension(next) && f->fragment != FRAGMENT_LATER; i++) {
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return 0;
		offset += extension_length(f, next, &header);
		next = header.next;
	}
	f->protocol = next;
	return is_extension(next) && f->fragment != FRAGMENT_LATER ? 0 : offset;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct flow *f)
{
	__u32 l4 = ETH_HLEN + sizeof(struct ipv6hdr);
	struct ipv6hdr *ip;

	if (!make_linear(skb, l4))
		return DROP_INVALID_PACKET;
	ip = packet_data(skb) + ETH_HLEN;
	if ((void *)(ip + 1) > packet_end(skb) || ip->version != 6)
		return DROP_INVALID_PACKET;
	f->source = addr_from_v6(&ip->saddr);
	f->destination = addr_from_v6(&ip->daddr);
	f->protocol = ip->nexthdr;
	f->hop_limit = ip->hop_limit;
	/* An IPv4-mapped address on the wire would be taken for IPv4 by every map. */
	if (addr_is_v4(&f->source) || addr_is_v4(&f->destination))
		return DROP_INVALID_PACKET;
	if (is_extension(f->protocol)) {
		l4 = skip_extensions(skb, f, f->protocol);
		if (!l4)
			return DROP_INVALID_EXTENSION_HEADER;
	}
	return parse_transport(skb, f, l4);
}

/* Fills `f`, which the caller has zeroed; 0 or the reason why the packet is not understood. */
SUBPROGRAM int parse(struct __sk_buff *skb, struct flow *f)
{
	if (!f)
		return DROP_INVALID_PACKET;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, f);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(skb, f);
	return DROP_UNSUPPORTED_L3;
}
