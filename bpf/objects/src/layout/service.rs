//! Services, backends and the way back from a backend to its service.

use std::net::{IpAddr, Ipv6Addr};

use super::{Addr, NetPort, Plain, layout};

layout! {
    /// Key of `cilium_services`.
    pub struct ServiceKey as "service_key" {
        /// Address of the service; the unspecified one of a family for any address of a node.
        pub address: Addr,
        /// Port of the service.
        pub port: NetPort,
        /// IP protocol number.
        pub protocol: u8,
        /// [`SCOPE_INTERNAL`], [`SCOPE_EXTERNAL`] or [`SCOPE_EXEMPT`].
        pub scope: u8,
    }
}

/// What sockets of pods and of the node connect to.
pub const SCOPE_INTERNAL: u8 = 0;
/// What packets that reach the node from the network are for.
pub const SCOPE_EXTERNAL: u8 = 1;
/// What sockets of pods connect to for which [`ExemptKey`] has an entry.
pub const SCOPE_EXEMPT: u8 = 2;
/// Without a backend on this node, packets are dropped and not refused.
pub const SERVICE_ONLY_OWN: u32 = 1 << 0;
/// Only clients in `cilium_source_ranges` under the same generation are served.
pub const SERVICE_RANGES: u32 = 1 << 1;
/// Of a port of nodes, inside: at addresses of other nodes, these decide by themselves.
pub const SERVICE_AT_OWN_NODE: u32 = 1 << 2;
/// Backends of other nodes answer clients outside by themselves (direct server return).
pub const SERVICE_DSR: u32 = 1 << 3;
/// The backend of a new client is in `cilium_maglev`, under the same generation.
pub const SERVICE_MAGLEV: u32 = 1 << 4;
/// With [`SERVICE_RANGES`]: these clients are the ones that are not served.
pub const SERVICE_RANGES_DENY: u32 = 1 << 5;

layout! {
    /// Value of `cilium_services`. Backends of a new set are written under a new generation before this value names it.
    pub struct ServiceEntry as "service_entry" {
        /// Generation of the backends.
        pub generation: u32,
        /// Backends `0..count` exist under that generation. 0: connecting fails at once.
        pub count: u32,
        /// Seconds since its last use of the service in which a client keeps its backend; 0 is not at all.
        pub affinity: u32,
        /// `SERVICE_*` bits.
        pub flags: u32,
    }
}

layout! {
    /// Key of `cilium_source_ranges`, a longest-prefix-match trie over everything behind `prefix_len`.
    pub struct SourceRangeKey as "source_range_key" {
        /// Bits that count: 32, and those of the address.
        pub prefix_len: u32,
        /// Generation of the service.
        pub generation: u32,
        /// As [`Addr`]; bits behind `prefix_len` are zero.
        pub address: [u8; 16],
    }
}

impl SourceRangeKey {
    /// Bits of the generation.
    const HEAD: u32 = 32;

    /// Key of the prefix `address`/`length`, with `length` counted in the address's own family. Bits behind the length must be zero.
    pub fn new(generation: u32, address: IpAddr, length: u8) -> Self {
        let offset = if address.is_ipv4() { 96 } else { 0 };
        let prefix_len = Self::HEAD + offset + u32::from(length);
        Self { prefix_len, generation, address: Addr::from(address).0 }
    }

    /// Address and length, counted in the address's own family; `None` when the length is one that no prefix has.
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        let address = Addr(self.address).ip().unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let offset = if address.is_ipv4() { 96 } else { 0 };
        let length = self.prefix_len.checked_sub(Self::HEAD + offset)?;
        Some((address, u8::try_from(length).ok()?))
    }
}

layout! {
    /// Value of `cilium_source_ranges`.
    pub struct SourceRangeEntry as "source_range_entry" {
        /// Always 1.
        pub allowed: u32,
    }
}

layout! {
    /// Key of `cilium_backends`.
    pub struct BackendKey as "backend_key" {
        /// Generation, unique over all services.
        pub generation: u32,
        /// Position within the set.
        pub index: u32,
    }
}

layout! {
    /// Value of `cilium_backends`.
    pub struct BackendEntry as "backend_entry" {
        /// Address of the backend, of the family of its service.
        pub address: Addr,
        /// Port of the backend.
        pub port: NetPort,
    }
}

/// Entries of a table in one piece of it.
pub const MAGLEV_CHUNK: usize = 256;
/// Of an entry: behind the end of the table.
pub const MAGLEV_NONE: u16 = u16::MAX;

layout! {
    /// Key of `cilium_maglev`: a piece of the table of a set of backends.
    pub struct MaglevKey as "maglev_key" {
        /// Generation of the backends.
        pub generation: u32,
        /// The piece with the entries from `chunk` times [`MAGLEV_CHUNK`] on.
        pub chunk: u32,
    }
}

layout! {
    /// Value of `cilium_maglev`.
    pub struct MaglevChunk as "maglev_chunk" {
        /// For each entry the index of a backend, or [`MAGLEV_NONE`].
        pub backends: Indexes,
    }
}

/// Indexes of backends; at first all [`MAGLEV_NONE`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Indexes(pub [u16; MAGLEV_CHUNK]);

impl Default for Indexes {
    fn default() -> Self {
        Self([MAGLEV_NONE; MAGLEV_CHUNK])
    }
}

impl Plain for Indexes {
    fn put(&self, out: &mut [u8]) {
        self.0.iter().zip(out.chunks_mut(2)).for_each(|(number, out)| number.put(out));
    }
    fn get(bytes: &[u8]) -> Self {
        Self(std::array::from_fn(|i| u16::get(&bytes[2 * i..2 * i + 2])))
    }
}

layout! {
    /// Key of `cilium_sock_revnat`: one socket's use of one backend.
    pub struct SockRevnatKey as "sock_revnat_key" {
        /// Cookie of the socket.
        pub cookie: u64,
        /// Backend that the socket was sent to.
        pub backend: Addr,
        /// Port of the backend.
        pub port: NetPort,
    }
}

layout! {
    /// Value of `cilium_sock_revnat`: what the program believes it talks to.
    pub struct SockRevnatEntry as "sock_revnat_entry" {
        /// Address of the service.
        pub service: Addr,
        /// Port of the service.
        pub port: NetPort,
    }
}

layout! {
    /// Key of `cilium_exempt`: a client, and a service with [`SCOPE_INTERNAL`] that it meets with [`SCOPE_EXEMPT`].
    pub struct ExemptKey as "exempt_key" {
        /// The address of a pod, for its packets, or [`Addr::of_netns`], for its sockets.
        pub client: Addr,
        /// The service.
        pub service: ServiceKey,
    }
}

layout! {
    /// Value of `cilium_exempt`.
    pub struct ExemptEntry as "exempt_entry" {
        /// Always 1.
        pub exempt: u32,
    }
}
