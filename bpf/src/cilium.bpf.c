/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* All programs of the datapath, as one object so that they share maps and configuration. */

#include "maps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

volatile const struct config CFG SEC(".rodata") = {};

SEC("classifier") int from_host(struct __sk_buff *skb)
{
	return CFG.flags && skb->len ? 0 : 2;
}
