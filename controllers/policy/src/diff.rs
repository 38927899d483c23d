//! What changes for traffic between two ends when one compiled policy takes the place of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use cilium_api::parts::{Direction, Entry, FIRST_BLOCK, Policy, Step};
use cilium_core::reserved;

use crate::rules::{ICMP, ICMPV6, Ports, SCTP, TCP, UDP};
use crate::verdict::{Flow, Side, verdict};

/// Stands for the endpoint in questions to the oracle; no peer has this number.
const SUBJECT: u32 = u32::MAX;

/// Some traffic, by protocol and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// IP protocol number, [`Span::OTHER`] for all that no entry names; `None` is every protocol.
    pub protocol: Option<u8>,
    /// First and last port, inclusive, or ICMP type; `None` is every port.
    pub ports: Option<(u16, u16)>,
}

/// Traffic that one policy lets pass and the other drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What it is about.
    pub span: Span,
    /// Whether it passes afterwards.
    pub allowed: bool,
}

/// What changes for traffic of an endpoint with a peer, in one direction. `peer` is the peer's number before and after; without its address,
/// no block has anything to do with it.
///
/// # Guarantees
/// By [`verdict()`]: what no change covers has the same fate before and after, what one covers has that fate afterwards and the other
/// before. Sorted, without overlap.
pub fn changes(
    before: Option<&Policy>,
    after: Option<&Policy>,
    side: Side,
    peer: (u32, u32),
    address: Option<IpAddr>,
) -> Vec<Change> {
    let (before, after) =
        (Access::new(before, side, peer.0, address), Access::new(after, side, peer.1, address));
    let protocols = protocols(&[&before, &after]);
    let all: Vec<Change> =
        protocols.iter().flat_map(|protocol| of_protocol(&before, &after, *protocol)).collect();
    match all.as_slice() {
        [first, ..] if all.len() == protocols.len() && all.iter().all(|it| is_whole(it, first.allowed)) => {
            vec![Change { span: Span { protocol: None, ports: None }, ..*first }]
        }
        _ => all,
    }
}

/// Whether all of a protocol changes to this fate.
fn is_whole(change: &Change, allowed: bool) -> bool {
    change.span.ports.is_none() && change.allowed == allowed
}

/// Protocols that are looked at in any case.
const NAMED: [u8; 5] = [ICMP, TCP, UDP, ICMPV6, SCTP];

fn protocols(both: &[&Access; 2]) -> BTreeSet<u8> {
    let named = both.iter().flat_map(|access| access.named()).map(|(protocol, ..)| protocol);
    named.filter(|protocol| *protocol != 0).chain(NAMED).chain([Span::OTHER]).collect()
}

fn of_protocol(before: &Access, after: &Access, protocol: u8) -> Vec<Change> {
    let last = if matches!(protocol, ICMP | ICMPV6) { 255 } else { u16::MAX };
    let starts: BTreeSet<u16> = before.starts(protocol).chain(after.starts(protocol)).collect();
    let starts: Vec<u16> = starts.into_iter().filter(|start| *start <= last).collect();
    let mut found: Vec<Change> = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(last, |next| next - 1);
        let (was, is) = (before.passes(protocol, *start), after.passes(protocol, *start));
        if was == is {
            continue;
        }
        match found.last_mut().and_then(|change| Some((change.allowed, change.span.ports.as_mut()?))) {
            Some((allowed, ports)) if allowed == is && ports.1.checked_add(1) == Some(*start) => {
                ports.1 = end;
            }
            _ => found.push(mk_change(protocol, (*start, end), is)),
        }
    }
    for change in &mut found {
        change.span.ports = change.span.ports.filter(|ports| *ports != (0, last));
    }
    found
}

fn mk_change(protocol: u8, ports: (u16, u16), allowed: bool) -> Change {
    Change { span: Span { protocol: Some(protocol), ports: Some(ports) }, allowed }
}

/// One direction of a policy, as far as it is about one peer.
struct Access {
    policies: BTreeMap<u32, Policy>,
    side: Side,
    peer: u32,
    address: Option<IpAddr>,
}

impl Access {
    fn new(policy: Option<&Policy>, side: Side, peer: u32, address: Option<IpAddr>) -> Self {
        let only = |list: &[Entry]| -> Vec<Entry> {
            let about = [reserved::ANY, peer, reserved::aggregate_of(peer)];
            let is_about = |entry: &&Entry| about.contains(&entry.peer) || entry.peer >= FIRST_BLOCK;
            list.iter().filter(is_about).cloned().collect()
        };
        let steps = |list: &[Step]| -> Vec<Step> {
            list.iter()
                .map(|step| Step { action: step.action, entries: only(&step.entries), names: Vec::new() })
                .collect()
        };
        let about = |direction: &Direction| Direction {
            enforced: direction.enforced,
            allow: only(&direction.allow),
            blocks: direction.blocks.clone(),
            deny: only(&direction.deny),
            admin: steps(&direction.admin),
            baseline: steps(&direction.baseline),
            ..Direction::default()
        };
        let cut = |policy: &Policy| match side {
            Side::Ingress => Policy { ingress: about(&policy.ingress), ..Policy::default() },
            Side::Egress => {
                Policy { egress: about(&policy.egress), dns: policy.dns.clone(), ..Policy::default() }
            }
        };
        let policies = policy.map(|policy| (SUBJECT, cut(policy))).into_iter().collect();
        Self { policies, side, peer, address }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.policies.values().flat_map(|policy| policy.ingress.entries().chain(policy.egress.entries()))
    }

    /// Protocols and ports of entries, those for name servers too.
    fn named(&self) -> impl Iterator<Item = (u8, u16, u16)> {
        let entries = self.entries().map(|entry| (entry.protocol, entry.first, entry.last));
        let dns = self.policies.values().flat_map(|policy| &policy.dns);
        entries.chain(dns.map(|rule| (rule.protocol, rule.port, rule.port)))
    }

    /// Ports at which the answer may begin to be another one.
    fn starts(&self, protocol: u8) -> impl Iterator<Item = u16> {
        let named = self.named().filter(move |(found, ..)| *found == protocol);
        let bounds = named.flat_map(|(_, first, last)| [Some(first), last.checked_add(1)]);
        bounds.flatten().chain([0])
    }

    fn passes(&self, protocol: u8, port: u16) -> bool {
        let addresses = self.address.map(|address| (address, address));
        let (source, destination) = match self.side {
            Side::Egress => (SUBJECT, self.peer),
            Side::Ingress => (self.peer, SUBJECT),
        };
        verdict(&self.policies, &Flow { source, destination, protocol, destination_port: port, addresses })
            .allowed()
    }
}

impl Span {
    /// Stands for every protocol that no entry names (IANA, protocol numbers: reserved).
    pub const OTHER: u8 = 255;
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.ports) {
            (None, _) => f.write_str("any"),
            (Some(Self::OTHER), _) => f.write_str("other protocols"),
            (Some(protocol), None) => write!(f, "any/{}", name(protocol)),
            (Some(protocol), Some((first, last))) if first == last => write!(f, "{first}/{}", name(protocol)),
            (Some(protocol), Some((first, last))) => write!(f, "{first}-{last}/{}", name(protocol)),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = (self.protocol != 0).then_some(self.protocol);
        let ports = Some((self.first, self.last)).filter(|ports| *ports != (0, 0));
        Span { protocol, ports }.fmt(f)
    }
}

/// Name of an IP protocol as policies write it, or its number.
fn name(protocol: u8) -> String {
    match protocol {
        ICMP => "ICMP".to_owned(),
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        ICMPV6 => "ICMPv6".to_owned(),
        SCTP => "SCTP".to_owned(),
        other => other.to_string(),
    }
}
