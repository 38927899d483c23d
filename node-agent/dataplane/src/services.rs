//! Services: one pointer for each address and port, and the backends behind it that this node uses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cilium_api::frontends::{Frontend, FrontendKind, Here, Scope};
use cilium_api::parts::{Backend, PartKey, Service};
use cilium_bpf::layout::{BackendEntry, BackendKey, NetPort, ServiceEntry, ServiceKey};

use crate::switched::{Scheme, Switched};

pub(crate) struct ServiceScheme;

impl Scheme for ServiceScheme {
    type Owner = ServiceKey;
    type Pointer = ServiceEntry;
    type Content = Content;
    type Key = BackendKey;
    type Value = BackendEntry;

    const FIRST: u32 = 1;

    fn items(generation: u32, content: &Content) -> Vec<(BackendKey, BackendEntry)> {
        (0..)
            .zip(&content.backends)
            .map(|(index, entry)| (BackendKey { generation, index }, *entry))
            .collect()
    }
    fn pointer(generation: u32, content: &Content) -> ServiceEntry {
        let count = u32::try_from(content.backends.len()).unwrap_or(u32::MAX);
        ServiceEntry { generation, count, affinity: content.affinity }
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
    fn content(pointer: &ServiceEntry, mut items: Vec<(BackendKey, BackendEntry)>) -> Option<Content> {
        items.sort_unstable_by_key(|(key, _)| key.index);
        let gapless = (0..).zip(&items).all(|(index, (key, _))| key.index == index);
        let whole = usize::try_from(pointer.count) == Ok(items.len());
        let backends = || items.into_iter().map(|(_, entry)| entry).collect();
        (gapless && whole).then(|| Content { affinity: pointer.affinity, backends: backends() })
    }
}

/// What a frontend leads to.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    /// Seconds for which a client keeps its backend; 0 is not at all.
    affinity: u32,
    backends: Vec<BackendEntry>,
}

/// Frontends of every Service.
pub(crate) struct Services {
    pub(crate) switched: Switched<ServiceScheme>,
    frontends: HashMap<PartKey, BTreeSet<ServiceKey>>,
    here: Here,
}

impl Services {
    pub(crate) fn new(node: String) -> Self {
        let here = Here { node, zone: String::new() };
        Self { switched: Switched::new(), frontends: HashMap::new(), here }
    }

    /// Takes the node's zone. Returns the Services to be set again.
    pub(crate) fn move_to(&mut self, zone: &str) -> Vec<PartKey> {
        if self.here.zone == zone {
            return Vec::new();
        }
        zone.clone_into(&mut self.here.zone);
        self.frontends.keys().cloned().collect()
    }

    /// Takes a service part, or that there is none.
    pub(crate) fn set(&mut self, part: &PartKey, service: Option<&Service>) {
        let mut old = self.frontends.remove(part).unwrap_or_default();
        let mut new = BTreeSet::new();
        if let Some(service) = service {
            for frontend in service.frontends(&self.here).filter(is_served) {
                let owner = key(&frontend);
                old.remove(&owner);
                new.insert(owner);
                self.switched.set(owner, Arc::new(content(&frontend, service.affinity)));
            }
        }
        for frontend in old {
            self.switched.remove(frontend);
        }
        if !new.is_empty() {
            self.frontends.insert(part.clone(), new);
        }
    }

    /// A Service as this node has it.
    pub(crate) fn frontends<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Frontend<'a>> {
        service.frontends(&self.here)
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

/// What sockets connect to.
fn is_served(frontend: &Frontend<'_>) -> bool {
    let is_address = matches!(frontend.kind, FrontendKind::ClusterIp | FrontendKind::LoadBalancer);
    is_address && frontend.scope == Scope::Internal
}

fn key(frontend: &Frontend<'_>) -> ServiceKey {
    let protocol = frontend.service_port.protocol;
    ServiceKey { address: frontend.address.into(), port: NetPort(frontend.port), protocol }
}

fn content(frontend: &Frontend<'_>, affinity: u32) -> Content {
    let entry = |it: &&Backend| BackendEntry { address: it.address.into(), port: NetPort(it.port) };
    Content { affinity, backends: frontend.backends.iter().map(entry).collect() }
}
