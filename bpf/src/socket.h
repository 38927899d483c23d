/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Services: a socket that connects or sends to a cluster address goes straight to a backend, so no packet needs translation. */

#include "addr.h"
#include "maps.h"
#include <linux/in.h>

#define PROCEED 1
#define REFUSE 0
#define EHOSTUNREACH 113
#define BACKEND_TRIES 2
#define NANOSECONDS 1000000000ULL

/* What a socket is being pointed at. */
struct target {
	struct addr address;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

enum choice {
	NOT_A_SERVICE,
	NO_BACKEND,
	CHOSEN,
};

/* TCP connections spread at random. A UDP socket stays with its backend, so that a conversation by sendto works. */
static __always_inline __u32 pick(struct bpf_sock_addr *ctx, __u8 protocol, __u32 count)
{
	__u64 number = bpf_get_prandom_u32();

	if (protocol == IPPROTO_UDP) {
		number = bpf_get_socket_cookie(ctx) * 0x9e3779b97f4a7c15ULL;
		number >>= 32;
	}
	return (__u32)number % count;
}

struct search {
	const struct backend_entry *backend;
	__u32 generation;
	bool found;
};

static long is_sought(__u64 index, struct search *search)
{
	struct backend_key key = { .generation = search->generation, .index = (__u32)index };
	struct backend_entry *other = bpf_map_lookup_elem(&cilium_backends, &key);

	search->found = other && other->port == search->backend->port &&
			addr_equal(&other->address, &search->backend->address);
	return search->found;
}

/* A plain loop would be checked turn by turn when the program is loaded. Kernels without bpf_loop (before 5.17) are taken for those
 * without bpf_set_retval: there, a client may get another backend whenever the set changes. */
static __always_inline bool is_among(const struct service_entry *service, const struct backend_entry *backend)
{
	struct search search = { .backend = backend, .generation = service->generation };

	if (!(CFG.flags & CONFIG_SET_RETVAL))
		return false;
	bpf_loop(service->count, is_sought, &search, 0);
	return search.found;
}

/* The backend that the client had last, if that is not long ago and the service still has it. Concurrent writers write the same. */
static __always_inline struct backend_entry *last_backend(const struct affinity_key *key,
							   const struct service_entry *service)
{
	struct affinity_entry *last = bpf_map_lookup_elem(&cilium_affinity, key);
	__u64 now = bpf_ktime_get_ns();

	if (!last || now - last->used >= service->affinity * NANOSECONDS)
		return NULL;
	if (last->generation != service->generation) {
		if (!is_among(service, &last->backend))
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
static __noinline struct backend_entry *find_backend(struct bpf_sock_addr *ctx, const struct service_key *service,
						     const struct service_entry *seen)
{
	struct backend_key wanted = { .generation = seen->generation };
	struct backend_entry *backend;
	struct affinity_key client = {};

	if (seen->affinity) {
		client.client = bpf_get_netns_cookie(ctx);
		client.service = *service;
		backend = last_backend(&client, seen);
		if (backend)
			return backend;
	}
	wanted.index = pick(ctx, service->protocol, seen->count);
	backend = bpf_map_lookup_elem(&cilium_backends, &wanted);
	if (backend && seen->affinity)
		keep_backend(&client, seen, backend);
	return backend;
}

/* Replaces a service by one of its backends. The set may be exchanged between the two look-ups; the service then names a new
 * generation. */
static __noinline enum choice choose_backend(struct bpf_sock_addr *ctx, struct target *t)
{
	struct service_key key = { .address = t->address, .port = t->port, .protocol = t->protocol };

	for (int i = 0; i < BACKEND_TRIES; i++) {
		struct service_entry *service = bpf_map_lookup_elem(&cilium_services, &key);
		struct backend_entry *backend;
		struct service_entry seen __attribute__((aligned(8))) = {};

		if (!service)
			return i ? NO_BACKEND : NOT_A_SERVICE;
		/* Generation and count at once: the entry may be written to meanwhile. */
		*(__u64 *)&seen = *(volatile __u64 *)service;
		seen.affinity = service->affinity;
		if (!seen.count)
			return NO_BACKEND;
		backend = find_backend(ctx, &key, &seen);
		if (!backend)
			continue;
		t->address = backend->address;
		t->port = backend->port;
		return CHOSEN;
	}
	return NO_BACKEND;
}

/* Remembers what the program believes it talks to. Most sends repeat the last one, and only read. */
static __always_inline void remember(struct bpf_sock_addr *ctx, const struct target *backend,
				     const struct target *service)
{
	struct sock_revnat_key key = {
		.cookie = bpf_get_socket_cookie(ctx), .backend = backend->address, .port = backend->port
	};
	struct sock_revnat_entry entry = { .service = service->address, .port = service->port };
	struct sock_revnat_entry *known = bpf_map_lookup_elem(&cilium_sock_revnat, &key);

	if (!known || !addr_equal(&known->service, &entry.service) || known->port != entry.port)
		bpf_map_update_elem(&cilium_sock_revnat, &key, &entry, BPF_ANY);
}

static __always_inline int refuse(void)
{
	if (CFG.flags & CONFIG_SET_RETVAL)
		bpf_set_retval(-EHOSTUNREACH);
	return REFUSE;
}

/* Points `t` at a backend if it is a service; tells whether the socket must be rewritten, or refused. */
static __noinline enum choice translate(struct bpf_sock_addr *ctx, struct target *t)
{
	struct target service = *t;
	enum choice choice;

	if (t->protocol != IPPROTO_TCP && t->protocol != IPPROTO_UDP)
		return NOT_A_SERVICE;
	choice = choose_backend(ctx, t);
	if (choice == CHOSEN)
		remember(ctx, t, &service);
	return choice;
}

/* The way back: what stands for the backend in the program's eyes. */
static __noinline bool translate_back(struct bpf_sock_addr *ctx, struct target *t)
{
	struct sock_revnat_key key = {
		.cookie = bpf_get_socket_cookie(ctx), .backend = t->address, .port = t->port
	};
	struct sock_revnat_entry *entry = bpf_map_lookup_elem(&cilium_sock_revnat, &key);

	if (!entry)
		return false;
	t->address = entry->service;
	t->port = entry->port;
	return true;
}

static __always_inline struct target read_v4(struct bpf_sock_addr *ctx)
{
	return (struct target){
		.address = addr_from_v4(ctx->user_ip4),
		.port = (__be16)ctx->user_port,
		.protocol = ctx->protocol,
	};
}

static __always_inline void write_v4(struct bpf_sock_addr *ctx, const struct target *t)
{
	ctx->user_ip4 = addr_v4(&t->address);
	ctx->user_port = t->port;
}

/* An IPv6 socket that talks to IPv4 has a mapped address, which is what the maps use anyway. */
static __always_inline struct target read_v6(struct bpf_sock_addr *ctx)
{
	__u32 words[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };

	return (struct target){
		.address = addr_from_v6(words),
		.port = (__be16)ctx->user_port,
		.protocol = ctx->protocol,
	};
}

static __always_inline void write_v6(struct bpf_sock_addr *ctx, const struct target *t)
{
	__u32 words[4];

	__builtin_memcpy(words, &t->address, sizeof(words));
	ctx->user_ip6[0] = words[0];
	ctx->user_ip6[1] = words[1];
	ctx->user_ip6[2] = words[2];
	ctx->user_ip6[3] = words[3];
	ctx->user_port = t->port;
}

static __always_inline int forth_v4(struct bpf_sock_addr *ctx)
{
	struct target t = read_v4(ctx);
	enum choice choice = translate(ctx, &t);

	if (choice == NO_BACKEND)
		return refuse();
	if (choice == CHOSEN)
		write_v4(ctx, &t);
	return PROCEED;
}

static __always_inline int forth_v6(struct bpf_sock_addr *ctx)
{
	struct target t = read_v6(ctx);
	enum choice choice = translate(ctx, &t);

	if (choice == NO_BACKEND)
		return refuse();
	if (choice == CHOSEN)
		write_v6(ctx, &t);
	return PROCEED;
}

static __always_inline int back_v4(struct bpf_sock_addr *ctx)
{
	struct target t = read_v4(ctx);

	if (translate_back(ctx, &t))
		write_v4(ctx, &t);
	return PROCEED;
}

static __always_inline int back_v6(struct bpf_sock_addr *ctx)
{
	struct target t = read_v6(ctx);

	if (translate_back(ctx, &t))
		write_v6(ctx, &t);
	return PROCEED;
}

#define SOCKET_PROGRAM(hook, body) \
	SEC("cgroup/" #hook) \
	int sock_##hook(struct bpf_sock_addr *ctx) \
	{ \
		return body(ctx); \
	}

SOCKET_PROGRAM(connect4, forth_v4)
SOCKET_PROGRAM(connect6, forth_v6)
SOCKET_PROGRAM(sendmsg4, forth_v4)
SOCKET_PROGRAM(sendmsg6, forth_v6)
SOCKET_PROGRAM(recvmsg4, back_v4)
SOCKET_PROGRAM(recvmsg6, back_v6)
SOCKET_PROGRAM(getpeername4, back_v4)
SOCKET_PROGRAM(getpeername6, back_v6)
