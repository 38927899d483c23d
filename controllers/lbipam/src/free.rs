//! Free addresses of a range, as blocks without gaps.

use std::collections::{BTreeMap, BTreeSet};

/// Free numbers. Depends on which are free only, not on the order in which they were taken and given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    /// First → last.
    blocks: BTreeMap<u128, u128>,
    /// The same by size (last − first) and first.
    sizes: BTreeSet<(u128, u128)>,
}

impl Free {
    /// All from `first` to `last`.
    pub(crate) fn new(first: u128, last: u128) -> Self {
        let mut free = Self::default();
        free.insert(first, last);
        free
    }

    /// The first number of the smallest block; of blocks of one size, the lowest. Large blocks so stay whole.
    pub(crate) fn next(&self) -> Option<u128> {
        self.sizes.first().map(|(_, first)| *first)
    }

    /// Whether a number is free.
    pub(crate) fn has(&self, number: u128) -> bool {
        self.blocks.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Takes a number, if it is free.
    pub(crate) fn take(&mut self, number: u128) {
        let Some((&first, &last)) = self.blocks.range(..=number).next_back() else { return };
        if last < number {
            return;
        }
        self.remove(first, last);
        if first < number {
            self.insert(first, number - 1);
        }
        if number < last {
            self.insert(number + 1, last);
        }
    }

    /// Gives a number back, if it is taken.
    pub(crate) fn give(&mut self, number: u128) {
        let (mut first, mut last) = (number, number);
        if let Some((&start, &end)) = self.blocks.range(..=number).next_back() {
            if end >= number {
                return;
            }
            if end + 1 == number {
                self.remove(start, end);
                first = start;
            }
        }
        if let Some(next) = number.checked_add(1)
            && let Some(&end) = self.blocks.get(&next)
        {
            self.remove(next, end);
            last = end;
        }
        self.insert(first, last);
    }

    fn insert(&mut self, first: u128, last: u128) {
        self.blocks.insert(first, last);
        self.sizes.insert((last - first, first));
    }

    fn remove(&mut self, first: u128, last: u128) {
        self.blocks.remove(&first);
        self.sizes.remove(&(last - first, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(free: &Free) -> Vec<(u128, u128)> {
        free.blocks.iter().map(|(first, last)| (*first, *last)).collect()
    }

    #[test]
    fn the_smallest_block_is_used_up_first() {
        let mut free = Free::new(10, 19);
        [12, 15, 16].into_iter().for_each(|number| free.take(number));
        assert_eq!(blocks(&free), [(10, 11), (13, 14), (17, 19)]);
        let order: Vec<u128> = std::iter::from_fn(|| {
            let next = free.next()?;
            free.take(next);
            Some(next)
        })
        .collect();
        assert_eq!(order, [10, 11, 13, 14, 17, 18, 19]);
    }

    #[test]
    fn blocks_grow_together_again() {
        let mut free = Free::new(0, 9);
        [0, 4, 5, 9].into_iter().for_each(|number| free.take(number));
        free.take(4);
        assert_eq!(blocks(&free), [(1, 3), (6, 8)]);
        [4, 9, 0, 5, 5].into_iter().for_each(|number| free.give(number));
        assert_eq!(free, Free::new(0, 9));
    }

    #[test]
    fn the_ends_of_all_numbers_are_ordinary() {
        let mut free = Free::new(0, u128::MAX);
        free.take(u128::MAX);
        free.take(0);
        assert_eq!(blocks(&free), [(1, u128::MAX - 1)]);
        free.give(u128::MAX);
        free.give(0);
        assert_eq!(free, Free::new(0, u128::MAX));
    }
}
