//! The policy of an identity, compiled, and the share that each policy has in it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use cilium_api::parts::{Direction, Entry, Part, Policy};
use cilium_core::reserved::{AGGREGATE_REMOTE_NODE, KUBE_APISERVER, REMOTE_NODE, is_node_host};
use cilium_policy::{Host, PolicyIndex, PolicyKey};

use crate::enforcement::policy_part;
use crate::pack::{self, Text};

/// Most bytes of a policy part. It travels in one object, of which etcd takes 1.5 MiB, with what is around it.
pub(crate) const MAX_BYTES: usize = 1_300_000;

/// Every other node, and API servers wherever they are.
const NODES: &[u32] = &[REMOTE_NODE, KUBE_APISERVER, AGGREGATE_REMOTE_NODE];

/// What nodes of one kind shall do for endpoints of one identity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// The policy part; `None` if nothing is restricted.
    pub(crate) text: Option<Text>,
    /// Bytes of the part that is meant, where it is too large to travel. The part then closes what the policy restricts: it must not
    /// hold up what else the node is to do, and must not open anything.
    pub(crate) excess: Option<usize>,
    /// Something that comes in may be dropped.
    pub(crate) ingress: bool,
    /// Something that goes out may be dropped.
    pub(crate) egress: bool,
    /// A hash of what is denied; 0 when that is nothing.
    pub(crate) denials: u64,
    /// Something of what it asks for is heard.
    pub(crate) heard: bool,
    /// Policies that select the identity, with a hash of what each of them grants: tells whose share a change concerns.
    shares: Vec<(PolicyKey, u64)>,
}

impl Compiled {
    pub(crate) fn new(index: &PolicyIndex, number: u32, host: Host) -> Self {
        let policy = index.compile(number, host);
        let granted = policy.as_ref().map(shares).unwrap_or_default();
        let selecting = index.selecting(number).into_iter();
        let shares = selecting.map(|key| {
            let share = granted.get(key.as_str()).copied().unwrap_or(0);
            (key, share)
        });
        let shares = shares.collect();
        let (ingress, egress) =
            policy.as_ref().map_or((false, false), |p| (p.ingress.is_restricted(), p.egress.is_restricted()));
        let denials = policy.as_ref().map_or(0, denials);
        let encode = |policy| pack::encode(&policy_part(number), &Part::Policy(Box::new(policy)));
        let closed = policy.as_ref().map(|policy| closed(policy, number));
        let mut text = policy.map(encode);
        let excess = text.as_ref().map(|text| text.len()).filter(|bytes| *bytes > MAX_BYTES);
        if excess.is_some() {
            text = closed.map(encode);
        }
        Self { text, excess, ingress, egress, denials, heard: index.is_heard(number), shares }
    }

    /// Policies whose share is not the one in `before`: all, if that or this was too large, as none is in force then.
    pub(crate) fn changed_since(&self, before: Option<&Self>) -> Vec<PolicyKey> {
        if self.excess != before.and_then(|before| before.excess) {
            return self.shares.iter().map(|(key, _)| key.clone()).collect();
        }
        let old = before.map_or(&[][..], |before| &before.shares);
        let share_before = |key| old.binary_search_by(|(old, _)| old.cmp(key)).ok().map(|at| old[at].1);
        let changed = self.shares.iter().filter(|(key, share)| share_before(key) != Some(*share));
        changed.map(|(key, _)| key.clone()).collect()
    }
}

/// What lets nothing through where `policy` restricts anything. A host goes on talking with nodes and API servers: cut off from
/// them, it could not be told of the policy that follows.
fn closed(policy: &Policy, number: u32) -> Policy {
    let others = if is_node_host(number) { NODES } else { &[] };
    let all = |peer: &u32| Entry { peer: *peer, protocol: 0, first: 0, last: 0, origins: Vec::new() };
    let closed = |direction: &Direction, is_restricted| Direction {
        enforced: is_restricted,
        closed_by: direction.closed_by.clone(),
        allow: others.iter().filter(|_| is_restricted).map(all).collect(),
        ..Direction::default()
    };
    Policy {
        ingress: closed(&policy.ingress, policy.ingress.is_restricted()),
        egress: closed(&policy.egress, policy.restricts_egress()),
        origins: policy.origins.clone(),
        ..Policy::default()
    }
}

fn denials(policy: &Policy) -> u64 {
    let directions = [&policy.ingress, &policy.egress];
    if directions.iter().all(|it| it.deny.is_empty() && it.admin.is_empty()) {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    for Direction { deny, admin, .. } in directions {
        admin.iter().for_each(|step| step.action.hash(&mut hasher));
        for list in admin.iter().map(|step| &step.entries).chain([deny]) {
            list.len().hash(&mut hasher);
            list.iter().for_each(|it| (it.peer, it.protocol, it.first, it.last).hash(&mut hasher));
        }
    }
    hasher.finish()
}

/// A hash of what each origin grants or denies. Entries are sorted, so the same content gives the same hash.
fn shares(policy: &Policy) -> HashMap<&str, u64> {
    let mut sums = vec![0u64; policy.origins.len()];
    for (at, note) in &policy.notes {
        add(&mut sums, &[*at], note);
    }
    let (ingress, egress) = (&policy.ingress, &policy.egress);
    let lists = [&ingress.allow, &egress.allow, &ingress.deny, &egress.deny];
    for (tag, entry) in
        lists.into_iter().enumerate().flat_map(|(tag, list)| list.iter().map(move |e| (tag, e)))
    {
        add(&mut sums, &entry.origins, (tag, entry.peer, entry.protocol, entry.first, entry.last));
    }
    for rule in &policy.dns {
        add(&mut sums, &rule.origins, (rule.peer, rule.protocol, rule.port, &rule.patterns));
    }
    for peer in &policy.names {
        add(&mut sums, &peer.origins, (&peer.pattern, peer.protocol, peer.first, peer.last));
    }
    let mut shares = HashMap::new();
    for (origin, sum) in policy.origins.iter().zip(sums) {
        let share: &mut u64 = shares.entry(origin.as_str()).or_default();
        *share = share.rotate_left(7).wrapping_add(sum);
    }
    shares
}

fn add(sums: &mut [u64], origins: &[u16], what: impl Hash) {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let hash = hasher.finish();
    for origin in origins {
        if let Some(sum) = sums.get_mut(usize::from(*origin)) {
            *sum = sum.rotate_left(7).wrapping_add(hash);
        }
    }
}

/// Place of a kind of node in arrays over both.
pub(crate) fn place(host: Host) -> usize {
    match host {
        Host::Plain => 0,
        Host::ApiServer => 1,
    }
}

/// The kind of a node.
pub(crate) fn host(api_server: bool) -> Host {
    if api_server { Host::ApiServer } else { Host::Plain }
}
