//! What is wrong with an object.

use cilium_api::selector::LabelSelector;
use cilium_core::Selector;

/// Something in an object that is not put in force, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Fault {
    /// The field, from the root of the object.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// No version could ever take it; otherwise this one does not.
    pub is_malformed: bool,
}

impl Fault {
    /// No version could ever take it.
    pub(crate) fn malformed(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), is_malformed: true }
    }

    /// This version does not take it.
    pub(crate) fn unsupported(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), is_malformed: false }
    }
}

/// Reads a selector that stands at a path. One that cannot be read selects nothing.
pub(crate) fn selector(
    path: &str,
    selector: Option<&LabelSelector>,
    faults: &mut Vec<Fault>,
) -> Option<Selector> {
    match Selector::parse(selector?) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            faults.push(Fault::malformed(format!("{path}.{}", error.path), error.reason));
            None
        }
    }
}
