//! Random histories of changes, failures and outside edits end where the desired state is.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cilium_delta::{Change, MemoryTable, Order, Table, Tracker};
use proptest::{collection::vec, prelude::*};

/// A table whose operations on some keys fail, and which counts what is written.
#[derive(Default)]
struct Flaky {
    entries: HashMap<u8, u16>,
    refused: BTreeSet<u8>,
    log: Vec<String>,
}

impl Flaky {
    fn admit(&mut self, operation: &str, key: u8) -> Result<(), String> {
        self.log.push(format!("{operation} {key}"));
        if self.refused.contains(&key) { Err(format!("{operation} of {key} refused")) } else { Ok(()) }
    }
}

impl Table<u8, u16> for Flaky {
    type Error = String;

    fn list(&mut self) -> Result<Vec<(u8, u16)>, String> {
        Ok(self.entries.iter().map(|(key, value)| (*key, *value)).collect())
    }

    fn set(&mut self, key: &u8, value: &u16) -> Result<(), String> {
        self.admit("set", *key)?;
        self.entries.insert(*key, *value);
        Ok(())
    }

    fn delete(&mut self, key: &u8) -> Result<(), String> {
        self.admit("delete", *key)?;
        self.entries.remove(key);
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u16),
    Remove(u8),
    Replace(Vec<(u8, u16)>),
    Apply,
    Refresh,
    Refuse(BTreeSet<u8>),
    EditOutside(u8, Option<u16>),
}

fn mk_step() -> impl Strategy<Value = Step> {
    let key = 0u8..12;
    let value = 0u16..4;
    prop_oneof![
        4 => (key.clone(), value.clone()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => key.clone().prop_map(Step::Remove),
        1 => vec((key.clone(), value.clone()), 0..8).prop_map(Step::Replace),
        3 => Just(Step::Apply),
        1 => Just(Step::Refresh),
        1 => proptest::collection::btree_set(key.clone(), 0..4).prop_map(Step::Refuse),
        1 => (key, proptest::option::of(value)).prop_map(|(key, value)| Step::EditOutside(key, value)),
    ]
}

/// The same history on a plain map: what the tracker must desire.
fn model(steps: &[Step]) -> BTreeMap<u8, u16> {
    let mut desired = BTreeMap::new();
    for step in steps {
        match step {
            Step::Set(key, value) => {
                desired.insert(*key, *value);
            }
            Step::Remove(key) => {
                desired.remove(key);
            }
            Step::Replace(entries) => desired = entries.iter().copied().collect(),
            _ => {}
        }
    }
    desired
}

fn play(step: Step, tracker: &mut Tracker<u8, u16>, table: &mut Flaky) {
    match step {
        Step::Set(key, value) => {
            tracker.set(key, value);
        }
        Step::Remove(key) => {
            tracker.remove(&key);
        }
        Step::Replace(entries) => tracker.replace_desired(entries),
        Step::Apply => {
            tracker.apply(table);
        }
        Step::Refresh => {
            tracker.refresh(table).unwrap();
        }
        Step::Refuse(keys) => table.refused = keys,
        Step::EditOutside(key, Some(value)) => {
            table.entries.insert(key, value);
        }
        Step::EditOutside(key, None) => {
            table.entries.remove(&key);
        }
    }
}

fn sorted<'a>(entries: impl Iterator<Item = (&'a u8, &'a u16)>) -> BTreeMap<u8, u16> {
    entries.map(|(key, value)| (*key, *value)).collect()
}

proptest! {
    #[test]
    fn every_history_ends_at_the_desired_state(
        steps in vec(mk_step(), 0..60),
        order in prop_oneof![Just(Order::SetsFirst), Just(Order::DeletesFirst)],
    ) {
        let desired = model(&steps);
        let mut table = Flaky::default();
        let mut tracker = Tracker::with_order(order);
        for step in steps {
            play(step, &mut tracker, &mut table);
        }
        prop_assert_eq!(&sorted(tracker.desired()), &desired);
        // The tracker's belief is the table after a read-back; then nothing refuses any more.
        tracker.refresh(&mut table).unwrap();
        prop_assert_eq!(sorted(tracker.actual()), sorted(table.entries.iter()));
        table.refused.clear();
        prop_assert!(tracker.apply(&mut table).is_complete());
        prop_assert_eq!(&sorted(table.entries.iter()), &desired);
        prop_assert!(tracker.is_synced());

        // From scratch on the same desired state: the same table, and no difference in between.
        let mut fresh = Tracker::new();
        fresh.replace_desired(desired);
        let mut other = MemoryTable::default();
        fresh.apply(&mut other);
        prop_assert_eq!(&other.0, &table.entries);
        prop_assert_eq!(fresh.observe(table.entries.clone()).total(), 0);
    }

    #[test]
    fn a_synced_tracker_writes_nothing(entries in vec((any::<u8>(), any::<u16>()), 0..40)) {
        let mut table = Flaky::default();
        let mut tracker = Tracker::new();
        tracker.replace_desired(entries.clone());
        tracker.apply(&mut table);
        table.log.clear();
        tracker.replace_desired(entries);
        let report = tracker.apply(&mut table);
        prop_assert_eq!((report.set, report.deleted), (0, 0));
        prop_assert!(table.log.is_empty());
    }

    #[test]
    fn without_failures_one_apply_is_enough(steps in vec(mk_step(), 0..40)) {
        let mut table = Flaky::default();
        let mut tracker = Tracker::new();
        for step in steps {
            if !matches!(step, Step::Refuse(_) | Step::EditOutside(..)) {
                play(step, &mut tracker, &mut table);
            }
        }
        tracker.apply(&mut table);
        prop_assert_eq!(sorted(tracker.desired()), sorted(table.entries.iter()));
    }
}

#[test]
fn failures_are_reported_kept_and_retried() {
    let mut table = Flaky { entries: HashMap::from([(1, 1), (2, 2)]), ..Flaky::default() };
    let mut tracker = Tracker::new();
    assert_eq!(tracker.refresh(&mut table).unwrap().foreign, 2);
    tracker.set(3, 3);
    table.refused = BTreeSet::from([2, 3]);
    let mut report = tracker.apply(&mut table);
    report.failures.sort();
    let refused = [(2, "delete of 2 refused".to_owned()), (3, "set of 3 refused".to_owned())];
    assert_eq!(report.failures, refused);
    assert_eq!((report.set, report.deleted, tracker.pending().len()), (0, 1, 2));
    table.refused.clear();
    let report = tracker.apply(&mut table);
    assert_eq!((report.set, report.deleted, report.is_complete()), (1, 1, true));
    assert_eq!(table.entries, HashMap::from([(3, 3)]));
}

#[test]
fn drift_is_counted_by_kind_and_repaired() {
    let mut table = Flaky::default();
    let mut tracker = Tracker::new();
    tracker.replace_desired([(1, 1), (2, 2), (3, 3)]);
    tracker.apply(&mut table);
    table.entries = HashMap::from([(1, 1), (2, 9), (7, 7)]);
    let drift = tracker.refresh(&mut table).unwrap();
    assert_eq!((drift.missing, drift.changed, drift.foreign, drift.total()), (1, 1, 1, 3));
    tracker.apply(&mut table);
    assert_eq!(table.entries, HashMap::from([(1, 1), (2, 2), (3, 3)]));
    assert_eq!(tracker.refresh(&mut table).unwrap().total(), 0);
}

#[test]
fn the_order_of_operations_is_as_asked() {
    for (order, expected) in
        [(Order::SetsFirst, ["set 2", "delete 1"]), (Order::DeletesFirst, ["delete 1", "set 2"])]
    {
        let mut table = Flaky { entries: HashMap::from([(1, 1)]), ..Flaky::default() };
        let mut tracker = Tracker::with_order(order);
        tracker.refresh(&mut table).unwrap();
        tracker.set(2, 2);
        tracker.apply(&mut table);
        assert_eq!(table.log, expected);
    }
}

#[test]
fn pending_names_what_will_be_done() {
    let mut tracker = Tracker::new();
    tracker.observe([(1u8, 1u16)]);
    assert!(tracker.set(2, 5));
    assert!(!tracker.set(2, 5));
    assert!(!tracker.remove(&1), "an entry that was never desired");
    let changes: Vec<_> = tracker.pending().collect();
    assert!(changes.contains(&Change::Delete(&1)) && changes.contains(&Change::Set(&2, &5)));
    assert_eq!((tracker.get(&2), tracker.get(&1)), (Some(&5), None));
}
