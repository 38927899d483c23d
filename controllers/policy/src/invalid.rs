//! Why a policy is refused.

use std::fmt;

/// A policy that is not put in force, with the field that is to blame.
///
/// A refused policy changes nothing: the version that was valid last stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    /// Path of the field, such as `spec.ingress[0].toPorts[1].ports[0].port`.
    pub path: String,
    /// What kind of refusal it is.
    pub kind: InvalidKind,
    /// A sentence that says what is wrong with the field.
    pub reason: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// No version could put this policy in force.
    Malformed,
    /// The policy asks for something that this version does not enforce.
    Unsupported,
    /// The policy asks for something that is turned off.
    Disabled,
}

impl InvalidKind {
    /// One word, for the reason of a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::Unsupported => "Unsupported",
            Self::Disabled => "Disabled",
        }
    }
}

impl From<Path> for Box<str> {
    fn from(path: Path) -> Self {
        path.0.into()
    }
}

/// Path of a field, built from the outside to the inside.
#[derive(Clone, Debug)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn root(field: &str) -> Self {
        Self(field.to_owned())
    }

    pub(crate) fn field(&self, field: impl fmt::Display) -> Self {
        Self(format!("{}.{field}", self.0))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(crate) fn malformed(&self, reason: impl Into<String>) -> Invalid {
        self.invalid(InvalidKind::Malformed, reason.into())
    }

    /// `what` is the subject of the sentence, such as `an ICMP rule`.
    pub(crate) fn unsupported(&self, what: impl fmt::Display) -> Invalid {
        self.invalid(InvalidKind::Unsupported, format!("{what} cannot be enforced by this version"))
    }

    /// `what` is the subject of the sentence; `flag` and `value` are what turns it on in the operator and in the chart.
    pub(crate) fn disabled(&self, what: &str, flag: &str, value: &str) -> Invalid {
        let reason = format!("{what} needs the operator's flag {flag} ({value} in the chart), which is off");
        self.invalid(InvalidKind::Disabled, reason)
    }

    fn invalid(&self, kind: InvalidKind, reason: String) -> Invalid {
        Invalid { path: self.0.clone(), kind, reason }
    }
}
