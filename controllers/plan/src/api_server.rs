//! Where the API server is: on nodes, or outside of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Address, Part, PartKey};
use cilium_core::{Families, Labels, reserved};
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

/// Number and labels of an API server's address outside of the cluster. Each address family has a world of its own.
fn identity(families: Families, address: IpAddr) -> (u32, Labels) {
    let is_second = families == Families::Dual && address.is_ipv6();
    let number = reserved::FIRST_LOCAL + u32::from(is_second);
    (number, reserved::external_api_server_labels(families, address))
}

impl Planner {
    /// Makes nodes and addresses follow where the API server is.
    pub(crate) fn follow_api_server(&mut self) {
        if !std::mem::take(&mut self.api_server.dirty) {
            return;
        }
        let mut outside = self.api_server.addresses.clone();
        let mut moved = Vec::new();
        for (name, entry) in self.nodes.iter_mut() {
            let own: Vec<IpAddr> = entry.object.iter().flat_map(|object| object.addresses()).collect();
            let runs = own.iter().any(|address| self.api_server.addresses.contains(address));
            outside.retain(|address| !own.contains(address));
            if entry.api_server != runs {
                entry.api_server = runs;
                moved.push(name.clone());
            }
        }
        for name in &moved {
            self.set_node_part(name);
            self.put_all_policy_parts(name);
        }
        outside.retain(|address| !self.endpoints.addresses.contains(address));
        self.set_external(&outside);
    }

    fn set_external(&mut self, outside: &BTreeSet<IpAddr>) {
        let families = self.config.families();
        let identities: BTreeMap<u32, Labels> =
            outside.iter().map(|address| identity(families, *address)).collect();
        let external = outside.iter().map(|address| (*address, identity(families, *address).0)).collect();
        let before = std::mem::replace(&mut self.api_server.external, external);
        for number in [reserved::FIRST_LOCAL, reserved::FIRST_LOCAL + 1] {
            self.set_known(number, identities.get(&number).cloned());
        }
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
