//! Slots and the policy trie.

use std::net::IpAddr;

use super::{Addr, NetPort, layout};

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
    /// Generation under which `cilium_policy` has this slot's entries.
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
    /// Key of `cilium_policy`, a longest-prefix-match trie over everything behind `prefix_len`.
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
}

layout! {
    /// Value of `cilium_policy`.
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
        /// What the addresses are in [`PolicyKey::peer`].
        pub peer: u32,
    }
}
