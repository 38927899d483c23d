//! The versions of policies that are in force, on record.
//!
//! When a policy is edited and the new version is refused, the last valid one stays in force. A restarted operator finds
//! only the refused one in the API, so what is in force has to be written down: in slices with an owner of their own, which no
//! agent reads. They are packed like parts, with the name of the policy as key.

use std::collections::BTreeMap;

use cilium_api::parts::PartKey;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_policy::reduce::Settings;
use cilium_policy::{Invalid, PolicyKey, PolicyRules, reduce};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::pack::Text;

/// Owner of these slices, in their names.
pub(crate) const OWNER: &str = "policy";
/// Owner label of slices with versions of policies that are in force. No node can have this name: node names are lower case.
pub const OWNER_LABEL: &str = "OPERATOR";

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
    pub(crate) generation: i64,
    pub(crate) rules: PolicyRules,
    pub(crate) text: Text,
}

/// Key under which a policy is kept.
pub(crate) fn part_key(key: &PolicyKey) -> PartKey {
    PartKey(key.as_str().into())
}

/// The text that is kept of a policy.
pub(crate) fn cnp_text(policy: &CiliumNetworkPolicy) -> Text {
    let CiliumNetworkPolicy { spec, specs, .. } = policy.clone();
    let metadata = identifying(&policy.metadata);
    let kept = CiliumNetworkPolicy { metadata, spec, specs, ..CiliumNetworkPolicy::default() };
    encode(&reduce::cnp_key(policy), &Kept::Cnp(kept))
}

/// The text that is kept of a policy.
pub(crate) fn ccnp_text(policy: &CiliumClusterwideNetworkPolicy) -> Text {
    let CiliumClusterwideNetworkPolicy { spec, specs, .. } = policy.clone();
    let metadata = identifying(&policy.metadata);
    let kept =
        CiliumClusterwideNetworkPolicy { metadata, spec, specs, ..CiliumClusterwideNetworkPolicy::default() };
    encode(&reduce::ccnp_key(policy), &Kept::Ccnp(kept))
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

fn encode(key: &PolicyKey, kept: &Kept) -> Text {
    let encoded = serde_json::to_string(key.as_str())
        .and_then(|key| Ok(format!("{key}:{}", serde_json::to_string(kept)?)));
    encoded.expect("a policy that was read from JSON has a JSON form").into()
}

/// The policies in the content of a slice.
///
/// # Errors
/// The content is none of ours.
pub(crate) fn decode(data: &str) -> Result<BTreeMap<String, Kept>, serde_json::Error> {
    serde_json::from_str(data)
}

impl Kept {
    /// Name of the policy.
    pub(crate) fn key(&self) -> PolicyKey {
        match self {
            Self::Cnp(policy) => reduce::cnp_key(policy),
            Self::Ccnp(policy) => reduce::ccnp_key(policy),
        }
    }

    /// UID of the policy.
    pub(crate) fn uid(&self) -> &str {
        let metadata = match self {
            Self::Cnp(policy) => &policy.metadata,
            Self::Ccnp(policy) => &policy.metadata,
        };
        metadata.uid.as_deref().unwrap_or_default()
    }

    /// Makes it ready to be put in force.
    ///
    /// # Errors
    /// This version of the operator refuses what an earlier one took.
    pub(crate) fn load<'a>(&'a self, settings: impl Into<Settings<'a>>) -> Result<Loaded, Invalid> {
        let settings = settings.into();
        let (generation, rules, text) = match self {
            Self::Cnp(policy) => {
                (policy.metadata.generation, reduce::cnp(policy, settings)?, cnp_text(policy))
            }
            Self::Ccnp(policy) => {
                (policy.metadata.generation, reduce::ccnp(policy, settings)?, ccnp_text(policy))
            }
        };
        Ok(Loaded { generation: generation.unwrap_or(0), rules, text })
    }
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
        let kept = decode(&format!("{{{text}}}")).unwrap();
        let kept = &kept["cnp/default/rule1"];
        assert_eq!((kept.key(), kept.uid()), (PolicyKey::cnp("default", "rule1"), "u"));
        let loaded = kept.load("default").unwrap();
        assert_eq!((loaded.generation, loaded.text), (3, text));
        assert_eq!(loaded.rules, reduce::cnp(&policy, "default").unwrap());
        assert!(decode("[]").is_err());
    }
}
