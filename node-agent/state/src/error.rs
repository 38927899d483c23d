use cilium_api::parts::{FORMAT_VERSION, PartKey};

/// Why a revision or a slice was refused. What was in force before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by an operator whose format this agent does not know.
    #[error("format {found} is not known, this agent knows {FORMAT_VERSION}: upgrade the agent")]
    Format {
        /// The format named by the writer.
        found: u32,
    },
    /// The bytes are not those that the writer meant.
    #[error(
        "{what} has digest {found} where {expected} is expected: the object was changed or cut on its way"
    )]
    Digest {
        /// What was checked: `the inline state`, `slice <name>`, `the revision`.
        what: String,
        /// The digest that the writer gave.
        expected: String,
        /// The digest of what arrived.
        found: String,
    },
    /// The bytes are right but are no parts that this agent understands.
    #[error("{what} holds a part that this agent does not understand: upgrade the agent")]
    Decode {
        /// What was read: `the inline state` or `slice <name>`.
        what: String,
        /// Where and why reading stopped.
        source: serde_json::Error,
    },
    /// A part stands under a key of another kind, or in the wrong scope.
    #[error(
        "{what} holds part {key}, which is of kind {kind} and does not belong there: the operator is faulty"
    )]
    Misplaced {
        /// What was read.
        what: String,
        /// Key of the part.
        key: PartKey,
        /// Kind of the part itself.
        kind: &'static str,
    },
    /// The revision lists a slice that has not arrived, or not in that version.
    #[error("waits for {missing} of {listed} slices, first {first}")]
    Missing {
        /// Slices that are missing.
        missing: usize,
        /// Slices that the revision lists.
        listed: usize,
        /// Name of the first one.
        first: String,
    },
}

impl Error {
    /// The message with all of its sources, as it goes into a status.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
