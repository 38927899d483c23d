//! Prefixes outside of the cluster that have an identity: those that policies and their groups name, and addresses of API servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Part, PartKey, Parts, Prefix};
use cilium_core::reserved::external_api_server_labels;
use cilium_core::{Labels, prefix, reserved};
use cilium_identity::Local;
use cilium_policy::PolicyKey;
use ipnet::IpNet;

use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

/// Who names prefixes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A policy, in the version that is in force.
    Policy(PolicyKey),
    /// A group that policies are about.
    Group(String),
}

/// Which prefixes are wanted, and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    pub(crate) numbers: Local<IpNet>,
    by_holder: BTreeMap<Holder, BTreeSet<IpNet>>,
    /// How many holders name a prefix.
    named: BTreeMap<IpNet, usize>,
    /// Addresses of API servers outside.
    api_servers: BTreeSet<IpNet>,
    dirty: BTreeSet<IpNet>,
}

impl Prefixes {
    /// Takes the prefixes that somebody names now; those of all addresses of a family are not among them.
    pub(crate) fn set_holder(&mut self, holder: &Holder, prefixes: BTreeSet<IpNet>) {
        for prefix in &prefixes {
            *self.named.entry(*prefix).or_default() += 1;
        }
        self.dirty.extend(prefixes.iter().copied());
        let old = if prefixes.is_empty() {
            self.by_holder.remove(holder)
        } else {
            self.by_holder.insert(holder.clone(), prefixes)
        };
        for prefix in old.into_iter().flatten() {
            let count = self.named.entry(prefix).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.named.remove(&prefix);
            }
            self.dirty.insert(prefix);
        }
    }

    /// Labels of a prefix, and of all inside of it, may have changed.
    pub(crate) fn touch_inside(&mut self, prefix: IpNet) {
        // In this order, what lies inside of a prefix comes right after it.
        let named = self.named.range(prefix..).map(|(found, _)| *found);
        let inside = named.take_while(|found| prefix.contains(found));
        self.dirty.extend(inside.chain(self.api_servers.iter().copied().filter(|it| prefix.contains(it))));
        if prefix.prefix_len() == 0 {
            self.dirty.insert(prefix);
        }
    }

    /// Takes where API servers are outside of the cluster.
    pub(crate) fn set_api_servers(&mut self, addresses: &BTreeSet<IpAddr>) {
        let after: BTreeSet<IpNet> = addresses.iter().map(|address| prefix::host(*address)).collect();
        self.dirty.extend(self.api_servers.symmetric_difference(&after).copied());
        self.api_servers = after;
    }

    /// The number of an address that has one by itself.
    pub(crate) fn number_of(&self, address: IpAddr) -> Option<u32> {
        self.numbers.number(&prefix::host(address))
    }

    /// Prefixes that have an identity, with its number.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (IpNet, u32)> {
        self.numbers.all().map(|(prefix, number)| (*prefix, number))
    }

    /// Prefixes that somebody names.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn named(&self) -> impl Iterator<Item = &IpNet> {
        self.named.keys()
    }
}

/// Prefixes in parts that were written before, with their numbers; addresses outside are prefixes too.
pub(crate) fn recorded(parts: &Parts) -> impl Iterator<Item = (IpNet, u32)> {
    parts.iter().filter_map(|(key, part)| match part {
        Part::Prefix(part) => Some((key.0.strip_prefix("prefix/")?.parse().ok()?, part.identity)),
        Part::Address(part) if part.node.is_none() => {
            let address: IpAddr = key.0.strip_prefix("address/")?.parse().ok()?;
            Some((prefix::host(address), part.identity))
        }
        _ => None,
    })
}

impl Planner {
    /// Makes identities and parts follow which prefixes are wanted.
    pub(crate) fn follow_prefixes(&mut self) {
        for prefix in std::mem::take(&mut self.prefixes.dirty) {
            self.follow_prefix(prefix);
        }
    }

    /// What was taken over at the start has been given out, or is not wanted any more.
    pub(crate) fn forget_recorded_numbers(&mut self) {
        self.prefixes.numbers.forget_remembered();
        self.nodes.numbers.forget_remembered();
    }

    fn follow_prefix(&mut self, prefix: IpNet) {
        if prefix.prefix_len() == 0 {
            return self.follow_world(prefix);
        }
        let is_named = self.prefixes.named.contains_key(&prefix);
        let is_api_server = self.prefixes.api_servers.contains(&prefix);
        let number = if is_named || is_api_server {
            let number = self.prefixes.numbers.acquire(prefix);
            match number {
                Some(number) => {
                    // A group that the prefix was in may have lost its only one, and another one got its first.
                    self.touch_peers_of(number);
                    self.set_known(number, Some(self.prefix_labels(prefix, is_api_server)));
                    self.touch_peers_of(number);
                }
                None => self.warn_of(prefix),
            }
            number
        } else {
            if let Some(number) = self.prefixes.numbers.release(&prefix) {
                self.touch_peers_of(number);
                self.set_known(number, None);
            }
            None
        };
        let part = number.filter(|_| is_named).map(|identity| Part::Prefix(Prefix { identity }));
        self.shared.set(&PartKey::prefix(prefix), part.as_ref());
    }

    /// All addresses of a family have the identity of the world: it has no part, and no number of its own.
    fn follow_world(&mut self, all: IpNet) {
        let number = self.config.families().world_of(all.addr());
        let labels = reserved::labels(number).unwrap_or_default();
        let labels = labels.iter().cloned().chain(self.groups.labels_around(all)).collect();
        if self.config.has_family(all.addr()) {
            self.policies.index.set_identity(number, Some(labels));
        }
    }

    fn prefix_labels(&self, prefix: IpNet, is_api_server: bool) -> Labels {
        let families = self.config.families();
        let labels = if is_api_server {
            external_api_server_labels(families, prefix.addr())
        } else {
            prefix::labels(families, prefix)
        };
        labels.iter().cloned().chain(self.groups.labels_around(prefix)).collect()
    }

    fn warn_of(&mut self, prefix: IpNet) {
        let note =
            format!("{prefix} gets no identity, as all of them are taken: let policies name fewer prefixes");
        let regarding = ObjectKey::cluster(Kind::Identity, &prefix.to_string());
        self.warn(regarding, None, "NoIdentityForPrefix", &note);
    }
}
