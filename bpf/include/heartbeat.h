/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Owners of the same addresses watch each other. Requests come from agents; they are answered here, so that a node whose agent
 * restarts stays alive to the others, and so does what it answers for. */

#include "maps.h"
#include "addr.h"
#include "parse.h"

#define SIPHASH_WORDS 7 /* of struct heartbeat, before the tag */

_Static_assert(sizeof(struct heartbeat) == (SIPHASH_WORDS + 1) * sizeof(__u64), "a tag behind whole words");

#define ROTATED(word, bits) ((word) << (bits) | (word) >> (64 - (bits)))

static __always_inline void siphash_round(__u64 v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = ROTATED(v[1], 13) ^ v[0];
	v[3] = ROTATED(v[3], 16) ^ v[2];
	v[0] = ROTATED(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = ROTATED(v[1], 17) ^ v[2];
	v[3] = ROTATED(v[3], 21) ^ v[0];
	v[2] = ROTATED(v[2], 32);
}

static __always_inline void siphash_word(__u64 v[4], __u64 word)
{
	v[3] ^= word;
	siphash_round(v);
	siphash_round(v);
	v[0] ^= word;
}

static __always_inline __u64 announcer(__u32 element)
{
	__u64 *value = bpf_map_lookup_elem(&cilium_announcer, &element);

	return value ? *(volatile __u64 *)value : 0;
}

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of everything before the tag; words are little-endian, as these machines are. */
SUBPROGRAM __u64 heartbeat_tag(const struct heartbeat *beat)
{
	const __u64 *words = (const __u64 *)beat;
	__u64 first = announcer(ANNOUNCER_KEY_FIRST), second = announcer(ANNOUNCER_KEY_SECOND);
	__u64 v[4] = { first ^ 0x736f6d6570736575ULL, second ^ 0x646f72616e646f6dULL, first ^ 0x6c7967656e657261ULL,
		       second ^ 0x7465646279746573ULL };

	if (!beat)
		return 0;
	for (int at = 0; at < SIPHASH_WORDS; at++)
		siphash_word(v, words[at]);
	siphash_word(v, SIPHASH_WORDS * sizeof(__u64) << 56);
	v[2] ^= 0xff;
	for (int round = 0; round < 4; round++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Nanoseconds since the agent was alive. */
static __always_inline __u64 agent_age(__u64 now)
{
	__u64 alive = announcer(ANNOUNCER_AGENT);

	return now > alive ? now - alive : 0;
}

static __always_inline void note_peer(struct peer_entry *peer, struct link_signs *signs, const struct heartbeat *beat, __u64 now)
{
	__builtin_memcpy(peer->mac, beat->mac, ETH_ADDR_LEN);
	peer->flags = beat->flags;
	peer->agent_age = bpf_be64_to_cpu(beat->agent_age);
	if (beat->flags & LINK_ANSWERING)
		signs->met = now;
}

/* What an answer proves, it proves of the time when it was asked for. */
static __always_inline void note_answer(struct peer_entry *peer, struct link_signs *signs, const struct heartbeat *beat, __u64 now)
{
	if (beat->sent > now || beat->sent <= peer->answered)
		return;
	note_peer(peer, signs, beat, now);
	peer->answered = beat->sent;
	if (beat->sent > signs->heard)
		signs->heard = beat->sent;
}

static __always_inline void note_request(struct peer_entry *peer, struct link_signs *signs, const struct heartbeat *beat, __u64 now)
{
	/* Also of a machine whose clock was set back. */
	signs->asked = now;
	if (bpf_be64_to_cpu(beat->stamp) <= peer->stamp)
		return;
	note_peer(peer, signs, beat, now);
	peer->stamp = bpf_be64_to_cpu(beat->stamp);
	if (beat->flags & HEARTBEAT_HEARS_YOU) {
		peer->asked = now;
		signs->heard = now;
	}
}

/* Turns a request into its answer. */
static __always_inline int answer_heartbeat(struct __sk_buff *skb, struct ethhdr *eth, struct heartbeat *beat,
					    const struct link_entry *link, __u64 now)
{
	beat->kind = HEARTBEAT_ANSWER;
	beat->flags = link->flags;
	beat->to = beat->from;
	beat->from = announcer(ANNOUNCER_NODE);
	beat->agent_age = bpf_cpu_to_be64(agent_age(now) / NSEC_PER_MSEC);
	__builtin_memcpy(beat->mac, link->mac, ETH_ADDR_LEN);
	beat->tag = heartbeat_tag(beat);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ADDR_LEN);
	__builtin_memcpy(eth->h_source, link->mac, ETH_ADDR_LEN);
	if (bpf_skb_store_bytes(skb, 0, eth, sizeof(*eth), 0) ||
	    bpf_skb_store_bytes(skb, sizeof(*eth), beat, sizeof(*beat), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline bool is_for_us(const struct heartbeat *beat)
{
	return beat->to == announcer(ANNOUNCER_NODE) || (beat->to == HEARTBEAT_TO_ANYBODY && beat->kind == HEARTBEAT_REQUEST);
}

/* Nothing of these is for the stack; other frames of this EtherType are somebody else's. Who sends a frame says so under the tag: a
 * copy that comes from elsewhere is none. */
SUBPROGRAM int hear(struct __sk_buff *skb)
{
	struct heartbeat beat = {};
	struct link_signs *signs;
	struct link_entry *link;
	struct peer_entry *peer;
	struct peer_key key = {};
	struct ethhdr eth = {};
	__u64 now = bpf_ktime_get_ns();
	__u32 ifindex = skb->ifindex;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, sizeof(eth), &beat, sizeof(beat)) ||
	    beat.magic != bpf_htonl(HEARTBEAT_MAGIC))
		return TC_ACT_UNSPEC;
	link = bpf_map_lookup_elem(&cilium_links, &ifindex);
	signs = bpf_map_lookup_elem(&cilium_link_signs, &ifindex);
	if (!link || !signs || link->flags & LINK_LEASED || !is_for_us(&beat) ||
	    __builtin_memcmp(eth.h_source, beat.mac, ETH_ADDR_LEN) || beat.tag != heartbeat_tag(&beat))
		return TC_ACT_SHOT;
	key.node = beat.from;
	key.ifindex = ifindex;
	peer = bpf_map_lookup_elem(&cilium_peers, &key);
	if (peer) {
		if (beat.kind == HEARTBEAT_ANSWER)
			note_answer(peer, signs, &beat, now);
		else if (beat.kind == HEARTBEAT_REQUEST)
			note_request(peer, signs, &beat, now);
	}
	return beat.kind == HEARTBEAT_REQUEST ? answer_heartbeat(skb, &eth, &beat, link, now) : TC_ACT_SHOT;
}
