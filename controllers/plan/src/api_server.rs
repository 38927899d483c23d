//! Where the API server is: on nodes, or outside of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Address, Part, PartKey};
use cilium_services::ServiceName;

use crate::planner::Planner;

/// Addresses behind the Service `default/kubernetes`.
#[derive(Debug, Default)]
pub(crate) struct ApiServer {
    addresses: BTreeSet<IpAddr>,
    /// Those that are neither a node's nor a pod's, with their identities.
    external: BTreeMap<IpAddr, u32>,
    /// Something that decides where they are has changed.
    dirty: bool,
}

impl ApiServer {
    /// The Service that Kubernetes keeps for its own API server.
    pub(crate) fn service() -> ServiceName {
        ServiceName::new("default", "kubernetes")
    }

    pub(crate) fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.dirty |= self.addresses != addresses;
        self.addresses = addresses;
    }

    pub(crate) fn nodes_changed(&mut self) {
        self.dirty = true;
    }

    /// A pod got or lost this address.
    pub(crate) fn address_changed(&mut self, address: IpAddr) {
        self.dirty |= self.addresses.contains(&address);
    }

    /// Addresses outside of the cluster, with their identities.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn external(&self) -> &BTreeMap<IpAddr, u32> {
        &self.external
    }
}

impl Planner {
    /// Makes nodes and addresses follow where the API server is.
    pub(crate) fn follow_api_server(&mut self) {
        if !std::mem::take(&mut self.api_server.dirty) {
            return;
        }
        let mut outside = self.api_server.addresses.clone();
        let mut moved = Vec::new();
        for (name, entry) in self.nodes.iter() {
            let own: Vec<IpAddr> = entry.object.iter().flat_map(|object| object.addresses()).collect();
            let runs = own.iter().any(|address| self.api_server.addresses.contains(address));
            outside.retain(|address| !own.contains(address));
            if entry.api_server != runs {
                moved.push(name.clone());
            }
        }
        for name in &moved {
            let entry = self.node_mut(name);
            entry.api_server = !entry.api_server;
        }
        for name in &moved {
            self.set_node_part(name);
            self.put_all_policy_parts(name);
        }
        outside.retain(|address| !self.endpoints.addresses.contains(address));
        self.set_external(&outside);
    }

    fn set_external(&mut self, outside: &BTreeSet<IpAddr>) {
        self.prefixes.set_api_servers(outside);
        self.follow_prefixes();
        let numbered = outside.iter().filter_map(|it| Some((*it, self.prefixes.number_of(*it)?)));
        let before = std::mem::replace(&mut self.api_server.external, numbered.collect());
        // An address that a pod has now is the pod's.
        let gone = before.keys().filter(|address| !outside.contains(address));
        for address in gone.filter(|address| !self.endpoints.addresses.contains(address)) {
            self.shared.set(&PartKey::address(*address), None);
        }
        for (address, number) in &self.api_server.external {
            let part = Part::Address(Address { identity: *number, node: None });
            self.shared.set(&PartKey::address(*address), Some(&part));
        }
    }
}
