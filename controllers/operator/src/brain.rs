//! The one place where state is: planner, nodes to open, and what was listed. Synchronous; the loop in `main` drives it.

use std::collections::HashSet;
use std::time::Duration;

use cilium_plan::{Kind, Object, ObjectKey, Outcome as Written, Planner};
use cilium_runtime::writer::{Job, Outcome, Report};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::bootstrap::Bootstrap;
use crate::feed::{self, News};
use crate::{jobs, kinds};

/// How long what people look at waits for more changes: long enough for the nodes to have answered, short enough for people.
const REPORT_DELAY: Duration = Duration::from_millis(150);

/// Takes news and gives jobs.
#[derive(Debug)]
pub struct Brain {
    planner: Planner,
    bootstrap: Bootstrap,
    /// Kinds that were not listed yet.
    unlisted: HashSet<Kind>,
    report_at: Option<Instant>,
    /// Time at which the planner wants to be asked again.
    wake: Option<i64>,
}

impl Brain {
    /// Knows nothing yet.
    pub fn new(planner: Planner, bootstrap: Bootstrap) -> Self {
        Self { planner, bootstrap, unlisted: kinds::ALL.into_iter().collect(), report_at: None, wake: None }
    }

    /// Takes what a watch brought.
    pub fn take(&mut self, news: News) {
        match news {
            News::Applied(object) => self.observe(object),
            News::Unreadable(key, reason) => {
                tracing::warn!(%key, reason, "the object does not parse and is left out of account; correct or delete it");
            }
            News::Gone(key) => self.forget(&key),
            News::Listed(kind, gone) => {
                gone.iter().for_each(|key| self.forget(key));
                self.listed(kind);
            }
        }
    }

    fn observe(&mut self, object: Object) {
        match &object {
            Object::Node(node) => self.bootstrap.observe_node(node),
            Object::NodeState(state) => self.bootstrap.observe_state(state),
            _ => {}
        }
        self.planner.observe(object);
    }

    fn forget(&mut self, key: &ObjectKey) {
        if key.kind == Kind::Node {
            self.bootstrap.forget_node(&key.name);
        }
        self.planner.forget(key);
    }

    fn listed(&mut self, kind: Kind) {
        if self.unlisted.remove(&kind) && self.unlisted.is_empty() {
            tracing::info!("everything is listed; planning");
            self.planner.synced();
        }
    }

    /// Warnings for the author of an object that is about to be stored; none before everything was listed.
    pub fn advise(&self, object: &Object) -> Vec<String> {
        if self.unlisted.is_empty() { self.planner.advise(object) } else { Vec::new() }
    }

    /// Takes how a job went.
    pub fn written(&mut self, Report { object, outcome }: Report) {
        // Events are told once, whether they arrive or not.
        let Some(key) = kinds::to_key(&object) else { return };
        let outcome = match outcome {
            Outcome::Done(version) => Written::Done(version),
            Outcome::Failed => Written::Failed,
            Outcome::Conflict(current) => {
                self.correct(&key, current);
                Written::Conflict
            }
        };
        if key.kind == Kind::Node {
            self.bootstrap.written(&key.name, matches!(outcome, Written::Done(_)));
        } else {
            self.planner.written(&key, outcome);
        }
    }

    /// Learns how an object is that was believed to be different.
    fn correct(&mut self, key: &ObjectKey, current: Option<Box<serde_json::Value>>) {
        match current.map(|current| feed::parse(key.kind, *current)) {
            Some(Ok(news)) => self.take(news),
            Some(Err(error)) => self.take(News::Unreadable(key.clone(), error.to_string())),
            None => self.forget(key),
        }
    }

    /// What is to be written now; nothing before everything was listed.
    ///
    /// # Errors
    /// Never in practice: everything that the planner gives has a JSON form.
    pub fn plan(&mut self, now: Instant, wall: Timestamp) -> Result<Vec<Job>, serde_json::Error> {
        if !self.unlisted.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.planner.plan(wall.as_second());
        self.wake = output.wake;
        if output.report_due {
            self.report_at.get_or_insert(now + REPORT_DELAY);
        }
        let mut planned = jobs::of_plan(output, wall)?;
        planned.extend(self.bootstrap.plan(wall)?);
        if self.report_at.is_some_and(|due| due <= now) {
            self.report_at = None;
            planned.extend(jobs::of_report(self.planner.report(wall.as_second()))?);
        }
        Ok(planned)
    }

    /// Of load balancers, as of the last plan.
    pub fn load_balancer_numbers(&self) -> Option<cilium_lbipam::Numbers> {
        self.planner.load_balancer_numbers()
    }

    /// When to plan again though no news came.
    pub fn next(&self, now: Instant, wall: Timestamp) -> Option<Instant> {
        let wake = self.wake.map(|at| now + until(at, wall));
        self.report_at.into_iter().chain(wake).min()
    }
}

/// Time from `wall` to `at`, which is in seconds since the epoch. A clock that is set cannot make it longer than an hour.
fn until(at: i64, wall: Timestamp) -> Duration {
    let seconds = at.saturating_sub(wall.as_second()).clamp(0, 3600);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(Duration::from_millis(50))
}
