//! Who gives which prefix. A prefix that several give stays until the last of them takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cilium_api::bgp::Route;
use cilium_services::ServiceName;
use ipnet::IpNet;

/// What prefixes come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Giver {
    /// Addresses of a Service.
    Service(ServiceName),
    /// Prefixes of a node's pods.
    Node(Arc<str>),
}

/// A prefix that belongs to an advertisement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Given {
    /// The node that makes it known; `None`: every one.
    pub(crate) node: Option<Arc<str>>,
    pub(crate) prefix: IpNet,
    /// Of the advertisement.
    pub(crate) id: Arc<str>,
}

/// How many give a prefix, for each advertisement.
type Counts = BTreeMap<Arc<str>, usize>;

/// All prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    given: BTreeMap<Giver, BTreeSet<Given>>,
    shared: BTreeMap<IpNet, Counts>,
    of_nodes: BTreeMap<Arc<str>, BTreeMap<IpNet, Counts>>,
}

/// What is given now and was not, or was and is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched(BTreeSet<Given>);

impl Touched {
    /// Takes note of a change; a second one undoes the first, as when a giver takes over what another one gave.
    fn toggle(&mut self, it: &Given) {
        if !self.0.remove(it) {
            self.0.insert(it.clone());
        }
    }

    /// Changed prefixes of all nodes, and of single ones.
    pub(crate) fn prefixes(self) -> (BTreeSet<IpNet>, BTreeSet<(Arc<str>, IpNet)>) {
        let (mut shared, mut of_nodes) = (BTreeSet::new(), BTreeSet::new());
        for Given { node, prefix, .. } in self.0 {
            match node {
                None => drop(shared.insert(prefix)),
                Some(node) => drop(of_nodes.insert((node, prefix))),
            }
        }
        (shared, of_nodes)
    }
}

impl Routes {
    /// Makes what a giver gives what it gives now.
    pub(crate) fn give(&mut self, giver: Giver, now: BTreeSet<Given>, touched: &mut Touched) {
        let before = self.given.remove(&giver).unwrap_or_default();
        for taken in before.difference(&now) {
            if self.take(taken) {
                touched.toggle(taken);
            }
        }
        for given in now.difference(&before) {
            let count = self.counts(given).entry(given.id.clone()).or_default();
            *count += 1;
            if *count == 1 {
                touched.toggle(given);
            }
        }
        if !now.is_empty() {
            self.given.insert(giver, now);
        }
    }

    /// Counts one less; whether it was the last one.
    fn take(&mut self, it: &Given) -> bool {
        let counts = self.counts(it);
        let left = counts.get(&it.id).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            counts.insert(it.id.clone(), left);
            return false;
        }
        counts.remove(&it.id);
        if counts.is_empty() {
            self.drop_counts(it);
        }
        true
    }

    fn counts(&mut self, it: &Given) -> &mut Counts {
        match &it.node {
            None => self.shared.entry(it.prefix).or_default(),
            Some(node) => self.of_nodes.entry(node.clone()).or_default().entry(it.prefix).or_default(),
        }
    }

    fn drop_counts(&mut self, it: &Given) {
        let Some(node) = &it.node else {
            self.shared.remove(&it.prefix);
            return;
        };
        if let Some(prefixes) = self.of_nodes.get_mut(node) {
            prefixes.remove(&it.prefix);
            if prefixes.is_empty() {
                self.of_nodes.remove(node);
            }
        }
    }

    /// All who give anything.
    pub(crate) fn givers(&self) -> impl Iterator<Item = &Giver> {
        self.given.keys()
    }

    /// A prefix that every node makes known.
    pub(crate) fn shared(&self, prefix: IpNet) -> Option<Route> {
        self.shared.get(&prefix).map(route)
    }

    /// A prefix that one node makes known.
    pub(crate) fn of_node(&self, node: &str, prefix: IpNet) -> Option<Route> {
        self.of_nodes.get(node)?.get(&prefix).map(route)
    }

    /// All prefixes that every node makes known.
    pub(crate) fn all_shared(&self) -> impl Iterator<Item = IpNet> {
        self.shared.keys().copied()
    }

    /// All prefixes that one node makes known.
    pub(crate) fn all_of_node(&self, node: &str) -> impl Iterator<Item = IpNet> {
        self.of_nodes.get(node).into_iter().flat_map(|prefixes| prefixes.keys().copied())
    }
}

fn route(counts: &Counts) -> Route {
    Route { advertisements: counts.keys().map(ToString::to_string).collect() }
}
