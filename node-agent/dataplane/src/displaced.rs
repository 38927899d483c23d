//! Addresses whose entry of the ipcache could not be written.
//!
//! Programs find the entry around such an address, or none: then it is the world. So it is taken for another identity, to which a
//! policy may be more open: the prefix around one in `except`, or the world around a denied prefix. Towards that other identity
//! such a policy is closed, until the entry is there.

use std::collections::BTreeSet;

use cilium_bpf::layout::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, POLICY_ALLOW, POLICY_DENY, POLICY_NONE, POLICY_PROXY, PolicyEntry,
    aggregate_of,
};

use crate::block::Block;
use crate::compile::{Compiled, Rule, cookie};

/// Some address is taken for one identity and is of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Displaced {
    /// What programs take it for.
    pub seen: u32,
    /// What it is.
    pub meant: u32,
}

impl Compiled {
    /// The same, closed to every identity that stands for others to which it is less open; `None` when there is none.
    pub fn closed_to(&self, displaced: &BTreeSet<Displaced>) -> Option<Self> {
        let mut closed: Option<Self> = None;
        for direction in [DIRECTION_INGRESS, DIRECTION_EGRESS] {
            let is_open = |it: &&Displaced| self.is_more_open(direction, **it);
            let peers: BTreeSet<u32> = displaced.iter().filter(is_open).map(|it| it.seen).collect();
            for peer in peers {
                closed.get_or_insert_with(|| self.clone()).close(direction, peer);
            }
        }
        closed
    }

    fn close(&mut self, direction: u8, peer: u32) {
        self.rules.retain(|(rule, _)| (rule.direction, rule.peer) != (direction, peer));
        let rule = Rule::of_block(direction, peer, Block::ALL);
        let at = self.rules.partition_point(|(before, _)| *before < rule);
        self.rules.insert(at, (rule, PolicyEntry { cookie: cookie([].into_iter()), verdict: POLICY_DENY }));
    }

    /// Whether something passes for what an address is taken for, and not for what it is.
    fn is_more_open(&self, direction: u8, displaced: Displaced) -> bool {
        let Displaced { seen, meant } = displaced;
        let has_blocks = self.blocks.iter().any(|(block, _)| block.direction == direction);
        self.corners(direction, displaced).into_iter().any(|at| {
            let (seen, meant) = (self.find(direction, seen, at), self.find(direction, meant, at));
            match (seen, meant) {
                (seen, meant) if seen == meant => false,
                // A block may allow what has no entry.
                (None, meant) => has_blocks && meant.is_some_and(|(_, entry)| entry.verdict != POLICY_ALLOW),
                (Some((_, entry)), _) if ![POLICY_ALLOW, POLICY_PROXY].contains(&entry.verdict) => false,
                (Some(_), meant) => meant.is_none_or(|(_, entry)| entry.verdict != POLICY_ALLOW),
            }
        })
    }

    /// Protocols and ports among which there is one of every kind that rules about the two tell apart.
    fn corners(&self, direction: u8, Displaced { seen, meant }: Displaced) -> BTreeSet<Block> {
        let peers = [seen, meant, aggregate_of(seen), aggregate_of(meant)];
        let rules = self.rules.iter().map(|(rule, _)| rule);
        let about: Vec<&Rule> =
            rules.filter(|rule| rule.direction == direction && peers.contains(&rule.peer)).collect();
        let named: BTreeSet<u8> = about.iter().map(|rule| rule.protocol).collect();
        let other = (1..=u8::MAX).find(|protocol| !named.contains(protocol)).map(|it| (it, 0));
        let ends = named.iter().flat_map(|protocol| [(*protocol, 0), (*protocol, u16::MAX)]);
        let edges = about.iter().flat_map(|rule| {
            let (first, last) = rule.block().ports();
            let ports = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            ports.into_iter().flatten().map(|port| (rule.protocol, port))
        });
        let all = edges.chain(ends).chain(other);
        all.filter(|(protocol, _)| *protocol != 0)
            .map(|(protocol, port)| Block::one(protocol, port))
            .collect()
    }

    /// What programs find for a peer.
    fn find(&self, direction: u8, peer: u32, at: Block) -> Option<&(Rule, PolicyEntry)> {
        let mut rules = [peer, aggregate_of(peer)]
            .into_iter()
            .flat_map(|peer| at.around().map(move |block| Rule::of_block(direction, peer, block)));
        let found = rules.find_map(|rule| {
            let place = self.rules.binary_search_by(|(found, _)| found.cmp(&rule)).ok()?;
            self.rules.get(place)
        });
        found.filter(|(_, entry)| entry.verdict != POLICY_NONE)
    }
}

/// What is told of a policy that is closed for this.
pub(crate) fn message(displaced: &BTreeSet<Displaced>) -> String {
    let seen: BTreeSet<u32> = displaced.iter().map(|it| it.seen).collect();
    let seen: Vec<String> = seen.iter().map(u32::to_string).collect();
    format!(
        "it is closed to identities it would be too open to (of {}): the ipcache has not all entries that tell others from them",
        seen.join(", ")
    )
}
