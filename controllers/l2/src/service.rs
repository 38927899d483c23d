//! A Service, reduced to what can change an outcome. It comes in two halves, which change apart.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_api::frontends::FrontendKind;
use cilium_api::{parts, slim};
use cilium_core::Labels;
use cilium_services::{L2_CLASS, own_nodes, selectable_labels};

/// What policies select a Service by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its own, and its name and namespace.
    pub(crate) labels: Labels,
}

impl Claim {
    /// Reads a Service; `None` if its `loadBalancerClass` is another controller's.
    pub fn reduce(service: &slim::Service) -> Option<Self> {
        if service.spec.load_balancer_class.as_deref().is_some_and(|class| class != L2_CLASS) {
            return None;
        }
        Some(Self { labels: selectable_labels(service) })
    }
}

/// Where nodes serve a Service for clients outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Addresses of the load balancer.
    pub(crate) load_balancer: Vec<IpAddr>,
    /// External addresses.
    pub(crate) external: Vec<IpAddr>,
    /// With `externalTrafficPolicy: Local`, the nodes that have backends.
    local: Option<Local>,
}

/// Names of nodes, by family of the backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Local {
    ipv4: BTreeSet<String>,
    ipv6: BTreeSet<String>,
}

impl Served {
    /// Reads the part that nodes have of a Service: what they do not serve is not announced.
    pub fn reduce(part: &parts::Service) -> Self {
        // An annotation may leave addresses of the load balancer out (`service.cilium.io/type`).
        let is_balanced = part.only.is_none_or(|only| only == FrontendKind::LoadBalancer);
        let load_balancer = if is_balanced { part.load_balancer.clone() } else { Vec::new() };
        let local =
            part.external_local.then(|| Local { ipv4: own_nodes(part, true), ipv6: own_nodes(part, false) });
        Self { load_balancer, external: part.external.clone(), local }
    }

    /// Nodes use their own backends only.
    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Whether a node has a backend for what comes to an address, if it needs one of its own.
    pub(crate) fn serves_on(&self, node: &str, address: IpAddr) -> bool {
        let of_family = |local: &'_ Local| match address {
            IpAddr::V4(_) => local.ipv4.contains(node),
            IpAddr::V6(_) => local.ipv6.contains(node),
        };
        self.local.as_ref().is_none_or(of_family)
    }
}
