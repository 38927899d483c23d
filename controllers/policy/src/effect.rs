//! What of a policy has no effect although it is valid: nobody is selected, nobody is the peer, a denial covers it, or names are never
//! heard of.

use std::collections::BTreeSet;
use std::fmt;

use cilium_api::parts::Action;
use cilium_core::pod::CLUSTER;
use cilium_core::{Peers, Selector, Source, prefix, reserved};

use crate::compile::in_order;
use crate::explain::Place;
use crate::index::PolicyIndex;
use crate::key::PolicyKey;
use crate::rules::{PolicyRules, Ports, Rule, Section, Tier, Traffic};
use crate::selectors::SelectorId;
use crate::verdict::Side;

/// A part of a policy that has no effect as things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ineffective {
    /// Path of the field, such as `spec.ingress[0]`.
    pub path: String,
    /// Why.
    pub why: Idle,
}

/// Why a part of a policy has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The selector of the rule matches no endpoint.
    NoEndpoint,
    /// The peers match nobody.
    NoPeer,
    /// The ports are given by names that no destination has.
    NoPort,
    /// Everything that is allowed here is denied by these, of whatever policy.
    Denied(Vec<Place>),
    /// Peers are given by names, and no rule makes a node hear what any of the endpoints asks for.
    NoQuestion,
}

impl Idle {
    /// One word, for the reason of a condition.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "NoEndpoint",
            Self::NoPeer => "NoPeer",
            Self::NoPort => "NoPort",
            Self::Denied(_) => "Denied",
            Self::NoQuestion => "NoQuestion",
        }
    }
}

impl fmt::Display for Ineffective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, why } = self;
        match why {
            Idle::NoEndpoint => write!(f, "{path} selects no endpoint"),
            Idle::NoPeer => write!(f, "{path}: no peer matches"),
            Idle::NoPort => write!(f, "{path}: no destination has a container port of this name"),
            Idle::NoQuestion => {
                write!(
                    f,
                    "{path}: no rule with rules.dns selects the same pods, so no addresses of these names are known"
                )
            }
            Idle::Denied(places) => {
                let by: Vec<String> = places.iter().map(|at| format!("{} {}", at.policy, at.path)).collect();
                write!(f, "{path} allows only what is denied by {}", by.join(" and "))
            }
        }
    }
}

/// A selector, in force or not yet.
pub(crate) trait Select {
    /// The selector itself.
    fn selector<'a>(&'a self, index: &'a PolicyIndex) -> Option<&'a Selector>;
    /// Identities that it matches.
    fn members(&self, index: &PolicyIndex) -> BTreeSet<u32>;
    /// Prefixes of groups that it asks for have their identities.
    const IN_FORCE: bool;
}

impl Select for SelectorId {
    fn selector<'a>(&'a self, index: &'a PolicyIndex) -> Option<&'a Selector> {
        index.selectors.selector(*self)
    }
    fn members(&self, index: &PolicyIndex) -> BTreeSet<u32> {
        index.selectors.members(*self).collect()
    }
    const IN_FORCE: bool = true;
}

impl Select for Selector {
    fn selector<'a>(&'a self, _: &'a PolicyIndex) -> Option<&'a Selector> {
        Some(self)
    }
    fn members(&self, index: &PolicyIndex) -> BTreeSet<u32> {
        index.selectors.matching(self)
    }
    const IN_FORCE: bool = false;
}

impl PolicyIndex {
    /// What of a policy in force has no effect now. `is_present` tells whether an identity has endpoints.
    pub fn ineffective(&self, key: &PolicyKey, is_present: &impl Fn(u32) -> bool) -> Vec<Ineffective> {
        let rules = self.policies.get(key).map(Vec::as_slice).unwrap_or_default();
        Look { index: self, is_present, own: &[] }.at(rules)
    }

    /// The same of a policy that is not in force yet, beside those that are; `key` is its name.
    pub fn would_be_ineffective(
        &self,
        key: &PolicyKey,
        rules: &PolicyRules,
        is_present: &impl Fn(u32) -> bool,
    ) -> Vec<Ineffective> {
        let own: Vec<(&PolicyKey, &Rule)> = rules.rules.iter().map(|rule| (key, rule)).collect();
        Look { index: self, is_present, own: &own }.at(&rules.rules)
    }

    /// Whether nodes hear something of what an identity asks for, so that addresses of names become known.
    pub fn is_heard(&self, number: u32) -> bool {
        self.sections(number, Side::Egress).any(|(_, section)| hears(self, section))
    }
}

struct Look<'a, P> {
    index: &'a PolicyIndex,
    is_present: &'a P,
    /// Rules that are not in force yet and take the place of those of their policy.
    own: &'a [(&'a PolicyKey, &'a Rule)],
}

impl<P: Fn(u32) -> bool> Look<'_, P> {
    fn at<S: Select>(&self, rules: &[Rule<S>]) -> Vec<Ineffective> {
        let mut found: Vec<Ineffective> = Vec::new();
        for rule in rules {
            let subjects = self.subjects(rule);
            if subjects.is_empty() {
                found.push(Ineffective { path: rule.path.to_string(), why: Idle::NoEndpoint });
                continue;
            }
            for (side, section) in [(Side::Ingress, &rule.ingress), (Side::Egress, &rule.egress)] {
                let Some(section) = section else { continue };
                found.extend(section.allow.iter().chain(&section.deny).filter_map(|it| self.peerless(it)));
                let all = section.allow.iter().chain(&section.deny);
                found.extend(all.filter_map(|it| self.portless(side, &subjects, it)));
                found.extend(section.allow.iter().filter_map(|it| self.denied(side, &subjects, it)));
                if !rule.nodes {
                    found.extend(section.allow.iter().filter_map(|it| self.unheard(&subjects, it)));
                }
            }
        }
        found.dedup();
        found
    }

    fn subjects<S: Select>(&self, rule: &Rule<S>) -> BTreeSet<u32> {
        let members = rule.subject.members(self.index).into_iter();
        let is_endpoint = |number: u32| reserved::is_endpoint(number) && reserved::labels(number).is_none();
        let is_real = |number: &u32| {
            if rule.nodes {
                reserved::is_node_host(*number)
            } else {
                is_endpoint(*number) && (self.is_present)(*number)
            }
        };
        members.filter(is_real).collect()
    }

    fn peerless<S: Select>(&self, traffic: &Traffic<S>) -> Option<Ineffective> {
        if matches!(traffic.peers, Peers::Any) || !traffic.names.is_empty() {
            return None;
        }
        let comes_and_goes =
            |selector: &Selector| selects_pods(selector) || (S::IN_FORCE && selects_group(selector));
        let is_nobody = |selector: &S| {
            selector.selector(self.index).is_some_and(comes_and_goes)
                && !selector.members(self.index).into_iter().any(self.is_present)
        };
        // None at all: what the entry refers to is not there. A list that is empty by itself grants nothing, as it says.
        let nobody = traffic.peers.selectors().iter().all(is_nobody);
        nobody.then(|| Ineffective { path: entry_of(&traffic.path), why: Idle::NoPeer })
    }

    fn portless<S: Select>(
        &self,
        side: Side,
        subjects: &BTreeSet<u32>,
        traffic: &Traffic<S>,
    ) -> Option<Ineffective> {
        if traffic.named.is_empty() || !traffic.ports.is_empty() {
            return None;
        }
        let peers = || traffic.peers.selectors().iter().flat_map(|selector| selector.members(self.index));
        let destinations = if side == Side::Ingress { subjects.clone() } else { peers().collect() };
        let mut present = destinations.into_iter().filter(|number| (self.is_present)(*number)).peekable();
        present.peek()?;
        let has_name = |number| {
            let known = self.index.named_ports(number);
            traffic.named.iter().any(|name| name.among(&known).next().is_some())
        };
        (!present.any(has_name)).then(|| Ineffective { path: traffic.path.to_string(), why: Idle::NoPort })
    }

    /// Whether every present endpoint denies all that the traffic allows, to whoever it may be.
    fn denied<S: Select>(
        &self,
        side: Side,
        subjects: &BTreeSet<u32>,
        allowed: &Traffic<S>,
    ) -> Option<Ineffective> {
        // What a name stands for is another question in each destination.
        if !allowed.named.is_empty() {
            return None;
        }
        let peers = match &allowed.peers {
            Peers::Any => BTreeSet::from([reserved::ANY]),
            Peers::Selected(selectors) => {
                selectors.iter().flat_map(|selector| selector.members(self.index)).collect()
            }
        };
        let mut places = BTreeSet::new();
        for subject in subjects {
            let denials = self.denials(*subject, side);
            for peer in &peers {
                for ports in &allowed.ports {
                    let covering = denials.iter().find(|denial| denial.covers(*peer, ports))?;
                    places.insert(covering.place.clone());
                }
            }
        }
        let path = allowed.path.to_string();
        (!places.is_empty())
            .then(|| Ineffective { path, why: Idle::Denied(places.into_iter().take(MAX_PLACES).collect()) })
    }

    /// Whether addresses are meant by names, and no question of any subject is heard. That one of them is heard is enough: names are
    /// known to a node as a whole.
    fn unheard<S: Select>(&self, subjects: &BTreeSet<u32>, traffic: &Traffic<S>) -> Option<Ineffective> {
        if traffic.names.is_empty() || subjects.iter().any(|subject| self.is_heard(*subject)) {
            return None;
        }
        Some(Ineffective { path: entry_of(&traffic.path), why: Idle::NoQuestion })
    }

    fn is_heard(&self, subject: u32) -> bool {
        let is_replaced = |key: &PolicyKey| self.own.iter().any(|(own, _)| *own == key);
        let mut in_force = self.index.sections(subject, Side::Egress).filter(|(key, _)| !is_replaced(key));
        let mut own = self.own.iter().filter_map(|(_, rule)| Some((rule, rule.egress.as_ref()?)));
        in_force.any(|(_, section)| hears(self.index, section))
            || own.any(|(rule, section)| {
                hears(self.index, section) && rule.subject.members(self.index).contains(&subject)
            })
    }

    fn denials(&self, subject: u32, side: Side) -> Vec<Denial> {
        let is_replaced = |key: &PolicyKey| self.own.iter().any(|(own, _)| *own == key);
        let in_force: Vec<_> =
            self.index.sections(subject, side).filter(|(key, _)| !is_replaced(key)).collect();
        let mut all: Vec<Denial> =
            in_force.iter().flat_map(|(key, section)| self.denials_of(key, &section.deny)).collect();
        all.extend(self.denials_before(&in_force));
        for (key, rule) in self.own {
            let section = if side == Side::Ingress { &rule.ingress } else { &rule.egress };
            if let Some(section) = section
                && rule.nodes == reserved::is_node_host(subject)
                && rule.subject.members(self.index).contains(&subject)
            {
                all.extend(self.denials_of(key, &section.deny));
            }
        }
        all
    }

    /// What is denied before all else: by rules that none goes before that accepts or passes on anything.
    fn denials_before(&self, sections: &[(&PolicyKey, &Section<SelectorId>)]) -> Vec<Denial> {
        let ordered = in_order(sections).into_iter().filter(|(_, ordered)| ordered.tier == Tier::Admin);
        let rules = ordered.flat_map(|(key, ordered)| ordered.rules.iter().map(move |rule| (key, rule)));
        let denying = rules.take_while(|(_, rule)| rule.action == Action::Deny);
        denying.flat_map(|(key, rule)| self.denials_of(key, &rule.traffic)).collect()
    }

    fn denials_of<S: Select>(&self, key: &PolicyKey, denied: &[Traffic<S>]) -> Vec<Denial> {
        let denial = |traffic: &Traffic<S>| Denial {
            place: Place { policy: key.clone(), path: traffic.path.clone() },
            peers: match &traffic.peers {
                Peers::Any => None,
                Peers::Selected(selectors) => {
                    Some(selectors.iter().flat_map(|selector| selector.members(self.index)).collect())
                }
            },
            ports: traffic.ports.clone(),
        };
        denied.iter().map(denial).collect()
    }
}

/// Whether nodes hear what is asked of some name server.
fn hears<S: Select>(index: &PolicyIndex, section: &Section<S>) -> bool {
    let is_somebody = |peers: &Peers<S>| match peers {
        Peers::Any => true,
        Peers::Selected(selectors) => selectors.iter().any(|selector| !selector.members(index).is_empty()),
    };
    section.traffic().any(|traffic| traffic.questions.is_some() && is_somebody(&traffic.peers))
}

/// Most places that one part is said to be denied by.
const MAX_PLACES: usize = 2;

/// What a rule denies.
struct Denial {
    place: Place,
    /// `None`: every peer.
    peers: Option<BTreeSet<u32>>,
    ports: Vec<Ports>,
}

impl Denial {
    fn covers(&self, peer: u32, ports: &Ports) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(&peer))
            && self.ports.iter().any(|own| own.contains(ports))
    }
}

/// Whether a selector is about pods of the cluster, which come and go; what is outside is always there.
fn selects_pods(selector: &Selector) -> bool {
    selector.requirements().iter().any(|it| it.source == Source::K8S && &*it.key == CLUSTER)
}

/// Whether a selector is about the prefixes of a group.
fn selects_group(selector: &Selector) -> bool {
    selector.requirements().iter().any(|it| prefix::group_of(it).is_some())
}

/// The entry of `ingress` or `egress` that an item of its ports is in.
fn entry_of(path: &str) -> String {
    let end = [".toPorts", ".icmps"].into_iter().filter_map(|item| path.find(item)).min();
    path[..end.unwrap_or(path.len())].to_owned()
}
