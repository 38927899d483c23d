//! Nodes: their addresses, their pods' prefixes, and how to get there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::parts::Node;
use cilium_bpf::layout::{Addr, IpcacheEntry, IpcacheKey};
use ipnet::IpNet;

use crate::{Config, Route};

/// Identity of a node's own addresses, on the node itself.
const HOST: u32 = 1;
/// Identity of another node.
const REMOTE_NODE: u32 = 6;
/// Identity of another node with an API server.
const KUBE_APISERVER: u32 = 7;

/// The address that pods of a prefix have as their next hop: the first after the prefix's own.
pub fn router_address(prefix: IpNet) -> Option<IpAddr> {
    let network = prefix.network();
    let router = match network {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).checked_add(1)?.into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).checked_add(1)?.into()),
    };
    prefix.contains(&router).then_some(router)
}

/// Router addresses of a node: those that its part names, or else one for each prefix.
pub fn routers(node: &Node, prefixes: &[IpNet]) -> Vec<IpAddr> {
    if node.routers.is_empty() {
        prefixes.iter().filter_map(|prefix| router_address(*prefix)).collect()
    } else {
        node.routers.clone()
    }
}

/// A node part with its text parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) prefixes: Vec<IpNet>,
    routers: Vec<IpAddr>,
    api_server: bool,
    identity: Option<u32>,
}

impl NodeFacts {
    /// Prefixes that cannot be read are left out and named.
    pub(crate) fn new(node: &Node) -> (Self, Vec<String>) {
        let (mut prefixes, mut unreadable) = (Vec::new(), Vec::new());
        for text in &node.pod_cidrs {
            match text.parse::<IpNet>() {
                Ok(prefix) => prefixes.push(prefix.trunc()),
                Err(_) => {
                    unreadable.push(format!("{text:?} is no prefix: pods of this prefix are not reachable"));
                }
            }
        }
        let &Node { api_server, identity, .. } = node;
        let routers = routers(node, &prefixes);
        (Self { addresses: node.addresses.clone(), prefixes, routers, api_server, identity }, unreadable)
    }

    fn first(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == v4).copied()
    }

    /// Where other nodes send packets for this node's pods to.
    pub(crate) fn tunnel_endpoint(&self) -> Option<IpAddr> {
        self.first(true).or_else(|| self.first(false))
    }

    /// Router addresses.
    pub(crate) fn routers(&self) -> impl Iterator<Item = IpAddr> {
        self.routers.iter().copied()
    }

    /// The router address of a family.
    pub(crate) fn router(&self, v4: bool) -> Option<IpAddr> {
        self.routers().find(|router| router.is_ipv4() == v4)
    }

    /// What the ipcache says of the node itself, and in tunnel mode of its pods' prefixes: a pod whose own address has not
    /// arrived yet is reached through the tunnel and has no identity of its own.
    pub(crate) fn entries(&self, config: &Config, own: bool) -> BTreeMap<IpcacheKey, IpcacheEntry> {
        let identity = match (own, self.api_server) {
            (true, _) => HOST,
            (false, true) => self.identity.unwrap_or(KUBE_APISERVER),
            (false, false) => self.identity.unwrap_or(REMOTE_NODE),
        };
        let tunnel = Addr::from(self.tunnel_endpoint().filter(|_| config.tunnel && !own));
        let host = |address: IpAddr| IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
        let mut entries = BTreeMap::new();
        if tunnel != Addr::NONE {
            for prefix in &self.prefixes {
                let identity = if prefix.addr().is_ipv4() { config.world4 } else { config.world6 };
                let key = IpcacheKey::new(prefix.addr(), prefix.prefix_len());
                entries.insert(key, IpcacheEntry { tunnel, identity });
            }
        }
        let others: &[IpAddr] = if own { &config.other_addresses } else { &[] };
        for address in self.addresses.iter().chain(others).copied().chain(self.routers()) {
            entries.insert(host(address), IpcacheEntry { tunnel, identity });
        }
        entries
    }

    /// Routes of this node to the pods of that one. Without an address of the right family there is none.
    pub(crate) fn routes(&self, config: &Config, own: &NodeFacts) -> Vec<(IpNet, Route)> {
        let route = |prefix: &IpNet| {
            let v4 = prefix.addr().is_ipv4();
            let route = if config.tunnel {
                let source = own.router(v4);
                Route { device: config.devices.host, via: None, source, mtu: Some(config.route_mtu) }
            } else {
                let via = Some(self.first(v4)?);
                Route { device: config.devices.native, via, source: None, mtu: None }
            };
            Some((*prefix, route))
        };
        let wanted = config.tunnel || config.direct_routes;
        self.prefixes.iter().filter(|_| wanted).filter_map(route).collect()
    }
}
