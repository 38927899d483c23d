//! Compiled policies as the maps hold them: an entry for each peer, with the rules about it inside as far as they fit.

use std::collections::HashMap;

use cilium_bpf::layout::{POLICY_RULES, PolicyEntry, PolicyPeer, PolicyRules, Slot};

use crate::compile::{AddressBlock, Compiled, Rule};
use crate::kernel::{Piece, PieceKey};

type Entry = (Rule, PolicyEntry);

impl Compiled {
    /// Everything that stands under a generation, each piece with a key of its own.
    pub fn pieces(&self, generation: u32) -> Vec<(PieceKey, Piece)> {
        let mut pieces = Vec::new();
        for rules in self.peers() {
            let keyed: Vec<_> = rules.iter().map(|(rule, entry)| (rule.key(generation), *entry)).collect();
            let Some((first, _)) = keyed.first() else { continue };
            pieces.push((PieceKey::Peer(PolicyPeer::of(first)), Piece::Peer(pack(rules))));
            if !fit(rules) {
                pieces.extend(keyed.iter().map(|(key, entry)| (PieceKey::Port(*key), Piece::Port(*entry))));
            }
        }
        let blocks = self.blocks.iter();
        pieces.extend(
            blocks.map(|(block, entry)| (PieceKey::Block(block.key(generation)), Piece::Block(*entry))),
        );
        pieces
    }

    /// The piece with this key, whatever its generation.
    pub(crate) fn piece(&self, key: &PieceKey) -> Option<Piece> {
        match key {
            PieceKey::Peer(peer) => {
                let rules = self.rules_about(*peer);
                (!rules.is_empty()).then(|| Piece::Peer(pack(rules)))
            }
            PieceKey::Port(key) => {
                let rules = self.rules_about(PolicyPeer::of(key));
                let at = rules.binary_search_by_key(&Rule::of(key), |(rule, _)| *rule).ok()?;
                (!fit(rules)).then(|| Piece::Port(rules[at].1))
            }
            PieceKey::Block(key) => {
                let wanted = AddressBlock::of(key)?;
                let at = self.blocks.binary_search_by_key(&wanted, |(block, _)| *block).ok()?;
                Some(Piece::Block(self.blocks[at].1))
            }
        }
    }

    pub(crate) fn piece_count(&self) -> usize {
        let of_peer = |rules: &[Entry]| if fit(rules) { 1 } else { 1 + rules.len() };
        self.peers().map(of_peer).sum::<usize>() + self.blocks.len()
    }

    /// What was read under the generation of a slot; `None` for what is not what a policy makes.
    pub(crate) fn of_pieces(slot: &Slot, pieces: &[(PieceKey, Piece)]) -> Option<Self> {
        let (mut rules, mut blocks) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece {
                (PieceKey::Peer(peer), Piece::Peer(said)) => {
                    rules.extend(said.unpack(*peer).map(|(key, entry)| (Rule::of(&key), entry)));
                }
                (PieceKey::Port(key), Piece::Port(entry)) => rules.push((Rule::of(key), *entry)),
                (PieceKey::Block(key), Piece::Block(entry)) => blocks.push((AddressBlock::of(key)?, *entry)),
                _ => return None,
            }
        }
        rules.sort_unstable_by_key(|(rule, _)| *rule);
        blocks.sort_unstable_by_key(|(block, _)| *block);
        let (ingress, egress) = (slot.ingress_enforced, slot.egress_enforced);
        let content = Self { ingress, egress, rules, blocks };
        let found: HashMap<_, _> = pieces.iter().copied().collect();
        let made: HashMap<_, _> = content.pieces(slot.generation).into_iter().collect();
        (found == made).then_some(content)
    }

    /// The rules about each peer; they stand beside each other.
    fn peers(&self) -> impl Iterator<Item = &[Entry]> {
        self.rules.chunk_by(|(one, _), (other, _)| (one.direction, one.peer) == (other.direction, other.peer))
    }

    fn rules_about(&self, peer: PolicyPeer) -> &[Entry] {
        let of = |(rule, _): &Entry| (u32::from(rule.direction), rule.peer);
        let wanted = (peer.direction, peer.peer);
        let first = self.rules.partition_point(|entry| of(entry) < wanted);
        let end = self.rules.partition_point(|entry| of(entry) <= wanted);
        &self.rules[first..end]
    }
}

fn fit(rules: &[Entry]) -> bool {
    rules.len() <= POLICY_RULES
}

/// What is said of a peer; its number and generation do not matter.
fn pack(rules: &[Entry]) -> PolicyRules {
    let keyed: Vec<_> = rules.iter().map(|(rule, entry)| (rule.key(0), entry)).collect();
    PolicyRules::pack(keyed.iter().map(|(key, entry)| (key, *entry))).unwrap_or_else(PolicyRules::in_ports)
}
