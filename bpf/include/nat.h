/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "conntrack.h"

#define NAT_TRIES 32
/* A mapping without a confirmed connection can be taken over after this many seconds: name servers get thousands of
 * one-packet queries, and there are only a few thousand ports towards each. */
#define NAT_LEASE_SHORT 10
/* For how long Linux keeps the end of a connection that it closed first. */
#define TIME_WAIT 60

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

static __always_inline bool nat_is_same(const struct nat_entry *a, const struct nat_entry *b)
{
	return addr_equal(&a->to, &b->to) && a->to_port == b->to_port && addr_equal(&a->from, &b->from) &&
	       a->from_port == b->from_port;
}

/* Another connection may take the mapping: its time is over, or it is that of a service's client whose connection ended a second ago,
 * or by a reset: the backend has nothing left of it that could get into the way of the next one. Of one that came by another node, the
 * end is not seen here. */
static __always_inline bool nat_is_over(const struct nat_entry *held, __u32 now)
{
	return held->expires <= now || held->flags & (CT_RESET | CT_DSR) ||
	       (ct_is_closed(held->flags) && held->expires < now + LIFETIME_TCP_CLOSING);
}

/* Takes a mapping for a connection, or renews it; false when another connection has it. */
static __always_inline bool nat_claim(const struct nat_key *key, const struct nat_entry *mine, __u32 now)
{
	struct nat_entry *held = bpf_map_lookup_elem(&cilium_snat, key);

	if (held && nat_is_same(held, mine)) {
		held->expires = mine->expires;
		held->flags = mine->flags;
		return true;
	}
	if (held && !nat_is_over(held, now))
		return false;
	if (held)
		bpf_map_delete_elem(&cilium_snat, key);
	return bpf_map_update_elem(&cilium_snat, key, mine, BPF_NOEXIST) == 0;
}

/* The connection that had the mapping has ended so lately that its server may still wait for stray packets (RFC 9293, 2 MSL). */
static __always_inline bool nat_rests(const struct nat_key *key, __u32 now)
{
	const struct nat_entry *held = bpf_map_lookup_elem(&cilium_snat, key);

	return held && ct_is_closed(held->flags) && !(held->flags & CT_RESET) &&
	       held->expires + TIME_WAIT - LIFETIME_TCP_CLOSING > now;
}

/* Takes one of the node's ports: `in->local_port`. Those that rest are taken when there is no other at once. */
static __always_inline bool nat_claim_any(struct nat_key *in, const struct nat_entry *mine, __u32 now)
{
	__u32 span = CFG.nat_last - CFG.nat_first + 1;
	__u32 start = bpf_get_prandom_u32();

	for (int i = 0; i < NAT_TRIES; i++) {
		in->local_port = bpf_htons(CFG.nat_first + (start + i) % span);
		/* Most ports are free. */
		if (!bpf_map_update_elem(&cilium_snat, in, mine, BPF_NOEXIST))
			return true;
		if (i < NAT_TRIES / 2 && nat_rests(in, now))
			continue;
		if (nat_claim(in, mine, now))
			return true;
	}
	return false;
}

static __always_inline void nat_key_of(const struct flow *f, __u8 direction, struct nat_key *key)
{
	key->local = direction == NAT_OUT ? f->source : host_address(f->v4);
	key->remote = f->destination;
	key->local_port = f->source_port;
	key->remote_port = f->destination_port;
	key->protocol = f->protocol;
	key->direction = direction;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

/* Finds or takes the node's port for a connection that leaves the cluster, and keeps it until `expires`. The connection
 * keeps its port as long as nobody else has taken it. 0 or the reason to drop. One key and one entry serve for both directions, as
 * the stack is short. */
SUBPROGRAM int nat_acquire(const struct flow *f, __u32 now, __u32 expires, __be16 *port)
{
	struct nat_entry mine = { .expires = expires };
	struct nat_entry *known;
	struct nat_key key;

	if (!f || !port || !nat_supports(f))
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	mine.to = f->source;
	mine.to_port = f->source_port;
	nat_key_of(f, NAT_OUT, &key);
	known = bpf_map_lookup_elem(&cilium_snat, &key);
	if (known && known->flags & CT_SERVICE)
		known = NULL;
	nat_key_of(f, NAT_IN, &key);
	key.local_port = known ? known->to_port : 0;
	if (known && nat_claim(&key, &mine, now)) {
		known->expires = expires;
		*port = key.local_port;
		return 0;
	}
	if (!nat_claim_any(&key, &mine, now))
		return DROP_NAT_NO_MAPPING;
	*port = key.local_port;
	nat_key_of(f, NAT_OUT, &key);
	mine.to = host_address(f->v4);
	mine.to_port = *port;
	bpf_map_update_elem(&cilium_snat, &key, &mine, BPF_ANY);
	return 0;
}

/* The key for a packet that comes to the node, or to a service. */
static __always_inline void nat_key_of_arrival(const struct flow *f, __u8 direction, struct nat_key *key)
{
	key->local = f->destination;
	key->remote = f->source;
	key->local_port = f->destination_port;
	key->remote_port = f->source_port;
	key->protocol = f->protocol;
	key->direction = direction;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

/* What becomes of a packet that came from `f->source` (or an ICMP error about one that went there). NAT_IN: who is behind a port of the
 * node's address, a pod or the client of a service; such an answer keeps the mapping alive for a little. */
SUBPROGRAM bool nat_find_arrival(const struct flow *f, __u32 direction, struct nat_entry *found)
{
	__u32 least = now_seconds() + NAT_LEASE_SHORT;
	struct nat_entry *entry;
	struct nat_key key;

	if (!f || !found)
		return false;
	nat_key_of_arrival(f, (__u8)direction, &key);
	entry = bpf_map_lookup_elem(&cilium_snat, &key);
	if (!entry)
		return false;
	if (direction == NAT_IN && entry->expires < least)
		entry->expires = least;
	*found = *entry;
	return true;
}

static __always_inline void nat_prolong(const struct nat_key *key, __u16 flags, __u32 expires)
{
	struct nat_entry *entry = bpf_map_lookup_elem(&cilium_snat, key);

	if (!entry)
		return;
	entry->flags |= flags;
	entry->expires = expires;
}

/* An answer keeps the connection of a service's client alive, and may end it. `back` is the key by which answers find back, `known` what
 * stands there. */
SUBPROGRAM int nat_answer_goes_on(const struct flow *f, const struct nat_key *back, const struct nat_entry *known,
				  const struct nat_target *service, const struct nat_target *client)
{
	struct nat_key forth = { .direction = NAT_SERVICE };
	__u32 expires;
	__u16 flags;

	if (!f || !back || !known || !service || !client)
		return 0;
	flags = ct_next_flags(known->flags, f, true);
	expires = now_seconds() + ct_lifetime(f->protocol, flags);
	if (flags == known->flags && expires == known->expires)
		return 0;
	forth.local = service->address;
	forth.local_port = service->port;
	forth.remote = client->address;
	forth.remote_port = client->port;
	forth.protocol = f->protocol;
	nat_prolong(back, flags, expires);
	nat_prolong(&forth, flags, expires);
	return 0;
}

/* The service as which a backend of this node answers a client. */
SUBPROGRAM bool nat_find_service(const struct flow *f, struct nat_target *service)
{
	struct nat_target client = {};
	struct nat_entry *entry;
	struct nat_key key;

	if (!f || !service)
		return false;
	nat_key_of(f, NAT_OUT, &key);
	client.address = f->destination;
	client.port = f->destination_port;
	entry = bpf_map_lookup_elem(&cilium_snat, &key);
	if (!entry || entry->expires < now_seconds() || !(entry->flags & CT_SERVICE))
		return false;
	service->address = entry->to;
	service->port = entry->to_port;
	if (!f->icmp_error)
		nat_answer_goes_on(f, &key, entry, service, &client);
	return true;
}
