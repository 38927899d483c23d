//! The kernel's tables as the dataplane wants them: one type, one error.

use std::path::Path;

use cilium_bpf::layout::{
    Addr, Endpoint, ExemptEntry, ExemptKey, IpcacheEntry, IpcacheKey, ServiceEntry, ServiceKey, Slot,
};
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
    #[error("{0} and its value belong to different maps: the agent is faulty")]
    Mixed(String),
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
            fn each(&mut self, see: &mut dyn FnMut($key, $value)) -> Result<(), Fault> {
                Ok(self.maps.$field.each(see)?)
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
map_table!(ExemptKey, ExemptEntry, exempt);
map_table!(ServiceKey, ServiceEntry, services);

/// One table in several maps, told apart by the variant of key and value.
macro_rules! table_of_maps {
    ($key:ident, $value:ident, $($variant:ident in $($map:ident).+),+) => {
        impl Table<$key, $value> for Tables {
            type Error = Fault;
            fn list(&mut self) -> Result<Vec<($key, $value)>, Fault> {
                let mut all = Vec::new();
                self.each(&mut |key, value| all.push((key, value)))?;
                Ok(all)
            }
            fn each(&mut self, see: &mut dyn FnMut($key, $value)) -> Result<(), Fault> {
                $(
                    self.maps.$($map).+.each(&mut |key, value| see($key::$variant(key), $value::$variant(value.into())))?;
                )+
                Ok(())
            }
            fn set(&mut self, key: &$key, value: &$value) -> Result<(), Fault> {
                match (key, value) {
                    $( ($key::$variant(key), $value::$variant(value)) => Ok(self.maps.$($map).+.set(key, value)?), )+
                    _ => Err(Fault::Mixed(format!("{key:?}"))),
                }
            }
            fn delete(&mut self, key: &$key) -> Result<(), Fault> {
                match key {
                    $( $key::$variant(key) => Ok(self.maps.$($map).+.delete(key)?), )+
                }
            }
        }

        impl Lookup<$key, $value> for Tables {
            /// A trie finds the longest prefix up to the length of the key: for the key of an entry that is the entry itself.
            fn lookup(&mut self, key: &$key) -> Result<Option<$value>, Fault> {
                match key {
                    $( $key::$variant(key) => Ok(self.maps.$($map).+.get(key)?.map(|value| $value::$variant(value.into()))), )+
                }
            }
        }
    };
}

table_of_maps!(PieceKey, Piece, Peer in policy.peers, Port in policy.ports, Block in blocks);
table_of_maps!(BehindKey, Behind, Backend in backends, Range in source_ranges, Maglev in maglev);

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
