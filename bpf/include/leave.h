/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Packets that a pod of this node sends. */

#include "balance.h"
#include "proxy.h"

static __always_inline bool must_masquerade(const struct flow *f, __u32 identity)
{
	/* In tunnel mode the network between the nodes may not know pod addresses; without a tunnel it must. */
	bool outside = is_world(identity) || (CFG.tunnel_ifindex && is_remote_node(identity));

	return outside && nat_enabled(f->v4) && !nat_is_kept(&f->destination);
}

/* The node's own policy counts for what it receives from its pods, too. */
static __always_inline void find_host_receiver(const struct flow *f, struct sides *s)
{
	s->to_host = has_host_firewall() && !addr_is_multicast(&f->destination);
	if (s->to_host)
		s->to_slot = read_host_slot();
}

static __always_inline void find_route(const struct flow *f, struct sides *s)
{
	const struct ipcache_entry *peer = find_peer(&f->destination);

	s->to_identity = peer ? peer->identity : world_identity(&f->destination);
	s->route = CT_DIRECT;
	/* What no router forwards is for the stack to ignore. */
	if (s->to_identity == IDENTITY_HOST || addr_is_on_link(&f->destination)) {
		s->route = CT_STACK;
		find_host_receiver(f, s);
	} else if (is_behind_tunnel(peer))
		s->route = CT_TUNNEL;
	else
		s->leaves = must_masquerade(f, s->to_identity);
}

/* Looks the destination up: an endpoint, or else its identity and how it is reached. 0 or the reason to drop. */
SUBPROGRAM int locate(const struct flow *f, struct sides *s)
{
	if (!f || !s)
		return DROP_UNKNOWN_TARGET;
	s->to_here = find_endpoint(&f->destination, &s->to);
	if (!s->to_here) {
		find_route(f, s);
		return 0;
	}
	s->to_slot = read_slot(&s->to);
	if (s->to_slot & SLOT_OPEN)
		return 0;
	s->refused = DIRECTION_INGRESS;
	return DROP_ENDPOINT_NOT_READY;
}

static __always_inline bool judged_under(const struct ct_entry *entry, const struct sides *s)
{
	return entry->egress_generation == from_generation(s) && entry->ingress_generation == to_generation(s);
}

/* Renews the port of a masqueraded connection along with the connection. */
static __always_inline void renew_port(struct ct_entry *entry, const struct flow *f, __u32 now)
{
	__be16 port = entry->nat_port;

	if (nat_acquire(f, now, nat_lease(now, f->protocol, entry->flags, true), &port) == 0 &&
	    port != entry->nat_port)
		entry->nat_port = port;
}

/* Takes a packet of a known connection into account. */
static __always_inline int follow(struct ct_entry *entry, const struct flow *f, struct sides *s, bool reply, __u32 now)
{
	bool moved = ct_touch(entry, f, reply, now);

	s->route = entry->flags & (CT_ROUTE | CT_PROXY | (reply ? CT_SERVICE : 0));
	s->disguised = reply && s->to_here && entry->flags & CT_SERVICE;
	if (reply)
		return 0;
	ct_remember_service(entry, s);
	if (!entry->nat_port)
		return 0;
	if (moved && f->fragment != FRAGMENT_LATER)
		renew_port(entry, f, now);
	s->nat_port = entry->nat_port;
	return 0;
}

/* A connection that is new, or must be judged again: asks policy, takes a port if the packet leaves the cluster, and stores
 * it. 0 or the reason to drop. */
static __always_inline int start(struct __sk_buff *skb, const struct flow *f, struct sides *s, const struct ct_key *key,
				 struct ct_entry *fresh, __u32 now)
{
	__be16 port = fresh->nat_port;
	int reason = judge(skb, f, s);

	if (!reason && s->leaves)
		reason = nat_acquire(f, now, nat_lease(now, f->protocol, fresh->flags, false), &port);
	if (reason)
		return reason;
	if (s->route & CT_PROXY) {
		/* The receiver's own policy was asked, too: from here on the proxy is the other side. */
		s->to_here = s->to_host = 0;
		fresh->flags = (fresh->flags & ~CT_ROUTE) | s->route;
	}
	s->nat_port = fresh->nat_port = s->leaves ? port : 0;
	ct_remember_service(fresh, s);
	return ct_record(key, fresh, f, s, now);
}

/* Follows or starts the connection of a packet, and finds out where the packet goes. 0 or the reason to drop. */
SUBPROGRAM int track_out(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	__u32 now = now_seconds();
	struct ct_entry *known, fresh;
	bool high, reply, follows;
	struct ct_key key;
	int reason;

	if (!f || !s)
		return DROP_CT_UNKNOWN_STATE;
	high = ct_key_of(f, &key);
	known = ct_find(&key, now);
	reply = known && ct_is_reply(known, high);
	follows = ct_goes_on(known, f);
	/* The way of an answered connection to the outside of this node is known. */
	if (follows && known->flags & CT_ROUTE && (reply || (known->flags & CT_REPLIED && judged_under(known, s)))) {
		ct_remember_sides(known, s, high);
		return follow(known, f, s, reply, now);
	}
	reason = locate(f, s);
	if (reason)
		return reason;
	if (follows && (reply || judged_under(known, s)) && (known->flags & CT_ROUTE) == s->route) {
		ct_remember_sides(known, s, high);
		return follow(known, f, s, reply, now);
	}
	if (ct_is_late_answer(known, f, reply))
		return s->leaves ? DROP_POLICY_DENIED : judge(skb, f, s);
	fresh = ct_begin(f, reply ? NULL : known, high, s->route);
	ct_remember_sides(&fresh, s, high);
	reason = start(skb, f, s, &key, &fresh, now);
	if (reason && known && !reply)
		ct_refuse(known, f->protocol, now);
	return reason;
}

/* An ICMP error passes when it is about a packet of a known connection; otherwise policy is asked. 0 or the reason to drop. */
SUBPROGRAM int relate_out(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	struct relation relation = {};
	int reason = locate(f, s);

	if (reason || !f || !s)
		return reason;
	/* Of a masqueraded connection, only the pod itself can complain; the way back knows no other. */
	if (!find_relation(skb, f, &relation) || (relation.nat_port && !addr_equal(&relation.receiver, &f->source))) {
		reason = judge(skb, f, s);
		return !reason && s->leaves ? DROP_NAT_UNSUPPORTED_PROTOCOL : reason;
	}
	s->nat_port = relation.nat_port;
	s->disguised = s->to_here && is_of_service(&relation);
	if (!s->to_here && relation.flags & CT_ROUTE)
		s->route = relation.flags & (CT_ROUTE | (relation.of_starter ? CT_SERVICE : 0));
	return 0;
}

/* A packet to a service goes on to a backend; one that comes back to its sender as such is done. 0 or the reason to drop. */
static __always_inline int balance_out(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	struct passage passage = {};
	int reason = balance(skb, f, &passage);

	s->refusal = passage.refusal;
	if (passage.way == WAY_STACK)
		return reason;
	s->balanced = 1;
	if (passage.way == WAY_POD) {
		s->to = s->from;
		s->to_here = 1;
	}
	return reason;
}

/* Decides whether and where a packet of the pod `s->from` goes. 0 or the reason to drop. */
static __always_inline int let_out(struct __sk_buff *skb, struct flow *f, struct sides *s)
{
	int reason = 0;

	s->from_slot = read_slot(&s->from);
	if (!(s->from_slot & SLOT_OPEN))
		return DROP_ENDPOINT_NOT_READY;
	if (f->fragment)
		reason = fragment_ports(f);
	if (!reason)
		reason = balance_out(skb, f, s);
	if (reason || s->to_here)
		return reason;
	return f->icmp_error ? relate_out(skb, f, s) : track_out(skb, f, s);
}

static __always_inline int send_on(struct __sk_buff *skb, struct flow *f, const struct sides *s)
{
	int reason = s->disguised ? disguise(skb, f) : 0;

	if (reason)
		return drop(skb, f, s, reason, DIRECTION_EGRESS);
	if (s->route & CT_PROXY)
		return hand_to_proxy(skb, f, s);
	if (s->to_here)
		return deliver_to_pod(skb, f, s, DIRECTION_EGRESS);
	if (s->route & CT_TUNNEL)
		return encapsulate(skb, f, s);
	if (s->route & CT_DIRECT)
		return forward(skb, f, s);
	count(FORWARDED, DIRECTION_EGRESS, skb->len);
	return TC_ACT_OK;
}
