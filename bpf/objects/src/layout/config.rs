//! What is fixed when the programs are loaded: the global `CFG`.

use std::net::IpAddr;

use super::{Addr, NetPort, Plain, layout};

/// Masquerade IPv4 traffic that leaves the cluster.
pub const CONFIG_MASQUERADE4: u32 = 1 << 0;
/// Masquerade IPv6 traffic that leaves the cluster.
pub const CONFIG_MASQUERADE6: u32 = 1 << 1;
/// The kernel lets socket programs choose the error (`bpf_set_retval`, Linux 5.18). Without it connecting to a service without
/// backends fails with EPERM instead of ECONNREFUSED.
pub const CONFIG_SET_RETVAL: u32 = 1 << 2;
/// The node has a policy of its own, in the slot [`HOST_SLOT`](super::HOST_SLOT).
pub const CONFIG_HOST_FIREWALL: u32 = 1 << 3;
/// Only sockets of the node's own network namespace are translated; packets of pods are.
pub const CONFIG_SOCKETS_OF_HOST: u32 = 1 << 4;
/// The node redirects, and looks whom it exempts ([`ExemptKey`](super::ExemptKey)).
pub const CONFIG_REDIRECTS: u32 = 1 << 5;
/// Ports of nodes are served only at addresses inside of [`Config::nodeport_prefixes`].
pub const CONFIG_NODEPORT_PREFIXES: u32 = 1 << 6;
/// Requests for addresses in `cilium_announcements` are answered.
pub const CONFIG_ANNOUNCE: u32 = 1 << 7;
/// Mark of packets that are for the DNS proxy.
pub const MARK_TO_PROXY: u32 = 0x0200;
/// Bits of a mark that say whose it is.
pub const MARK_MASK: u32 = 0x0f00;
/// Number of prefixes in [`Config::kept`].
pub const CONFIG_KEPT_PREFIXES: usize = 8;
/// Number of prefixes in [`Config::nodeport_prefixes`].
pub const CONFIG_NODEPORT_PREFIX_COUNT: usize = 8;

layout! {
    /// A prefix; unused when `bits` is 0.
    pub struct Prefix as "prefix" {
        /// First address.
        pub address: Addr,
        /// Bits that count, of 128: an IPv4 `/n` is `96 + n`.
        pub bits: u32,
    }
}

impl Prefix {
    /// The prefix `address`/`length`, with `length` counted in the address's own family.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let offset = if address.is_ipv4() { 96 } else { 0 };
        Self { address: address.into(), bits: offset + u32::from(length) }
    }
}

impl<const N: usize> Plain for [Prefix; N] {
    fn put(&self, out: &mut [u8]) {
        for (prefix, out) in self.iter().zip(out.chunks_mut(size_of::<Prefix>())) {
            super::Layout::write(prefix, out);
        }
    }
    fn get(bytes: &[u8]) -> Self {
        std::array::from_fn(|i| super::Layout::read(&bytes[i * size_of::<Prefix>()..]))
    }
}

layout! {
    /// The global `CFG`: hand `to_bytes()` to the loader before loading.
    pub struct Config as "config" {
        /// IPv4 address of the node, source of masqueraded packets; [`Addr::NONE`]: no IPv4.
        pub host4: Addr,
        /// IPv6 address of the node, source of masqueraded packets; [`Addr::NONE`]: no IPv6.
        pub host6: Addr,
        /// IPv4 address that a pod sees when it is the backend of its own packet (`ipv4-service-loopback-address`).
        pub loopback4: Addr,
        /// The same for IPv6.
        pub loopback6: Addr,
        /// Destinations that are never masqueraded (pod prefixes, native routing prefixes).
        pub kept: [Prefix; CONFIG_KEPT_PREFIXES],
        /// Where ports of nodes are served, with [`CONFIG_NODEPORT_PREFIXES`]; when there are fewer, they are repeated.
        pub nodeport_prefixes: [Prefix; CONFIG_NODEPORT_PREFIX_COUNT],
        /// Index of `cilium_vxlan`; 0: native routing.
        pub tunnel_ifindex: u32,
        /// Identity of IPv4 addresses that the ipcache does not know: 2 with one family, 9 with two.
        pub world4: u32,
        /// Identity of IPv6 addresses that the ipcache does not know: 2 with one family, 10 with two.
        pub world6: u32,
        /// `CONFIG_*` bits.
        pub flags: u32,
        /// Events that each CPU may send in a second for each reason.
        pub event_rate: u32,
        /// Bytes of an IP packet on its way to another node, or out; 0: unknown.
        pub mtu: u32,
        /// Entries of tables in `cilium_maglev`; 0: there are none.
        pub maglev_size: u32,
        /// First port on the node's address for masqueraded connections; must lie outside of `ip_local_port_range`.
        pub nat_first: u16,
        /// Last port for masqueraded connections.
        pub nat_last: u16,
        /// Port of the DNS proxy on the loopback addresses; 0: there is none.
        pub dns_port: NetPort,
        /// First port on which every node may serve (`node-port-range`).
        pub nodeport_first: u16,
        /// Last of these ports.
        pub nodeport_last: u16,
        /// MAC address of the node's device; frames for others get no acceleration.
        pub device_mac: [u8; 6],
        /// Makes connections spread over these entries differently from one cluster to the next; equal on all nodes of one.
        pub maglev_seed: u64,
        /// Cookie of the node's own network namespace (`SO_NETNS_COOKIE`); 0: unknown, so its processes are not served at loopback addresses.
        pub netns_cookie: u64,
    }
}
