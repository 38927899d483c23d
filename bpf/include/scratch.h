/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Room for what does not fit on the stack of 512 bytes that a program and all it calls have. Programs on packets do not interrupt each
 * other on one processor. */

#include "icmp.h"
#include "service.h"

struct scratch {
	/* Of the packet that an ICMP error is about, and an answer to it. */
	struct quoted quoted;
	struct flow answer;
	/* Of a packet for a service. */
	struct service_key service;
	struct nat_key key;
	struct nat_key partner;
	struct nat_entry entry;
	struct nat_entry mine;
	struct target backend;
	struct client client;
};

MAP(cilium_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct scratch, 1, 0);

static __always_inline struct scratch *find_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cilium_scratch, &zero);
}

/* Reads the packet that an ICMP error is about; false when it cannot be told which connection it was of. */
static __always_inline bool read_quoted_aside(struct __sk_buff *skb, const struct flow *f, struct scratch *w)
{
	if (!read_quoted(skb, f, &w->quoted))
		return false;
	turn_around(&w->answer, &w->quoted.flow);
	return true;
}
