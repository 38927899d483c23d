//! Tables by which equal connections come to the same backend on every node, and few move when a backend comes or goes: Maglev hashing
//! (D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! # Guarantees
//! - Backends have equal numbers of entries, but for one more or less.
//! - A table depends on its size, the seed and which backends there are, and not on their order: entries lead to the same backends on
//!   every node. Only the index by which a backend is named follows the order.

use std::sync::Arc;

use cilium_bpf::layout::{BackendEntry, MAGLEV_CHUNK, MAGLEV_NONE, MaglevChunk};
use cilium_core::hash::mix;

/// Sizes that a table may have: primes, so that every step leads through all of its entries.
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// Size when nobody says.
pub const DEFAULT_SIZE: u32 = 16_381;

/// How a table is filled. Equal on all nodes, so that they agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// Entries of a table: one of [`SIZES`].
    pub size: u32,
    /// Makes the tables of one cluster differ from those of another.
    pub seed: u32,
}

impl Default for Maglev {
    fn default() -> Self {
        Self { size: DEFAULT_SIZE, seed: 0 }
    }
}

/// The order in which a backend wants the entries: from an offset on, in equal steps, around the table.
struct Wish {
    backend: u16,
    next: usize,
    step: usize,
}

impl Maglev {
    /// For each entry the index of its backend. `None` where there is nothing to choose, or where backends would go without an entry.
    pub fn fill(self, backends: &[BackendEntry]) -> Option<Arc<[u16]>> {
        let size = usize::try_from(self.size).ok()?;
        if !(2..=size.min(MAGLEV_NONE.into())).contains(&backends.len()) {
            return None;
        }
        let mut wishes = self.wishes(backends, size);
        let mut table = vec![MAGLEV_NONE; size];
        let mut left = size;
        for turn in (0..wishes.len()).cycle() {
            if left == 0 {
                break;
            }
            take_next(&mut table, &mut wishes[turn]);
            left -= 1;
        }
        Some(table.into())
    }

    /// In an order of turns that all nodes have.
    fn wishes(self, backends: &[BackendEntry], size: usize) -> Vec<Wish> {
        let mut turns: Vec<(u16, &BackendEntry)> = (0..).zip(backends).collect();
        turns.sort_unstable_by_key(|(_, entry)| **entry);
        let bounded = |hash: u64, bound: usize| (hash % (bound as u64)) as usize;
        let wish = |(backend, entry): (u16, &BackendEntry)| Wish {
            backend,
            next: bounded(self.hash(entry, 1), size),
            step: bounded(self.hash(entry, 2), size - 1) + 1,
        };
        turns.into_iter().map(wish).collect()
    }

    /// A number for a backend; `which` tells several of one backend apart.
    fn hash(self, entry: &BackendEntry, which: u64) -> u64 {
        let address = u128::from_be_bytes(entry.address.0);
        let words = [
            (address >> 64) as u64,
            address as u64,
            u64::from(entry.port.0),
            u64::from(self.seed) << 2 | which,
        ];
        words.into_iter().fold(0, |hash, word| mix(hash ^ word))
    }
}

/// Gives a backend the first entry of its order that is still free. There is one.
fn take_next(table: &mut [u16], wish: &mut Wish) {
    loop {
        let at = wish.next;
        let next = at + wish.step;
        wish.next = if next < table.len() { next } else { next - table.len() };
        if table[at] == MAGLEV_NONE {
            table[at] = wish.backend;
            return;
        }
    }
}

/// A table as the map has it, in pieces from the first on; what is behind its end is [`MAGLEV_NONE`].
pub(crate) fn chunks(table: &[u16]) -> impl ExactSizeIterator<Item = MaglevChunk> {
    table.chunks(MAGLEV_CHUNK).map(|entries| {
        let mut chunk = MaglevChunk::default();
        chunk.backends.0[..entries.len()].copy_from_slice(entries);
        chunk
    })
}

/// The table that was cut into these pieces.
pub(crate) fn join<'a>(chunks: impl Iterator<Item = &'a MaglevChunk>) -> Arc<[u16]> {
    let mut table: Vec<u16> = chunks.flat_map(|chunk| chunk.backends.0).collect();
    while table.last() == Some(&MAGLEV_NONE) {
        table.pop();
    }
    table.into()
}
