//! What a direction of a policy decides, written so that a look-up of the longest entry finds it.
//!
//! A direction is asked level by level, and the first that has an entry about the traffic decides. The kernel does not know levels: it takes
//! the longest entry of the peer, and asks for the peer's aggregate only without one. So every entry here holds the first decision for
//! its traffic, whatever level it is of, and of the aggregate's entries those are repeated that an entry of the peer's own would hide.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Action, Direction, DnsRule, Entry, FIRST_BLOCK, Step};
use cilium_bpf::layout::{AGGREGATES, POLICY_ALLOW, POLICY_DENY, POLICY_NONE, POLICY_PROXY, aggregate_of};

use crate::block::{Block, InvalidRange};

/// Peer of entries that hold for every peer.
const ANY_PEER: u32 = 0;

/// Indexes of the policies behind an entry.
pub(crate) type Origins = BTreeSet<u16>;

/// A direction with what is said about questions.
pub(crate) struct Content<'a> {
    pub(crate) direction: &'a Direction,
    pub(crate) dns: &'a [DnsRule],
    pub(crate) heard: &'a [Entry],
}

/// What an entry does that says something about traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
    Proxy,
    /// Goes on with this level.
    Pass(u32),
    /// What passes goes to the proxy.
    Hear,
}

/// What entries of one level and block do, and the policies that say so.
#[derive(Debug)]
struct Said {
    level: u32,
    effect: Effect,
    origins: Origins,
}

/// What is said of one peer, in the order of levels.
type Blocks = BTreeMap<Block, Vec<Said>>;

/// What is decided: by which level (none: by none), to do what, and the policies that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    level: Option<u32>,
    verdict: u8,
    origins: Origins,
}

/// Entries with their verdicts, and the policies that say so.
pub(crate) type Decisions = BTreeMap<(u32, Block), (u8, Origins)>;

/// Settles what a direction decides.
///
/// # Errors
/// [`InvalidRange`].
pub(crate) fn decide(content: &Content<'_>) -> Result<Decisions, InvalidRange> {
    let all = Levels::of(content)?;
    let mut decisions = Decisions::new();
    // Where nothing is dropped or goes to the proxy, the kernel does not ask.
    if content.direction.is_restricted() || !content.dns.is_empty() || !content.heard.is_empty() {
        let of_any = all.0.contains_key(&ANY_PEER);
        let aggregates = AGGREGATES.into_iter().filter(|_| of_any);
        let peers: BTreeSet<u32> = all.0.keys().copied().chain(aggregates).collect();
        for peer in peers {
            all.add_decisions(&mut decisions, peer);
        }
    }
    Ok(decisions)
}

/// What is said, by peers.
#[derive(Default)]
struct Levels(BTreeMap<u32, Blocks>);

impl Levels {
    fn of(content: &Content<'_>) -> Result<Self, InvalidRange> {
        let Content { direction, dns, heard } = content;
        let mut all = Self::default();
        let between = all.add_steps(0, &direction.admin)?;
        all.add(between, Effect::Deny, &direction.deny)?;
        let dns: Vec<Entry> = dns.iter().map(DnsRule::entry).collect();
        // Both allow; what goes to the proxy goes there whatever else allows it.
        all.add(between + 1, Effect::Proxy, &dns)?;
        all.add(between + 1, Effect::Allow, &direction.allow)?;
        let end = all.add_steps(between + 2, &direction.baseline)?;
        if !direction.enforced {
            let everything = Entry { peer: ANY_PEER, protocol: 0, first: 0, last: 0, origins: Vec::new() };
            all.add(end, Effect::Allow, &[everything])?;
        }
        all.add(end + 1, Effect::Hear, heard)?;
        Ok(all)
    }

    /// Adds a level for each step, from `first` on. Returns the one behind.
    fn add_steps(&mut self, first: u32, steps: &[Step]) -> Result<u32, InvalidRange> {
        let end = (first..).nth(steps.len()).unwrap_or(u32::MAX);
        for (level, step) in (first..).zip(steps) {
            let effect = match step.action {
                Action::Accept => Effect::Allow,
                Action::Deny => Effect::Deny,
                Action::Pass => Effect::Pass(end),
            };
            self.add(level, effect, &step.entries)?;
        }
        Ok(end)
    }

    fn add(&mut self, level: u32, effect: Effect, entries: &[Entry]) -> Result<(), InvalidRange> {
        for entry in entries {
            let blocks = self.0.entry(entry.peer).or_default();
            for block in Block::of(entry)? {
                let said = blocks.entry(block).or_default();
                if let Some(last) = said.last_mut().filter(|it| (it.level, it.effect) == (level, effect)) {
                    last.origins.extend(&entry.origins);
                } else {
                    let origins = entry.origins.iter().copied().collect();
                    said.push(Said { level, effect, origins });
                }
            }
        }
        Ok(())
    }

    /// What is said of a peer: of itself first, then of what it is one of. A block of addresses is only asked for itself.
    fn about(&self, peer: u32) -> Vec<&Blocks> {
        let mut peers = vec![peer];
        if peer < FIRST_BLOCK {
            peers.extend(wider(peer));
            peers.extend((peer != ANY_PEER).then_some(ANY_PEER));
            peers.dedup();
        }
        peers.iter().filter_map(|peer| self.0.get(peer)).collect()
    }

    /// Writes down what is decided about a peer, as far as a look-up does not come to it without.
    fn add_decisions(&self, decisions: &mut Decisions, peer: u32) {
        let none = Blocks::new();
        let own = self.0.get(&peer).unwrap_or(&none);
        let aggregate = wider(peer);
        let mut blocks: BTreeSet<Block> = own.keys().copied().collect();
        for wider in self.about(peer).into_iter().skip(usize::from(!own.is_empty())) {
            // After an aggregate, nobody is asked. After a peer it is, except for what entries of the peer hide.
            let is_hidden = |block: &Block| block.around().any(|it| own.contains_key(&it));
            blocks.extend(wider.keys().filter(|block| aggregate.is_none() || is_hidden(block)));
        }
        let mut written: BTreeMap<Block, Decision> = BTreeMap::new();
        for block in blocks {
            let decision = self.decision(peer, block);
            let found = block.around().skip(1).find_map(|it| written.get(&it).cloned());
            let found = found.or_else(|| aggregate.map(|wider| self.decision(wider, block)));
            let found = found.unwrap_or_else(Decision::none);
            // What only others say is not repeated for their names alone.
            let is_same = (found.level, found.verdict) == (decision.level, decision.verdict);
            if !(is_same && (found.origins == decision.origins || !own.contains_key(&block))) {
                decisions.insert((peer, block), (decision.verdict, decision.origins.clone()));
                written.insert(block, decision);
            }
        }
    }

    /// The first decision about a block, but for narrower ones in it.
    fn decision(&self, peer: u32, block: Block) -> Decision {
        let about = self.about(peer);
        let said = about.iter().flat_map(|blocks| block.around().filter_map(|it| blocks.get(&it)));
        let mut said: Vec<&Said> = said.flatten().collect();
        said.sort_by_key(|said| said.level);
        let mut next = 0;
        for first in &said {
            let same = || said.iter().filter(|other| other.level == first.level);
            let verdict = match first.effect {
                _ if first.level < next => continue,
                Effect::Pass(behind) => {
                    next = behind;
                    continue;
                }
                Effect::Hear => break,
                Effect::Deny => POLICY_DENY,
                Effect::Allow | Effect::Proxy => {
                    let is_heard = said.iter().any(|said| said.effect == Effect::Hear);
                    let asked = is_heard || same().any(|said| said.effect == Effect::Proxy);
                    if asked { POLICY_PROXY } else { POLICY_ALLOW }
                }
            };
            let origins = same().flat_map(|said| &said.origins).copied().collect();
            return Decision { level: Some(first.level), verdict, origins };
        }
        Decision::none()
    }
}

/// The peer that the kernel asks for after this one.
fn wider(peer: u32) -> Option<u32> {
    let is_last = peer >= FIRST_BLOCK || peer == ANY_PEER || AGGREGATES.contains(&peer);
    (!is_last).then(|| aggregate_of(peer))
}

impl Decision {
    fn none() -> Self {
        Self { level: None, verdict: POLICY_NONE, origins: Origins::new() }
    }
}
