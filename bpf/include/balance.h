/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Services for pods whose sockets were not translated when they connected: raw sockets, and pods that are left to their own load
 * balancer until it sends on. A packet to a service goes to a backend, and answers come back as the service. */

#include "nodeport.h"
#include "redirect.h"

static __always_inline struct addr loopback_address(bool v4)
{
	return v4 ? CFG.loopback4 : CFG.loopback6;
}

static __always_inline bool is_from_itself(const struct flow *f)
{
	struct addr loopback = loopback_address(f->v4);

	return addr_equal(&f->destination, &loopback) && !addr_is_none(&loopback);
}

/* The service that a pod's packet goes to, as a socket of the pod would find it. */
static __always_inline const struct service_entry *find_inside(const struct flow *f, struct service_key *key)
{
	const struct service_entry *service;

	*key = (struct service_key){
		.address = f->destination, .port = f->destination_port, .protocol = f->protocol, .scope = SCOPE_INTERNAL
	};
	if (CFG.flags & CONFIG_REDIRECTS)
		key->scope = scope_of(key, &f->source);
	service = bpf_map_lookup_elem(&cilium_services, key);
	key->scope = service ? key->scope : SCOPE_INTERNAL;
	if (service || !is_nodeport(f->destination_port))
		return service;
	key->address = any_address(f->v4);
	return is_at_node(&f->destination, key) ? bpf_map_lookup_elem(&cilium_services, key) : NULL;
}

/* A backend for a new connection of a pod. The pod itself sees a stranger, so that its answers come out of it. 0 or the reason to
 * drop. */
static __always_inline int begin_inside(struct scratch *w, const struct flow *f, struct passage *p, __u32 now)
{
	if (!choose_for(w, f, bpf_get_prandom_u32(), now)) {
		p->refusal = REFUSE_PORT;
		return DROP_NO_SERVICE;
	}
	if (addr_equal(&w->entry.to, &f->source)) {
		w->entry.from = loopback_address(f->v4);
		w->entry.from_port = f->source_port;
	}
	fill_partner(w, f);
	if (!nat_claim(&w->partner, &w->mine, now))
		return DROP_NAT_NO_MAPPING;
	return bpf_map_update_elem(&cilium_snat, &w->key, &w->entry, BPF_ANY) ? DROP_CT_INSERT_FAILED : 0;
}

/* 0 or the reason to drop. */
static __always_inline int send_to_backend(struct __sk_buff *skb, struct flow *f, struct passage *p, struct scratch *w,
					   const struct service_entry *service)
{
	__u32 now = now_seconds();
	struct nat_entry *known;
	int reason = 0;

	nat_key_of_arrival(f, NAT_SERVICE, &w->key);
	known = bpf_map_lookup_elem(&cilium_snat, &w->key);
	if (!known || !stays(known, service, f, now) || !go_on(w, known, f, now))
		reason = begin_inside(w, f, p, now);
	if (reason)
		return reason;
	p->way = w->entry.from_port ? WAY_POD : WAY_ON;
	return apply(skb, f, &w->entry);
}

/* An ICMP error about what came from a service, or from the pod itself by one. 0, also when it is none, or the reason to drop. */
SUBPROGRAM int balance_error(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	struct scratch *w = find_scratch();

	if (!f || !p || !w || !read_quoted_aside(skb, f, w))
		return 0;
	if (is_from_itself(f)) {
		if (!nat_find_arrival(&w->answer, NAT_IN, &w->entry))
			return 0;
		p->way = WAY_POD;
		return move_error(skb, f, &w->quoted, &w->entry);
	}
	if (!nat_find_arrival(&w->answer, NAT_SERVICE, &w->entry))
		return 0;
	p->way = w->entry.from_port ? WAY_POD : WAY_ON;
	return move_error(skb, f, &w->quoted, &w->entry);
}

/* Sends what a pod sent to a service to its backend, and what it answered itself back to it. 0, also when it is neither, which leaves
 * `p->way` at WAY_STACK, or the reason to drop. WAY_POD: back to the sender; WAY_ON: policy has its say. */
SUBPROGRAM int balance(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	struct scratch *w = find_scratch();
	const struct service_entry *service;

	if (!f || !p || !w)
		return DROP_NO_SERVICE;
	p->way = WAY_STACK;
	if (f->icmp_error)
		return balance_error(skb, f, p);
	if (!nodeport_supports(f))
		return 0;
	if (is_from_itself(f)) {
		if (!nat_find_arrival(f, NAT_IN, &w->entry))
			return DROP_NAT_NO_MAPPING;
		follow_answer(f, &w->entry);
		p->way = WAY_POD;
		return apply(skb, f, &w->entry);
	}
	service = find_inside(f, &w->service);
	return service ? send_to_backend(skb, f, p, w, service) : 0;
}
