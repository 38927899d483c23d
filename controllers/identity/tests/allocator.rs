//! The allocator from outside: examples and properties over random histories.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};

use cilium_core::Labels;
use cilium_core::reserved::{FIRST_ALLOCATED, LAST_ALLOCATED};
use cilium_identity::object::Stored;
use cilium_identity::{
    Action, Allocation, Allocator, Duplicate, Error, HEARTBEAT_TIMEOUT, MAX_DELETIONS, Observed,
};
use proptest::prelude::*;

fn labels(name: impl std::fmt::Display) -> Labels {
    Labels::parse([format!("k8s:app={name}")]).unwrap()
}

fn stored(name: impl std::fmt::Display) -> Stored {
    Stored { labels: labels(name), marked: false }
}

fn marked(name: impl std::fmt::Display) -> Stored {
    Stored { marked: true, ..stored(name) }
}

#[test]
fn one_number_for_one_label_set() {
    let mut allocator = Allocator::new();
    assert_eq!(allocator.acquire(&labels("a"), None, 0), Ok(Allocation { number: 256, is_new: true }));
    assert_eq!(allocator.acquire(&labels("b"), None, 0), Ok(Allocation { number: 257, is_new: true }));
    assert_eq!(allocator.acquire(&labels("a"), None, 0), Ok(Allocation { number: 256, is_new: false }));
    assert_eq!(allocator.labels(257), Some(&labels("b")));
    assert_eq!(allocator.in_use().map(|(number, _)| number).collect::<Vec<_>>(), [256, 257]);
}

#[test]
fn numbers_of_the_store_are_used_again_after_a_restart() {
    let mut allocator = Allocator::new();
    assert_eq!(allocator.observe(4000, &stored("a"), 0), Observed::Fine);
    assert_eq!(allocator.observe(300, &stored("b"), 0), Observed::Fine);
    assert_eq!(allocator.acquire(&labels("b"), None, 0), Ok(Allocation { number: 300, is_new: false }));
    assert_eq!(allocator.acquire(&labels("new"), None, 0), Ok(Allocation { number: 4001, is_new: true }));
    assert_eq!(allocator.observe(7, &stored("a"), 0), Observed::OutOfRange);
    assert_eq!(allocator.observe(65536, &stored("a"), 0), Observed::OutOfRange);
}

#[test]
fn of_duplicates_the_lowest_counts_and_the_others_are_reported() {
    let mut allocator = Allocator::new();
    for number in [900, 300, 500] {
        allocator.observe(number, &stored("a"), 0);
    }
    assert_eq!(
        allocator.duplicates(),
        [Duplicate { labels: labels("a"), kept: 300, others: vec![500, 900] }]
    );
    assert_eq!(allocator.acquire(&labels("a"), None, 0).unwrap().number, 300);
    let keeps = allocator.acquire(&labels("a"), Some(500), 0);
    assert_eq!(keeps, Ok(Allocation { number: 500, is_new: false }), "an endpoint keeps what it had");
}

#[test]
fn an_endpoint_keeps_its_number_when_the_object_was_lost() {
    let mut allocator = Allocator::new();
    assert_eq!(allocator.acquire(&labels("a"), Some(777), 0), Ok(Allocation { number: 777, is_new: true }));
    let other = allocator.acquire(&labels("b"), Some(777), 0).unwrap();
    assert_eq!(other, Allocation { number: 778, is_new: true }, "the number means something else by now");
    assert_eq!(allocator.acquire(&labels("c"), Some(3), 0).unwrap().number, 779, "never a reserved number");
}

#[test]
fn labels_of_a_number_in_use_cannot_be_changed_from_outside() {
    let mut allocator = Allocator::new();
    let number = allocator.acquire(&labels("a"), None, 0).unwrap().number;
    assert_eq!(allocator.observe(number, &stored("evil"), 1), Observed::Rewrite);
    assert_eq!(allocator.labels(number), Some(&labels("a")));
    assert!(allocator.forget(number), "a deleted object of a number in use must be created again");
    assert_eq!(allocator.labels(number), Some(&labels("a")));
    allocator.release(number, 2);
    assert_eq!(allocator.observe(number, &stored("other"), 3), Observed::Fine);
    assert_eq!(allocator.acquire(&labels("other"), None, 4), Ok(Allocation { number, is_new: false }));
    assert!(allocator.acquire(&labels("a"), None, 4).unwrap().is_new);
}

#[test]
fn garbage_goes_in_two_passes() {
    let mut allocator = Allocator::new();
    let number = allocator.acquire(&labels("a"), None, 0).unwrap().number;
    allocator.observe(number, &stored("a"), 0);
    allocator.release(number, 100);
    let later = 100 + HEARTBEAT_TIMEOUT;
    assert_eq!(allocator.sweep(later - 1), []);
    assert_eq!(allocator.sweep(later), [(number, Action::Mark)]);
    assert_eq!(allocator.sweep(later), [(number, Action::Mark)], "a mark counts when it was observed");
    allocator.observe(number, &marked("a"), later);
    assert_eq!(allocator.sweep(later + 900), [(number, Action::Delete)]);
    assert_eq!(allocator.sweep(later + 900), [], "asked for once");
    let new = allocator.acquire(&labels("a"), None, later + 900).unwrap();
    assert_eq!(new, Allocation { number: number + 1, is_new: true }, "the deletion may be on its way");
    assert!(!allocator.forget(number));
    assert_eq!(allocator.labels(number), None);
}

#[test]
fn a_mark_is_taken_off_when_the_number_is_used_again() {
    let mut allocator = Allocator::new();
    allocator.observe(300, &marked("a"), 0);
    assert_eq!(allocator.acquire(&labels("a"), None, HEARTBEAT_TIMEOUT).unwrap().number, 300);
    assert_eq!(allocator.sweep(HEARTBEAT_TIMEOUT), [(300, Action::Unmark)]);
    allocator.observe(300, &stored("a"), HEARTBEAT_TIMEOUT);
    assert_eq!(allocator.sweep(HEARTBEAT_TIMEOUT), []);
}

#[test]
fn a_failed_deletion_leaves_the_number_usable() {
    let mut allocator = Allocator::new();
    allocator.observe(300, &marked("a"), 0);
    assert_eq!(allocator.sweep(HEARTBEAT_TIMEOUT), [(300, Action::Delete)]);
    allocator.observe(300, &marked("a"), HEARTBEAT_TIMEOUT);
    assert_eq!(allocator.acquire(&labels("a"), None, HEARTBEAT_TIMEOUT).unwrap().number, 300);
}

#[test]
fn deletions_of_one_pass_are_bounded() {
    let mut allocator = Allocator::new();
    let count = u32::try_from(MAX_DELETIONS).unwrap() + 10;
    for number in FIRST_ALLOCATED..FIRST_ALLOCATED + count {
        allocator.observe(number, &marked(number), 0);
    }
    assert_eq!(allocator.sweep(HEARTBEAT_TIMEOUT).len(), MAX_DELETIONS);
    assert_eq!(allocator.sweep(HEARTBEAT_TIMEOUT).len(), 10);
}

#[test]
fn exhaustion_names_the_labels_and_freed_numbers_come_back() {
    let mut allocator = Allocator::new();
    for number in FIRST_ALLOCATED..=LAST_ALLOCATED {
        allocator.observe(number, &stored(number), 0);
    }
    let error = allocator.acquire(&labels("late"), None, 0).unwrap_err();
    assert_eq!(error, Error::Exhausted { labels: labels("late") });
    assert!(
        error
            .to_string()
            .starts_with("no identity number is left for [k8s:app=late]: 256-65535 are all taken")
    );
    allocator.forget(5000);
    assert_eq!(allocator.acquire(&labels("late"), None, 0), Ok(Allocation { number: 5000, is_new: true }));
}

/// A step of a random history over few labels and numbers, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Acquire { name: u8, before: Option<u32> },
    Release { pick: usize },
    Observe { number: u32, name: u8, marked: bool },
    Forget { number: u32 },
    Sweep { after: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let number = FIRST_ALLOCATED..FIRST_ALLOCATED + 8;
    prop_oneof![
        (0..6u8, proptest::option::of(number.clone()))
            .prop_map(|(name, before)| Step::Acquire { name, before }),
        any::<usize>().prop_map(|pick| Step::Release { pick }),
        (number.clone(), 0..6u8, any::<bool>()).prop_map(|(number, name, marked)| Step::Observe {
            number,
            name,
            marked
        }),
        number.prop_map(|number| Step::Forget { number }),
        (0..4000i64).prop_map(|after| Step::Sweep { after }),
    ]
}

/// What endpoints believe: (number, labels) pairs that were acquired and not released.
fn check_step(allocator: &mut Allocator, held: &mut Vec<(u32, Labels)>, now: &mut i64, step: &Step) {
    match step {
        Step::Acquire { name, before } => {
            let known: BTreeMap<u32, Labels> =
                allocator.in_use().map(|(number, labels)| (number, labels.clone())).collect();
            let got = allocator.acquire(&labels(name), *before, *now).unwrap();
            assert!(!got.is_new || !known.contains_key(&got.number), "a new number was in use");
            held.push((got.number, labels(name)));
        }
        Step::Release { pick } if !held.is_empty() => {
            let (number, _) = held.swap_remove(pick % held.len());
            allocator.release(number, *now);
        }
        Step::Release { .. } => {}
        Step::Observe { number, name, marked } => {
            allocator.observe(*number, &Stored { labels: labels(name), marked: *marked }, *now);
        }
        Step::Forget { number } => {
            let needed = held.iter().any(|(held, _)| held == number);
            assert_eq!(allocator.forget(*number), needed);
        }
        Step::Sweep { after } => {
            *now += after;
            let used: BTreeSet<u32> = held.iter().map(|(number, _)| *number).collect();
            for (number, action) in allocator.sweep(*now) {
                assert_eq!(action == Action::Unmark, used.contains(&number), "{number} {action:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn numbers_in_use_keep_their_meaning(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut allocator, mut held, mut now) = (Allocator::new(), Vec::new(), 0);
        for step in &steps {
            check_step(&mut allocator, &mut held, &mut now, step);
            for (number, labels) in &held {
                prop_assert_eq!(allocator.labels(*number), Some(labels));
            }
            let used: BTreeSet<u32> = held.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(allocator.in_use().map(|(number, _)| number).collect::<BTreeSet<_>>(), used);
        }
    }

    #[test]
    fn the_order_of_the_store_does_not_matter(
        objects in proptest::collection::btree_map(256..300u32, 0..10u8, 0..20),
        seed in any::<prop::sample::Index>(),
    ) {
        let mut forward = Allocator::new();
        let mut turned = Allocator::new();
        let listed: Vec<_> = objects.into_iter().collect();
        for (number, name) in &listed {
            forward.observe(*number, &stored(name), 0);
        }
        let at = if listed.is_empty() { 0 } else { seed.index(listed.len()) };
        for (number, name) in listed[at..].iter().rev().chain(&listed[..at]) {
            turned.observe(*number, &stored(name), 0);
        }
        for name in 0..12u8 {
            prop_assert_eq!(forward.acquire(&labels(name), None, 0), turned.acquire(&labels(name), None, 0));
        }
        prop_assert_eq!(forward.duplicates(), turned.duplicates());
    }
}
