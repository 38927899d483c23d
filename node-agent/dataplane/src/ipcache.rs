//! Which identity an address has, and behind which node it lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use cilium_api::parts::{Address, Node, Part, PartKey, Prefix};
use cilium_bpf::layout::{Addr, IpcacheEntry, IpcacheKey};
use cilium_delta::{Change, Tracker};
use ipnet::IpNet;

use crate::displaced::Displaced;
use crate::kernel::Parts;
use crate::named::Named;
use crate::nodes::NodeFacts;
use crate::{Config, Route};

/// Entries of the ipcache and routes to other nodes' pods. What a node part says of an address goes before what an
/// address part says, and that before a prefix part; among several nodes the first by name. The identity of an address with names
/// stands for what it would have without them, too.
pub(crate) struct Ipcache {
    pub(crate) tracker: Tracker<IpcacheKey, IpcacheEntry>,
    nodes: BTreeMap<String, NodeFacts>,
    /// Keys that nodes have entries for.
    claims: HashMap<IpcacheKey, BTreeSet<String>>,
    /// Prefixes outside of the cluster that have an identity.
    prefixes: HashMap<IpcacheKey, (IpNet, u32)>,
    /// Addresses outside of the cluster that have one for their names.
    named: HashMap<IpcacheKey, u32>,
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
            prefixes: HashMap::new(),
            named: HashMap::new(),
            unreadable: BTreeMap::new(),
            reassigned: BTreeSet::new(),
        }
    }

    /// Desires an entry, or that there is none.
    fn put(&mut self, key: IpcacheKey, entry: Option<IpcacheEntry>) {
        let before = self.tracker.get(&key).map(|before| before.identity);
        let after = entry.map(|entry| entry.identity);
        if key.prefix_len == 128
            && before.is_some()
            && before != after
            && !(is_outside(before) && is_outside(after))
        {
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
        let hosts = self.tracker.actual().filter(|(key, _)| key.prefix_len == 128);
        let other = hosts.filter(|(key, entry)| {
            let (before, after) = (Some(entry.identity), desired(key));
            before != after && !(is_outside(before) && is_outside(after))
        });
        let hosts: Vec<Addr> = other.map(|(key, _)| Addr(key.address)).collect();
        self.reassigned.extend(hosts);
    }

    /// Whether nothing is desired of an address itself, or of a prefix outside of the cluster at most.
    pub(crate) fn is_nobodys(&self, address: &Addr) -> bool {
        let key = IpcacheKey { prefix_len: 128, address: address.0 };
        is_outside(self.tracker.get(&key).map(|entry| entry.identity))
    }

    /// Entries of prefixes that are about to change: addresses inside will have another identity, and stay where they are.
    ///
    /// That of a named address allows all that the one below it does, and goes when nothing uses the address any more.
    pub(crate) fn moving_prefixes(&self, named: &Named) -> Vec<IpcacheKey> {
        let is_prefix = |identity: Option<u32>| identity.is_some_and(is_local);
        let base = |identity: Option<u32>| identity.map(|identity| named.base(identity));
        let is_named = |identity: Option<u32>| identity != base(identity);
        let pending = self.tracker.pending().filter_map(|change| {
            let (key, after) = match change {
                Change::Set(key, entry) => (key, Some(entry.identity)),
                Change::Delete(key) => (key, None),
            };
            let before = self.tracker.get_actual(key).map(|entry| entry.identity);
            let moves = before != after && (is_prefix(before) || is_prefix(after));
            let comes_or_goes = before.is_none() && is_named(after) || is_named(before) && after.is_none();
            (moves && !comes_or_goes && base(before) != base(after)).then_some(*key)
        });
        pending.collect()
    }

    /// What addresses are taken for as long as their entries are not written.
    pub(crate) fn displaced(&self, config: &Config) -> BTreeSet<Displaced> {
        if self.tracker.is_synced() {
            return BTreeSet::new();
        }
        let lengths: BTreeSet<u32> = self.tracker.actual().map(|(key, _)| key.prefix_len).collect();
        let pending = self.tracker.pending().filter_map(|change| match change {
            Change::Set(key, entry) => {
                Some(Displaced { seen: self.seen(config, key, &lengths), meant: entry.identity })
            }
            Change::Delete(_) => None,
        });
        pending.filter(|it| it.seen != it.meant).collect()
    }

    /// The identity that programs find for a key, among entries of these lengths.
    fn seen(&self, config: &Config, key: &IpcacheKey, lengths: &BTreeSet<u32>) -> u32 {
        let around = lengths.range(..=key.prefix_len).rev().map(|length| key.truncated(*length));
        let mut found = around.filter_map(|key| self.tracker.get_actual(&key));
        let world = || if covers(&all_ipv4(), key) { config.world4 } else { config.world6 };
        found.next().map_or_else(world, |entry| entry.identity)
    }

    /// The identity that an address has without names; `None` when it is the cluster's.
    pub(crate) fn base_of(&self, config: &Config, address: IpAddr, parts: &dyn Parts) -> Option<u32> {
        if self.claims.contains_key(&host_key(address)) {
            return None;
        }
        if let Some(Part::Address(part)) = parts.get(&PartKey::address(address)) {
            return Some(part.identity).filter(|identity| is_local(*identity));
        }
        if self.nodes.values().any(|facts| facts.prefixes.iter().any(|prefix| prefix.contains(&address))) {
            return None;
        }
        let length = host_length(address);
        let around = (0..=length).rev().filter_map(|length| IpNet::new(address, length).ok());
        let mut keys = around.map(|prefix| IpcacheKey::new(prefix.network(), prefix.prefix_len()));
        let known = keys.find_map(|key| self.prefixes.get(&key)).map(|(_, identity)| *identity);
        let world = if address.is_ipv4() { config.world4 } else { config.world6 };
        Some(known.unwrap_or(world))
    }

    /// Takes the identity of an address for its names, or that it has none.
    pub(crate) fn set_named(
        &mut self,
        config: &Config,
        address: IpAddr,
        identity: Option<u32>,
        parts: &dyn Parts,
    ) {
        let key = host_key(address);
        match identity {
            Some(identity) => self.named.insert(key, identity),
            None => self.named.remove(&key),
        };
        self.resolve(config, &key, parts);
    }

    /// What is known of a node.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// Takes an address part, or that there is none.
    pub(crate) fn set_address(&mut self, config: &Config, address: IpAddr, part: Option<&Address>) {
        let key = host_key(address);
        if self.claims.contains_key(&key) {
            return;
        }
        let named = self.named.get(&key).filter(|_| part.is_none_or(|part| is_local(part.identity)));
        let named = named.map(|identity| IpcacheEntry { tunnel: Addr::NONE, identity: *identity });
        let entry = named.or_else(|| part.map(|part| self.entry(config, part)));
        self.put(key, entry.or_else(|| self.prefix_entry(config, &key)));
    }

    /// Takes a prefix part, or that there is none.
    pub(crate) fn set_prefix(
        &mut self,
        config: &Config,
        prefix: IpNet,
        part: Option<&Prefix>,
        parts: &dyn Parts,
    ) {
        let key = IpcacheKey::new(prefix.addr(), prefix.prefix_len());
        match part {
            Some(part) => self.prefixes.insert(key, (prefix, part.identity)),
            None => self.prefixes.remove(&key),
        };
        self.resolve(config, &key, parts);
        // It must not catch IPv4 addresses, which are written as IPv6 in the map.
        if covers_ipv4(&key) {
            self.resolve(config, &all_ipv4(), parts);
        }
    }

    fn prefix_entry(&self, config: &Config, key: &IpcacheKey) -> Option<IpcacheEntry> {
        if let Some((prefix, identity)) = self.prefixes.get(key) {
            // Pods of other nodes that are not known one by one are reached all the same.
            let behind = self.nodes.iter().filter(|(name, _)| config.tunnel && **name != config.node);
            let mut around = behind.filter(|(_, facts)| facts.prefixes.iter().any(|it| it.contains(prefix)));
            let tunnel = around.next().and_then(|(_, facts)| facts.tunnel_endpoint());
            return Some(IpcacheEntry { tunnel: Addr::from(tunnel), identity: *identity });
        }
        let is_caught = || self.prefixes.keys().any(covers_ipv4);
        (*key == all_ipv4() && is_caught())
            .then_some(IpcacheEntry { tunnel: Addr::NONE, identity: config.world4 })
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
        let pods: Vec<IpNet> = old.iter().chain(&new).flat_map(|facts| facts.prefixes.clone()).collect();
        let (before, after): (BTreeSet<IpcacheKey>, BTreeSet<IpcacheKey>) = (keys(&old), keys(&new));
        self.nodes.extend(new.map(|facts| (name.to_owned(), facts)));
        self.move_claims(name, &before, &after);
        for key in before.union(&after) {
            self.resolve(config, key, parts);
        }
        if config.tunnel {
            self.resolve_inside(config, &pods, parts);
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
        let Some(address) = address else { return self.put(*key, self.prefix_entry(config, key)) };
        match parts.get(&PartKey::address(address)) {
            Some(Part::Address(part)) => self.set_address(config, address, Some(part)),
            _ => self.set_address(config, address, None),
        }
    }

    /// Prefixes inside of a node's go where its pods are.
    fn resolve_inside(&mut self, config: &Config, pods: &[IpNet], parts: &dyn Parts) {
        let is_inside = |prefix: &IpNet| pods.iter().any(|pods| pods.contains(prefix));
        let inside = self.prefixes.iter().filter(|(_, (prefix, _))| is_inside(prefix));
        let keys: Vec<IpcacheKey> = inside.map(|(key, _)| *key).collect();
        for key in &keys {
            self.resolve(config, key, parts);
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

fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Key of one address.
fn host_key(address: IpAddr) -> IpcacheKey {
    IpcacheKey::new(address, host_length(address))
}

/// Whether an identity stands for a prefix outside of the cluster: the top byte is the scope.
fn is_local(identity: u32) -> bool {
    identity >> 24 == 1
}

/// Nothing is known of the address itself, or a prefix at most.
fn is_outside(identity: Option<u32>) -> bool {
    identity.is_none_or(is_local)
}

/// Key of all IPv4 addresses.
fn all_ipv4() -> IpcacheKey {
    IpcacheKey::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

/// Whether a key is that of an IPv6 prefix around `::ffff:0:0/96`.
fn covers_ipv4(key: &IpcacheKey) -> bool {
    key.prefix_len < 96 && covers(key, &all_ipv4())
}

/// Whether a key's prefix lies inside of another's.
fn covers(outer: &IpcacheKey, inner: &IpcacheKey) -> bool {
    outer.prefix_len <= inner.prefix_len && inner.truncated(outer.prefix_len) == *outer
}

/// The prefix that a key `prefix/<prefix>` names.
pub(crate) fn prefix_of(key: &PartKey) -> Option<IpNet> {
    key.0.strip_prefix("prefix/")?.parse().ok()
}

/// The address that a key `address/<ip>` names.
pub(crate) fn address_of(key: &PartKey) -> Option<IpAddr> {
    key.0.strip_prefix("address/")?.parse().ok()
}
