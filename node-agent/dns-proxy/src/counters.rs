//! What the proxy counts. The agent serves it, so that this process listens nowhere but for questions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cilium_rest::dns::{BUCKETS, Counts};

/// Counters since the start of the process. Each is right by itself; they are read one after the other.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) denied: Counter,
    pub(crate) malformed: Counter,
    pub(crate) timeouts: Counter,
    /// Replies by time, in the intervals that [`BUCKETS`] end; the last is for all that took longer.
    replies: [Counter; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// A name server answered after this time.
    pub(crate) fn replied(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len());
        self.replies[place].add();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// All of them now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            denied: self.denied.get(),
            malformed: self.malformed.get(),
            timeouts: self.timeouts.get(),
            replies: self.replies.iter().map(Counter::get).collect(),
            reply_micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_time() {
        let counters = Counters::default();
        for millis in [0, 1, 2, 30, 60_000] {
            counters.replied(Duration::from_millis(millis));
        }
        counters.denied.add();
        let counts = counters.counts();
        assert_eq!((counts.replies, counts.reply_micros), (vec![2, 1, 0, 1, 0, 0, 0, 1], 60_033_000));
        assert_eq!((counts.denied, counts.forwarded), (1, 0));
    }
}
