//! Services: one pointer for each address and port, and the backends behind it that this node uses.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::parts::{Backend, BackendPlace, PartKey, Service, ServicePort};
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

/// What decides which backends are near.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) node: String,
    /// Empty when the node is in none.
    pub(crate) zone: String,
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
    pub(crate) fn set(&mut self, key: &PartKey, service: Option<&Service>) {
        let mut old = self.frontends.remove(key).unwrap_or_default();
        let mut new = BTreeSet::new();
        if let Some(service) = service {
            for frontend in frontends(service, &self.here) {
                let owner = frontend.key();
                old.remove(&owner);
                new.insert(owner);
                self.switched.set(owner, Arc::new(frontend.content(service.affinity)));
            }
        }
        for frontend in old {
            self.switched.remove(frontend);
        }
        if !new.is_empty() {
            self.frontends.insert(key.clone(), new);
        }
    }

    /// A Service as this node has it.
    pub(crate) fn frontends<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Frontend<'a>> {
        frontends(service, &self.here)
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

/// A Service under one of its addresses and ports, as this node has it.
#[derive(Debug)]
pub struct Frontend<'a> {
    /// Where clients connect to.
    pub address: IpAddr,
    /// The port there.
    pub port: &'a ServicePort,
    /// It is an address of the load balancer, and none of the cluster.
    pub is_load_balancer: bool,
    /// The backends that this node uses, all of the address's family: a socket cannot change it.
    pub backends: Vec<&'a Backend>,
}

impl Frontend<'_> {
    fn key(&self) -> ServiceKey {
        let ServicePort { port, protocol, .. } = self.port;
        ServiceKey { address: self.address.into(), port: NetPort(*port), protocol: *protocol }
    }

    fn content(&self, affinity: u32) -> Content {
        let entry = |it: &&Backend| BackendEntry { address: it.address.into(), port: NetPort(it.port) };
        Content { affinity, backends: self.backends.iter().map(entry).collect() }
    }
}

fn frontends<'a>(service: &'a Service, here: &'a Here) -> impl Iterator<Item = Frontend<'a>> {
    let cluster = service.cluster_ips.iter().map(|address| (*address, false));
    let load_balancer = service.load_balancer.iter().map(|address| (*address, true));
    cluster.chain(load_balancer).flat_map(move |(address, is_load_balancer)| {
        service.ports.iter().map(move |port| {
            let all = port.backends.iter().filter(|it| it.address.is_ipv4() == address.is_ipv4()).collect();
            let only_own = service.local && !is_load_balancer;
            let backends = if only_own { own(all, here) } else { near(healthy(all), here) };
            Frontend { address, port, is_load_balancer, backends }
        })
    })
}

/// Without those on their way out, unless there is nothing else.
fn healthy(all: Vec<&Backend>) -> Vec<&Backend> {
    let is_leaving = |backend: &&Backend| backend.place.as_ref().is_some_and(|place| place.leaving);
    if all.iter().all(is_leaving) { all } else { all.into_iter().filter(|it| !is_leaving(it)).collect() }
}

/// Those of this node (Kubernetes API, `internalTrafficPolicy`).
fn own<'a>(all: Vec<&'a Backend>, here: &Here) -> Vec<&'a Backend> {
    let is_own = |backend: &&Backend| backend.place.as_ref().is_some_and(|place| place.node == here.node);
    healthy(all.into_iter().filter(is_own).collect())
}

/// Those that are meant for this node, or else for its zone. Hints count when every backend has them and one of them is for this
/// node; otherwise all are used (Kubernetes API, EndpointSlice, `hints`).
fn near<'a>(all: Vec<&'a Backend>, here: &Here) -> Vec<&'a Backend> {
    let hinted = |names: fn(&BackendPlace) -> &[String], own: &str| {
        let of = |backend: &&'a Backend| backend.place.as_deref().map_or(&[][..], names);
        let found: Vec<_> = all.iter().copied().filter(|it| of(it).iter().any(|name| name == own)).collect();
        (!found.is_empty() && all.iter().all(|it| !of(it).is_empty())).then_some(found)
    };
    let for_node = hinted(|place| &place.for_nodes, &here.node);
    for_node.or_else(|| hinted(|place| &place.for_zones, &here.zone)).unwrap_or(all)
}
