//! A Service as one node has it: under which addresses and ports, and with which backends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::parts::{Backend, BackendPlace, Service, ServicePort};

/// What decides which backends are near, and which addresses are the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Name of the node.
    pub node: String,
    /// Its zone; empty when it is in none.
    pub zone: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
}

/// Who meets a Service under a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Sockets of pods and of the node itself.
    Internal,
    /// Packets that reach the node from the network.
    External,
}

/// What the address of a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendKind {
    /// A cluster address (Kubernetes API, `clusterIPs`).
    ClusterIp,
    /// Every address of a node, with a port of its own (Kubernetes API, `nodePort`).
    NodePort,
    /// An address of the load balancer (Kubernetes API, `status.loadBalancer.ingress`).
    LoadBalancer,
    /// An address that the network brings to nodes (Kubernetes API, `externalIPs`).
    ExternalIp,
}

/// A Service under one of its addresses and ports, for one scope.
#[derive(Debug)]
pub struct Frontend<'a> {
    /// Where clients connect to. Of a [`FrontendKind::NodePort`] the unspecified address of the family, which stands for every address
    /// of a node.
    pub address: IpAddr,
    /// The port there: the Service's, or the one of nodes.
    pub port: u16,
    /// What the address is.
    pub kind: FrontendKind,
    /// For whom it is.
    pub scope: Scope,
    /// The port of the Service, with its protocol and name.
    pub service_port: &'a ServicePort,
    /// The backends that the node uses, all of the address's family: a socket cannot change it.
    pub backends: Vec<&'a Backend>,
    /// The node uses none but its own backends, also when it has none: what comes is then dropped and not refused, as another node may
    /// have one.
    pub only_own: bool,
}

impl Service {
    /// The Service as a node has it: one entry for each of its addresses and ports, and for each scope. Those of one address and port
    /// that differ in their scope alone follow each other.
    ///
    /// Cluster addresses are for the inside only. An external address that is not the node's own is for the outside only: otherwise, whoever
    /// may write a Service could take any address over from within the cluster. What pods and nodes send to a port of nodes, to the load
    /// balancer or to an external address counts as traffic of the cluster, of which all backends are used whatever the policies say.
    pub fn frontends<'a>(&'a self, here: &'a Here) -> impl Iterator<Item = Frontend<'a>> {
        self.addresses().flat_map(move |(kind, address)| {
            self.ports.iter().flat_map(move |service_port| {
                let port =
                    if kind == FrontendKind::NodePort { service_port.node_port } else { service_port.port };
                let scopes = if port == 0 { &[] } else { kind.scopes(here.addresses.contains(&address)) };
                scopes.iter().map(move |scope| {
                    let only_own = self.uses_only_own(kind, *scope);
                    let backends = used(service_port, address, only_own, here);
                    Frontend { address, port, kind, scope: *scope, service_port, backends, only_own }
                })
            })
        })
    }

    /// One that is the load balancer's and external is the load balancer's.
    fn addresses(&self) -> impl Iterator<Item = (FrontendKind, IpAddr)> {
        let has_family = |all: &IpAddr| self.cluster_ips.iter().any(|ip| ip.is_ipv4() == all.is_ipv4());
        let nodes = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let nodes = nodes.into_iter().filter(has_family);
        let external = self.external.iter().filter(|ip| !self.load_balancer.contains(ip));
        let cluster = self.cluster_ips.iter().map(|ip| (FrontendKind::ClusterIp, *ip));
        cluster
            .chain(nodes.map(|ip| (FrontendKind::NodePort, ip)))
            .chain(self.load_balancer.iter().map(|ip| (FrontendKind::LoadBalancer, *ip)))
            .chain(external.map(|ip| (FrontendKind::ExternalIp, *ip)))
            .filter(|(kind, _)| {
                *kind == FrontendKind::ExternalIp || self.only.is_none_or(|only| only == *kind)
            })
    }

    fn uses_only_own(&self, kind: FrontendKind, scope: Scope) -> bool {
        match (scope, kind) {
            (Scope::Internal, FrontendKind::ClusterIp) => self.local,
            (Scope::Internal, _) => false,
            (Scope::External, _) => self.external_local,
        }
    }
}

impl FrontendKind {
    fn scopes(self, is_own: bool) -> &'static [Scope] {
        match self {
            Self::ClusterIp => &[Scope::Internal],
            Self::ExternalIp if !is_own => &[Scope::External],
            Self::NodePort | Self::LoadBalancer | Self::ExternalIp => &[Scope::Internal, Scope::External],
        }
    }
}

/// Backends of a port that a node uses under an address.
fn used<'a>(port: &'a ServicePort, address: IpAddr, only_own: bool, here: &Here) -> Vec<&'a Backend> {
    let all = port.backends.iter().filter(|it| it.address.is_ipv4() == address.is_ipv4()).collect();
    if only_own { own(all, here) } else { near(healthy(all), here) }
}

/// Without those on their way out, unless there is nothing else.
fn healthy(all: Vec<&Backend>) -> Vec<&Backend> {
    let is_leaving = |backend: &&Backend| backend.place.as_ref().is_some_and(|place| place.leaving);
    if all.iter().all(is_leaving) { all } else { all.into_iter().filter(|it| !is_leaving(it)).collect() }
}

/// Those of this node (Kubernetes API, `internalTrafficPolicy`, `externalTrafficPolicy`).
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
