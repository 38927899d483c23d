//! `CiliumLoadBalancerIPPool`: addresses that Services of type LoadBalancer get.

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
    kind: "CiliumLoadBalancerIPPool",
    version: VERSION,
    plural: "ciliumloadbalancerippools",
    singular: "ciliumloadbalancerippool",
    short_names: &["ippools", "ippool", "lbippool", "lbippools"],
    categories: &["cilium"],
    namespaced: false,
    status_subresource: true,
    columns: &[
        Column::boolean("Disabled", ".spec.disabled"),
        Column::text("Conflicting", r#".status.conditions[?(@.type=="cilium.io/PoolConflict")].status"#),
        Column::text("IPs Available", r#".status.conditions[?(@.type=="cilium.io/IPsAvailable")].message"#),
        Column::age(),
    ],
};

/// Addresses for Services of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumLoadBalancerIPPool {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Which addresses, and for whom.
    pub spec: LoadBalancerPoolSpec,
    /// How much of it is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<LoadBalancerPoolStatus>,
}

/// Content of a [`CiliumLoadBalancerIPPool`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolSpec {
    /// Services that get addresses of this pool, by their labels; all of them if absent. The keys `io.kubernetes.service.namespace` and
    /// `io.kubernetes.service.name` stand for namespace and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Whether the first and the last address of each prefix are given to Services. Yes if absent.
    #[serde(rename = "allowFirstLastIPs", skip_serializing_if = "Option::is_none")]
    pub allow_first_last_ips: Option<AllowFirstLast>,
    /// The addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<PoolBlock>>,
    /// Give no more addresses. Services keep those that they have.
    #[serde(default)]
    pub disabled: bool,
}

/// Addresses that follow each other: a prefix, or all from a first to a last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolBlock {
    /// A prefix, for example 192.0.2.0/24. With it, start and stop do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
    /// The first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The last address; the first is the only one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

string_enum! {
    /// Values of [`LoadBalancerPoolSpec::allow_first_last_ips`].
    AllowFirstLast {
        /// They are given.
        Yes = "Yes",
        /// They are not.
        No = "No",
    }
}

/// State of a [`CiliumLoadBalancerIPPool`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolStatus {
    /// Observations: whether the pool conflicts with another one, and numbers of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(transform = schema::meta_conditions)]
    pub conditions: Option<Vec<Condition>>,
}

resource!(CiliumLoadBalancerIPPool, ClusterResourceScope, DEFINITION);

impl CiliumLoadBalancerIPPool {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
