//! Identities of addresses, read from the kernel's maps: the same that the eBPF programs judged by.

use std::net::IpAddr;
use std::path::Path;

use cilium_bpf::layout::{Addr, Endpoint, IpcacheEntry, IpcacheKey};
use cilium_drivers::maps::{self, DIRECTORY, Map};

use crate::rules::Identities;

/// The two maps that say who an address is.
pub(crate) struct KernelIdentities {
    endpoints: Map<Addr, Endpoint>,
    ipcache: Map<IpcacheKey, IpcacheEntry>,
}

impl KernelIdentities {
    /// Opens the maps below `bpffs`, where the agent pinned them.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, maps::Error> {
        let pins = bpffs.join(DIRECTORY);
        Ok(Self {
            endpoints: Map::open(&pins.join("cilium_endpoints"))?,
            ipcache: Map::open(&pins.join("cilium_ipcache"))?,
        })
    }
}

/// An address that cannot be looked up has no identity, which allows nothing more than what is allowed to the world.
impl Identities for KernelIdentities {
    fn pod(&self, address: IpAddr) -> Option<u32> {
        self.endpoints.get(&Addr::from(address)).ok().flatten().map(|endpoint| endpoint.identity)
    }

    fn other(&self, address: IpAddr) -> Option<u32> {
        let key = IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
        self.ipcache.get(&key).ok().flatten().map(|entry| entry.identity)
    }
}
