//! `CiliumPodIPPool`: addresses that pods get where each node takes them from pools.

use kube_core::ObjectMeta;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::definition::{ALPHA, ApiVersion, Definition, resource};
use crate::schema;
use crate::selector::LabelSelector;

const DEFINITION: Definition = Definition {
    kind: "CiliumPodIPPool",
    version: ALPHA,
    plural: "ciliumpodippools",
    singular: "ciliumpodippool",
    short_names: &["cpip"],
    categories: &["cilium"],
    namespaced: false,
    status_subresource: false,
    columns: &[],
};

/// Name of the pool of pods that nothing assigns to another one.
pub const DEFAULT_POOL: &str = "default";
/// Annotation of a pod or its namespace: name of the pool for addresses of both families.
pub const POOL_ANNOTATION: &str = "ipam.cilium.io/ip-pool";
/// Annotation of a pod or its namespace: name of the pool for IPv4; it comes before [`POOL_ANNOTATION`].
pub const IPV4_POOL_ANNOTATION: &str = "ipam.cilium.io/ipv4-pool";
/// Annotation of a pod or its namespace: name of the pool for IPv6; it comes before [`POOL_ANNOTATION`].
pub const IPV6_POOL_ANNOTATION: &str = "ipam.cilium.io/ipv6-pool";

/// Addresses for pods. Nodes take blocks of them when pods need them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumPodIPPool {
    /// Always `cilium.io/v2alpha1`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion<true>,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Which addresses, and for whom.
    pub spec: PodIpPoolSpec,
}

/// Content of a [`CiliumPodIPPool`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIpPoolSpec {
    /// IPv4 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Pool>,
    /// IPv6 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Pool>,
    /// Pods get the first address of a block too. Blocks of one or two addresses have no address that is spared.
    #[serde(rename = "allowFirstIP", default)]
    #[schemars(extend("default" = false, "x-kubernetes-validations" = [{
        "rule": "self == oldSelf", "message": "allowFirstIP stays as it was made: pods may have the address"
    }]))]
    pub allow_first_ip: bool,
    /// Pods get the last address of a block too. Blocks of one or two addresses have no address that is spared.
    #[serde(rename = "allowLastIP", default)]
    #[schemars(extend("default" = false, "x-kubernetes-validations" = [{
        "rule": "self == oldSelf", "message": "allowLastIP stays as it was made: pods may have the address"
    }]))]
    pub allow_last_ip: bool,
    /// Pods that get addresses of this pool without asking for it, by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// The same by the labels of their namespaces. With both, a pod has to match both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// IPv4 addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipv4Pool {
    /// Prefixes, used in this order.
    #[schemars(transform = prefixes)]
    pub cidrs: Vec<String>,
    /// Length of the prefixes that nodes get out of them.
    #[schemars(transform = ipv4_mask)]
    pub mask_size: u8,
}

/// IPv6 addresses of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipv6Pool {
    /// Prefixes, used in this order.
    #[schemars(transform = prefixes)]
    pub cidrs: Vec<String>,
    /// Length of the prefixes that nodes get out of them.
    #[schemars(transform = ipv6_mask)]
    pub mask_size: u8,
}

/// At least one prefix.
fn prefixes(schema: &mut Schema) {
    schema::cidr_list(schema);
    schema.insert("minItems".into(), json!(1));
}

fn ipv4_mask(schema: &mut Schema) {
    mask(schema, 32);
}

fn ipv6_mask(schema: &mut Schema) {
    mask(schema, 128);
}

/// A prefix length that cannot be changed later: the blocks that nodes have were cut by it.
fn mask(schema: &mut Schema, bits: u8) {
    schema::plain_integer(schema);
    schema.insert("minimum".into(), json!(1));
    schema.insert("maximum".into(), json!(bits));
    let rule = json!([{"rule": "self == oldSelf", "message": "maskSize stays as it was made: nodes have blocks of that size"}]);
    schema.insert("x-kubernetes-validations".into(), rule);
}

resource!(CiliumPodIPPool, ClusterResourceScope, DEFINITION);
