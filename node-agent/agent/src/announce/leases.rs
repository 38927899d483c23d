//! Takes part in the elections of Leases, and tells the thread what became of it. What it writes, [`cilium_announcer::election`] has
//! decided; that Leases are not held for too long, the thread sees to itself.
//!
//! One list in a retry period says who holds the Leases that other nodes have; those that this node holds are renewed each on its own,
//! as far apart as they were taken. Without an API server, all of it waits for the retry period.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cilium_announcer::election::{Election, Timings, is_garbage};
use cilium_announcer::{Tenure, node_number};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};

use super::thread::now;
use super::{LeaseFailures, Line, Message};
use crate::watch::chain;

/// Requests on their way at the same time.
const AT_ONCE: usize = 8;
/// Elections that are due within this time are one batch.
const BATCH: Duration = Duration::from_millis(20);
/// An answer may take as long as the retry period, and this at least.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often Leases are looked through for those that nobody holds.
const GC_EVERY: Duration = Duration::from_secs(60);

/// What takes part in elections.
pub(crate) struct Leases {
    /// Name of this node.
    pub(super) node: String,
    pub(super) timings: Timings,
    /// Names of the Leases that this node wants; closed when it is to give back all that it holds.
    pub(super) wanted: watch::Receiver<BTreeSet<String>>,
    pub(super) line: Line,
}

impl Leases {
    /// Runs until `wanted` is closed and nothing is held any more.
    pub(crate) async fn run(self, client: oneshot::Receiver<Client>, namespace: String) {
        let Ok(client) = client.await else { return };
        let Self { node, timings, mut wanted, line } = self;
        let mut campaign = Campaign::new(Api::namespaced(client, &namespace), node, timings, line);
        let mut is_stopping = false;
        loop {
            let names = if is_stopping { BTreeSet::new() } else { wanted.borrow_and_update().clone() };
            campaign.want(&names);
            campaign.turn().await;
            if is_stopping && campaign.elections.is_empty() {
                return;
            }
            tokio::select! {
                changed = wanted.changed(), if !is_stopping => is_stopping = changed.is_err(),
                () = tokio::time::sleep(campaign.wait()) => {}
            }
        }
    }
}

struct Campaign {
    api: Api<Lease>,
    node: String,
    timings: Timings,
    line: Line,
    elections: BTreeMap<String, Election>,
    /// What the thread knows.
    told: BTreeMap<String, Tenure>,
    /// No list before.
    next_read: u64,
    next_gc: u64,
    /// Why a Lease is not written, by its name, and since when; that they cannot be listed has the empty name.
    failures: BTreeMap<String, (u64, String)>,
    told_failures: LeaseFailures,
}

/// What became of a write.
enum Outcome {
    Written(Box<Lease>),
    /// It was for a version that is not the last one.
    Outdated,
    Failed(String),
}

impl Campaign {
    fn new(api: Api<Lease>, node: String, timings: Timings, line: Line) -> Self {
        // Not all nodes at the same time; and not before everybody has heard that what an agent before held is held no more.
        let every = nanoseconds(GC_EVERY);
        let first = every.max(nanoseconds(timings.lease_duration)) + node_number(&node) % every;
        Self {
            api,
            node,
            timings,
            line,
            elections: BTreeMap::new(),
            told: BTreeMap::new(),
            next_read: 0,
            next_gc: now().saturating_add(first),
            failures: BTreeMap::new(),
            told_failures: LeaseFailures::new(),
        }
    }

    fn want(&mut self, names: &BTreeSet<String>) {
        for (name, election) in &mut self.elections {
            election.want(names.contains(name));
        }
        for name in names {
            let mk = || Election::new(name, &self.node, self.timings);
            self.elections.entry(name.clone()).or_insert_with(mk);
        }
        // Before anything is given back, it is answered for no more.
        self.tell_all();
    }

    /// Time until [`Campaign::turn`] has something to do.
    fn wait(&self) -> Duration {
        let writes = self.elections.values().map(Election::writes_at).min().unwrap_or(u64::MAX);
        let due = writes.min(self.reads_at()).saturating_sub(now());
        Duration::from_nanos(due).max(BATCH)
    }

    fn reads_at(&self) -> u64 {
        let elections = self.elections.values().map(Election::reads_at).min().unwrap_or(u64::MAX);
        elections.min(self.next_gc).max(self.next_read)
    }

    /// Does what is due.
    async fn turn(&mut self) {
        if self.reads_at() <= now() {
            self.read().await;
            self.tell_all();
        }
        self.write().await;
        let now = now();
        self.elections.retain(|_, election| !election.is_over(now));
        self.tell_all();
        self.tell_failures();
    }

    async fn read(&mut self) {
        let began = now();
        let retry = nanoseconds(self.timings.retry_period);
        let list = within(self.timings, self.api.list(&ListParams::default())).await;
        let list = match list {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => return self.read_failed(began + retry, &chain(&error)),
            Err(silence) => return self.read_failed(began + retry, &silence),
        };
        self.failures.remove("");
        // What was refused is looked at soon; but not again and again.
        self.next_read = began + retry / 4;
        let found: BTreeMap<&str, &Lease> =
            list.iter().filter_map(|lease| Some((lease.metadata.name.as_deref()?, lease))).collect();
        let now = now();
        for (name, election) in self.elections.iter_mut().filter(|(_, it)| it.reads_at() < u64::MAX) {
            election.observe(found.get(name.as_str()).copied(), now);
        }
        if self.next_gc <= now {
            self.next_gc = now.saturating_add(nanoseconds(GC_EVERY));
            self.collect_garbage(found).await;
        }
    }

    fn read_failed(&mut self, next: u64, error: &str) {
        self.next_read = next;
        self.fail("", format!("Leases cannot be listed: {error}"));
    }

    fn fail(&mut self, name: &str, error: String) {
        tracing::debug!(error, "an election has to wait");
        let since = self.failures.get(name).map_or_else(now, |(since, _)| *since);
        self.failures.insert(name.to_owned(), (since, error));
    }

    /// Whoever takes one of them at this moment makes another version of it, which stays.
    async fn collect_garbage(&self, found: BTreeMap<&str, &Lease>) {
        let is_wanted = |name| self.elections.contains_key(name);
        let garbage =
            found.into_iter().filter(|(name, lease)| is_garbage(lease, &self.node, is_wanted(*name)));
        for (name, lease) in garbage {
            let ObjectMeta { resource_version, uid, .. } = lease.metadata.clone();
            let only = DeleteParams::default().preconditions(Preconditions { resource_version, uid });
            match within(self.timings, self.api.delete(name, &only)).await {
                Ok(Ok(_)) => tracing::debug!(lease = name, "deleted, as nobody holds it"),
                Ok(Err(error)) => tracing::debug!(lease = name, error = chain(&error), "not deleted"),
                Err(silence) => return tracing::debug!(lease = name, silence, "not deleted"),
            }
        }
    }

    /// Sends what is due. When a request fails, the API server had better be left alone: the others wait, too.
    async fn write(&mut self) {
        let (began, wall) = (now(), MicroTime(Timestamp::now()));
        let claims =
            self.elections.iter().filter_map(|(name, it)| Some((name.clone(), it.claim(began, &wall)?)));
        let claims: Vec<(String, Lease)> = claims.collect();
        let mut waiting: BTreeSet<String> = claims.iter().map(|(name, _)| name.clone()).collect();
        let (api, timings) = (self.api.clone(), self.timings);
        let send = |(name, claim): (String, Lease)| {
            let api = api.clone();
            async move { (now(), send(&api, timings, &name, &claim).await, name) }
        };
        let mut answers = std::pin::pin!(stream::iter(claims).map(send).buffer_unordered(AT_ONCE));
        let mut has_failed = false;
        while !has_failed && let Some((began, outcome, name)) = answers.next().await {
            waiting.remove(&name);
            has_failed = matches!(outcome, Outcome::Failed(_));
            self.follow(&name, began, outcome);
            self.tell(&name);
        }
        for name in waiting {
            self.elections.entry(name).and_modify(|election| election.failed(began));
        }
    }

    fn follow(&mut self, name: &str, began: u64, outcome: Outcome) {
        let Some(election) = self.elections.get_mut(name) else { return };
        match outcome {
            Outcome::Written(lease) => election.written(*lease, began, now()),
            Outcome::Outdated => election.refused(),
            Outcome::Failed(error) => {
                election.failed(began);
                return self.fail(name, format!("Lease {name} cannot be written: {error}"));
            }
        }
        self.failures.remove(name);
    }

    fn tell_all(&mut self) {
        let names: Vec<String> = self.elections.keys().cloned().collect();
        names.iter().for_each(|name| self.tell(name));
        let over: Vec<String> =
            self.told.keys().filter(|name| !self.elections.contains_key(*name)).cloned().collect();
        for name in over {
            self.told.remove(&name);
            self.line.say(Message::Lease(name, None));
        }
    }

    fn tell(&mut self, name: &str) {
        let Some(tenure) = self.elections.get(name).and_then(Election::tenure) else { return };
        if self.told.get(name) != Some(&tenure) {
            self.told.insert(name.to_owned(), tenure.clone());
            self.line.say(Message::Lease(name.to_owned(), Some(tenure)));
        }
    }

    /// What lasts as long as a Lease is held without a renewal.
    fn tell_failures(&mut self) {
        self.failures.retain(|name, _| name.is_empty() || self.elections.contains_key(name));
        let before = now().saturating_sub(nanoseconds(self.timings.renew_deadline));
        let lasting = self.failures.iter().filter(|(_, (since, _))| *since <= before);
        let failures: LeaseFailures =
            lasting.map(|(name, (_, error))| (name.clone(), error.clone())).collect();
        if failures != self.told_failures {
            self.told_failures.clone_from(&failures);
            self.line.say(Message::LeaseFailures(failures));
        }
    }
}

async fn send(api: &Api<Lease>, timings: Timings, name: &str, claim: &Lease) -> Outcome {
    let is_new = claim.metadata.resource_version.is_none();
    let written = if is_new {
        within(timings, api.create(&PostParams::default(), claim)).await
    } else {
        within(timings, api.replace(name, &PostParams::default(), claim)).await
    };
    match written {
        Ok(Ok(lease)) => Outcome::Written(Box::new(lease)),
        // Somebody was faster, or has deleted it.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 || (status.code == 404 && !is_new) => {
            Outcome::Outdated
        }
        Ok(Err(error)) => Outcome::Failed(chain(&error)),
        Err(silence) => Outcome::Failed(silence),
    }
}

/// The answer to a request, or how long none came.
async fn within<T>(timings: Timings, request: impl Future<Output = T>) -> Result<T, String> {
    let time = timings.retry_period.max(ANSWER_WITHIN);
    let answer = tokio::time::timeout(time, request).await;
    answer.map_err(|_| format!("no answer within {} ms", time.as_millis()))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
