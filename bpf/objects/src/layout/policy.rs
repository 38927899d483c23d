//! Slots, and what policies say of peers.

use std::net::IpAddr;

use super::{Addr, NetPort, Plain, layout};

/// Number of slots.
pub const SLOT_COUNT: u16 = 4096;
/// The slot of the node's own policy; while it is all zero, nothing is enforced.
pub const HOST_SLOT: u16 = SLOT_COUNT - 1;
/// Into the endpoint.
pub const DIRECTION_INGRESS: u8 = 1;
/// Out of the endpoint.
pub const DIRECTION_EGRESS: u8 = 2;
/// Verdict of a [`PolicyEntry`]: let through.
pub const POLICY_ALLOW: u8 = 1;
/// Verdict of a [`PolicyEntry`]: drop.
pub const POLICY_DENY: u8 = 2;
/// Verdict of a [`PolicyEntry`]: hand to the DNS proxy. Only in what goes out, by TCP and UDP.
pub const POLICY_PROXY: u8 = 3;
/// Verdict of a [`PolicyEntry`]: as without an entry; blocks of addresses are asked next. For traffic inside of an entry that lets more
/// pass, or drops more.
pub const POLICY_NONE: u8 = 4;

/// Peers of entries that stand for many identities, as [`aggregate_of`] gives them.
pub const AGGREGATES: [u32; 3] = [11, 13, 14];

/// The peer under which the programs look when there is no entry for the identity itself; 0 is any peer that is in no aggregate.
pub fn aggregate_of(identity: u32) -> u32 {
    let [cluster, world, remote_node] = AGGREGATES;
    match (identity >> 24, identity) {
        (1, _) => world,
        (2, _) => remote_node,
        (_, 100..=65_535) => cluster,
        _ => 0,
    }
}

const INGRESS: u64 = 1 << 32;
const EGRESS: u64 = 1 << 33;
const OPEN: u64 = 1 << 34;

/// One element of `cilium_slots`, stored as a `u64`.
///
/// Generations are unique on a node: one is never used again for other content, other bits or another slot, because
/// connections remember nothing but the generation. 0 is not a generation of an enforced slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Generation under which the maps of policies have this slot's entries.
    pub generation: u32,
    /// Ingress needs an allowing entry.
    pub ingress_enforced: bool,
    /// Egress needs an allowing entry.
    pub egress_enforced: bool,
    /// The slot has a policy; a slot that is not open lets nothing through.
    pub open: bool,
}

impl Slot {
    /// The element's number.
    pub fn to_u64(self) -> u64 {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        u64::from(self.generation)
            | bit(self.ingress_enforced, INGRESS)
            | bit(self.egress_enforced, EGRESS)
            | bit(self.open, OPEN)
    }

    /// The slot behind an element's number; bits without meaning are ignored.
    pub fn from_u64(raw: u64) -> Self {
        Self {
            generation: raw as u32,
            ingress_enforced: raw & INGRESS != 0,
            egress_enforced: raw & EGRESS != 0,
            open: raw & OPEN != 0,
        }
    }
}

layout! {
    /// One peer of a policy, in one direction: key of `cilium_policy`, and for aggregates what [`PolicyPeer::aggregate_place`] is made of.
    pub struct PolicyPeer as "policy_peer" {
        /// Generation of the slot.
        pub generation: u32,
        /// Identity of the other side, or the block that its address lies in ([`BlockEntry`]); an aggregate, or 0 for any.
        pub peer: u32,
        /// [`DIRECTION_INGRESS`] or [`DIRECTION_EGRESS`], seen from the slot's endpoints.
        pub direction: u32,
    }
}

/// How many rules fit into one [`PolicyRules`].
pub const POLICY_RULES: usize = 7;
/// In [`PolicyRules`]: all rules about this peer are in `cilium_policy_ports`.
const POLICY_PORTS: u64 = 5;
/// Any peer, and the ranges of [`AGGREGATES`].
const AGGREGATE_COUNT: usize = 1 + AGGREGATES.len();
/// Generations that are equal modulo this have their aggregates in one place, so only one of them may exist at a time.
pub const AGGREGATE_PLACES: u32 = 8192;

impl PolicyPeer {
    /// The peer that a rule is about.
    pub fn of(key: &PolicyKey) -> Self {
        Self { generation: key.generation, peer: key.peer, direction: key.direction.into() }
    }

    /// Index in `cilium_policy_aggregates` and place in the element; `None` for what is not an aggregate and has its entry in
    /// `cilium_policy`.
    pub fn aggregate_place(&self) -> Option<(u32, usize)> {
        let number = match AGGREGATES.iter().position(|aggregate| *aggregate == self.peer) {
            Some(at) => 1 + at,
            None if self.peer == 0 => 0,
            None => return None,
        };
        let egress = usize::from(self.direction == u32::from(DIRECTION_EGRESS));
        Some((self.generation % AGGREGATE_PLACES, egress * AGGREGATE_COUNT + number))
    }
}

layout! {
    /// Value of `cilium_policy`: what is said of one peer.
    pub struct PolicyRules as "policy_rules" {
        /// The rules.
        pub rules: PackedRules,
    }
}

layout! {
    /// What is said of one aggregate in one direction.
    pub struct PolicyAggregate as "policy_aggregate" {
        /// The generation for which it counts; 0: none.
        pub generation: u32,
        /// What is said.
        pub said: PolicyRules,
    }
}

layout! {
    /// Element of `cilium_policy_aggregates`.
    pub struct PolicyAggregates as "policy_aggregates" {
        /// What is said, at [`PolicyPeer::aggregate_place`].
        pub of: BothDirections,
    }
}

/// Aggregates of what comes in, then of what goes out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BothDirections(pub [PolicyAggregate; 2 * AGGREGATE_COUNT]);

impl Plain for BothDirections {
    fn put(&self, out: &mut [u8]) {
        let parts = out.chunks_mut(size_of::<PolicyAggregate>());
        self.0.iter().zip(parts).for_each(|(said, out)| said.put(out));
    }
    fn get(bytes: &[u8]) -> Self {
        let size = size_of::<PolicyAggregate>();
        Self(std::array::from_fn(|i| PolicyAggregate::get(&bytes[size * i..][..size])))
    }
}

impl PolicyAggregates {
    /// What is said of aggregates, with whom it is said of.
    pub fn said(&self, index: u32) -> impl Iterator<Item = (PolicyPeer, PolicyRules)> + use<> {
        let peers = [DIRECTION_INGRESS, DIRECTION_EGRESS].into_iter().flat_map(|direction| {
            let peers = [0].into_iter().chain(AGGREGATES);
            peers.map(move |peer| PolicyPeer { generation: 0, peer, direction: direction.into() })
        });
        // Nobody looks at what is of a generation that belongs elsewhere.
        let in_place =
            move |it: &PolicyAggregate| it.generation != 0 && it.generation % AGGREGATE_PLACES == index;
        let found = peers.zip(self.of.0).filter(move |(_, it)| in_place(it));
        found.map(|(peer, it)| (PolicyPeer { generation: it.generation, ..peer }, it.said))
    }
}

/// Rules as numbers, the narrowest first, 0 behind the last. From the lowest bit: 32 bits cookie, 16 port, 8 protocol, 5 for how many
/// of these 24 are free, 3 verdict.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackedRules([u64; POLICY_RULES]);

impl Plain for PackedRules {
    fn put(&self, out: &mut [u8]) {
        self.0.iter().zip(out.chunks_mut(8)).for_each(|(number, out)| number.put(out));
    }
    fn get(bytes: &[u8]) -> Self {
        Self(std::array::from_fn(|i| u64::get(&bytes[8 * i..8 * i + 8])))
    }
}

impl PolicyRules {
    /// What stands for a peer with more rules than fit: they are in `cilium_policy_ports`.
    pub fn in_ports() -> Self {
        let mut rules = [0; POLICY_RULES];
        rules[0] = POLICY_PORTS << 61 | u64::from(PolicyKey::PORT_BITS) << 56;
        Self { rules: PackedRules(rules) }
    }

    /// Whether the rules are in `cilium_policy_ports`.
    pub fn are_in_ports(&self) -> bool {
        self.rules.0[0] >> 61 == POLICY_PORTS
    }

    /// All rules about one peer, in any order, each with traffic of its own; `None` for more than fit.
    pub fn pack<'a>(rules: impl IntoIterator<Item = (&'a PolicyKey, &'a PolicyEntry)>) -> Option<Self> {
        let mut packed: Vec<u64> = rules.into_iter().map(|(key, entry)| pack(key, entry)).collect();
        // The number of free bits, then protocol and port: no two rules have the same.
        packed.sort_unstable_by_key(|rule| (rule >> 56 & 0x1f, rule >> 32 & 0xff_ffff));
        packed.resize(POLICY_RULES.max(packed.len()), 0);
        Some(Self { rules: PackedRules(packed.try_into().ok()?) })
    }

    /// The rules about a peer, as they were packed. None when they are in `cilium_policy_ports`.
    pub fn unpack(&self, peer: PolicyPeer) -> impl Iterator<Item = (PolicyKey, PolicyEntry)> + use<> {
        let rules = self.rules.0.into_iter().take_while(|rule| *rule != 0 && rule >> 61 != POLICY_PORTS);
        rules.map(move |rule| {
            let free = (rule >> 56) as u32 & 0x1f;
            let key = PolicyKey {
                prefix_len: PolicyKey::ONE_PORT.saturating_sub(free),
                generation: peer.generation,
                peer: peer.peer,
                direction: peer.direction as u8,
                protocol: (rule >> 48) as u8,
                port: NetPort((rule >> 32) as u16),
            };
            (key, PolicyEntry { cookie: rule as u32, verdict: (rule >> 61) as u8 })
        })
    }
}

fn pack(key: &PolicyKey, entry: &PolicyEntry) -> u64 {
    let free = PolicyKey::ONE_PORT.saturating_sub(key.prefix_len).min(PolicyKey::PORT_BITS);
    let scope = u64::from(key.protocol) << 16 | u64::from(key.port.0);
    u64::from(entry.verdict) << 61 | u64::from(free) << 56 | scope << 32 | u64::from(entry.cookie)
}

layout! {
    /// A rule about a peer. Key of `cilium_policy_ports`, a longest-prefix-match trie over everything behind `prefix_len`, for peers with
    /// more rules than [`PolicyRules`] holds.
    pub struct PolicyKey as "policy_key" {
        /// Bits that count: 72 for any protocol, 80 for any port of a protocol, 96 for one port, between for masked ports.
        pub prefix_len: u32,
        /// Generation of the slot.
        pub generation: u32,
        /// Identity of the other side, or the block that its address lies in ([`BlockEntry`]); 0 for any.
        pub peer: u32,
        /// [`DIRECTION_INGRESS`] or [`DIRECTION_EGRESS`], seen from the slot's endpoints.
        pub direction: u8,
        /// IP protocol number; for ICMP and ICMPv6 the type stands in `port`.
        pub protocol: u8,
        /// Destination port; bits behind `prefix_len` are zero.
        pub port: NetPort,
    }
}

impl PolicyKey {
    /// Bits of generation, peer and direction: a key of this length covers every protocol.
    pub const ANY_PROTOCOL: u32 = 72;
    /// [`Self::ANY_PROTOCOL`] and the protocol: a key of this length covers every port.
    pub const ANY_PORT: u32 = 80;
    /// All bits.
    pub const ONE_PORT: u32 = 96;
    /// Bits of protocol and port.
    const PORT_BITS: u32 = Self::ONE_PORT - Self::ANY_PROTOCOL;
}

layout! {
    /// What a rule says. Value of `cilium_policy_ports`.
    pub struct PolicyEntry as "policy_entry" {
        /// Names the origin of the rule to user space; comes back in events.
        pub cookie: u32,
        /// [`POLICY_ALLOW`], [`POLICY_DENY`], [`POLICY_PROXY`] or [`POLICY_NONE`].
        pub verdict: u8,
    }
}

layout! {
    /// Key of `cilium_blocks`, a longest-prefix-match trie over everything behind `prefix_len`.
    pub struct BlockKey as "block_key" {
        /// Bits that count: 64 for all addresses of a family, and those of the address.
        pub prefix_len: u32,
        /// Generation of the slot.
        pub generation: u32,
        /// [`DIRECTION_INGRESS`] or [`DIRECTION_EGRESS`], seen from the slot's endpoints.
        pub direction: u16,
        /// 4 or 6, as IPv4 has its addresses among those of IPv6.
        pub family: u16,
        /// As [`Addr`]; bits behind `prefix_len` are zero.
        pub address: [u8; 16],
    }
}

impl BlockKey {
    /// Bits of generation, direction and family.
    const HEAD: u32 = 64;

    /// Key of the prefix `address`/`length`, with `length` counted in the address's own family. Bits behind the length must be zero.
    pub fn new(generation: u32, direction: u8, address: IpAddr, length: u8) -> Self {
        let (family, offset) = if address.is_ipv4() { (4, 96) } else { (6, 0) };
        let prefix_len = Self::HEAD + offset + u32::from(length);
        Self { prefix_len, generation, direction: direction.into(), family, address: Addr::from(address).0 }
    }

    /// Address and length, counted in the address's own family.
    pub fn prefix(&self) -> (IpAddr, u32) {
        let bits = self.prefix_len.saturating_sub(Self::HEAD);
        let address = std::net::Ipv6Addr::from(self.address);
        match address.to_ipv4_mapped().filter(|_| self.family == 4) {
            Some(v4) => (v4.into(), bits.saturating_sub(96)),
            None => (address.into(), bits),
        }
    }
}

layout! {
    /// Value of `cilium_blocks`.
    pub struct BlockEntry as "block_entry" {
        /// What the addresses are in [`PolicyPeer::peer`].
        pub peer: u32,
    }
}
