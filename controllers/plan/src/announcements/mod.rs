//! CiliumL2AnnouncementPolicies: what `cilium_l2` decides, as parts of nodes.
//!
//! | module | what it decides |
//! |---|---|
//! | `status` | what the author of a policy is told |

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::CiliumL2AnnouncementPolicy;
use cilium_api::l2_announcement_policy::L2AnnouncementStatus;
use cilium_api::parts::{self, Part, PartKey};
use cilium_api::slim;
use cilium_core::Label;
use cilium_l2::{Claim, L2, Policy, Served};
use cilium_services::ServiceName;

use crate::config::Config;
use crate::delayed::Delayed;
use crate::ledger::Ledger;
use crate::node::Token;
use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

pub(crate) use status::advise;

/// Policies, and who announces what.
#[derive(Debug)]
pub(crate) struct Announcements {
    /// `None`: the feature is off.
    l2: Option<L2>,
    pub(crate) statuses: Ledger<L2AnnouncementStatus>,
    /// `metadata.generation` of policies, where they have one.
    generations: BTreeMap<ObjectKey, i64>,
    delayed: Delayed,
}

fn policy_key(name: &str) -> ObjectKey {
    ObjectKey::cluster(Kind::L2AnnouncementPolicy, name)
}

impl Announcements {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            l2: config.l2_announcements.then(L2::default),
            statuses: Ledger::default(),
            generations: BTreeMap::new(),
            delayed: Delayed::default(),
        }
    }

    pub(crate) fn observe_policy(&mut self, policy: &CiliumL2AnnouncementPolicy) {
        let Some(l2) = &mut self.l2 else { return };
        let meta = &policy.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let key = policy_key(name);
        let status = policy.status.clone().unwrap_or_default();
        if !self.statuses.observe(&key, status, meta.resource_version.as_deref(), None) {
            return;
        }
        l2.set_policy(name, Some(Policy::reduce(policy)));
        match meta.generation.filter(|generation| *generation != 0) {
            Some(generation) => drop(self.generations.insert(key, generation)),
            None => drop(self.generations.remove(&key)),
        }
    }

    pub(crate) fn forget_policy(&mut self, key: &ObjectKey) {
        let Some(l2) = &mut self.l2 else { return };
        l2.set_policy(&key.name, None);
        self.statuses.forget(key);
        self.generations.remove(key);
        self.delayed.forget(key);
    }

    /// A Service is there: policies may select it.
    pub(crate) fn observe_service(&mut self, service: &slim::Service) {
        let Some(l2) = &mut self.l2 else { return };
        let meta = &service.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let name = ServiceName::new(namespace.unwrap_or_default(), name.unwrap_or_default());
        l2.set_claim(&name, Claim::reduce(service));
    }

    pub(crate) fn forget_service(&mut self, key: &ObjectKey) {
        if let Some(l2) = &mut self.l2 {
            l2.set_claim(&ServiceName::new(&key.namespace, &key.name), None);
        }
    }

    /// Nodes serve a Service so, or not at all.
    pub(crate) fn set_served(&mut self, service: &ServiceName, part: Option<&parts::Service>) {
        if let Some(l2) = &mut self.l2 {
            l2.set_served(service, part.map(Served::reduce));
        }
    }

    pub(crate) fn observe_node(&mut self, node: &slim::Node) {
        let Some(l2) = &mut self.l2 else { return };
        let labels = node.metadata.labels.iter().flatten().map(|(key, value)| Label::k8s(key, value));
        let name = node.metadata.name.as_deref().unwrap_or_default();
        l2.set_node(name, Some(labels.collect()));
        l2.set_addresses(name, node.status.addresses.iter().filter_map(|it| it.address.parse().ok()));
    }

    pub(crate) fn forget_node(&mut self, name: &str) {
        if let Some(l2) = &mut self.l2 {
            l2.set_node(name, None);
            l2.set_addresses(name, []);
        }
    }

    /// Policies that an address belongs to, or that may let a node announce.
    fn policies(&self, of: impl Fn(&L2) -> Vec<Arc<str>>) -> Vec<Arc<str>> {
        self.l2.as_ref().map(of).unwrap_or_default()
    }

    /// What the parts of a node have to be.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn expected(&self, node: &str) -> BTreeMap<PartKey, Part> {
        let part = |l2: &L2, address| {
            let part = l2.announcement(address, node)?;
            Some((PartKey::announcement(address), Part::Announcement(part)))
        };
        self.l2.iter().flat_map(|l2| l2.owned_by(node).filter_map(|address| part(l2, address))).collect()
    }

    /// What must hold after every plan, and does not.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) -> Vec<String> {
        self.l2.as_ref().map(L2::check).unwrap_or_default()
    }
}

impl Planner {
    /// The agent of a node may say something new of its devices, and of whom it hears.
    pub(crate) fn follow_heard(&mut self, node: &str) {
        let Some(l2) = &mut self.announcements.l2 else { return };
        let applied = self.nodes.get(node).and_then(|entry| entry.state.applied());
        let (devices, silent) = applied.map_or((&[][..], &[][..]), |it| (&it.devices, &it.silent));
        l2.set_heard(node, devices, silent);
    }

    /// Makes the parts of nodes follow policies, Services and nodes.
    pub(crate) fn follow_announcements(&mut self) {
        let Some(l2) = &mut self.announcements.l2 else { return };
        let changes = l2.plan();
        let mut awaited: BTreeSet<(Arc<str>, &Arc<str>)> = BTreeSet::new();
        for (address, nodes) in &changes.parts {
            let key = PartKey::announcement(*address);
            for node in nodes {
                let part = l2.announcement(*address, node).map(Part::Announcement);
                if self.nodes.entry(node).state.set(&key, part.as_ref()) {
                    awaited.extend(l2.policies_of(*address).map(|policy| (node.clone(), policy)));
                }
            }
        }
        for (node, policy) in awaited {
            self.nodes.entry(&node).state.await_token(Token::Announcements(policy.clone()));
        }
        changes.policies.iter().for_each(|name| self.announcements.statuses.touch(policy_key(name)));
    }

    /// A node says something new about an address, or about all of its own.
    pub(crate) fn touch_announcement_report(&mut self, node: &str, part: &str) {
        if is_of_all(part) {
            return self.touch_announcements_of(node);
        }
        let address = part.strip_prefix("announcement/").and_then(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address else { return };
        let policies = self.announcements.policies(|l2| l2.policies_of(address).cloned().collect());
        self.touch_announcements(&policies);
    }

    /// A node says something new that may concern all of its addresses.
    pub(crate) fn touch_announcements_of(&mut self, node: &str) {
        let policies = self.announcement_policies_on(node);
        self.touch_announcements(&policies);
    }

    /// Policies that may let a node announce.
    pub(crate) fn announcement_policies_on(&self, node: &str) -> Vec<Arc<str>> {
        self.announcements.policies(|l2| l2.policies_on(node).cloned().collect())
    }

    fn touch_announcements(&mut self, policies: &[Arc<str>]) {
        policies.iter().for_each(|name| self.announcements.statuses.touch(policy_key(name)));
    }

    /// A node has in force what it was told of a policy.
    pub(crate) fn touch_announcement_status(&mut self, policy: &str) {
        self.announcements.statuses.touch(policy_key(policy));
    }
}

/// Whether what a node says of an object is about all of its addresses: the key, the device, a table, or what policies say of devices.
fn is_of_all(object: &str) -> bool {
    ["announcements", "groups"].contains(&object) || object.starts_with("expression ")
}
