//! policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy, reduced to the fields that decide. A kind of SIG Network: its definition is
//! installed by whoever wants it, and its status is not ours.
//!
//! Lists that are absent, empty or `null` mean the same here. Field names follow the API's reference
//! (network-policy-api.sigs.k8s.io).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::selector::LabelSelector;
use crate::slim::{null_as_empty, resource};

resource!(
    ClusterNetworkPolicy,
    kube_core::ClusterResourceScope,
    "policy.networking.k8s.io",
    "v1alpha2",
    "ClusterNetworkPolicy",
    "clusternetworkpolicies"
);

/// Rules in an order, before or behind all policies of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicy {
    /// Name, uid, generation.
    pub metadata: ObjectMeta,
    /// What it decides.
    pub spec: ClusterNetworkPolicySpec,
}

/// See [`ClusterNetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin`: before other policies; `Baseline`: where these say nothing.
    pub tier: String,
    /// 0 to 1000; the lower goes first within the tier.
    pub priority: i32,
    /// Whom it is about.
    pub subject: Subject,
    /// What comes in. The first rule that matches decides.
    #[serde(deserialize_with = "null_as_empty")]
    pub ingress: Vec<IngressRule>,
    /// What goes out. The first rule that matches decides.
    #[serde(deserialize_with = "null_as_empty")]
    pub egress: Vec<EgressRule>,
}

/// Pods, never nodes. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// All pods of namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods by their labels and those of their namespaces; an empty selector takes all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespacedPod {
    /// Labels of namespaces.
    pub namespace_selector: LabelSelector,
    /// Labels of pods.
    pub pod_selector: LabelSelector,
}

/// What is done with traffic that comes in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Where it comes from.
    #[serde(deserialize_with = "null_as_empty")]
    pub from: Vec<Peer>,
    /// All protocols and ports when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub protocols: Vec<Protocol>,
}

/// What is done with traffic that goes out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Where it goes to.
    #[serde(deserialize_with = "null_as_empty")]
    pub to: Vec<Peer>,
    /// All protocols and ports when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub protocols: Vec<Protocol>,
}

/// A peer. Exactly one field is given; none that is known: the object is of a later version of the API. The last three are for what
/// goes out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// All pods of namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Nodes with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Prefixes, `address/length`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub networks: Vec<String>,
    /// Names, or `*.` before a name for all below it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub domain_names: Vec<String>,
}

/// Some traffic. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Protocol {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Destination>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<Destination>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<Destination>,
    /// Name of a container port of the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// What of a protocol is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// Every port when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Port>,
}

/// A port or several. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// One port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    /// Several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// Ports from one to another, inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// First port.
    pub start: i32,
    /// Last port.
    pub end: i32,
}
