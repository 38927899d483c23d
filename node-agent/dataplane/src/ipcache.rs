//! Which identity an address has, and behind which node it lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use cilium_api::parts::{Address, Node, Part, PartKey};
use cilium_bpf::layout::{Addr, IpcacheEntry, IpcacheKey};
use cilium_delta::Tracker;
use ipnet::IpNet;

use crate::kernel::Parts;
use crate::nodes::NodeFacts;
use crate::{Config, Route};

/// Entries of the ipcache and routes to other nodes' pods. What a node part says of an address goes before what an
/// address part says; among several nodes the first by name.
pub(crate) struct Ipcache {
    pub(crate) tracker: Tracker<IpcacheKey, IpcacheEntry>,
    nodes: BTreeMap<String, NodeFacts>,
    /// Keys that nodes have entries for.
    claims: HashMap<IpcacheKey, BTreeSet<String>>,
    unreadable: BTreeMap<String, Vec<String>>,
    /// Addresses whose identity is another than it was, or that are nobody's now.
    pub(crate) reassigned: BTreeSet<Addr>,
}

impl Ipcache {
    pub(crate) fn new() -> Self {
        Self {
            tracker: Tracker::new(),
            nodes: BTreeMap::new(),
            claims: HashMap::new(),
            unreadable: BTreeMap::new(),
            reassigned: BTreeSet::new(),
        }
    }

    /// Desires an entry, or that there is none.
    fn put(&mut self, key: IpcacheKey, entry: Option<IpcacheEntry>) {
        let before = self.tracker.get(&key).map(|before| before.identity);
        if key.prefix_len == 128 && before.is_some() && before != entry.map(|entry| entry.identity) {
            self.reassigned.insert(Addr(key.address));
        }
        match entry {
            Some(entry) => self.tracker.set(key, entry),
            None => self.tracker.remove(&key),
        };
    }

    /// Compares what was in the kernel before the agent started with what is desired.
    pub(crate) fn compare_adopted(&mut self) {
        let desired = |key: &IpcacheKey| self.tracker.get(key).map(|entry| entry.identity);
        let other = self.tracker.actual().filter(|(key, entry)| desired(key) != Some(entry.identity));
        let hosts = other.filter(|(key, _)| key.prefix_len == 128).map(|(key, _)| Addr(key.address));
        let hosts: Vec<Addr> = hosts.collect();
        self.reassigned.extend(hosts);
    }

    /// What is known of a node.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// Takes an address part, or that there is none.
    pub(crate) fn set_address(&mut self, config: &Config, address: IpAddr, part: Option<&Address>) {
        let key = IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
        if self.claims.contains_key(&key) {
            return;
        }
        let entry = part.map(|part| self.entry(config, part));
        self.put(key, entry);
    }

    fn entry(&self, config: &Config, part: &Address) -> IpcacheEntry {
        let node = part.node.as_ref().filter(|name| config.tunnel && **name != config.node);
        let tunnel = node.and_then(|name| self.nodes.get(name)).and_then(NodeFacts::tunnel_endpoint);
        IpcacheEntry { tunnel: Addr::from(tunnel), identity: part.identity }
    }

    /// Takes a node part, or that there is none.
    pub(crate) fn set_node(&mut self, config: &Config, name: &str, part: Option<&Node>, parts: &dyn Parts) {
        let (new, unreadable) = part.map(NodeFacts::new).unzip();
        self.unreadable.remove(name);
        self.unreadable
            .extend(unreadable.filter(|list| !list.is_empty()).map(|list| (name.to_owned(), list)));
        let old = self.nodes.remove(name);
        let tunnel = |facts: &Option<NodeFacts>| facts.as_ref().and_then(NodeFacts::tunnel_endpoint);
        let moved = config.tunnel && tunnel(&old) != tunnel(&new);
        let keys = |facts: &Option<NodeFacts>| {
            facts.iter().flat_map(|facts| facts.entries(config, name == config.node).into_keys()).collect()
        };
        let (before, after): (BTreeSet<IpcacheKey>, BTreeSet<IpcacheKey>) = (keys(&old), keys(&new));
        self.nodes.extend(new.map(|facts| (name.to_owned(), facts)));
        self.move_claims(name, &before, &after);
        for key in before.union(&after) {
            self.resolve(config, key, parts);
        }
        if moved {
            self.resolve_behind(config, name, parts);
        }
    }

    fn move_claims(&mut self, name: &str, before: &BTreeSet<IpcacheKey>, after: &BTreeSet<IpcacheKey>) {
        for key in before.difference(after) {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.remove(name);
                if claims.is_empty() {
                    self.claims.remove(key);
                }
            }
        }
        for key in after {
            self.claims.entry(*key).or_default().insert(name.to_owned());
        }
    }

    /// Sets the entry of a key anew.
    fn resolve(&mut self, config: &Config, key: &IpcacheKey, parts: &dyn Parts) {
        if let Some(name) = self.claims.get(key).and_then(BTreeSet::first) {
            let entries = self.nodes.get(name).map(|facts| facts.entries(config, *name == config.node));
            if let Some(entry) = entries.and_then(|mut entries| entries.remove(key)) {
                self.put(*key, Some(entry));
            }
            return;
        }
        let address = Addr(key.address).ip().filter(|_| key.prefix_len == 128);
        match address.and_then(|address| Some((address, parts.get(&PartKey::address(address))?))) {
            Some((address, Part::Address(part))) => self.set_address(config, address, Some(part)),
            _ => self.put(*key, None),
        }
    }

    /// The tunnel endpoint of a node changed: so does that of all its pods. Nodes change rarely, so there is no index.
    fn resolve_behind(&mut self, config: &Config, name: &str, parts: &dyn Parts) {
        for (key, part) in parts.all() {
            let Part::Address(part) = part else { continue };
            if part.node.as_deref() == Some(name)
                && let Some(address) = address_of(key)
            {
                self.set_address(config, address, Some(part));
            }
        }
    }

    /// Routes to the pods of all other nodes.
    pub(crate) fn routes(&self, config: &Config) -> Vec<(IpNet, Route)> {
        let nowhere = NodeFacts::default();
        let own = self.nodes.get(&config.node).unwrap_or(&nowhere);
        let others = self.nodes.iter().filter(|(name, _)| **name != config.node);
        others.flat_map(|(_, facts)| facts.routes(config, own)).collect()
    }

    /// Nodes with prefixes that cannot be read.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (PartKey, String)> {
        self.unreadable
            .iter()
            .flat_map(|(name, list)| list.iter().map(move |text| (PartKey::node(name), text.clone())))
    }
}

/// The address that a key `address/<ip>` names.
pub(crate) fn address_of(key: &PartKey) -> Option<IpAddr> {
    key.0.strip_prefix("address/")?.parse().ok()
}
