//! How long it takes to make the speaker what the plan says, and how often something stands against it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Upper ends of the buckets, in milliseconds.
pub(crate) const ENDS: [u64; 8] = [1, 5, 10, 50, 100, 500, 1000, 10_000];

/// Runs by instance.
pub(crate) type All = BTreeMap<String, Runs>;

/// Runs since the start of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Problems, those of each run anew.
    pub(crate) errors: u64,
    pub(crate) count: u64,
    pub(crate) sum: Duration,
    /// Runs that took at most as long as the end says, and longer than the one before.
    pub(crate) buckets: [u64; ENDS.len()],
}

impl Runs {
    /// Counts one that is over.
    pub(super) fn add(&mut self, took: Duration, problems: usize) {
        self.errors += problems as u64;
        self.count += 1;
        self.sum += took;
        if let Some(place) = ENDS.iter().position(|end| took <= Duration::from_millis(*end)) {
            self.buckets[place] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_falls_into_one_bucket_and_a_very_long_one_into_none() {
        let mut runs = Runs::default();
        for (millis, problems) in [(1, 0), (7, 2), (8, 0), (11_000, 1)] {
            runs.add(Duration::from_millis(millis), problems);
        }
        let buckets = [1, 0, 2, 0, 0, 0, 0, 0];
        assert_eq!(runs, Runs { errors: 3, count: 4, sum: Duration::from_millis(11_016), buckets });
    }
}
