//! `CiliumClusterwideNetworkPolicy`: rules for endpoints of all namespaces, and for nodes.

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};
use crate::policy_status::PolicyStatus;
use crate::rule::Rule;

const DEFINITION: Definition = Definition {
    kind: "CiliumClusterwideNetworkPolicy",
    version: VERSION,
    plural: "ciliumclusterwidenetworkpolicies",
    singular: "ciliumclusterwidenetworkpolicy",
    short_names: &["ccnp"],
    categories: &["cilium", "ciliumpolicy"],
    namespaced: false,
    status_subresource: true,
    columns: &[
        Column::text("Valid", ".status.conditions[?(@.type=='Valid')].status"),
        Column::text("Enforced", ".status.enforced"),
        Column::integer("Selected", ".status.selectedEndpoints"),
    ],
};

/// Rules about traffic to and from endpoints of all namespaces, or to and from nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.spec) || has(self.specs)",
    "message": "a policy needs spec, specs or both"
}]))]
pub struct CiliumClusterwideNetworkPolicy {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Rule>,
    /// Further rules. Each stands for itself, as if it were a policy of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specs: Option<Vec<Rule>>,
    /// What became of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PolicyStatus>,
}

resource!(CiliumClusterwideNetworkPolicy, ClusterResourceScope, DEFINITION);
