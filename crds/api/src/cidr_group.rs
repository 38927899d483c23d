//! `CiliumCIDRGroup`: prefixes under a name, for policies to refer to.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Definition, VERSION, also_served, resource};
use crate::schema;

const DEFINITION: Definition = Definition {
    kind: "CiliumCIDRGroup",
    version: VERSION,
    plural: "ciliumcidrgroups",
    singular: "ciliumcidrgroup",
    short_names: &["ccg"],
    categories: &["cilium"],
    namespaced: false,
    status_subresource: false,
    columns: &[],
};

/// Prefixes outside of the cluster that policies name by `cidrGroupRef`, or by labels of the group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumCIDRGroup {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata. Its labels are what `cidrGroupSelector` looks at.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What is in the group.
    pub spec: CidrGroupSpec,
}

/// Content of a [`CiliumCIDRGroup`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CidrGroupSpec {
    /// The prefixes, for example 192.0.2.0/24. May be empty.
    #[serde(rename = "externalCIDRs")]
    #[schemars(length(min = 0), transform = schema::cidr_list)]
    pub external_cidrs: Vec<String>,
}

resource!(CiliumCIDRGroup, ClusterResourceScope, DEFINITION);

impl CiliumCIDRGroup {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
