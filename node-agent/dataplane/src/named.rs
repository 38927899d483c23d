//! Addresses outside of the cluster that have names, as far as policies of this node ask for these names.
//!
//! An address with names that some pattern matches gets an identity of its own scope: one for each set of patterns, and for each
//! identity that such addresses would have without names (the base). So a name with a thousand changing addresses takes a
//! thousand entries of the ipcache, and one identity in policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use cilium_api::parts::{DnsRule, Entry, Policy, Step};
use cilium_core::NamePattern;
use cilium_core::reserved::FIRST_NAMED;
use ipnet::IpNet;

/// How many numbers there are, from [`FIRST_NAMED`] on.
const COUNT: u32 = 1 << 23;

/// What an identity stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Meaning {
    /// Identity that the addresses would have without names.
    pub(crate) base: u32,
    /// Patterns that match their names. Never empty.
    pub(crate) patterns: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Named {
    names: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Patterns that policies ask for, and how many policies.
    patterns: BTreeMap<String, (NamePattern, usize)>,
    by_policy: HashMap<u32, BTreeSet<String>>,
    identities: HashMap<IpAddr, u32>,
    meanings: BTreeMap<u32, (Meaning, usize)>,
    numbers: HashMap<Meaning, u32>,
    /// Bases of identities that went, until the kernel does not know them any more.
    gone: HashMap<u32, u32>,
    dirty: BTreeSet<IpAddr>,
    /// An identity came or went since policies were compiled.
    moved: bool,
    /// An identity came since policies were put in force.
    pub(crate) grown: bool,
}

impl Named {
    /// Takes the names of an address, lower case and with a dot at the end.
    pub(crate) fn set_names(&mut self, address: IpAddr, names: BTreeSet<String>) {
        self.dirty.insert(address);
        if names.is_empty() {
            self.names.remove(&address);
        } else {
            self.names.insert(address, names);
        }
    }

    /// Takes the patterns that the policy of an identity asks for.
    pub(crate) fn set_policy(&mut self, identity: u32, policy: Option<&Policy>) {
        let peers = policy.into_iter().flat_map(Policy::named_peers);
        let new: BTreeSet<String> = peers.map(|peer| peer.pattern.clone()).collect();
        let old = if new.is_empty() {
            self.by_policy.remove(&identity)
        } else {
            self.by_policy.insert(identity, new.clone())
        }
        .unwrap_or_default();
        for pattern in new.difference(&old) {
            self.use_pattern(pattern);
        }
        for pattern in old.difference(&new) {
            self.drop_pattern(pattern);
        }
    }

    fn use_pattern(&mut self, text: &str) {
        if let Some((_, users)) = self.patterns.get_mut(text) {
            *users += 1;
        } else if let Ok(pattern) = NamePattern::pattern(text) {
            self.dirty.extend(self.matched_addresses(&pattern));
            self.patterns.insert(text.to_owned(), (pattern, 1));
        }
    }

    fn drop_pattern(&mut self, text: &str) {
        let Some((_, users)) = self.patterns.get_mut(text) else { return };
        *users -= 1;
        if *users == 0
            && let Some((pattern, _)) = self.patterns.remove(text)
        {
            self.dirty.extend(self.matched_addresses(&pattern));
        }
    }

    fn matched_addresses(&self, pattern: &NamePattern) -> BTreeSet<IpAddr> {
        let matched = self.names.iter().filter(|(_, names)| names.iter().any(|name| pattern.matches(name)));
        matched.map(|(address, _)| *address).collect()
    }

    /// What addresses inside of a prefix stand for without names is another.
    pub(crate) fn rebase(&mut self, prefix: &IpNet) {
        let inside = self.names.keys().filter(|address| prefix.contains(*address));
        self.dirty.extend(inside);
    }

    /// The same for all addresses.
    pub(crate) fn rebase_all(&mut self) {
        self.dirty.extend(self.names.keys());
    }

    /// Addresses to be looked at again with [`Named::settle`].
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.dirty)
    }

    /// Gives an address its identity, when some pattern matches one of its names. `base`: its identity without names; `None` for an
    /// address of the cluster, which names do not stand for.
    pub(crate) fn settle(&mut self, address: IpAddr, base: Option<u32>) -> Option<u32> {
        let patterns = self.patterns_of(address);
        let meaning = base.filter(|_| !patterns.is_empty()).map(|base| Meaning { base, patterns });
        let old = self.identities.remove(&address);
        let new = meaning.and_then(|meaning| self.acquire(meaning));
        self.identities.extend(new.map(|new| (address, new)));
        if let Some(old) = old {
            self.release(old);
        }
        new
    }

    /// Most patterns are plain names, so they are looked up.
    fn patterns_of(&self, address: IpAddr) -> BTreeSet<String> {
        let names = self.names.get(&address).into_iter().flatten();
        let mut found = BTreeSet::new();
        for name in names {
            if self.patterns.contains_key(name) {
                found.insert(name.clone());
            }
            let wild = self.patterns.iter().filter(|(text, _)| text.contains('*'));
            let wild = wild.filter(|(_, (pattern, _))| pattern.matches(name));
            found.extend(wild.map(|(text, _)| text.clone()));
        }
        found
    }

    /// `None` when all numbers are taken.
    fn acquire(&mut self, meaning: Meaning) -> Option<u32> {
        if let Some(number) = self.numbers.get(&meaning) {
            if let Some((_, users)) = self.meanings.get_mut(number) {
                *users += 1;
            }
            return Some(*number);
        }
        let start = hash(&meaning);
        let candidates = (start..COUNT).chain(0..start).map(|offset| FIRST_NAMED + offset);
        let is_free = |number: &u32| {
            let returns = self.gone.get(number).is_none_or(|base| *base == meaning.base);
            !self.meanings.contains_key(number) && returns
        };
        let number = candidates.into_iter().find(is_free)?;
        self.gone.remove(&number);
        self.numbers.insert(meaning.clone(), number);
        self.meanings.insert(number, (meaning, 1));
        self.moved = true;
        self.grown = true;
        Some(number)
    }

    fn release(&mut self, number: u32) {
        let Some((meaning, users)) = self.meanings.get_mut(&number) else { return };
        *users -= 1;
        if *users == 0 {
            self.gone.insert(number, meaning.base);
            self.numbers.remove(meaning);
            self.meanings.remove(&number);
            self.moved = true;
        }
    }

    /// Whether policies have to be compiled again, since the last call.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// The kernel has no entry with an identity that went.
    pub(crate) fn forget_gone(&mut self) {
        self.gone.clear();
    }

    /// What an identity is without names; itself, when it does not stand for any.
    pub(crate) fn base(&self, number: u32) -> u32 {
        let present = self.meanings.get(&number).map(|(meaning, _)| meaning.base);
        present.or_else(|| self.gone.get(&number).copied()).unwrap_or(number)
    }

    /// What every present identity stands for.
    pub(crate) fn meanings(&self) -> impl Iterator<Item = (u32, &Meaning)> {
        self.meanings.iter().map(|(number, (meaning, _))| (*number, meaning))
    }

    /// A policy with entries for the identities of named addresses: what holds for their base, and what it says of their names.
    pub(crate) fn expand(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        let peers = std::mem::take(&mut policy.names);
        for (number, meaning) in self.meanings() {
            let Policy { ingress, egress, dns, heard, .. } = &mut policy;
            let mut steps: Vec<&mut Step> = [&mut ingress.admin, &mut ingress.baseline]
                .into_iter()
                .chain([&mut egress.admin, &mut egress.baseline])
                .flatten()
                .collect();
            let lists = [&mut ingress.allow, &mut ingress.deny, &mut egress.allow, &mut egress.deny, heard];
            for list in lists.into_iter().chain(steps.iter_mut().map(|step| &mut step.entries)) {
                let more: Vec<Entry> =
                    list.iter().filter(|entry| entry.peer == meaning.base).cloned().collect();
                list.extend(more.into_iter().map(|entry| Entry { peer: number, ..entry }));
            }
            for step in steps {
                let matching = step.names.iter().filter(|peer| meaning.patterns.contains(&peer.pattern));
                step.entries.extend(matching.map(|peer| peer.entry(number)));
            }
            let more: Vec<DnsRule> = dns.iter().filter(|rule| rule.peer == meaning.base).cloned().collect();
            dns.extend(more.into_iter().map(|rule| DnsRule { peer: number, ..rule }));
            let matching = peers.iter().filter(|peer| meaning.patterns.contains(&peer.pattern));
            egress.allow.extend(matching.map(|peer| peer.entry(number)));
        }
        policy
    }
}

/// 32-bit FNV-1a over base and patterns, folded to 23 bits: after a restart, the number is the same.
fn hash(meaning: &Meaning) -> u32 {
    let base = meaning.base.to_string();
    let words = std::iter::once(&base).chain(&meaning.patterns);
    let bytes = words.flat_map(|word| word.bytes().chain([b'\n']));
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 23 ^ hash) & (COUNT - 1)
}
