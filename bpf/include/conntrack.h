/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "policy.h"

/* Seconds after the last packet. */
#define LIFETIME_TCP 8000
#define LIFETIME_TCP_OPENING 60
#define LIFETIME_TCP_CLOSING 10
#define LIFETIME_OTHER 60

/* Fills the key; true when the sender is the high side. */
static __always_inline bool ct_key_of(const struct flow *f, struct ct_key *key)
{
	bool high = addr_equal(&f->source, &f->destination)
			    ? bpf_ntohs(f->source_port) > bpf_ntohs(f->destination_port)
			    : addr_above(&f->source, &f->destination);

	key->low = high ? f->destination : f->source;
	key->high = high ? f->source : f->destination;
	key->low_port = high ? f->destination_port : f->source_port;
	key->high_port = high ? f->source_port : f->destination_port;
	key->protocol = f->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
	return high;
}

static __always_inline struct ct_entry *ct_find(const struct ct_key *key, __u32 now)
{
	struct ct_entry *entry = bpf_map_lookup_elem(&cilium_ct, key);

	return entry && entry->expires >= now ? entry : NULL;
}

static __always_inline bool ct_is_reply(const struct ct_entry *entry, bool sender_high)
{
	return sender_high != !!(entry->flags & CT_STARTED_BY_HIGH);
}

/* Both sides are done sending. */
static __always_inline bool ct_is_closed(__u16 flags)
{
	return flags & CT_FIN_STARTER && flags & CT_FIN_ANSWERER;
}

static __always_inline __u32 ct_lifetime(__u8 protocol, __u16 flags)
{
	if (protocol != IPPROTO_TCP)
		return LIFETIME_OTHER;
	if (ct_is_closed(flags))
		return LIFETIME_TCP_CLOSING;
	return flags & CT_CONFIRMED ? LIFETIME_TCP : LIFETIME_TCP_OPENING;
}

static __always_inline __u16 ct_next_flags(__u16 flags, const struct flow *f, bool reply)
{
	if (reply)
		flags |= CT_REPLIED;
	if (f->protocol != IPPROTO_TCP)
		return flags;
	if (!reply && !(f->tcp_flags & TCP_SYN))
		flags |= CT_CONFIRMED;
	if (f->tcp_flags & TCP_FIN)
		flags |= reply ? CT_FIN_ANSWERER : CT_FIN_STARTER;
	if (f->tcp_flags & TCP_RST)
		flags |= CT_FIN_ANSWERER | CT_FIN_STARTER | CT_RESET;
	return flags;
}

/* Takes a packet into account. Writes only what changes, so an established connection costs one store a second; true when
 * its lifetime moved. */
static __always_inline bool ct_touch(struct ct_entry *entry, const struct flow *f, bool reply, __u32 now)
{
	__u16 flags = ct_next_flags(entry->flags, f, reply);
	__u32 expires = now + ct_lifetime(f->protocol, flags);

	if (flags != entry->flags)
		entry->flags = flags;
	if (expires == entry->expires)
		return false;
	entry->expires = expires;
	return true;
}

static __always_inline void ct_remember_side(struct ct_side *side, const struct endpoint *endpoint)
{
	if (side->ifindex == endpoint->ifindex && side->slot == endpoint->slot)
		return;
	side->slot = endpoint->slot;
	copy_mac(side->mac, endpoint->mac);
	side->ifindex = endpoint->ifindex;
}

/* Whether the starter, a pod of this node, came by a service this time. */
static __always_inline void ct_remember_service(struct ct_entry *entry, const struct sides *s)
{
	__u16 flags = (entry->flags & ~CT_SERVICE) | (s->balanced ? CT_SERVICE : 0);

	if (flags != entry->flags)
		entry->flags = flags;
}

/* Notes the ends that are pods of this node. */
static __always_inline void ct_remember_sides(struct ct_entry *entry, const struct sides *s, bool sender_high)
{
	if (s->from_here)
		ct_remember_side(sender_high ? &entry->high_side : &entry->low_side, &s->from);
	if (s->to_here)
		ct_remember_side(sender_high ? &entry->low_side : &entry->high_side, &s->to);
}

/* The packet belongs to a connection that goes on. */
static __always_inline bool ct_goes_on(const struct ct_entry *known, const struct flow *f)
{
	return known && !(known->flags & CT_REFUSED) && !opens_connection(f);
}

/* An answer on a connection that policy has put an end to. It starts nothing: what it answers would otherwise pass as its
 * answer. */
static __always_inline bool ct_is_late_answer(const struct ct_entry *known, const struct flow *f, bool reply)
{
	return known && reply && known->flags & CT_REFUSED && !opens_connection(f);
}

/* Policy puts an end to a connection. The entry stays for as long as answers may still be on their way. */
static __always_inline void ct_refuse(struct ct_entry *entry, __u8 protocol, __u32 now)
{
	if (entry->flags & CT_REFUSED)
		return;
	entry->flags |= CT_REFUSED;
	entry->expires = now + (protocol == IPPROTO_TCP ? LIFETIME_TCP : LIFETIME_OTHER);
}

/* Starts the entry of a connection, or of one that is judged again, in which case what is known of it stays. */
static __always_inline struct ct_entry ct_begin(const struct flow *f, const struct ct_entry *known, bool sender_high,
						__u16 route)
{
	struct ct_entry fresh = { .flags = route | (sender_high ? CT_STARTED_BY_HIGH : 0) };

	if (known && !opens_connection(f)) {
		fresh.flags |= known->flags & ~(CT_ROUTE | CT_PROXY | CT_STARTED_BY_HIGH | CT_REFUSED);
		fresh.nat_port = known->nat_port;
	}
	return fresh;
}

/* The policy of a side that this node enforces; 0 for one that it does not. */
static __always_inline __u32 from_generation(const struct sides *s)
{
	return s->from_here || s->from_host ? slot_generation(s->from_slot) : 0;
}

static __always_inline __u32 to_generation(const struct sides *s)
{
	return s->to_here || s->to_host ? slot_generation(s->to_slot) : 0;
}

/* Stores an allowed connection. Packets that cannot be followed by others of the same connection leave no entry. */
static __always_inline int ct_record(const struct ct_key *key, struct ct_entry *fresh, const struct flow *f,
				     const struct sides *s, __u32 now)
{
	if (f->icmp_error || f->tcp_flags & TCP_RST)
		return 0;
	fresh->egress_generation = from_generation(s);
	fresh->ingress_generation = to_generation(s);
	fresh->expires = now + ct_lifetime(f->protocol, fresh->flags);
	return bpf_map_update_elem(&cilium_ct, key, fresh, BPF_ANY) ? DROP_CT_INSERT_FAILED : 0;
}
