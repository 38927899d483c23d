/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "types.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

extern volatile const struct config CFG;

static __always_inline struct addr addr_from_v4(__be32 v4)
{
	return (struct addr){ .hi = 0, .lo = bpf_cpu_to_be64(0xffff00000000ULL | bpf_ntohl(v4)) };
}

/* Loads of packets and map values, which may be unaligned for all that the compiler knows. It would load byte by byte; the
 * machines that this runs on (x86-64, arm64) do not mind. */
typedef __u64 __attribute__((may_alias)) loose_u64;
typedef __u32 __attribute__((may_alias)) loose_u32;
typedef __u16 __attribute__((may_alias)) loose_u16;

static __always_inline struct addr addr_from_v6(const void *v6)
{
	return (struct addr){ .hi = *(const loose_u64 *)v6, .lo = *(const loose_u64 *)(v6 + 8) };
}

static __always_inline void copy_mac(void *to, const void *from)
{
	*(loose_u32 *)to = *(const loose_u32 *)from;
	*(loose_u16 *)(to + 4) = *(const loose_u16 *)(from + 4);
}

static __always_inline bool addr_is_v4(const struct addr *a)
{
	return a->hi == 0 && bpf_be64_to_cpu(a->lo) >> 32 == 0xffff;
}

static __always_inline __be32 addr_v4(const struct addr *a)
{
	return bpf_htonl((__u32)bpf_be64_to_cpu(a->lo));
}

static __always_inline bool addr_is_none(const struct addr *a)
{
	return (a->hi | a->lo) == 0;
}

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->hi == b->hi && a->lo == b->lo;
}

/* Order of the bytes, so that user space can build the same keys by comparing arrays. */
static __always_inline bool addr_above(const struct addr *a, const struct addr *b)
{
	if (a->hi != b->hi)
		return bpf_be64_to_cpu(a->hi) > bpf_be64_to_cpu(b->hi);
	return bpf_be64_to_cpu(a->lo) > bpf_be64_to_cpu(b->lo);
}

static __always_inline __u64 leading_ones(__u32 bits)
{
	return bits >= 64 ? ~0ULL : bits ? ~0ULL << (64 - bits) : 0;
}

static __always_inline bool addr_in(const struct addr *a, struct addr prefix, __u32 bits)
{
	__u64 low = bits > 64 ? leading_ones(bits - 64) : 0;

	return (bpf_be64_to_cpu(a->hi ^ prefix.hi) & leading_ones(bits)) == 0 &&
	       (bpf_be64_to_cpu(a->lo ^ prefix.lo) & low) == 0;
}

/* Multicast, broadcast, and IPv6's link-local addresses: nothing that this node forwards. IPv4's link-local addresses are
 * not among them, as clouds have services there that every machine expects to reach through its node. */
static __always_inline bool addr_is_on_link(const struct addr *a)
{
	__u64 hi = bpf_be64_to_cpu(a->hi);
	__u32 v4 = (__u32)bpf_be64_to_cpu(a->lo);

	if (addr_is_v4(a))
		return v4 >> 28 == 0xe || v4 == 0xffffffff;
	return hi >> 56 == 0xff || hi >> 54 == 0xfe80 >> 6;
}

/* Multicast and broadcast: for many, and no one's own address. */
static __always_inline bool addr_is_multicast(const struct addr *a)
{
	if (addr_is_v4(a))
		return addr_is_on_link(a);
	return bpf_be64_to_cpu(a->hi) >> 56 == 0xff;
}

/* The node's own address in the family of `like`; none when that family is off. */
static __always_inline struct addr host_address(bool v4)
{
	if (v4)
		return (struct addr){ .hi = CFG.host4.hi, .lo = CFG.host4.lo };
	return (struct addr){ .hi = CFG.host6.hi, .lo = CFG.host6.lo };
}
