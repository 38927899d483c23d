//! Who announces what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cilium_api::parts::Announcement;
use cilium_core::Labels;
use cilium_services::ServiceName;

use crate::order::{NodeName, Order};
use crate::policy::Policy;
use crate::service::{Claim, Served};

/// Name of a policy.
type PolicyName = Arc<str>;

/// A policy, and what it reaches.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) policy: Policy,
    /// Services that it selects, with or without addresses.
    pub(crate) services: BTreeSet<ServiceName>,
    /// Nodes that it selects and that have a device for it.
    pub(crate) nodes: BTreeSet<NodeName>,
    /// Nodes that it selects and that have none.
    pub(crate) deviceless: BTreeSet<NodeName>,
    /// Addresses that it announces, as of the last plan.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// A Service. Either half may come first.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// `None`: there is no Service, or it is another controller's.
    claim: Option<Claim>,
    /// `None`: nodes do not serve it.
    served: Option<Served>,
    /// Its addresses that are announced, each with the policies that say so, as of the last plan.
    selected: Selected,
}

type Selected = BTreeMap<IpAddr, BTreeSet<PolicyName>>;

/// A node. Its labels and what its agent says come apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// `None`: there is no Node.
    labels: Option<Labels>,
    /// Names of devices; none: they are not known.
    devices: Vec<String>,
    /// Names of nodes that it does not hear.
    pub(crate) silent: BTreeSet<String>,
    /// Its own.
    addresses: BTreeSet<IpAddr>,
}

/// What a policy makes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may announce.
    Member,
    /// It would, and has no device for it.
    Deviceless,
    /// It is not selected.
    Stranger,
}

/// An address that is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    users: BTreeSet<ServiceName>,
    pub(crate) plan: Plan,
}

/// What is decided about an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In their order.
    pub(crate) owners: Vec<NodeName>,
    /// Expressions for devices of each owner.
    interfaces: Vec<Vec<String>>,
    /// As `namespace/name`.
    pub(crate) services: Vec<String>,
    pub(crate) policies: BTreeSet<PolicyName>,
}

/// What one plan has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses, in order, each with the nodes whose part is another one now, or none.
    pub parts: Vec<(IpAddr, BTreeSet<Arc<str>>)>,
    /// Policies of which there is something else to say.
    pub policies: BTreeSet<Arc<str>>,
}

/// All policies, Services and nodes.
///
/// # Expected flow
/// Feed objects as they are, then [`L2::plan`], and give the nodes that it names their [`L2::announcement`].
#[derive(Clone, Debug, Default)]
pub struct L2 {
    pub(crate) policies: BTreeMap<PolicyName, Known>,
    services: BTreeMap<ServiceName, Entry>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) addresses: BTreeMap<IpAddr, Address>,
    /// Nodes by their own addresses, which nobody announces: otherwise, whoever may write a Service could take a node off its network.
    pub(crate) own: BTreeMap<IpAddr, BTreeSet<String>>,
    dirty_services: BTreeSet<ServiceName>,
    dirty_addresses: BTreeSet<IpAddr>,
    touched: BTreeSet<PolicyName>,
}

impl L2 {
    /// Takes a policy as it is now; `None` if it is gone.
    pub fn set_policy(&mut self, name: &str, policy: Option<Policy>) {
        let before = self.policies.get(name);
        if before.map(|known| &known.policy) == policy.as_ref() {
            return;
        }
        let mut addresses = BTreeSet::new();
        if let Some(before) = self.policies.remove(name) {
            self.dirty_services.extend(before.services);
            addresses = before.addresses;
        }
        self.dirty_addresses.extend(&addresses);
        let name: PolicyName = name.into();
        if let Some(policy) = policy {
            let (services, nodes, deviceless) = self.reached(&policy);
            self.dirty_services.extend(services.iter().cloned());
            self.policies.insert(name.clone(), Known { policy, services, nodes, deviceless, addresses });
        }
        self.touched.insert(name);
    }

    /// Takes what selects a Service, as it is now; `None` if it is gone, or another controller's.
    pub fn set_claim(&mut self, service: &ServiceName, claim: Option<Claim>) {
        if self.services.get(service).and_then(|entry| entry.claim.as_ref()) == claim.as_ref() {
            return;
        }
        for (name, known) in &mut self.policies {
            let changed = if is_selected(&known.policy, claim.as_ref()) {
                known.services.insert(service.clone())
            } else {
                known.services.remove(service)
            };
            if changed {
                self.touched.insert(name.clone());
                self.dirty_services.insert(service.clone());
            }
        }
        self.services.entry(service.clone()).or_default().claim = claim;
        self.drop_service(service);
    }

    /// Takes where nodes serve a Service, as it is now; `None` if they do not.
    pub fn set_served(&mut self, service: &ServiceName, served: Option<Served>) {
        if self.services.get(service).and_then(|entry| entry.served.as_ref()) == served.as_ref() {
            return;
        }
        self.services.entry(service.clone()).or_default().served = served;
        self.dirty_services.insert(service.clone());
    }

    /// Takes the labels of a node as they are now; `None` if it is gone.
    pub fn set_node(&mut self, node: &str, labels: Option<Labels>) {
        self.edit_node(node, |known| known.labels = labels);
    }

    /// Takes the own addresses of a node as they are now; none if it is gone.
    pub fn set_addresses(&mut self, node: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().collect();
        let known = self.nodes.entry(node.to_owned()).or_default();
        let before = std::mem::replace(&mut known.addresses, addresses);
        let after = known.addresses.clone();
        self.drop_node(node);
        for address in before.symmetric_difference(&after) {
            let nodes = self.own.entry(*address).or_default();
            if after.contains(address) {
                nodes.insert(node.to_owned());
            } else {
                nodes.remove(node);
            }
            if nodes.is_empty() {
                self.own.remove(address);
            }
            if let Some(announced) = self.addresses.get(address) {
                self.dirty_addresses.insert(*address);
                self.touched.extend(announced.plan.policies.iter().cloned());
            }
        }
    }

    /// Takes what the agent of a node says: names of the devices on which it can announce (none: they are not known), and of nodes that it
    /// does not hear.
    pub fn set_heard(&mut self, node: &str, devices: &[String], silent: &[String]) {
        let known = self.nodes.get(node);
        if known.is_some_and(|known| known.devices == devices && known.silent.iter().eq(silent))
            || (known.is_none() && devices.is_empty() && silent.is_empty())
        {
            return;
        }
        self.edit_node(node, |known| {
            known.devices = devices.to_vec();
            known.silent = silent.iter().cloned().collect();
        });
    }

    fn edit_node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let heard = node.silent.clone();
        edit(node);
        let hears_others = node.silent != heard;
        let node_name = NodeName::new(name);
        for (policy, known) in &mut self.policies {
            let before = known.standing(&node_name);
            let after = standing(&known.policy, node);
            if before != after {
                known.set_standing(&node_name, after);
                self.dirty_addresses.extend(&known.addresses);
            }
            if before != after || (hears_others && after == Standing::Member) {
                self.touched.insert(policy.clone());
            }
        }
        self.drop_node(name);
    }

    /// Decides anew where something changed since the last call.
    pub fn plan(&mut self) -> Changes {
        for service in std::mem::take(&mut self.dirty_services) {
            self.select(&service);
            self.drop_service(&service);
        }
        let mut parts = Vec::new();
        let mut order = Order::default();
        for address in std::mem::take(&mut self.dirty_addresses) {
            parts.extend(self.decide(address, &mut order).map(|nodes| (address, nodes)));
        }
        Changes { parts, policies: std::mem::take(&mut self.touched) }
    }

    /// The part of an address for one of its owners; `None` if the node is none.
    pub fn announcement(&self, address: IpAddr, node: &str) -> Option<Announcement> {
        let plan = &self.addresses.get(&address)?.plan;
        let at = plan.owners.iter().position(|owner| *owner.name == *node)?;
        Some(Announcement {
            owners: plan.owners.iter().map(|owner| owner.name.to_string()).collect(),
            interfaces: plan.interfaces[at].clone(),
            services: plan.services.clone(),
        })
    }

    /// Policies that announce an address, as of the last plan.
    pub fn policies_of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.addresses.get(&address).into_iter().flat_map(|known| &known.plan.policies)
    }

    /// Addresses that a node owns, as of the last plan.
    pub fn owned_by(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let is_owner = move |plan: &Plan| plan.owners.iter().any(|owner| *owner.name == *node);
        self.addresses.iter().filter(move |(_, known)| is_owner(&known.plan)).map(|(address, _)| *address)
    }

    /// Brings the addresses of a Service up to date.
    fn select(&mut self, service: &ServiceName) {
        let Some(entry) = self.services.get(service) else { return };
        let selected = self.selected(service, entry);
        let before =
            self.services.get_mut(service).map(|entry| std::mem::replace(&mut entry.selected, selected));
        let after = self.services.get(service).into_iter().flat_map(|entry| entry.selected.keys());
        let (before, after): (Vec<IpAddr>, Vec<IpAddr>) =
            (before.into_iter().flat_map(BTreeMap::into_keys).collect(), after.copied().collect());
        for address in before {
            self.dirty_addresses.insert(address);
            if let Some(known) = self.addresses.get_mut(&address) {
                known.users.remove(service);
            }
        }
        for address in after {
            self.dirty_addresses.insert(address);
            self.addresses.entry(address).or_default().users.insert(service.clone());
        }
    }

    fn selected(&self, service: &ServiceName, entry: &Entry) -> Selected {
        let mut selected = Selected::new();
        let Some(served) = &entry.served else { return selected };
        for (name, known) in self.policies.iter().filter(|(_, known)| known.services.contains(service)) {
            let balanced = served.load_balancer.iter().filter(|_| known.policy.load_balancer);
            let external = served.external.iter().filter(|_| known.policy.external);
            for address in balanced.chain(external) {
                selected.entry(*address).or_default().insert(name.clone());
            }
        }
        selected
    }

    /// Decides about an address. Gives the nodes whose part has changed, if anything has.
    fn decide(&mut self, address: IpAddr, order: &mut Order) -> Option<BTreeSet<Arc<str>>> {
        let plan = self.decided(address, order);
        let known = self.addresses.get_mut(&address);
        let before = known.map(|known| std::mem::take(&mut known.plan)).unwrap_or_default();
        for policy in before.policies.difference(&plan.policies) {
            if let Some(known) = self.policies.get_mut(policy) {
                known.addresses.remove(&address);
            }
        }
        for policy in &plan.policies {
            if let Some(known) = self.policies.get_mut(policy) {
                known.addresses.insert(address);
            }
        }
        let changed = plan != before;
        let nodes = before.owners.iter().chain(&plan.owners).map(|owner| owner.name.clone());
        let nodes = changed.then(|| nodes.collect());
        if changed {
            self.touched.extend(before.policies.iter().chain(&plan.policies).cloned());
        }
        match self.addresses.get_mut(&address) {
            Some(known) if known.users.is_empty() => drop(self.addresses.remove(&address)),
            Some(known) => known.plan = plan,
            None => {}
        }
        nodes
    }

    /// What is to be decided about an address.
    pub(crate) fn decided(&self, address: IpAddr, order: &mut Order) -> Plan {
        let Some(known) = self.addresses.get(&address) else { return Plan::default() };
        let users = known.users.iter().filter_map(|name| Some((name, self.services.get(name)?)));
        let policies: BTreeSet<PolicyName> = users
            .filter_map(|(_, entry)| entry.selected.get(&address))
            .flat_map(|policies| policies.iter().cloned())
            .collect();
        let is_own = self.own.contains_key(&address);
        let nodes = if is_own { Vec::new() } else { self.eligible(address, &known.users) };
        let owners = order.owners(address, &nodes);
        let interfaces = owners.iter().map(|owner| self.interfaces(&policies, owner)).collect();
        let services = known.users.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
        Plan { owners, interfaces, services, policies }
    }

    /// Nodes that may announce an address: those of any Service that has it. Services that need a backend of the node itself (`Local`) are
    /// better served by fewer: then only nodes that may announce it for each of the Services. Where there is no such node, no node can serve
    /// them all, and any of them is better than none. A Service that no node may announce at all has no say in this.
    fn eligible(&self, address: IpAddr, users: &BTreeSet<ServiceName>) -> Vec<&NodeName> {
        let entries = users.iter().filter_map(|name| self.services.get(name));
        let is_local = |entry: &&Entry| entry.served.as_ref().is_some_and(Served::is_local);
        let is_any_local = entries.clone().any(|entry| is_local(&entry));
        let mut of_services =
            entries.map(|entry| self.eligible_for(address, entry)).filter(|it| !it.is_empty());
        let Some(mut all) = of_services.next() else { return Vec::new() };
        let mut common = all.clone();
        for nodes in of_services {
            common.retain(|node| nodes.binary_search(node).is_ok());
            all.extend(nodes);
            all.sort_unstable();
            all.dedup();
        }
        if is_any_local && !common.is_empty() { common } else { all }
    }

    /// The same for one of the Services, in order.
    fn eligible_for<'a>(&'a self, address: IpAddr, entry: &Entry) -> Vec<&'a NodeName> {
        let (Some(served), Some(policies)) = (&entry.served, entry.selected.get(&address)) else {
            return Vec::new();
        };
        let known = policies.iter().filter_map(|policy| self.policies.get(policy));
        let nodes = known.flat_map(|known| &known.nodes);
        let mut nodes: Vec<&NodeName> = nodes.filter(|node| served.serves_on(&node.name, address)).collect();
        if policies.len() > 1 {
            nodes.sort_unstable();
            nodes.dedup();
        }
        nodes
    }

    /// Devices on which an owner announces: those that any policy names. None are all.
    fn interfaces(&self, policies: &BTreeSet<PolicyName>, owner: &NodeName) -> Vec<String> {
        let mut texts = BTreeSet::new();
        let known = policies.iter().filter_map(|policy| self.policies.get(policy));
        for known in known.filter(|known| known.nodes.contains(owner)) {
            let mut own = known.policy.interfaces().peekable();
            if own.peek().is_none() {
                return Vec::new();
            }
            texts.extend(own.cloned());
        }
        texts.into_iter().collect()
    }

    /// Drops what is known of a Service that is gone altogether.
    fn drop_service(&mut self, service: &ServiceName) {
        let is_gone =
            |entry: &Entry| entry.claim.is_none() && entry.served.is_none() && entry.selected.is_empty();
        if self.services.get(service).is_some_and(is_gone) {
            self.services.remove(service);
        }
    }

    /// The same of a node.
    fn drop_node(&mut self, node: &str) {
        let is_gone = |node: &Node| {
            let Node { labels, devices, silent, addresses } = node;
            labels.is_none() && devices.is_empty() && silent.is_empty() && addresses.is_empty()
        };
        if self.nodes.get(node).is_some_and(is_gone) {
            self.nodes.remove(node);
        }
    }

    /// What a policy makes of the Services and nodes that there are, worked out without what is known from before.
    pub(crate) fn reached(
        &self,
        policy: &Policy,
    ) -> (BTreeSet<ServiceName>, BTreeSet<NodeName>, BTreeSet<NodeName>) {
        let services = self.services.iter().filter(|(_, entry)| is_selected(policy, entry.claim.as_ref()));
        let nodes = |wanted| {
            let nodes = self.nodes.iter().filter(move |(_, node)| standing(policy, node) == wanted);
            nodes.map(|(name, _)| NodeName::new(name)).collect()
        };
        let services = services.map(|(name, _)| name.clone()).collect();
        (services, nodes(Standing::Member), nodes(Standing::Deviceless))
    }
}

impl Known {
    fn standing(&self, node: &NodeName) -> Standing {
        if self.nodes.contains(node) {
            Standing::Member
        } else if self.deviceless.contains(node) {
            Standing::Deviceless
        } else {
            Standing::Stranger
        }
    }

    fn set_standing(&mut self, node: &NodeName, standing: Standing) {
        self.nodes.remove(node);
        self.deviceless.remove(node);
        match standing {
            Standing::Member => drop(self.nodes.insert(node.clone())),
            Standing::Deviceless => drop(self.deviceless.insert(node.clone())),
            Standing::Stranger => {}
        }
    }
}

fn is_selected(policy: &Policy, claim: Option<&Claim>) -> bool {
    claim.is_some_and(|claim| policy.selects(&claim.labels))
}

fn standing(policy: &Policy, node: &Node) -> Standing {
    match &node.labels {
        Some(labels) if policy.selects_node(labels) => {
            if policy.has_device(&node.devices) {
                Standing::Member
            } else {
                Standing::Deviceless
            }
        }
        _ => Standing::Stranger,
    }
}
