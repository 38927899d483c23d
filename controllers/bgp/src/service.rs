//! A Service, reduced to what can change an outcome. It comes in two halves, which change apart.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_api::frontends::FrontendKind;
use cilium_api::{parts, slim};
use cilium_core::Labels;
use cilium_services::{BGP_CLASS, own_nodes, selectable_labels};

/// What advertisements select a Service by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its own, and its name and namespace.
    pub(crate) labels: Labels,
    /// Addresses of its load balancer are for BGP: it is of that class, or of none.
    pub(crate) is_ours: bool,
}

impl Claim {
    /// Reads a Service.
    pub fn reduce(service: &slim::Service) -> Self {
        let is_ours = service.spec.load_balancer_class.as_deref().is_none_or(|class| class == BGP_CLASS);
        Self { labels: selectable_labels(service), is_ours }
    }
}

/// Where nodes serve a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub(crate) cluster: Vec<IpAddr>,
    pub(crate) load_balancer: Vec<IpAddr>,
    pub(crate) external: Vec<IpAddr>,
    /// Nodes use their own backends only for what comes to cluster addresses.
    pub(crate) is_local: bool,
    /// The same of other addresses.
    pub(crate) is_external_local: bool,
    ipv4: Backends,
    ipv6: Backends,
}

/// Backends of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Backends {
    /// There are some.
    any: bool,
    /// Where, if it matters.
    nodes: BTreeSet<String>,
}

impl Served {
    /// Reads the part that nodes have of a Service: what they do not serve is not advertised.
    pub fn reduce(part: &parts::Service) -> Self {
        // An annotation may leave kinds of addresses out (`service.cilium.io/type`).
        let of_kind = |kind, addresses: &Vec<IpAddr>| {
            if part.only.is_none_or(|only| only == kind) { addresses.clone() } else { Vec::new() }
        };
        let by_node = part.local || part.external_local;
        let backends = |ipv4| Backends {
            any: part.ports.iter().flat_map(|port| &port.backends).any(|it| it.address.is_ipv4() == ipv4),
            nodes: if by_node { own_nodes(part, ipv4) } else { BTreeSet::new() },
        };
        Self {
            cluster: of_kind(FrontendKind::ClusterIp, &part.cluster_ips),
            load_balancer: of_kind(FrontendKind::LoadBalancer, &part.load_balancer),
            external: part.external.clone(),
            is_local: part.local,
            is_external_local: part.external_local,
            ipv4: backends(true),
            ipv6: backends(false),
        }
    }

    fn backends(&self, address: IpAddr) -> &Backends {
        if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 }
    }

    /// Whether there is a backend for what comes to an address.
    pub(crate) fn has_backends(&self, address: IpAddr) -> bool {
        self.backends(address).any
    }

    /// Nodes with a backend of their own for what comes to an address.
    pub(crate) fn nodes(&self, address: IpAddr) -> &BTreeSet<String> {
        &self.backends(address).nodes
    }

    /// Whether it matters which nodes advertise.
    pub(crate) fn goes_by_node(&self) -> bool {
        self.is_local || self.is_external_local
    }
}
