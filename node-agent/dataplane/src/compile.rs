//! From a policy part to rules about peers, and to blocks of addresses.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{FIRST_BLOCK, Policy};
use cilium_bpf::layout::{
    BlockEntry, BlockKey, DIRECTION_EGRESS, DIRECTION_INGRESS, NetPort, PolicyEntry, PolicyKey, Slot,
};
use ipnet::IpNet;

use crate::block::{Block, InvalidRange};
use crate::decide::{Content, Origins, decide};

/// Traffic with a peer that a rule is about: its key without the generation. Sorted as [`Compiled::rules`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    pub(crate) direction: u8,
    pub(crate) peer: u32,
    pub(crate) protocol: u8,
    port: u16,
    prefix_len: u32,
}

impl Rule {
    pub(crate) fn of_block(direction: u8, peer: u32, block: Block) -> Self {
        let Block { protocol, port, prefix_len } = block;
        Self { direction, peer, protocol, port, prefix_len }
    }

    pub(crate) fn block(&self) -> Block {
        let Self { protocol, port, prefix_len, .. } = *self;
        Block { protocol, port, prefix_len }
    }

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

/// A key of the trie of blocks without its generation. Sorted as [`Compiled::blocks`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressBlock {
    pub(crate) direction: u8,
    prefix: IpNet,
}

impl AddressBlock {
    /// The key under a generation.
    pub fn key(&self, generation: u32) -> BlockKey {
        BlockKey::new(generation, self.direction, self.prefix.network(), self.prefix.prefix_len())
    }

    /// The block behind a key; `None` for a key that is not one of ours.
    pub fn of(key: &BlockKey) -> Option<Self> {
        let (address, length) = key.prefix();
        let prefix = IpNet::new(address, length.try_into().ok()?).ok()?;
        let found = Self { direction: key.direction.try_into().ok()?, prefix };
        (found.key(key.generation) == *key).then_some(found)
    }
}

/// What the kernel needs to know of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compiled {
    /// What comes in needs an entry that allows it.
    pub ingress: bool,
    /// What goes out needs an entry that allows it.
    pub egress: bool,
    /// What passes, and what does not although more around it does; sorted.
    pub rules: Vec<(Rule, PolicyEntry)>,
    /// Which peers addresses are beside their identities; sorted.
    pub blocks: Vec<(AddressBlock, BlockEntry)>,
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

/// Compiles a policy. Rules that lead to one key are one entry, whose cookie names all of their origins.
///
/// # Errors
/// [`InvalidRange`].
pub fn compile(policy: &Policy) -> Result<Compiled, InvalidRange> {
    let rules = merged(policy)?
        .into_iter()
        .map(|(rule, (verdict, origins))| {
            let cookie = cookie(said(policy, &origins));
            (rule, PolicyEntry { cookie, verdict })
        })
        .collect();
    let (ingress, egress) = (policy.ingress.is_restricted(), policy.restricts_egress());
    Ok(Compiled { ingress, egress, rules, blocks: blocks(policy) })
}

fn blocks(policy: &Policy) -> Vec<(AddressBlock, BlockEntry)> {
    let directions = [(DIRECTION_INGRESS, &policy.ingress), (DIRECTION_EGRESS, &policy.egress)];
    let blocks = directions.into_iter().flat_map(|(direction, content)| {
        let numbered = content.blocks.iter().zip(FIRST_BLOCK..);
        numbered.map(move |(prefix, peer)| {
            (AddressBlock { direction, prefix: prefix.trunc() }, BlockEntry { peer })
        })
    });
    let mut blocks: Vec<_> = blocks.collect();
    blocks.sort_unstable_by_key(|(block, _)| *block);
    blocks
}

/// The policies that a cookie of this policy's entries stands for; none when the cookie is not from this policy.
pub fn origins_of(policy: &Policy, wanted: u32) -> Vec<&str> {
    policy.origin_names(indexes_of(policy, wanted))
}

/// What the rules behind a cookie want said of flows on which they decide (`log.value`), each text once.
pub fn logs_of(policy: &Policy, wanted: u32) -> Vec<&str> {
    if policy.notes.is_empty() {
        return Vec::new();
    }
    let indexes = indexes_of(policy, wanted);
    let logs: BTreeSet<&str> = indexes.iter().filter_map(|at| log(policy, *at)).collect();
    logs.into_iter().collect()
}

fn indexes_of(policy: &Policy, wanted: u32) -> Origins {
    let merged = merged(policy).unwrap_or_default();
    let mut all = merged.into_values().map(|(_, origins)| origins);
    all.find(|origins| cookie(said(policy, origins)) == wanted).unwrap_or_default()
}

/// What a cookie is made of: the names of policies, and what their rules want said.
fn said<'a>(policy: &'a Policy, origins: &Origins) -> impl Iterator<Item = &'a str> {
    origins.iter().flat_map(|at| [Some(name(policy, *at)), log(policy, *at)]).flatten()
}

fn log(policy: &Policy, at: u16) -> Option<&str> {
    policy.notes.get(&at).map(|note| note.log.as_str()).filter(|log| !log.is_empty())
}

/// Names origins in an entry: 32-bit FNV-1a over the names and logs, each followed by a line feed; never 0. The same origins have
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

/// Every entry with its verdict and origins.
type Merged = BTreeMap<Rule, (u8, Origins)>;

fn merged(policy: &Policy) -> Result<Merged, InvalidRange> {
    let mut rules = Merged::new();
    let egress = Content { direction: &policy.egress, dns: &policy.dns, heard: &policy.heard };
    let ingress = Content { direction: &policy.ingress, dns: &[], heard: &[] };
    for (number, content) in [(DIRECTION_INGRESS, ingress), (DIRECTION_EGRESS, egress)] {
        for ((peer, block), decision) in decide(&content)? {
            rules.insert(Rule::of_block(number, peer, block), decision);
        }
    }
    Ok(rules)
}
