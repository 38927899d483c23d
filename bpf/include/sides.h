/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "flow.h"
#include "identity.h"
#include "maps.h"

/* The two ends of a packet, and what was decided about it. Endpoints are copied: subprograms that the verifier checks by
 * themselves cannot be handed pointers inside of a struct. */
struct sides {
	struct endpoint from; /* valid when from_here */
	struct endpoint to;   /* valid when to_here */
	__u64 from_slot;
	__u64 to_slot;
	__u32 from_identity;
	__u32 to_identity;
	__u32 cookie;    /* origin of the rule that refused the packet, when one did */
	__u16 route;     /* one of CT_ROUTE: how the other side is reached; 0: it is a pod of this node; CT_SERVICE: as below */
	__be16 nat_port; /* leave with the node's address and this port; 0: as it is */
	__u8 from_here;  /* the sender is a pod of this node */
	__u8 to_here;    /* the receiver is a pod of this node, and of interest */
	__u8 leaves;     /* the destination must see the node's address */
	__u8 from_host;  /* the sender is this node, whose own policy counts */
	__u8 to_host;    /* the receiver is this node, whose own policy counts */
	__u8 translated; /* its addresses are not those that it came with: only the way on may see it, and not the stack */
	__u8 balanced;   /* the sender, a pod of this node, sent it to a service */
	__u8 disguised;  /* the receiver, a pod of this node, knows the sender as a service */
	__u8 refusal;    /* enum refusal: what the sender hears when it is dropped */
	__u8 refused;    /* enum direction: whose policy refused the packet, when one did */
};

/* Zero for an endpoint with a slot beyond the map: closed. */
static __always_inline __u64 read_slot(const struct endpoint *endpoint)
{
	__u32 index = endpoint->slot;
	__u64 *slot = bpf_map_lookup_elem(&cilium_slots, &index);

	return slot ? *(volatile __u64 *)slot : 0;
}

static __always_inline bool has_host_firewall(void)
{
	return CFG.flags & CONFIG_HOST_FIREWALL;
}

/* Zero: nothing is enforced. */
static __always_inline __u64 read_host_slot(void)
{
	__u32 index = HOST_SLOT;
	__u64 *slot = bpf_map_lookup_elem(&cilium_slots, &index);

	return slot ? *(volatile __u64 *)slot : 0;
}

static __always_inline bool find_endpoint(const struct addr *address, struct endpoint *endpoint)
{
	const struct endpoint *found = bpf_map_lookup_elem(&cilium_endpoints, address);

	if (!found)
		return false;
	*endpoint = *found;
	return true;
}

static __always_inline const struct ipcache_entry *find_peer(const struct addr *address)
{
	struct ipcache_key key = { .prefix_len = 128 };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&cilium_ipcache, &key);
}

/* Packets to it are encapsulated. Nodes themselves are reached by their own network. */
static __always_inline bool is_behind_tunnel(const struct ipcache_entry *peer)
{
	return CFG.tunnel_ifindex && peer && !addr_is_none(&peer->tunnel) && !is_remote_node(peer->identity);
}

static __always_inline __u32 world_identity(const struct addr *address)
{
	return addr_is_v4(address) ? CFG.world4 : CFG.world6;
}

static __always_inline __u32 peer_identity(const struct addr *address)
{
	const struct ipcache_entry *entry = find_peer(address);

	return entry ? entry->identity : world_identity(address);
}
