/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "events.h"

static __always_inline __u32 slot_generation(__u64 slot)
{
	return (__u32)slot;
}

/* The entry for one peer; the trie prefers a port over a range, and that over the whole protocol, over any protocol. */
static __always_inline const struct policy_entry *find_rule(const struct flow *f, __u64 slot, __u32 peer,
							    __u8 direction)
{
	struct policy_key key = {
		.prefix_len = POLICY_PREFIX_FULL,
		.generation = slot_generation(slot),
		.peer = peer,
		.direction = direction,
		.protocol = f->protocol,
		.port = policy_port(f),
	};

	return bpf_map_lookup_elem(&cilium_policy, &key);
}

/* The entry for the narrowest block around the other side's address, whatever its identity is. */
static __always_inline const struct policy_entry *find_block_rule(const struct flow *f, __u64 slot, __u8 direction)
{
	const struct addr *address = direction == DIRECTION_INGRESS ? &f->source : &f->destination;
	const struct block_entry *block;
	struct block_key key = {
		.prefix_len = BLOCK_PREFIX_FULL,
		.generation = slot_generation(slot),
		.direction = direction,
		.family = addr_is_v4(address) ? 4 : 6,
	};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	block = bpf_map_lookup_elem(&cilium_blocks, &key);
	return block ? find_rule(f, slot, block->peer, direction) : NULL;
}

/* What goes out by a rule about DNS goes to the proxy of this node, whoever it is for. */
static __always_inline void turn_to_proxy(struct sides *s)
{
	s->route = CT_STACK | CT_PROXY;
	s->leaves = 0;
}

/* Asks one enforced direction of a slot about a new connection; sends the verdict. 0 or the reason to drop. */
SUBPROGRAM int ask_policy(struct __sk_buff *skb, const struct flow *f, struct sides *s, __u8 direction)
{
	struct occasion occasion = { .kind = EVENT_VERDICT, .direction = direction };
	bool ingress = direction == DIRECTION_INGRESS;
	const struct policy_entry *rule;
	__u64 slot;
	__u32 peer;

	if (!f || !s)
		return DROP_POLICY_DENIED;
	slot = ingress ? s->to_slot : s->from_slot;
	peer = ingress ? s->from_identity : s->to_identity;
	rule = find_rule(f, slot, peer, direction);
	if (!rule)
		rule = find_rule(f, slot, aggregate_of(peer), direction);
	/* Blocks only allow, so they come last. */
	if (!rule || rule->verdict == POLICY_NONE)
		rule = find_block_rule(f, slot, direction);
	if (!rule) {
		occasion.reason = DROP_POLICY_DENIED;
	} else {
		occasion.cookie = rule->cookie;
		if (rule->verdict == POLICY_PROXY && !ingress) {
			turn_to_proxy(s);
		} else if (rule->verdict != POLICY_ALLOW) {
			occasion.reason = DROP_POLICY_DENY;
			s->cookie = rule->cookie;
		}
	}
	send_event(skb, f, s, &occasion);
	return occasion.reason;
}

static __always_inline int check_egress(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	if (!(s->from_here || s->from_host) || !(s->from_slot & SLOT_EGRESS_ENFORCED) || addr_equal(&f->source, &f->destination))
		return 0;
	return ask_policy(skb, f, s, DIRECTION_EGRESS);
}

static __always_inline int check_ingress(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	if (!(s->to_here || s->to_host) || !(s->to_slot & SLOT_INGRESS_ENFORCED) || addr_equal(&f->source, &f->destination))
		return 0;
	return ask_policy(skb, f, s, DIRECTION_INGRESS);
}

/* Asks both ends' policies, as far as they are on this node. 0 or the reason to drop. */
SUBPROGRAM int judge(struct __sk_buff *skb, const struct flow *f, struct sides *s)
{
	int reason;

	if (!f || !s)
		return DROP_POLICY_DENIED;
	if (s->from_here)
		s->from_identity = s->from.identity;
	if (s->to_here)
		s->to_identity = s->to.identity;
	if (s->from_host)
		s->from_identity = IDENTITY_HOST;
	if (s->to_host)
		s->to_identity = IDENTITY_HOST;
	s->refused = DIRECTION_EGRESS;
	reason = check_egress(skb, f, s);
	if (reason)
		return reason;
	s->refused = DIRECTION_INGRESS;
	reason = check_ingress(skb, f, s);
	if (!reason)
		s->refused = 0;
	return reason;
}
