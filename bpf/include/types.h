/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Keys, values and configuration shared with user space. `bpf/objects/src/layout` mirrors every struct here; a test
 * compares both through BTF, so names and offsets are the interface. Padding is spelled out: hash maps compare it. */

#include <linux/bpf.h>
#include <linux/types.h>

#define ETH_ADDR_LEN 6

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d. Bytes stand in network order; the two words only make
 * comparing and copying cheap. */
struct addr {
	__u64 hi;
	__u64 lo;
};

/* --- endpoints and identities --- */

/* A pod of this node; key: struct addr. */
struct endpoint {
	__u32 ifindex;  /* host's end of the pod's device pair */
	__u32 identity; /* security identity */
	__u16 slot;     /* index into cilium_slots */
	__u16 id;       /* number of the endpoint on this node */
	__u8 mac[ETH_ADDR_LEN];      /* of the pod's end */
	__u8 host_mac[ETH_ADDR_LEN]; /* of the host's end; for user space */
};

struct ipcache_key {
	__u32 prefix_len; /* bits of address; an IPv4 /n is 96 + n */
	__u8 address[16];
};

struct ipcache_entry {
	struct addr tunnel; /* node to encapsulate to; zero: none */
	__u32 identity;
	__u32 pad;
};

/* --- policy --- */

/* A slot is one u64: low half the generation, then these bits. */
#define SLOT_INGRESS_ENFORCED (1ULL << 32)
#define SLOT_EGRESS_ENFORCED (1ULL << 33)
#define SLOT_OPEN (1ULL << 34)
#define SLOT_COUNT 4096
#define HOST_SLOT (SLOT_COUNT - 1) /* the node's own policy; 0: nothing is enforced */

enum direction {
	DIRECTION_UNKNOWN = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
};

#define POLICY_RULES 7 /* a map element of a peer then takes 128 bytes of the kernel's */

/* One peer of a policy, in one direction; key of cilium_policy. Never an aggregate. */
struct policy_peer {
	__u32 generation;
	__u32 peer;      /* identity of the other side, or a block that its address lies in */
	__u32 direction; /* enum direction */
};

/* All that is said of a peer: the narrowest first, 0 behind the last. Low half of a rule: cookie, the origin's name in
 * user space. Then, from low to high: 16 bits port, 8 bits protocol, 5 bits for how many of these 24 are free
 * (counted from the port's lowest), 3 bits enum policy_verdict. */
struct policy_rules {
	__u64 rules[POLICY_RULES];
};

#define AGGREGATE_COUNT 4        /* any peer, and the three ranges of identities */
#define AGGREGATE_PLACES 8192    /* generations that have aggregates at one time; a power of two */

/* What is said of one aggregate in one direction. It counts for its generation only. */
struct policy_aggregate {
	__u32 generation;
	__u32 pad;
	struct policy_rules said;
};

/* Element of cilium_policy_aggregates, at generation % AGGREGATE_PLACES. In it, (direction - 1) * AGGREGATE_COUNT + number of
 * the aggregate. */
struct policy_aggregates {
	struct policy_aggregate of[2 * AGGREGATE_COUNT];
};

#define POLICY_PREFIX_FULL 96 /* bits of policy_key behind prefix_len */

/* A rule about a peer that has more than POLICY_RULES; key of cilium_policy_ports. */
struct policy_key {
	__u32 prefix_len;
	__u32 generation;
	__u32 peer;      /* as in policy_peer, or an aggregate; 0: any */
	__u8 direction;  /* enum direction */
	__u8 protocol;   /* IP protocol; ICMP and ICMPv6 put the type into port */
	__be16 port;     /* destination port */
};

enum policy_verdict {
	POLICY_ALLOW = 1,
	POLICY_DENY = 2,
	POLICY_PROXY = 3, /* what goes out, by TCP or UDP: hand to the DNS proxy */
	POLICY_NONE = 4, /* as without a rule: narrower than one that decides */
	POLICY_PORTS = 5, /* the peer's only rule here; all that it has are in cilium_policy_ports */
};

struct policy_entry {
	__u32 cookie; /* names the origin of the rule to user space */
	__u8 verdict; /* enum policy_verdict */
	__u8 pad[3];
};

#define BLOCK_PREFIX_FULL 192 /* bits of block_key behind prefix_len */

struct block_key {
	__u32 prefix_len;
	__u32 generation;
	__u16 direction; /* enum direction */
	__u16 family;    /* 4 or 6 */
	__u8 address[16];
};

struct block_entry {
	__u32 peer; /* what the addresses are in policy_peer */
};

/* --- connections --- */

/* Both directions of a connection have the same key: the side with the lower address (by bytes; then port) is `low`. */
struct ct_key {
	struct addr low;
	struct addr high;
	__be16 low_port;
	__be16 high_port;
	__u8 protocol;
	__u8 pad[3];
};

#define CT_STARTED_BY_HIGH (1 << 0) /* the high side sent the first packet */
#define CT_REPLIED (1 << 1)         /* the other side has answered */
#define CT_CONFIRMED (1 << 2)       /* TCP: the starter has sent more than its SYN */
#define CT_FIN_STARTER (1 << 3)     /* TCP: the starter is done sending */
#define CT_FIN_ANSWERER (1 << 4)    /* TCP: the other side is done sending */
/* How the side that is not a pod of this node is reached; no bit: both are pods of this node. */
#define CT_TUNNEL (1 << 5) /* through the tunnel */
#define CT_STACK (1 << 6)  /* it is this node's network stack, or behind it */
#define CT_DIRECT (1 << 7) /* by the node's routes */
#define CT_REFUSED (1 << 8) /* policy has ended it */
#define CT_PROXY (1 << 9)   /* with CT_STACK: the other side is the DNS proxy of this node, which stands in for it */
#define CT_SERVICE (1 << 10) /* the starter came by a service, as which answers come to it; with CT_DIRECT, from outside */
#define CT_DSR (1 << 11) /* NAT_SERVICE: the backend elsewhere answers the client by itself; NAT_OUT: the client came by another node */
#define CT_RESET (1 << 12) /* TCP: it ended by a reset, after which neither side has it any more */
#define CT_ROUTE (CT_TUNNEL | CT_STACK | CT_DIRECT)

/* A pod of this node at one end of a connection; valid for the second in which `expires` was written. */
struct ct_side {
	__u32 ifindex; /* host's end of its device pair; 0: not known */
	__u8 mac[ETH_ADDR_LEN]; /* of the pod's end */
	__u16 slot;
};

/* With the kernel's 48 bytes and the key, an entry fills two cache lines exactly. */
struct ct_entry {
	__u32 egress_generation;  /* of the starter's slot when it was judged; 0: starter not on this node */
	__u32 ingress_generation; /* of the answerer's slot; 0: answerer not on this node */
	__u32 expires;            /* seconds of CLOCK_MONOTONIC; later than this the entry does not count */
	__u16 flags;              /* CT_* */
	__be16 nat_port;          /* port (or ICMP id) on the node's address; 0: not masqueraded */
	struct ct_side low_side;
	struct ct_side high_side;
};

/* What the two sides of the key are, and what becomes of a packet. */
#define NAT_OUT 0 /* local sends to remote: its source becomes `to`, which is the node, or the service that local is a backend of */
#define NAT_IN 1  /* remote answers to local, the node: its destination becomes `to`; its source becomes `from` if there is one */
#define NAT_SERVICE 2 /* remote, a client, sends to local, a service: its destination becomes `to`, a backend; `from` as above */

struct nat_key {
	struct addr local;
	struct addr remote;
	__be16 local_port;
	__be16 remote_port;
	__u8 protocol;
	__u8 direction; /* NAT_* */
	__u8 pad[2];
};

struct nat_entry {
	struct addr to;
	struct addr from; /* zero: the other side stays as it is */
	__be16 to_port;
	__be16 from_port;
	__u32 expires; /* seconds of CLOCK_MONOTONIC; from then on another connection may take the port */
	__u32 generation; /* NAT_SERVICE: backends among which `to` was seen last */
	__u16 flags;      /* CT_*; with CT_SERVICE, also the state of the connection of a service's client */
	__u16 pad;
};

struct fragment_key {
	struct addr source;
	struct addr destination;
	__u32 id; /* as on the wire */
	__u8 protocol;
	__u8 pad[3];
};

struct fragment_ports {
	__be16 source;
	__be16 destination;
};

/* --- services --- */

enum scope {
	SCOPE_INTERNAL = 0, /* sockets of pods and of the node, and packets of pods */
	SCOPE_EXTERNAL = 1, /* packets that reach the node from the network */
	SCOPE_EXEMPT = 2,   /* the same of pods to whom what is redirected stays what it is */
};

struct service_key {
	struct addr address; /* zero (of the family): any address of a node */
	__be16 port;
	__u8 protocol;
	__u8 scope; /* enum scope */
	__u8 pad[4];
};

#define SERVICE_ONLY_OWN (1U << 0) /* without a backend on this node, packets are dropped and not refused */
#define SERVICE_RANGES (1U << 1)   /* only clients in cilium_source_ranges, under the same generation */
#define SERVICE_AT_OWN_NODE (1U << 2) /* at addresses of other nodes, these decide by themselves */
#define SERVICE_DSR (1U << 3) /* backends of other nodes answer the client by themselves */
#define SERVICE_MAGLEV (1U << 4) /* a new client's backend is in cilium_maglev, under the same generation */
#define SERVICE_RANGES_DENY (1U << 5) /* with SERVICE_RANGES: these clients are the ones that are not served */

struct service_entry {
	__u32 generation;
	__u32 count; /* backends 0..count exist under this generation */
	__u32 affinity; /* seconds */
	__u32 flags; /* SERVICE_* */
};

#define RANGE_PREFIX_FULL 160 /* bits of source_range_key behind prefix_len */

struct source_range_key {
	__u32 prefix_len;
	__u32 generation;
	__u8 address[16];
};

struct source_range_entry {
	__u32 allowed; /* 1 */
};

struct backend_key {
	__u32 generation;
	__u32 index;
};

struct backend_entry {
	struct addr address;
	__be16 port;
	__u8 pad[6];
};

#define MAGLEV_CHUNK 256

/* A piece of a table. */
struct maglev_key {
	__u32 generation; /* of the backends */
	__u32 chunk;      /* entries from chunk * MAGLEV_CHUNK on */
};

struct maglev_chunk {
	__u16 backends[MAGLEV_CHUNK]; /* their indexes; behind the end of the table no valid one */
};

struct affinity_key {
	struct addr client; /* hi = all ones: lo is the cookie of a network namespace */
	struct service_key service;
};

struct affinity_entry {
	struct backend_entry backend;
	__u64 used; /* nanoseconds */
	__u32 generation;
	__u32 pad;
};

struct sock_revnat_key {
	__u64 cookie; /* of the socket */
	struct addr backend;
	__be16 port;
	__u8 pad[6];
};

struct sock_revnat_entry {
	struct addr service;
	__be16 port;
	__u8 pad[6];
};

/* A pod and a service with SCOPE_INTERNAL that it meets with SCOPE_EXEMPT. */
struct exempt_key {
	struct addr client; /* as in affinity_key */
	struct service_key service;
};

struct exempt_entry {
	__u32 exempt; /* 1 */
};

/* --- announced addresses, and who else announces them --- */

enum announcement_state {
	ANNOUNCEMENT_SILENT = 0, /* somebody else answers, or nobody knows yet */
	ANNOUNCEMENT_ANSWERED = 1,
};

struct announcement_key {
	struct addr address;
	__u32 ifindex;
	__u32 pad;
};

/* What programs count, and what user space decides: it writes the whole when the state changes, which may lose a count. */
struct announcement_entry {
	__u64 replies; /* to requests */
	__u64 claimed; /* nanoseconds of CLOCK_MONOTONIC when somebody else was last seen to have the address; 0: never */
	__u8 claimant[ETH_ADDR_LEN];
	__u8 state; /* enum announcement_state */
	__u8 pad;
};

#define LINK_WILLING (1U << 0)   /* peers may leave addresses to this node */
#define LINK_ANSWERING (1U << 1) /* there are addresses with ANNOUNCEMENT_ANSWERED */
#define LINK_SOLO (1U << 2)      /* no peer was heard; answers stop when one is that answers as well */
#define LINK_ALONE (1U << 3)     /* nobody else has these addresses at all */
#define LINK_LEASED (1U << 4)    /* Leases say who has them; no peer is heard */

/* A device on which addresses are announced; key: its number. */
struct link_entry {
	__u64 bound; /* nanoseconds; LINK_SOLO: of CLOCK_MONOTONIC, since when; LINK_LEASED: so long without an agent */
	__u32 flags; /* LINK_*; peers are told */
	__u8 mac[ETH_ADDR_LEN];
	__u8 pad[2];
};

/* What was heard on such a device, in nanoseconds of CLOCK_MONOTONIC; 0: never. */
struct link_signs {
	__u64 heard; /* a peer proved that it hears this node */
	__u64 asked; /* a peer's agent wanted to know whether this node lives */
	__u64 met;   /* a peer that answers for addresses was heard */
};

struct peer_key {
	__u64 node; /* number that stands for its name */
	__u32 ifindex;
	__u32 pad;
};

#define HEARTBEAT_HEARS_YOU (1U << 7) /* beside LINK_*, in a request */

/* Another owner of an address. User space makes the entry, programs write it. */
struct peer_entry {
	__u64 answered; /* when the last request was sent that it answered; as in link_signs */
	__u64 asked;    /* when it last sent a request, and heard this node */
	__u64 stamp;    /* of its last request: earlier ones are repeats */
	__u64 agent_age; /* milliseconds since its agent was alive, as it said last */
	__u32 flags;    /* LINK_* */
	__u8 mac[ETH_ADDR_LEN]; /* zero: never heard */
	__u8 pad[6];
};

/* Elements of cilium_announcer. */
enum announcer_element {
	ANNOUNCER_NODE = 0,     /* number that stands for this node's name */
	ANNOUNCER_KEY_FIRST = 1, /* halves of the key of heartbeats */
	ANNOUNCER_KEY_SECOND = 2,
	ANNOUNCER_AGENT = 3, /* nanoseconds of CLOCK_MONOTONIC when the agent was last alive */
	ANNOUNCER_ELEMENTS = 4,
};

/* A frame of its own EtherType: nothing but a switch has to know what it is (IEEE 802, local experimental EtherType 1). */
#define HEARTBEAT_ETHERTYPE 0x88b5
#define HEARTBEAT_MAGIC 0x434c4842 /* CLHB */

enum heartbeat_kind {
	HEARTBEAT_REQUEST = 1,
	HEARTBEAT_ANSWER = 2,
};

#define HEARTBEAT_TO_ANYBODY 0 /* who is there answers */

struct heartbeat {
	__be32 magic;
	__u8 kind; /* enum heartbeat_kind */
	__u8 flags; /* LINK_* of the sender, HEARTBEAT_HEARS_YOU */
	__u8 pad[2];
	__u64 to; /* numbers of nodes, as in peer_key */
	__u64 from;
	__u64 sent;  /* nanoseconds of the requester's CLOCK_MONOTONIC, which the answer repeats */
	__be64 stamp; /* of a request; it rises, also over restarts of the sender */
	__be64 agent_age; /* milliseconds since the sender's agent was alive */
	__u8 mac[ETH_ADDR_LEN]; /* of the sender's device, as in the frame's header */
	__u8 reserved[2];
	__u64 tag; /* SipHash-2-4 of all bytes before, with the key of all nodes */
};

#define NSEC_PER_MSEC 1000000ULL
/* A node answers for addresses while a peer heard it within this time; the next one starts later than this after it heard it last. */
#define HEARD_WITHIN (300 * NSEC_PER_MSEC)
/* An agent that was alive so long after that knows of it; one that was not is away, and then the last state stays, */
#define AGENT_ALIVE_WITHIN (200 * NSEC_PER_MSEC)
/* but not for ever, if there are others with an agent, who ask for this node more often than this. */
#define AGENT_AWAY_AT_MOST (30000 * NSEC_PER_MSEC)
#define ASKED_WITHIN (1000 * NSEC_PER_MSEC)

/* --- what user space is told --- */

enum event_kind {
	EVENT_DROP = 1,
	EVENT_VERDICT = 5,
};

/* Bits of cilium_event_mask[0]. */
#define EVENT_MASK_DROP (1U << 0)
#define EVENT_MASK_VERDICT (1U << 1)

struct event {
	__u64 time; /* nanoseconds of CLOCK_MONOTONIC */
	struct addr source;
	struct addr destination;
	__be16 source_port;      /* ICMP: 0, or the echo id */
	__be16 destination_port; /* ICMP: the type, in network order */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 ifindex; /* device on which the packet was seen */
	__u32 length;  /* bytes of the packet with its link header */
	__u32 cookie;  /* origin of the deciding rule; 0: none */
	__u16 endpoint; /* endpoint whose policy was asked; 0: none */
	__u8 kind;      /* enum event_kind */
	__u8 reason;    /* enum drop_reason; 0: forwarded */
	__u8 direction; /* enum direction */
	__u8 protocol;
	__u8 tcp_flags; /* byte 13 of the TCP header */
	__u8 pad;
};

/* cilium_metrics has four counters for each reason (0: forwarded). */
enum metric_column {
	METRIC_EVENT_LOST = 0, /* events for which the ring had no room */
	METRIC_INGRESS = DIRECTION_INGRESS,
	METRIC_EGRESS = DIRECTION_EGRESS,
	METRIC_EVENT_SUPPRESSED = 3, /* events over the rate limit */
};
#define METRIC_COLUMNS 4

struct metric {
	__u64 packets;
	__u64 bytes;
};

struct event_budget {
	__u32 second; /* of CLOCK_MONOTONIC */
	__u32 used;   /* events sent in it */
};

/* --- configuration, fixed when the programs are loaded --- */

#define CONFIG_MASQUERADE4 (1U << 0)
#define CONFIG_MASQUERADE6 (1U << 1)
#define CONFIG_SET_RETVAL (1U << 2) /* kernel has bpf_set_retval for socket hooks (5.18), and bpf_loop */
#define CONFIG_HOST_FIREWALL (1U << 3) /* the node has a policy of its own */
#define CONFIG_SOCKETS_OF_HOST (1U << 4) /* only sockets of the node's own namespace are translated; packets of pods are */
#define CONFIG_REDIRECTS (1U << 5) /* cilium_exempt is looked at */
#define CONFIG_NODEPORT_PREFIXES (1U << 6) /* ports of nodes are served at some addresses of nodes only */
#define CONFIG_ANNOUNCE (1U << 7) /* requests for addresses in cilium_announcements are answered */
#define CONFIG_KEPT_PREFIXES 8
#define CONFIG_NODEPORT_PREFIX_COUNT 8

struct prefix {
	struct addr address;
	__u32 bits; /* 0: unused */
	__u32 pad;
};

struct config {
	struct addr host4; /* source of masqueraded packets; zero: family off */
	struct addr host6;
	struct addr loopback4; /* what a pod sees of itself when it is the backend of its own packet */
	struct addr loopback6;
	struct prefix kept[CONFIG_KEPT_PREFIXES]; /* destinations that are never masqueraded */
	struct prefix nodeport_prefixes[CONFIG_NODEPORT_PREFIX_COUNT]; /* where ports of nodes are served; fewer are repeated */
	__u32 tunnel_ifindex; /* cilium_vxlan; 0: native routing */
	__u32 world4;         /* identity of unknown IPv4 addresses */
	__u32 world6;
	__u32 flags;      /* CONFIG_* */
	__u32 event_rate; /* events for each reason, CPU and second */
	__u32 mtu; /* bytes of an IP packet on its way to another node, or out; 0: unknown */
	__u32 maglev_size; /* entries of tables in cilium_maglev; 0: there are none */
	__u16 nat_first;  /* ports of masqueraded connections */
	__u16 nat_last;
	__be16 dns_port; /* of the DNS proxy on the loopback addresses; 0: there is none */
	__u16 nodeport_first; /* ports on which every node serves */
	__u16 nodeport_last;
	__u8 device_mac[ETH_ADDR_LEN]; /* of the node's device */
	__u8 pad[4];
	__u64 maglev_seed; /* of the numbers of clients */
	__u64 netns_cookie; /* of the node's own network namespace; 0: unknown */
};
