//! What changes about names when one compiled policy takes the place of another: for addresses that are meant by them, and for
//! questions.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Entry, NamedPeer, Policy, Step};
use cilium_core::NamePattern;

use crate::diff::{Change, changes};
use crate::verdict::{Flow, Side, questions, verdict};

/// Stands for the endpoint in questions to the oracle; no peer has this number.
const SUBJECT: u32 = u32::MAX;

/// Questions for a name that pass by one policy and not by the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionChange {
    /// Whom the questions are for, as in entries.
    pub peer: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// A name or pattern, as policies have it; `None`: all names that no rule of the two is about.
    pub name: Option<String>,
    /// Whether they pass afterwards.
    pub allowed: bool,
}

/// What changes for traffic to addresses outside of the cluster that have a name. `pattern` is one that a policy has;
/// `world` is what the addresses are without names.
pub fn name_changes(
    before: Option<&Policy>,
    after: Option<&Policy>,
    pattern: &str,
    world: u32,
) -> Vec<Change> {
    let known = |policy: Option<&Policy>| policy.map(|policy| known_by(policy, pattern, world));
    changes(known(before).as_ref(), known(after).as_ref(), Side::Egress, (world, world), None)
}

/// The policy with what it says of a name said of the world.
pub(crate) fn known_by(policy: &Policy, pattern: &str, world: u32) -> Policy {
    let entries = |peers: &[NamedPeer]| -> Vec<Entry> {
        let meant = peers.iter().filter(|peer| covers(&peer.pattern, pattern));
        meant
            .map(|peer| Entry {
                peer: world,
                protocol: peer.protocol,
                first: peer.first,
                last: peer.last,
                origins: peer.origins.clone(),
            })
            .collect()
    };
    let mut policy = policy.clone();
    policy.egress.allow.extend(entries(&policy.names));
    let add = |step: &mut Step| step.entries.extend(entries(&step.names));
    policy.egress.admin.iter_mut().for_each(add);
    policy.egress.baseline.iter_mut().for_each(add);
    policy
}

/// Whether a pattern means all that the other one means.
fn covers(pattern: &str, other: &str) -> bool {
    let is_name = !other.contains('*');
    let parsed = NamePattern::pattern(pattern);
    pattern == other || parsed.is_ok_and(|parsed| parsed.is_every() || (is_name && parsed.matches(other)))
}

/// What changes about questions of an endpoint, sorted.
pub fn question_changes(before: Option<&Policy>, after: Option<&Policy>) -> Vec<QuestionChange> {
    let rules = || [before, after].into_iter().flatten().flat_map(|policy| &policy.dns);
    let servers: BTreeSet<(u32, u8, u16)> =
        rules().map(|rule| (rule.peer, rule.protocol, rule.port)).collect();
    let mut names: BTreeSet<Option<&str>> =
        rules().flat_map(|rule| &rule.patterns).map(|it| Some(it.as_str())).collect();
    names.retain(|name| name.is_none_or(|name| !NamePattern::pattern(name).is_ok_and(|it| it.is_every())));
    names.insert(None);
    let (before, after) = (Asked::new(before), Asked::new(after));
    let mut found = Vec::new();
    for (peer, protocol, port) in servers {
        let flow =
            Flow { source: SUBJECT, destination: peer, protocol, destination_port: port, addresses: None };
        for name in &names {
            let (was, is) = (before.passes(&flow, *name), after.passes(&flow, *name));
            if was != is {
                let name = name.map(str::to_owned);
                found.push(QuestionChange { peer, protocol, port, name, allowed: is });
            }
        }
    }
    found
}

/// A policy that is asked about questions.
struct Asked(BTreeMap<u32, Policy>);

impl Asked {
    fn new(policy: Option<&Policy>) -> Self {
        Self(policy.map(|policy| (SUBJECT, policy.clone())).into_iter().collect())
    }

    fn passes(&self, flow: &Flow, name: Option<&str>) -> bool {
        if !verdict(&self.0, flow).allowed() {
            return false;
        }
        match questions(&self.0, flow) {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| match name {
                Some(name) => covers(pattern.as_str(), name),
                None => pattern.is_every(),
            }),
        }
    }
}
