/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include <linux/types.h>
#include <stdbool.h>

/* Reserved identities that the datapath itself must tell apart. */
#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_REMOTE_NODE 6
#define IDENTITY_KUBE_APISERVER 7
#define IDENTITY_WORLD_IPV4 9
#define IDENTITY_WORLD_IPV6 10

/* The top byte is the scope of an identity. */
#define SCOPE_CIDR 1
#define SCOPE_REMOTE_NODE 2

static __always_inline bool is_remote_node(__u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER ||
	       identity >> 24 == SCOPE_REMOTE_NODE;
}

/* Outside of the cluster: world, or a prefix of it that policies name. */
static __always_inline bool is_world(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6 || identity >> 24 == SCOPE_CIDR;
}
