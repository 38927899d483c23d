//! What became of a policy, and which node answers for an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::l2_announcement_policy::{AnnouncedAddress, MAX_ADDRESSES, MAX_SERVICES};

use crate::l2::{Known, L2};
use crate::order::NodeName;
use crate::policy::Policy;

/// What a policy reaches, as of the last plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach<'a> {
    /// Services that it selects.
    pub services: usize,
    /// Addresses of theirs that it announces.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// Those of them that are a node's own, and so nobody's to announce.
    pub taken: Vec<IpAddr>,
    /// Others that no node can announce.
    pub unowned: Vec<IpAddr>,
    /// Nodes that it selects and that have a device for it, as far as is known.
    pub nodes: usize,
    /// Nodes that it selects and that have none, in order.
    pub deviceless: Vec<&'a str>,
    /// Nodes that own any of the addresses, in order.
    pub owners: BTreeSet<&'a str>,
}

impl L2 {
    /// A policy that is there.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name).map(|known| &known.policy)
    }

    /// What a policy that is there reaches.
    pub fn reach(&self, name: &str) -> Option<Reach<'_>> {
        let known = self.policies.get(name)?;
        let owners = |address: &IpAddr| self.addresses.get(address).map_or(&[][..], |it| &it.plan.owners);
        let all: BTreeSet<&NodeName> = known.addresses.iter().flat_map(owners).collect();
        let unowned = known.addresses.iter().copied().filter(|address| owners(address).is_empty());
        let (taken, unowned) = unowned.partition(|address| self.own.contains_key(address));
        Some(Reach {
            services: known.services.len(),
            addresses: &known.addresses,
            taken,
            unowned,
            nodes: known.nodes.len(),
            deviceless: known.deviceless.iter().map(|node| &*node.name).collect(),
            owners: all.into_iter().map(|node| &*node.name).collect(),
        })
    }

    /// The first of a policy's addresses, with who answers, as they stand in its status.
    pub fn announced(&self, name: &str) -> Vec<AnnouncedAddress> {
        let addresses = self.policies.get(name).into_iter().flat_map(|known: &Known| &known.addresses);
        let announced = addresses.take(MAX_ADDRESSES).map(|address| AnnouncedAddress {
            address: address.to_string(),
            node: self.answers(*address).map(str::to_owned),
            services: self.services_of(*address).iter().take(MAX_SERVICES).cloned().collect(),
        });
        announced.collect()
    }

    /// The node that answers for an address: the first owner that lives, as far as the others can tell.
    pub fn answers(&self, address: IpAddr) -> Option<&str> {
        let owners = &self.addresses.get(&address)?.plan.owners;
        owners.iter().find(|owner| !self.is_silent(owner, owners)).map(|owner| &*owner.name)
    }

    /// More than half of the other owners do not hear it. With as many against as for it, it counts as alive: it may be the others that are
    /// cut off.
    fn is_silent(&self, owner: &NodeName, owners: &[NodeName]) -> bool {
        let others = owners.iter().filter(|other| *other != owner);
        let is_deaf = |other: &&NodeName| {
            self.nodes.get(&*other.name).is_some_and(|node| node.silent.contains(&*owner.name))
        };
        others.clone().filter(is_deaf).count() * 2 > others.count()
    }

    fn services_of(&self, address: IpAddr) -> &[String] {
        self.addresses.get(&address).map_or(&[], |known| &known.plan.services)
    }

    /// Policies that let a node announce.
    pub fn policies_on(&self, node: &str) -> impl Iterator<Item = &Arc<str>> {
        let node = NodeName::new(node);
        self.policies.iter().filter(move |(_, known)| known.nodes.contains(&node)).map(|(name, _)| name)
    }
}
