//! `CiliumIdentity`: a number that stands for a set of labels in the whole cluster.

use std::collections::BTreeMap;

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};

const DEFINITION: Definition = Definition {
    kind: "CiliumIdentity",
    version: VERSION,
    plural: "ciliumidentities",
    singular: "ciliumidentity",
    short_names: &["ciliumid"],
    categories: &["cilium"],
    namespaced: false,
    // Declared as upstream does, though there is no status: clients may ask for the endpoint.
    status_subresource: true,
    columns: &[Column::text("Namespace", r".metadata.labels.io\.kubernetes\.pod\.namespace"), Column::age()],
};

/// A security identity. The name of the object is its number in decimal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub struct CiliumIdentity {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata. Its labels do not count for the identity.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Labels that make the identity. Keys start with the source of the label, for example k8s:app.
    pub security_labels: BTreeMap<String, String>,
}

resource!(CiliumIdentity, ClusterResourceScope, DEFINITION);
