/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "scratch.h"

#define AF_INET 2
#define AF_INET6 10
#define PACKET_HOST 0
#define TUNNEL_TTL 64
#define MARK_FORWARDED 0x0e00 /* on its way out for a pod or a client of a service, and not the node's own */

static __always_inline int pass_expired(struct __sk_buff *skb, const struct flow *f, const struct sides *s,
					__u8 direction)
{
	report_drop(skb, f, s, DROP_TTL_EXCEEDED, direction);
	return TC_ACT_OK;
}

/* The header's checksum and the hop limit balance each other, also in a sum that the device computed. */
static __always_inline void lower_ttl(struct iphdr *ip)
{
	__u32 sum = ip->check + bpf_htons(0x0100);

	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
}

static __always_inline int take_hop_ipv4(struct __sk_buff *skb)
{
	struct iphdr *ip = packet_data(skb) + ETH_HLEN;

	if ((void *)(ip + 1) > packet_end(skb))
		return DROP_WRITE_ERROR;
	lower_ttl(ip);
	return 0;
}

/* IPv6 has no header checksum, so the kernel must hear of the change. */
static __always_inline int take_hop_ipv6(struct __sk_buff *skb, const struct flow *f)
{
	__u8 hops = f->hop_limit - 1;

	return bpf_skb_store_bytes(skb, ETH_HLEN + IPV6_HOP_LIMIT, &hops, sizeof(hops), BPF_F_RECOMPUTE_CSUM)
		       ? DROP_WRITE_ERROR
		       : 0;
}

static __always_inline int take_hop(struct __sk_buff *skb, const struct flow *f)
{
	return f->v4 ? take_hop_ipv4(skb) : take_hop_ipv6(skb, f);
}

/* The sender's next hop becomes the receiver's last: the frame goes from what the sender, a pod or another machine, takes for
 * this router, to the pod. */
static __always_inline void address_frame(struct ethhdr *eth, const __u8 *mac)
{
	copy_mac(eth->h_source, eth->h_dest);
	copy_mac(eth->h_dest, mac);
}

/* Into the network namespace of a pod of this node, past the host's stack. */
SUBPROGRAM int deliver_to_pod(struct __sk_buff *skb, const struct flow *f, const struct sides *s, __u8 direction)
{
	struct ethhdr *eth;

	if (!f || !s)
		return TC_ACT_SHOT;
	if (hops_used_up(f))
		return pass_expired(skb, f, s, direction);
	if (take_hop(skb, f))
		return drop(skb, f, s, DROP_WRITE_ERROR, direction);
	eth = packet_data(skb);
	if ((void *)(eth + 1) > packet_end(skb))
		return drop(skb, f, s, DROP_WRITE_ERROR, direction);
	address_frame(eth, s->to.mac);
	count(FORWARDED, direction, skb->len);
	return bpf_redirect_peer(s->to.ifindex, 0);
}

/* To another node, with the sender's identity as the network identifier. 0 or the reason to drop. */
static __always_inline int set_tunnel(struct __sk_buff *skb, const struct addr *node, __u32 identity)
{
	struct bpf_tunnel_key key = { .tunnel_id = identity, .tunnel_ttl = TUNNEL_TTL };
	__u64 flags = 0;

	if (addr_is_v4(node)) {
		key.remote_ipv4 = bpf_ntohl(addr_v4(node));
		flags = BPF_F_ZERO_CSUM_TX;
	} else {
		__builtin_memcpy(key.remote_ipv6, node, sizeof(*node));
		flags = BPF_F_TUNINFO_IPV6; /* UDP over IPv6 must have a checksum */
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) ? DROP_TUNNEL_KEY : 0;
}

/* What pods send leaves the node with the node's address, masqueraded or in a tunnel. It is not what the node itself sends. */
static __always_inline void mark_as_forwarded(struct __sk_buff *skb)
{
	skb->mark = MARK_FORWARDED;
}

/* What other nodes may know of an identity: this node is another one to them, and prefixes have identities of their own on each. */
static __always_inline __u32 shared_identity(__u32 identity, bool v4)
{
	if (identity >> 24 == SCOPE_CIDR)
		return v4 ? CFG.world4 : CFG.world6;
	return identity >> 24 || identity <= IDENTITY_HOST ? IDENTITY_REMOTE_NODE : identity;
}

SUBPROGRAM int encapsulate(struct __sk_buff *skb, const struct flow *f, const struct sides *s)
{
	const struct ipcache_entry *peer;
	struct addr node;
	int reason;

	if (!f || !s)
		return TC_ACT_SHOT;
	if (hops_used_up(f))
		return pass_expired(skb, f, s, DIRECTION_EGRESS);
	peer = find_peer(&f->destination);
	if (!peer || addr_is_none(&peer->tunnel))
		return drop(skb, f, s, DROP_NO_TUNNEL_ENDPOINT, DIRECTION_EGRESS);
	node = peer->tunnel;
	reason = set_tunnel(skb, &node, s->from_here ? s->from.identity : shared_identity(s->from_identity, f->v4));
	if (!reason)
		reason = take_hop(skb, f);
	if (reason)
		return drop(skb, f, s, reason, DIRECTION_EGRESS);
	mark_as_forwarded(skb);
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return bpf_redirect(CFG.tunnel_ifindex, 0);
}

static __always_inline void fill_route_query(struct bpf_fib_lookup *query, __u32 ifindex, const struct flow *f,
					     const struct addr *source)
{
	query->ifindex = ifindex;
	query->l4_protocol = f->protocol;
	if (f->v4) {
		query->family = AF_INET;
		query->ipv4_src = addr_v4(source);
		query->ipv4_dst = addr_v4(&f->destination);
	} else {
		query->family = AF_INET6;
		__builtin_memcpy(query->ipv6_src, source, sizeof(*source));
		__builtin_memcpy(query->ipv6_dst, &f->destination, sizeof(f->destination));
	}
}

static __always_inline int redirect_to(const struct bpf_fib_lookup *route)
{
	struct bpf_redir_neigh hop = { .nh_family = route->family };

	if (route->family == AF_INET)
		hop.ipv4_nh = route->ipv4_dst;
	else
		__builtin_memcpy(hop.ipv6_nh, route->ipv6_dst, sizeof(hop.ipv6_nh));
	return bpf_redirect_neigh(route->ifindex, &hop, sizeof(hop), 0);
}

/* What to do with a packet for which there is no route that can be taken from here: the stack knows how to refuse it, but a
 * packet that it would forward must not leave with a pod's address if it ought to be masqueraded. */
static __always_inline bool stack_would_forward(const struct flow *f, long result)
{
	return result == BPF_FIB_LKUP_RET_UNSUPP_LWT || result < 0 ||
	       (result == BPF_FIB_LKUP_RET_FRAG_NEEDED && f->v4 && !f->dont_fragment);
}

/* An ICMP error about what came for a pod by another address: the quoted packet must be the one that its receiver sent. */
SUBPROGRAM int disguise_error(struct __sk_buff *skb, const struct flow *f, const struct nat_target *as)
{
	struct scratch *w = find_scratch();
	struct nat_target to;
	int reason;

	if (!f || !as || !w || !read_quoted_aside(skb, f, w))
		return DROP_WRITE_ERROR;
	to = *as;
	to.is_source = 0;
	reason = rewrite_quoted(skb, f, &w->quoted, &to);
	to.is_source = 1;
	return reason ? reason : rewrite_address(skb, f, &to);
}

/* The service as which a pod answers a client. 0 or the reason to drop. */
SUBPROGRAM int find_service_of(struct __sk_buff *skb, const struct flow *f, struct nat_target *as)
{
	struct scratch *w = find_scratch();

	if (!f || !as || !w)
		return DROP_NAT_NO_MAPPING;
	if (!f->icmp_error)
		return nat_find_service(f, as) ? 0 : DROP_NAT_NO_MAPPING;
	if (!read_quoted_aside(skb, f, w))
		return DROP_NAT_NO_MAPPING;
	w->answer.icmp_error = 1;
	return nat_find_service(&w->answer, as) ? 0 : DROP_NAT_NO_MAPPING;
}

/* Lets what comes to a pod from the backend of a service come from the service. 0 or the reason to drop. */
SUBPROGRAM int disguise(struct __sk_buff *skb, struct flow *f)
{
	struct nat_target as = { .is_source = 1 };
	int reason = find_service_of(skb, f, &as);

	if (reason || !f)
		return reason;
	return f->icmp_error ? disguise_error(skb, f, &as) : rewrite(skb, f, &as);
}

/* Whose address and port a pod's packet leaves with, if not its own: the node's, or those of the service that it answers as. 0 or the
 * reason to drop. */
static __always_inline int find_disguise(struct __sk_buff *skb, const struct flow *f, const struct sides *s,
					 struct nat_target *as)
{
	as->is_source = 1;
	if (s->route & CT_SERVICE)
		return find_service_of(skb, f, as);
	as->address = s->nat_port ? host_address(f->v4) : f->source;
	as->port = s->nat_port;
	return 0;
}

/* Out of the node by its routes. */
SUBPROGRAM int forward(struct __sk_buff *skb, struct flow *f, const struct sides *s)
{
	struct bpf_fib_lookup route = {};
	struct nat_target as = {};
	int reason;
	long result;

	if (!f || !s)
		return TC_ACT_SHOT;
	if (hops_used_up(f))
		return pass_expired(skb, f, s, DIRECTION_EGRESS);
	reason = find_disguise(skb, f, s, &as);
	if (reason)
		return drop(skb, f, s, reason, DIRECTION_EGRESS);
	fill_route_query(&route, skb->ifindex, f, &as.address);
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH) {
		if (s->translated || (as.port && stack_would_forward(f, result)))
			return drop(skb, f, s, DROP_FIB_LOOKUP_FAILED, DIRECTION_EGRESS);
		count(FORWARDED, DIRECTION_EGRESS, skb->len);
		return TC_ACT_OK;
	}
	if (as.port)
		reason = f->icmp_error ? disguise_error(skb, f, &as) : rewrite(skb, f, &as);
	if (!reason)
		reason = take_hop(skb, f);
	if (reason)
		return drop(skb, f, s, reason, DIRECTION_EGRESS);
	mark_as_forwarded(skb);
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return redirect_to(&route);
}
