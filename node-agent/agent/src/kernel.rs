//! The kernel's tables as the dataplane wants them: one type, one error.

use std::path::Path;

use cilium_bpf::layout::{Addr, Endpoint, IpcacheEntry, IpcacheKey, ServiceEntry, ServiceKey, Slot};
use cilium_dataplane as dataplane;
use cilium_dataplane::{Behind, BehindKey, Kernel, Lookup, Piece, PieceKey, SlotIndex};
use cilium_delta::Table;
use cilium_drivers::maps::{self, Maps};
use cilium_drivers::netlink;
use ipnet::IpNet;

use crate::wires::Wires;

/// An operation on a table failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Map(#[from] maps::Error),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error("{0:?} and its value belong to different maps: the agent is faulty")]
    Mixed(PieceKey),
    #[error("{0:?} and its value belong to different maps: the agent is faulty")]
    MixedService(BehindKey),
}

/// Maps, routes and neighbours of this node.
pub(crate) struct Tables {
    pub(crate) maps: Maps,
    pub(crate) wires: Wires,
}

impl Tables {
    /// Opens everything; `bpffs` is where the maps are pinned.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, Fault> {
        Ok(Self { maps: Maps::open(bpffs)?, wires: Wires::open()? })
    }
}

macro_rules! map_table {
    ($key:ty, $value:ty, $field:ident) => {
        impl Table<$key, $value> for Tables {
            type Error = Fault;
            fn list(&mut self) -> Result<Vec<($key, $value)>, Fault> {
                Ok(self.maps.$field.list()?)
            }
            fn set(&mut self, key: &$key, value: &$value) -> Result<(), Fault> {
                Ok(self.maps.$field.set(key, value)?)
            }
            fn delete(&mut self, key: &$key) -> Result<(), Fault> {
                Ok(self.maps.$field.delete(key)?)
            }
        }
    };
}

map_table!(Addr, Endpoint, endpoints);
map_table!(IpcacheKey, IpcacheEntry, ipcache);
map_table!(ServiceKey, ServiceEntry, services);

impl Table<PieceKey, Piece> for Tables {
    type Error = Fault;
    fn list(&mut self) -> Result<Vec<(PieceKey, Piece)>, Fault> {
        let entries = self.maps.policy.list()?.into_iter();
        let entries = entries.map(|(key, value)| (PieceKey::Entry(key), Piece::Entry(value)));
        let blocks = self.maps.blocks.list()?.into_iter();
        Ok(entries.chain(blocks.map(|(key, value)| (PieceKey::Block(key), Piece::Block(value)))).collect())
    }
    fn set(&mut self, key: &PieceKey, value: &Piece) -> Result<(), Fault> {
        match (key, value) {
            (PieceKey::Entry(key), Piece::Entry(value)) => Ok(self.maps.policy.set(key, value)?),
            (PieceKey::Block(key), Piece::Block(value)) => Ok(self.maps.blocks.set(key, value)?),
            _ => Err(Fault::Mixed(*key)),
        }
    }
    fn delete(&mut self, key: &PieceKey) -> Result<(), Fault> {
        match key {
            PieceKey::Entry(key) => Ok(self.maps.policy.delete(key)?),
            PieceKey::Block(key) => Ok(self.maps.blocks.delete(key)?),
        }
    }
}

impl Table<SlotIndex, Slot> for Tables {
    type Error = Fault;
    fn list(&mut self) -> Result<Vec<(SlotIndex, Slot)>, Fault> {
        let slots = self.maps.slots.list()?.into_iter();
        Ok(slots.filter_map(|(index, slot)| Some((SlotIndex(u16::try_from(index).ok()?), slot))).collect())
    }
    fn set(&mut self, key: &SlotIndex, value: &Slot) -> Result<(), Fault> {
        Ok(self.maps.slots.set(&u32::from(key.0), value)?)
    }
    fn delete(&mut self, key: &SlotIndex) -> Result<(), Fault> {
        Ok(self.maps.slots.delete(&u32::from(key.0))?)
    }
}

impl Lookup<PieceKey, Piece> for Tables {
    /// A trie finds the longest prefix up to the length of the key: for the key of an entry that is the entry itself.
    fn lookup(&mut self, key: &PieceKey) -> Result<Option<Piece>, Fault> {
        match key {
            PieceKey::Entry(key) => Ok(self.maps.policy.get(key)?.map(Piece::Entry)),
            PieceKey::Block(key) => Ok(self.maps.blocks.get(key)?.map(Piece::Block)),
        }
    }
}

impl Table<BehindKey, Behind> for Tables {
    type Error = Fault;
    fn list(&mut self) -> Result<Vec<(BehindKey, Behind)>, Fault> {
        let backends = self.maps.backends.list()?.into_iter();
        let backends = backends.map(|(key, value)| (BehindKey::Backend(key), Behind::Backend(value)));
        let ranges = self.maps.source_ranges.list()?.into_iter();
        Ok(backends.chain(ranges.map(|(key, value)| (BehindKey::Range(key), Behind::Range(value)))).collect())
    }
    fn set(&mut self, key: &BehindKey, value: &Behind) -> Result<(), Fault> {
        match (key, value) {
            (BehindKey::Backend(key), Behind::Backend(value)) => Ok(self.maps.backends.set(key, value)?),
            (BehindKey::Range(key), Behind::Range(value)) => Ok(self.maps.source_ranges.set(key, value)?),
            _ => Err(Fault::MixedService(*key)),
        }
    }
    fn delete(&mut self, key: &BehindKey) -> Result<(), Fault> {
        match key {
            BehindKey::Backend(key) => Ok(self.maps.backends.delete(key)?),
            BehindKey::Range(key) => Ok(self.maps.source_ranges.delete(key)?),
        }
    }
}

impl Lookup<BehindKey, Behind> for Tables {
    fn lookup(&mut self, key: &BehindKey) -> Result<Option<Behind>, Fault> {
        match key {
            BehindKey::Backend(key) => Ok(self.maps.backends.get(key)?.map(Behind::Backend)),
            BehindKey::Range(key) => Ok(self.maps.source_ranges.get(key)?.map(Behind::Range)),
        }
    }
}

impl Table<IpNet, dataplane::Route> for Tables {
    type Error = Fault;
    fn list(&mut self) -> Result<Vec<(IpNet, dataplane::Route)>, Fault> {
        Ok(self.wires.list()?)
    }
    fn set(&mut self, key: &IpNet, value: &dataplane::Route) -> Result<(), Fault> {
        Ok(self.wires.set(key, value)?)
    }
    fn delete(&mut self, key: &IpNet) -> Result<(), Fault> {
        Ok(self.wires.delete(key)?)
    }
}

impl Table<dataplane::Neighbour, dataplane::Mac> for Tables {
    type Error = Fault;
    fn list(&mut self) -> Result<Vec<(dataplane::Neighbour, dataplane::Mac)>, Fault> {
        Ok(self.wires.list()?)
    }
    fn set(&mut self, key: &dataplane::Neighbour, value: &dataplane::Mac) -> Result<(), Fault> {
        Ok(self.wires.set(key, value)?)
    }
    fn delete(&mut self, key: &dataplane::Neighbour) -> Result<(), Fault> {
        Ok(self.wires.delete(key)?)
    }
}

impl Kernel for Tables {
    type Fault = Fault;

    fn is_settled(&self) -> bool {
        self.wires.is_settled()
    }

    fn refused(&self) -> usize {
        self.wires.failures().len()
    }
}
