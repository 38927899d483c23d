//! Policies reduced to what decides: defaults are resolved, selectors are complete, nothing is left to look up.

use std::collections::BTreeSet;

use cilium_api::parts::{Action, Note};
use cilium_core::named_port::{self, NamedPort};
use cilium_core::{NamePattern, Operator, Peers, Requirement, Selector, prefix};
use ipnet::IpNet;

use crate::reference::Reference;

/// ICMP for IPv4 (IANA, protocol numbers).
pub(crate) const ICMP: u8 = 1;
/// ICMP for IPv6 (IANA, protocol numbers).
pub(crate) const ICMPV6: u8 = 58;
/// TCP (IANA, protocol numbers).
pub(crate) const TCP: u8 = 6;
/// UDP (IANA, protocol numbers).
pub(crate) const UDP: u8 = 17;
/// SCTP (IANA, protocol numbers).
pub(crate) const SCTP: u8 = 132;

/// A whole policy: `spec` and `specs`, each of which stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// The rules, in the order of the object.
    pub rules: Vec<Rule>,
}

/// What endpoints may receive and send. `S` is a selector, or what an index puts in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<S = Selector> {
    /// Field of the object that it stands in, such as `spec` or `specs[1]`.
    pub path: Box<str>,
    /// What it says of itself.
    pub note: Note,
    /// Endpoints that the rule is about.
    pub subject: S,
    /// It is about nodes, and no endpoints.
    pub nodes: bool,
    /// Traffic to them; `None`: the rule says nothing about it.
    pub ingress: Option<Section<S>>,
    /// Traffic from them; `None`: the rule says nothing about it.
    pub egress: Option<Section<S>>,
}

/// One direction of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<S = Selector> {
    /// Traffic that no rule allows is dropped.
    pub default_deny: bool,
    /// What is allowed, by any of the entries. May be empty.
    pub allow: Vec<Traffic<S>>,
    /// What is allowed to and from addresses, whoever has them, beside `allow`. May be empty.
    pub by_address: Vec<ByAddress>,
    /// What is denied, by any of the entries, whatever else is allowed. May be empty.
    pub deny: Vec<Traffic<S>>,
    /// Rules that are looked at before or behind all this.
    pub ordered: Option<Ordered<S>>,
}

/// Rules of which the first that is about some traffic decides, in their place among those of other policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered<S = Selector> {
    /// Before or behind the policies of namespaces.
    pub tier: Tier,
    /// The lower goes first in the tier; of equal ones, the first by name of the policy.
    pub priority: i32,
    /// The rules, in the order of the object.
    pub rules: Vec<OrderedRule<S>>,
}

/// One of [`Ordered::rules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedRule<S = Selector> {
    /// What is done.
    pub action: Action,
    /// With which traffic: any of these. What has [`Traffic::questions`] is not meant, but heard.
    pub traffic: Vec<Traffic<S>>,
}

/// Where [`Ordered`] rules have their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Before all else.
    Admin,
    /// Where nothing else decides.
    Baseline,
}

/// What an entry is about: every one of the peers on every one of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic<S = Selector> {
    /// Field of the object that says so, such as `spec.ingress[0].toPorts[1]`.
    pub path: Box<str>,
    /// Where the traffic comes from, or goes to.
    pub peers: Peers<S>,
    /// Further peers, that other objects stand for. None is left once the rule is [resolved](PolicyRules::resolved).
    pub references: Vec<Reference>,
    /// Addresses that have one of these names, beside the peers. Only in what goes out and is allowed.
    pub names: Vec<Name>,
    /// Destination ports.
    pub ports: Vec<Ports>,
    /// Destination ports by name, as the destination has them. Not empty if `ports` is.
    pub named: Vec<PortName>,
    /// The traffic goes through the DNS proxy, which lets questions for these names pass. Only in what goes out and is allowed.
    pub questions: Option<Vec<Name>>,
}

/// Names that a field is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Field of the object that says so, such as `spec.egress[0].toFQDNs[1]`.
    pub path: Box<str>,
    /// The names.
    pub pattern: NamePattern,
}

/// Traffic with any of the blocks, on every one of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByAddress {
    /// Field of the object that says so, such as `spec.ingress[0]`.
    pub path: Box<str>,
    /// Where the traffic comes from, or goes to. Not empty.
    pub blocks: Vec<Block>,
    /// Destination ports.
    pub ports: Vec<Ports>,
    /// Destination ports by name, as the subject has them: for what comes in. What is behind an address has no names.
    pub named: Vec<PortName>,
}

/// Addresses of a prefix, but for those of some prefixes inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The prefix, without bits behind its length.
    pub prefix: IpNet,
    /// What is left out of it.
    pub except: Vec<IpNet>,
}

/// A protocol and a range of destination ports, as in [`cilium_api::parts::Entry`]: zeros are wildcards. ICMP has its type as port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// IP protocol number; 0 is any protocol, and the ports are 0 as well.
    pub protocol: u8,
    /// First port; 0 is any port, and `last` is 0 as well.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
}

/// A port by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortName {
    /// IP protocol number.
    pub protocol: u8,
    /// Name, in lower case.
    pub name: Box<str>,
}

impl PolicyRules {
    /// Prefixes that the rules name, those that they leave out as well; not those that are all of a family.
    ///
    /// Each has to have an identity, so that the addresses inside can be told from those around.
    pub fn prefixes(&self) -> BTreeSet<IpNet> {
        let named = self.requirements().filter_map(|requirement| match requirement.operator {
            Operator::Within(prefix) | Operator::NotWithin(prefix) => Some(prefix),
            _ => None,
        });
        named.filter(|prefix| prefix.prefix_len() > 0).collect()
    }

    /// Names of the groups of prefixes that the rules are about. What is in them has to have identities, too.
    pub fn groups(&self) -> BTreeSet<String> {
        self.requirements().filter_map(prefix::group_of).map(str::to_owned).collect()
    }

    fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.rules.iter().flat_map(Rule::peer_selectors).flat_map(Selector::requirements)
    }
}

impl Block {
    /// Whether a prefix lies in the block, and in none that is left out.
    pub(crate) fn covers(&self, prefix: &IpNet) -> bool {
        self.prefix.contains(prefix) && !self.except.iter().any(|except| except.contains(prefix))
    }
}

impl PortName {
    /// The ports that the name stands for among those of a pod: several where the pod has given it twice.
    pub(crate) fn among<'a>(&'a self, ports: &'a [NamedPort]) -> impl Iterator<Item = Ports> + 'a {
        let found = ports.iter().filter(|port| (port.protocol, &port.name) == (self.protocol, &self.name));
        found.map(|port| Ports { protocol: port.protocol, first: port.port, last: port.port })
    }
}

impl Traffic {
    /// The same, with the names apart where any peer is meant: to go out to a name, a peer must have ports with names.
    pub(crate) fn out(self) -> Vec<Self> {
        if self.peers != Peers::Any || self.named.is_empty() {
            return vec![self];
        }
        let numbers = Self { named: Vec::new(), ..self.clone() };
        let peers = Peers::Selected(vec![named_port::selector()]);
        let named = Self { peers, ports: Vec::new(), ..self };
        [numbers, named].into_iter().filter(|it| !(it.ports.is_empty() && it.named.is_empty())).collect()
    }
}

impl Ports {
    /// All protocols and ports.
    pub const ANY: Self = Self { protocol: 0, first: 0, last: 0 };

    /// Whether all that `other` means is meant here.
    pub fn contains(&self, other: &Self) -> bool {
        let any_port = (self.first, self.last) == (0, 0);
        let some_port = (other.first, other.last) != (0, 0);
        (self.protocol == 0 || self.protocol == other.protocol)
            && (any_port || (some_port && self.first <= other.first && other.last <= self.last))
    }

    /// Whether a packet of the protocol to the port is meant.
    pub fn covers(&self, protocol: u8, port: u16) -> bool {
        let any_port = (self.first, self.last) == (0, 0);
        (self.protocol == 0 || self.protocol == protocol)
            && (any_port || (self.first..=self.last).contains(&port))
    }
}

impl<S> Rule<S> {
    /// The same with every selector replaced.
    pub(crate) fn map<T>(self, mut replace: impl FnMut(S) -> T) -> Rule<T> {
        Rule {
            path: self.path,
            note: self.note,
            subject: replace(self.subject),
            nodes: self.nodes,
            ingress: self.ingress.map(|section| section.map(&mut replace)),
            egress: self.egress.map(|section| section.map(&mut replace)),
        }
    }

    /// What is allowed and denied, in both directions.
    pub(crate) fn traffic(&self) -> impl Iterator<Item = &Traffic<S>> {
        let sections = self.ingress.iter().chain(&self.egress);
        sections.flat_map(Section::traffic)
    }

    /// Selectors of peers, in both directions.
    pub(crate) fn peer_selectors(&self) -> impl Iterator<Item = &S> {
        self.traffic().flat_map(|traffic| traffic.peers.selectors())
    }
}

impl<S> Section<S> {
    fn map<T>(self, mut replace: impl FnMut(S) -> T) -> Section<T> {
        let allow = self.allow.into_iter().map(|traffic| traffic.map(&mut replace)).collect();
        let deny = self.deny.into_iter().map(|traffic| traffic.map(&mut replace)).collect();
        let ordered = self.ordered.map(|ordered| ordered.map(&mut replace));
        Section { default_deny: self.default_deny, allow, by_address: self.by_address, deny, ordered }
    }

    /// What is allowed, in whatever order.
    pub(crate) fn allowing(&self) -> impl Iterator<Item = &Traffic<S>> {
        let rules = self.ordered.iter().flat_map(|ordered| &ordered.rules);
        let accepting = rules.filter(|rule| rule.action == Action::Accept);
        self.allow.iter().chain(accepting.flat_map(OrderedRule::meant))
    }

    pub(crate) fn traffic(&self) -> impl Iterator<Item = &Traffic<S>> {
        let rules = self.ordered.iter().flat_map(|ordered| &ordered.rules);
        self.allow.iter().chain(&self.deny).chain(rules.flat_map(|rule| &rule.traffic))
    }
}

impl<S> Ordered<S> {
    fn map<T>(self, mut replace: impl FnMut(S) -> T) -> Ordered<T> {
        let Self { tier, priority, rules } = self;
        let rules = rules.into_iter().map(|OrderedRule { action, traffic }| {
            let traffic = traffic.into_iter().map(|traffic| traffic.map(&mut replace)).collect();
            OrderedRule { action, traffic }
        });
        Ordered { tier, priority, rules: rules.collect() }
    }
}

impl<S> OrderedRule<S> {
    /// Traffic with which something is done.
    pub(crate) fn meant(&self) -> impl Iterator<Item = &Traffic<S>> {
        self.traffic.iter().filter(|traffic| traffic.questions.is_none())
    }
}

impl<S> Traffic<S> {
    fn map<T>(self, replace: impl FnMut(S) -> T) -> Traffic<T> {
        let Self { path, peers, references, names, ports, named, questions } = self;
        Traffic { path, peers: peers.map(replace), references, names, ports, named, questions }
    }
}
