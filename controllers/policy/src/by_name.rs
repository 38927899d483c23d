//! Why traffic to a DNS name passes or not. Which addresses the name stands for is not known here: what counts is what policies say of
//! every address outside of the cluster, and of those that the node has learned for the name.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Entry, FIRST_BLOCK, Policy};
use cilium_core::name::absolute;
use cilium_core::{NamePattern, Operator, prefix};
use ipnet::IpNet;

use crate::compile::Host;
use crate::explain::{Decision, Miss, Missed, Place, Question, Reason, place};
use crate::index::PolicyIndex;
use crate::named::known_by;
use crate::rules::{Name, Traffic};
use crate::selectors::SelectorId;
use crate::verdict::{Flow, Side, questions};

/// What policies say of an endpoint's traffic to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToName {
    /// Whether the endpoint may ask for the name where its node hears the answer. `None`: no rule is about what it asks, so nothing is
    /// learned from it.
    pub question: Option<Decision>,
    /// The traffic to addresses of the name.
    pub traffic: Decision,
    /// Rules about some addresses only, which may decide otherwise for those.
    pub by_prefix: BTreeSet<Place>,
}

/// A name that a flow goes to.
pub(crate) struct Sought<'a> {
    /// In the form of [`absolute`].
    name: &'a str,
    /// The node learns addresses of the name.
    is_heard: bool,
    /// All addresses that the name may have.
    pub(crate) whole: Option<IpNet>,
}

impl Sought<'_> {
    /// The policy with what it says of the name, and of all addresses, said of the world.
    pub(crate) fn known_by(&self, policy: &Policy, world: u32) -> Policy {
        let mut policy = if self.is_heard { known_by(policy, self.name, world) } else { policy.clone() };
        let blocks = policy.egress.blocks.iter().zip(FIRST_BLOCK..);
        let whole = blocks.filter(|(block, _)| Some(**block) == self.whole).map(|(_, number)| number).next();
        let meant = policy.egress.allow.iter().filter(|entry| Some(entry.peer) == whole);
        let meant: Vec<Entry> = meant.map(|entry| Entry { peer: world, ..entry.clone() }).collect();
        policy.egress.allow.extend(meant);
        policy
    }

    /// The name of a rule by which addresses of this one are meant.
    pub(crate) fn known_as<'t>(&self, traffic: &'t Traffic<SelectorId>) -> Option<&'t Name> {
        traffic.names.iter().find(|it| self.is_heard && it.pattern.matches(self.name))
    }

    /// The name of a rule that comes nearest, and whether it matches.
    pub(crate) fn nearest<'n>(&self, names: &'n [Name]) -> Option<(&'n Name, bool)> {
        let all = names.iter().map(|it| (it, it.pattern.matches(self.name)));
        all.min_by_key(|(it, matches)| (!matches, usize::MAX - self.likeness(&it.pattern)))
    }

    /// How many labels are the same, from the last on.
    pub(crate) fn likeness(&self, pattern: &NamePattern) -> usize {
        let labels = pattern.as_str().rsplit('.').zip(self.name.rsplit('.'));
        labels.take_while(|(one, other)| one == other).count()
    }
}

impl PolicyIndex {
    /// What the source of a flow may do with a name; the destination is the world that its addresses are in.
    ///
    /// # Guarantees
    /// The decisions are those of [`verdict()`](crate::verdict()) on the compiled policies, for an address that lies in no prefix that rules are
    /// about. It has the name if the endpoint may ask for it, by [`questions`].
    pub fn explain_name(&self, flow: &Flow, name: &str, host: Host) -> ToName {
        let name = absolute(name);
        let question = self.question(flow.source, &name, host);
        let labels = self.labels(flow.destination).into_iter().flat_map(|labels| labels.iter());
        let sought = Sought {
            name: &name,
            is_heard: matches!(question, Some(Decision::Granted(_))),
            whole: labels.filter_map(prefix::of_label).next(),
        };
        let asked = Question { sought: Some(sought), ..self.at(flow, host) };
        let traffic = asked.answer();
        let by_prefix = asked.by_prefix(&traffic);
        ToName { question, traffic, by_prefix }
    }

    fn at<'a>(&'a self, flow: &'a Flow, host: Host) -> Question<'a> {
        let Flow { source: subject, destination: peer, .. } = *flow;
        Question { index: self, flow, side: Side::Egress, host, subject, peer, sought: None }
    }

    /// Whether an endpoint may ask some name server for the name, and is heard.
    fn question(&self, subject: u32, name: &str, host: Host) -> Option<Decision> {
        let policy = self.compile(subject, host)?;
        let flows: Vec<Flow> = servers(&policy).map(|server| Flow { source: subject, ..server }).collect();
        let policies = BTreeMap::from([(subject, policy)]);
        let may_ask = |flow: &&Flow| {
            let patterns = questions(&policies, flow);
            patterns.is_some_and(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        let (mut granted, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for flow in flows.iter().filter(may_ask) {
            let server = self.at(flow, host);
            match server.answer() {
                Decision::Denied(places) => denied.extend(places),
                Decision::DefaultDeny(_) => {}
                _ => granted.extend(server.heard_by(name)),
            }
        }
        let places = |places: BTreeSet<Place>| places.into_iter().collect();
        match (flows.first()?, granted.is_empty(), denied.is_empty()) {
            (_, false, _) => Some(Decision::Granted(places(granted))),
            (_, _, false) => Some(Decision::Denied(places(denied))),
            (flow, ..) => Some(Decision::DefaultDeny(self.at(flow, host).not_asked(name))),
        }
    }
}

/// Name servers that a policy lets nodes hear, as destinations of flows.
fn servers(policy: &Policy) -> impl Iterator<Item = Flow> {
    let ruled = policy.dns.iter().map(|rule| (rule.peer, rule.protocol, rule.port));
    let heard = policy.heard.iter().map(|server| (server.peer, server.protocol, server.first));
    ruled.chain(heard).map(|(destination, protocol, destination_port)| Flow {
        source: 0,
        destination,
        protocol,
        destination_port,
        addresses: None,
    })
}

impl Question<'_> {
    /// Rules that make the node hear what is asked of this peer: those that name the name, or else all of them.
    fn heard_by(&self, name: &str) -> BTreeSet<Place> {
        let mut exact = BTreeSet::new();
        let mut all = BTreeSet::new();
        for (key, section) in self.sections() {
            for traffic in section.traffic().filter(|it| self.is_peer(it) && self.is_port(it)) {
                let Some(names) = &traffic.questions else { continue };
                all.insert(place(key, &traffic.path));
                let hit = names.iter().find(|it| it.pattern.matches(name));
                exact.extend(hit.map(|hit| place(key, &hit.path)));
            }
        }
        if exact.is_empty() { all } else { exact }
    }

    /// Why no question for a name passes, although some are looked at.
    fn not_asked(&self, name: &str) -> Reason {
        let sought = Sought { name, is_heard: false, whole: None };
        let rules = self.sections().flat_map(|(key, section)| section.allow.iter().map(move |it| (key, it)));
        let misses = rules.filter_map(|(key, traffic)| {
            let (name, _) = sought.nearest(traffic.questions.as_deref()?)?;
            Some((sought.likeness(&name.pattern), key, name))
        });
        let nearest = misses.min_by_key(|(likeness, key, name)| (usize::MAX - likeness, *key, &name.path));
        let nearest = nearest.map(|(_, key, name)| Miss {
            place: place(key, &name.path),
            missed: Missed::Name(name.pattern.clone(), Vec::new()),
        });
        Reason { closed_by: self.closed_by(), nearest }
    }

    /// Rules about the port and about some addresses outside that could make the decision another one.
    fn by_prefix(&self, decision: &Decision) -> BTreeSet<Place> {
        let may_allow = matches!(decision, Decision::DefaultDeny(_));
        let may_deny = !may_allow && !matches!(decision, Decision::Denied(_));
        let counts = |could: bool, it: &&Traffic<SelectorId>| {
            (could || self.is_peer(it)) && self.is_port(it) && self.is_about_prefixes(it)
        };
        let mut found = BTreeSet::new();
        for (key, section) in self.sections() {
            let allow = section.allow.iter().filter(|it| counts(may_allow, it));
            let deny = section.deny.iter().filter(|it| counts(may_deny, it));
            let ordered = section.ordered.iter().flat_map(|ordered| &ordered.rules);
            let ordered = ordered.flat_map(|rule| rule.meant()).filter(|it| counts(true, it));
            found.extend(allow.chain(deny).chain(ordered).map(|it| place(key, &it.path)));
        }
        let blocks = self.by_address().filter(|(_, it)| {
            let has_gaps = it.blocks.iter().any(|block| !block.except.is_empty());
            self.is_named(&it.ports, self.names(it)) && if self.is_in(it) { has_gaps } else { may_allow }
        });
        found.extend(blocks.map(|(key, it)| place(key, &it.path)));
        found
    }

    /// Whether some addresses outside are meant, or left out, and not all of a family.
    fn is_about_prefixes(&self, traffic: &Traffic<SelectorId>) -> bool {
        let selectors = traffic.peers.selectors().iter().filter_map(|id| self.index.selectors.selector(*id));
        selectors.flat_map(|selector| selector.requirements()).any(|requirement| match requirement.operator {
            Operator::Within(prefix) => prefix.prefix_len() > 0,
            Operator::NotWithin(_) => true,
            _ => prefix::group_of(requirement).is_some(),
        })
    }
}
