//! `CiliumL2AnnouncementPolicy`: which nodes make addresses of Services known on the networks that they are attached to.

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::definition::{ALPHA, ApiVersion, Column, Definition, resource};
use crate::schema;
use crate::selector::LabelSelector;

/// Name of the Secret, in the namespace of operator and agents, with the key by which agents know each other's heartbeats.
pub const HEARTBEAT_SECRET: &str = "cilium-l2-heartbeat";
/// Its entry with the key.
pub const HEARTBEAT_ENTRY: &str = "key";
/// Bytes of the key (SipHash).
pub const HEARTBEAT_KEY: usize = 16;

/// Most addresses that a status names.
pub const MAX_ADDRESSES: usize = 20;

/// Most Services that a status names with one address.
pub const MAX_SERVICES: usize = 5;

const DEFINITION: Definition = Definition {
    kind: "CiliumL2AnnouncementPolicy",
    version: ALPHA,
    plural: "ciliuml2announcementpolicies",
    singular: "ciliuml2announcementpolicy",
    short_names: &["l2announcement"],
    categories: &["cilium"],
    namespaced: false,
    status_subresource: true,
    columns: &[
        Column::age(),
        Column::wide_integer("Addresses", ".status.addressCount"),
        Column::wide_integer("Nodes", ".status.nodeCount"),
        Column::wide("Effective", ".status.conditions[?(@.type=='Effective')].status"),
    ],
};

/// Nodes that answer for addresses of Services, as if these were their own (ARP, RFC 826; Neighbor Discovery, RFC 4861).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumL2AnnouncementPolicy {
    /// Always `cilium.io/v2alpha1`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion<true>,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Which addresses, and which nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<L2AnnouncementSpec>,
    /// What became of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<L2AnnouncementStatus>,
}

/// Content of a [`CiliumL2AnnouncementPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementSpec {
    /// Nodes that announce, by their labels; all of them if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Services whose addresses are announced, by their labels; all of them if absent. The keys `io.kubernetes.service.namespace` and
    /// `io.kubernetes.service.name` stand for namespace and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Announce addresses of load balancers (`status.loadBalancer.ingress`). No if absent.
    #[serde(rename = "loadBalancerIPs", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ips: Option<bool>,
    /// Announce external addresses (`spec.externalIPs`). No if absent.
    #[serde(rename = "externalIPs", skip_serializing_if = "Option::is_none")]
    pub external_ips: Option<bool>,
    /// Devices on which nodes announce: regular expressions, one of which their name has to match somewhere. All devices if absent or
    /// empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
}

/// What became of a [`CiliumL2AnnouncementPolicy`]. Its size does not grow with the number of addresses or nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementStatus {
    /// Observations. Type Valid says whether the policy is put in force, type Effective whether all of it has an effect, type Enforced
    /// whether the nodes have it in force; and if not, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(transform = schema::meta_conditions)]
    pub conditions: Option<Vec<Condition>>,
    /// The first of the addresses, in order, with the node that answers for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub addresses: Option<Vec<AnnouncedAddress>>,
    /// Number of all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_count: Option<i64>,
    /// Number of nodes that answer for any of them, or would in place of another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_count: Option<i64>,
}

/// An address that is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedAddress {
    /// The address.
    pub address: String,
    /// The node that answers for it; absent when there is none, and where Leases say which one it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Services that have it, as `namespace/name`, at most five.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub services: Vec<String>,
}

resource!(CiliumL2AnnouncementPolicy, ClusterResourceScope, DEFINITION);
