/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Which backend a client of a service gets: for sockets that connect, for packets of pods, and for packets from outside. */

#include "maglev.h"
#include "parse.h"
#include "sides.h"

#define BACKEND_TRIES 2
#define NANOSECONDS 1000000000ULL

/* What a client talks to, and in its place a backend. */
struct target {
	struct addr address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
	__u32 generation; /* of the backends that it is one of */
};

/* Who asks for a backend. */
struct client {
	struct addr address; /* as in affinity_key */
	__u32 number;	     /* equal numbers get equal backends of a set */
	__u32 pad;
};

enum choice {
	NOT_A_SERVICE,
	NO_BACKEND,
	CHOSEN,
};

static __always_inline bool is_nodeport(__be16 port)
{
	__u16 number = bpf_ntohs(port);

	return number >= CFG.nodeport_first && number <= CFG.nodeport_last && number;
}

/* Ports of nodes are served at this address, if it is a node's (`nodeport-addresses`). */
static __always_inline bool is_nodeport_address(const struct addr *address)
{
	if (!(CFG.flags & CONFIG_NODEPORT_PREFIXES))
		return true;
#pragma unroll
	for (int i = 0; i < CONFIG_NODEPORT_PREFIX_COUNT; i++) {
		const volatile struct prefix *slot = &CFG.nodeport_prefixes[i];
		struct addr prefix = { .hi = slot->address.hi, .lo = slot->address.lo };

		if (addr_is_v4(address) == addr_is_v4(&prefix) && addr_in(address, prefix, slot->bits))
			return true;
	}
	return false;
}

/* Stands for every address of a node. */
static __always_inline struct addr any_address(bool v4)
{
	return v4 ? addr_from_v4(0) : (struct addr){};
}

/* A node's address at which a port is that of every node that serves there. `key` is that of the service in question. */
static __always_inline bool is_at_node(const struct addr *address, const struct service_key *key)
{
	const struct service_entry *service;
	__u32 identity;

	if (!is_nodeport_address(address))
		return false;
	identity = peer_identity(address);
	if (identity == IDENTITY_HOST || !is_remote_node(identity))
		return identity == IDENTITY_HOST;
	service = bpf_map_lookup_elem(&cilium_services, key);
	return service && !(service->flags & SERVICE_AT_OWN_NODE);
}

struct search {
	struct addr address;
	__be16 port;
	__u32 generation;
	bool found;
};

static long is_sought(__u64 index, struct search *search)
{
	struct backend_key key = { .generation = search->generation, .index = (__u32)index };
	struct backend_entry *other = bpf_map_lookup_elem(&cilium_backends, &key);

	search->found = other && other->port == search->port && addr_equal(&other->address, &search->address);
	return search->found;
}

/* The set still has a backend. A plain loop would be checked turn by turn when the program is loaded. Kernels without bpf_loop (before
 * 5.17) are taken for those without bpf_set_retval: there, a client may get another backend whenever the set changes. */
SUBPROGRAM bool is_among(const struct service_entry *service, const struct addr *address, __be16 port)
{
	struct search search = { .port = port };

	if (!(CFG.flags & CONFIG_SET_RETVAL) || !service || !address)
		return false;
	search.address = *address;
	search.generation = service->generation;
	bpf_loop(service->count, is_sought, &search, 0);
	return search.found;
}

/* The backend that the client had last, if that is not long ago and the service still has it. Concurrent writers write the same. */
static __always_inline struct backend_entry *last_backend(const struct affinity_key *key,
							   const struct service_entry *service)
{
	struct affinity_entry *last = bpf_map_lookup_elem(&cilium_affinity, key);
	__u64 now = bpf_ktime_get_ns();

	/* Another CPU may have used it a moment later. */
	if (!last || last->used + service->affinity * NANOSECONDS <= now)
		return NULL;
	if (last->generation != service->generation) {
		struct addr address = last->backend.address;

		if (!is_among(service, &address, last->backend.port))
			return NULL;
		last->generation = service->generation;
	}
	last->used = now;
	return &last->backend;
}

static __always_inline void keep_backend(const struct affinity_key *key, const struct service_entry *service,
					 const struct backend_entry *backend)
{
	struct affinity_entry entry = {
		.backend = *backend, .used = bpf_ktime_get_ns(), .generation = service->generation
	};

	bpf_map_update_elem(&cilium_affinity, key, &entry, BPF_ANY);
}

/* The backend of a client that keeps one, or any. NULL when the set has just been exchanged. */
static __noinline struct backend_entry *find_backend(const struct client *client, const struct service_key *service,
						     const struct service_entry *seen)
{
	struct backend_key wanted = { .generation = seen->generation };
	struct backend_entry *backend;
	struct affinity_key kept = {};

	if (seen->affinity) {
		kept.client = client->address;
		kept.service = *service;
		backend = last_backend(&kept, seen);
		if (backend)
			return backend;
	}
	wanted.index = backend_index(seen, client->number);
	backend = bpf_map_lookup_elem(&cilium_backends, &wanted);
	if (backend && seen->affinity)
		keep_backend(&kept, seen, backend);
	return backend;
}

/* Finds a backend, and points `t` at it. The set may be exchanged between the two look-ups; the service then names a new generation. */
SUBPROGRAM int choose_backend(struct target *t, const struct service_key *key, const struct client *client)
{
	if (!t || !key || !client)
		return NOT_A_SERVICE;
	for (int i = 0; i < BACKEND_TRIES; i++) {
		struct service_entry *service = bpf_map_lookup_elem(&cilium_services, key);
		struct backend_entry *backend;
		struct service_entry seen __attribute__((aligned(8))) = {};

		if (!service)
			return i ? NO_BACKEND : NOT_A_SERVICE;
		/* Generation and count at once: the entry may be written to meanwhile. */
		*(__u64 *)&seen = *(volatile __u64 *)service;
		seen.affinity = service->affinity;
		seen.flags = service->flags;
		if (!seen.count)
			return NO_BACKEND;
		backend = find_backend(client, key, &seen);
		if (!backend)
			continue;
		t->address = backend->address;
		t->port = backend->port;
		t->generation = seen.generation;
		return CHOSEN;
	}
	return NO_BACKEND;
}
