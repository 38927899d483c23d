//! Services: one pointer for each address and port, and the backends behind it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::parts::{PartKey, Service, ServicePort};
use cilium_bpf::layout::{BackendEntry, BackendKey, NetPort, ServiceEntry, ServiceKey};

use crate::switched::{Scheme, Switched};

pub(crate) struct ServiceScheme;

impl Scheme for ServiceScheme {
    type Owner = ServiceKey;
    type Pointer = ServiceEntry;
    type Content = Vec<BackendEntry>;
    type Key = BackendKey;
    type Value = BackendEntry;

    const FIRST: u32 = 1;

    fn items(generation: u32, content: &Vec<BackendEntry>) -> Vec<(BackendKey, BackendEntry)> {
        (0..).zip(content).map(|(index, entry)| (BackendKey { generation, index }, *entry)).collect()
    }
    fn pointer(generation: u32, content: &Vec<BackendEntry>) -> ServiceEntry {
        ServiceEntry { generation, count: u32::try_from(content.len()).unwrap_or(u32::MAX) }
    }
    /// Nothing remembers a generation of backends beyond the run of a program.
    fn mark(_: u32) -> Option<(ServiceKey, ServiceEntry)> {
        None
    }
    fn generation(pointer: &ServiceEntry) -> Option<u32> {
        Some(pointer.generation)
    }
    fn item_generation(key: &BackendKey) -> u32 {
        key.generation
    }
    fn content(
        pointer: &ServiceEntry,
        mut items: Vec<(BackendKey, BackendEntry)>,
    ) -> Option<Vec<BackendEntry>> {
        items.sort_unstable_by_key(|(key, _)| key.index);
        let gapless = (0..).zip(&items).all(|(index, (key, _))| key.index == index);
        let whole = usize::try_from(pointer.count) == Ok(items.len());
        (gapless && whole).then(|| items.into_iter().map(|(_, entry)| entry).collect())
    }
}

/// Frontends of every Service.
pub(crate) struct Services {
    pub(crate) switched: Switched<ServiceScheme>,
    frontends: HashMap<PartKey, BTreeSet<ServiceKey>>,
}

impl Services {
    pub(crate) fn new() -> Self {
        Self { switched: Switched::new(), frontends: HashMap::new() }
    }

    /// Takes a service part, or that there is none.
    pub(crate) fn set(&mut self, key: &PartKey, service: Option<&Service>) {
        let mut old = self.frontends.remove(key).unwrap_or_default();
        let mut new = BTreeSet::new();
        for (frontend, backends) in service.into_iter().flat_map(frontends) {
            old.remove(&frontend);
            new.insert(frontend);
            self.switched.set(frontend, Arc::new(backends));
        }
        for frontend in old {
            self.switched.remove(frontend);
        }
        if !new.is_empty() {
            self.frontends.insert(key.clone(), new);
        }
    }

    /// Services that are not in force, and why.
    pub(crate) fn failures(&self) -> Vec<(PartKey, String)> {
        let owner = |frontend| self.frontends.iter().find(|(_, frontends)| frontends.contains(&frontend));
        self.switched
            .failures()
            .filter_map(|(frontend, message)| Some((owner(frontend)?.0.clone(), message.to_owned())))
            .collect()
    }
}

fn frontends(service: &Service) -> impl Iterator<Item = (ServiceKey, Vec<BackendEntry>)> {
    service
        .cluster_ips
        .iter()
        .flat_map(move |address| service.ports.iter().map(move |port| frontend(*address, port)))
}

/// A frontend has the backends of its own family: a socket cannot change family.
fn frontend(address: IpAddr, port: &ServicePort) -> (ServiceKey, Vec<BackendEntry>) {
    let key = ServiceKey { address: address.into(), port: NetPort(port.port), protocol: port.protocol };
    let same_family = port.backends.iter().filter(|backend| backend.address.is_ipv4() == address.is_ipv4());
    let backends = same_family
        .map(|backend| BackendEntry { address: backend.address.into(), port: NetPort(backend.port) });
    (key, backends.collect())
}
