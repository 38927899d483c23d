/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "rewrite.h"

#define ICMP_HEADER_LEN 8

/* The packet inside an ICMP error, and where its IP header is. */
struct quoted {
	struct flow flow;
	__u32 l3;
	__u32 pad;
};

/* Ports of the quoted packet: of every transport, the first 8 bytes are quoted at least (RFC 792). */
static __always_inline bool read_quoted_ports(struct __sk_buff *skb, struct flow *q)
{
	__u8 head[SHORT_HEADER_LEN] = {};

	if (bpf_skb_load_bytes(skb, q->l4, head, sizeof(head)))
		return false;
	if (is_icmp(q)) {
		q->icmp_type = head[0];
		set_icmp_ports(q, *(__be16 *)(head + 4));
		return !is_icmp_error(q);
	}
	q->source_port = *(__be16 *)head;
	q->destination_port = *(__be16 *)(head + 2);
	return true;
}

static __always_inline bool read_quoted_ipv4(struct __sk_buff *skb, struct quoted *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, quoted->l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	quoted->flow.v4 = 1;
	quoted->flow.source = addr_from_v4(ip.saddr);
	quoted->flow.destination = addr_from_v4(ip.daddr);
	quoted->flow.protocol = ip.protocol;
	quoted->flow.l4 = quoted->l3 + ip.ihl * 4;
	return !(bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT_OFFSET);
}

static __always_inline bool read_quoted_ipv6(struct __sk_buff *skb, struct quoted *quoted)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, quoted->l3, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	quoted->flow.source = addr_from_v6(&ip.saddr);
	quoted->flow.destination = addr_from_v6(&ip.daddr);
	quoted->flow.protocol = ip.nexthdr;
	quoted->flow.l4 = quoted->l3 + sizeof(ip);
	return !is_extension(ip.nexthdr);
}

/* Reads the packet that an ICMP error is about; false when it cannot be told which connection it was of. The error goes to
 * the sender of that packet, or it is no answer to it. */
SUBPROGRAM bool read_quoted(struct __sk_buff *skb, const struct flow *f, struct quoted *quoted)
{
	if (!f || !quoted)
		return false;
	__builtin_memset(quoted, 0, sizeof(*quoted));
	quoted->l3 = (f->l4 & L4_OFFSET_MAX) + ICMP_HEADER_LEN;
	if (f->v4 ? !read_quoted_ipv4(skb, quoted) : !read_quoted_ipv6(skb, quoted))
		return false;
	return addr_equal(&f->destination, &quoted->flow.source) && read_quoted_ports(skb, &quoted->flow);
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

/* What is kept of the connection that an ICMP error is about. */
struct relation {
	struct addr receiver; /* for whom the quoted packet was */
	__be16 nat_port;
	__u16 flags; /* CT_* */
	__u8 of_starter; /* who sent the quoted packet started the connection */
	__u8 pad[3];
};

/* The receiver of the error sent the quoted packet to a service. */
static __always_inline bool is_of_service(const struct relation *relation)
{
	return relation->of_starter && relation->flags & CT_SERVICE;
}

/* Finds that connection. */
SUBPROGRAM bool find_relation(struct __sk_buff *skb, const struct flow *f, struct relation *relation)
{
	struct quoted quoted = {};
	struct ct_entry *entry;
	struct ct_key key;
	bool high;

	if (!f || !relation || !read_quoted(skb, f, &quoted))
		return false;
	high = ct_key_of(&quoted.flow, &key);
	entry = ct_find(&key, now_seconds());
	if (!entry || entry->flags & CT_REFUSED)
		return false;
	relation->receiver = quoted.flow.destination;
	relation->nat_port = entry->nat_port;
	relation->flags = entry->flags;
	relation->of_starter = !ct_is_reply(entry, high);
	return true;
}

static __always_inline __u32 quoted_port_offset(const struct flow *q, bool source)
{
	return is_icmp(q) ? ICMP_ID : source ? 0 : 2;
}

/* The quoted IPv4 header's checksum balances the change of its address; IPv6 has none, so the ICMP checksum must. */
static __always_inline long rewrite_quoted_address(struct __sk_buff *skb, const struct quoted *quoted, __u32 checksum,
						   const struct nat_target *to)
{
	const struct flow *q = &quoted->flow;
	__s64 difference = address_difference(to->is_source ? q->source : q->destination, to->address);
	__u32 l3 = quoted->l3 & 1023;
	long failed;

	if (q->v4)
		failed = bpf_l3_csum_replace(skb, l3 + IPV4_CHECKSUM, 0, difference, 0);
	else
		failed = bpf_l4_csum_replace(skb, checksum, 0, difference, 0);
	return failed | store_address(skb, l3, q->v4, to->is_source, &to->address, 0);
}

/* Moves one side of the quoted packet, so that the receiver of the error recognises what it sent (RFC 5508 section 4). The
 * quoted transport checksum stays: hosts do not verify it, as the quote is cut short. */
SUBPROGRAM int rewrite_quoted(struct __sk_buff *skb, const struct flow *f, const struct quoted *quoted,
			      const struct nat_target *to)
{
	__u32 checksum, offset;
	__be16 old, port;

	if (!f || !quoted || !to)
		return DROP_WRITE_ERROR;
	checksum = (f->l4 & L4_OFFSET_MAX) + ICMP_CHECKSUM;
	old = to->is_source ? quoted->flow.source_port : quoted->flow.destination_port;
	offset = (quoted->flow.l4 & 1023) + quoted_port_offset(&quoted->flow, to->is_source);
	port = to->port;
	if (rewrite_quoted_address(skb, quoted, checksum, to) ||
	    bpf_l4_csum_replace(skb, checksum, old, port, sizeof(port)) ||
	    bpf_skb_store_bytes(skb, offset, &port, sizeof(port), 0))
		return DROP_WRITE_ERROR;
	return 0;
}
