//! Services as the agent would write them.

use std::net::SocketAddr;

use cilium_bpf::layout::{
    BackendEntry, BackendKey, MAGLEV_CHUNK, MaglevChunk, MaglevKey, NetPort, SCOPE_EXEMPT, SCOPE_EXTERNAL,
    SCOPE_INTERNAL, SERVICE_RANGES, ServiceEntry, ServiceKey, SourceRangeEntry, SourceRangeKey,
};
use cilium_delta::Table;
use cilium_drivers::maps::Maps;
use ipnet::IpNet;

/// A frontend: for packets from outside, unless it is said to be for pods.
#[derive(Clone, Debug, Default)]
pub struct Frontend {
    /// For packets of pods.
    pub inside: bool,
    /// For packets of pods that are exempt from what stands in its place.
    pub exempt: bool,
    /// A number of its own for each version of a service.
    pub generation: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Seconds.
    pub affinity: u32,
    /// `SERVICE_*` bits; that of the ranges comes by itself.
    pub flags: u32,
    /// Clients that are served; `None` is everybody.
    pub ranges: Option<Vec<IpNet>>,
    /// Indexes of backends by Maglev hashing; whether they count is said by the flags.
    pub table: Vec<u16>,
}

impl Frontend {
    /// Puts the service in force under an address and port: backends first.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn serve(&self, maps: &mut Maps, at: SocketAddr, backends: &[SocketAddr]) {
        for (index, backend) in (0..).zip(backends) {
            let key = BackendKey { generation: self.generation, index };
            let entry = BackendEntry { address: backend.ip().into(), port: NetPort(backend.port()) };
            maps.backends.set(&key, &entry).expect("a backend fits");
        }
        for range in self.ranges.iter().flatten() {
            let key = SourceRangeKey::new(self.generation, range.addr(), range.prefix_len());
            maps.source_ranges.set(&key, &SourceRangeEntry { allowed: 1 }).expect("a range fits");
        }
        for (chunk, entries) in (0..).zip(self.table.chunks(MAGLEV_CHUNK)) {
            let mut piece = MaglevChunk::default();
            piece.backends.0[..entries.len()].copy_from_slice(entries);
            let key = MaglevKey { generation: self.generation, chunk };
            maps.maglev.set(&key, &piece).expect("a piece of a table fits");
        }
        let ranges = if self.ranges.is_some() { SERVICE_RANGES } else { 0 };
        let entry = ServiceEntry {
            generation: self.generation,
            count: backends.len() as u32,
            affinity: self.affinity,
            flags: self.flags | ranges,
        };
        maps.services.set(&self.key(at), &entry).expect("a service fits");
    }

    /// Takes it away.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn close(&self, maps: &mut Maps, at: SocketAddr) {
        maps.services.delete(&self.key(at)).expect("a service can be removed");
    }

    fn key(&self, at: SocketAddr) -> ServiceKey {
        ServiceKey {
            address: at.ip().into(),
            port: NetPort(at.port()),
            protocol: self.protocol,
            scope: match (self.exempt, self.inside) {
                (true, _) => SCOPE_EXEMPT,
                (false, true) => SCOPE_INTERNAL,
                (false, false) => SCOPE_EXTERNAL,
            },
        }
    }
}
