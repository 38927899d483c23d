//! `CiliumNodeStateSlice`: a piece of desired state that does not fit into a `CiliumNodeState`, or that all nodes share.
//!
//! Cluster scope. A watch on one label reaches a node's own slices and the shared ones. There is no status
//! subresource, so that a slice is created with its content in one request.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label that says whose slice it is: [`SHARED`], or [`owner_label`] of the node.
pub const OWNER_LABEL: &str = "cilium.io/state-of";

/// Value of [`OWNER_LABEL`] on slices that all nodes read. No node can have this name: node names are lower case.
pub const SHARED: &str = "CLUSTER";

/// Value of [`OWNER_LABEL`] for a node: its name, or a digest of it when the name is longer than a label value may be.
pub fn owner_label(node: &str) -> String {
    if node.len() <= 63 { node.to_owned() } else { crate::digest::digest(node.as_bytes())[..63].to_owned() }
}

/// Nothing is asked for by users: the object only carries status.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2alpha1",
    kind = "CiliumNodeStateSlice",
    plural = "ciliumnodestateslices",
    shortname = "cnss",
    category = "cilium",
    derive = "PartialEq",
    printcolumn(name = "Owner", type_ = "string", json_path = r".metadata.labels.cilium\.io/state-of"),
    printcolumn(name = "Parts", type_ = "integer", json_path = ".spec.count"),
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
pub struct CiliumNodeStateSliceSpec {
    /// [`crate::parts::FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Number of parts in `data`.
    pub count: i64,
    /// Digest of `data`.
    pub digest: String,
    /// Encoded parts, see [`crate::digest::encode`].
    pub data: String,
}
