/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The short way for what makes up nearly all traffic of pods: TCP in the middle of a connection and UDP, without IP options or
 * fragments, on a connection of which the long way has seen a packet in this second. The result is that of the long way, with
 * one look-up instead of three and no writes to the table. */

#include "deliver.h"
#include "plain.h"

/* What take_fast_path() answers: the verdict, or one of these. */
#define NOT_TAKEN (1ULL << 32) /* the packet must go the long way; it is unchanged */
#define WAY_KNOWN (2ULL << 32) /* the packet may go by the route in bits 0 to 15 with the port in bits 16 to 31 */

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
static __always_inline __u64 fast_deliver(struct __sk_buff *skb, const struct flow *f, const struct ct_side *receiver)
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
	address_frame(eth, receiver->mac);
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return bpf_redirect_peer(receiver->ifindex, 0);
}

static __always_inline bool fast_parse(struct __sk_buff *skb, struct flow *f)
{
	if (skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return plain_ipv4(packet_data(skb) + ETH_HLEN, packet_end(skb), f);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && plain_ipv6(packet_data(skb) + ETH_HLEN, packet_end(skb), f);
}

/* The entry, when the long way has seen a packet of the connection in this second. */
static __always_inline const struct ct_entry *fast_find(const struct ct_key *key, __u8 protocol)
{
	const struct ct_entry *entry = bpf_map_lookup_elem(&cilium_ct, key);
	__u32 lifetime = protocol == IPPROTO_TCP ? LIFETIME_TCP : LIFETIME_OTHER;

	return entry && !(entry->flags & (CT_REFUSED | CT_PROXY)) && entry->expires == now_seconds() + lifetime ? entry : NULL;
}

/* A subprogram so that its stack is not in use on the long way, and without arguments that would have to be filled for it. */
SUBPROGRAM __u64 take_fast_path(struct __sk_buff *skb)
{
	const struct ct_side *sender, *receiver;
	const struct ct_entry *entry;
	struct ct_key key;
	bool high, reply;
	struct flow f;

	if (!fast_parse(skb, &f))
		return NOT_TAKEN;
	high = ct_key_of(&f, &key);
	entry = fast_find(&key, f.protocol);
	if (!entry)
		return NOT_TAKEN;
	reply = ct_is_reply(entry, high);
	sender = high ? &entry->high_side : &entry->low_side;
	receiver = high ? &entry->low_side : &entry->high_side;
	/* What was sent to a service here, and its answers, are rewritten. */
	if (entry->flags & CT_SERVICE && !(reply && entry->flags & CT_ROUTE))
		return NOT_TAKEN;
	if (sender->ifindex != skb->ifindex || !fast_is_judged(entry, sender, receiver, reply))
		return NOT_TAKEN;
	if (entry->flags & CT_ROUTE)
		return WAY_KNOWN | (entry->flags & (CT_ROUTE | (reply ? CT_SERVICE : 0))) |
		       (reply ? 0 : (__u32)entry->nat_port << 16);
	return fast_deliver(skb, &f, receiver);
}
