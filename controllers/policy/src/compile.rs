//! From rules to the compiled policy of an identity.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Direction, DnsRule, Entry, FIRST_BLOCK, NamedPeer, Note, Policy};
use cilium_core::named_port::{self, NamedPort};
use cilium_core::{NamePattern, Peers, reserved};
use ipnet::IpNet;

use crate::index::{API_SERVER_HOST, Mode, PolicyIndex, is_subject};
use crate::key::PolicyKey;
use crate::rules::{ByAddress, PortName, Ports, Rule, Section, Traffic};
use crate::selectors::SelectorId;
use crate::verdict::Side;

/// The node that a policy is compiled for, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// It runs no API server.
    #[default]
    Plain,
    /// It runs an API server: its own address is one, so `kube-apiserver` selects it.
    ApiServer,
}

/// A policy, and what the rule says of itself.
type By<'a> = (&'a PolicyKey, &'a Note);

/// What is allowed or denied, and by which policies. The order of the keys is the order of the entries.
type Entries<'a> = BTreeMap<(u32, Ports), BTreeSet<By<'a>>>;

/// Name servers and ports: names that they may be asked for, and the policies that say so.
type Questions<'a> = BTreeMap<(u32, Ports), (BTreeSet<NamePattern>, BTreeSet<By<'a>>)>;
/// What is allowed by name, and by which policies.
type ByName<'a> = BTreeMap<(NamePattern, Ports), BTreeSet<By<'a>>>;
/// Traffic that is allowed without looking into it: a selector, or none for any peer, and ports.
type Plain = BTreeSet<(Option<SelectorId>, Ports)>;

/// What rules make of a direction.
#[derive(Default)]
struct Compiled<'a> {
    enforced: bool,
    /// Who closes the direction.
    closed_by: BTreeSet<By<'a>>,
    allow: Entries<'a>,
    deny: Entries<'a>,
    /// Prefixes with entries in `allow`, or shadowing others that have some.
    blocks: BTreeSet<IpNet>,
    dns: Questions<'a>,
    names: ByName<'a>,
}

impl Compiled<'_> {
    /// Nothing passes.
    fn closed() -> Self {
        Self { enforced: true, ..Self::default() }
    }

    fn is_restricted(&self) -> bool {
        self.enforced || !self.deny.is_empty() || !self.dns.is_empty()
    }
}

impl PolicyIndex {
    /// The policy of every endpoint of an identity, on a node of one kind.
    ///
    /// For a node, take [`reserved::node_host`]. `None` when neither direction is restricted, and for what no policy can select. An identity that is not known is closed in both directions, unless
    /// nothing is enforced at all: its labels are on their way, and until they are here nothing says that it may be open.
    pub fn compile(&self, number: u32, host: Host) -> Option<Policy> {
        let is_known = self.selectors.labels(number).is_some();
        let ingress = self.direction(number, Side::Ingress, host);
        let egress = self.direction(number, Side::Egress, host);
        match self.mode {
            Mode::Never => None,
            _ if !is_subject(number) => None,
            _ if !is_known => Some(policy(&Compiled::closed(), &Compiled::closed())),
            _ if !ingress.is_restricted() && !egress.is_restricted() => None,
            _ => Some(policy(&ingress, &egress)),
        }
    }

    fn direction(&self, number: u32, side: Side, host: Host) -> Compiled<'_> {
        let sections: Vec<_> = self.noted_sections(number, side).collect();
        let closed = self.is_always_closed(number);
        let closing = sections.iter().filter(|(_, section)| section.default_deny);
        let closed_by: BTreeSet<_> = closing.map(|(key, _)| *key).collect();
        let enforced = closed || !closed_by.is_empty();
        let mut compiled = Compiled { enforced, closed_by, ..Compiled::default() };
        let own = self.named_ports(number);
        let names = Names { side, own: &own };
        for (key, section) in &sections {
            self.add(&mut compiled.deny, *key, &section.deny, host, &names);
        }
        let allowed = || sections.iter().flat_map(|(key, section)| section.allow.iter().map(|it| (*key, it)));
        // Where everything is allowed, every question is: it is looked at for the answer.
        let plain = enforced.then(|| plain(allowed().map(|(_, traffic)| traffic)));
        for (key, traffic) in allowed() {
            self.add_questions(&mut compiled.dns, key, traffic, plain.as_ref(), host);
        }
        if !enforced {
            return compiled;
        }
        for (key, section) in &sections {
            self.add(&mut compiled.allow, *key, &section.allow, host, &names);
            section.allow.iter().for_each(|traffic| add_names(&mut compiled.names, *key, traffic));
        }
        add_blocks(&mut compiled, &sections, &names);
        // A node reaches its own pods (kubelet probes them) where rules say what comes in, unless one denies it.
        if side == Side::Ingress && !sections.is_empty() && !reserved::is_node_host(number) {
            compiled.allow.entry((reserved::HOST, Ports::ANY)).or_default();
        }
        compiled
    }

    /// What rules say about a direction of an identity, with the policies that the rules are of.
    pub(crate) fn sections(
        &self,
        number: u32,
        side: Side,
    ) -> impl Iterator<Item = (&PolicyKey, &Section<SelectorId>)> {
        self.noted_sections(number, side).map(|((key, _), section)| (key, section))
    }

    fn noted_sections(
        &self,
        number: u32,
        side: Side,
    ) -> impl Iterator<Item = (By<'_>, &Section<SelectorId>)> {
        self.rules_about(number).into_iter().filter_map(move |(key, index)| {
            let rule = self.policies.get(key)?.get(*index)?;
            Some(((key, &rule.note), section(rule, side)?))
        })
    }

    fn add<'a>(
        &self,
        entries: &mut Entries<'a>,
        key: By<'a>,
        list: &[Traffic<SelectorId>],
        host: Host,
        names: &Names<'_>,
    ) {
        for traffic in list.iter().filter(|traffic| traffic.questions.is_none()) {
            let mut add = |peer, ports| _ = entries.entry((peer, ports)).or_default().insert(key);
            let of_subject = |name: &'_ PortName| name.among(names.own).collect::<Vec<_>>();
            let own = traffic.named.iter().filter(|_| names.side == Side::Ingress).flat_map(of_subject);
            let ports: Vec<Ports> = own.chain(traffic.ports.iter().copied()).collect();
            for peer in self.peers(&traffic.peers, host) {
                ports.iter().for_each(|ports| add(peer, *ports));
            }
            if names.side == Side::Egress && !traffic.named.is_empty() {
                // Names are those of each peer by itself, so aggregates do not help.
                let members = traffic.peers.selectors().iter().flat_map(|id| self.selectors.members(*id));
                for peer in members.filter_map(|number| on_node(number, host)) {
                    let known = self.named_ports(peer);
                    let found = traffic.named.iter().flat_map(|name| name.among(&known));
                    found.for_each(|ports| add(peer, ports));
                }
            }
        }
    }

    /// Ports of an identity that have names.
    pub(crate) fn named_ports(&self, number: u32) -> Vec<NamedPort> {
        self.selectors.labels(number).map(named_port::of_labels).unwrap_or_default()
    }

    /// Adds a rule about questions. What `plain` says too may ask for every name; without `plain`, everything may.
    fn add_questions<'a>(
        &self,
        questions: &mut Questions<'a>,
        key: By<'a>,
        traffic: &Traffic<SelectorId>,
        plain: Option<&Plain>,
        host: Host,
    ) {
        let Some(patterns) = &traffic.questions else { return };
        for (selector, peers) in self.each_selector(&traffic.peers, host) {
            for ports in &traffic.ports {
                let is_open = plain.is_none_or(|plain| plain.contains(&(selector, *ports)));
                for peer in &peers {
                    let entry = questions.entry((*peer, *ports)).or_default();
                    if is_open {
                        entry.0.insert(NamePattern::every());
                    } else {
                        entry.0.extend(patterns.iter().cloned());
                    }
                    entry.1.insert(key);
                }
            }
        }
    }

    pub(crate) fn peers(&self, peers: &Peers<SelectorId>, host: Host) -> BTreeSet<u32> {
        self.each_selector(peers, host).into_iter().flat_map(|(_, peers)| peers).collect()
    }

    /// Each selector by itself with its peers; any peer is one as well.
    fn each_selector(
        &self,
        peers: &Peers<SelectorId>,
        host: Host,
    ) -> Vec<(Option<SelectorId>, BTreeSet<u32>)> {
        match peers {
            Peers::Any => vec![(None, BTreeSet::from([reserved::ANY]))],
            Peers::Selected(selectors) => {
                let aggregates: BTreeSet<u32> = self.aggregates(selectors).collect();
                let peers = |id: &SelectorId| (Some(*id), self.peers_of(*id, &aggregates, host));
                selectors.iter().map(peers).collect()
            }
        }
    }

    /// What a selector stands for: an aggregate, or identities that are in none of `aggregates`.
    fn peers_of(&self, id: SelectorId, aggregates: &BTreeSet<u32>, host: Host) -> BTreeSet<u32> {
        let members = self.selectors.members(id);
        let single = members.filter(|number| !aggregates.contains(&reserved::aggregate_of(*number)));
        single.filter_map(|number| on_node(number, host)).chain(self.selectors.aggregate(id)).collect()
    }
}

impl PolicyIndex {
    /// Aggregates among selectors of peers.
    pub(crate) fn aggregates(&self, selectors: &[SelectorId]) -> impl Iterator<Item = u32> {
        selectors.iter().filter_map(|id| self.selectors.aggregate(*id))
    }
}

/// Whose names of ports count: those of the destination.
struct Names<'a> {
    side: Side,
    /// Of the subject.
    own: &'a [NamedPort],
}

fn plain<'a>(allowed: impl Iterator<Item = &'a Traffic<SelectorId>>) -> Plain {
    let plain = allowed.filter(|traffic| traffic.questions.is_none());
    plain
        .flat_map(|traffic| {
            let selectors = traffic.peers.selectors().iter().copied().map(Some);
            let any = (traffic.peers == Peers::Any).then_some(None);
            let all = selectors.chain(any);
            all.flat_map(|selector| traffic.ports.iter().map(move |ports| (selector, *ports)))
        })
        .collect()
}

fn add_names<'a>(names: &mut ByName<'a>, key: By<'a>, traffic: &Traffic<SelectorId>) {
    for pattern in &traffic.names {
        for ports in &traffic.ports {
            names.entry((pattern.clone(), *ports)).or_default().insert(key);
        }
    }
}

/// What is allowed by address. Every prefix that is named, if only to be left out, tells its addresses from those around it; so a
/// block is made of the prefixes inside it.
fn add_blocks<'a>(
    compiled: &mut Compiled<'a>,
    sections: &[(By<'a>, &Section<SelectorId>)],
    names: &Names<'_>,
) {
    let named = sections.iter().flat_map(|(_, section)| &section.by_address).flat_map(|it| &it.blocks);
    compiled.blocks = named.flat_map(|block| block.except.iter().chain([&block.prefix])).copied().collect();
    let numbers: BTreeMap<IpNet, u32> = compiled.blocks.iter().copied().zip(FIRST_BLOCK..).collect();
    for (key, section) in sections {
        for ByAddress { blocks, ports, named, .. } in &section.by_address {
            let own = if names.side == Side::Ingress { names.own } else { &[] };
            let ports: Vec<Ports> =
                named.iter().flat_map(|name| name.among(own)).chain(ports.iter().copied()).collect();
            for block in blocks {
                // In this order, what lies inside a prefix comes right after it.
                let inside =
                    numbers.range(block.prefix..).take_while(|(found, _)| block.prefix.contains(*found));
                for (_, number) in inside.filter(|(found, _)| block.covers(found)) {
                    for ports in &ports {
                        compiled.allow.entry((*number, *ports)).or_default().insert(*key);
                    }
                }
            }
        }
    }
}

/// The number of a peer on a node of one kind. Of the two hosts that are matched, one is there.
fn on_node(number: u32, host: Host) -> Option<u32> {
    match (number, host) {
        // Nodes as subjects; as peers they have their other numbers.
        _ if reserved::is_node_host(number) => None,
        (reserved::HOST, Host::ApiServer) | (API_SERVER_HOST, Host::Plain) => None,
        (API_SERVER_HOST, Host::ApiServer) => Some(reserved::HOST),
        (number, _) => Some(number),
    }
}

fn section(rule: &Rule<SelectorId>, side: Side) -> Option<&Section<SelectorId>> {
    match side {
        Side::Ingress => rule.ingress.as_ref(),
        Side::Egress => rule.egress.as_ref(),
    }
}

/// Places of policies in the list of origins.
struct Origins<'a>(BTreeMap<By<'a>, u16>);

impl Origins<'_> {
    /// An origin beyond what an index can say is left out; what it allows or denies is not.
    fn of(&self, keys: &BTreeSet<By<'_>>) -> Vec<u16> {
        keys.iter().filter_map(|key| self.0.get(key).copied()).collect()
    }

    fn notes(&self) -> BTreeMap<u16, Note> {
        let noted = self.0.iter().filter(|((_, note), _)| **note != Note::default());
        noted.map(|((_, note), at)| (*at, (*note).clone())).collect()
    }
}

fn policy(ingress: &Compiled<'_>, egress: &Compiled<'_>) -> Policy {
    let lists = [&ingress.allow, &ingress.deny, &egress.allow, &egress.deny];
    let entries = lists.into_iter().flat_map(BTreeMap::values);
    let questions = egress.dns.values().map(|(_, keys)| keys);
    let closing = [&ingress.closed_by, &egress.closed_by];
    let all = entries.chain(questions).chain(egress.names.values()).chain(closing);
    let keys: BTreeSet<By<'_>> = all.flatten().copied().collect();
    let origins = Origins(keys.iter().copied().zip(0..=u16::MAX).collect());
    let dns = |((peer, ports), (patterns, keys)): (&(u32, Ports), &(BTreeSet<NamePattern>, _))| DnsRule {
        peer: *peer,
        protocol: ports.protocol,
        port: ports.first,
        patterns: patterns_of(patterns),
        origins: origins.of(keys),
    };
    let name = |((pattern, ports), keys): (&(NamePattern, Ports), &_)| NamedPeer {
        pattern: pattern.as_str().to_owned(),
        protocol: ports.protocol,
        first: ports.first,
        last: ports.last,
        origins: origins.of(keys),
    };
    Policy {
        ingress: direction(ingress, &origins),
        egress: direction(egress, &origins),
        dns: egress.dns.iter().map(dns).collect(),
        names: egress.names.iter().map(name).collect(),
        origins: origins.0.keys().map(|(key, _)| key.as_str().to_owned()).collect(),
        notes: origins.notes(),
    }
}

/// Where every name is allowed, the others need not be said.
fn patterns_of(patterns: &BTreeSet<NamePattern>) -> Vec<String> {
    match patterns.iter().find(|pattern| pattern.is_every()) {
        Some(every) => vec![every.as_str().to_owned()],
        None => patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
    }
}

fn direction(compiled: &Compiled<'_>, origins: &Origins<'_>) -> Direction {
    let entry = |((peer, ports), keys): (&(u32, Ports), &BTreeSet<By<'_>>)| Entry {
        peer: *peer,
        protocol: ports.protocol,
        first: ports.first,
        last: ports.last,
        origins: origins.of(keys),
    };
    Direction {
        enforced: compiled.enforced,
        closed_by: origins.of(&compiled.closed_by),
        allow: compiled.allow.iter().map(entry).collect(),
        blocks: compiled.blocks.iter().copied().collect(),
        deny: compiled.deny.iter().map(entry).collect(),
    }
}

/// How many entries of a compiled policy come from the policy `key`, alone or with others.
pub fn entries_of(policy: &Policy, key: &PolicyKey) -> usize {
    let is_of = |origins: &&[u16]| policy.origin_names(origins.iter().copied()).contains(&key.as_str());
    policy.all_origins().filter(is_of).count()
}
