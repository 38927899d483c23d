/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "conntrack.h"

#define NAT_TRIES 32
/* A mapping without a confirmed connection can be taken over after this many seconds: name servers get thousands of
 * one-packet queries, and there are only a few thousand ports towards each. */
#define NAT_LEASE_SHORT 10

/* Where one side of a packet is moved to. */
struct nat_target {
	struct addr address;
	__be16 port;
	__u8 is_source; /* which side */
	__u8 pad[5];
};

static __always_inline bool nat_has_port(const struct flow *f)
{
	return f->protocol == IPPROTO_TCP || f->protocol == IPPROTO_UDP || (is_icmp(f) && !f->icmp_error);
}

static __always_inline bool nat_port_in_range(__be16 port)
{
	__u16 number = bpf_ntohs(port);

	return number >= CFG.nat_first && number <= CFG.nat_last;
}

static __always_inline bool nat_enabled(bool v4)
{
	return CFG.flags & (v4 ? CONFIG_MASQUERADE4 : CONFIG_MASQUERADE6);
}

static __always_inline bool nat_is_kept(const struct addr *destination)
{
#pragma unroll
	for (int i = 0; i < CONFIG_KEPT_PREFIXES; i++) {
		struct addr prefix = { .hi = CFG.kept[i].address.hi, .lo = CFG.kept[i].address.lo };

		if (CFG.kept[i].bits && addr_in(destination, prefix, CFG.kept[i].bits))
			return true;
	}
	return false;
}

/* Only queries can be told apart by the node: an echo has its id, other ICMP has nothing. SCTP's checksum does not allow
 * for a port to be changed. */
static __always_inline bool nat_supports(const struct flow *f)
{
	return f->protocol == IPPROTO_TCP || f->protocol == IPPROTO_UDP || (is_icmp(f) && is_echo_request(f));
}

static __always_inline __u32 nat_lease(__u32 now, __u8 protocol, __u16 ct_flags, bool renewal)
{
	if (protocol != IPPROTO_TCP && !renewal)
		return now + NAT_LEASE_SHORT;
	return now + ct_lifetime(protocol, ct_flags);
}

static __always_inline bool nat_claim(const struct nat_key *in, const struct flow *f, __u32 now, __u32 expires)
{
	struct nat_entry mine = { .to = f->source, .to_port = f->source_port, .expires = expires };
	struct nat_entry *held = bpf_map_lookup_elem(&cilium_snat, in);

	if (held && addr_equal(&held->to, &f->source) && held->to_port == f->source_port) {
		held->expires = expires;
		return true;
	}
	if (held && held->expires > now)
		return false;
	if (held)
		bpf_map_delete_elem(&cilium_snat, in);
	return bpf_map_update_elem(&cilium_snat, in, &mine, BPF_NOEXIST) == 0;
}

static __always_inline void nat_key_of(const struct flow *f, __u8 direction, struct nat_key *key)
{
	key->local = direction == NAT_OUT ? f->source : host_address(f->v4);
	key->remote = f->destination;
	key->local_port = f->source_port;
	key->remote_port = f->destination_port;
	key->protocol = f->protocol;
	key->direction = direction;
}

static __always_inline void nat_remember(const struct nat_key *out, __be16 port, bool v4, __u32 expires)
{
	struct nat_entry entry = { .to = host_address(v4), .to_port = port, .expires = expires };

	bpf_map_update_elem(&cilium_snat, out, &entry, BPF_ANY);
}

/* Finds or takes the node's port for a connection that leaves the cluster, and keeps it until `expires`. The connection
 * keeps its port as long as nobody else has taken it. 0 or the reason to drop. */
SUBPROGRAM int nat_acquire(const struct flow *f, __u32 now, __u32 expires, __be16 *port)
{
	__u32 span = CFG.nat_last - CFG.nat_first + 1;
	__u32 start = bpf_get_prandom_u32();
	struct nat_key out = {}, in = {};
	struct nat_entry *known;

	if (!f || !port || !nat_supports(f))
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	nat_key_of(f, NAT_OUT, &out);
	nat_key_of(f, NAT_IN, &in);
	known = bpf_map_lookup_elem(&cilium_snat, &out);
	in.local_port = known ? known->to_port : 0;
	if (known && nat_claim(&in, f, now, expires)) {
		known->expires = expires;
		*port = in.local_port;
		return 0;
	}
	for (int i = 0; i < NAT_TRIES; i++) {
		in.local_port = bpf_htons(CFG.nat_first + (start + i) % span);
		if (!nat_claim(&in, f, now, expires))
			continue;
		nat_remember(&out, in.local_port, f->v4, expires);
		*port = in.local_port;
		return 0;
	}
	return DROP_NAT_NO_MAPPING;
}

/* The pod behind a port of the node's address, for a packet that came from `f->source` (or an ICMP error about one that went
 * there). A reply keeps the mapping alive for a little. */
SUBPROGRAM bool nat_find_pod(const struct flow *f, struct nat_target *pod)
{
	__u32 least = now_seconds() + NAT_LEASE_SHORT;
	struct nat_key in = { .direction = NAT_IN };
	struct nat_entry *entry;

	if (!f || !pod)
		return false;
	in.local = f->destination;
	in.remote = f->source;
	in.local_port = f->destination_port;
	in.remote_port = f->source_port;
	in.protocol = f->protocol;
	entry = bpf_map_lookup_elem(&cilium_snat, &in);
	if (!entry)
		return false;
	if (entry->expires < least)
		entry->expires = least;
	pod->address = entry->to;
	pod->port = entry->to_port;
	return true;
}
