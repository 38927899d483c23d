/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "events.h"

static __always_inline __u32 slot_generation(__u64 slot)
{
	return (__u32)slot;
}

/* Rules are as in struct policy_rules, 0 is none. */
static __always_inline __u32 rule_cookie(__u64 rule)
{
	return (__u32)rule;
}

static __always_inline __u8 rule_verdict(__u64 rule)
{
	return rule >> 61;
}

static __always_inline bool rule_covers(__u64 rule, __u32 traffic)
{
	__u32 scope = rule >> 32;

	return !(((scope ^ traffic) & 0xffffff) >> (scope >> 24 & 31));
}

/* The rule of a peer with too many for one element; the trie prefers a port over a range, and so on. */
static __always_inline __u64 find_port_rule(const struct flow *f, __u64 slot, __u32 peer, __u8 direction)
{
	const struct policy_entry *entry;
	struct policy_key key = {
		.prefix_len = POLICY_PREFIX_FULL,
		.generation = slot_generation(slot),
		.peer = peer,
		.direction = direction,
		.protocol = f->protocol,
		.port = policy_port(f),
	};

	entry = bpf_map_lookup_elem(&cilium_policy_ports, &key);
	return entry ? entry->cookie | (__u64)entry->verdict << 61 : 0;
}

/* The first rule about the traffic: they stand in the order of a port, a range, the whole protocol, any protocol. */
static __always_inline __u64 pick_rule(const struct policy_rules *said, const struct flow *f, __u64 slot, __u32 peer,
				       __u8 direction)
{
	__u32 traffic = (__u32)f->protocol << 16 | bpf_ntohs(policy_port(f));
	__u64 rule = 0;

#pragma unroll
	for (int i = 0; i < POLICY_RULES; i++) {
		rule = said->rules[i];
		if (!rule || rule_covers(rule, traffic))
			break;
		rule = 0;
	}
	return rule_verdict(rule) == POLICY_PORTS ? find_port_rule(f, slot, peer, direction) : rule;
}

static __always_inline __u64 find_rule(const struct flow *f, __u64 slot, __u32 peer, __u8 direction)
{
	const struct policy_rules *said;
	struct policy_peer key = { .generation = slot_generation(slot), .peer = peer, .direction = direction };

	said = bpf_map_lookup_elem(&cilium_policy, &key);
	return said ? pick_rule(said, f, slot, peer, direction) : 0;
}

/* The rule for the aggregate that a peer is one of. No hash leads there: a place is that of one generation. */
static __always_inline __u64 find_aggregate_rule(const struct flow *f, __u64 slot, __u32 peer, __u8 direction)
{
	__u32 generation = slot_generation(slot), aggregate = aggregate_of(peer);
	__u32 place = generation % AGGREGATE_PLACES;
	__u32 number = (direction == DIRECTION_EGRESS ? AGGREGATE_COUNT : 0) + aggregate_number(aggregate);
	const struct policy_aggregates *element = bpf_map_lookup_elem(&cilium_policy_aggregates, &place);
	const struct policy_aggregate *found;

	if (!element)
		return 0;
	found = &element->of[number % (2 * AGGREGATE_COUNT)];
	return found->generation == generation ? pick_rule(&found->said, f, slot, aggregate, direction) : 0;
}

/* The rule for the narrowest block around the other side's address, whatever its identity is. */
static __always_inline __u64 find_block_rule(const struct flow *f, __u64 slot, __u8 direction)
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
	return block ? find_rule(f, slot, block->peer, direction) : 0;
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
	__u64 slot, rule;
	__u32 peer;

	if (!f || !s)
		return DROP_POLICY_DENIED;
	slot = ingress ? s->to_slot : s->from_slot;
	peer = ingress ? s->from_identity : s->to_identity;
	rule = find_rule(f, slot, peer, direction);
	if (!rule)
		rule = find_aggregate_rule(f, slot, peer, direction);
	/* Blocks only allow, so they come last. */
	if (!rule || rule_verdict(rule) == POLICY_NONE)
		rule = find_block_rule(f, slot, direction);
	if (!rule) {
		occasion.reason = DROP_POLICY_DENIED;
	} else {
		occasion.cookie = rule_cookie(rule);
		if (rule_verdict(rule) == POLICY_PROXY && !ingress) {
			turn_to_proxy(s);
		} else if (rule_verdict(rule) != POLICY_ALLOW) {
			occasion.reason = DROP_POLICY_DENY;
			s->cookie = rule_cookie(rule);
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
