/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What makes up nearly all traffic: TCP in the middle of a connection and UDP, without IP options, extension headers or fragments. Read in
 * place, for the short ways. */

#include "parse.h"

#define IPV4_PLAIN_HEADER 0x45 /* version 4, no options */

/* A TCP packet that changes the state of its connection is not plain. */
static __always_inline bool plain_ports(void *l4, void *end, struct flow *f)
{
	__u8 *header = l4;

	if (f->protocol == IPPROTO_UDP) {
		if (l4 + SHORT_HEADER_LEN > end)
			return false;
	} else if (f->protocol == IPPROTO_TCP) {
		if (l4 + TCP_HEADER_LEN > end || header[13] & (TCP_SYN | TCP_FIN | TCP_RST))
			return false;
	} else {
		return false;
	}
	f->source_port = *(__be16 *)header;
	f->destination_port = *(__be16 *)(header + 2);
	return !hops_used_up(f);
}

static __always_inline bool plain_ipv4(void *l3, void *end, struct flow *f)
{
	struct iphdr *ip = l3;

	if ((void *)(ip + 1) > end || *(__u8 *)ip != IPV4_PLAIN_HEADER ||
	    ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		return false;
	f->v4 = 1;
	f->source = addr_from_v4(ip->saddr);
	f->destination = addr_from_v4(ip->daddr);
	f->protocol = ip->protocol;
	f->hop_limit = ip->ttl;
	return plain_ports(ip + 1, end, f);
}

static __always_inline bool plain_ipv6(void *l3, void *end, struct flow *f)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return false;
	f->v4 = 0;
	f->source = addr_from_v6(&ip->saddr);
	f->destination = addr_from_v6(&ip->daddr);
	f->protocol = ip->nexthdr;
	f->hop_limit = ip->hop_limit;
	/* As in parse(). */
	if (addr_is_v4(&f->source) || addr_is_v4(&f->destination))
		return false;
	return plain_ports(ip + 1, end, f);
}
