//! Leader election over `coordination.k8s.io/v1` Lease, with the semantics of client-go.
//!
//! # Guarantees
//! - At most one process leads, as long as clocks run at about the same speed: a holder stops by itself
//!   [`Config::renew_deadline`] after its last renewal, before others may take over after [`Config::lease_duration`].
//! - Times in the Lease are never compared with the local clock. A record counts as expired when it did not change
//!   for its duration since this process first saw it.
//! - A holder that cannot reach the API server is [`Standing::Suspended`], not deposed: nobody else can reach the Lease
//!   either, or somebody has it. It leads on if the Lease is still its own when the server answers again, else [`lead`] returns.

mod elector;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use elector::{Elector, Step};

use crate::root_cause;

/// Longest wait for one answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// How the election runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Lease.
    pub name: String,
    /// Who asks. Two processes that run at the same time must not share it.
    pub identity: String,
    /// How long a silent holder keeps the lease.
    pub lease_duration: Duration,
    /// How long a holder acts without a renewal; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry_period: Duration,
}

/// What this process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: another one leads, or nobody.
    Waiting,
    /// Write.
    Leading,
    /// Nothing until the lease is renewed; what was learned stays good.
    Suspended,
    /// Nothing any more.
    Lost,
}

/// Where the Lease is kept.
pub trait Store {
    /// The Lease, if it exists.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<Lease>, kube::Error>> + Send;
    /// Makes it; fails if it exists.
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<(), kube::Error>> + Send;
    /// Replaces it; fails if its resourceVersion is not the one given.
    fn replace(&self, lease: &Lease) -> impl Future<Output = Result<(), kube::Error>> + Send;
}

impl Store for Api<Lease> {
    async fn get(&self, name: &str) -> Result<Option<Lease>, kube::Error> {
        self.get_opt(name).await
    }
    async fn create(&self, lease: &Lease) -> Result<(), kube::Error> {
        Api::create(self, &PostParams::default(), lease).await.map(drop)
    }
    async fn replace(&self, lease: &Lease) -> Result<(), kube::Error> {
        Api::replace(self, &lease.name_any(), &PostParams::default(), lease).await.map(drop)
    }
}

/// Takes part in the election, and reports changes to `standing`. Returns when leadership is lost to another process.
pub async fn lead<S: Store>(store: &S, config: Config, standing: &watch::Sender<Standing>) {
    let pause = config.retry_period;
    let mut candidate = Candidate { store, elector: Elector::new(config), renewed: None, failing: false };
    loop {
        let now = *standing.borrow();
        let next = candidate.attempt(now).await;
        standing.send_if_modified(|current| std::mem::replace(current, next) != next);
        if next == Standing::Lost {
            return;
        }
        tokio::time::sleep_until(candidate.next_attempt(pause)).await;
    }
}

/// Gives the lease back, so that another process need not wait for it to expire.
///
/// # Errors
/// The API server did not take it; the lease then expires.
pub async fn release<S: Store>(store: &S, config: &Config) -> Result<(), kube::Error> {
    let Some(mut lease) = store.get(&config.name).await? else { return Ok(()) };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&config.identity) {
        return Ok(());
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    store.replace(&lease).await
}

struct Candidate<'a, S> {
    store: &'a S,
    elector: Elector,
    /// Start of the last attempt that succeeded: the server may count from there.
    renewed: Option<Instant>,
    /// The last attempt did not reach the server.
    failing: bool,
}

impl<S: Store> Candidate<'_, S> {
    async fn attempt(&mut self, standing: Standing) -> Standing {
        let started = Instant::now();
        let within = self.time_left(standing, started);
        let held = match tokio::time::timeout(within, self.take_or_renew(standing, started)).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => return self.failed(standing, &error),
            Err(elapsed) => return self.failed(standing, &elapsed),
        };
        self.failing = false;
        if held == Held::Ours {
            self.renewed = Some(started);
        }
        match (standing, held) {
            (Standing::Lost, _) => Standing::Lost,
            (Standing::Waiting | Standing::Leading, Held::Ours) => Standing::Leading,
            (Standing::Waiting, _) => Standing::Waiting,
            // Without an interruption: the record said that it was ours before it was renewed.
            (Standing::Suspended, Held::Ours) => Standing::Leading,
            (Standing::Leading | Standing::Suspended, Held::Other) => Standing::Lost,
            (standing, Held::Unclear) => self.overdue(standing),
        }
    }

    async fn take_or_renew(&mut self, standing: Standing, now: Instant) -> Result<Held, kube::Error> {
        let lease = self.store.get(&self.elector.config().name).await?;
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let step = self.elector.decide(spec.as_ref(), standing, now, Timestamp::now());
        let written = match (step, lease) {
            (Step::Wait, _) => return Ok(Held::Other),
            (Step::Take(spec), Some(lease)) => self.store.replace(&Lease { spec: Some(spec), ..lease }).await,
            (Step::Take(spec), None) => self.store.create(&self.mk_lease(spec)).await,
        };
        match written {
            Ok(()) => Ok(Held::Ours),
            // Somebody was faster; the next attempt sees who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Held::Unclear),
            Err(error) => Err(error),
        }
    }

    fn mk_lease(&self, spec: LeaseSpec) -> Lease {
        let name = Some(self.elector.config().name.clone());
        Lease { metadata: ObjectMeta { name, ..Default::default() }, spec: Some(spec) }
    }

    fn failed(&mut self, standing: Standing, error: &(dyn std::error::Error + 'static)) -> Standing {
        let lease = self.elector.config().name.as_str();
        let error = root_cause(error).to_string();
        // Once for an outage, however long.
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(lease, error, "still cannot reach the Lease");
        } else {
            tracing::warn!(lease, error, "cannot reach the Lease; trying until it works");
        }
        self.overdue(standing)
    }

    /// A leader that could not renew in time has to stop.
    fn overdue(&self, standing: Standing) -> Standing {
        match standing {
            Standing::Leading if self.left(Instant::now()).is_zero() => Standing::Suspended,
            standing => standing,
        }
    }

    /// Time until a leader has to stop.
    fn left(&self, now: Instant) -> Duration {
        let since = self.renewed.map_or(Duration::MAX, |renewed| now.duration_since(renewed));
        self.elector.config().renew_deadline.saturating_sub(since)
    }

    fn time_left(&self, standing: Standing, now: Instant) -> Duration {
        match standing {
            Standing::Leading => ATTEMPT_TIMEOUT.min(self.left(now)),
            _ => ATTEMPT_TIMEOUT,
        }
    }

    /// After a pause, but in time to stop.
    fn next_attempt(&self, pause: Duration) -> Instant {
        let now = Instant::now();
        match self.left(now) {
            left if left.is_zero() => now + pause,
            left => now + pause.min(left),
        }
    }
}

/// What an attempt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Ours,
    Other,
    /// Somebody wrote at the same time.
    Unclear,
}

#[cfg(test)]
mod tests;
