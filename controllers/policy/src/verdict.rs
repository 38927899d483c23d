//! The verdict on a flow, by compiled policies. The one place that says what compiled policies mean.
//!
//! Names of peers ([`Policy::names`]) mean nothing here: a node puts entries for the identities of their addresses in their
//! place, as soon as it knows them (`cilium_dataplane::expand`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Action, Direction, DnsRule, Entry, Policy, Step};
use cilium_core::{NamePattern, reserved};

use crate::rules::Ports;

/// The first packet of a connection or exchange, after service translation. Replies are not judged.
///
/// Identities are those that the judging node sees: its own processes are [`reserved::HOST`]. A pod's traffic to
/// its own address is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Identity of the sender.
    pub source: u32,
    /// Identity of the receiver.
    pub destination: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; the type for ICMP, 0 for other protocols without ports.
    pub destination_port: u16,
    /// Addresses of sender and receiver, which blocks of policies ask for; without them, no block has anything to do with the flow.
    pub addresses: Option<(IpAddr, IpAddr)>,
}

/// End of a flow that is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// At the sender.
    Egress,
    /// At the receiver.
    Ingress,
}

/// What one side says about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// No policy restricts this direction of the endpoint: allowed.
    NotEnforced,
    /// Processes of a node reach the pods on it, unless a policy denies it.
    LocalHost,
    /// Allowed by these policies, sorted.
    Granted(Vec<&'a str>),
    /// Denied by these policies, sorted, whoever allows it: dropped.
    Denied(Vec<&'a str>),
    /// These policies, sorted, restrict this direction, and none allows the flow: dropped. No name: settings restrict it.
    DefaultDeny(Vec<&'a str>),
}

/// The verdict of both sides. The flow passes when both let it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// By the policy of the source.
    pub egress: Judgement<'a>,
    /// By the policy of the destination.
    pub ingress: Judgement<'a>,
}

impl Verdict<'_> {
    /// Whether the flow passes.
    pub fn allowed(&self) -> bool {
        self.denied_by().is_none()
    }

    /// The side that drops the flow; the sender's when both would, as the packet gets no further.
    pub fn denied_by(&self) -> Option<Side> {
        [(Side::Egress, &self.egress), (Side::Ingress, &self.ingress)]
            .into_iter()
            .find_map(|(side, judgement)| judgement.drops().then_some(side))
    }

    /// The policies that decide at either side, sorted.
    pub fn origins(&self) -> BTreeSet<&str> {
        [&self.egress, &self.ingress].into_iter().flat_map(Judgement::origins).copied().collect()
    }
}

impl<'a> Judgement<'a> {
    /// The policies that decide, sorted.
    pub fn origins(&self) -> &[&'a str] {
        match self {
            Self::Granted(origins) | Self::Denied(origins) | Self::DefaultDeny(origins) => origins,
            Self::NotEnforced | Self::LocalHost => &[],
        }
    }

    /// Whether this side drops the flow.
    pub fn drops(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::DefaultDeny(_))
    }
}

/// Judges a flow: egress of its source and ingress of its destination.
///
/// `policies` are the compiled policies by identity. An identity without one is not restricted.
pub fn verdict<'a>(policies: &'a BTreeMap<u32, Policy>, flow: &Flow) -> Verdict<'a> {
    let egress = match policies.get(&flow.source) {
        Some(policy) => judge(policy, Side::Egress, flow),
        None => Judgement::NotEnforced,
    };
    let ingress = match policies.get(&flow.destination) {
        Some(policy) => judge(policy, Side::Ingress, flow),
        None => Judgement::NotEnforced,
    };
    Verdict { egress, ingress }
}

/// The other side of a flow: what it may be in entries.
struct Peer {
    identity: u32,
    block: Option<u32>,
}

fn judge<'a>(policy: &'a Policy, side: Side, flow: &Flow) -> Judgement<'a> {
    let (direction, identity, dns) = match side {
        Side::Egress => (&policy.egress, flow.destination, policy.dns.as_slice()),
        Side::Ingress => (&policy.ingress, flow.source, &[][..]),
    };
    let peer = Peer { identity, block: block(direction, side, flow) };
    if let Some(judgement) = in_order(policy, &direction.admin, &peer, flow) {
        return judgement;
    }
    if let Some(origins) = origins_of(policy, direction.deny.iter(), &peer, flow) {
        return Judgement::Denied(origins);
    }
    // Without anything behind, what is allowed makes no difference to what nobody mentions.
    if direction.enforced || !direction.baseline.is_empty() {
        let dns: Vec<Entry> = dns.iter().map(DnsRule::entry).collect();
        if let Some(origins) = origins_of(policy, direction.allow.iter().chain(&dns), &peer, flow) {
            return granted(origins, &peer);
        }
    }
    let default = match direction.enforced {
        true => Judgement::DefaultDeny(policy.origin_names(direction.closed_by.iter().copied())),
        false => Judgement::NotEnforced,
    };
    in_order(policy, &direction.baseline, &peer, flow).unwrap_or(default)
}

fn granted<'a>(origins: Vec<&'a str>, peer: &Peer) -> Judgement<'a> {
    if origins.is_empty() && peer.identity == reserved::HOST {
        Judgement::LocalHost
    } else {
        Judgement::Granted(origins)
    }
}

/// What the first step about a flow says; `None` when there is none, or it passes the flow on.
fn in_order<'a>(policy: &'a Policy, steps: &[Step], peer: &Peer, flow: &Flow) -> Option<Judgement<'a>> {
    let found = |step: &Step| Some((step.action, origins_of(policy, step.entries.iter(), peer, flow)?));
    match steps.iter().find_map(found)? {
        (Action::Accept, origins) => Some(granted(origins, peer)),
        (Action::Deny, origins) => Some(Judgement::Denied(origins)),
        (Action::Pass, _) => None,
    }
}

fn block(direction: &Direction, side: Side, flow: &Flow) -> Option<u32> {
    let (source, destination) = flow.addresses?;
    direction.block_of(if side == Side::Egress { destination } else { source })
}

/// Policies behind the entries that cover a flow; `None` when no entry does.
fn origins_of<'a, 'e>(
    policy: &'a Policy,
    entries: impl Iterator<Item = &'e Entry>,
    peer: &Peer,
    flow: &Flow,
) -> Option<Vec<&'a str>> {
    let mut hits = entries.filter(|entry| covers(entry, peer, flow)).peekable();
    hits.peek()?;
    Some(policy.origin_names(hits.flat_map(|entry| entry.origins.iter().copied())))
}

/// Names that the source of a flow may ask its destination for; `None` when its questions are not looked at: they pass, or not, as
/// [`verdict`] says.
pub fn questions(policies: &BTreeMap<u32, Policy>, flow: &Flow) -> Option<Vec<NamePattern>> {
    let policy = policies.get(&flow.source)?;
    let peer = Peer { identity: flow.destination, block: None };
    asked(policy, &peer, flow).or_else(|| {
        // Who is let through for an address only is not heard.
        let flow = Flow { addresses: None, ..*flow };
        let is_heard = policy.heard.iter().any(|server| covers(server, &peer, &flow))
            && !judge(policy, Side::Egress, &flow).drops();
        is_heard.then(|| vec![NamePattern::every()])
    })
}

/// Names that rules about questions let pass.
fn asked(policy: &Policy, peer: &Peer, flow: &Flow) -> Option<Vec<NamePattern>> {
    if in_order(policy, &policy.egress.admin, peer, flow).is_some() {
        return None;
    }
    let mut rules = policy.dns.iter().filter(|rule| covers(&rule.entry(), peer, flow)).peekable();
    rules.peek()?;
    let patterns: BTreeSet<&String> = rules.flat_map(|rule| &rule.patterns).collect();
    Some(patterns.into_iter().filter_map(|text| NamePattern::pattern(text).ok()).collect())
}

/// Whether questions to a name server pass, and no rule is about them.
pub(crate) fn can_be_heard(policy: &Policy, server: &Entry) -> bool {
    let flow = Flow {
        source: reserved::ANY,
        destination: server.peer,
        protocol: server.protocol,
        destination_port: server.first,
        addresses: None,
    };
    let peer = Peer { identity: server.peer, block: None };
    !judge(policy, Side::Egress, &flow).drops() && asked(policy, &peer, &flow).is_none()
}

fn covers(entry: &Entry, peer: &Peer, flow: &Flow) -> bool {
    let aggregate = reserved::aggregate_of(peer.identity);
    let peers = [Some(reserved::ANY), Some(peer.identity), Some(aggregate), peer.block];
    let ports = Ports { protocol: entry.protocol, first: entry.first, last: entry.last };
    peers.contains(&Some(entry.peer)) && ports.covers(flow.protocol, flow.destination_port)
}
