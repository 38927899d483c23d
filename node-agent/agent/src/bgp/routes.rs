//! Prefixes that the node makes known, out of three places, and which of them the speaker has not been told.

use std::collections::{BTreeMap, BTreeSet};

use cilium_rest::bgp::{RouteChanges, Routes};
use ipnet::IpNet;

/// Advertisements of a prefix.
pub(super) type Ids = BTreeSet<String>;

/// Where a prefix comes from. It goes as long as any of them has it, to the advertisements of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The plan, for all nodes.
    Cluster,
    /// The plan, for this one.
    Node,
    /// Addresses of a device.
    Device,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    by_prefix: BTreeMap<IpNet, [Ids; 3]>,
    changed: BTreeSet<IpNet>,
}

impl Table {
    /// Sets what one source says of a prefix; nothing: it does not have it.
    pub(super) fn set(&mut self, prefix: IpNet, source: Source, ids: Ids) {
        let entry = self.by_prefix.entry(prefix).or_default();
        let slot = &mut entry[source as usize];
        if *slot != ids {
            *slot = ids;
            self.changed.insert(prefix);
        }
        if entry.iter().all(BTreeSet::is_empty) {
            self.by_prefix.remove(&prefix);
        }
    }

    /// Sets all that one source has.
    pub(super) fn replace(&mut self, source: Source, all: BTreeMap<IpNet, Ids>) {
        let has = |ids: &[Ids; 3]| !ids[source as usize].is_empty();
        let before = self.by_prefix.iter().filter(|(prefix, ids)| has(ids) && !all.contains_key(prefix));
        for prefix in before.map(|(prefix, _)| *prefix).collect::<Vec<_>>() {
            self.set(prefix, source, Ids::new());
        }
        for (prefix, ids) in all {
            self.set(prefix, source, ids);
        }
    }

    /// Everything; nothing has changed then.
    pub(super) fn take_all(&mut self) -> Routes {
        self.changed.clear();
        self.by_prefix.iter().map(|(prefix, ids)| (*prefix, union(ids))).collect()
    }

    /// What has changed since the last call, if anything has.
    pub(super) fn take_changes(&mut self) -> Option<RouteChanges> {
        let mut changes = RouteChanges::default();
        for prefix in std::mem::take(&mut self.changed) {
            match self.by_prefix.get(&prefix) {
                Some(ids) => drop(changes.set.insert(prefix, union(ids))),
                None => changes.removed.push(prefix),
            }
        }
        (!changes.set.is_empty() || !changes.removed.is_empty()).then_some(changes)
    }
}

fn union(ids: &[Ids; 3]) -> Vec<String> {
    ids.iter().flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Ids {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_prefix_stays_while_any_source_has_it() {
        let (one, two) = (net("192.0.2.1/32"), net("192.0.2.2/32"));
        let mut table = Table::default();
        table.set(one, Source::Cluster, ids(&["b/0"]));
        table.set(one, Source::Node, ids(&["a/0", "b/0"]));
        table.replace(Source::Device, [(two, ids(&["c/0"]))].into());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(table.take_all(), [(one, names(&["a/0", "b/0"])), (two, names(&["c/0"]))].into());
        assert_eq!(table.take_changes(), None);

        table.set(one, Source::Cluster, Ids::new());
        table.set(one, Source::Cluster, Ids::new());
        let changes = table.take_changes().expect("changed");
        assert_eq!((changes.set, changes.removed), ([(one, names(&["a/0", "b/0"]))].into(), vec![]));

        table.set(one, Source::Node, Ids::new());
        table.replace(Source::Device, BTreeMap::new());
        let changes = table.take_changes().expect("changed");
        assert_eq!((changes.set, changes.removed), (Routes::new(), vec![one, two]));
        assert!(table.by_prefix.is_empty() && table.take_changes().is_none());
    }
}
