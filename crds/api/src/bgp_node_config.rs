//! `CiliumBGPNodeConfig`: the BGP routers of one node, as the operator has put them together, and how their sessions are.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bgp_cluster_config::{AutoDiscovery, PeerConfigRef};
use crate::bgp_peer_config::{Afi, Safi};
use crate::condition::Condition;
use crate::definition::{ApiVersion, Column, Definition, VERSION, also_served, resource};
use crate::schema;

const DEFINITION: Definition = Definition {
    kind: "CiliumBGPNodeConfig",
    version: VERSION,
    plural: "ciliumbgpnodeconfigs",
    singular: "ciliumbgpnodeconfig",
    short_names: &["cbgpnode"],
    categories: &["cilium", "ciliumbgp"],
    namespaced: false,
    status_subresource: true,
    columns: &[Column::age()],
};

/// The BGP routers of a node, by its name. Written by the operator (spec) and the node's agent (status); a CiliumBGPNodeConfigOverride
/// changes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumBGPNodeConfig {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata; owned by the CiliumBGPClusterConfig that it comes from.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What the node shall do.
    pub spec: BgpNodeConfigSpec,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<BgpNodeConfigStatus>,
}

/// Content of a [`CiliumBGPNodeConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodeConfigSpec {
    /// Its routers.
    #[schemars(length(min = 1, max = 16), transform = schema::by_name)]
    pub bgp_instances: Vec<BgpNodeInstance>,
}

/// A router on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodeInstance {
    /// Its name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Its AS number; there is no router without one.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub local_asn: Option<i64>,
    /// Its BGP identifier.
    #[serde(rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ipv4)]
    pub router_id: Option<String>,
    /// TCP port on which peers may connect; absent if none may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// With whom it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::by_name)]
    pub peers: Option<Vec<BgpNodePeer>>,
}

/// A neighbour of a router on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodePeer {
    /// Its name.
    pub name: String,
    /// Its address, unless it is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ip)]
    pub peer_address: Option<String>,
    /// Its AS number; 0 is whatever it says.
    #[serde(rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub peer_asn: Option<i64>,
    /// How the node finds its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_discovery: Option<AutoDiscovery>,
    /// Address of the node that the session has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ip)]
    pub local_address: Option<String>,
    /// What else holds for the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_config_ref: Option<PeerConfigRef>,
}

/// State of BGP on a node. Written by its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodeConfigStatus {
    /// Its routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::by_name)]
    pub bgp_instances: Option<Vec<BgpInstanceStatus>>,
    /// Observations: whether the node does what it shall.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(transform = schema::meta_conditions)]
    pub conditions: Option<Vec<Condition>>,
}

/// State of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpInstanceStatus {
    /// Its name.
    pub name: String,
    /// Its AS number.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    pub local_asn: Option<i64>,
    /// Its neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::by_name)]
    pub peers: Option<Vec<BgpPeerStatus>>,
}

/// State of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerStatus {
    /// Name of the neighbour.
    pub name: String,
    /// Its address.
    pub peer_address: String,
    /// Its AS number.
    #[serde(rename = "peerASN", skip_serializing_if = "Option::is_none")]
    pub peer_asn: Option<i64>,
    /// State of the session: idle, connect, active, open_sent, open_confirm, established or unknown; absent while it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peering_state: Option<String>,
    /// What both sides have agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timers: Option<BgpTimersStatus>,
    /// Since when it is established, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established_time: Option<String>,
    /// Numbers of routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_count: Option<Vec<BgpRouteCount>>,
    /// Why it is not established, or BFD does not work: a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Timers that are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpTimersStatus {
    /// Silence after which the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_hold_time_seconds: Option<i32>,
    /// Pause between two signs of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_keepalive_seconds: Option<i32>,
}

/// Routes of a family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpRouteCount {
    /// Kind of addresses.
    pub afi: Afi,
    /// Kind of routes.
    pub safi: Safi,
    /// How many the peer has sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<i32>,
    /// How many were sent to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<i32>,
}

resource!(CiliumBGPNodeConfig, ClusterResourceScope, DEFINITION);

impl CiliumBGPNodeConfig {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
