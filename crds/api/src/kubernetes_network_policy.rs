//! networking.k8s.io/v1 NetworkPolicy, reduced to the fields that decide. Kubernetes' own kind: not installed by us, and without
//! a status.
//!
//! Lists that are absent, empty or `null` mean the same here, so none of them is an `Option`. Field names follow the Kubernetes
//! API reference (networking.k8s.io/v1).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::selector::LabelSelector;
use crate::slim::{null_as_empty, resource};

resource!(
    NetworkPolicy,
    kube_core::NamespaceResourceScope,
    "networking.k8s.io",
    "v1",
    "NetworkPolicy",
    "networkpolicies"
);

/// A policy for pods of one namespace, which only allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Name, namespace, uid, generation.
    pub metadata: ObjectMeta,
    /// What is allowed.
    pub spec: NetworkPolicySpec,
}

/// See [`NetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Pods of the namespace that the policy is about; empty selects all of them.
    pub pod_selector: LabelSelector,
    /// What may come in.
    #[serde(deserialize_with = "null_as_empty")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(deserialize_with = "null_as_empty")]
    pub egress: Vec<EgressRule>,
    /// `Ingress`, `Egress`: directions that are closed even without a rule.
    #[serde(deserialize_with = "null_as_empty")]
    pub policy_types: Vec<String>,
}

/// Traffic that may come in: from one of the peers on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Any peer when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub from: Vec<Peer>,
    /// All ports and protocols when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<Port>,
}

/// Traffic that may go out: to one of the peers on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// Any peer when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub to: Vec<Peer>,
    /// All ports and protocols when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<Port>,
}

/// A peer: pods by selectors, or addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Pods with these labels; of the policy's namespace, unless `namespace_selector` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Pods of namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses, whoever has them; excludes the selectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Addresses of a prefix but for those of others inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// Prefix, `address/length`.
    pub cidr: String,
    /// Prefixes inside that are left out.
    #[serde(deserialize_with = "null_as_empty")]
    pub except: Vec<String>,
}

/// Destination ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Number, or name of a container port of the destination; every port when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Last port of a range that begins with the number `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i32>,
}
