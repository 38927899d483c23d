/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Services: a socket that connects or sends to a cluster address goes straight to a backend, so no packet needs translation. */

#include "../include/redirect.h"
#include "../include/service.h"

#define PROCEED 1
#define REFUSE 0
#define ECONNREFUSED 111

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

static __always_inline int refuse_socket(void)
{
	if (CFG.flags & CONFIG_SET_RETVAL)
		bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

/* A client is a network namespace. TCP connections spread at random; a UDP socket stays with its backend, so that a conversation by
 * sendto works. */
static __always_inline struct client read_client(struct bpf_sock_addr *ctx, __u8 protocol)
{
	struct client client = { .address = { .hi = ~0ULL, .lo = bpf_get_netns_cookie(ctx) } };

	if (protocol == IPPROTO_UDP)
		client.number = (bpf_get_socket_cookie(ctx) * 0x9e3779b97f4a7c15ULL) >> 32;
	else
		client.number = bpf_get_prandom_u32();
	return client;
}

static __always_inline bool is_loopback(const struct addr *a)
{
	if (addr_is_v4(a))
		return (__u32)bpf_be64_to_cpu(a->lo) >> 24 == 127;
	return a->hi == 0 && bpf_be64_to_cpu(a->lo) == 1;
}

/* The loopback addresses are the node's only for its own processes. */
static __always_inline bool is_loopback_of_pod(const struct target *t, const struct client *client)
{
	return is_loopback(&t->address) && (!CFG.netns_cookie || client->address.lo != CFG.netns_cookie);
}

/* Sockets of pods are left alone: their packets find a backend. */
static __always_inline bool is_left_to_packets(const struct client *client)
{
	return CFG.flags & CONFIG_SOCKETS_OF_HOST && CFG.netns_cookie && client->address.lo != CFG.netns_cookie;
}

/* Points `t` at a backend if it is a service; tells whether the socket must be rewritten, or refused. */
static __noinline enum choice translate(struct bpf_sock_addr *ctx, struct target *t)
{
	struct service_key key = { .address = t->address, .port = t->port, .protocol = t->protocol };
	struct target service = *t;
	struct client client;
	enum choice choice;

	if (t->protocol != IPPROTO_TCP && t->protocol != IPPROTO_UDP)
		return NOT_A_SERVICE;
	client = read_client(ctx, t->protocol);
	if (is_left_to_packets(&client) || is_loopback_of_pod(t, &client))
		return NOT_A_SERVICE;
	if (CFG.flags & CONFIG_REDIRECTS)
		key.scope = scope_of(&key, &client.address);
	choice = choose_backend(t, &key, &client);
	key.scope = SCOPE_INTERNAL;
	if (choice == NOT_A_SERVICE && is_nodeport(t->port)) {
		key.address = any_address(addr_is_v4(&t->address));
		if (is_loopback(&t->address) || is_at_node(&t->address, &key))
			choice = choose_backend(t, &key, &client);
	}
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
		return refuse_socket();
	if (choice == CHOSEN)
		write_v4(ctx, &t);
	return PROCEED;
}

static __always_inline int forth_v6(struct bpf_sock_addr *ctx)
{
	struct target t = read_v6(ctx);
	enum choice choice = translate(ctx, &t);

	if (choice == NO_BACKEND)
		return refuse_socket();
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
