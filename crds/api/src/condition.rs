//! Conditions of an object's status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Type of the condition that says whether a policy passed validation.
pub const VALID: &str = "Valid";

/// One observation about an object, as Kubernetes conditions are (API conventions, "typical status properties").
///
/// Unlike `metav1.Condition`, `reason`, `message` and `lastTransitionTime` may be absent: upstream's writers leave them out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about. One entry for each type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Generation of the object that the condition was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When status last changed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::date_time)]
    pub last_transition_time: Option<String>,
    /// One word for programs that says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Condition {
    /// A condition with a reason and a message. Time and generation are for whoever writes it.
    pub fn new(type_: &str, status: &str, reason: &str, message: String) -> Self {
        Self {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            ..Self::default()
        }
    }
}
