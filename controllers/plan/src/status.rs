//! Status of policies: is it valid, what does it select, where is it in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cilium_api::condition::{Condition, VALID};
use cilium_api::parts::Policy as Compiled;
use cilium_api::policy_status::{MAX_LAGGARDS, PolicyNodes, PolicyStatus};
use cilium_core::condition;
use cilium_policy::{Host, Mode, PolicyKey, room};

use crate::compiled::MAX_BYTES;
use crate::enforcement::policy_part;
use crate::node::Token;
use crate::nodes::Entry;
use crate::object::ObjectKey;
use crate::output::Write;
use crate::planner::Planner;
use crate::policies::{Policies, Policy, Refusal, policy_key};

/// Type of the condition that says whether all nodes that need the policy have it in force.
pub(crate) const ENFORCED: &str = "Enforced";

/// Type of the condition that is there, and True, while the policy waits for its author (kstatus: the object has failed).
const STALLED: &str = "Stalled";

/// Entries per policy in the compiled policies of identities, so that no identity is compiled twice for one report.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<u32, HashMap<String, Share>>);

/// Entries of one policy in the compiled policy of an identity.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    entries: i64,
    /// What they are in the map of a node.
    room: i64,
}

/// Where a policy has something to do, and where it does it.
struct Reach {
    endpoints: i64,
    entries: i64,
    /// Entries of a node's map for the endpoint where these are most.
    largest: i64,
    nodes: PolicyNodes,
    /// The first node that says why it cannot, and what it says.
    refusal: Option<String>,
    /// Bytes of the policy of an endpoint that is too large to be in force anywhere.
    excess: Option<usize>,
}

impl Planner {
    pub(crate) fn report_policy(
        &mut self,
        object: &ObjectKey,
        counts: &mut Counts,
        now: i64,
    ) -> Option<Write<PolicyStatus>> {
        let key = policy_key(object);
        let desired =
            self.policies.all.get(&key).map(|policy| self.policy_status(object, &key, policy, counts, now));
        if self.is_delayed(object, desired.as_ref(), now) {
            return None;
        }
        let content = desired.clone();
        let action = self.policies.statuses.decide(object, desired, || content)?;
        Some(Write { key: object.clone(), action })
    }

    /// Whether a status is to wait, as it tells little more than the one that stands.
    fn is_delayed(&mut self, object: &ObjectKey, desired: Option<&PolicyStatus>, now: i64) -> bool {
        let Policies { delayed, statuses, .. } = &mut self.policies;
        let both = statuses.stored(object).zip(desired);
        let is_small = both.is_some_and(|(stored, desired)| is_small_step(stored, desired));
        delayed.waits(object, is_small, now)
    }

    /// Lets the next report write what has waited long enough.
    pub(crate) fn release_delayed(&mut self, now: i64) {
        let Policies { delayed, statuses, .. } = &mut self.policies;
        delayed.due(now).for_each(|object| statuses.touch(object.clone()));
    }

    /// When [`Planner::release_delayed`] has something to do.
    pub(crate) fn next_release(&self) -> Option<i64> {
        self.policies.delayed.next()
    }

    fn policy_status(
        &self,
        object: &ObjectKey,
        key: &PolicyKey,
        policy: &Policy,
        counts: &mut Counts,
        now: i64,
    ) -> PolicyStatus {
        let reach = self.reach(key, counts);
        let generation = (policy.generation != 0).then_some(policy.generation);
        let mut status = self.policies.statuses.stored(object).cloned().unwrap_or_default();
        let mut conditions = status.conditions.take().unwrap_or_default();
        let stalled = policy.refusal.as_ref().map(stalled);
        conditions.retain(|known| known.type_ != STALLED || stalled.is_some());
        let always = [valid(policy), self.enforced(policy, &reach), self.effective(key, policy)];
        for new in always.into_iter().chain(stalled) {
            condition::set(&mut conditions, Condition { observed_generation: generation, ..new }, now);
        }
        status.conditions = Some(conditions);
        status.observed_generation = generation;
        status.selected_endpoints = Some(reach.endpoints);
        status.compiled_entries = Some(reach.entries);
        status.largest_endpoint_entries = Some(reach.largest);
        status.entries_limit = Some(self.config.policy_map_entries.into());
        status.set_nodes(reach.nodes);
        status
    }

    fn reach(&self, key: &PolicyKey, counts: &mut Counts) -> Reach {
        let (mut endpoints, mut entries, mut largest) = (0, 0, 0);
        let mut excess = None;
        let mut places: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for number in self.policies.index.selected(key) {
            let Some(known) = self.identities.get(number).filter(|known| !known.nodes.is_empty()) else {
                continue;
            };
            endpoints += known.nodes.values().sum::<usize>();
            let share = counts.of(number, key, || self.policies.index.compile(number, Host::Plain));
            excess = excess.max(known.compiled.iter().flatten().filter_map(|compiled| compiled.excess).max());
            entries += share.entries;
            largest = largest.max(share.room);
            // A node without object is gone, or not there yet: nobody can wait for it.
            let exists = |name: &&String| self.nodes.get(name).is_some_and(|entry| entry.object.is_some());
            for node in known.nodes.keys().filter(exists) {
                places.entry(node).or_default().insert(number);
            }
        }
        let late: Vec<String> = places
            .iter()
            .filter(|(node, numbers)| !self.has_in_force(node, key, numbers))
            .map(|(node, _)| (*node).to_owned())
            .collect();
        let refusal = late.iter().find_map(|node| {
            let message = self.nodes.get(node)?.state.failure(places.get(node.as_str())?.iter().copied())?;
            Some(format!("{node}: {message}"))
        });
        let nodes = PolicyNodes {
            needed: count(places.len()),
            enforcing: count(places.len() - late.len()),
            laggards: (!late.is_empty()).then(|| late.into_iter().take(MAX_LAGGARDS).collect()),
        };
        Reach { endpoints: count(endpoints), entries, largest, nodes, refusal, excess }
    }

    fn has_in_force(&self, node: &str, key: &PolicyKey, numbers: &BTreeSet<u32>) -> bool {
        let is_in_force = |entry: &Entry| {
            let is_failing = |number: &u32| entry.state.is_failing(&policy_part(*number));
            entry.state.is_confirmed(&Token::Policy(key.clone())) && !numbers.iter().any(is_failing)
        };
        self.nodes.get(node).is_some_and(is_in_force)
    }

    fn enforced(&self, policy: &Policy, reach: &Reach) -> Condition {
        let PolicyNodes { needed, enforcing, .. } = reach.nodes;
        let progress = format!("in force on {enforcing} of {needed} nodes");
        let (status, reason, message) = match (&policy.refusal, &policy.in_force) {
            (Some(_), None) => (
                "False",
                "NotValid",
                "nothing of this policy is in force, as no valid version is known".to_owned(),
            ),
            (Some(_), Some(generation)) => {
                let message = format!("generation {generation}, the last valid one, is {progress}");
                ("False", "PreviousVersion", message)
            }
            (None, _) if self.config.mode == Mode::Never => (
                "False",
                "EnforcementDisabled",
                "policy enforcement is switched off (enable-policy=never)".to_owned(),
            ),
            (None, _) if reach.endpoints == 0 => {
                ("True", "NoEndpoints", format!("selects no endpoints; {progress}"))
            }
            (None, _) if let Some(bytes) = reach.excess => ("False", "TooLarge", too_large(bytes)),
            (None, _) if enforcing < needed => match &reach.refusal {
                Some(refusal) => ("False", "NodeFailure", format!("{progress}; {refusal}")),
                None => ("False", "Pending", progress),
            },
            (None, _) => ("True", "InForce", progress),
        };
        Condition::new(ENFORCED, status, reason, message)
    }
}

fn too_large(bytes: usize) -> String {
    format!(
        "what all policies together say of an endpoint that this one selects takes {bytes} bytes, and a node can be told {MAX_BYTES}: \
         the endpoint is closed; name fewer prefixes and ports, or wider ones"
    )
}

/// Whether two statuses differ in the count of nodes only, and that by little: the same quarter of the nodes is done, and more
/// are late than have room among the names.
fn is_small_step(stored: &PolicyStatus, desired: &PolicyStatus) -> bool {
    let quarter = |status: &PolicyStatus| {
        let nodes = status.nodes.as_ref()?;
        let late = nodes.needed - nodes.enforcing;
        (late > count(MAX_LAGGARDS)).then(|| nodes.enforcing * 4 / nodes.needed)
    };
    stored != desired
        && quarter(desired).is_some()
        && quarter(desired) == quarter(stored)
        && without_progress(stored) == without_progress(desired)
}

fn without_progress(status: &PolicyStatus) -> PolicyStatus {
    let mut status = PolicyStatus { enforced: None, ..status.clone() };
    if let Some(nodes) = &mut status.nodes {
        *nodes = PolicyNodes { needed: nodes.needed, ..PolicyNodes::default() };
    }
    let enforced = status.conditions.iter_mut().flatten().filter(|it| it.type_ == ENFORCED);
    enforced.for_each(|condition| condition.message = None);
    status
}

impl Counts {
    /// What the policy has in the compiled policy of an identity.
    fn of(&mut self, number: u32, key: &PolicyKey, compile: impl FnOnce() -> Option<Compiled>) -> Share {
        let shares = self
            .0
            .entry(number)
            .or_insert_with(|| compile().map(|policy| count_all(&policy)).unwrap_or_default());
        shares.get(key.as_str()).copied().unwrap_or_default()
    }
}

fn count_all(policy: &Compiled) -> HashMap<String, Share> {
    let mut shares: HashMap<String, Share> = HashMap::new();
    for (origins, taken) in room(policy) {
        for name in policy.origin_names(origins.iter().copied()) {
            let share = shares.entry(name.to_owned()).or_default();
            share.entries += 1;
            share.room += count(taken);
        }
    }
    shares
}

fn valid(policy: &Policy) -> Condition {
    match &policy.refusal {
        None => Condition::new(VALID, "True", "Valid", "Policy validation succeeded".to_owned()),
        Some(refusal) => Condition::new(VALID, "False", refusal.reason, refusal.message.clone()),
    }
}

fn stalled(refusal: &Refusal) -> Condition {
    Condition::new(STALLED, "True", refusal.reason, refusal.message.clone())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
