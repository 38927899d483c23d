/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Direct server return: a client's packet goes on to a backend elsewhere with the client's own address, and says in an option of its IP
 * header to which service it came. The backend's node remembers that, and answers the client as the service by itself. */

#include "refuse.h"

#define DSR_OPTION_V4 0x9a /* copied into fragments, number 26 */
#define DSR_OPTION_V6 0x1b /* skipped by those who do not know it */
#define DSR_HEADER_UNITS 2 /* of 8 bytes, beyond the first */

/* Port and address are in little-endian order. */
struct dsr_option_v4 {
	__u8 type;
	__u8 length;
	__u16 port;
	__u32 address;
};

/* A destination options header (RFC 8200, section 4.6) with one option. */
struct dsr_header_v6 {
	__u8 next;
	__u8 units;
	__u8 type;
	__u8 length;
	__be32 address[4];
	__be16 port;
	__u16 pad;
};

#define DSR_OPTION_LENGTH_V6 20

static __always_inline __u32 dsr_length(const struct flow *f)
{
	return f->v4 ? sizeof(struct dsr_option_v4) : sizeof(struct dsr_header_v6);
}

/* The backend's node must hear of the service: with the first packet of a TCP connection, and with every datagram. */
static __always_inline bool dsr_is_due(const struct flow *f)
{
	return f->protocol == IPPROTO_TCP ? opens_connection(f) : f->fragment != FRAGMENT_LATER;
}

/* A header without other options. */
struct dsr_head_v4 {
	struct iphdr ip;
	struct dsr_option_v4 option;
};

static __always_inline long announce_v4(struct __sk_buff *skb, const struct flow *f)
{
	struct dsr_head_v4 head = {};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &head.ip, sizeof(head.ip)) || head.ip.ihl != sizeof(head.ip) / 4)
		return -1;
	head.ip.ihl = sizeof(head) / 4;
	head.ip.tot_len = bpf_htons(bpf_ntohs(head.ip.tot_len) + sizeof(head.option));
	head.option.type = DSR_OPTION_V4;
	head.option.length = sizeof(head.option);
	head.option.port = bpf_ntohs(f->destination_port);
	head.option.address = bpf_ntohl(addr_v4(&f->destination));
	head.ip.check = 0;
	head.ip.check = fold_checksum(bpf_csum_diff(NULL, 0, (__be32 *)&head, sizeof(head), 0));
	return bpf_skb_adjust_room(skb, sizeof(head.option), BPF_ADJ_ROOM_NET, 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &head, sizeof(head), 0);
}

static __always_inline long announce_v6(struct __sk_buff *skb, const struct flow *f)
{
	struct dsr_header_v6 option = {
		.units = DSR_HEADER_UNITS, .type = DSR_OPTION_V6, .length = DSR_OPTION_LENGTH_V6, .port = f->destination_port
	};
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	__builtin_memcpy(option.address, &f->destination, sizeof(option.address));
	option.next = ip.nexthdr;
	ip.nexthdr = IPPROTO_DSTOPTS;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) + sizeof(option));
	return bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &option, sizeof(option), 0);
}

/* Writes the service that a packet came to into its IP header. 0 or the reason to drop. */
SUBPROGRAM int announce_service(struct __sk_buff *skb, struct flow *f)
{
	if (!f || (f->v4 ? announce_v4(skb, f) : announce_v6(skb, f)))
		return DROP_WRITE_ERROR;
	f->l4 += dsr_length(f);
	return 0;
}

static __always_inline bool read_announced_v4(struct __sk_buff *skb, struct target *service)
{
	struct dsr_option_v4 option;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &option, sizeof(option)) ||
	    option.type != DSR_OPTION_V4 || option.length != sizeof(option))
		return false;
	service->address = addr_from_v4(bpf_htonl(option.address));
	service->port = bpf_htons(option.port);
	return true;
}

static __always_inline bool read_announced_v6(struct __sk_buff *skb, struct target *service)
{
	struct dsr_header_v6 option;
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)) ||
	    next != IPPROTO_DSTOPTS ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &option, sizeof(option)) ||
	    option.units != DSR_HEADER_UNITS || option.type != DSR_OPTION_V6 || option.length != DSR_OPTION_LENGTH_V6)
		return false;
	__builtin_memcpy(&service->address, option.address, sizeof(option.address));
	service->port = option.port;
	return !addr_is_v4(&service->address);
}

/* The service has the receiver of the packet as a backend, and lets it answer by itself; so nobody out there can make a pod answer as
 * somebody else. */
static __always_inline bool is_answerer(const struct target *service, const struct flow *f)
{
	struct service_key key = {
		.address = service->address, .port = service->port, .protocol = f->protocol, .scope = SCOPE_EXTERNAL
	};
	const struct service_entry *entry = bpf_map_lookup_elem(&cilium_services, &key);

	if (!entry && is_nodeport(service->port) && is_remote_node(peer_identity(&service->address))) {
		key.address = any_address(f->v4);
		entry = bpf_map_lookup_elem(&cilium_services, &key);
	}
	if (!entry || !(entry->flags & SERVICE_DSR))
		return false;
	/* Kernels without bpf_loop cannot tell. */
	return !(CFG.flags & CONFIG_SET_RETVAL) || is_among(entry, &f->destination, f->destination_port);
}

/* The client may come by another service from the same port, which ends what it had there. */
static __always_inline int remember_service(struct scratch *w, const struct flow *f, __u32 now)
{
	struct nat_entry *held;

	nat_key_of_arrival(f, NAT_OUT, &w->key);
	__builtin_memset(&w->entry, 0, sizeof(w->entry));
	w->entry.to = w->backend.address;
	w->entry.to_port = w->backend.port;
	/* Only answers pass here that could say that the connection goes on. */
	w->entry.flags = CT_SERVICE | CT_CONFIRMED | CT_DSR;
	w->entry.expires = now + ct_lifetime(f->protocol, w->entry.flags);
	held = bpf_map_lookup_elem(&cilium_snat, &w->key);
	if (held && !(held->flags & CT_SERVICE) && !nat_is_over(held, now))
		return DROP_NAT_NO_MAPPING;
	if (held && nat_is_same(held, &w->entry) && !opens_connection(f)) {
		held->expires = w->entry.expires;
		return 0;
	}
	return bpf_map_update_elem(&cilium_snat, &w->key, &w->entry, BPF_ANY) ? DROP_CT_INSERT_FAILED : 0;
}

#define LEARNED 1 /* no drop has this number */

/* Takes note of the service that a client came to. LEARNED, 0 when the packet does not say so, or the reason to drop. */
SUBPROGRAM int learn_service(struct __sk_buff *skb, struct flow *f)
{
	struct scratch *w = find_scratch();
	int reason;

	if (!f || !w || f->fragment == FRAGMENT_LATER ||
	    !(f->v4 ? read_announced_v4(skb, &w->backend) : read_announced_v6(skb, &w->backend)))
		return 0;
	/* This node may hear later than the other one of a new backend: the client tries again. */
	if (!is_answerer(&w->backend, f))
		return DROP_NO_SERVICE;
	reason = remember_service(w, f, now_seconds());
	return reason ? reason : LEARNED;
}

/* There may be an option. */
static __always_inline bool has_long_header(const struct flow *f)
{
	return f->l4 != ETH_HLEN + (f->v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) && !is_icmp(f);
}
