//! Policies: which version of each is in force, and why not the present one.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::policy_status::PolicyStatus;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_policy::{Invalid, PolicyIndex, PolicyKey, PolicyRules, reduce};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::delayed::Delayed;
use crate::last_valid;
use crate::ledger::Ledger;
use crate::object::{Kind, ObjectKey, UnreadablePolicy};
use crate::pack::Text;
use crate::planner::Planner;
use crate::prefixes::Holder;

/// All policies of all kinds.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) index: PolicyIndex,
    pub(crate) all: BTreeMap<PolicyKey, Policy>,
    /// Policies of which another version is in force than at the last plan.
    pub(crate) changed: BTreeSet<PolicyKey>,
    pub(crate) statuses: Ledger<PolicyStatus>,
    /// Policies of identities compiled so far.
    pub(crate) compilations: u64,
    /// Statuses that wait before they are written, and until when.
    pub(crate) delayed: Delayed,
}

/// A policy object.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) uid: String,
    /// 0 when the object has none.
    pub(crate) generation: i64,
    /// Why this generation is not in force.
    pub(crate) refusal: Option<Refusal>,
    /// The generation that is in force: this one, or the last valid one before it.
    pub(crate) in_force: Option<i64>,
}

/// Why a policy is not put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One word.
    pub(crate) reason: &'static str,
    /// Field and reason, as a sentence.
    pub(crate) message: String,
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self { reason: invalid.kind.as_str(), message: invalid.to_string() }
    }
}

/// A policy object as it was observed, of either kind.
struct Found {
    key: PolicyKey,
    object: ObjectKey,
    uid: String,
    generation: i64,
    content: Result<(PolicyRules, Text), Refusal>,
}

impl Policies {
    pub(crate) fn new(config: cilium_policy::Config) -> Self {
        Self {
            index: PolicyIndex::new(config),
            all: BTreeMap::new(),
            changed: BTreeSet::new(),
            statuses: Ledger::default(),
            compilations: 0,
            delayed: Delayed::default(),
        }
    }

    /// Whether the policy is refused, has no version in force, and may be the object with this UID.
    pub(crate) fn lacks_version(&self, key: &PolicyKey, uid: &str) -> bool {
        self.all.get(key).is_some_and(|policy| {
            // An object that does not parse does not tell its UID.
            let is_same = policy.uid.is_empty() || policy.uid == uid;
            policy.refusal.is_some() && policy.in_force.is_none() && is_same
        })
    }

    /// Whether a generation was looked at already: then only metadata or status changed.
    fn has(&self, key: &PolicyKey, uid: Option<&String>, generation: Option<i64>) -> bool {
        let known = self.all.get(key);
        known.is_some_and(|known| uid == Some(&known.uid) && generation == Some(known.generation))
    }
}

/// The object that a key stands for.
pub(crate) fn object_key(key: &PolicyKey) -> ObjectKey {
    let mut parts = key.as_str().splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("netpol"), Some(namespace), Some(name)) => {
            ObjectKey::namespaced(Kind::KubernetesNetworkPolicy, namespace, name)
        }
        (Some("clusternetpol"), Some(name), _) => ObjectKey::cluster(Kind::ClusterNetworkPolicy, name),
        (_, Some(namespace), Some(name)) => ObjectKey::namespaced(Kind::NetworkPolicy, namespace, name),
        (_, name, _) => ObjectKey::cluster(Kind::ClusterwideNetworkPolicy, name.unwrap_or_default()),
    }
}

/// The key of an object of one of the kinds of policies.
pub(crate) fn policy_key(object: &ObjectKey) -> PolicyKey {
    match object.kind {
        Kind::ClusterwideNetworkPolicy => PolicyKey::ccnp(&object.name),
        Kind::ClusterNetworkPolicy => PolicyKey::clusternetpol(&object.name),
        Kind::KubernetesNetworkPolicy => PolicyKey::netpol(&object.namespace, &object.name),
        _ => PolicyKey::cnp(&object.namespace, &object.name),
    }
}

impl Planner {
    pub(crate) fn observe_cnp(&mut self, policy: &CiliumNetworkPolicy) {
        let (key, meta) = (reduce::cnp_key(policy), &policy.metadata);
        let object = object_key(&key);
        if !self.observe_status(&object, policy.status.as_ref(), meta.resource_version.as_deref())
            || self.policies.has(&key, meta.uid.as_ref(), meta.generation)
        {
            return;
        }
        let content =
            reduce::cnp(policy, self.config.settings()).map(|rules| (rules, last_valid::cnp_text(policy)));
        let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
        self.put_policy(Found { key, object, uid, generation, content: content.map_err(Refusal::from) });
    }

    pub(crate) fn observe_ccnp(&mut self, policy: &CiliumClusterwideNetworkPolicy) {
        let (key, meta) = (reduce::ccnp_key(policy), &policy.metadata);
        let object = object_key(&key);
        if !self.observe_status(&object, policy.status.as_ref(), meta.resource_version.as_deref())
            || self.policies.has(&key, meta.uid.as_ref(), meta.generation)
        {
            return;
        }
        let content =
            reduce::ccnp(policy, self.config.settings()).map(|rules| (rules, last_valid::ccnp_text(policy)));
        let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
        self.put_policy(Found { key, object, uid, generation, content: content.map_err(Refusal::from) });
    }

    /// Kubernetes' own policies are in force as they are: what is not understood grants nothing, and is told in an Event, as
    /// there is no status of ours.
    pub(crate) fn observe_netpol(&mut self, policy: &NetworkPolicy) {
        let (key, meta) = (reduce::netpol_key(policy), &policy.metadata);
        if self.policies.has(&key, meta.uid.as_ref(), meta.generation) {
            return;
        }
        let (rules, notes) = reduce::netpol(policy, &self.config.cluster);
        let notes = notes.into_iter().map(|note| format!("grants nothing: {note}"));
        self.put_as_it_is(key, meta, rules, notes);
    }

    /// The same of policies with an order: a note says what becomes of the part that it is about.
    pub(crate) fn observe_clusternetpol(&mut self, policy: &ClusterNetworkPolicy) {
        let (key, meta) = (reduce::clusternetpol_key(policy), &policy.metadata);
        if self.policies.has(&key, meta.uid.as_ref(), meta.generation) {
            return;
        }
        let (rules, notes) = reduce::clusternetpol(policy, self.config.settings());
        self.put_as_it_is(key, meta, rules, notes.iter().map(Invalid::to_string));
    }

    fn put_as_it_is(
        &mut self,
        key: PolicyKey,
        meta: &ObjectMeta,
        rules: PolicyRules,
        notes: impl Iterator<Item = String>,
    ) {
        let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
        for note in notes {
            self.warn(object_key(&key), Some(&uid), "NotUnderstood", &note);
        }
        self.put_rules(&key, Some(rules));
        let in_force = Some(generation);
        self.policies.all.insert(key, Policy { uid, generation, refusal: None, in_force });
    }

    pub(crate) fn observe_unreadable(&mut self, policy: &UnreadablePolicy) {
        let UnreadablePolicy { key: object, generation, resource_version, reason } = policy;
        let key = policy_key(object);
        // Its status does not parse either: what was written last is taken to stand.
        let known = self.policies.statuses.stored(object).cloned();
        if !self.observe_status(object, known.as_ref(), resource_version.as_deref()) {
            return;
        }
        // Nor does it tell whether it is the object of before, so a version of that stays.
        let uid = self.policies.all.get(&key).map(|known| known.uid.clone()).unwrap_or_default();
        let refusal =
            Refusal { reason: "Unreadable", message: format!("the object does not parse: {reason}") };
        self.put_policy(Found {
            key,
            object: object.clone(),
            uid,
            generation: *generation,
            content: Err(refusal),
        });
    }

    fn observe_status(
        &mut self,
        object: &ObjectKey,
        status: Option<&PolicyStatus>,
        version: Option<&str>,
    ) -> bool {
        self.policies.statuses.observe(object, status.cloned().unwrap_or_default(), version, None)
    }

    fn put_policy(&mut self, found: Found) {
        let Found { key, object, uid, generation, content } = found;
        let before = self.policies.all.remove(&key).filter(|before| before.uid == uid || uid.is_empty());
        let (refusal, in_force) = match content {
            Ok((rules, text)) => {
                self.put_version(&key, Some((rules, text)));
                (None, Some(generation))
            }
            Err(refusal) => (Some(refusal), before.and_then(|before| before.in_force)),
        };
        if in_force.is_none() {
            self.put_version(&key, None);
        }
        self.policies.all.insert(key, Policy { uid, generation, refusal, in_force });
        self.policies.statuses.touch(object);
    }

    pub(crate) fn forget_policy(&mut self, object: &ObjectKey) {
        let key = policy_key(object);
        self.policies.statuses.forget(object);
        self.policies.all.remove(&key);
        let nodes = self.nodes_with(&self.policies.index.selected(&key));
        self.put_version(&key, None);
        let token = crate::node::Token::Policy(key);
        // A node that has lost the endpoints it was about meanwhile may still hold the token: until it confirms, and nobody asks.
        nodes.iter().for_each(|node| self.node_mut(node).state.drop_token(&token));
    }

    /// Puts a version in force and on record, or takes the policy out of force.
    pub(crate) fn put_version(&mut self, key: &PolicyKey, version: Option<(PolicyRules, Text)>) {
        let (rules, text) = version.unzip();
        let rules = self.resolve(key, rules);
        self.put_rules(key, rules);
        self.kept.set_text(&last_valid::part_key(key), text);
    }

    /// Puts rules in force that have no references.
    pub(crate) fn put_rules(&mut self, key: &PolicyKey, rules: Option<PolicyRules>) {
        let prefixes = rules.as_ref().map(PolicyRules::prefixes).unwrap_or_default();
        self.prefixes.set_holder(&Holder::Policy(key.clone()), prefixes);
        let groups = rules.as_ref().map(PolicyRules::groups).unwrap_or_default();
        self.set_groups_of(key, &groups);
        self.policies.index.set_policy(key, rules);
        self.policies.changed.insert(key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_objects_name_each_other() {
        for key in [
            PolicyKey::cnp("default", "rule1"),
            PolicyKey::ccnp("rule1"),
            PolicyKey::netpol("default", "rule1"),
            PolicyKey::clusternetpol("rule1"),
        ] {
            assert_eq!(policy_key(&object_key(&key)), key);
        }
    }
}
