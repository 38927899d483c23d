//! Label selectors.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::string_enum::string_enum;

/// Selects by labels; all parts must match. An empty selector selects everything it is asked about.
///
/// In policies, a key may start with a label source: `k8s:app`, `reserved:host`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Labels that must be there with exactly this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = label_values)]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements on labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<MatchExpression>>,
}

/// Selector of endpoints in a policy.
pub type EndpointSelector = LabelSelector;

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchExpression {
    /// Key of the label.
    pub key: String,
    /// How the label is compared with the values.
    pub operator: MatchOperator,
    /// Set of values: not empty for In and NotIn, empty for Exists and DoesNotExist.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<String>>,
}

string_enum! {
    /// Operator of a [`MatchExpression`].
    MatchOperator {
        /// The value is one of the set.
        In = "In",
        /// The value is none of the set, or the label is absent.
        NotIn = "NotIn",
        /// The label is there.
        Exists = "Exists",
        /// The label is absent.
        DoesNotExist = "DoesNotExist",
    }
}

/// Restricts the values of a map to label values (Kubernetes, "Labels and Selectors": syntax).
fn label_values(schema: &mut Schema) {
    if let Some(values) = schema.get_mut("additionalProperties").and_then(Value::as_object_mut) {
        values.insert("maxLength".into(), json!(63));
        values.insert("pattern".into(), json!("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"));
    }
}
