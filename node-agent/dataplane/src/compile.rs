//! From a policy part to entries of the policy trie.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Allow, Direction, Policy};
use cilium_bpf::layout::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, NetPort, POLICY_ALLOW, PolicyEntry, PolicyKey, Slot,
};

use crate::ports::blocks;

/// A key of the policy trie without its generation. Sorted as [`Compiled::rules`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    direction: u8,
    peer: u32,
    protocol: u8,
    port: u16,
    prefix_len: u32,
}

impl Rule {
    /// The key under a generation.
    pub fn key(&self, generation: u32) -> PolicyKey {
        PolicyKey {
            prefix_len: self.prefix_len,
            generation,
            peer: self.peer,
            direction: self.direction,
            protocol: self.protocol,
            port: NetPort(self.port),
        }
    }

    /// The rule behind a key.
    pub fn of(key: &PolicyKey) -> Self {
        Self {
            direction: key.direction,
            peer: key.peer,
            protocol: key.protocol,
            port: key.port.0,
            prefix_len: key.prefix_len,
        }
    }
}

/// What the kernel needs to know of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Default deny is in force for what comes in.
    pub ingress: bool,
    /// Default deny is in force for what goes out.
    pub egress: bool,
    /// What passes nevertheless, sorted.
    pub rules: Vec<(Rule, PolicyEntry)>,
}

impl Compiled {
    /// Some direction is enforced.
    pub fn is_enforced(&self) -> bool {
        self.ingress || self.egress
    }

    /// The slot that puts this content in force.
    pub fn slot(&self, generation: u32) -> Slot {
        Slot { generation, ingress_enforced: self.ingress, egress_enforced: self.egress, open: true }
    }
}

/// A port range ends before it begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ports {first} to {last} are no range: the operator is faulty, the policy in force before stays")]
pub struct InvalidRange {
    first: u16,
    last: u16,
}

/// Compiles a policy. Rules that lead to one key are one entry, whose cookie names all of their origins.
///
/// # Errors
/// [`InvalidRange`].
pub fn compile(policy: &Policy) -> Result<Compiled, InvalidRange> {
    let rules = merged(policy)?
        .into_iter()
        .map(|(rule, origins)| {
            let cookie = cookie(origins.iter().map(|at| name(policy, *at)));
            (rule, PolicyEntry { cookie, verdict: POLICY_ALLOW })
        })
        .collect();
    Ok(Compiled { ingress: policy.ingress.enforced, egress: policy.egress.enforced, rules })
}

/// The policies that a cookie of this policy's entries stands for; none when the cookie is not from this policy.
pub fn origins_of(policy: &Policy, wanted: u32) -> Vec<&str> {
    let merged = merged(policy).unwrap_or_default();
    let found = merged.values().find(|origins| cookie(origins.iter().map(|at| name(policy, *at))) == wanted);
    found.into_iter().flatten().map(|at| name(policy, *at)).collect()
}

/// Names origins in an entry: 32-bit FNV-1a over the names, each followed by a line feed; never 0. The same origins have
/// the same cookie after a restart.
pub fn cookie<'a>(origins: impl Iterator<Item = &'a str>) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in origins.flat_map(|name| name.bytes().chain([b'\n'])) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.max(1)
}

fn name(policy: &Policy, at: u16) -> &str {
    policy.origins.get(usize::from(at)).map_or("", String::as_str)
}

fn merged(policy: &Policy) -> Result<BTreeMap<Rule, BTreeSet<u16>>, InvalidRange> {
    let mut rules: BTreeMap<Rule, BTreeSet<u16>> = BTreeMap::new();
    for (number, direction) in [(DIRECTION_INGRESS, &policy.ingress), (DIRECTION_EGRESS, &policy.egress)] {
        for allow in allowed(direction) {
            for (port, prefix_len) in prefixes(allow)? {
                let Allow { peer, protocol, .. } = *allow;
                let rule = Rule { direction: number, peer, protocol, port, prefix_len };
                rules.entry(rule).or_default().extend(&allow.origins);
            }
        }
    }
    Ok(rules)
}

/// Without default deny everything passes, and entries would only cost room.
fn allowed(direction: &Direction) -> &[Allow] {
    if direction.enforced { &direction.allow } else { &[] }
}

fn prefixes(allow: &Allow) -> Result<Vec<(u16, u32)>, InvalidRange> {
    match *allow {
        Allow { protocol: 0, .. } => Ok(vec![(0, PolicyKey::ANY_PROTOCOL)]),
        Allow { first: 0, last: 0, .. } => Ok(vec![(0, PolicyKey::ANY_PORT)]),
        Allow { first, last, .. } if first > last => Err(InvalidRange { first, last }),
        Allow { first, last, .. } => Ok(blocks(first, last)
            .into_iter()
            .map(|(port, bits)| (port, PolicyKey::ANY_PORT + bits))
            .collect()),
    }
}
