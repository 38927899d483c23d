//! Policies: which version of each is in force, and why not the present one.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::policy_status::PolicyStatus;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_policy::{Invalid, PolicyIndex, PolicyKey, PolicyRules, reduce};

use crate::last_valid;
use crate::ledger::Ledger;
use crate::object::{Kind, ObjectKey, UnreadablePolicy};
use crate::planner::Planner;

/// All policies of both kinds.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) index: PolicyIndex,
    pub(crate) all: BTreeMap<PolicyKey, Policy>,
    /// Policies of which another version is in force than at the last plan.
    pub(crate) changed: BTreeSet<PolicyKey>,
    pub(crate) statuses: Ledger<PolicyStatus>,
    /// Slices that keep the last valid version of policies which are invalid now.
    pub(crate) kept: BTreeMap<String, PolicyKey>,
}

/// A policy object.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) uid: String,
    /// 0 when the object has none.
    pub(crate) generation: i64,
    /// Why this generation is not in force.
    pub(crate) refusal: Option<Refusal>,
    /// What is in force: this generation, or the last valid one before it.
    pub(crate) in_force: Option<Version>,
}

/// A valid version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) generation: i64,
    /// The object, so that a later start can put this version in force though the object has another one by then.
    pub(crate) text: Box<str>,
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
    content: Result<(PolicyRules, Box<str>), Refusal>,
}

impl Policies {
    pub(crate) fn new(config: cilium_policy::Config) -> Self {
        Self {
            index: PolicyIndex::new(config),
            all: BTreeMap::new(),
            changed: BTreeSet::new(),
            statuses: Ledger::default(),
            kept: BTreeMap::new(),
        }
    }

    /// Whether a generation was looked at already: then only metadata or status changed.
    fn has(&self, key: &PolicyKey, uid: Option<&String>, generation: Option<i64>) -> bool {
        let known = self.all.get(key);
        known.is_some_and(|known| uid == Some(&known.uid) && generation == Some(known.generation))
    }
}

/// The object that a key stands for.
pub(crate) fn object_key(key: &PolicyKey) -> ObjectKey {
    let mut parts = key.as_str().splitn(3, '/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => ObjectKey::namespaced(Kind::NetworkPolicy, namespace, name),
        (name, _) => ObjectKey::cluster(Kind::ClusterwideNetworkPolicy, name.unwrap_or_default()),
    }
}

/// The key of an object of one of the two kinds.
pub(crate) fn policy_key(object: &ObjectKey) -> PolicyKey {
    match object.kind {
        Kind::ClusterwideNetworkPolicy => PolicyKey::ccnp(&object.name),
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
            reduce::cnp(policy, &self.config.cluster).map(|rules| (rules, last_valid::cnp_text(policy)));
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
            reduce::ccnp(policy, &self.config.cluster).map(|rules| (rules, last_valid::ccnp_text(policy)));
        let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
        self.put_policy(Found { key, object, uid, generation, content: content.map_err(Refusal::from) });
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
        let kept = before.and_then(|before| before.in_force);
        let (rules, refusal, in_force) = match content {
            Ok((rules, text)) => (Some(rules), None, Some(Version { generation, text })),
            Err(refusal) => (None, Some(refusal), kept),
        };
        if rules.is_some() || in_force.is_none() {
            self.policies.index.set_policy(&key, rules);
            self.policies.changed.insert(key.clone());
        }
        let is_kept = refusal.is_some() && in_force.is_some();
        self.policies.all.insert(key.clone(), Policy { uid, generation, refusal, in_force });
        self.keep_version(&key, is_kept);
        self.policies.statuses.touch(object);
    }

    pub(crate) fn forget_policy(&mut self, object: &ObjectKey) {
        let key = policy_key(object);
        self.policies.statuses.forget(object);
        self.policies.all.remove(&key);
        self.policies.index.set_policy(&key, None);
        self.policies.changed.insert(key.clone());
        self.keep_version(&key, false);
        let token = crate::node::Token::Policy(key);
        self.nodes.iter_mut().for_each(|(_, entry)| entry.state.drop_token(&token));
    }

    /// Writes or removes the slice that keeps the last valid version.
    pub(crate) fn keep_version(&mut self, key: &PolicyKey, keep: bool) {
        let name = last_valid::slice_name(key);
        if keep {
            self.policies.kept.insert(name.clone(), key.clone());
        } else if self.policies.kept.remove(&name).is_none() {
            return;
        }
        self.slices.touch(ObjectKey::cluster(Kind::Slice, &name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_objects_name_each_other() {
        for key in [PolicyKey::cnp("default", "rule1"), PolicyKey::ccnp("rule1")] {
            assert_eq!(policy_key(&object_key(&key)), key);
        }
    }
}
