//! Every selector that some rule uses, once, with the identities that it matches, kept as both change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cilium_core::pod::NAMESPACE;
use cilium_core::{Labels, Selector, reserved};

use crate::key::PolicyKey;
use crate::labels::{LabelMap, anchor, namespace};

/// Stands for a selector while some rule uses it.
pub(crate) type SelectorId = u32;

/// A rule: its policy and its place in it.
pub(crate) type RuleId = (PolicyKey, usize);

/// What a rule uses a selector for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Subject,
    Peer,
}

/// Selectors and identities, matched with each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    ids: HashMap<Selector, SelectorId>,
    used: HashMap<SelectorId, Used>,
    next: SelectorId,
    /// Selectors by the requirement that they are filed under.
    by_label: LabelMap,
    /// The same of those that ask for one namespace, by that: names of apps are the same in many namespaces.
    by_namespace: HashMap<Box<str>, LabelMap>,
    /// Selectors that cannot be filed.
    unfiled: BTreeSet<SelectorId>,
    identities: BTreeMap<u32, Identity>,
    identities_by_label: LabelMap,
}

#[derive(Clone, Debug)]
struct Used {
    selector: Selector,
    /// The aggregate that the selector was made for; it has no members then.
    aggregate: Option<u32>,
    members: BTreeSet<u32>,
    subject_of: BTreeSet<RuleId>,
    peer_of: BTreeSet<RuleId>,
}

#[derive(Clone, Debug)]
struct Identity {
    labels: Labels,
    matched: BTreeSet<SelectorId>,
}

impl Used {
    fn uses(&mut self, kind: Use) -> &mut BTreeSet<RuleId> {
        match kind {
            Use::Subject => &mut self.subject_of,
            Use::Peer => &mut self.peer_of,
        }
    }
}

impl Selectors {
    /// The number of a selector. A new one is matched with all identities; drop it again with [`Selectors::drop_unused`].
    pub(crate) fn intern(&mut self, selector: Selector) -> SelectorId {
        if let Some(id) = self.ids.get(&selector) {
            return *id;
        }
        let id = self.free_id();
        self.file(&selector, id, true);
        let members = self.matching(&selector);
        for number in &members {
            if let Some(identity) = self.identities.get_mut(number) {
                identity.matched.insert(id);
            }
        }
        self.ids.insert(selector.clone(), id);
        let aggregate = reserved::selected_aggregate(&selector);
        let used =
            Used { selector, aggregate, members, subject_of: BTreeSet::new(), peer_of: BTreeSet::new() };
        self.used.insert(id, used);
        id
    }

    /// Notes or forgets that a rule uses a selector.
    pub(crate) fn set_use(&mut self, id: SelectorId, kind: Use, rule: &RuleId, present: bool) {
        let Some(used) = self.used.get_mut(&id) else { return };
        if present {
            used.uses(kind).insert(rule.clone());
        } else {
            used.uses(kind).remove(rule);
        }
    }

    /// Forgets a selector that no rule uses.
    pub(crate) fn drop_unused(&mut self, id: SelectorId) {
        let in_use = |used: &Used| !(used.subject_of.is_empty() && used.peer_of.is_empty());
        if self.used.get(&id).is_none_or(in_use) {
            return;
        }
        let Some(used) = self.used.remove(&id) else { return };
        self.ids.remove(&used.selector);
        self.file(&used.selector, id, false);
        for number in &used.members {
            if let Some(identity) = self.identities.get_mut(number) {
                identity.matched.remove(&id);
            }
        }
    }

    /// Sets or removes the labels of an identity. Returns the selectors that match it now and did not before, or the other way.
    pub(crate) fn set_identity(&mut self, number: u32, labels: Option<Labels>) -> Vec<SelectorId> {
        let old = self.identities.remove(&number);
        if let Some(old) = &old {
            self.identities_by_label.set_identity(&old.labels, number, false);
        }
        let before = old.map(|old| old.matched).unwrap_or_default();
        let after = labels.as_ref().map(|labels| self.matched_by(labels)).unwrap_or_default();
        let changed: Vec<SelectorId> = before.symmetric_difference(&after).copied().collect();
        for id in &changed {
            self.set_member(*id, number, after.contains(id));
        }
        if let Some(labels) = labels {
            self.identities_by_label.set_identity(&labels, number, true);
            self.identities.insert(number, Identity { labels, matched: after });
        }
        changed
    }

    /// Labels of an identity.
    pub(crate) fn labels(&self, number: u32) -> Option<&Labels> {
        self.identities.get(&number).map(|identity| &identity.labels)
    }

    /// Selectors that match an identity.
    pub(crate) fn matched(&self, number: u32) -> Vec<SelectorId> {
        self.identities.get(&number).into_iter().flat_map(|identity| &identity.matched).copied().collect()
    }

    /// Numbers of all identities, in order.
    pub(crate) fn identities(&self) -> impl Iterator<Item = u32> {
        self.identities.keys().copied()
    }

    /// The selector behind a number.
    pub(crate) fn selector(&self, id: SelectorId) -> Option<&Selector> {
        self.used.get(&id).map(|used| &used.selector)
    }

    /// Identities that a selector matches, in order.
    pub(crate) fn members(&self, id: SelectorId) -> impl Iterator<Item = u32> {
        self.used.get(&id).into_iter().flat_map(|used| &used.members).copied()
    }

    /// The aggregate that a selector was made for.
    pub(crate) fn aggregate(&self, id: SelectorId) -> Option<u32> {
        self.used.get(&id)?.aggregate
    }

    /// Rules with a subject that matches the identity.
    pub(crate) fn rules_about(&self, number: u32) -> BTreeSet<&RuleId> {
        let matched = self.identities.get(&number).into_iter().flat_map(|identity| &identity.matched);
        matched.filter_map(|id| self.used.get(id)).flat_map(|used| &used.subject_of).collect()
    }

    /// Selectors of peers that match the identity.
    pub(crate) fn matched_peers(&self, number: u32) -> impl Iterator<Item = SelectorId> {
        let matched =
            self.identities.get(&number).into_iter().flat_map(|identity| &identity.matched).copied();
        matched.filter(|id| self.used.get(id).is_some_and(|used| !used.peer_of.is_empty()))
    }

    /// Rules that use a selector for peers.
    pub(crate) fn rules_with_peer(&self, id: SelectorId) -> impl Iterator<Item = &RuleId> {
        self.used.get(&id).into_iter().flat_map(|used| &used.peer_of)
    }

    /// Whether nothing is kept about any selector.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let unmatched = self.identities.values().all(|identity| identity.matched.is_empty());
        let unfiled = self.by_label.is_empty() && self.by_namespace.is_empty() && self.unfiled.is_empty();
        self.ids.is_empty() && self.used.is_empty() && unfiled && unmatched
    }

    fn free_id(&mut self) -> SelectorId {
        while self.used.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        id
    }

    fn file(&mut self, selector: &Selector, id: SelectorId, present: bool) {
        match (anchor(selector.requirements()), namespace(selector.requirements())) {
            (Some(requirement), None) => self.by_label.set_requirement(requirement, id, present),
            (Some(requirement), Some(namespace)) => {
                let map = self.by_namespace.entry(namespace.into()).or_default();
                map.set_requirement(requirement, id, present);
                if map.is_empty() {
                    self.by_namespace.remove(namespace);
                }
            }
            (None, _) if present => _ = self.unfiled.insert(id),
            (None, _) => _ = self.unfiled.remove(&id),
        }
    }

    fn set_member(&mut self, id: SelectorId, number: u32, present: bool) {
        let Some(used) = self.used.get_mut(&id) else { return };
        if present {
            used.members.insert(number);
        } else {
            used.members.remove(&number);
        }
    }

    /// Identities that a new selector matches: the candidates of its rarest requirement, each compared in full.
    pub(crate) fn matching(&self, selector: &Selector) -> BTreeSet<u32> {
        let positive = selector.requirements().iter().filter(|r| anchor(std::slice::from_ref(r)).is_some());
        let candidates = match positive.min_by_key(|r| self.identities_by_label.count_identities(r)) {
            Some(rarest) => self.identities_by_label.identities_for(rarest),
            None => self.identities.keys().copied().collect(),
        };
        let matches = |number: &u32| self.labels(*number).is_some_and(|labels| selector.matches(labels));
        candidates.into_iter().filter(matches).collect()
    }

    /// Selectors that match labels.
    fn matched_by(&self, labels: &Labels) -> BTreeSet<SelectorId> {
        let namespaces = labels.iter().filter(|label| *label.key == *NAMESPACE);
        let maps = namespaces.filter_map(|label| self.by_namespace.get(&label.value)).chain([&self.by_label]);
        let filed = maps.flat_map(|map| labels.iter().flat_map(|label| map.selectors_for(label)));
        let candidates: BTreeSet<SelectorId> = filed.chain(self.unfiled.iter().copied()).collect();
        let matches = |id: &SelectorId| self.used.get(id).is_some_and(|used| used.selector.matches(labels));
        candidates.into_iter().filter(matches).collect()
    }
}
