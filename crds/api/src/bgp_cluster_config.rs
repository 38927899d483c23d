//! `CiliumBGPClusterConfig`: which nodes speak BGP, and with whom.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::definition::{ApiVersion, Column, Definition, VERSION, also_served, resource};
use crate::schema;
use crate::selector::LabelSelector;
use crate::string_enum::string_enum;

const DEFINITION: Definition = Definition {
    kind: "CiliumBGPClusterConfig",
    version: VERSION,
    plural: "ciliumbgpclusterconfigs",
    singular: "ciliumbgpclusterconfig",
    short_names: &["cbgpcluster"],
    categories: &["cilium", "ciliumbgp"],
    namespaced: false,
    status_subresource: true,
    columns: &[Column::age()],
};

/// BGP routers on nodes (RFC 4271).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumBGPClusterConfig {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Which nodes, and with whom they speak.
    pub spec: BgpClusterConfigSpec,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<BgpStatus>,
}

/// Content of a [`CiliumBGPClusterConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpClusterConfigSpec {
    /// Nodes that it is for, by their labels; all of them if absent. A node that two of these objects select goes by the older one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Routers that each of the nodes has.
    #[schemars(length(min = 1, max = 16), transform = schema::by_name)]
    pub bgp_instances: Vec<BgpClusterInstance>,
}

/// A router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpClusterInstance {
    /// Its name, under which a CiliumBGPNodeConfigOverride finds it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// AS number of the nodes. Without one there is no router, unless a CiliumBGPNodeConfigOverride has it.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub local_asn: Option<i64>,
    /// TCP port on which peers may connect. If absent, nodes connect, and nobody connects to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// With whom it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::by_name)]
    pub peers: Option<Vec<BgpClusterPeer>>,
}

/// A neighbour of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpClusterPeer {
    /// Its name, under which a CiliumBGPNodeConfigOverride finds it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Its address, unless `autoDiscovery` finds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ip)]
    pub peer_address: Option<String>,
    /// Its AS number. 0, which it is if absent, is whatever the peer says.
    #[serde(rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32), extend("default" = 0))]
    pub peer_asn: Option<i64>,
    /// How nodes find its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_discovery: Option<AutoDiscovery>,
    /// What else holds for the session. Without it: defaults, and nothing is advertised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_config_ref: Option<PeerConfigRef>,
}

/// How a node finds the address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoDiscovery {
    /// The way.
    pub mode: DiscoveryMode,
    /// For the mode DefaultGateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_gateway: Option<DefaultGateway>,
}

string_enum! {
    /// Values of [`AutoDiscovery::mode`].
    DiscoveryMode {
        /// The peer is the gateway of the node's default route.
        DefaultGateway = "DefaultGateway",
    }
}

/// Which default route is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultGateway {
    /// That of this family.
    pub address_family: GatewayFamily,
}

string_enum! {
    /// Values of [`DefaultGateway::address_family`].
    GatewayFamily {
        /// IPv4.
        Ipv4 = "ipv4",
        /// IPv6.
        Ipv6 = "ipv6",
    }
}

/// Names a CiliumBGPPeerConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerConfigRef {
    /// Its name.
    pub name: String,
}

/// What became of a CiliumBGPClusterConfig or CiliumBGPPeerConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Observations: what is missing, what contradicts it, and whether it is put in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(transform = schema::meta_conditions)]
    pub conditions: Option<Vec<Condition>>,
}

resource!(CiliumBGPClusterConfig, ClusterResourceScope, DEFINITION);

impl CiliumBGPClusterConfig {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
