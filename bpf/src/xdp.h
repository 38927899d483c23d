/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What reaches the node's device, before the stack has a look at it. */

#include "../include/early.h"

SEC("xdp")
int xdp_netdev(struct xdp_md *ctx)
{
	return take_early_way(ctx);
}
