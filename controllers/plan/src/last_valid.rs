//! The last valid version of a policy whose present one is refused.
//!
//! It stays in force, also when the operator starts again, so it has to be written down: in a slice with an owner of its
//! own, which no agent reads, for as long as the policy is invalid.

use cilium_api::digest::digest;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_policy::{Invalid, PolicyKey, PolicyRules, reduce};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Owner of these slices, in their names.
pub(crate) const OWNER: &str = "policy";
/// Their owner label. No node can have this name: node names are lower case.
pub(crate) const OWNER_LABEL: &str = "OPERATOR";

/// Name of the slice for a policy. Names of policies are too long to stand in it.
pub(crate) fn slice_name(key: &PolicyKey) -> String {
    format!("{OWNER}.{}", &digest(key.as_str().as_bytes())[..32])
}

/// A policy with what is needed to put it in force again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kept {
    /// Of one namespace.
    Cnp(CiliumNetworkPolicy),
    /// Of all namespaces.
    Ccnp(CiliumClusterwideNetworkPolicy),
}

/// A kept version, ready to be put in force.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) key: PolicyKey,
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) rules: PolicyRules,
}

/// The text that is kept of a policy.
pub(crate) fn cnp_text(policy: &CiliumNetworkPolicy) -> Box<str> {
    let CiliumNetworkPolicy { spec, specs, .. } = policy.clone();
    let metadata = identifying(&policy.metadata);
    encode(&Kept::Cnp(CiliumNetworkPolicy { metadata, spec, specs, ..CiliumNetworkPolicy::default() }))
}

/// The text that is kept of a policy.
pub(crate) fn ccnp_text(policy: &CiliumClusterwideNetworkPolicy) -> Box<str> {
    let CiliumClusterwideNetworkPolicy { spec, specs, .. } = policy.clone();
    let metadata = identifying(&policy.metadata);
    encode(&Kept::Ccnp(CiliumClusterwideNetworkPolicy {
        metadata,
        spec,
        specs,
        ..CiliumClusterwideNetworkPolicy::default()
    }))
}

fn identifying(meta: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        generation: meta.generation,
        ..ObjectMeta::default()
    }
}

fn encode(kept: &Kept) -> Box<str> {
    serde_json::to_string(kept).expect("a policy that was read from JSON has a JSON form").into()
}

/// Reads a kept version; `Err(None)` if the text is none of ours.
pub(crate) fn load(text: &str, cluster: &str) -> Result<Loaded, Option<Invalid>> {
    let kept: Kept = serde_json::from_str(text).map_err(|_| None)?;
    let (key, meta, rules) = match &kept {
        Kept::Cnp(policy) => (reduce::cnp_key(policy), &policy.metadata, reduce::cnp(policy, cluster)),
        Kept::Ccnp(policy) => (reduce::ccnp_key(policy), &policy.metadata, reduce::ccnp(policy, cluster)),
    };
    let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
    Ok(Loaded { key, uid, generation, rules: rules.map_err(Some)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kept_version_loads_as_it_was() {
        let object = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "rule1", "namespace": "default", "uid": "u", "generation": 3, "labels": {"a": "b"}},
            "spec": {"endpointSelector": {"matchLabels": {"a": "b"}}, "ingress": [{}]},
            "status": {"enforced": "1/1"},
        });
        let policy: CiliumNetworkPolicy = serde_json::from_value(object).unwrap();
        let text = cnp_text(&policy);
        assert!(!text.contains("enforced") && !text.contains("labels\":{\"a"), "{text}");
        let loaded = load(&text, "default").unwrap();
        assert_eq!(
            (loaded.key, loaded.generation, &*loaded.uid),
            (PolicyKey::cnp("default", "rule1"), 3, "u")
        );
        assert_eq!(loaded.rules, reduce::cnp(&policy, "default").unwrap());
        assert!(load("{}", "default").is_err());
    }

    #[test]
    fn names_of_slices_differ_between_policies() {
        let names = [PolicyKey::cnp("a", "b"), PolicyKey::ccnp("b")].map(|key| slice_name(&key));
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() < 64 && name.starts_with("policy.")));
    }
}
