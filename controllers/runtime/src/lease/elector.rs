//! The decision: whose lease is it? No input or output here, and time is an argument.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

use super::{Config, Standing};

/// What to do with the Lease.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Write this.
    Take(LeaseSpec),
    /// It belongs to somebody else.
    Wait,
}

/// Remembers the record that was seen last, and since when it has not changed.
#[derive(Debug)]
pub(super) struct Elector {
    config: Config,
    seen: Option<(LeaseSpec, Instant)>,
}

impl Elector {
    pub(super) fn new(config: Config) -> Self {
        Self { config, seen: None }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Decides from the Lease as it is now. Whoever led before does not take over from anybody, and after an
    /// interruption not even from nobody: in between another one may have led.
    pub(super) fn decide(
        &mut self,
        lease: Option<&LeaseSpec>,
        standing: Standing,
        now: Instant,
        wall: Timestamp,
    ) -> Step {
        let may_take = match lease {
            None => standing != Standing::Suspended,
            Some(spec) => {
                self.observe(spec, now);
                let free = holder(spec).is_empty() || self.expired(now);
                holder(spec) == self.config.identity || (free && standing == Standing::Waiting)
            }
        };
        if may_take { Step::Take(self.claim(lease, wall)) } else { Step::Wait }
    }

    fn observe(&mut self, spec: &LeaseSpec, now: Instant) {
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != spec) {
            self.seen = Some((spec.clone(), now));
        }
    }

    fn expired(&self, now: Instant) -> bool {
        self.seen.as_ref().is_some_and(|(spec, since)| now.duration_since(*since) >= duration(spec))
    }

    fn claim(&self, old: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let kept = old.filter(|spec| holder(spec) == self.config.identity);
        let transitions =
            old.map_or(0, |spec| spec.lease_transitions.unwrap_or(0) + i32::from(kept.is_none()));
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.lease_duration.as_secs()).ok(),
            acquire_time: kept.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}

fn holder(spec: &LeaseSpec) -> &str {
    spec.holder_identity.as_deref().unwrap_or_default()
}

fn duration(spec: &LeaseSpec) -> Duration {
    Duration::from_secs(
        spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0),
    )
}
