//! All pools: who may have which address, and which pools stand in each other's way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_core::Labels;

use crate::block::{Block, Family, Range, bits, merge};
use crate::failure::Failure;
use crate::free::Free;
use crate::pool::Pool;

/// A pool's place in the order of all: by age, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolRank {
    created: i64,
    pub(crate) name: String,
}

/// A range of a pool that has addresses in common with one of another pool, or of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) own: Range,
    pub(crate) other: Range,
    /// Name of the other pool.
    pub(crate) pool: String,
}

/// A pool, and what follows from all of them.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) pool: Pool,
    /// It conflicts with itself or with an older pool, and gives nothing.
    pub(crate) conflict: Option<Overlap>,
    /// A newer pool conflicts with it.
    pub(crate) overlapped: Option<Overlap>,
    /// Its addresses, each in one range.
    extent: Vec<Range>,
    /// Ends of prefixes that are not given.
    spared: BTreeSet<IpAddr>,
    /// Free addresses of each block.
    free: Vec<Free>,
    /// Addresses that another range has, too.
    pub(crate) shared: u128,
    /// Addresses that somebody has, or that are spared.
    pub(crate) used: u128,
}

/// What pools say of a requested address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Some pool would give it.
    Given,
    /// It is at an end that is not given.
    Spared,
}

/// All pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    all: BTreeMap<PoolRank, Known>,
    ranks: BTreeMap<String, PoolRank>,
    /// Pools of which another number of addresses is in use.
    recounted: BTreeSet<String>,
}

impl Known {
    fn new(pool: Pool) -> Self {
        let extent = merge(pool.blocks.iter().map(|block| block.range).collect());
        let (conflict, overlapped, free) = (None, None, Vec::new());
        let mut known =
            Self { pool, conflict, overlapped, extent, spared: BTreeSet::new(), free, shared: 0, used: 0 };
        known.clear();
        known
    }

    /// Nobody has any address.
    fn clear(&mut self) {
        let spared = self.pool.blocks.iter().filter(|block| block.spares_ends);
        self.spared = spared.flat_map(|it| it.ends().map(|end| it.range.family.address(end))).collect();
        self.free = self.pool.blocks.iter().map(free).collect();
        self.used = self.spared.len() as u128;
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.extent.iter().any(|range| range.contains(address))
    }

    /// It gives addresses to Services.
    fn is_open(&self) -> bool {
        !self.pool.is_disabled && self.conflict.is_none()
    }

    pub(crate) fn total(&self) -> u128 {
        count(&self.extent)
    }

    /// Addresses that it may still give.
    pub(crate) fn available(&self) -> u128 {
        self.total().saturating_sub(self.used)
    }
}

fn free(block: &Block) -> Free {
    let mut free = Free::new(block.range.first, block.range.last);
    if block.spares_ends {
        block.ends().into_iter().for_each(|end| free.take(end));
    }
    free
}

fn count(ranges: &[Range]) -> u128 {
    ranges.iter().fold(0, |sum: u128, range| sum.saturating_add(range.count()))
}

impl Pools {
    /// Says whether anything changed; then [`Pools::resolve`] is due, and all addresses have to be taken again.
    pub(crate) fn set(&mut self, name: &str, pool: Option<Pool>) -> bool {
        let known = self.ranks.get(name);
        if known.and_then(|rank| self.all.get(rank)).map(|known| &known.pool) == pool.as_ref() {
            return false;
        }
        if let Some(rank) = self.ranks.remove(name) {
            self.all.remove(&rank);
        }
        if let Some(pool) = pool {
            let rank = PoolRank { created: pool.created, name: name.to_owned() };
            self.ranks.insert(name.to_owned(), rank.clone());
            self.all.insert(rank, Known::new(pool));
        }
        true
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Known> {
        self.all.get(self.ranks.get(name)?)
    }

    /// With their names, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.all.iter().map(|(rank, known)| (rank.name.as_str(), known))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Finds conflicts, and forgets who has what.
    pub(crate) fn resolve(&mut self) {
        let extents: Vec<(PoolRank, Vec<Range>)> =
            self.all.iter().map(|(rank, known)| (rank.clone(), known.extent.clone())).collect();
        let blocks: Vec<(PoolRank, Vec<Block>)> =
            self.all.iter().map(|(rank, known)| (rank.clone(), known.pool.blocks.clone())).collect();
        for (rank, known) in &mut self.all {
            let (older, newer): (Vec<_>, Vec<_>) =
                blocks.iter().filter(|(other, _)| other != rank).partition(|(other, _)| other < rank);
            let own = &known.pool.blocks;
            known.conflict = within(own, &rank.name).or_else(|| first_overlap(own, &older));
            known.overlapped = first_overlap(own, &newer);
            let others = extents.iter().filter(|(other, _)| other != rank).flat_map(|(_, extent)| extent);
            known.shared = shared(own, &known.extent, others);
            known.clear();
            self.recounted.insert(rank.name.clone());
        }
    }

    /// Whether a Service that has the address may keep it. A slip in a pool takes nothing away: the address may be of a block that cannot
    /// be read.
    pub(crate) fn leaves(&self, address: IpAddr, labels: &Labels) -> bool {
        let may_have = |known: &Known| known.contains(address) || known.pool.is_partial;
        self.all.values().any(|known| may_have(known) && known.pool.leaves(labels))
    }

    /// Whether a Service may get just this address, if nobody has it.
    pub(crate) fn offer(&self, address: IpAddr, labels: &Labels) -> Result<Offer, Failure> {
        let mut found = Err(Failure::NoPool(Some(address)));
        for known in self.all.values().filter(|known| known.is_open() && known.contains(address)) {
            if !known.pool.selects(labels) {
                found = found.or(Err(Failure::SelectorMismatch(address)));
            } else if known.pool.blocks.iter().any(|block| block.spares(address)) {
                found = Ok(Offer::Spared);
            } else {
                return Ok(Offer::Given);
            }
        }
        found
    }

    /// A free address of a family for a Service: of the oldest pool that has one, in the order of its blocks.
    pub(crate) fn next(&self, family: Family, labels: &Labels) -> Result<IpAddr, Failure> {
        let mut failure = Failure::NoPool(None);
        for known in self.all.values().filter(|known| known.is_open()) {
            let blocks = known.pool.blocks.iter().zip(&known.free);
            let mut of_family = blocks.filter(|(block, _)| block.range.family == family).peekable();
            if of_family.peek().is_none() || !known.pool.selects(labels) {
                continue;
            }
            if let Some(number) = of_family.find_map(|(_, free)| free.next()) {
                return Ok(family.address(number));
            }
            failure = Failure::OutOfAddresses;
        }
        Err(failure)
    }

    /// Somebody has the address now.
    pub(crate) fn take(&mut self, address: IpAddr) {
        self.count(address, Free::take, |used| used + 1);
    }

    /// Nobody has it any more.
    pub(crate) fn give(&mut self, address: IpAddr) {
        self.count(address, Free::give, |used| used - 1);
    }

    fn count(&mut self, address: IpAddr, mark: fn(&mut Free, u128), count: fn(u128) -> u128) {
        for (rank, known) in self.all.iter_mut().filter(|(_, known)| known.contains(address)) {
            if known.spared.contains(&address) {
                continue;
            }
            known.used = count(known.used);
            if !self.recounted.contains(&rank.name) {
                self.recounted.insert(rank.name.clone());
            }
            for (block, free) in known.pool.blocks.iter().zip(&mut known.free) {
                if block.range.contains(address) {
                    mark(free, bits(address));
                }
            }
        }
    }

    /// Whether some pool would give the address.
    pub(crate) fn is_free(&self, address: IpAddr) -> bool {
        self.all.values().any(|known| {
            let mut blocks = known.pool.blocks.iter().zip(&known.free);
            blocks.any(|(block, free)| block.range.contains(address) && free.has(bits(address)))
        })
    }

    /// Pools whose numbers may have changed since the last call.
    pub(crate) fn take_recounted(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.recounted)
    }
}

/// The first two blocks of a pool that overlap.
fn within(own: &[Block], name: &str) -> Option<Overlap> {
    own.iter().enumerate().find_map(|(index, first)| {
        let meets = |other: &&Block| first.range.meet(&other.range).is_some();
        let other = own[index + 1..].iter().find(meets)?;
        Some(Overlap { own: first.range, other: other.range, pool: name.to_owned() })
    })
}

/// The first block of the first other pool that overlaps one of these.
fn first_overlap(own: &[Block], others: &[&(PoolRank, Vec<Block>)]) -> Option<Overlap> {
    others.iter().find_map(|(rank, blocks)| {
        own.iter().find_map(|block| {
            let other = blocks.iter().find(|other| block.range.meet(&other.range).is_some())?;
            Some(Overlap { own: block.range, other: other.range, pool: rank.name.clone() })
        })
    })
}

/// How many addresses of a pool are in another range, too.
fn shared<'a>(own: &[Block], extent: &[Range], others: impl Iterator<Item = &'a Range>) -> u128 {
    let mut common: Vec<Range> = Vec::new();
    for (index, block) in own.iter().enumerate() {
        common.extend(own[index + 1..].iter().filter_map(|other| block.range.meet(&other.range)));
    }
    for other in others {
        common.extend(extent.iter().filter_map(|range| range.meet(other)));
    }
    count(&merge(common))
}
