//! Groups of prefixes: what is in the ones that policies are about has their label.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::CiliumCIDRGroup;
use cilium_core::{Label, Labels, Source, prefix};
use cilium_policy::PolicyKey;
use ipnet::IpNet;

use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;
use crate::prefixes::Holder;

/// All groups, and which policies are about them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    all: BTreeMap<String, Group>,
    by_policy: BTreeMap<PolicyKey, BTreeSet<String>>,
    /// How many policies are about a group, whether it exists or not.
    used: BTreeMap<String, usize>,
    /// Prefixes of the groups that exist and are used.
    counted: BTreeMap<String, BTreeSet<IpNet>>,
    /// The same the other way round.
    placed: BTreeMap<IpNet, BTreeSet<String>>,
}

/// A CiliumCIDRGroup, reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Labels of the object.
    labels: Labels,
    prefixes: BTreeSet<IpNet>,
}

impl Groups {
    /// Names of the groups with labels that a selector matches, in order.
    pub(crate) fn matching(&self, selector: &cilium_core::Selector) -> Vec<String> {
        let matching = self.all.iter().filter(|(_, group)| selector.matches(&group.labels));
        matching.map(|(name, _)| name.clone()).collect()
    }

    /// Labels that say in which groups a prefix is, as far as policies are about them.
    pub(crate) fn labels_around(&self, inner: IpNet) -> impl Iterator<Item = Label> {
        let around = std::iter::successors(Some(inner), IpNet::supernet);
        let names = around.filter_map(|prefix| self.placed.get(&prefix)).flatten();
        names.map(|name| prefix::group_label(name))
    }

    /// Places what a group holds, as far as it counts, and gives the prefixes that came or went.
    fn place(&mut self, name: &str) -> (BTreeSet<IpNet>, Vec<IpNet>) {
        let group = self.all.get(name).filter(|_| self.used.contains_key(name));
        let after = group.map(|group| group.prefixes.clone()).unwrap_or_default();
        let before = self.counted.remove(name).unwrap_or_default();
        for gone in before.difference(&after) {
            let names = self.placed.entry(*gone).or_default();
            names.remove(name);
            if names.is_empty() {
                self.placed.remove(gone);
            }
        }
        for come in after.difference(&before) {
            self.placed.entry(*come).or_default().insert(name.to_owned());
        }
        if !after.is_empty() {
            self.counted.insert(name.to_owned(), after.clone());
        }
        let changed = before.symmetric_difference(&after).copied().collect();
        (after, changed)
    }
}

/// IPv4 written as IPv6 (RFC 4291 section 2.5.5.2) never is on the wire.
fn is_mapped(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V6(prefix) if prefix.addr().to_ipv4_mapped().is_some())
}

impl Planner {
    pub(crate) fn observe_group(&mut self, object: &CiliumCIDRGroup) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let mut prefixes = BTreeSet::new();
        for text in &object.spec.external_cidrs {
            match text.parse::<IpNet>().ok().filter(|prefix| !is_mapped(*prefix)) {
                Some(prefix) => _ = prefixes.insert(prefix.trunc()),
                None => self.warn_of_item(object, text),
            }
        }
        let labels = object.metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| Label::new(Source::CIDR_GROUP, key, value)).collect();
        self.put_group(name, Some(Group { labels, prefixes }));
    }

    /// The API server refuses most such items, and they stand for no address that is on the wire.
    fn warn_of_item(&mut self, object: &CiliumCIDRGroup, text: &str) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let note = format!(
            "spec.externalCIDRs: {text:?} is not a prefix such as 192.0.2.0/24 or 2001:db8::/32, and is left out"
        );
        let regarding = ObjectKey::cluster(Kind::CidrGroup, name);
        self.warn(regarding, object.metadata.uid.as_deref(), "InvalidPrefix", &note);
    }

    pub(crate) fn put_group(&mut self, name: &str, group: Option<Group>) {
        let labels = |group: Option<&Group>| group.map(|group| group.labels.clone());
        let before = self.groups.all.get(name);
        if before == group.as_ref() {
            return;
        }
        let is_relabelled = labels(before) != labels(group.as_ref());
        match group {
            Some(group) => drop(self.groups.all.insert(name.to_owned(), group)),
            None => drop(self.groups.all.remove(name)),
        }
        if is_relabelled {
            self.references.groups_changed();
        }
        self.place_group(name);
    }

    /// Takes the groups that a policy is about as it is in force now.
    pub(crate) fn set_groups_of(&mut self, key: &PolicyKey, names: &BTreeSet<String>) {
        for name in names {
            *self.groups.used.entry(name.clone()).or_default() += 1;
        }
        let old = if names.is_empty() {
            self.groups.by_policy.remove(key)
        } else {
            self.groups.by_policy.insert(key.clone(), names.clone())
        };
        let old = old.unwrap_or_default();
        for name in &old {
            let count = self.groups.used.entry(name.clone()).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.groups.used.remove(name);
            }
        }
        for name in old.symmetric_difference(names) {
            self.place_group(name);
        }
    }

    fn place_group(&mut self, name: &str) {
        let (prefixes, changed) = self.groups.place(name);
        let holder = Holder::Group(name.to_owned());
        self.prefixes.set_holder(&holder, prefixes.into_iter().filter(|it| it.prefix_len() > 0).collect());
        changed.into_iter().for_each(|prefix| self.prefixes.touch_inside(prefix));
    }
}
