use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    mem,
};

use crate::Table;

/// What [`Tracker::apply`] does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// New and changed entries are there before old ones go: no gap for traffic that a new entry takes over.
    #[default]
    SetsFirst,
    /// Old entries go first: for tables in which an old entry stands in the way of a new one with another key, and for
    /// tables so small that a replacement needs the room.
    DeletesFirst,
}

/// One pending operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    /// The entry is missing or has another value.
    Set(&'a K, &'a V),
    /// The entry is not desired.
    Delete(&'a K),
}

/// What one [`Tracker::apply`] did.
#[derive(Debug)]
pub struct Report<K, E> {
    /// Entries written.
    pub set: usize,
    /// Entries removed.
    pub deleted: usize,
    /// Operations that failed, which stay pending.
    pub failures: Vec<(K, E)>,
}

impl<K, E> Report<K, E> {
    /// True when all that was pending has been done.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }
}

/// How a table differed from what the tracker believed, by number of entries.
///
/// On a tracker's first observation nothing is believed yet, so that every entry counts as `foreign`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift {
    /// Believed to be there, and gone.
    pub missing: usize,
    /// There, with another value than believed.
    pub changed: usize,
    /// There, and not believed to be.
    pub foreign: usize,
}

impl Drift {
    /// All differences together.
    pub fn total(self) -> usize {
        self.missing + self.changed + self.foreign
    }
}

/// The two sides of an entry that is not in sync; equal sides never stand here.
#[derive(Debug, Clone)]
struct Pending<V> {
    desired: Option<V>,
    actual: Option<V>,
}

/// Desired and actual entries of one [`Table`]. See the crate documentation for guarantees.
#[derive(Debug, Clone)]
pub struct Tracker<K, V> {
    /// Desired and actual are equal. A key stands here or in `pending`, never in both.
    synced: HashMap<K, V>,
    pending: HashMap<K, Pending<V>>,
    order: Order,
}

impl<K, V> Default for Tracker<K, V> {
    fn default() -> Self {
        Self { synced: HashMap::new(), pending: HashMap::new(), order: Order::default() }
    }
}

impl<K: Eq + Hash + Clone, V: PartialEq + Clone> Tracker<K, V> {
    /// A tracker that desires nothing and knows nothing of the table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Like [`Tracker::new`], with another order of operations.
    pub fn with_order(order: Order) -> Self {
        Self { order, ..Self::default() }
    }

    /// Desires an entry. Returns whether that is a change of the desired state.
    pub fn set(&mut self, key: K, value: V) -> bool {
        if self.get(&key) == Some(&value) {
            return false;
        }
        let (_, actual) = self.take(&key);
        self.put(key, Some(value), actual);
        true
    }

    /// Desires that there is no such entry. Returns whether that is a change of the desired state.
    pub fn remove(&mut self, key: &K) -> bool {
        let (desired, actual) = self.take(key);
        self.put(key.clone(), None, actual);
        desired.is_some()
    }

    /// Replaces the whole desired state. Of several entries with one key the last counts.
    pub fn replace_desired(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        let mut obsolete: HashSet<K> = self.desired().map(|(key, _)| key.clone()).collect();
        for (key, value) in entries {
            obsolete.remove(&key);
            self.set(key, value);
        }
        for key in obsolete {
            self.remove(&key);
        }
    }

    /// The desired value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.synced.get(key).or_else(|| self.pending.get(key).and_then(|entry| entry.desired.as_ref()))
    }

    /// The value that is believed to be in the table under a key.
    pub fn get_actual(&self, key: &K) -> Option<&V> {
        self.synced.get(key).or_else(|| self.pending.get(key).and_then(|entry| entry.actual.as_ref()))
    }

    /// All desired entries, in no particular order.
    pub fn desired(&self) -> impl Iterator<Item = (&K, &V)> {
        let waiting = self.pending.iter().filter_map(|(key, entry)| Some((key, entry.desired.as_ref()?)));
        self.synced.iter().chain(waiting)
    }

    /// All entries that are believed to be in the table, in no particular order.
    pub fn actual(&self) -> impl Iterator<Item = (&K, &V)> {
        let stale = self.pending.iter().filter_map(|(key, entry)| Some((key, entry.actual.as_ref()?)));
        self.synced.iter().chain(stale)
    }

    /// What the next [`Tracker::apply`] is going to do, in no particular order.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = Change<'_, K, V>> {
        self.pending.iter().map(|(key, entry)| match &entry.desired {
            Some(value) => Change::Set(key, value),
            None => Change::Delete(key),
        })
    }

    /// True when nothing is pending.
    pub fn is_synced(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes over what the table really holds, and reports how that differs from what was believed.
    pub fn observe(&mut self, actual: impl IntoIterator<Item = (K, V)>) -> Drift {
        let actual: HashMap<K, V> = actual.into_iter().collect();
        let mut drift = Drift::default();
        let vanished: Vec<K> =
            self.actual().filter(|(key, _)| !actual.contains_key(key)).map(|(key, _)| key.clone()).collect();
        drift.missing = vanished.len();
        for key in vanished {
            let (desired, _) = self.take(&key);
            self.put(key, desired, None);
        }
        for (key, value) in actual {
            self.observe_one(key, value, &mut drift);
        }
        drift
    }

    fn observe_one(&mut self, key: K, value: V, drift: &mut Drift) {
        if self.synced.get(&key) == Some(&value) {
            return;
        }
        let (desired, believed) = self.take(&key);
        match believed {
            None => drift.foreign += 1,
            Some(believed) if believed != value => drift.changed += 1,
            Some(_) => {}
        }
        self.put(key, desired, Some(value));
    }

    /// Reads the table back; [`Tracker::observe`] on what it lists. While that is what was believed, no copy of it is made.
    ///
    /// # Errors
    /// When the table cannot be listed; the tracker is then as before.
    pub fn refresh<T: Table<K, V>>(&mut self, table: &mut T) -> Result<Drift, T::Error> {
        let (mut found, mut as_believed) = (0, true);
        table.each(&mut |key, value| {
            found += 1;
            as_believed &= self.get_actual(&key) == Some(&value);
        })?;
        if as_believed && found == self.actual().count() {
            return Ok(Drift::default());
        }
        Ok(self.observe(table.list()?))
    }

    /// Carries out what is pending. What fails stays pending and is listed in the report.
    pub fn apply<T: Table<K, V>>(&mut self, table: &mut T) -> Report<K, T::Error> {
        let mut report = Report { set: 0, deleted: 0, failures: Vec::new() };
        if self.pending.is_empty() {
            return report;
        }
        match self.order {
            Order::SetsFirst => {
                self.apply_sets(table, &mut report);
                self.apply_deletes(table, &mut report);
            }
            Order::DeletesFirst => {
                self.apply_deletes(table, &mut report);
                self.apply_sets(table, &mut report);
            }
        }
        report
    }

    fn apply_sets<T: Table<K, V>>(&mut self, table: &mut T, report: &mut Report<K, T::Error>) {
        for (key, entry) in mem::take(&mut self.pending) {
            let Some(value) = entry.desired else {
                self.pending.insert(key, entry);
                continue;
            };
            match table.set(&key, &value) {
                Ok(()) => {
                    report.set += 1;
                    self.synced.insert(key, value);
                }
                Err(error) => {
                    report.failures.push((key.clone(), error));
                    self.pending.insert(key, Pending { desired: Some(value), actual: entry.actual });
                }
            }
        }
    }

    fn apply_deletes<T: Table<K, V>>(&mut self, table: &mut T, report: &mut Report<K, T::Error>) {
        self.pending.retain(|key, entry| {
            if entry.desired.is_some() {
                return true;
            }
            match table.delete(key) {
                Ok(()) => {
                    report.deleted += 1;
                    false
                }
                Err(error) => {
                    report.failures.push((key.clone(), error));
                    true
                }
            }
        });
    }

    /// Removes a key and hands out its desired and its actual value.
    fn take(&mut self, key: &K) -> (Option<V>, Option<V>) {
        if let Some(value) = self.synced.remove(key) {
            return (Some(value.clone()), Some(value));
        }
        self.pending.remove(key).map_or((None, None), |entry| (entry.desired, entry.actual))
    }

    /// Files a key under `synced` or `pending`, or forgets it.
    fn put(&mut self, key: K, desired: Option<V>, actual: Option<V>) {
        match (desired, actual) {
            (None, None) => {}
            (Some(desired), Some(actual)) if desired == actual => {
                self.synced.insert(key, desired);
            }
            (desired, actual) => {
                self.pending.insert(key, Pending { desired, actual });
            }
        }
    }
}
