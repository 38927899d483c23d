//! Concurrent writes to the API server.
//!
//! # Guarantees
//! - Jobs of one object never run at the same time; one that waits is replaced by a newer one of the same object.
//! - Jobs of a more important [`Lane`] start first, and no lane can use up the connections of another one.
//! - Nothing is sent unless this process leads.
//! - Every job that was not replaced is answered by one [`Report`]. Failures are reported after a pause that grows with the
//!   failures of the object, so whoever repeats a job at once after its report behaves well.
//! - A job is never repeated here: after a pause its content may be out of date.

mod driver;
mod queue;
mod request;

use futures::future::BoxFuture;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::lease::Standing;
use crate::metrics::Metrics;
use crate::object::ObjectRef;

pub use request::{Request, Verb};

/// How soon a write is wanted. Each lane has its own share of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Something waits for it: node state.
    Urgent,
    /// Records.
    Normal,
    /// For people to look at.
    Lazy,
}

impl Lane {
    /// All lanes, the most important first.
    const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Lazy];

    /// Most writes of the lane at the same time.
    const fn width(self) -> usize {
        match self {
            Self::Urgent => 16,
            Self::Normal => 6,
            Self::Lazy => 2,
        }
    }
}

/// A write of one object.
#[derive(Clone, Debug)]
pub struct Job {
    /// Object that is written.
    pub object: ObjectRef,
    /// How soon.
    pub lane: Lane,
    /// Requests, one after the other; the first that fails ends the job.
    pub requests: Vec<Request>,
}

/// How a job went.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Object that was to be written.
    pub object: ObjectRef,
    /// How it went.
    pub outcome: Outcome,
}

/// How a job went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It stands, with this resource version (`None` after a delete).
    Done(Option<String>),
    /// The object is not as the job expects; this is how it is, or `None` if it does not exist.
    Conflict(Option<Box<serde_json::Value>>),
    /// It did not work; the pause before another attempt is over.
    Failed,
}

/// The end that takes jobs. Clones feed the same writer.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Writer {
    /// Queues a job. After the writer's task has ended, jobs are dropped.
    pub fn submit(&self, job: Job) {
        // The task ends only with the process.
        let _ = self.jobs.send(job);
    }
}

/// Limits for what a writer sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most writes in a second; `None` for no limit.
    pub per_second: Option<f64>,
}

/// A writer, the reports of its jobs, and the task that does the work: it must be polled.
pub fn start(
    client: Client,
    standing: watch::Receiver<Standing>,
    limits: Limits,
    metrics: Metrics,
) -> (Writer, mpsc::UnboundedReceiver<Report>, BoxFuture<'static, ()>) {
    let (jobs, queue) = mpsc::unbounded_channel();
    let (reports, receiver) = mpsc::unbounded_channel();
    let driver = driver::Driver::new(client, standing, limits, metrics, reports);
    (Writer { jobs }, receiver, Box::pin(driver.run(queue)))
}

#[cfg(test)]
mod tests;
