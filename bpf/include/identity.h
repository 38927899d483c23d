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

/* Peers of policy entries that stand for many identities. */
#define AGGREGATE_CLUSTER 11
#define AGGREGATE_WORLD 13
#define AGGREGATE_REMOTE_NODE 14
#define FIRST_POD 100
#define LAST_POD 65535

/* The aggregate that an identity is one of; 0, which is any peer, for the others. */
static __always_inline __u32 aggregate_of(__u32 identity)
{
	__u32 scope = identity >> 24;

	if (scope == SCOPE_CIDR)
		return AGGREGATE_WORLD;
	if (scope == SCOPE_REMOTE_NODE)
		return AGGREGATE_REMOTE_NODE;
	return identity >= FIRST_POD && identity <= LAST_POD ? AGGREGATE_CLUSTER : 0;
}

/* Number of an aggregate among the AGGREGATE_COUNT of one direction. */
static __always_inline __u32 aggregate_number(__u32 aggregate)
{
	switch (aggregate) {
	case AGGREGATE_CLUSTER:
		return 1;
	case AGGREGATE_WORLD:
		return 2;
	case AGGREGATE_REMOTE_NODE:
		return 3;
	default:
		return 0;
	}
}

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
