//! Addresses, ports, endpoints and the address-to-identity map.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::{Plain, layout};

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), in network order.
///
/// All zero means "no address" where a field allows that. The order of `Addr` is the order that [`super::CtKey`] uses.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The absent address, all zero (`::`).
    pub const NONE: Self = Self([0; 16]);

    /// Stands for the sockets of a network namespace, by its cookie (`SO_NETNS_COOKIE`): no host has such an address.
    pub fn of_netns(cookie: u64) -> Self {
        let mut bytes = [0xff; 16];
        bytes[8..].copy_from_slice(&cookie.to_ne_bytes());
        Self(bytes)
    }

    /// The address in its own family; `None` for [`Addr::NONE`].
    pub fn ip(self) -> Option<IpAddr> {
        (self != Self::NONE).then(|| Ipv6Addr::from(self.0).to_canonical())
    }

    /// The 16 bytes, which is also the key of `cilium_endpoints`.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Option<IpAddr>> for Addr {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::NONE, Self::from)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(self.0).to_canonical(), f)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Plain for Addr {
    fn put(&self, out: &mut [u8]) {
        self.0.put(out);
    }
    fn get(bytes: &[u8]) -> Self {
        Self(Plain::get(bytes))
    }
}

/// A port (or an ICMP echo id); the number is in the machine's order, the stored form in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetPort(pub u16);

impl Plain for NetPort {
    fn put(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.to_be_bytes());
    }
    fn get(bytes: &[u8]) -> Self {
        Self(u16::from_be_bytes(Plain::get(bytes)))
    }
}

layout! {
    /// A pod of this node: value of `cilium_endpoints`, whose key is an [`Addr`].
    pub struct Endpoint as "endpoint" {
        /// Host's end of the pod's device pair.
        pub ifindex: u32,
        /// Security identity.
        pub identity: u32,
        /// Index into `cilium_slots`.
        pub slot: u16,
        /// Number of the endpoint on this node.
        pub id: u16,
        /// MAC address of the pod's end.
        pub mac: [u8; 6],
        /// MAC address of the host's end; only user space reads it.
        pub host_mac: [u8; 6],
    }
}

layout! {
    /// Key of `cilium_ipcache`, a longest-prefix-match trie.
    pub struct IpcacheKey as "ipcache_key" {
        /// Bits of `address` that count; an IPv4 `/n` is `96 + n`.
        pub prefix_len: u32,
        /// As [`Addr`].
        pub address: [u8; 16],
    }
}

impl IpcacheKey {
    /// Key of the prefix `address`/`length`, with `length` counted in the address's own family.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let offset = if address.is_ipv4() { 96 } else { 0 };
        Self { prefix_len: offset + u32::from(length), address: Addr::from(address).0 }
    }

    /// Key of the prefix of this length, in bits of the key, around the prefix.
    pub fn truncated(&self, length: u32) -> Self {
        let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(length)).unwrap_or(0);
        let address = (u128::from_be_bytes(self.address) & mask).to_be_bytes();
        Self { prefix_len: length.min(self.prefix_len), address }
    }
}

layout! {
    /// What an address means: value of `cilium_ipcache`.
    pub struct IpcacheEntry as "ipcache_entry" {
        /// Address of the node to encapsulate to. Pods and addresses of other nodes have it in tunnel mode; absent means
        /// that nothing is encapsulated.
        pub tunnel: Addr,
        /// Security identity.
        pub identity: u32,
    }
}
