//! When an identity that nobody uses goes.
//!
//! In two passes: first a mark on the object, then, when a later pass finds it still without users, deletion. The mark is
//! what a second look is based on; it survives a restart of the operator.

/// How long after the last sign of life an identity without users is left alone, in seconds.
pub const HEARTBEAT_TIMEOUT: i64 = 30 * 60;
/// Deletions in one pass, so that a burst does not occupy the API server.
pub const MAX_DELETIONS: usize = 2500;

/// What is known of an identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) in_use: bool,
    pub(crate) marked: bool,
    /// When it was first seen, written, acquired or released, in seconds since 1970.
    pub(crate) last_sign_of_life: i64,
}

/// What is to be done with the object of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put the mark on it.
    Mark,
    /// Take the mark off it: it is used again.
    Unmark,
    /// Delete it, on condition that its uid and resourceVersion are the ones observed.
    Delete,
}

impl Candidate {
    pub(crate) fn decide(self, now: i64) -> Option<Action> {
        let quiet = now.saturating_sub(self.last_sign_of_life) >= HEARTBEAT_TIMEOUT;
        match (self.in_use, self.marked) {
            (true, true) => Some(Action::Unmark),
            (true, false) => None,
            (false, _) if !quiet => None,
            (false, false) => Some(Action::Mark),
            (false, true) => Some(Action::Delete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        for (in_use, marked, age, expected) in [
            (true, false, HEARTBEAT_TIMEOUT, None),
            (true, true, 0, Some(Action::Unmark)),
            (false, false, HEARTBEAT_TIMEOUT - 1, None),
            (false, false, HEARTBEAT_TIMEOUT, Some(Action::Mark)),
            (false, true, HEARTBEAT_TIMEOUT - 1, None),
            (false, true, HEARTBEAT_TIMEOUT, Some(Action::Delete)),
        ] {
            let candidate = Candidate { in_use, marked, last_sign_of_life: 1000 };
            assert_eq!(candidate.decide(1000 + age), expected, "{candidate:?} after {age}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_deletes_nothing() {
        let candidate = Candidate { in_use: false, marked: true, last_sign_of_life: i64::MAX };
        assert_eq!(candidate.decide(i64::MIN), None);
    }
}
