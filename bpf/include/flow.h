/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include "addr.h"
#include "reasons.h"
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMP6_LAST_USED_ERROR 4 /* 1 to 4: unreachable, too big, time exceeded, parameter problem */
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_LISTENER_QUERY 130
#define ICMP6_ROUTER_ADVERTISEMENT 134
#define ICMP6_NEIGHBOUR_SOLICITATION 135
#define ICMP6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMP6_REDIRECT 137
#define ICMP6_LISTENER_REPORT2 143

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* has no transport header */
};

/* What the programs need to know of a packet. */
struct flow {
	struct addr source;
	struct addr destination;
	/* ICMP echo: the side that asks has the id as its port, the side that answers 0, so that a request in the other
	 * direction is another connection. Other ICMP: the type on both sides. */
	__be16 source_port;
	__be16 destination_port;
	__u32 fragment_id;
	__u16 l4; /* offset of the transport header */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 hop_limit;
	__u8 v4;
	__u8 dont_fragment; /* IPv4's flag */
	__u8 fragment;      /* enum fragment */
	__u8 icmp_error;    /* carries the start of another packet */
	__u8 ports_known;   /* of a fragment: looked up or remembered, under the addresses that it came with */
	__u8 pad[5];        /* older kernels want every byte set of what a subprogram is given */
};

static __always_inline bool is_icmp(const struct flow *f)
{
	return f->protocol == IPPROTO_ICMP || f->protocol == IPPROTO_ICMPV6;
}

static __always_inline bool is_echo_request(const struct flow *f)
{
	return f->protocol == IPPROTO_ICMP ? f->icmp_type == ICMP_ECHO_REQUEST
					   : f->icmp_type == ICMP6_ECHO_REQUEST;
}

static __always_inline bool is_echo_reply(const struct flow *f)
{
	return f->protocol == IPPROTO_ICMP ? f->icmp_type == ICMP_ECHO_REPLY
					   : f->icmp_type == ICMP6_ECHO_REPLY;
}

static __always_inline bool is_icmp_error(const struct flow *f)
{
	if (f->protocol == IPPROTO_ICMP)
		return f->icmp_type == ICMP_UNREACHABLE || f->icmp_type == ICMP_TIME_EXCEEDED ||
		       f->icmp_type == ICMP_PARAMETER_PROBLEM;
	return f->icmp_type >= 1 && f->icmp_type <= ICMP6_LAST_USED_ERROR;
}

static __always_inline void set_icmp_ports(struct flow *f, __be16 id)
{
	f->source_port = f->destination_port = bpf_htons(f->icmp_type);
	if (is_echo_request(f)) {
		f->source_port = id;
		f->destination_port = 0;
	} else if (is_echo_reply(f)) {
		f->source_port = 0;
		f->destination_port = id;
	}
}

/* A packet that has used up its hops goes to the stack, which answers with an ICMP error and drops it. */
static __always_inline bool hops_used_up(const struct flow *f)
{
	return f->hop_limit <= 1;
}

/* The port that policy asks for: ICMP has its type there. */
static __always_inline __be16 policy_port(const struct flow *f)
{
	return is_icmp(f) ? bpf_htons(f->icmp_type) : f->destination_port;
}

/* A TCP packet that wants to open a connection. */
static __always_inline bool opens_connection(const struct flow *f)
{
	return (f->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Neighbour discovery between the two ends of a pod's device; a full hop limit says that nobody forwarded it (RFC 4861). */
static __always_inline bool is_neighbour_discovery(const struct flow *f)
{
	return f->protocol == IPPROTO_ICMPV6 && f->hop_limit == 255 &&
	       (f->icmp_type == ICMP6_NEIGHBOUR_SOLICITATION || f->icmp_type == ICMP6_NEIGHBOUR_ADVERTISEMENT);
}

/* What a kernel sends on a new link by itself and what nobody here answers: multicast listeners, routers, redirects. */
static __always_inline bool is_link_chatter(const struct flow *f)
{
	return f->protocol == IPPROTO_ICMPV6 &&
	       ((f->icmp_type >= ICMP6_LISTENER_QUERY && f->icmp_type <= ICMP6_ROUTER_ADVERTISEMENT) ||
		f->icmp_type == ICMP6_REDIRECT || f->icmp_type == ICMP6_LISTENER_REPORT2);
}
