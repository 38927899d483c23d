/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What is redirected to pods of the node, as those pods themselves see it. A redirect is a service like any other: it stands in place of
 * what would be there, which is kept with another scope for whoever is exempt. */

#include "maps.h"

/* The scope with which a client meets what others meet with SCOPE_INTERNAL. */
static __noinline __u8 scope_of(const struct service_key *service, const struct addr *client)
{
	struct exempt_key key = {};

	key.client = *client;
	key.service = *service;
	return bpf_map_lookup_elem(&cilium_exempt, &key) ? SCOPE_EXEMPT : SCOPE_INTERNAL;
}
