/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Every map, with its default size; the loader may change sizes and decides about pins. Only user space writes to
 * the maps without LRU (and the rings and counters aside), so they allocate entries as they are needed. */

#include "types.h"
#include <bpf/bpf_helpers.h>

#define MAP(name, map_type, key_type, value_type, entries, map_flag_bits) \
	struct { \
		__uint(type, map_type); \
		__type(key, key_type); \
		__type(value, value_type); \
		__uint(max_entries, entries); \
		__uint(map_flags, map_flag_bits); \
	} name SEC(".maps")

MAP(cilium_endpoints, BPF_MAP_TYPE_HASH, struct addr, struct endpoint, 8192, BPF_F_NO_PREALLOC);
MAP(cilium_ipcache, BPF_MAP_TYPE_LPM_TRIE, struct ipcache_key, struct ipcache_entry, 512000, BPF_F_NO_PREALLOC);

MAP(cilium_slots, BPF_MAP_TYPE_ARRAY, __u32, __u64, SLOT_COUNT, 0);
MAP(cilium_policy, BPF_MAP_TYPE_HASH, struct policy_peer, struct policy_rules, 524288, BPF_F_NO_PREALLOC);
MAP(cilium_policy_aggregates, BPF_MAP_TYPE_ARRAY, __u32, struct policy_aggregates, AGGREGATE_PLACES, 0);
MAP(cilium_policy_ports, BPF_MAP_TYPE_LPM_TRIE, struct policy_key, struct policy_entry, 524288, BPF_F_NO_PREALLOC);
MAP(cilium_blocks, BPF_MAP_TYPE_LPM_TRIE, struct block_key, struct block_entry, 65536, BPF_F_NO_PREALLOC);

MAP(cilium_ct, BPF_MAP_TYPE_LRU_HASH, struct ct_key, struct ct_entry, 131072, 0);
MAP(cilium_snat, BPF_MAP_TYPE_LRU_HASH, struct nat_key, struct nat_entry, 65536, 0);
MAP(cilium_fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment_ports, 8192, 0);

MAP(cilium_services, BPF_MAP_TYPE_HASH, struct service_key, struct service_entry, 65536, BPF_F_NO_PREALLOC);
MAP(cilium_backends, BPF_MAP_TYPE_HASH, struct backend_key, struct backend_entry, 262144, BPF_F_NO_PREALLOC);
/* A table of the usual 16,381 entries takes 64 pieces, 32 KiB. */
MAP(cilium_maglev, BPF_MAP_TYPE_HASH, struct maglev_key, struct maglev_chunk, 262144, BPF_F_NO_PREALLOC);
MAP(cilium_source_ranges, BPF_MAP_TYPE_LPM_TRIE, struct source_range_key, struct source_range_entry, 65536, BPF_F_NO_PREALLOC);
MAP(cilium_affinity, BPF_MAP_TYPE_LRU_HASH, struct affinity_key, struct affinity_entry, 65536, 0);
MAP(cilium_sock_revnat, BPF_MAP_TYPE_LRU_HASH, struct sock_revnat_key, struct sock_revnat_entry, 65536, 0);
MAP(cilium_exempt, BPF_MAP_TYPE_HASH, struct exempt_key, struct exempt_entry, 16384, BPF_F_NO_PREALLOC);

MAP(cilium_announcements, BPF_MAP_TYPE_HASH, struct announcement_key, struct announcement_entry, 65536, BPF_F_NO_PREALLOC);
MAP(cilium_links, BPF_MAP_TYPE_HASH, __u32, struct link_entry, 64, BPF_F_NO_PREALLOC);
MAP(cilium_link_signs, BPF_MAP_TYPE_HASH, __u32, struct link_signs, 64, BPF_F_NO_PREALLOC);
MAP(cilium_peers, BPF_MAP_TYPE_HASH, struct peer_key, struct peer_entry, 16384, BPF_F_NO_PREALLOC);
MAP(cilium_announcer, BPF_MAP_TYPE_ARRAY, __u32, __u64, ANNOUNCER_ELEMENTS, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} cilium_events SEC(".maps");

/* EVENT_MASK_* bits in element 0; nothing is sent while nobody listens. */
MAP(cilium_event_mask, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);
MAP(cilium_event_budget, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct event_budget, 256, 0);
/* Index: reason * METRIC_COLUMNS + column. */
MAP(cilium_metrics, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct metric, 256 * METRIC_COLUMNS, 0);
