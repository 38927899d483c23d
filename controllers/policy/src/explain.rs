//! Why a flow passes or does not: the fields of the rules that decide, and the rule that came nearest where none did.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::Action;
use cilium_core::{NamePattern, Peers, Requirement, reserved};
use ipnet::IpNet;

use crate::by_name::Sought;
use crate::compile::{Host, in_order};
use crate::index::PolicyIndex;
use crate::key::PolicyKey;
use crate::rules::{ByAddress, PortName, Ports, Section, Tier, Traffic};
use crate::selectors::SelectorId;
use crate::verdict::{Flow, Judgement, Side, verdict};

/// A field of a policy. Ordered by policy, then by field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The policy.
    pub policy: PolicyKey,
    /// Path of the field, such as `spec.ingress[0].toPorts[1]`.
    pub path: Box<str>,
}

/// What one side says about a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No policy restricts this direction: allowed.
    NotEnforced,
    /// A node reaches the pods on it: allowed.
    LocalHost,
    /// Allowed by these rules, sorted.
    Granted(Vec<Place>),
    /// Denied by these rules, sorted: dropped, whoever allows it.
    Denied(Vec<Place>),
    /// No rule allows the flow: dropped.
    DefaultDeny(Reason),
}

/// Why nothing allows a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Policies that close the direction, sorted. None: a setting does, or the endpoint has no labels yet.
    pub closed_by: Vec<PolicyKey>,
    /// The rule that comes nearest to allowing the flow, if there is any for the direction.
    pub nearest: Option<Miss>,
}

/// A rule that does not allow a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The rule.
    pub place: Place,
    /// What does not match.
    pub missed: Missed,
}

/// What of a rule does not match a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The peer matches. These are the ports that the rule names.
    Port(Vec<Ports>),
    /// The port matches. These requirements of the rule's nearest selector the peer does not meet; none when the rule has no selector.
    Peer(Vec<Requirement>),
    /// Neither matches.
    Both(Vec<Requirement>, Vec<Ports>),
    /// The rule's nearest name does not match the one that was asked about; neither do these ports, if there are any.
    Name(NamePattern, Vec<Ports>),
    /// Name and port match, but the node learns no address of the name from what the endpoint asks for.
    Unheard,
}

/// A flow as one side sees it.
pub(crate) struct Question<'a> {
    pub(crate) index: &'a PolicyIndex,
    pub(crate) flow: &'a Flow,
    pub(crate) side: Side,
    pub(crate) host: Host,
    pub(crate) subject: u32,
    pub(crate) peer: u32,
    /// The name that the flow goes to, in place of an address.
    pub(crate) sought: Option<Sought<'a>>,
}

impl PolicyIndex {
    /// What one side says about a flow, and why. `host` is the kind of the node that judges.
    ///
    /// # Guarantees
    /// The decision is that of [`verdict()`] on the compiled policies, and its rules are of the policies that the verdict names.
    pub fn explain(&self, side: Side, flow: &Flow, host: Host) -> Decision {
        let (subject, peer) = match side {
            Side::Egress => (flow.source, flow.destination),
            Side::Ingress => (flow.destination, flow.source),
        };
        Question { index: self, flow, side, host, subject, peer, sought: None }.answer()
    }
}

impl Question<'_> {
    pub(crate) fn answer(&self) -> Decision {
        let compiled = self.index.compile(self.subject, self.host);
        let compiled = compiled.map(|policy| match &self.sought {
            Some(sought) => sought.known_by(&policy, self.peer),
            None => policy,
        });
        let policies: BTreeMap<_, _> = compiled.map(|policy| (self.subject, policy)).into_iter().collect();
        let verdict = verdict(&policies, self.flow);
        let judgement = match self.side {
            Side::Egress => verdict.egress,
            Side::Ingress => verdict.ingress,
        };
        match judgement {
            Judgement::NotEnforced => Decision::NotEnforced,
            Judgement::LocalHost => Decision::LocalHost,
            Judgement::Granted(_) => Decision::Granted(self.decisive(Action::Accept, || {
                self.hits(|section| &section.allow).into_iter().chain(self.hits_by_address()).collect()
            })),
            Judgement::Denied(_) => {
                Decision::Denied(self.decisive(Action::Deny, || self.hits(|section| &section.deny)))
            }
            Judgement::DefaultDeny(_) => {
                Decision::DefaultDeny(Reason { closed_by: self.closed_by(), nearest: self.nearest() })
            }
        }
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = (&PolicyKey, &Section<SelectorId>)> {
        self.index.sections(self.subject, self.side)
    }

    /// The rules that decided so: the first that is about the flow before all others, or else these, or else the first behind them.
    fn decisive(&self, action: Action, between: impl Fn() -> BTreeSet<Place>) -> Vec<Place> {
        let first = |tier| self.first(tier).filter(|(found, _)| *found == action).map(|(_, place)| place);
        if let Some(place) = first(Tier::Admin) {
            return vec![place];
        }
        let between = between();
        if between.is_empty() {
            first(Tier::Baseline).into_iter().collect()
        } else {
            between.into_iter().collect()
        }
    }

    /// The first rule of a tier that is about the flow, and what it does.
    fn first(&self, tier: Tier) -> Option<(Action, Place)> {
        let sections: Vec<_> = self.sections().collect();
        let ordered = in_order(&sections).into_iter().filter(|(_, ordered)| ordered.tier == tier);
        let mut meant = ordered.flat_map(|(key, ordered)| {
            let rules = ordered.rules.iter();
            rules.flat_map(move |rule| rule.meant().map(move |it| (key, rule.action, it)))
        });
        let (key, action, traffic) = meant.find(|(.., it)| self.is_peer(it) && self.is_port(it))?;
        Some((action, self.place(key, traffic)))
    }

    pub(crate) fn closed_by(&self) -> Vec<PolicyKey> {
        let closing = self.sections().filter(|(_, section)| section.default_deny);
        closing.map(|(key, _)| key.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn hits(&self, list: impl Fn(&Section<SelectorId>) -> &Vec<Traffic<SelectorId>>) -> BTreeSet<Place> {
        let all = self.sections().flat_map(|(key, section)| list(section).iter().map(move |it| (key, it)));
        let hits = all.filter(|(_, traffic)| self.is_peer(traffic) && self.is_port(traffic));
        hits.map(|(key, traffic)| self.place(key, traffic)).collect()
    }

    /// What allows the flow for an address.
    fn hits_by_address(&self) -> impl Iterator<Item = Place> {
        let hits =
            self.by_address().filter(|(_, it)| self.is_in(it) && self.is_named(&it.ports, self.names(it)));
        hits.map(|(key, it)| place(key, &it.path))
    }

    pub(crate) fn by_address(&self) -> impl Iterator<Item = (&PolicyKey, &ByAddress)> {
        self.sections().flat_map(|(key, section)| section.by_address.iter().map(move |it| (key, it)))
    }

    pub(crate) fn is_in(&self, rule: &ByAddress) -> bool {
        let peer = match (&self.sought, self.flow.addresses) {
            (Some(sought), _) => sought.whole,
            (None, Some((_, destination))) if self.side == Side::Egress => Some(IpNet::from(destination)),
            (None, Some((source, _))) => Some(IpNet::from(source)),
            (None, None) => None,
        };
        peer.is_some_and(|peer| rule.blocks.iter().any(|block| block.covers(&peer)))
    }

    /// Names of ports that count for an address: those of the subject.
    pub(crate) fn names<'a>(&self, rule: &'a ByAddress) -> &'a [PortName] {
        if self.side == Side::Ingress { &rule.named } else { &[] }
    }

    pub(crate) fn is_peer(&self, traffic: &Traffic<SelectorId>) -> bool {
        self.is_selected(traffic) || self.sought.as_ref().is_some_and(|it| it.known_as(traffic).is_some())
    }

    /// Whether the peer is meant, by whatever but its name.
    fn is_selected(&self, traffic: &Traffic<SelectorId>) -> bool {
        let peers = self.index.peers(&traffic.peers, self.host);
        [reserved::ANY, self.peer, reserved::aggregate_of(self.peer)].iter().any(|it| peers.contains(it))
    }

    /// The field by which traffic is about the flow.
    fn place(&self, key: &PolicyKey, traffic: &Traffic<SelectorId>) -> Place {
        let name = self.sought.as_ref().filter(|_| !self.is_selected(traffic));
        let name = name.and_then(|it| it.known_as(traffic));
        place(key, name.map_or(&*traffic.path, |name| &*name.path))
    }

    pub(crate) fn is_port(&self, traffic: &Traffic<SelectorId>) -> bool {
        self.is_named(&traffic.ports, &traffic.named)
    }

    /// Whether the port is one of these; names are those of the destination.
    pub(crate) fn is_named(&self, ports: &[Ports], names: &[PortName]) -> bool {
        let Flow { protocol, destination_port, .. } = *self.flow;
        self.numbers(ports, names).iter().any(|ports| ports.covers(protocol, destination_port))
    }

    fn numbers(&self, ports: &[Ports], names: &[PortName]) -> Vec<Ports> {
        let destination = if self.side == Side::Ingress { self.subject } else { self.peer };
        let known = self.index.named_ports(destination);
        ports.iter().copied().chain(names.iter().flat_map(|name| name.among(&known))).collect()
    }

    fn nearest(&self) -> Option<Miss> {
        let allowing = self.sections().flat_map(|(key, section)| section.allowing().map(move |it| (key, it)));
        let misses = allowing.map(|(key, it)| self.miss(key, it));
        let by_address = self.by_address().map(|(key, it)| {
            let missed = match (self.is_in(it), self.is_named(&it.ports, self.names(it))) {
                (true, _) => Missed::Port(self.numbers(&it.ports, self.names(it))),
                (false, true) => Missed::Peer(Vec::new()),
                (false, false) => Missed::Both(Vec::new(), self.numbers(&it.ports, self.names(it))),
            };
            Miss { place: place(key, &it.path), missed }
        });
        let misses = misses.chain(by_address);
        misses.min_by_key(|miss| (self.rank(&miss.missed), miss.place.clone()))
    }

    /// The nearer, the less.
    fn rank(&self, missed: &Missed) -> (u8, usize) {
        let likeness = |pattern| self.sought.as_ref().map_or(0, |it| it.likeness(pattern));
        match missed {
            Missed::Unheard => (0, 0),
            Missed::Port(_) => (1, 0),
            Missed::Name(pattern, ports) => {
                (if ports.is_empty() { 2 } else { 3 }, usize::MAX - likeness(pattern))
            }
            Missed::Peer(requirements) => (4, requirements.len()),
            Missed::Both(requirements, _) => (5, requirements.len()),
        }
    }

    fn miss(&self, key: &PolicyKey, traffic: &Traffic<SelectorId>) -> Miss {
        let by_name = self.sought.as_ref().and_then(|it| it.nearest(&traffic.names));
        let Some((name, matches)) = by_name else {
            return Miss { place: place(key, &traffic.path), missed: self.missed(traffic) };
        };
        let ports = || self.numbers(&traffic.ports, &traffic.named);
        let missed = match (matches, self.is_port(traffic)) {
            (true, true) => Missed::Unheard,
            (true, false) => Missed::Port(ports()),
            (false, true) => Missed::Name(name.pattern.clone(), Vec::new()),
            (false, false) => Missed::Name(name.pattern.clone(), ports()),
        };
        Miss { place: place(key, &name.path), missed }
    }

    fn missed(&self, traffic: &Traffic<SelectorId>) -> Missed {
        let ports = || self.numbers(&traffic.ports, &traffic.named);
        match (self.is_peer(traffic), self.is_port(traffic)) {
            (true, _) => Missed::Port(ports()),
            (false, true) => Missed::Peer(self.unmet(&traffic.peers)),
            (false, false) => Missed::Both(self.unmet(&traffic.peers), ports()),
        }
    }

    /// Requirements that the peer does not meet, of the selector that it comes nearest to.
    fn unmet(&self, peers: &Peers<SelectorId>) -> Vec<Requirement> {
        let labels = match (self.peer, self.host) {
            (reserved::HOST, Host::ApiServer) => reserved::api_server_host_labels(),
            (number, _) => self.index.labels(number).cloned().unwrap_or_default(),
        };
        let selectors = peers.selectors().iter().filter_map(|id| self.index.selectors.selector(*id));
        let unmet = |requirements: &[Requirement]| -> Vec<Requirement> {
            requirements.iter().filter(|requirement| !requirement.matches(&labels)).cloned().collect()
        };
        selectors.map(|selector| unmet(selector.requirements())).min_by_key(Vec::len).unwrap_or_default()
    }
}

pub(crate) fn place(key: &PolicyKey, path: &str) -> Place {
    Place { policy: key.clone(), path: path.into() }
}
