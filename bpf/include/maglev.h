/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The choice of a backend on which all nodes agree: a client's number says which entry of a table is its own, and user space has filled
 * that table in the same way everywhere. */

#include "flow.h"
#include "maps.h"

/* Spreads a number over all bits (the finalizer of SplitMix64). */
static __always_inline __u64 spread(__u64 z)
{
	z += 0x9e3779b97f4a7c15ULL;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/* The same on every node: of the client, the service, which is the unspecified address for a port of nodes, and the ports; with affinity, of
 * the client whatever its port. */
static __always_inline __u32 maglev_number(const struct service_entry *service, const struct service_key *key,
					   const struct flow *f)
{
	__be16 source_port = service->affinity ? 0 : f->source_port;
	__u64 number = CFG.maglev_seed;

	number = spread(number ^ bpf_be64_to_cpu(f->source.hi));
	number = spread(number ^ bpf_be64_to_cpu(f->source.lo));
	number = spread(number ^ bpf_be64_to_cpu(key->address.hi));
	number = spread(number ^ bpf_be64_to_cpu(key->address.lo));
	number = spread(number ^ ((__u64)f->protocol << 32 | (__u32)bpf_ntohs(key->port) << 16 | bpf_ntohs(source_port)));
	return (__u32)(number >> 32);
}

/* What find_backend() goes by. A service that is exchanged in between has its client at any backend. */
static __always_inline __u32 client_number(const struct service_entry *service, const struct service_key *key,
					   const struct flow *f)
{
	return service->flags & SERVICE_MAGLEV ? maglev_number(service, key, f) : bpf_get_prandom_u32();
}

/* Index of the backend for a client's number. Without the entry, as tables of another size may still be there while agents are exchanged,
 * nodes agree no more, but every client has a backend. */
static __always_inline __u32 backend_index(const struct service_entry *service, __u32 number)
{
	struct maglev_key key = { .generation = service->generation };
	const struct maglev_chunk *chunk;
	__u32 entry, index;

	if (service->flags & SERVICE_MAGLEV && CFG.maglev_size) {
		entry = number % CFG.maglev_size;
		key.chunk = entry / MAGLEV_CHUNK;
		chunk = bpf_map_lookup_elem(&cilium_maglev, &key);
		index = chunk ? chunk->backends[entry % MAGLEV_CHUNK] : service->count;
		if (index < service->count)
			return index;
	}
	return number % service->count;
}
