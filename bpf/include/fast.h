/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The short way for what makes up nearly all traffic of pods: TCP in the middle of a connection and UDP, without IP options or
 * fragments, on a connection of which the long way has seen a packet in this second. The result is that of the long way, with
 * one look-up instead of three and no writes to the table. */

#include "deliver.h"

#define NOT_TAKEN (-1) /* the packet must go the long way; it is unchanged */
#define WAY_KNOWN (-2) /* the packet may go where `sides` says */
#define IPV4_PLAIN_HEADER 0x45 /* version 4, no options */

/* A packet that can go the short way; a TCP packet that changes the state of its connection cannot. */
static __always_inline bool fast_ports(void *l4, void *end, struct flow *f)
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

static __always_inline bool fast_ipv4(struct __sk_buff *skb, struct flow *f)
{
	struct iphdr *ip = packet_data(skb) + ETH_HLEN;

	if ((void *)(ip + 1) > packet_end(skb) || *(__u8 *)ip != IPV4_PLAIN_HEADER ||
	    ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		return false;
	f->v4 = 1;
	f->l4 = ETH_HLEN + sizeof(*ip);
	f->dont_fragment = !!(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	f->source = addr_from_v4(ip->saddr);
	f->destination = addr_from_v4(ip->daddr);
	f->protocol = ip->protocol;
	f->hop_limit = ip->ttl;
	return fast_ports(ip + 1, packet_end(skb), f);
}

static __always_inline bool fast_ipv6(struct __sk_buff *skb, struct flow *f)
{
	struct ipv6hdr *ip = packet_data(skb) + ETH_HLEN;

	if ((void *)(ip + 1) > packet_end(skb) || ip->version != 6)
		return false;
	f->l4 = ETH_HLEN + sizeof(*ip);
	f->source = addr_from_v6(&ip->saddr);
	f->destination = addr_from_v6(&ip->daddr);
	f->protocol = ip->nexthdr;
	f->hop_limit = ip->hop_limit;
	/* As in parse(). */
	if (addr_is_v4(&f->source) || addr_is_v4(&f->destination))
		return false;
	return fast_ports(ip + 1, packet_end(skb), f);
}

static __always_inline __u64 fast_slot(const struct ct_side *side)
{
	__u32 index = side->slot;
	__u64 *slot = bpf_map_lookup_elem(&cilium_slots, &index);

	return slot ? *(volatile __u64 *)slot : 0;
}

/* The policies that let the connection through are still in force, no pod is shut, and the way is sure. */
static __always_inline bool fast_is_judged(const struct ct_entry *entry, const struct ct_side *sender,
					   const struct ct_side *receiver, bool reply)
{
	__u64 from = fast_slot(sender), to = SLOT_OPEN;

	if (!(entry->flags & CT_ROUTE)) {
		if (!receiver->ifindex)
			return false;
		to = fast_slot(receiver);
	}
	if (!(from & to & SLOT_OPEN))
		return false;
	if (reply || entry->flags & CT_ROUTE)
		if (!(entry->flags & CT_REPLIED))
			return false;
	return reply || (entry->egress_generation == slot_generation(from) &&
			 entry->ingress_generation == slot_generation(to));
}

/* Addresses the frame to the receiver and takes a hop. Packets of pods have no sum that a device computed, so nothing must be
 * told of IPv6's hop limit. */
static __always_inline int fast_deliver(struct __sk_buff *skb, const struct flow *f, const struct ct_side *receiver)
{
	struct ethhdr *eth = packet_data(skb);
	struct ipv6hdr *ip = (void *)(eth + 1);

	if ((void *)eth + ETH_HLEN + sizeof(struct iphdr) > packet_end(skb))
		return NOT_TAKEN;
	if (f->v4) {
		if (take_hop_ipv4(skb))
			return NOT_TAKEN;
	} else {
		if ((void *)(ip + 1) > packet_end(skb))
			return NOT_TAKEN;
		ip->hop_limit--;
	}
	__builtin_memcpy(eth->h_dest, receiver->mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, receiver->host_mac, ETH_ALEN);
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return bpf_redirect_peer(receiver->ifindex, 0);
}

static __always_inline bool fast_parse(struct __sk_buff *skb, struct flow *f)
{
	if (skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return fast_ipv4(skb, f);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && fast_ipv6(skb, f);
}

/* The verdict, WAY_KNOWN, or NOT_TAKEN. A subprogram so that its stack is not in use on the long way. */
SUBPROGRAM int take_fast_path(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	const struct ct_side *sender, *receiver;
	const struct ct_entry *entry;
	struct ct_key key;
	__u32 lifetime;
	bool high, reply;

	if (!f || !s || !fast_parse(skb, f))
		return NOT_TAKEN;
	high = ct_key_of(f, &key);
	entry = bpf_map_lookup_elem(&cilium_ct, &key);
	lifetime = f->protocol == IPPROTO_TCP ? LIFETIME_TCP : LIFETIME_OTHER;
	if (!entry || entry->expires != now_seconds() + lifetime)
		return NOT_TAKEN;
	reply = ct_is_reply(entry, high);
	sender = high ? &entry->high_side : &entry->low_side;
	receiver = high ? &entry->low_side : &entry->high_side;
	if (sender->ifindex != skb->ifindex || !fast_is_judged(entry, sender, receiver, reply))
		return NOT_TAKEN;
	if (!(entry->flags & CT_ROUTE))
		return fast_deliver(skb, f, receiver);
	s->from_here = 1;
	s->from.identity = sender->identity;
	s->route = entry->flags & CT_ROUTE;
	s->nat_port = reply ? 0 : entry->nat_port;
	return WAY_KNOWN;
}
