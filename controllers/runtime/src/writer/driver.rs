//! The task that sends.

use std::collections::HashMap;
use std::time::Duration;

use axum::http;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kube::Client;
use kube::core::Status;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backoff::doubled;
use crate::lease::Standing;
use crate::metrics::{Kind, Metrics};
use crate::object::ObjectRef;
use crate::root_cause;

use super::queue::Queue;
use super::{Job, Limits, Outcome, Report, Request, Verb};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses after failures that pass by themselves: an unreachable server, a server that asks for patience.
const FAILED: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// Pauses after answers that somebody has to act upon: missing rights, an object that the schema refuses.
///
/// A server that has just started refuses everything for a moment, until it has read its own rules.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// Refusals in a row from which on they are worth a line at the default level.
const WORTH_A_LINE: u32 = 3;

/// Pauses after the second conflict in a row; the first one is answered at once.
const CONFLICT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

pub(super) struct Driver {
    client: Client,
    standing: watch::Receiver<Standing>,
    metrics: Metrics,
    reports: mpsc::UnboundedSender<Report>,
    queue: Queue,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    pausing: FuturesUnordered<BoxFuture<'static, Report>>,
    /// Attempts that did not work, since the last one that did.
    failures: HashMap<ObjectRef, u32>,
    pace: Pace,
}

/// A job that has run.
struct Ended {
    object: ObjectRef,
    started: Instant,
    result: Result<Option<String>, Failure>,
}

/// Why a job did not work.
enum Failure {
    Conflict(Option<Box<serde_json::Value>>),
    Refused(Box<Status>),
    Transient(Box<dyn std::error::Error + Send + Sync>),
}

impl Driver {
    pub(super) fn new(
        client: Client,
        standing: watch::Receiver<Standing>,
        limits: Limits,
        metrics: Metrics,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Self {
            client,
            standing,
            metrics,
            reports,
            queue: Queue::default(),
            running: FuturesUnordered::new(),
            pausing: FuturesUnordered::new(),
            failures: HashMap::new(),
            pace: Pace::new(limits),
        }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        loop {
            self.start_jobs();
            self.metrics.writes_pending.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => self.take(job, &mut jobs),
                    None => return,
                },
                Some(ended) = self.running.next() => self.end(ended),
                Some(report) = self.pausing.next() => self.report(report),
                () = self.pace.wait(), if self.pace.is_exhausted() => {}
                changed = self.standing.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes everything that is there: what was decided together is sorted by importance before the first is sent.
    fn take(&mut self, first: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        self.queue.push(first);
        while let Ok(job) = jobs.try_recv() {
            self.queue.push(job);
        }
    }

    fn start_jobs(&mut self) {
        while *self.standing.borrow() == Standing::Leading
            && !self.pace.is_exhausted()
            && let Some(job) = self.queue.start()
        {
            self.pace.count();
            self.running.push(Box::pin(execute(self.client.clone(), job)));
        }
    }

    fn end(&mut self, Ended { object, started, result }: Ended) {
        self.queue.finish(&object);
        let kind = object.resource.kind;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.write_seconds.get_or_create(&Kind { kind }).observe(seconds);
        match result {
            Ok(version) => {
                self.metrics.count_write(kind, "done");
                self.failures.remove(&object);
                self.report(Report { object, outcome: Outcome::Done(version) });
            }
            Err(failure) => self.fail(object, failure),
        }
    }

    fn fail(&mut self, object: ObjectRef, failure: Failure) {
        let before = self.failures.get(&object).copied().unwrap_or(0);
        let (label, outcome, pause) = match failure {
            Failure::Conflict(current) => {
                tracing::debug!(%object, exists = current.is_some(), "not as expected; planning again");
                let pause = before.checked_sub(1).map_or(Duration::ZERO, |times| pause(CONFLICT, times));
                ("conflict", Outcome::Conflict(current), pause)
            }
            Failure::Refused(status) => {
                report_refusal(&object, &status, before);
                ("refused", Outcome::Failed, pause(REFUSED, before))
            }
            Failure::Transient(error) => {
                let error = root_cause(&*error).to_string();
                tracing::debug!(%object, error, "could not write; trying again");
                ("failed", Outcome::Failed, pause(FAILED, before))
            }
        };
        self.metrics.count_write(object.resource.kind, label);
        // An object that is gone comes back as another one.
        if outcome == Outcome::Conflict(None) {
            self.failures.remove(&object);
        } else {
            self.failures.insert(object.clone(), before.saturating_add(1));
        }
        self.pausing.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Report { object, outcome }
        }));
    }

    fn report(&self, report: Report) {
        // Nobody listens once the process is on its way out.
        let _ = self.reports.send(report);
    }
}

fn report_refusal(object: &ObjectRef, status: &Status, before: u32) {
    let (code, reason) = (status.code, status.message.as_str());
    if before < WORTH_A_LINE {
        tracing::debug!(%object, code, reason, "the API server refuses the write");
    } else {
        tracing::warn!(%object, code, reason, "the API server keeps refusing the write; it is tried again");
    }
}

fn pause((first, most): (Duration, Duration), failures: u32) -> Duration {
    doubled(first, failures, most)
}

async fn execute(client: Client, job: Job) -> Ended {
    let started = Instant::now();
    let result = run_requests(&client, &job).await;
    Ended { object: job.object, started, result }
}

async fn run_requests(client: &Client, job: &Job) -> Result<Option<String>, Failure> {
    let mut version = None;
    for request in &job.requests {
        version = match send_or_else(client, &job.object, request).await {
            Ok(version) => version,
            Err(error) => return judge(client, &job.object, request.verb, error).await,
        };
    }
    Ok(version)
}

/// Sends `request`, or what stands in for it when the object is not as it expects.
async fn send_or_else(
    client: &Client,
    object: &ObjectRef,
    request: &Request,
) -> Result<Option<String>, SendError> {
    match (send(client, object, request).await, request.otherwise.as_deref()) {
        (Err(SendError::Answer(status)), Some(otherwise)) if is_unexpected(request.verb, status.code) => {
            send(client, object, otherwise).await
        }
        (result, _) => result,
    }
}

fn is_unexpected(verb: Verb, code: u16) -> bool {
    matches!((verb, code), (Verb::JsonPatch, TEST_FAILED) | (Verb::Replace, 409))
}

/// What an error means for the job.
async fn judge(
    client: &Client,
    object: &ObjectRef,
    verb: Verb,
    error: SendError,
) -> Result<Option<String>, Failure> {
    let status = match error {
        SendError::Answer(status) => status,
        SendError::None(error) => return Err(Failure::Transient(error)),
    };
    match (status.code, verb) {
        (404, Verb::Delete) => Ok(None),
        (404 | 409, _) => Err(reread(client, object).await),
        (TEST_FAILED, Verb::JsonPatch) if is_failed_test(&status) => Err(reread(client, object).await),
        (408 | 429, _) | (500.., _) => Err(Failure::Transient(Box::new(kube::Error::Api(status)))),
        _ => Err(Failure::Refused(status)),
    }
}

/// Code for a failed test of a JSON patch, and for an object that the schema refuses.
const TEST_FAILED: u16 = 422;

/// The schema's refusal names fields; a failed test does not.
fn is_failed_test(status: &Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.causes.iter().all(|cause| cause.field.is_empty()))
}

/// The object as it is, for whoever believed it was different.
async fn reread(client: &Client, object: &ObjectRef) -> Failure {
    let request = match http::Request::get(object.path(None)).body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Failure::Transient(Box::new(error)),
    };
    match timely(client.request::<serde_json::Value>(request)).await {
        Ok(current) => Failure::Conflict(Some(Box::new(current))),
        Err(SendError::Answer(status)) if status.code == 404 => Failure::Conflict(None),
        Err(SendError::Answer(status)) => Failure::Transient(Box::new(kube::Error::Api(status))),
        Err(SendError::None(error)) => Failure::Transient(error),
    }
}

/// Why a request did not work.
enum SendError {
    /// The server said no.
    Answer(Box<Status>),
    /// There was no answer that can be understood.
    None(Box<dyn std::error::Error + Send + Sync>),
}

async fn send(client: &Client, object: &ObjectRef, request: &Request) -> Result<Option<String>, SendError> {
    let http = request.to_http(object).map_err(|error| SendError::None(Box::new(error)))?;
    let answer: Answer = timely(client.request(http)).await?;
    Ok(answer.metadata.resource_version.filter(|_| request.verb != Verb::Delete))
}

async fn timely<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, SendError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(SendError::Answer(status)),
        Ok(Err(error)) => Err(SendError::None(Box::new(error))),
        Err(elapsed) => Err(SendError::None(Box::new(elapsed))),
    }
}

/// All that is of interest in an answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    metadata: AnswerMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnswerMeta {
    resource_version: Option<String>,
}

/// A bucket that fills at a given rate and holds what a second and a half brings.
struct Pace {
    rate: Option<f64>,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    fn new(limits: Limits) -> Self {
        let rate = limits.per_second.filter(|rate| *rate > 0.0);
        Self { rate, tokens: rate.map_or(0.0, capacity), filled: Instant::now() }
    }

    fn count(&mut self) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(capacity(rate)) - 1.0;
        self.filled = now;
    }

    /// Whether a write has to wait.
    fn is_exhausted(&self) -> bool {
        !self.time_left().is_zero()
    }

    fn time_left(&self) -> Duration {
        let Some(rate) = self.rate.filter(|_| self.tokens < 1.0) else { return Duration::ZERO };
        Duration::from_secs_f64((1.0 - self.tokens) / rate).saturating_sub(self.filled.elapsed())
    }

    /// Until a write may start.
    async fn wait(&self) {
        tokio::time::sleep(self.time_left()).await;
    }
}

fn capacity(rate: f64) -> f64 {
    (rate * 1.5).max(1.0)
}
