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

/// One table in two maps, told apart by the variant of key and value.
macro_rules! two_maps_table {
    ($key:ident, $value:ident, $first:ident in $one:ident, $second:ident in $other:ident) => {
        impl Table<$key, $value> for Tables {
            type Error = Fault;
            fn list(&mut self) -> Result<Vec<($key, $value)>, Fault> {
                let one = self.maps.$one.list()?.into_iter();
                let one = one.map(|(key, value)| ($key::$first(key), $value::$first(value)));
                let other = self.maps.$other.list()?.into_iter();
                let other = other.map(|(key, value)| ($key::$second(key), $value::$second(value)));
                Ok(one.chain(other).collect())
            }
            fn set(&mut self, key: &$key, value: &$value) -> Result<(), Fault> {
                match (key, value) {
                    ($key::$first(key), $value::$first(value)) => Ok(self.maps.$one.set(key, value)?),
                    ($key::$second(key), $value::$second(value)) => Ok(self.maps.$other.set(key, value)?),
                    _ => Err(Fault::Mixed(format!("{key:?}"))),
                }
            }
            fn delete(&mut self, key: &$key) -> Result<(), Fault> {
                match key {
                    $key::$first(key) => Ok(self.maps.$one.delete(key)?),
                    $key::$second(key) => Ok(self.maps.$other.delete(key)?),
                }
            }
        }

        impl Lookup<$key, $value> for Tables {
            /// A trie finds the longest prefix up to the length of the key: for the key of an entry that is the entry itself.
            fn lookup(&mut self, key: &$key) -> Result<Option<$value>, Fault> {
                match key {
                    $key::$first(key) => Ok(self.maps.$one.get(key)?.map($value::$first)),
                    $key::$second(key) => Ok(self.maps.$other.get(key)?.map($value::$second)),
                }
            }
        }
    };
}

two_maps_table!(PieceKey, Piece, Entry in policy, Block in blocks);
two_maps_table!(BehindKey, Behind, Backend in backends, Range in source_ranges);

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
