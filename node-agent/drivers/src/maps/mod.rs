//! The pinned maps of the datapath as typed tables. Layouts and meanings: [`cilium_bpf::layout`] and
//! `docs/design/datapath.md`.

mod map;
mod policy;
mod record;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use cilium_bpf::layout::{
    Addr, AnnouncementEntry, AnnouncementKey, BackendEntry, BackendKey, BlockEntry, BlockKey, CtEntry, CtKey,
    Endpoint, ExemptEntry, ExemptKey, FragmentKey, FragmentPorts, IpcacheEntry, IpcacheKey, LinkEntry,
    LinkSigns, MaglevChunk, MaglevKey, Metric, NatEntry, NatKey, PeerEntry, PeerKey, ServiceEntry,
    ServiceKey, Slot, SockRevnatEntry, SockRevnatKey, SourceRangeEntry, SourceRangeKey,
};
use thiserror::Error;

pub use self::{
    map::Map,
    policy::{PeerMap, PolicyMaps},
    record::Record,
};

/// Why a map could not be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are the object named in the message, and the source")]
pub enum Error {
    /// There is no such map, or it is not accessible.
    #[error("cannot open map {path}")]
    Open { path: PathBuf, source: io::Error },
    /// The pinned map has another layout.
    #[error(
        "map {map} has keys and values of {found:?} bytes, expected are {expected:?}; it is from another version"
    )]
    Layout { map: String, expected: (usize, usize), found: (usize, usize) },
    /// Reading failed.
    #[error("cannot read map {map}")]
    Read { map: String, source: io::Error },
    /// An entry could not be written.
    #[error("cannot write {key} to map {map}")]
    Set { map: String, key: String, source: io::Error },
    /// There is no room.
    #[error("map {map} is full, its limit is {limit} entries")]
    Full { map: String, limit: u32 },
    /// An entry could not be removed.
    #[error("cannot delete {key} from map {map}")]
    Delete { map: String, key: String, source: io::Error },
}

/// All maps of a node, opened from their pins.
#[expect(
    missing_docs,
    reason = "each field is the map (or the maps) of the same name, prefixed with cilium_"
)]
pub struct Maps {
    pub endpoints: Map<Addr, Endpoint>,
    pub ipcache: Map<IpcacheKey, IpcacheEntry>,
    pub slots: Map<u32, Slot>,
    pub policy: PolicyMaps,
    pub blocks: Map<BlockKey, BlockEntry>,
    pub services: Map<ServiceKey, ServiceEntry>,
    pub backends: Map<BackendKey, BackendEntry>,
    pub maglev: Map<MaglevKey, MaglevChunk>,
    pub source_ranges: Map<SourceRangeKey, SourceRangeEntry>,
    pub ct: Map<CtKey, CtEntry>,
    pub snat: Map<NatKey, NatEntry>,
    pub fragments: Map<FragmentKey, FragmentPorts>,
    pub sock_revnat: Map<SockRevnatKey, SockRevnatEntry>,
    pub exempt: Map<ExemptKey, ExemptEntry>,
    /// Element 0: which events programs send (`EVENT_MASK_*`).
    pub event_mask: Map<u32, u32>,
    pub metrics: Map<u32, Metric>,
}

impl Maps {
    /// Opens the maps below `bpffs` (`/sys/fs/bpf/cilium`), where a [`Datapath`](crate::datapath::Datapath) pinned them.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Layout`].
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        let pins = bpffs.join(DIRECTORY);
        Ok(Self {
            endpoints: Map::open(&pins.join("cilium_endpoints"))?,
            ipcache: Map::open(&pins.join("cilium_ipcache"))?,
            slots: Map::open(&pins.join("cilium_slots"))?,
            policy: PolicyMaps::open(&pins)?,
            blocks: Map::open(&pins.join("cilium_blocks"))?,
            services: Map::open(&pins.join("cilium_services"))?,
            backends: Map::open(&pins.join("cilium_backends"))?,
            maglev: Map::open(&pins.join("cilium_maglev"))?,
            source_ranges: Map::open(&pins.join("cilium_source_ranges"))?,
            ct: Map::open(&pins.join("cilium_ct"))?,
            snat: Map::open(&pins.join("cilium_snat"))?,
            fragments: Map::open(&pins.join("cilium_fragments"))?,
            sock_revnat: Map::open(&pins.join("cilium_sock_revnat"))?,
            exempt: Map::open(&pins.join("cilium_exempt"))?,
            event_mask: Map::open(&pins.join("cilium_event_mask"))?,
            metrics: Map::open(&pins.join("cilium_metrics"))?,
        })
    }
}

/// Maps of announced addresses and of the nodes that share them, opened from their pins.
#[expect(missing_docs, reason = "each field is the map of the same name, prefixed with cilium_")]
pub struct AnnouncementMaps {
    pub announcements: Map<AnnouncementKey, AnnouncementEntry>,
    /// By the number of the device, as the next.
    pub links: Map<u32, LinkEntry>,
    pub link_signs: Map<u32, LinkSigns>,
    pub peers: Map<PeerKey, PeerEntry>,
    /// Elements are `ANNOUNCER_*`.
    pub announcer: Map<u32, u64>,
}

impl AnnouncementMaps {
    /// As [`Maps::open`].
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Layout`].
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        let pins = bpffs.join(DIRECTORY);
        Ok(Self {
            announcements: Map::open(&pins.join("cilium_announcements"))?,
            links: Map::open(&pins.join("cilium_links"))?,
            link_signs: Map::open(&pins.join("cilium_link_signs"))?,
            peers: Map::open(&pins.join("cilium_peers"))?,
            announcer: Map::open(&pins.join("cilium_announcer"))?,
        })
    }
}

/// Where maps are pinned below the agent's directory.
pub const DIRECTORY: &str = "maps";

impl Map<u32, Metric> {
    /// One counter, added up over all CPUs.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn total(&self, index: u32) -> Result<Metric, Error> {
        let values = self.bytes(&index)?.unwrap_or_default();
        Ok(values.chunks(Metric::SIZE).map(Metric::read).fold(Metric::default(), add))
    }

    /// The counters that are not zero, added up over all CPUs, by index ([`cilium_bpf::layout::metric_index`]).
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn totals(&self) -> Result<BTreeMap<u32, Metric>, Error> {
        let mut totals = BTreeMap::new();
        self.each_bytes(|key, values| {
            let total = values.chunks(Metric::SIZE).map(Metric::read).fold(Metric::default(), add);
            if total != Metric::default() {
                totals.insert(u32::read(key), total);
            }
        })?;
        Ok(totals)
    }
}

fn add(one: Metric, other: Metric) -> Metric {
    Metric { packets: one.packets.wrapping_add(other.packets), bytes: one.bytes.wrapping_add(other.bytes) }
}
