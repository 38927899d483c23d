/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The short way of packets between clients outside and backends elsewhere, before the stack knows of them: a known connection, in plain
 * packets, that leaves by the device that it came by. The result is that of the long way (nodeport.h), which gets everything else
 * unchanged. */

#include "nodeport.h"
#include "plain.h"

/* Addresses and ports of a packet, as its checksums see them. */
struct ends {
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
};

#define ENDS_SIZE 36 /* without the padding behind the ports */
#define ADDRESSES_SIZE 32

/* A frame for this machine: switches also bring those for others, which the stack leaves alone. */
static __always_inline bool is_for_device(const struct ethhdr *eth)
{
	for (int i = 0; i < ETH_ADDR_LEN; i++)
		if (eth->h_dest[i] != CFG.device_mac[i])
			return false;
	return true;
}

static __always_inline bool early_parse(struct xdp_md *ctx, struct flow *f)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > end || !is_for_device(eth))
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return plain_ipv4(eth + 1, end, f);
	return eth->h_proto == bpf_htons(ETH_P_IPV6) && plain_ipv6(eth + 1, end, f);
}

/* A client's packet to a service that is sent on to a backend elsewhere, as before: into `w->entry`. */
static __always_inline bool find_forth(struct scratch *w, const struct flow *f)
{
	const struct service_entry *service = find_frontend(f, &w->service);
	__u32 now = now_seconds();
	struct nat_entry *known;

	if (!service)
		return false;
	nat_key_of_arrival(f, NAT_SERVICE, &w->key);
	known = bpf_map_lookup_elem(&cilium_snat, &w->key);
	return known && known->from_port && known->generation == service->generation && stays(known, service, f, now) &&
	       go_on(w, known, f, now);
}

/* The answer of such a backend. */
static __always_inline bool find_back(struct scratch *w, const struct flow *f)
{
	if (!is_own_address(f) || !nat_port_in_range(f->destination_port))
		return false;
	if (!nat_find_arrival(f, NAT_IN, &w->entry) || !w->entry.from_port)
		return false;
	follow_answer(f, &w->entry);
	return true;
}

/* The receiver is neither on this node nor behind a tunnel. */
static __always_inline bool is_elsewhere(const struct addr *receiver)
{
	const struct ipcache_entry *peer;

	if (bpf_map_lookup_elem(&cilium_endpoints, receiver))
		return false;
	peer = find_peer(receiver);
	if (!peer)
		return true;
	if (peer->identity == IDENTITY_HOST)
		return false;
	return !is_behind_tunnel(peer);
}

/* By the device that the packet came by, to a neighbour that is known, and without fragments. Not every device can be sent to from here, and
 * one that cannot would lose the packet without a word. */
static __always_inline bool find_early_route(struct xdp_md *ctx, const struct flow *f, struct bpf_fib_lookup *route)
{
	__u32 length = ctx->data_end - ctx->data - ETH_HLEN;

	/* The sender hears of it on the long way. */
	if (CFG.mtu && length > CFG.mtu)
		return false;
	fill_route_query(route, ctx->ingress_ifindex, f, &f->source);
	route->tot_len = length > 0xffff ? 0xffff : length;
	return bpf_fib_lookup(ctx, route, sizeof(*route), 0) == BPF_FIB_LKUP_RET_SUCCESS &&
	       route->ifindex == ctx->ingress_ifindex;
}

static __always_inline void ends_of(const struct flow *f, struct ends *ends)
{
	ends->source = f->source;
	ends->destination = f->destination;
	ends->source_port = f->source_port;
	ends->destination_port = f->destination_port;
}

static __always_inline void turn(struct flow *f, const struct nat_entry *entry)
{
	f->source = entry->from;
	f->source_port = entry->from_port;
	f->destination = entry->to;
	f->destination_port = entry->to_port;
}

/* The one's complement sum in 16 bits (RFC 1071). */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* A checksum after a change (RFC 1624, equation 3). */
static __always_inline __u16 changed(__u16 checksum, __s64 difference)
{
	return ~fold((__u64)(__u16)~checksum + (__u32)difference);
}

/* A sender on this machine leaves the checksum to the device, where one between namespaces does nothing: there is only the sum over the
 * pseudo header. The stack knows; here it shows. One in 65,536 finished ones looks the same, and takes the long way. In the mapped form an
 * IPv4 address adds 0xffff, which is nothing. */
static __always_inline bool is_unfinished(const struct ends *ends, __u8 protocol, __be16 length, __u16 checksum)
{
	__s64 sum = bpf_csum_diff(NULL, 0, (__be32 *)ends, ADDRESSES_SIZE, 0);

	return checksum == fold((__u64)(__u32)sum + bpf_htons(protocol) + length);
}

/* Offset of the checksum in the header; the header is in the packet, as plain_ports() has seen. */
static __always_inline __u16 *transport_checksum(void *l4, void *end, __u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return l4 + TCP_HEADER_LEN > end ? NULL : l4 + TCP_CHECKSUM;
	return l4 + SHORT_HEADER_LEN > end ? NULL : l4 + UDP_CHECKSUM;
}

/* A UDP packet without a checksum stays one (RFC 768), and none gets to be one. */
static __always_inline void rewrite_transport(__be16 *ports, __u16 *checksum, const struct ends *from, const struct ends *to,
					      __u8 protocol)
{
	__s64 difference = bpf_csum_diff((__be32 *)from, ENDS_SIZE, (__be32 *)to, ENDS_SIZE, 0);

	if (protocol == IPPROTO_TCP) {
		*checksum = changed(*checksum, difference);
	} else if (*checksum) {
		*checksum = changed(*checksum, difference);
		if (!*checksum)
			*checksum = 0xffff;
	}
	ports[0] = to->source_port;
	ports[1] = to->destination_port;
}

static __always_inline bool early_ipv4(struct iphdr *ip, void *end, const struct ends *from, const struct ends *to)
{
	__u16 *checksum;

	if ((void *)(ip + 1) > end)
		return false;
	checksum = transport_checksum(ip + 1, end, ip->protocol);
	if (!checksum ||
	    is_unfinished(from, ip->protocol, bpf_htons(bpf_ntohs(ip->tot_len) - sizeof(*ip)), *checksum))
		return false;
	rewrite_transport((__be16 *)(ip + 1), checksum, from, to, ip->protocol);
	ip->check = changed(ip->check,
			    bpf_csum_diff((__be32 *)from, ADDRESSES_SIZE, (__be32 *)to, ADDRESSES_SIZE, 0));
	ip->saddr = addr_v4(&to->source);
	ip->daddr = addr_v4(&to->destination);
	lower_ttl(ip);
	return true;
}

static __always_inline bool early_ipv6(struct ipv6hdr *ip, void *end, const struct ends *from, const struct ends *to)
{
	__u16 *checksum;

	if ((void *)(ip + 1) > end)
		return false;
	checksum = transport_checksum(ip + 1, end, ip->nexthdr);
	if (!checksum || is_unfinished(from, ip->nexthdr, ip->payload_len, *checksum))
		return false;
	rewrite_transport((__be16 *)(ip + 1), checksum, from, to, ip->nexthdr);
	__builtin_memcpy(&ip->saddr, &to->source, sizeof(to->source));
	__builtin_memcpy(&ip->daddr, &to->destination, sizeof(to->destination));
	ip->hop_limit--;
	return true;
}

/* Turns the packet, whose ends were `from`, into that of `f`, and sends it back out. */
static __always_inline int early_send(struct xdp_md *ctx, const struct flow *f, const struct ends *from,
				      const struct bpf_fib_lookup *route)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct ends to = {};

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	ends_of(f, &to);
	if (f->v4 ? !early_ipv4((void *)(eth + 1), end, from, &to) : !early_ipv6((void *)(eth + 1), end, from, &to))
		return XDP_PASS;
	__builtin_memcpy(eth->h_dest, route->dmac, ETH_ADDR_LEN);
	__builtin_memcpy(eth->h_source, route->smac, ETH_ADDR_LEN);
	count(FORWARDED, DIRECTION_EGRESS, ctx->data_end - ctx->data);
	return XDP_TX;
}

static __always_inline int take_early_way(struct xdp_md *ctx)
{
	struct scratch *w = find_scratch();
	struct bpf_fib_lookup route = {};
	struct ends from = {};
	struct flow f = {};

	if (!w || !early_parse(ctx, &f) || !(find_back(w, &f) || find_forth(w, &f)))
		return XDP_PASS;
	ends_of(&f, &from);
	turn(&f, &w->entry);
	if (!is_elsewhere(&f.destination) || !find_early_route(ctx, &f, &route))
		return XDP_PASS;
	return early_send(ctx, &f, &from, &route);
}
