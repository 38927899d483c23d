/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Answers for addresses of services that no device has: ARP (RFC 826) and neighbour discovery (RFC 4861), on the device on which
 * the question came. */

#include "heartbeat.h"
#include "events.h"

#define PACKET_OTHERHOST 3 /* as PACKET_HOST */

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_ANSWER 2

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255
#define ND_TARGET_MAC_OPTION 2
#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_LENGTH 24 /* of a question or an answer without options */
#define ND_TARGET 8

/* The head of a packet of ARP, and where the rest stands in the frame. */
struct arp_head {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
};

#define ARP_OPERATION (ETH_HLEN + 6)
#define ARP_SENDER_MAC (ETH_HLEN + 8)
#define ARP_SENDER (ETH_HLEN + 14)
#define ARP_TARGET_MAC (ETH_HLEN + 18)
#define ARP_TARGET (ETH_HLEN + 24)

struct nd_answer {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct addr target;
	__u8 option;
	__u8 option_length; /* in units of 8 bytes */
	__u8 mac[ETH_ADDR_LEN];
};

struct nd_packet {
	struct ipv6hdr ip;
	struct nd_answer answer;
};

/* Whether this node is the one that answers, as far as it can know now. Times are in nanoseconds. */
static __always_inline bool may_answer(const struct announcement_entry *entry, const struct link_entry *link,
				       const struct link_signs *signs, __u64 now)
{
	__u64 alive = announcer(ANNOUNCER_AGENT);

	if (entry->state != ANNOUNCEMENT_ANSWERED)
		return false;
	if (link->flags & LINK_ALONE)
		return true;
	if (link->flags & LINK_SOLO)
		return signs->met < link->bound;
	if (link->flags & LINK_LEASED)
		return alive && now < alive + link->bound;
	if (now > alive + AGENT_AWAY_AT_MOST && now < signs->asked + ASKED_WITHIN)
		return false;
	return now < signs->heard + HEARD_WITHIN || alive < signs->heard + AGENT_ALIVE_WITHIN;
}

static __always_inline struct announcement_entry *find_announcement_of(struct addr address, __u32 ifindex)
{
	struct announcement_key key = { .address = address, .ifindex = ifindex };

	return bpf_map_lookup_elem(&cilium_announcements, &key);
}

/* The device's entry if this node answers for the address there; counts the answer. */
static __always_inline struct link_entry *find_answering(struct announcement_entry *entry, __u32 ifindex)
{
	struct link_entry *link = bpf_map_lookup_elem(&cilium_links, &ifindex);
	struct link_signs *signs = bpf_map_lookup_elem(&cilium_link_signs, &ifindex);

	if (!link || !signs || !may_answer(entry, link, signs, bpf_ktime_get_ns()))
		return NULL;
	__sync_fetch_and_add(&entry->replies, 1);
	return link;
}

/* Somebody says that the address is at this MAC address. */
static __always_inline void note_claim(struct announcement_entry *entry, const __u8 *mac, __u32 ifindex)
{
	struct link_entry *link = bpf_map_lookup_elem(&cilium_links, &ifindex);

	if (!link || !__builtin_memcmp(link->mac, mac, ETH_ADDR_LEN))
		return;
	__builtin_memcpy(entry->claimant, mac, ETH_ADDR_LEN);
	entry->claimed = bpf_ktime_get_ns();
}

static __always_inline bool read_arp(struct __sk_buff *skb, struct arp_head *head, __u8 *mac, __be32 *sender, __be32 *target)
{
	return !bpf_skb_load_bytes(skb, ETH_HLEN, head, sizeof(*head)) && head->hardware == bpf_htons(ARP_ETHERNET) &&
	       head->protocol == bpf_htons(ETH_P_IP) && head->hardware_length == ETH_ADDR_LEN &&
	       head->protocol_length == sizeof(*sender) && !bpf_skb_load_bytes(skb, ARP_SENDER_MAC, mac, ETH_ADDR_LEN) &&
	       !bpf_skb_load_bytes(skb, ARP_SENDER, sender, sizeof(*sender)) &&
	       !bpf_skb_load_bytes(skb, ARP_TARGET, target, sizeof(*target));
}

/* Turns the question into its answer. */
static __always_inline int send_arp_answer(struct __sk_buff *skb, const __u8 *asker_mac, __be32 asker, __be32 wanted,
					   const struct link_entry *link)
{
	__be16 operation = bpf_htons(ARP_ANSWER);

	if (bpf_skb_store_bytes(skb, 0, asker_mac, ETH_ADDR_LEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_ADDR_LEN, link->mac, ETH_ADDR_LEN, 0) ||
	    bpf_skb_store_bytes(skb, ARP_OPERATION, &operation, sizeof(operation), 0) ||
	    bpf_skb_store_bytes(skb, ARP_SENDER_MAC, link->mac, ETH_ADDR_LEN, 0) ||
	    bpf_skb_store_bytes(skb, ARP_SENDER, &wanted, sizeof(wanted), 0) ||
	    bpf_skb_store_bytes(skb, ARP_TARGET_MAC, asker_mac, ETH_ADDR_LEN, 0) ||
	    bpf_skb_store_bytes(skb, ARP_TARGET, &asker, sizeof(asker), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

/* TC_ACT_UNSPEC leaves the packet to whoever comes next. */
SUBPROGRAM int answer_arp(struct __sk_buff *skb)
{
	struct announcement_entry *entry;
	__u8 mac[ETH_ADDR_LEN] = {};
	struct arp_head head = {};
	struct link_entry *link;
	__u32 ifindex = skb->ifindex;
	__be32 sender = 0, target = 0;

	if (!read_arp(skb, &head, mac, &sender, &target))
		return TC_ACT_UNSPEC;
	/* Whoever has an address says so as its sender, in answers and when it takes it over (RFC 5227). */
	entry = find_announcement_of(addr_from_v4(sender), ifindex);
	if (entry)
		note_claim(entry, mac, ifindex);
	if (entry || head.operation != bpf_htons(ARP_REQUEST))
		return TC_ACT_UNSPEC;
	entry = find_announcement_of(addr_from_v4(target), ifindex);
	if (!entry)
		return TC_ACT_UNSPEC;
	link = find_answering(entry, ifindex);
	return link ? send_arp_answer(skb, mac, sender, target, link) : TC_ACT_UNSPEC;
}

/* One's complement sum of the answer with its pseudo-header (RFC 4443 section 2.3). */
static __always_inline __be16 nd_checksum(struct nd_packet *packet)
{
	__be32 tail[2] = { bpf_htonl(sizeof(packet->answer)), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum = bpf_csum_diff(NULL, 0, (__be32 *)&packet->ip.saddr, 2 * sizeof(struct addr), 0);

	sum = bpf_csum_diff(NULL, 0, tail, sizeof(tail), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&packet->answer, sizeof(packet->answer), sum);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static __always_inline void store_addr(void *to, struct addr address)
{
	__builtin_memcpy(to, &address, sizeof(address));
}

/* To the one who asked, or to all when it has no address yet: it looks whether somebody has the one it wants (RFC 4861 section
 * 7.2.4). */
static __always_inline int send_nd_answer(struct __sk_buff *skb, struct addr asker, struct addr target,
					  const struct link_entry *link)
{
	struct ethhdr eth = { .h_proto = bpf_htons(ETH_P_IPV6) };
	struct nd_packet packet = {};
	bool to_all = addr_is_none(&asker);
	struct addr all_nodes = { .hi = bpf_cpu_to_be64(0xff02ULL << 48), .lo = bpf_cpu_to_be64(1) };

	if (to_all) {
		static const __u8 all_nodes_mac[ETH_ADDR_LEN] = { 0x33, 0x33, 0, 0, 0, 1 };

		__builtin_memcpy(eth.h_dest, all_nodes_mac, ETH_ADDR_LEN);
	} else if (bpf_skb_load_bytes(skb, ETH_ADDR_LEN, eth.h_dest, ETH_ADDR_LEN)) {
		return TC_ACT_SHOT;
	}
	__builtin_memcpy(eth.h_source, link->mac, ETH_ADDR_LEN);
	packet.ip.version = 6;
	packet.ip.payload_len = bpf_htons(sizeof(packet.answer));
	packet.ip.nexthdr = IPPROTO_ICMPV6;
	packet.ip.hop_limit = ND_HOP_LIMIT;
	store_addr(&packet.ip.saddr, target);
	store_addr(&packet.ip.daddr, to_all ? all_nodes : asker);
	packet.answer.type = ND_ADVERTISEMENT;
	packet.answer.flags = bpf_htonl(ND_OVERRIDE | (to_all ? 0 : ND_SOLICITED));
	store_addr(&packet.answer.target, target);
	packet.answer.option = ND_TARGET_MAC_OPTION;
	packet.answer.option_length = 1;
	__builtin_memcpy(packet.answer.mac, link->mac, ETH_ADDR_LEN);
	packet.answer.checksum = nd_checksum(&packet);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(packet), 0) || bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &packet, sizeof(packet), 0))
		return TC_ACT_SHOT;
	skb->mark = MARK_FORWARDED;
	return bpf_redirect(skb->ifindex, 0);
}

/* The MAC address that an answer tells. */
static __always_inline bool read_told_mac(struct __sk_buff *skb, __u32 options, __u8 *mac)
{
	__u8 option[2 + ETH_ADDR_LEN];

	if (bpf_skb_load_bytes(skb, options, option, sizeof(option)) || option[0] != ND_TARGET_MAC_OPTION)
		return false;
	__builtin_memcpy(mac, option + 2, ETH_ADDR_LEN);
	return true;
}

SUBPROGRAM int answer_nd(struct __sk_buff *skb)
{
	const __u32 l4 = ETH_HLEN + sizeof(struct ipv6hdr);
	struct announcement_entry *entry;
	__u32 ifindex = skb->ifindex;
	struct link_entry *link;
	struct ipv6hdr ip = {};
	__u8 head[ND_LENGTH] = {};
	__u8 mac[ETH_ADDR_LEN];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_ICMPV6 || ip.hop_limit != ND_HOP_LIMIT)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, l4, head, sizeof(head)) || head[1])
		return TC_ACT_UNSPEC;
	if (head[0] != ND_SOLICITATION && head[0] != ND_ADVERTISEMENT)
		return TC_ACT_UNSPEC;
	entry = find_announcement_of(addr_from_v6(head + ND_TARGET), ifindex);
	if (!entry)
		return TC_ACT_UNSPEC;
	if (head[0] == ND_ADVERTISEMENT) {
		if (read_told_mac(skb, l4 + ND_LENGTH, mac))
			note_claim(entry, mac, ifindex);
		return TC_ACT_UNSPEC;
	}
	link = find_answering(entry, ifindex);
	return link ? send_nd_answer(skb, addr_from_v6(&ip.saddr), addr_from_v6(head + ND_TARGET), link) : TC_ACT_UNSPEC;
}

/* The verdict, or TC_ACT_UNSPEC when the packet is nothing of this. */
static __always_inline int answer_neighbours(struct __sk_buff *skb)
{
	if (!(CFG.flags & CONFIG_ANNOUNCE) || skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST)
		return TC_ACT_UNSPEC;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_ARP):
		return answer_arp(skb);
	case bpf_htons(ETH_P_IPV6):
		return answer_nd(skb);
	case bpf_htons(HEARTBEAT_ETHERTYPE):
		return hear(skb);
	default:
		return TC_ACT_UNSPEC;
	}
}
