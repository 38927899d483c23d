//! `CiliumBGPNodeConfigOverride`: what is different on one node from what its CiliumBGPClusterConfig says.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Column, Definition, VERSION, also_served, resource};
use crate::schema;

const DEFINITION: Definition = Definition {
    kind: "CiliumBGPNodeConfigOverride",
    version: VERSION,
    plural: "ciliumbgpnodeconfigoverrides",
    singular: "ciliumbgpnodeconfigoverride",
    short_names: &["cbgpnodeoverride"],
    categories: &["cilium", "ciliumbgp"],
    namespaced: false,
    status_subresource: false,
    columns: &[Column::age()],
};

/// What is different on the node of this name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumBGPNodeConfigOverride {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What is different.
    pub spec: BgpNodeConfigOverrideSpec,
}

/// Content of a [`CiliumBGPNodeConfigOverride`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpNodeConfigOverrideSpec {
    /// Routers, by the names that they have in the CiliumBGPClusterConfig.
    #[schemars(length(min = 1), transform = schema::by_name)]
    pub bgp_instances: Vec<BgpInstanceOverride>,
}

/// What is different of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpInstanceOverride {
    /// Its name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Its BGP identifier.
    #[serde(rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ipv4)]
    pub router_id: Option<String>,
    /// TCP port on which peers may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<i32>,
    /// Its AS number.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub local_asn: Option<i64>,
    /// Neighbours, by the names that they have in the CiliumBGPClusterConfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::by_name)]
    pub peers: Option<Vec<BgpPeerOverride>>,
}

/// What is different of a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerOverride {
    /// Its name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Address of the node that the session has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::ip)]
    pub local_address: Option<String>,
    /// Without effect: a connection that the node opens has a port of the kernel's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<i32>,
}

resource!(CiliumBGPNodeConfigOverride, ClusterResourceScope, DEFINITION);

impl CiliumBGPNodeConfigOverride {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
