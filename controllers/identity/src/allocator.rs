//! The allocator.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cilium_core::Labels;
use cilium_core::reserved::{FIRST_ALLOCATED, LAST_ALLOCATED};

use crate::garbage::{Action, Candidate, MAX_DELETIONS};
use crate::object::Stored;

/// Knows every numeric identity of the cluster, its labels and how many endpoints use it.
///
/// # Guarantees
/// - A number never means two label sets while one of them is in use or its object exists.
/// - Of several numbers with one label set the lowest is given out, unless the asker had another of them before.
/// - A new number is the next free one after the highest that was ever seen, and wraps: a number that was freed is given
///   out again late, when no node remembers it.
///
/// # Assumptions
/// One writer: the caller creates the object of an [`Allocation`] with `is_new`, and nobody else creates any.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    numbers: BTreeMap<u32, Entry>,
    /// Numbers that may be given out, by labels. Never an empty set.
    by_labels: HashMap<Labels, BTreeSet<u32>>,
    /// New numbers are looked for after this one; 0 before the first.
    last: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    labels: Labels,
    references: usize,
    /// The object is marked as without users.
    marked: bool,
    /// The object's deletion was asked for: the number is neither given out nor free.
    deleting: bool,
    last_sign_of_life: i64,
}

/// A number for a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The number, 256–65535.
    pub number: u32,
    /// The number was not known before: its object must be created.
    pub is_new: bool,
}

/// What follows from an object that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Nothing.
    Fine,
    /// Somebody changed the labels of a number that endpoints use. Our labels stay: write the object again.
    Rewrite,
    /// The number is outside 256–65535; it is neither given out nor collected.
    OutOfRange,
}

/// Several numbers for one label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The labels.
    pub labels: Labels,
    /// The number that is given out.
    pub kept: u32,
    /// The others, which go when nobody uses them any more.
    pub others: Vec<u32>,
}

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// All numbers are taken.
    #[error(
        "no identity number is left for [{}]: {FIRST_ALLOCATED}-{LAST_ALLOCATED} are all taken; \
         let fewer labels count for identities (option labels)",
        labels.to_strings().join(" ")
    )]
    Exhausted {
        /// The label set that gets no number.
        labels: Labels,
    },
}

impl Allocator {
    /// An allocator that knows no identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of an object, seen for the first time or again.
    pub fn observe(&mut self, number: u32, stored: &Stored, now: i64) -> Observed {
        if !(FIRST_ALLOCATED..=LAST_ALLOCATED).contains(&number) {
            return Observed::OutOfRange;
        }
        self.last = self.last.max(number);
        match self.numbers.get_mut(&number) {
            None => self.insert(number, &stored.labels, stored.marked, now),
            Some(entry) if entry.references > 0 && entry.labels != stored.labels => {
                entry.marked = stored.marked;
                return Observed::Rewrite;
            }
            Some(_) => self.update(number, stored, now),
        }
        Observed::Fine
    }

    /// Takes note that the object is gone. Returns whether endpoints still use the number: then create it again.
    pub fn forget(&mut self, number: u32) -> bool {
        match self.numbers.get_mut(&number) {
            Some(entry) if entry.references > 0 => {
                entry.marked = false;
                true
            }
            _ => {
                self.remove(number);
                false
            }
        }
    }

    /// A number for the labels, with one more reference. `before` is the number that the asker has had so far.
    ///
    /// After a restart `before` keeps endpoints on their number even if there is a duplicate, or if the object was lost.
    ///
    /// # Errors
    /// [`Error::Exhausted`]
    pub fn acquire(&mut self, labels: &Labels, before: Option<u32>, now: i64) -> Result<Allocation, Error> {
        let known = self.by_labels.get(labels).and_then(|numbers| {
            before.filter(|before| numbers.contains(before)).or_else(|| numbers.first().copied())
        });
        let allocation = match known {
            Some(number) => Allocation { number, is_new: false },
            None => Allocation { number: self.add(labels, before, now)?, is_new: true },
        };
        if let Some(entry) = self.numbers.get_mut(&allocation.number) {
            entry.references += 1;
            entry.last_sign_of_life = now;
        }
        Ok(allocation)
    }

    /// Gives one reference back.
    pub fn release(&mut self, number: u32, now: i64) {
        if let Some(entry) = self.numbers.get_mut(&number) {
            entry.references = entry.references.saturating_sub(1);
            entry.last_sign_of_life = now;
        }
    }

    /// What garbage collection has to do now; one pass. At most [`MAX_DELETIONS`] deletions.
    ///
    /// A number whose deletion is asked for here is not given out again until [`Allocator::forget`] (then it is free) or
    /// [`Allocator::observe`] (the deletion failed, it lives on). Marks count only once they were observed.
    pub fn sweep(&mut self, now: i64) -> Vec<(u32, Action)> {
        let actions = self
            .numbers
            .iter()
            .filter(|(_, entry)| !entry.deleting)
            .filter_map(|(number, entry)| entry.candidate().decide(now).map(|action| (*number, action)));
        let mut deletions = 0;
        let actions: Vec<_> = actions
            .filter(|(_, action)| {
                deletions += usize::from(*action == Action::Delete);
                *action != Action::Delete || deletions <= MAX_DELETIONS
            })
            .collect();
        for (number, _) in actions.iter().filter(|(_, action)| *action == Action::Delete) {
            self.start_deletion(*number);
        }
        actions
    }

    /// Labels of a number.
    pub fn labels(&self, number: u32) -> Option<&Labels> {
        self.numbers.get(&number).map(|entry| &entry.labels)
    }

    /// Numbers with references and their labels, in order.
    pub fn in_use(&self) -> impl Iterator<Item = (u32, &Labels)> {
        self.numbers
            .iter()
            .filter(|(_, entry)| entry.references > 0)
            .map(|(number, entry)| (*number, &entry.labels))
    }

    /// Label sets with several numbers, in the order of the number that is kept.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        let several = self.by_labels.iter().filter(|(_, numbers)| numbers.len() > 1);
        let mut found: Vec<Duplicate> = several
            .filter_map(|(labels, numbers)| {
                let kept = *numbers.first()?;
                Some(Duplicate {
                    labels: labels.clone(),
                    kept,
                    others: numbers.iter().skip(1).copied().collect(),
                })
            })
            .collect();
        found.sort_by_key(|duplicate| duplicate.kept);
        found
    }

    fn add(&mut self, labels: &Labels, before: Option<u32>, now: i64) -> Result<u32, Error> {
        let in_range = |number: &u32| (FIRST_ALLOCATED..=LAST_ALLOCATED).contains(number);
        let is_free = |number: &u32| !self.numbers.contains_key(number);
        let after = self.last.saturating_add(1).max(FIRST_ALLOCATED);
        let number = before
            .filter(|number| in_range(number) && is_free(number))
            .or_else(|| {
                (after..=LAST_ALLOCATED).chain(FIRST_ALLOCATED..after).find(|n| in_range(n) && is_free(n))
            })
            .ok_or_else(|| Error::Exhausted { labels: labels.clone() })?;
        // A number that was kept from before says nothing about where the next new one should come from.
        self.last = if before == Some(number) { self.last.max(number) } else { number };
        self.insert(number, labels, false, now);
        Ok(number)
    }

    fn insert(&mut self, number: u32, labels: &Labels, marked: bool, now: i64) {
        let entry =
            Entry { labels: labels.clone(), references: 0, marked, deleting: false, last_sign_of_life: now };
        self.numbers.insert(number, entry);
        self.by_labels.entry(labels.clone()).or_default().insert(number);
    }

    fn update(&mut self, number: u32, stored: &Stored, now: i64) {
        let Some(entry) = self.numbers.get_mut(&number) else { return };
        let changed = entry.labels != stored.labels || entry.marked != stored.marked;
        if !changed && !entry.deleting {
            return;
        }
        // Writing an object is a sign of life, marking it is not.
        let alive = if stored.marked { entry.last_sign_of_life } else { now };
        let references = entry.references;
        self.remove(number);
        self.insert(number, &stored.labels, stored.marked, alive);
        if let Some(entry) = self.numbers.get_mut(&number) {
            entry.references = references;
        }
    }

    fn remove(&mut self, number: u32) {
        self.hide(number);
        self.numbers.remove(&number);
    }

    fn start_deletion(&mut self, number: u32) {
        self.hide(number);
        if let Some(entry) = self.numbers.get_mut(&number) {
            entry.deleting = true;
        }
    }

    /// The number is not given out any more.
    fn hide(&mut self, number: u32) {
        let Some(entry) = self.numbers.get(&number) else { return };
        if let Some(numbers) = self.by_labels.get_mut(&entry.labels) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_labels.remove(&entry.labels);
            }
        }
    }
}

impl Entry {
    fn candidate(&self) -> Candidate {
        Candidate {
            in_use: self.references > 0,
            marked: self.marked,
            last_sign_of_life: self.last_sign_of_life,
        }
    }
}
