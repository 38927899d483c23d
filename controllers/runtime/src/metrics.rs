//! What the shell counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Label: kind of the object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// For example `CiliumNodeState`.
    pub kind: &'static str,
}

/// Labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// For example `CiliumNodeState`.
    pub kind: &'static str,
    /// `done`, `conflict`, `refused` or `failed`.
    pub outcome: &'static str,
}

/// A histogram of seconds from 0.5 ms to 8 s.
pub type Seconds = Family<Kind, Histogram, fn() -> Histogram>;

/// Counters of the shell. Clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events of watches.
    pub watch_events: Family<Kind, Counter>,
    /// Watches that failed and were started again.
    pub watch_failures: Family<Kind, Counter>,
    /// Objects that could not be parsed.
    pub unreadable: Family<Kind, Counter>,
    /// Writes by outcome.
    pub writes: Family<Write, Counter>,
    /// Time from the decision to write until the API server has answered.
    pub write_seconds: Seconds,
    /// Writes that wait or run.
    pub writes_pending: Gauge,
    /// 1 while this process leads.
    pub leader: Gauge,
}

impl Metrics {
    /// Makes the counters and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            watch_events: Family::default(),
            watch_failures: Family::default(),
            unreadable: Family::default(),
            writes: Family::default(),
            write_seconds: Family::new_with_constructor(seconds),
            writes_pending: Gauge::default(),
            leader: Gauge::default(),
        };
        registry.register("watch_events", "Events received by watches", metrics.watch_events.clone());
        registry.register(
            "watch_failures",
            "Watches that failed and were started again",
            metrics.watch_failures.clone(),
        );
        registry.register("unreadable_objects", "Objects that do not parse", metrics.unreadable.clone());
        registry.register("writes", "Writes to the API server by outcome", metrics.writes.clone());
        registry.register_with_unit(
            "write_duration",
            "Time from the decision to write until the answer",
            Unit::Seconds,
            metrics.write_seconds.clone(),
        );
        registry.register("writes_pending", "Writes that wait or run", metrics.writes_pending.clone());
        registry.register("leader", "1 while this process leads", metrics.leader.clone());
        metrics
    }

    /// Counts one write.
    pub(crate) fn count_write(&self, kind: &'static str, outcome: &'static str) {
        self.writes.get_or_create(&Write { kind, outcome }).inc();
    }
}

/// Buckets of [`Seconds`].
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 15))
}
