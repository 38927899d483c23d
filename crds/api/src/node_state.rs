//! `CiliumNodeState`: desired state of one node, and what the node says of it.
//!
//! Cluster scope, name = node name, owner = the Node. The operator alone writes `status.desired`, the node's
//! agent alone writes `status.applied` and `status.conditions` (an admission policy checks both). See `docs/design/node-state.md`.

use std::sync::Arc;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::digest;

/// Nothing is asked for by users: the object only carries status.
#[expect(clippy::duplicated_attributes, reason = "columns of the same type are no mistake")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2alpha1",
    kind = "CiliumNodeState",
    plural = "ciliumnodestates",
    shortname = "cns",
    category = "cilium",
    status = "CiliumNodeStateStatus",
    derive = "PartialEq",
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desired.revision"),
    printcolumn(name = "Applied", type_ = "integer", json_path = ".status.applied.revision"),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.applied.endpoints"),
    printcolumn(name = "Failures", type_ = "integer", json_path = ".status.applied.failureCount"),
    printcolumn(
        name = "Pressure",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='MapPressure')].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    crates(
        kube_core = "::kube_core",
        k8s_openapi = "::k8s_openapi",
        schemars = "::schemars",
        serde = "::serde",
        serde_json = "::serde_json"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct CiliumNodeStateSpec {}

/// Type of the condition that says whether a table which traffic fills is nearly full.
pub const MAP_PRESSURE: &str = "MapPressure";

/// Both halves of the conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CiliumNodeStateStatus {
    /// Written by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredState>,
    /// Written by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedState>,
    /// Written by the agent. Type MapPressure says whether a table that traffic fills is nearly full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}

/// What the node shall do. Applied whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DesiredState {
    /// [`crate::parts::FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Rises by one with every write; a write names the revision that it replaces, so a deposed writer is refused.
    pub revision: i64,
    /// Digest of `inline`, or else of the list of `slices`.
    pub digest: String,
    /// All parts, when they are small: then `slices` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// Where the parts are otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceRef>,
}

impl DesiredState {
    /// What [`DesiredState::digest`] has to be.
    pub fn content_digest(&self) -> String {
        match &self.inline {
            Some(data) => digest::digest(data.as_bytes()),
            None => digest::of_slices(&self.slices),
        }
    }
}

/// A slice of this revision.
// Cheap to clone, as every revision lists all slices, of which few change.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceRef {
    /// Name of the `CiliumNodeStateSlice`.
    pub name: Arc<str>,
    /// Digest of its `data`.
    pub digest: Arc<str>,
}

/// What the node did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedState {
    /// Last revision in force; 0 when there is none because the node cannot be set up.
    pub revision: i64,
    /// Its digest, given only after every kernel entry was read back and found as desired.
    pub digest: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Pods of the node that are connected.
    #[serde(default)]
    pub endpoints: i64,
    /// Objects of the last revision that are not in force: all of them are counted,
    #[serde(default)]
    pub failure_count: i64,
    /// and at most ten are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Kernel entries that were found changed by somebody else, and repaired, since the agent started.
    #[serde(default)]
    pub repairs: i64,
    /// Names of the devices on which the node can announce addresses, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Names of other owners of announced addresses that this node does not hear on its links, sorted; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}

/// An object that could not be put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Part key, for example `policy/20011`, or `revision/42` when the whole revision was refused.
    pub object: String,
    /// What happened and what to do.
    pub message: String,
}
