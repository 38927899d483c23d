/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "parse.h"
#include "sides.h"

#define NSEC_PER_SEC 1000000000ULL

/* What an event says beside the packet. */
struct occasion {
	__u8 kind;      /* enum event_kind */
	__u8 reason;    /* enum drop_reason */
	__u8 direction; /* enum direction */
	__u8 pad;
	__u32 cookie;
};

static __always_inline void count(__u32 reason, __u32 column, __u32 bytes)
{
	__u32 index = (reason & 0xff) * METRIC_COLUMNS + column;
	struct metric *metric = bpf_map_lookup_elem(&cilium_metrics, &index);

	if (!metric)
		return;
	metric->packets++;
	metric->bytes += bytes;
}

static __always_inline __u32 now_seconds(void)
{
	return bpf_ktime_get_coarse_ns() / NSEC_PER_SEC;
}

static __always_inline bool somebody_listens(__u8 kind)
{
	__u32 zero = 0;
	__u32 *mask = bpf_map_lookup_elem(&cilium_event_mask, &zero);

	return mask && *mask & (kind == EVENT_DROP ? EVENT_MASK_DROP : EVENT_MASK_VERDICT);
}

/* A fixed number of events for each reason, CPU and second. */
static __always_inline bool within_budget(__u32 reason)
{
	struct event_budget *budget = bpf_map_lookup_elem(&cilium_event_budget, &reason);
	__u32 second = now_seconds();

	if (!budget)
		return false;
	if (budget->second != second) {
		budget->second = second;
		budget->used = 0;
	}
	if (budget->used >= CFG.event_rate)
		return false;
	budget->used++;
	return true;
}

/* A subprogram also so that the object describes the struct, which no map does. */
SUBPROGRAM int describe(struct event *event, const struct flow *f, const struct sides *s)
{
	if (!event || !f || !s)
		return 0;
	event->source = f->source;
	event->destination = f->destination;
	event->source_port = f->source_port;
	event->destination_port = f->destination_port;
	if (is_icmp(f)) {
		event->source_port = f->source_port | f->destination_port;
		if (!is_echo_request(f) && !is_echo_reply(f))
			event->source_port = 0;
		event->destination_port = bpf_htons(f->icmp_type);
	}
	event->protocol = f->protocol;
	event->tcp_flags = f->tcp_flags;
	event->source_identity = s->from_here ? s->from.identity : s->from_identity;
	event->destination_identity = s->to_here ? s->to.identity : s->to_identity;
	return 0;
}

static __always_inline __u16 asked_endpoint(const struct sides *s, __u8 direction)
{
	if (direction == DIRECTION_INGRESS)
		return s->to_here ? s->to.id : 0;
	return s->from_here ? s->from.id : 0;
}

SUBPROGRAM int send_event(struct __sk_buff *skb, const struct flow *f, const struct sides *s,
			  const struct occasion *occasion)
{
	struct event *event;

	if (!f || !s || !occasion)
		return 0;
	if (!somebody_listens(occasion->kind))
		return 0;
	if (!within_budget(occasion->reason)) {
		count(occasion->reason, METRIC_EVENT_SUPPRESSED, skb->len);
		return 0;
	}
	event = bpf_ringbuf_reserve(&cilium_events, sizeof(*event), 0);
	if (!event) {
		count(occasion->reason, METRIC_EVENT_LOST, skb->len);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	describe(event, f, s);
	event->time = bpf_ktime_get_ns();
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	event->cookie = occasion->cookie;
	event->endpoint = asked_endpoint(s, occasion->direction);
	event->kind = occasion->kind;
	event->reason = occasion->reason;
	event->direction = occasion->direction;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Counts and reports a packet that does not get through here. */
static __always_inline void report_drop(struct __sk_buff *skb, const struct flow *f, const struct sides *s,
					__u8 reason, __u8 direction)
{
	struct occasion occasion = {
		.kind = EVENT_DROP, .reason = reason, .direction = direction, .cookie = s->cookie
	};

	count(reason, direction, skb->len);
	if (reason != DROP_FORBIDDEN_ICMP6)
		send_event(skb, f, s, &occasion);
}

SUBPROGRAM int drop(struct __sk_buff *skb, const struct flow *f, const struct sides *s, __u8 reason, __u8 direction)
{
	if (!f || !s)
		return TC_ACT_SHOT;
	report_drop(skb, f, s, reason, direction);
	return TC_ACT_SHOT;
}
