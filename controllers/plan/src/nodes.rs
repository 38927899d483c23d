//! Nodes: their parts, and their states on the way out.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use cilium_api::node_slice::owner_label;
use cilium_api::node_state::CiliumNodeState;
use cilium_api::parts::{Part, PartKey, Parts};
use cilium_api::slim;
use cilium_core::{Labels, reserved};
use cilium_identity::Local;

use crate::names::PodName;
use crate::node::{Node, Seen, State, Token};
use crate::object::{Kind, ObjectKey};
use crate::output::{NodeDesired, Write};
use crate::planner::Planner;
use crate::troubled::Troubled;

/// What is known under the name of a node.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The Kubernetes object; pods and states may be there before and after it.
    pub(crate) object: Option<Node>,
    pub(crate) state: State,
    /// Pods that have an endpoint here.
    pub(crate) pods: BTreeSet<PodName>,
    /// The node runs an API server.
    pub(crate) api_server: bool,
    /// The number as which policies select the node.
    pub(crate) host: Option<u32>,
    /// It stands in [`Nodes::touched`].
    is_touched: bool,
}

/// Identities of nodes in parts that were written before.
pub(crate) fn recorded(parts: &Parts) -> impl Iterator<Item = (String, u32)> {
    parts.iter().filter_map(|(key, part)| match part {
        Part::Node(part) => Some((key.0.strip_prefix("node/")?.to_owned(), part.identity?)),
        _ => None,
    })
}

/// Router addresses of nodes in parts that were written before.
pub(crate) fn recorded_routers(parts: &Parts) -> impl Iterator<Item = (String, Vec<IpAddr>)> {
    parts.iter().filter_map(|(key, part)| match part {
        Part::Node(part) => Some((key.0.strip_prefix("node/")?.to_owned(), part.routers.clone())),
        _ => None,
    })
}

impl Entry {
    fn new(name: &str) -> Self {
        Self {
            object: None,
            state: State::new(name),
            pods: BTreeSet::new(),
            api_server: false,
            host: None,
            is_touched: false,
        }
    }
}

/// All nodes by name.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    all: HashMap<String, Entry>,
    /// Names by what stands for them in names of slices.
    labels: HashMap<String, String>,
    /// Identities that nodes have by themselves.
    pub(crate) numbers: Local<String>,
    /// Nodes whose object changed since the last plan.
    pub(crate) dirty: BTreeSet<String>,
    /// Nodes that were handed out to be changed since the last plan looked at them: others have nothing new to be written.
    touched: Vec<String>,
    /// Services that nodes cannot serve as planned.
    pub(crate) troubled: Troubled,
}

impl Nodes {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.all.get(name)
    }

    /// All of them, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let mut all: Vec<_> = self.all.iter().collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all.into_iter()
    }

    /// The node that an owner label stands for.
    pub(crate) fn by_label(&self, label: &str) -> Option<(&str, &Entry)> {
        let name = self.labels.get(label)?;
        Some((name, self.all.get(name)?))
    }

    /// What is known under a name, to be changed.
    pub(crate) fn entry(&mut self, name: &str) -> &mut Entry {
        // Nearly always there: then no name has to be copied.
        if !self.all.contains_key(name) {
            self.labels.insert(owner_label(name), name.to_owned());
            self.all.insert(name.to_owned(), Entry::new(name));
        }
        let entry = self.all.get_mut(name).expect("it was there or was put there");
        if !entry.is_touched {
            entry.is_touched = true;
            self.touched.push(name.to_owned());
        }
        entry
    }

    /// Names of the touched nodes, in order.
    fn take_touched(&mut self) -> Vec<String> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched
    }

    /// Drops what is known of a node that is gone altogether.
    fn drop_empty(&mut self, name: &str) {
        let is_gone =
            |entry: &Entry| entry.object.is_none() && entry.pods.is_empty() && entry.state.is_empty();
        if self.all.get(name).is_some_and(is_gone) {
            self.all.remove(name);
            self.labels.remove(&owner_label(name));
            self.troubled.forget(name);
        }
    }
}

impl Planner {
    pub(crate) fn node_mut(&mut self, name: &str) -> &mut Entry {
        self.nodes.entry(name)
    }

    pub(crate) fn observe_node(&mut self, object: &slim::Node) {
        self.announcements.observe_node(object);
        self.routing.observe_node(object);
        let node = Node::reduce(object, &self.config);
        self.put_node(object.metadata.name.as_deref().unwrap_or_default(), Some(node));
    }

    pub(crate) fn put_node(&mut self, name: &str, object: Option<Node>) {
        let entry = self.node_mut(name);
        if entry.object != object {
            entry.object = object;
            self.nodes.dirty.insert(name.to_owned());
        }
    }

    /// Makes prefixes, parts and public views follow the nodes that changed.
    pub(crate) fn follow_nodes(&mut self) {
        for name in std::mem::take(&mut self.nodes.dirty) {
            let entry = self.nodes.entry(&name);
            entry.state.touch();
            let prefixes = entry.object.as_ref().map(|object| object.pod_cidrs.clone()).unwrap_or_default();
            let is_there = entry.object.is_some();
            self.endpoints.ipam.set_node(&name, &prefixes);
            self.endpoints.ipam.set_present(&name, is_there);
            self.pod_pools.touch_routers();
            // Their addresses may come from the prefixes, and their CiliumEndpoints name an address of the node.
            self.endpoints.dirty.extend(entry.pods.iter().cloned());
            let names: Vec<String> = entry.state.slices.names().collect();
            names.iter().for_each(|name| self.slices.touch(ObjectKey::cluster(Kind::Slice, name)));
            self.reports.nodes.touch(ObjectKey::cluster(Kind::CiliumNode, &name));
            self.touch_node_reports(&name);
            self.api_server.nodes_changed();
            self.set_node_part(&name);
        }
    }

    /// Writes the part that tells other nodes of this one.
    pub(crate) fn set_node_part(&mut self, name: &str) {
        let identity = self.follow_node_identity(name);
        let entry = self.nodes.get(name);
        let part = entry.and_then(|entry| {
            let part = entry.object.as_ref()?.part(entry.api_server, identity);
            Some(Part::Node(self.with_blocks(name, part)))
        });
        self.shared.set(&PartKey::node(name), part.as_ref());
    }

    /// Gives a node an identity of its own, where nodes are told apart, or takes it away. Returns what other nodes know it by.
    fn follow_node_identity(&mut self, name: &str) -> Option<u32> {
        let entry = self.nodes.get(name).filter(|_| self.config.tells_nodes_apart());
        let object = entry.and_then(|entry| Some((entry.api_server, entry.object.as_ref()?)));
        let Some((api_server, object)) = object else {
            let gone = self.nodes.numbers.release(&name.to_owned())?;
            self.set_known(gone, None);
            self.set_host(name, gone, None);
            return None;
        };
        let remote = reserved::remote_node_labels(&self.config.cluster, api_server, &object.labels);
        let host = reserved::node_host_labels(api_server, &object.labels, &self.config.labels);
        let number = self.nodes.numbers.acquire(name.to_owned())?;
        self.set_host(name, number, self.config.host_firewall.then_some(host));
        if !self.config.node_selector_labels {
            return None;
        }
        self.set_known(number, Some(remote));
        Some(number)
    }

    /// Makes a node a subject of policies, or no longer one.
    fn set_host(&mut self, name: &str, remote: u32, labels: Option<Labels>) {
        let number = reserved::node_host(remote);
        let was_known = self.identities.get(number).is_some();
        match labels {
            Some(labels) => {
                let before = self.policies.index.selecting(number);
                self.set_known(number, Some(labels));
                self.node_mut(name).host = Some(number);
                // With other labels a node is selected by other policies, which have something else to say of themselves.
                let after = self.policies.index.selecting(number);
                self.touch_statuses(&before);
                self.touch_statuses(&after);
                if !was_known {
                    self.join(number, name);
                }
            }
            None if was_known => {
                self.leave(number, name);
                self.node_mut(name).host = None;
                self.set_known(number, None);
            }
            None => {}
        }
    }

    pub(crate) fn observe_node_state(&mut self, object: &CiliumNodeState) {
        let name = object.metadata.name.clone().unwrap_or_default();
        if let Some(records) = &mut self.records {
            records.add_node_state(object);
        }
        let seen = self.node_mut(&name).state.observe(object);
        self.follow_heard(&name);
        self.follow_seen(&name, &seen);
    }

    fn follow_seen(&mut self, name: &str, seen: &Seen) {
        if seen.foreign {
            self.await_all(name);
        }
        for object in &seen.failures {
            self.touch_part_reports(name, object);
            self.follow_trouble(name, object);
        }
        if seen.unnamed {
            self.touch_node_reports(name);
        }
    }

    /// Nothing is known any more of what the node has in force.
    fn await_all(&mut self, name: &str) {
        let Some(entry) = self.nodes.get(name) else { return };
        let pods = entry.pods.iter().cloned().map(Token::Pod);
        let policies = self.policies_on(entry).into_iter().map(Token::Policy);
        let announced = self.announcement_policies_on(name).into_iter().map(Token::Announcements);
        let tokens: Vec<Token> = pods.chain(policies).chain(announced).collect();
        let state = &mut self.node_mut(name).state;
        tokens.into_iter().for_each(|token| state.await_token(token));
    }

    /// Packs what changed, gives the headers that have to be written, and touches the reports that waited for what nodes have
    /// confirmed.
    pub(crate) fn write_node_states(&mut self) -> Vec<Write<NodeDesired>> {
        let names = self.nodes.take_touched();
        let mut writes = Vec::with_capacity(names.len());
        for name in &names {
            let Some(entry) = self.nodes.all.get_mut(name) else { continue };
            entry.is_touched = false;
            for slice in entry.state.pack() {
                self.slices.touch(ObjectKey::cluster(Kind::Slice, &slice));
            }
            let owner = entry.object.as_ref().map(|object| object.uid.as_str());
            let action = entry.state.send(owner);
            let confirmed = entry.state.take_confirmed();
            let write = action.map(|action| Write { key: ObjectKey::cluster(Kind::NodeState, name), action });
            writes.extend(write);
            confirmed.iter().for_each(|token| self.touch_token_reports(token));
            self.nodes.drop_empty(name);
        }
        writes
    }
}
