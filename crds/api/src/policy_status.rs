//! Status that both policy kinds share.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::schema;

/// Most names in [`PolicyNodes::laggards`].
pub const MAX_LAGGARDS: usize = 5;

/// What became of a policy. Its size does not grow with the number of nodes or endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Observations. Type Valid says whether the policy passed validation, and if not, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
    /// Policies that were made from this one, by name. Kept for old objects, nothing writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derivative_policies: Option<BTreeMap<String, DerivativePolicy>>,
    /// Generation of the policy that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of endpoints that the policy selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_endpoints: Option<i64>,
    /// On how many of the nodes that need it the policy is in force, as 2/3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<String>,
    /// The same in numbers, with names of nodes that are late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<PolicyNodes>,
    /// Number of entries that the policy compiles to, over all identities that it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiled_entries: Option<i64>,
    /// Number of entries that it takes in the policy map of a node for one endpoint, where these are most. Endpoints with equal policies
    /// share them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_endpoint_entries: Option<i64>,
    /// Number of entries that the policy map of a node has room for, all policies together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_limit: Option<i64>,
}

impl PolicyStatus {
    /// Sets `nodes`, and `enforced` that repeats it for the column of `kubectl get`.
    pub fn set_nodes(&mut self, mut nodes: PolicyNodes) {
        if let Some(laggards) = &mut nodes.laggards {
            laggards.truncate(MAX_LAGGARDS);
        }
        self.enforced = Some(format!("{}/{}", nodes.enforcing, nodes.needed));
        self.nodes = Some(nodes);
    }
}

/// Where a policy is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyNodes {
    /// Nodes that have endpoints which the policy selects.
    pub needed: i64,
    /// Those of them that reported the policy as in force.
    pub enforcing: i64,
    /// Names of nodes that did not yet, at most five.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    pub laggards: Option<Vec<String>>,
}

/// A policy that was made from another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DerivativePolicy {
    /// Whether it was read without error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The error otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When this entry was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::date_time)]
    pub last_updated: Option<String>,
    /// Revision of the node's policies that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_policy_revision: Option<i64>,
    /// Whether all endpoints have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcing: Option<bool>,
    /// Annotations of the policy when it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}
