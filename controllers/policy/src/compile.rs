//! From rules to the compiled policy of an identity.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Allow, Direction, Policy};
use cilium_core::{Peers, reserved};

use crate::index::{API_SERVER_HOST, Mode, PolicyIndex};
use crate::key::PolicyKey;
use crate::rules::{Grant, Ports, Rule, Section};
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

/// What is allowed, and by which policies. The order of the keys is the order of the entries.
type Entries<'a> = BTreeMap<(u32, Ports), BTreeSet<&'a PolicyKey>>;

impl PolicyIndex {
    /// The policy of every endpoint of an identity, on a node of one kind.
    ///
    /// `None` when neither direction is restricted, and for nodes and what is outside. An identity that is not known is closed in both directions, unless
    /// nothing is enforced at all: its labels are on their way, and until they are here nothing says that it may be open.
    pub fn compile(&self, number: u32, host: Host) -> Option<Policy> {
        let is_known = self.selectors.labels(number).is_some();
        let ingress = self.direction(number, Side::Ingress, host);
        let egress = self.direction(number, Side::Egress, host);
        match self.mode {
            Mode::Never => None,
            _ if !reserved::is_endpoint(number) => None,
            _ if !is_known => Some(policy(Some(Entries::new()), Some(Entries::new()))),
            _ if ingress.is_none() && egress.is_none() => None,
            _ => Some(policy(ingress, egress)),
        }
    }

    /// Entries of a direction; `None` when it is not restricted.
    fn direction(&self, number: u32, side: Side, host: Host) -> Option<Entries<'_>> {
        let rules = self.rules_about(number).into_iter().filter_map(|(key, index)| {
            let rule = self.policies.get(key)?.get(*index)?;
            Some((key, section(rule, side)?))
        });
        let sections: Vec<_> = rules.collect();
        let closed = self.mode == Mode::Always || self.is_init(number);
        let restricted = closed || sections.iter().any(|(_, section)| section.default_deny);
        restricted.then(|| {
            let mut entries = Entries::new();
            for (key, section) in sections {
                section.allow.iter().for_each(|grant| self.add(&mut entries, key, grant, host));
            }
            entries
        })
    }

    fn add<'a>(&self, entries: &mut Entries<'a>, key: &'a PolicyKey, grant: &Grant<SelectorId>, host: Host) {
        for peer in self.peers(&grant.peers, host) {
            for ports in &grant.ports {
                entries.entry((peer, *ports)).or_default().insert(key);
            }
        }
    }

    fn peers(&self, peers: &Peers<SelectorId>, host: Host) -> BTreeSet<u32> {
        match peers {
            Peers::Any => BTreeSet::from([reserved::ANY]),
            Peers::Selected(selectors) => {
                let members = selectors.iter().flat_map(|id| self.selectors.members(*id));
                members.filter_map(|number| on_node(number, host)).collect()
            }
        }
    }
}

/// The number of a peer on a node of one kind. Of the two hosts that are matched, one is there.
fn on_node(number: u32, host: Host) -> Option<u32> {
    match (number, host) {
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

fn policy(ingress: Option<Entries<'_>>, egress: Option<Entries<'_>>) -> Policy {
    let keys: BTreeSet<&PolicyKey> =
        [&ingress, &egress].into_iter().flatten().flat_map(BTreeMap::values).flatten().copied().collect();
    // An origin beyond what an index can say is left out; what it allows is not.
    let indexes: BTreeMap<&PolicyKey, u16> = keys.iter().copied().zip(0..=u16::MAX).collect();
    Policy {
        ingress: direction(ingress, &indexes),
        egress: direction(egress, &indexes),
        origins: indexes.keys().map(|key| key.as_str().to_owned()).collect(),
    }
}

fn direction(entries: Option<Entries<'_>>, indexes: &BTreeMap<&PolicyKey, u16>) -> Direction {
    let enforced = entries.is_some();
    let allow = entries.unwrap_or_default().into_iter().map(|((peer, ports), keys)| Allow {
        peer,
        protocol: ports.protocol,
        first: ports.first,
        last: ports.last,
        origins: keys.iter().filter_map(|key| indexes.get(key).copied()).collect(),
    });
    Direction { enforced, allow: allow.collect() }
}

/// How many entries of a compiled policy the policy `key` grants, alone or with others.
pub fn entries_of(policy: &Policy, key: &PolicyKey) -> usize {
    let Some(index) = policy.origins.iter().position(|origin| origin == key.as_str()) else { return 0 };
    let entries = policy.ingress.allow.iter().chain(&policy.egress.allow);
    entries.filter(|entry| entry.origins.iter().any(|origin| usize::from(*origin) == index)).count()
}
