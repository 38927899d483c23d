//! Which node holds the Lease (`coordination.k8s.io/v1`) of a Service, decided by each node for itself: time, and the Lease as the API
//! server had it last, come in; the Lease as it should be goes out. Names and fields are upstream's.
//!
//! # Guarantees
//! - A node holds a Lease only by a write that the API server took, and every write names the version that it replaces: of two nodes
//!   that want the same Lease, one is refused.
//! - It counts as held from before that write on, for the renew deadline, which is shorter than what others wait.
//! - Clocks of nodes are never compared: a Lease has expired when this node has seen it unchanged for its `leaseDurationSeconds`.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::announcer::NEVER;
use crate::frame::node_number;

/// What names of Leases of this kind begin with.
pub const LEASE_PREFIX: &str = "cilium-l2announce-";

/// A free Lease is taken after a part of the retry period, another one for each node and Lease: at most this one.
const SPREAD_PART: u64 = 4;
/// As upstream has it when a Lease is given back.
const RELEASED_SECONDS: i32 = 1;

/// Name of the Lease of a Service, which is given as `namespace/name`.
///
/// Two Services can have the same (`a-b/c` and `a/b-c`): they have the same node then, too.
pub fn lease_name(service: &str) -> String {
    format!("{LEASE_PREFIX}{}", service.replacen('/', "-", 1))
}

/// How the election runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long others leave a Lease alone that does not change.
    pub lease_duration: Duration,
    /// How long a node holds a Lease that it cannot renew; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// Between two attempts to get or renew one; shorter than `renew_deadline`.
    pub retry_period: Duration,
}

impl Timings {
    /// What is too short or does not fit together gives way, as upstream does it, one after the other.
    pub fn clamped(lease_duration: Duration, renew_deadline: Duration, retry_period: Duration) -> Self {
        let or = |it: Duration, least: Duration, other| if it < least { other } else { it };
        let nanosecond = Duration::from_nanos(1);
        let lease_duration = or(lease_duration, Duration::from_secs(1), Duration::from_secs(1));
        let mut renew_deadline = or(renew_deadline, nanosecond, Duration::from_secs(1));
        let mut retry_period = or(retry_period, nanosecond, Duration::from_millis(200));
        if lease_duration <= renew_deadline {
            renew_deadline = lease_duration / 2;
        }
        if renew_deadline <= retry_period.saturating_mul(12) / 10 {
            retry_period = renew_deadline / 2;
        }
        Self { lease_duration, renew_deadline, retry_period }
    }

    /// `leaseDurationSeconds`. A part of a second counts as a whole one: others must not take over early.
    fn seconds(self) -> i32 {
        let part = i32::from(self.lease_duration.subsec_nanos() > 0);
        i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX).saturating_add(part)
    }
}

/// What a node knows of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// Who holds it; `None`: nobody.
    pub holder: Option<String>,
    /// Until when this node does, if it does, in nanoseconds of `CLOCK_MONOTONIC`.
    pub until: Option<u64>,
}

/// Nanoseconds, as times are here.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// The election of one Lease, as this node takes part in it. Times are in nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Expected flow
/// At [`Election::reads_at`] the Lease is read, for [`Election::observe`]. [`Election::claim`] says what to write then;
/// [`Election::written`], [`Election::refused`] or [`Election::failed`] take what became of it.
#[derive(Clone, Debug)]
pub struct Election {
    name: String,
    me: String,
    timings: Timings,
    is_wanted: bool,
    /// The Lease as it was seen last; `None`: there is none.
    lease: Option<Lease>,
    /// That is known, and nothing says that it is outdated.
    is_known: bool,
    /// When it was first seen as it is.
    since: u64,
    /// When it was read last, or written.
    seen: u64,
    /// When the last write began by which this node holds it.
    held_since: Option<u64>,
    /// No write before.
    next_write: u64,
    spread: u64,
}

impl Election {
    /// This node, `me`, wants a Lease of which it knows nothing yet.
    pub fn new(name: &str, me: &str, timings: Timings) -> Self {
        let most = nanoseconds(timings.retry_period) / SPREAD_PART;
        let spread = node_number(&format!("{me}/{name}")).checked_rem(most).unwrap_or(0);
        Self {
            name: name.to_owned(),
            me: me.to_owned(),
            timings,
            is_wanted: true,
            lease: None,
            is_known: false,
            since: 0,
            seen: 0,
            held_since: None,
            next_write: 0,
            spread,
        }
    }

    /// The plan names this node for a Service with this Lease, or no longer. What is not wanted any more is given back at once.
    pub fn want(&mut self, is_wanted: bool) {
        if self.is_wanted != is_wanted {
            self.is_wanted = is_wanted;
            self.next_write = 0;
            // Wanted again, it may have been given back, and nobody has heard that it was.
            self.held_since = None;
        }
    }

    /// Until when the Lease is this node's, if no write succeeds before.
    pub fn held_until(&self) -> Option<u64> {
        let until = |since: u64| since.saturating_add(nanoseconds(self.timings.renew_deadline));
        self.held_since.map(until)
    }

    /// Who holds it, once that is known: not while it has to be read, and not before this node has renewed what it held before it began.
    pub fn tenure(&self) -> Option<Tenure> {
        let holder = self.holder().map(str::to_owned);
        let is_unsure = !self.is_known || (holder.as_ref() == Some(&self.me) && self.held_since.is_none());
        (!is_unsure || !self.is_wanted).then(|| Tenure { holder, until: self.held_until() })
    }

    /// Who holds it, as far as this node knows.
    pub fn holder(&self) -> Option<&str> {
        self.lease.as_ref().map(holder).filter(|holder| !holder.is_empty())
    }

    /// It was read, or it was seen that it does not exist, at `now`.
    pub fn observe(&mut self, lease: Option<&Lease>, now: u64) {
        if !self.is_known || spec(self.lease.as_ref()) != spec(lease) {
            self.since = now;
        }
        self.lease = lease.cloned();
        self.is_known = true;
        self.seen = now;
        if self.holder() != Some(&self.me) {
            self.held_since = None;
        }
    }

    /// What to write now: a Lease without a `resourceVersion` is to be created, another one replaces that version.
    pub fn claim(&self, now: u64, wall: &MicroTime) -> Option<Lease> {
        if now < self.writes_at() {
            return None;
        }
        let old = self.lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let spec = if self.is_wanted { self.taken(old, wall) } else { released(old, wall) };
        let metadata = self.lease.as_ref().map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        Some(Lease { metadata, spec: Some(spec) })
    }

    /// A claim that was sent at `began` became this, as the API server says at `now`.
    pub fn written(&mut self, lease: Lease, began: u64, now: u64) {
        self.held_since = (self.is_wanted && holder(&lease) == self.me).then_some(began);
        self.lease = Some(lease);
        (self.is_known, self.since, self.seen) = (true, now, now);
        self.next_write = began.saturating_add(nanoseconds(self.timings.retry_period));
    }

    /// A claim was for a version that is not the last one any more: the Lease has to be read again.
    pub fn refused(&mut self) {
        self.is_known = false;
    }

    /// A claim that was sent at `began` may or may not have reached the API server.
    pub fn failed(&mut self, began: u64) {
        self.next_write = began.saturating_add(nanoseconds(self.timings.retry_period));
    }

    /// When the Lease has to be read. A holder hears from its own writes whether it still is one.
    pub fn reads_at(&self) -> u64 {
        if !self.is_known {
            return 0;
        }
        if !self.is_wanted || self.held_since.is_some() {
            return NEVER;
        }
        self.seen.saturating_add(nanoseconds(self.timings.retry_period))
    }

    /// When [`Election::claim`] has something.
    pub fn writes_at(&self) -> u64 {
        if !self.is_known {
            return NEVER;
        }
        let from = match self.holder() {
            Some(holder) if holder == self.me => 0,
            _ if !self.is_wanted => NEVER,
            None => self.since.saturating_add(self.spread),
            Some(_) => self.expires_at().saturating_add(self.spread),
        };
        from.max(self.next_write)
    }

    /// Nothing is left to be given back: the Lease is not this node's, or nobody believes that it is any more.
    pub fn is_over(&self, now: u64) -> bool {
        let is_mine = self.holder() == Some(&self.me) && now < self.expires_at();
        !self.is_wanted && !is_mine
    }

    fn expires_at(&self) -> u64 {
        let seconds = spec(self.lease.as_ref()).and_then(|spec| spec.lease_duration_seconds);
        let told = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        self.since.saturating_add(nanoseconds(told.unwrap_or(self.timings.lease_duration)))
    }

    /// Taken, or renewed if it is this node's already.
    fn taken(&self, old: Option<&LeaseSpec>, wall: &MicroTime) -> LeaseSpec {
        let kept = old.filter(|spec| spec.holder_identity.as_deref() == Some(&self.me));
        let transitions = old
            .map_or(0, |spec| spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(kept.is_none())));
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(self.timings.seconds()),
            acquire_time: kept.and_then(|spec| spec.acquire_time.clone()).or(Some(wall.clone())),
            renew_time: Some(wall.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Nobody's, and soon expired for those who do not look at the holder.
fn released(old: Option<&LeaseSpec>, wall: &MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(RELEASED_SECONDS),
        acquire_time: Some(wall.clone()),
        renew_time: Some(wall.clone()),
        lease_transitions: old.and_then(|spec| spec.lease_transitions),
        ..LeaseSpec::default()
    }
}

/// Whether a Lease of this kind is nobody's, or this node's who does not want it. `is_wanted`: this node takes part in its election.
pub fn is_garbage(lease: &Lease, me: &str, is_wanted: bool) -> bool {
    let is_ours = lease.metadata.name.as_deref().is_some_and(|name| name.starts_with(LEASE_PREFIX));
    let holder = holder(lease);
    is_ours && !is_wanted && (holder.is_empty() || holder == me)
}

fn spec(lease: Option<&Lease>) -> Option<&LeaseSpec> {
    lease.and_then(|lease| lease.spec.as_ref())
}

fn holder(lease: &Lease) -> &str {
    spec(Some(lease)).and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
