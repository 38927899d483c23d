//! Prefixes outside of the cluster that have an identity: those that policies name, and addresses of API servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{Part, PartKey, Parts, Prefix};
use cilium_core::reserved::external_api_server_labels;
use cilium_core::{Labels, prefix};
use cilium_identity::Local;
use cilium_policy::PolicyKey;
use ipnet::IpNet;

use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

/// Which prefixes are wanted, and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    pub(crate) numbers: Local,
    /// Prefixes of the version of each policy that is in force.
    by_policy: BTreeMap<PolicyKey, BTreeSet<IpNet>>,
    /// How many policies name a prefix.
    named: BTreeMap<IpNet, usize>,
    /// Addresses of API servers outside.
    api_servers: BTreeSet<IpNet>,
    dirty: BTreeSet<IpNet>,
}

impl Prefixes {
    /// Takes the prefixes of a policy as it is in force now.
    pub(crate) fn set_policy(&mut self, key: &PolicyKey, prefixes: BTreeSet<IpNet>) {
        for prefix in &prefixes {
            *self.named.entry(*prefix).or_default() += 1;
        }
        self.dirty.extend(prefixes.iter().copied());
        let old = if prefixes.is_empty() {
            self.by_policy.remove(key)
        } else {
            self.by_policy.insert(key.clone(), prefixes)
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

    /// Prefixes that policies name.
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
    pub(crate) fn forget_recorded_prefixes(&mut self) {
        self.prefixes.numbers.forget_remembered();
    }

    fn follow_prefix(&mut self, prefix: IpNet) {
        let is_named = self.prefixes.named.contains_key(&prefix);
        let is_api_server = self.prefixes.api_servers.contains(&prefix);
        let number = if is_named || is_api_server {
            let number = self.prefixes.numbers.acquire(prefix);
            match number {
                Some(number) => self.set_known(number, Some(self.prefix_labels(prefix, is_api_server))),
                None => self.warn_of(prefix),
            }
            number
        } else {
            if let Some(number) = self.prefixes.numbers.release(&prefix) {
                self.set_known(number, None);
            }
            None
        };
        let part = number.filter(|_| is_named).map(|identity| Part::Prefix(Prefix { identity }));
        self.shared.set(&PartKey::prefix(prefix), part.as_ref());
    }

    fn prefix_labels(&self, prefix: IpNet, is_api_server: bool) -> Labels {
        let families = self.config.families();
        if is_api_server {
            external_api_server_labels(families, prefix.addr())
        } else {
            prefix::labels(families, prefix)
        }
    }

    fn warn_of(&mut self, prefix: IpNet) {
        let note =
            format!("{prefix} gets no identity, as all of them are taken: let policies name fewer prefixes");
        let regarding = ObjectKey::cluster(Kind::Identity, &prefix.to_string());
        self.warn(regarding, None, "NoIdentityForPrefix", &note);
    }
}
