/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Services for clients outside: a packet to a node's port, or to the address of a load balancer, goes to a backend. One of this node
 * sees the client; one elsewhere sees this node, so that its answers come back here. Answers leave as the service. */

#include "deliver.h"
#include "dsr.h"
#include "fragments.h"

/* Where a packet from the network turned out to go. */
enum way {
	WAY_STACK,  /* to the node itself, or nobody's business */
	WAY_ANSWER, /* to a pod that was masqueraded, as the answer to a known connection */
	WAY_POD,    /* to a pod of this node, a backend */
	WAY_ON,     /* to a backend or a client elsewhere */
};

/* What became of a packet. */
struct passage {
	__u32 way;    /* enum way */
	__u32 client; /* WAY_ON: identity of the client, whose address a backend elsewhere does not see */
	__u32 refusal; /* enum refusal: what the sender of a packet that is dropped hears */
	__u32 mtu;     /* REFUSE_TOO_BIG: bytes of an IP packet that would get through */
};

static __always_inline bool is_own_address(const struct flow *f)
{
	struct addr own = host_address(f->v4);

	return addr_equal(&f->destination, &own);
}

/* SCTP only as far as it can keep its ports. */
static __always_inline bool nodeport_supports(const struct flow *f)
{
	return f->protocol == IPPROTO_TCP || f->protocol == IPPROTO_UDP || f->protocol == IPPROTO_SCTP;
}

/* The service that a packet came to. */
static __always_inline const struct service_entry *find_frontend(const struct flow *f, struct service_key *key)
{
	const struct service_entry *service;

	*key = (struct service_key){
		.address = f->destination, .port = f->destination_port, .protocol = f->protocol, .scope = SCOPE_EXTERNAL
	};
	if (is_nodeport(f->destination_port) && is_nodeport_address(&f->destination) &&
	    (is_own_address(f) || peer_identity(&f->destination) == IDENTITY_HOST)) {
		key->address = any_address(f->v4);
		service = bpf_map_lookup_elem(&cilium_services, key);
		if (service)
			return service;
		key->address = f->destination;
	}
	return bpf_map_lookup_elem(&cilium_services, key);
}

static __always_inline bool is_let_in(const struct service_entry *service, const struct addr *client)
{
	struct source_range_key key = { .prefix_len = RANGE_PREFIX_FULL, .generation = service->generation };

	if (!(service->flags & SERVICE_RANGES))
		return true;
	__builtin_memcpy(key.address, client, sizeof(key.address));
	return !bpf_map_lookup_elem(&cilium_source_ranges, &key) == !!(service->flags & SERVICE_RANGES_DENY);
}

/* Somebody has the address: a pod, or a node. Of what is outside of the cluster, nobody knows. */
static __always_inline bool is_inhabited(const struct addr *address)
{
	struct endpoint local;

	return find_endpoint(address, &local) || !is_world(peer_identity(address));
}

/* A client stays with its backend: for as long as a TCP connection lasts and the backend is there, and otherwise for as long as the
 * service has the backend. One that the service does not let in any more does not. */
static __always_inline bool stays(struct nat_entry *known, const struct service_entry *service, const struct flow *f,
				  __u32 now)
{
	struct addr backend = known->to;

	if (known->expires < now)
		return false;
	if (known->generation != service->generation && !is_let_in(service, &f->source))
		return false;
	if (f->protocol == IPPROTO_TCP && !opens_connection(f)) {
		if (known->generation == service->generation || is_inhabited(&backend))
			return true;
	} else if (ct_is_closed(known->flags)) {
		return false;
	}
	if (known->generation == service->generation)
		return true;
	if (!is_among(service, &backend, known->to_port))
		return false;
	known->generation = service->generation;
	return true;
}

/* The entry by which answers find back: of the node's port that the connection has, or of the backend on this node. */
static __always_inline void fill_partner(struct scratch *w, const struct flow *f)
{
	bool sent_on = w->entry.from_port != 0;

	__builtin_memset(&w->mine, 0, sizeof(w->mine));
	w->partner.protocol = f->protocol;
	__builtin_memset(w->partner.pad, 0, sizeof(w->partner.pad));
	w->mine.expires = w->entry.expires;
	w->mine.flags = w->entry.flags | CT_SERVICE;
	if (sent_on) {
		w->partner.direction = NAT_IN;
		w->partner.local = w->entry.from;
		w->partner.local_port = w->entry.from_port;
		w->partner.remote = w->entry.to;
		w->partner.remote_port = w->entry.to_port;
		w->mine.to = f->source;
		w->mine.to_port = f->source_port;
		w->mine.from = f->destination;
		w->mine.from_port = f->destination_port;
	} else {
		w->partner.direction = NAT_OUT;
		w->partner.local = w->entry.to;
		w->partner.local_port = w->entry.to_port;
		w->partner.remote = f->source;
		w->partner.remote_port = f->source_port;
		w->mine.to = f->destination;
		w->mine.to_port = f->destination_port;
	}
}

/* Takes the way back for a new connection: `w->entry` says where it goes. */
static __always_inline bool claim_way_back(struct scratch *w, const struct flow *f, bool is_here, __u32 now)
{
	if (!is_here && !(w->entry.flags & CT_DSR)) {
		w->entry.from = host_address(f->v4);
		w->entry.from_port = bpf_htons(CFG.nat_first);
		/* Only one of the node's ports has to be given back early. */
		w->entry.expires = nat_lease(now, f->protocol, w->entry.flags, false);
	}
	if (w->entry.flags & CT_DSR)
		return true;
	fill_partner(w, f);
	if (is_here)
		return nat_claim(&w->partner, &w->mine, now);
	if (!nat_claim_any(&w->partner, &w->mine, now))
		return false;
	w->entry.from_port = w->partner.local_port;
	return true;
}

/* Starts `w->entry` with a backend for the sender, by its number; it has no address when there is none. */
static __always_inline bool choose_for(struct scratch *w, const struct flow *f, __u32 number, __u32 now)
{
	__builtin_memset(&w->entry, 0, sizeof(w->entry));
	w->client.address = f->source;
	w->client.number = number;
	if (choose_backend(&w->backend, &w->service, &w->client) != CHOSEN)
		return false;
	w->entry.to = w->backend.address;
	w->entry.to_port = w->backend.port;
	w->entry.generation = w->backend.generation;
	w->entry.flags = ct_next_flags(0, f, false);
	w->entry.expires = now + ct_lifetime(f->protocol, w->entry.flags);
	return true;
}

/* A new connection, or one whose backend is gone. 0 or the reason to drop. */
static __always_inline int begin(struct scratch *w, const struct flow *f, struct passage *p,
				 const struct service_entry *service, __u32 now)
{
	struct endpoint local;
	__u32 identity;
	bool is_here;

	if (!is_let_in(service, &f->source))
		return DROP_NOT_IN_SRC_RANGE;
	if (!choose_for(w, f, client_number(service, &w->service, f), now)) {
		p->refusal = service->flags & SERVICE_ONLY_OWN ? REFUSE_SILENTLY : REFUSE_PORT;
		return DROP_NO_SERVICE;
	}
	identity = find_endpoint(&w->entry.to, &local) ? IDENTITY_HOST : peer_identity(&w->entry.to);
	is_here = identity == IDENTITY_HOST;
	if (!is_here && service->flags & SERVICE_DSR && !is_world(identity))
		w->entry.flags |= CT_DSR;
	else if (!is_here && f->protocol == IPPROTO_SCTP)
		return DROP_NAT_UNSUPPORTED_PROTOCOL;
	if (!claim_way_back(w, f, is_here, now))
		return DROP_NAT_NO_MAPPING;
	return bpf_map_update_elem(&cilium_snat, &w->key, &w->entry, BPF_ANY) ? DROP_CT_INSERT_FAILED : 0;
}

/* Takes a packet of a known connection into account. False when its way back has been lost to another one. */
static __always_inline bool go_on(struct scratch *w, struct nat_entry *known, const struct flow *f, __u32 now)
{
	__u16 flags = ct_next_flags(known->flags, f, false);
	__u32 expires = now + ct_lifetime(f->protocol, flags);

	w->entry = *known;
	if (flags == known->flags && expires == known->expires)
		return true;
	w->entry.flags = flags;
	w->entry.expires = expires;
	if (!(flags & CT_DSR)) {
		fill_partner(w, f);
		if (!nat_claim(&w->partner, &w->mine, now))
			return false;
	}
	known->flags = flags;
	known->expires = expires;
	return true;
}

/* Rewrites both sides of a packet as an entry says: the destination always. 0 or the reason to drop. */
SUBPROGRAM int apply(struct __sk_buff *skb, struct flow *f, const struct nat_entry *entry)
{
	struct nat_target to = {};
	int reason;

	if (!f || !entry)
		return DROP_WRITE_ERROR;
	to.address = entry->to;
	to.port = entry->to_port;
	reason = rewrite(skb, f, &to);
	if (reason || !entry->from_port)
		return reason;
	to.address = entry->from;
	to.port = entry->from_port;
	to.is_source = 1;
	return rewrite(skb, f, &to);
}

/* A new connection straight to the node is none of a service that the client had with the same ports. */
static __always_inline void forget_answers(struct scratch *w, const struct flow *f)
{
	if (!opens_connection(f))
		return;
	nat_key_of_arrival(f, NAT_OUT, &w->key);
	bpf_map_delete_elem(&cilium_snat, &w->key);
}

static __always_inline __u32 way_to(const struct flow *f)
{
	struct endpoint local;

	if (find_endpoint(&f->destination, &local))
		return WAY_POD;
	return peer_identity(&f->destination) == IDENTITY_HOST ? WAY_STACK : WAY_ON;
}

/* With `extra` bytes, the packet would be too large for the way to the backend. In tunnel mode `CFG.mtu` is that of the tunnel. */
static __always_inline bool is_too_big(const struct __sk_buff *skb, const struct flow *f, const struct addr *backend,
				       __u32 extra)
{
	if (!CFG.mtu || skb->gso_size || skb->len - ETH_HLEN + extra <= CFG.mtu)
		return false;
	if (!extra && f->v4 && !f->dont_fragment)
		return false;
	return !CFG.tunnel_ifindex || is_behind_tunnel(find_peer(backend));
}

/* A packet for a backend elsewhere fits, and says what is said to the backend's node. 0 or the reason to drop. */
SUBPROGRAM int prepare_way_on(struct __sk_buff *skb, struct flow *f, struct passage *p, bool announce)
{
	struct scratch *w = find_scratch();
	__u32 extra;

	if (!f || !p || !w)
		return DROP_WRITE_ERROR;
	extra = announce ? dsr_length(f) : 0;
	if (is_too_big(skb, f, &w->entry.to, extra)) {
		p->refusal = REFUSE_TOO_BIG;
		p->mtu = CFG.mtu - extra;
		return DROP_FRAGMENTATION_NEEDED;
	}
	if (CFG.tunnel_ifindex)
		p->client = peer_identity(&f->source);
	return announce ? announce_service(skb, f) : 0;
}

/* The node's routes say that a packet is for the node itself. */
static __always_inline bool is_of_stack(struct __sk_buff *skb, const struct flow *f)
{
	struct bpf_fib_lookup route = {};
	long result;

	fill_route_query(&route, skb->ifindex, f, &f->source);
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return result < 0 || result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* At an address of a load balancer, what is for none of its ports has no place to go: the stack would send it back to where it came
 * from. If the node has the address as well, the stack serves what no Service does. */
SUBPROGRAM int is_stray(struct __sk_buff *skb, struct flow *f)
{
	struct service_key key = { .scope = SCOPE_EXTERNAL };

	if (!f)
		return 0;
	key.address = f->destination;
	return bpf_map_lookup_elem(&cilium_services, &key) && is_world(peer_identity(&f->destination)) &&
	       !is_of_stack(skb, f);
}

/* Sends what came to a service on to its backend. 0, also when it did not, or the reason to drop. */
SUBPROGRAM int serve(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	__u32 now = now_seconds();
	struct scratch *w = find_scratch();
	const struct service_entry *service;
	struct nat_entry *known;
	int reason;

	if (!f || !p || !w)
		return DROP_NO_SERVICE;
	service = find_frontend(f, &w->service);
	if (!service) {
		if (is_own_address(f))
			forget_answers(w, f);
		return is_stray(skb, f) ? DROP_NO_SERVICE : 0;
	}
	nat_key_of_arrival(f, NAT_SERVICE, &w->key);
	known = bpf_map_lookup_elem(&cilium_snat, &w->key);
	if (!known || !stays(known, service, f, now) || !go_on(w, known, f, now)) {
		reason = begin(w, f, p, service, now);
		if (reason)
			return reason;
	}
	reason = 0;
	if (w->entry.from_port || w->entry.flags & CT_DSR)
		reason = prepare_way_on(skb, f, p, w->entry.flags & CT_DSR && dsr_is_due(f));
	if (!reason)
		reason = apply(skb, f, &w->entry);
	p->way = w->entry.from_port || w->entry.flags & CT_DSR ? WAY_ON : way_to(f);
	return reason;
}

/* The answer of a backend elsewhere. */
static __always_inline void follow_answer(const struct flow *f, const struct nat_entry *in)
{
	struct nat_target service = { .address = in->from, .port = in->from_port };
	struct nat_target client = { .address = in->to, .port = in->to_port };
	struct nat_key key;

	nat_key_of_arrival(f, NAT_IN, &key);
	nat_answer_goes_on(f, &key, in, &service, &client);
}

/* Turns an answer to the node's address back: into one for the pod that was masqueraded, or for the client of a service. 0, also when it
 * is none, or the reason to drop. */
SUBPROGRAM int turn_back(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	struct nat_entry in = {};

	if (!f || !p || !nat_find_arrival(f, NAT_IN, &in))
		return 0;
	if (in.from_port)
		follow_answer(f, &in);
	p->way = in.from_port ? WAY_ON : WAY_ANSWER;
	return apply(skb, f, &in);
}

/* Moves the quoted packet and, with it, the error to whoever sent that. */
SUBPROGRAM int move_error(struct __sk_buff *skb, struct flow *f, const struct quoted *quoted, const struct nat_entry *entry)
{
	struct nat_target side = { .is_source = 1 };
	int reason;

	if (!f || !quoted || !entry)
		return DROP_WRITE_ERROR;
	side.address = entry->to;
	side.port = entry->to_port;
	reason = rewrite_quoted(skb, f, quoted, &side);
	side.is_source = 0;
	if (!reason)
		reason = rewrite_address(skb, f, &side);
	f->destination = entry->to;
	if (reason || !entry->from_port)
		return reason;
	side.address = entry->from;
	side.port = entry->from_port;
	return rewrite_quoted(skb, f, quoted, &side);
}

/* An ICMP error about a packet that was translated here, on its way out or in: finds its sender by the quoted packet, and moves both. 0,
 * also when it is not about such a packet, or the reason to drop. */
SUBPROGRAM int turn_back_error(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	struct scratch *w = find_scratch();
	int reason;

	if (!f || !p || !w || !read_quoted_aside(skb, f, w))
		return 0;
	if (is_own_address(f) && nat_find_arrival(&w->answer, NAT_IN, &w->entry)) {
		p->way = w->entry.from_port ? WAY_ON : WAY_ANSWER;
		return move_error(skb, f, &w->quoted, &w->entry);
	}
	/* About an answer that left as a service: its sender is the backend. */
	if (!nat_find_arrival(&w->answer, NAT_SERVICE, &w->entry))
		return 0;
	reason = move_error(skb, f, &w->quoted, &w->entry);
	p->way = way_to(f);
	return reason;
}

/* Drops a packet, and lets its sender know where that is due. */
static __always_inline int turn_down(struct __sk_buff *skb, const struct flow *f, const struct sides *s,
				     const struct passage *p, int reason, __u8 direction)
{
	int verdict = drop(skb, f, s, reason, direction);

	return p->refusal ? refuse(skb, f, p->refusal, p->mtu) : verdict;
}

/* Finds out what a packet is that came to the node's address, or to none of its pods. 0 or the reason to drop. */
static __always_inline int translate_arrival(struct __sk_buff *skb, struct flow *f, struct passage *p)
{
	int reason = 0;

	p->way = WAY_STACK;
	if (f->icmp_error)
		return turn_back_error(skb, f, p);
	/* A later fragment of the node's own traffic has no entry here, as its first fragment was of no interest. */
	if (!(nat_has_port(f) || nodeport_supports(f)) || (f->fragment && fragment_ports(f)))
		return 0;
	if (is_own_address(f) && nat_port_in_range(f->destination_port))
		reason = turn_back(skb, f, p);
	if (reason || p->way != WAY_STACK || !nodeport_supports(f))
		return reason;
	return serve(skb, f, p);
}

/* What a process of this node answers as the backend of a service. 0 or the reason to drop. */
SUBPROGRAM int answer_as_service(struct __sk_buff *skb, struct flow *f)
{
	struct nat_target service = { .is_source = 1 };
	struct addr own;

	if (!f || !nodeport_supports(f))
		return 0;
	own = host_address(f->v4);
	if (!addr_equal(&f->source, &own) || (f->fragment && fragment_ports(f)))
		return 0;
	return nat_find_service(f, &service) ? rewrite(skb, f, &service) : 0;
}

/* On to another node, or to a client: by the tunnel where pods are reached through it. */
static __always_inline int send_elsewhere(struct __sk_buff *skb, struct flow *f, struct sides *s, __u32 client)
{
	s->from_identity = client;
	s->route = CT_DIRECT;
	s->translated = 1;
	if (CFG.tunnel_ifindex && is_behind_tunnel(find_peer(&f->destination)))
		return encapsulate(skb, f, s);
	return forward(skb, f, s);
}
