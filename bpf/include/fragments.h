/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "events.h"

/* Only the first fragment has ports: remembers them, and looks them up for the others. One that overtakes the first is
 * dropped; the sender repeats the datagram. Asked again, when its addresses may be others, there is nothing to do. 0 or the reason to
 * drop. */
SUBPROGRAM int fragment_ports(struct flow *f)
{
	struct fragment_ports fresh = {}, *known;
	struct fragment_key key = {};

	if (!f)
		return DROP_FRAGMENT_NOT_FOUND;
	if (f->ports_known)
		return 0;
	key.source = f->source;
	key.destination = f->destination;
	key.id = f->fragment_id;
	key.protocol = f->protocol;
	fresh.source = f->source_port;
	fresh.destination = f->destination_port;
	if (f->fragment == FRAGMENT_FIRST) {
		bpf_map_update_elem(&cilium_fragments, &key, &fresh, BPF_ANY);
		f->ports_known = 1;
		return 0;
	}
	known = bpf_map_lookup_elem(&cilium_fragments, &key);
	if (!known)
		return DROP_FRAGMENT_NOT_FOUND;
	f->source_port = known->source;
	f->destination_port = known->destination;
	f->ports_known = 1;
	return 0;
}
