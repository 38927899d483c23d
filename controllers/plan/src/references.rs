//! Policies that mean something else when other objects change.

use std::collections::{BTreeMap, BTreeSet};

use cilium_core::{Label, Labels, Selector};
use cilium_policy::{Backends, Catalog, PolicyKey, PolicyRules, Reference, Services, Which};
use cilium_services::{Described, ServiceName, Target};

use crate::planner::Planner;

/// Policies in force that have references, and which of them have to be resolved again.
#[derive(Debug, Default)]
pub(crate) struct References {
    by_policy: BTreeMap<PolicyKey, PolicyRules>,
    /// Services that policies with references to some are about.
    services: BTreeMap<PolicyKey, BTreeSet<ServiceName>>,
    dirty: BTreeSet<PolicyKey>,
}

impl References {
    fn set(&mut self, key: &PolicyKey, rules: Option<&PolicyRules>) {
        self.dirty.remove(key);
        match rules.filter(|rules| rules.has_references()) {
            Some(rules) => drop(self.by_policy.insert(key.clone(), rules.clone())),
            None => drop(self.by_policy.remove(key)),
        }
    }

    /// A group came, went, or has other labels.
    pub(crate) fn groups_changed(&mut self) {
        let is_about = |reference: &Reference| matches!(reference, Reference::Groups { .. });
        let about = self.by_policy.iter().filter(|(_, rules)| rules.references().any(is_about));
        self.dirty.extend(about.map(|(key, _)| key.clone()));
    }
}

impl References {
    /// Services mean something else than before.
    fn services_changed(&mut self, changed: &BTreeSet<ServiceName>, known: &cilium_services::Services) {
        let is_about = |key: &PolicyKey, rules: &PolicyRules| {
            let before = self.services.get(key);
            changed.iter().any(|name| {
                before.is_some_and(|names| names.contains(name))
                    || rules.references().any(|reference| means(reference, name, known.describe(name)))
            })
        };
        let about = self.by_policy.iter().filter(|(key, rules)| is_about(key, rules));
        self.dirty.extend(about.map(|(key, _)| key.clone()));
    }

    /// Notes which Services a policy is about.
    fn note_services(&mut self, key: &PolicyKey, known: &cilium_services::Services) {
        let Some(rules) = self.by_policy.get(key) else { return drop(self.services.remove(key)) };
        let all = rules.references().flat_map(|reference| match reference {
            Reference::Services(wanted) => services(wanted, known),
            Reference::Groups { .. } => Vec::new(),
        });
        let names: BTreeSet<ServiceName> = all.collect();
        if names.is_empty() {
            self.services.remove(key);
        } else {
            self.services.insert(key.clone(), names);
        }
    }
}

/// Whether a reference is about a Service that exists.
fn means(reference: &Reference, name: &ServiceName, described: Option<&Described>) -> bool {
    let (Reference::Services(wanted), Some(described)) = (reference, described) else { return false };
    let namespace = wanted.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace);
    namespace
        && match &wanted.which {
            Which::Named(wanted) => *wanted == name.name,
            Which::Labelled(selector) => selector.matches(&labels(described)),
        }
}

fn labels(described: &Described) -> Labels {
    described.labels.iter().map(|(key, value)| Label::k8s(key, value)).collect()
}

/// Services that are meant, in order.
fn services(wanted: &Services, known: &cilium_services::Services) -> Vec<ServiceName> {
    let reference = Reference::Services(wanted.clone());
    match (&wanted.namespace, &wanted.which) {
        (Some(namespace), Which::Named(name)) => {
            let name = ServiceName::new(namespace, name);
            known.describe(&name).map(|_| name).into_iter().collect()
        }
        _ => {
            let all = known.described().filter(|(name, it)| means(&reference, name, Some(it)));
            all.map(|(name, _)| name.clone()).collect()
        }
    }
}

fn backends(name: &ServiceName, target: Target<'_>) -> Backends {
    match target {
        Target::Pods(labels) => Backends::Pods { namespace: name.namespace.clone(), labels: labels.clone() },
        Target::Addresses(addresses) => Backends::Addresses(addresses),
    }
}

impl Catalog for Planner {
    fn groups(&self, selector: &Selector) -> Vec<String> {
        self.groups.matching(selector)
    }

    fn services(&self, wanted: &Services) -> Vec<Backends> {
        let names = services(wanted, &self.services).into_iter();
        names.filter_map(|name| Some(backends(&name, self.services.target(&name)?))).collect()
    }

    fn cluster(&self) -> &str {
        &self.config.cluster
    }
}

impl Planner {
    /// Notes which references a policy has as it is in force now, and gives the rules without them.
    pub(crate) fn resolve(&mut self, key: &PolicyKey, rules: Option<PolicyRules>) -> Option<PolicyRules> {
        self.references.set(key, rules.as_ref());
        self.references.note_services(key, &self.services);
        rules.map(|rules| rules.resolved(self))
    }

    /// Resolves again what the changes since the last plan can have changed.
    pub(crate) fn follow_references(&mut self) {
        let changed = self.services.take_changed_targets();
        self.references.services_changed(&changed, &self.services);
        for key in std::mem::take(&mut self.references.dirty) {
            let Some(rules) = self.references.by_policy.get(&key) else { continue };
            let resolved = rules.clone().resolved(self);
            self.references.note_services(&key, &self.services);
            self.put_rules(&key, Some(resolved));
        }
    }
}
