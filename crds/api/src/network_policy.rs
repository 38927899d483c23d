//! `CiliumNetworkPolicy`: rules for endpoints of one namespace.

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};
use crate::policy_status::PolicyStatus;
use crate::rule::Rule;

const DEFINITION: Definition = Definition {
    kind: "CiliumNetworkPolicy",
    version: VERSION,
    plural: "ciliumnetworkpolicies",
    singular: "ciliumnetworkpolicy",
    short_names: &["cnp", "ciliumnp"],
    categories: &["cilium", "ciliumpolicy"],
    namespaced: true,
    status_subresource: true,
    columns: &[
        Column::age(),
        Column::text("Valid", ".status.conditions[?(@.type=='Valid')].status"),
        Column::text("Enforced", ".status.enforced"),
        Column::integer("Selected", ".status.selectedEndpoints"),
    ],
};

/// Rules about traffic to and from endpoints of the namespace of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.spec) || has(self.specs)",
    "message": "a policy needs spec, specs or both"
}, {
    "rule": "!has(self.spec) || !has(self.spec.nodeSelector)",
    "message": "nodes can only be selected by a CiliumClusterwideNetworkPolicy",
    "fieldPath": ".spec.nodeSelector"
}, {
    "rule": "!has(self.specs) || self.specs.all(rule, !has(rule.nodeSelector))",
    "message": "nodes can only be selected by a CiliumClusterwideNetworkPolicy",
    "fieldPath": ".specs"
}]))]
pub struct CiliumNetworkPolicy {
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

resource!(CiliumNetworkPolicy, NamespaceResourceScope, DEFINITION);
