//! Numbers for label sets, and who uses them where.

use std::collections::BTreeMap;

use cilium_api::CiliumIdentity;
use cilium_api::parts::{Identity, Part, PartKey};
use cilium_core::condition::rfc3339;
use cilium_core::reserved::{FIRST_ALLOCATED, LAST_ALLOCATED};
use cilium_core::{Labels, reserved};
use cilium_identity::object::{MARK, Stored, build, read};
use cilium_identity::{Action as Collect, Allocator, Error, Observed};

use crate::compiled::Compiled;
use crate::ledger::Ledger;
use crate::object::{Kind, ObjectKey};
use crate::output::{Action, Outcome, Write};
use crate::planner::Planner;

/// All identities of endpoints, and those of prefixes outside the cluster.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    allocator: Allocator,
    known: BTreeMap<u32, Known>,
    /// Objects that came (with what they say) or went since the last plan, which has the time that the allocator asks for.
    news: Vec<(u32, Option<Stored>)>,
    pub(crate) ledger: Ledger<Stored>,
    /// What garbage collection asked for and is not done yet.
    collect: BTreeMap<u32, Collect>,
    next_sweep: Option<i64>,
}

/// An identity that policies can select or name as a peer.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) labels: Labels,
    /// Nodes that have endpoints with it, and how many.
    pub(crate) nodes: BTreeMap<String, usize>,
    /// Its policy on nodes that run no API server, and on those that do; only for kinds of nodes that have it.
    pub(crate) compiled: [Option<Compiled>; 2],
}

impl Identities {
    pub(crate) fn known(&self) -> &BTreeMap<u32, Known> {
        &self.known
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Known> {
        self.known.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Known> {
        self.known.get_mut(&number)
    }

    /// Labels of a number that endpoints can have.
    pub(crate) fn labels(&self, number: u32) -> Option<&Labels> {
        self.allocator.labels(number)
    }

    /// Label sets with more than one number.
    pub(crate) fn duplicates(&self) -> usize {
        self.allocator.duplicates().len()
    }

    /// Numbers are nobody's business outside the range that is allocated here.
    fn is_ours(number: u32) -> bool {
        (FIRST_ALLOCATED..=LAST_ALLOCATED).contains(&number)
    }
}

fn key(number: u32) -> ObjectKey {
    ObjectKey::cluster(Kind::Identity, &number.to_string())
}

impl Planner {
    pub(crate) fn observe_identity(&mut self, object: &CiliumIdentity) {
        let key = ObjectKey::cluster(Kind::Identity, object.metadata.name.as_deref().unwrap_or_default());
        let (number, stored) = match read(object) {
            Ok(read) => read,
            Err(error) => return self.warn(key, object.metadata.uid.as_deref(), "InvalidIdentity", &error),
        };
        let (version, uid) = (object.metadata.resource_version.as_deref(), object.metadata.uid.as_deref());
        if Identities::is_ours(number) && self.identities.ledger.observe(&key, stored.clone(), version, uid) {
            self.identities.news.push((number, Some(stored)));
        }
    }

    pub(crate) fn forget_identity(&mut self, key: &ObjectKey) {
        if let Some(number) = key.name.parse().ok().filter(|number| Identities::is_ours(*number)) {
            self.identities.ledger.forget(key);
            self.identities.news.push((number, None));
        }
    }

    /// Takes in what was observed since the last plan.
    pub(crate) fn follow_identities(&mut self, now: i64) {
        for (number, stored) in std::mem::take(&mut self.identities.news) {
            let allocator = &mut self.identities.allocator;
            let rewrite = match stored {
                Some(stored) => allocator.observe(number, &stored, now) == Observed::Rewrite,
                None => allocator.forget(number),
            };
            if rewrite {
                self.identities.ledger.touch(key(number));
            }
            self.follow_labels(number);
        }
    }

    /// Makes policies and parts follow what the allocator knows of a number.
    fn follow_labels(&mut self, number: u32) {
        let labels = self.identities.allocator.labels(number).cloned();
        if labels.is_none() {
            // A number is free again.
            self.retry_waiting(&crate::endpoints::Room::ForIdentities);
        }
        self.set_known(number, labels);
    }

    /// Sets the labels behind a number, for policies and for nodes.
    pub(crate) fn set_known(&mut self, number: u32, labels: Option<Labels>) {
        if self.identities.get(number).map(|known| &known.labels) == labels.as_ref() {
            return;
        }
        self.policies.index.set_identity(number, labels.clone());
        if !reserved::is_node_host(number) {
            let part = labels.as_ref().map(|labels| Part::Identity(Identity { labels: labels.to_strings() }));
            self.shared.set(&PartKey::identity(number), part.as_ref());
        }
        match (labels, self.identities.known.get_mut(&number)) {
            (Some(labels), Some(known)) => known.labels = labels,
            (Some(labels), None) => {
                let known = Known { labels, nodes: BTreeMap::new(), compiled: [None, None] };
                self.identities.known.insert(number, known);
            }
            (None, _) => drop(self.identities.known.remove(&number)),
        }
    }

    /// A number for labels, held until [`Planner::release_identity`]. `before` is what the endpoint had before a restart.
    pub(crate) fn acquire_identity(
        &mut self,
        labels: &Labels,
        before: Option<u32>,
        now: i64,
    ) -> Result<u32, Error> {
        let allocation = self.identities.allocator.acquire(labels, before, now)?;
        if allocation.is_new {
            self.identities.ledger.touch(key(allocation.number));
            self.follow_labels(allocation.number);
        }
        Ok(allocation.number)
    }

    pub(crate) fn release_identity(&mut self, number: u32, now: i64) {
        self.identities.allocator.release(number, now);
    }

    /// Writes of identities, garbage collection included.
    pub(crate) fn write_identities(&mut self, now: i64) -> Vec<Write<CiliumIdentity>> {
        self.sweep(now);
        let due = self.identities.ledger.take_due();
        due.into_iter().filter_map(|key| self.write_identity(key, now)).collect()
    }

    /// When [`Planner::write_identities`] has to be called again even if nothing changes.
    pub(crate) fn next_sweep(&self) -> Option<i64> {
        self.identities.next_sweep
    }

    fn sweep(&mut self, now: i64) {
        let interval = self.config.identity_gc_interval;
        if interval <= 0 {
            return;
        }
        match self.identities.next_sweep {
            Some(next) if next > now => return,
            Some(_) => {
                for (number, action) in self.identities.allocator.sweep(now) {
                    self.identities.collect.insert(number, action);
                    self.identities.ledger.touch(key(number));
                }
            }
            None => {}
        }
        self.identities.next_sweep = Some(now.saturating_add(interval));
    }

    fn write_identity(&mut self, key: ObjectKey, now: i64) -> Option<Write<CiliumIdentity>> {
        let number: u32 = key.name.parse().ok()?;
        let Identities { allocator, ledger, collect, .. } = &mut self.identities;
        let collect = collect.get(&number).copied();
        let stored = ledger.stored(&key);
        let exists = stored.is_some();
        let marked = match collect {
            Some(Collect::Mark) => true,
            Some(Collect::Unmark) => false,
            _ => stored.is_some_and(|stored| stored.marked),
        };
        let labels = allocator.labels(number).filter(|_| collect != Some(Collect::Delete)).cloned();
        let desired = labels.map(|labels| Stored { labels, marked });
        let precondition = ledger.precondition(&key);
        let content = desired.clone();
        let action = ledger.decide(&key, desired, || {
            let content = content?;
            let mut object = build(number, &content.labels);
            if exists {
                object.metadata.uid = precondition.uid.clone();
                object.metadata.resource_version = precondition.resource_version.clone();
                let mark = content.marked.then(|| (MARK.to_owned(), rfc3339(now)));
                object.metadata.annotations = Some(mark.into_iter().collect());
            }
            Some(object)
        });
        let Some(action) = action else {
            self.identities.collect.remove(&number);
            return None;
        };
        // Somebody may have begun to use the number through the object.
        let action = if let Action::Delete(_) = action { Action::Delete(precondition) } else { action };
        Some(Write { key, action })
    }

    pub(crate) fn identity_written(&mut self, key: &ObjectKey, outcome: Outcome) {
        if let Ok(number) = key.name.parse() {
            self.collected(number, &outcome);
        }
        self.identities.ledger.written(key, outcome);
    }

    fn collected(&mut self, number: u32, outcome: &Outcome) {
        let Some(collect) = self.identities.collect.get(&number) else { return };
        match outcome {
            // What was asked for stays to be done.
            Outcome::Failed => return,
            Outcome::Done(_) if *collect == Collect::Delete => self.identities.news.push((number, None)),
            Outcome::Done(_) | Outcome::Conflict => {}
        }
        self.identities.collect.remove(&number);
    }

    /// Name of an identity for people: its labels, for a number.
    pub(crate) fn identity_labels(&self, number: u32) -> Vec<String> {
        let labels = self.identities.labels(number).cloned().or_else(|| reserved::labels(number));
        labels.unwrap_or_default().to_strings()
    }
}
