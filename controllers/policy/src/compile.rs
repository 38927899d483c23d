//! From rules to the compiled policy of an identity.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Action, Direction, DnsRule, Entry, FIRST_BLOCK, NamedPeer, Note, Policy, Step};
use cilium_core::named_port::{self, NamedPort};
use cilium_core::{NamePattern, Peers, reserved};
use ipnet::IpNet;

use crate::index::{API_SERVER_HOST, Mode, PolicyIndex, is_subject};
use crate::key::PolicyKey;
use crate::rules::{ByAddress, Ordered, OrderedRule, PortName, Ports, Rule, Section, Tier, Traffic};
use crate::selectors::SelectorId;
use crate::verdict::{self, Side};

/// The node that a policy is compiled for, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// It runs no API server.
    #[default]
    Plain,
    /// It runs an API server: its own address is one, so `kube-apiserver` selects it.
    ApiServer,
}

/// A policy, and what the rule says of itself: its place in [`About::all`].
type By = usize;

/// What is allowed or denied, and by which policies. The order of the keys is the order of the entries.
type Entries = BTreeMap<(u32, Ports), Bys>;

/// Name servers and ports: names that they may be asked for, and the policies that say so.
type Questions = BTreeMap<(u32, Ports), (BTreeSet<NamePattern>, Bys)>;
/// What is allowed by name, and by which policies.
type ByName = BTreeMap<(NamePattern, Ports), Bys>;
/// Traffic that is allowed without looking into it: a selector, or none for any peer, and ports.
type Plain = BTreeSet<(Option<SelectorId>, Ports)>;

/// Some policies, in order. Most often it is one, which takes no memory of its own.
#[derive(Default)]
struct Bys {
    first: Option<By>,
    more: Vec<By>,
}

impl Bys {
    fn insert(&mut self, by: By) {
        let Some(first) = self.first.filter(|first| *first != by) else {
            self.first = Some(by);
            return;
        };
        self.first = Some(first.min(by));
        if let Err(at) = self.more.binary_search(&first.max(by)) {
            self.more.insert(at, first.max(by));
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = By> {
        self.first.into_iter().chain(self.more.iter().copied())
    }
}

/// The rules about an identity.
struct About<'a> {
    /// Policies and what their rules say of themselves, each once, in order.
    all: Vec<(&'a PolicyKey, &'a Note)>,
    /// The rules, in the order of policies and of the rules in them.
    rules: Vec<(By, &'a Rule<SelectorId>)>,
}

/// What rules make of a direction.
#[derive(Default)]
struct Compiled {
    enforced: bool,
    /// Who closes the direction.
    closed_by: Bys,
    allow: Entries,
    deny: Entries,
    /// Prefixes with entries in `allow`, or shadowing others that have some.
    blocks: BTreeSet<IpNet>,
    dns: Questions,
    names: ByName,
    admin: Vec<Ordinal>,
    baseline: Vec<Ordinal>,
    /// Name servers that names of peers depend on.
    heard: Entries,
}

/// A rule in an order.
struct Ordinal {
    action: Action,
    entries: Entries,
    names: ByName,
}

impl Compiled {
    /// Nothing passes.
    fn closed() -> Self {
        Self { enforced: true, ..Self::default() }
    }

    fn ordinals(&self) -> impl Iterator<Item = &Ordinal> {
        self.admin.iter().chain(&self.baseline)
    }
}

impl PolicyIndex {
    /// The policy of every endpoint of an identity, on a node of one kind.
    ///
    /// For a node, take [`reserved::node_host`]. `None` when nothing is said about either direction, and for what no policy can select. An identity that is not known is closed in both directions, unless
    /// nothing is enforced at all: its labels are on their way, and until they are here nothing says that it may be open.
    pub fn compile(&self, number: u32, host: Host) -> Option<Policy> {
        let is_known = self.selectors.labels(number).is_some();
        match self.mode {
            Mode::Never => None,
            _ if !is_subject(number) => None,
            _ if !is_known => Some(policy(&[], &Compiled::closed(), &Compiled::closed())),
            _ => {
                let about = self.about(number);
                let ingress = self.direction(number, &about.rules, Side::Ingress, host);
                let egress = self.direction(number, &about.rules, Side::Egress, host);
                let compiled = policy(&about.all, &ingress, &egress);
                let is_silent = compiled.ingress.is_silent() && compiled.egress.is_silent();
                (!is_silent || !compiled.dns.is_empty()).then_some(compiled)
            }
        }
    }

    fn about(&self, number: u32) -> About<'_> {
        let rules = self.rules_about(number).into_iter();
        let rules = rules.filter_map(|(key, index)| Some((key, self.policies.get(key)?.get(*index)?)));
        let rules: Vec<(&PolicyKey, &Rule<SelectorId>)> = rules.collect();
        let mut all: Vec<_> = rules.iter().map(|(key, rule)| (*key, &rule.note)).collect();
        all.sort_unstable();
        all.dedup();
        // Each is there.
        let by = |key, rule: &Rule<SelectorId>| all.partition_point(|it| *it < (key, &rule.note));
        let rules = rules.into_iter().map(|(key, rule)| (by(key, rule), rule)).collect();
        About { all, rules }
    }

    fn direction(&self, number: u32, rules: &[(By, &Rule<SelectorId>)], side: Side, host: Host) -> Compiled {
        let sections = rules.iter().filter_map(|(by, rule)| Some((*by, section(rule, side)?)));
        let sections: Vec<_> = sections.collect();
        let mut closed_by = Bys::default();
        let closing = sections.iter().filter(|(_, section)| section.default_deny);
        closing.for_each(|(key, _)| closed_by.insert(*key));
        let enforced = self.is_always_closed(number) || !closed_by.is_empty();
        let mut compiled = Compiled { enforced, closed_by, ..Compiled::default() };
        let own = self.named_ports(number);
        let names = Names { side, own: &own };
        for (key, section) in &sections {
            self.add(&mut compiled.deny, *key, &section.deny, host, &names);
        }
        self.add_ordered(&mut compiled, &sections, host, &names);
        let allowed = || sections.iter().flat_map(|(key, section)| section.allow.iter().map(|it| (*key, it)));
        // Where everything is allowed, every question is: it is looked at for the answer.
        let plain = enforced.then(|| plain(allowed().map(|(_, traffic)| traffic)));
        for (key, traffic) in allowed() {
            self.add_questions(&mut compiled.dns, key, traffic, plain.as_ref(), host);
        }
        if !enforced && compiled.baseline.is_empty() {
            return compiled;
        }
        for (key, section) in &sections {
            self.add(&mut compiled.allow, *key, &section.allow, host, &names);
            section.allow.iter().for_each(|traffic| add_names(&mut compiled.names, *key, traffic));
        }
        add_blocks(&mut compiled, &sections, &names);
        // A node reaches its own pods (kubelet probes them) where rules say what comes in, unless one denies it.
        if enforced && side == Side::Ingress && !sections.is_empty() && !reserved::is_node_host(number) {
            let host = (reserved::HOST, Ports::ANY);
            if compiled.baseline.is_empty() {
                compiled.allow.entry(host).or_default();
            } else {
                let entries = Entries::from([(host, Bys::default())]);
                compiled.baseline.push(Ordinal { action: Action::Accept, entries, names: ByName::new() });
            }
        }
        compiled
    }

    /// What is looked at before and behind all else. Where a policy closes the direction, nothing comes behind.
    fn add_ordered(
        &self,
        compiled: &mut Compiled,
        sections: &[(By, &Section<SelectorId>)],
        host: Host,
        names: &Names<'_>,
    ) {
        for (key, ordered) in in_order(sections) {
            if ordered.tier == Tier::Baseline && !compiled.closed_by.is_empty() {
                continue;
            }
            for rule in &ordered.rules {
                let ordinal = self.ordinal(key, rule, host, names);
                let heard = rule.traffic.iter().filter(|traffic| traffic.questions.is_some());
                heard.for_each(|traffic| self.add_traffic(&mut compiled.heard, key, traffic, host, names));
                match ordered.tier {
                    Tier::Admin => compiled.admin.push(ordinal),
                    Tier::Baseline => compiled.baseline.push(ordinal),
                }
            }
        }
    }

    fn ordinal(&self, key: By, rule: &OrderedRule<SelectorId>, host: Host, names: &Names<'_>) -> Ordinal {
        let mut ordinal = Ordinal { action: rule.action, entries: Entries::new(), names: ByName::new() };
        for traffic in rule.meant() {
            self.add_traffic(&mut ordinal.entries, key, traffic, host, names);
            add_names(&mut ordinal.names, key, traffic);
        }
        ordinal
    }

    /// What rules say about a direction of an identity, with the policies that the rules are of.
    pub(crate) fn sections(
        &self,
        number: u32,
        side: Side,
    ) -> impl Iterator<Item = (&PolicyKey, &Section<SelectorId>)> {
        self.rules_about(number).into_iter().filter_map(move |(key, index)| {
            let rule = self.policies.get(key)?.get(*index)?;
            Some((key, section(rule, side)?))
        })
    }

    fn add(
        &self,
        entries: &mut Entries,
        key: By,
        list: &[Traffic<SelectorId>],
        host: Host,
        names: &Names<'_>,
    ) {
        for traffic in list.iter().filter(|traffic| traffic.questions.is_none()) {
            self.add_traffic(entries, key, traffic, host, names);
        }
    }

    fn add_traffic(
        &self,
        entries: &mut Entries,
        key: By,
        traffic: &Traffic<SelectorId>,
        host: Host,
        names: &Names<'_>,
    ) {
        let mut add = |peer, ports| entries.entry((peer, ports)).or_default().insert(key);
        let of_subject = |name: &'_ PortName| name.among(names.own).collect::<Vec<_>>();
        let own = traffic.named.iter().filter(|_| names.side == Side::Ingress).flat_map(of_subject);
        let ports: Vec<Ports> = own.chain(traffic.ports.iter().copied()).collect();
        let mut add_all = |peer| ports.iter().for_each(|ports| add(peer, *ports));
        match &traffic.peers {
            Peers::Any => add_all(reserved::ANY),
            Peers::Selected(selectors) => {
                let aggregates: Vec<u32> = self.aggregates(selectors).collect();
                selectors.iter().flat_map(|id| self.peers_of(*id, &aggregates, host)).for_each(add_all);
            }
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

    /// Ports of an identity that have names.
    pub(crate) fn named_ports(&self, number: u32) -> Vec<NamedPort> {
        self.selectors.labels(number).map(named_port::of_labels).unwrap_or_default()
    }

    /// Adds a rule about questions. What `plain` says too may ask for every name; without `plain`, everything may.
    fn add_questions(
        &self,
        questions: &mut Questions,
        key: By,
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
                        entry.0.extend(patterns.iter().map(|name| name.pattern.clone()));
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
                let aggregates: Vec<u32> = self.aggregates(selectors).collect();
                let peers = |id: &SelectorId| (Some(*id), self.peers_of(*id, &aggregates, host).collect());
                selectors.iter().map(peers).collect()
            }
        }
    }

    /// What a selector stands for: an aggregate, or identities that are in none of `aggregates`.
    fn peers_of<'a>(
        &'a self,
        id: SelectorId,
        aggregates: &'a [u32],
        host: Host,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let members = self.selectors.members(id);
        let single = members.filter(|number| !aggregates.contains(&reserved::aggregate_of(*number)));
        single.filter_map(move |number| on_node(number, host)).chain(self.selectors.aggregate(id))
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

/// Ordered rules of all policies as they are looked at: by priority, and of equal ones by the name of the policy.
pub(crate) fn in_order<'a, K: Copy + Ord>(
    sections: &[(K, &'a Section<SelectorId>)],
) -> Vec<(K, &'a Ordered<SelectorId>)> {
    let mut ordered: Vec<_> =
        sections.iter().filter_map(|(key, section)| Some((*key, section.ordered.as_ref()?))).collect();
    ordered.sort_by_key(|(key, ordered)| (ordered.tier, ordered.priority, *key));
    ordered
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

fn add_names(names: &mut ByName, key: By, traffic: &Traffic<SelectorId>) {
    for name in &traffic.names {
        for ports in &traffic.ports {
            names.entry((name.pattern.clone(), *ports)).or_default().insert(key);
        }
    }
}

/// What is allowed by address. Every prefix that is named, if only to be left out, tells its addresses from those around it; so a
/// block is made of the prefixes inside it.
fn add_blocks(compiled: &mut Compiled, sections: &[(By, &Section<SelectorId>)], names: &Names<'_>) {
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

/// The list of origins.
struct Origins<'a> {
    /// Policies that say something, in order.
    named: Vec<(&'a PolicyKey, &'a Note)>,
    /// The place in the list of each of [`About::all`].
    places: Vec<Option<u16>>,
}

impl<'a> Origins<'a> {
    fn new<'b>(all: &[(&'a PolicyKey, &'a Note)], used: impl Iterator<Item = &'b Bys>) -> Self {
        let mut is_used = vec![false; all.len()];
        used.flat_map(Bys::iter).for_each(|by| is_used[by] = true);
        let mut origins = Self { named: Vec::new(), places: vec![None; all.len()] };
        for (by, said) in all.iter().enumerate().filter(|(by, _)| is_used[*by]) {
            // An origin beyond what an index can say is left out; what it allows or denies is not.
            if let Ok(place) = u16::try_from(origins.named.len()) {
                origins.places[by] = Some(place);
                origins.named.push(*said);
            }
        }
        origins
    }

    fn of(&self, bys: &Bys) -> Vec<u16> {
        bys.iter().filter_map(|by| self.places[by]).collect()
    }

    fn notes(&self) -> BTreeMap<u16, Note> {
        let noted = (0..=u16::MAX).zip(&self.named).filter(|(_, (_, note))| **note != Note::default());
        noted.map(|(at, (_, note))| (at, (*note).clone())).collect()
    }

    fn entries(&self, entries: &Entries) -> Vec<Entry> {
        let entry = |((peer, ports), keys): (&(u32, Ports), &Bys)| Entry {
            peer: *peer,
            protocol: ports.protocol,
            first: ports.first,
            last: ports.last,
            origins: self.of(keys),
        };
        entries.iter().map(entry).collect()
    }

    fn names(&self, names: &ByName) -> Vec<NamedPeer> {
        let name = |((pattern, ports), keys): (&(NamePattern, Ports), &_)| NamedPeer {
            pattern: pattern.as_str().to_owned(),
            protocol: ports.protocol,
            first: ports.first,
            last: ports.last,
            origins: self.of(keys),
        };
        names.iter().map(name).collect()
    }

    fn steps(&self, ordinals: &[Ordinal]) -> Vec<Step> {
        let step = |Ordinal { action, entries, names }: &Ordinal| Step {
            action: *action,
            entries: self.entries(entries),
            names: self.names(names),
        };
        ordinals.iter().map(step).collect()
    }
}

fn policy(all: &[(&PolicyKey, &Note)], ingress: &Compiled, egress: &Compiled) -> Policy {
    let lists = [&ingress.allow, &ingress.deny, &egress.allow, &egress.deny, &egress.heard];
    let ordinals = || ingress.ordinals().chain(egress.ordinals());
    let lists = lists.into_iter().chain(ordinals().map(|ordinal| &ordinal.entries));
    let names = [&egress.names].into_iter().chain(ordinals().map(|ordinal| &ordinal.names));
    let questions = egress.dns.values().map(|(_, keys)| keys);
    let closing = [&ingress.closed_by, &egress.closed_by];
    let entries = lists.flat_map(BTreeMap::values).chain(names.flat_map(BTreeMap::values));
    let origins = Origins::new(all, entries.chain(questions).chain(closing));
    let dns = |((peer, ports), (patterns, keys)): (&(u32, Ports), &(BTreeSet<NamePattern>, _))| DnsRule {
        peer: *peer,
        protocol: ports.protocol,
        port: ports.first,
        patterns: patterns_of(patterns),
        origins: origins.of(keys),
    };
    let mut compiled = Policy {
        ingress: direction(ingress, &origins),
        egress: direction(egress, &origins),
        dns: egress.dns.iter().map(dns).collect(),
        names: origins.names(&egress.names),
        heard: Vec::new(),
        origins: origins.named.iter().map(|(key, _)| key.as_str().to_owned()).collect(),
        notes: origins.notes(),
    };
    // Without restriction, no name is needed.
    if compiled.egress.is_restricted() {
        let heard = origins.entries(&egress.heard).into_iter();
        compiled.heard = heard.filter(|server| verdict::can_be_heard(&compiled, server)).collect();
    }
    compiled
}

/// Where every name is allowed, the others need not be said.
fn patterns_of(patterns: &BTreeSet<NamePattern>) -> Vec<String> {
    match patterns.iter().find(|pattern| pattern.is_every()) {
        Some(every) => vec![every.as_str().to_owned()],
        None => patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
    }
}

fn direction(compiled: &Compiled, origins: &Origins<'_>) -> Direction {
    Direction {
        enforced: compiled.enforced,
        closed_by: origins.of(&compiled.closed_by),
        admin: origins.steps(&compiled.admin),
        allow: origins.entries(&compiled.allow),
        blocks: compiled.blocks.iter().copied().collect(),
        deny: origins.entries(&compiled.deny),
        baseline: origins.steps(&compiled.baseline),
    }
}

/// How many entries of a compiled policy come from the policy `key`, alone or with others.
pub fn entries_of(policy: &Policy, key: &PolicyKey) -> usize {
    let is_of = |origins: &&[u16]| policy.origin_names(origins.iter().copied()).contains(&key.as_str());
    policy.all_origins().filter(is_of).count()
}
