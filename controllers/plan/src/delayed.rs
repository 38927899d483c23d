//! Statuses that tell little more than the ones that stand, and wait: a thousand nodes that answer one after the other shall not make a
//! thousand writes.

use std::collections::BTreeMap;

use crate::object::ObjectKey;

/// Seconds that such a status waits.
pub(crate) const HOLD: i64 = 10;

/// Objects whose status waits, and until when, in seconds since the epoch.
#[derive(Debug, Default)]
pub(crate) struct Delayed(BTreeMap<ObjectKey, i64>);

impl Delayed {
    /// Whether the status of an object is to wait at `now`. `is_small`: it tells of progress only.
    pub(crate) fn waits(&mut self, object: &ObjectKey, is_small: bool, now: i64) -> bool {
        let until = *self.0.entry(object.clone()).or_insert(now.saturating_add(HOLD));
        let waits = is_small && until > now;
        if !waits {
            self.0.remove(object);
        }
        waits
    }

    /// Those that have waited long enough.
    pub(crate) fn due(&self, now: i64) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter().filter(move |(_, until)| **until <= now).map(|(object, _)| object)
    }

    /// When [`Delayed::due`] has the next one.
    pub(crate) fn next(&self) -> Option<i64> {
        self.0.values().min().copied()
    }

    /// The object is gone.
    pub(crate) fn forget(&mut self, object: &ObjectKey) {
        self.0.remove(object);
    }
}
