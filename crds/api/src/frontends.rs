//! A Service as one node has it: under which addresses and ports, and with which backends.

use std::net::IpAddr;

use crate::parts::{Backend, BackendPlace, Service, ServicePort};

/// What decides which backends are near.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Name of the node.
    pub node: String,
    /// Its zone; empty when it is in none.
    pub zone: String,
}

/// A Service under one of its addresses and ports.
#[derive(Debug)]
pub struct Frontend<'a> {
    /// Where clients connect to.
    pub address: IpAddr,
    /// The port there.
    pub port: &'a ServicePort,
    /// It is an address of the load balancer, and none of the cluster.
    pub is_load_balancer: bool,
    /// The backends that the node uses, all of the address's family: a socket cannot change it.
    pub backends: Vec<&'a Backend>,
}

impl Service {
    /// The Service as a node has it: one entry for each of its addresses and ports.
    pub fn frontends<'a>(&'a self, here: &'a Here) -> impl Iterator<Item = Frontend<'a>> {
        let cluster = self.cluster_ips.iter().map(|address| (*address, false));
        let load_balancer = self.load_balancer.iter().map(|address| (*address, true));
        cluster.chain(load_balancer).flat_map(move |(address, is_load_balancer)| {
            self.ports.iter().map(move |port| {
                let all = port.backends.iter();
                let all = all.filter(|it| it.address.is_ipv4() == address.is_ipv4()).collect();
                let only_own = self.local && !is_load_balancer;
                let backends = if only_own { own(all, here) } else { near(healthy(all), here) };
                Frontend { address, port, is_load_balancer, backends }
            })
        })
    }
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
