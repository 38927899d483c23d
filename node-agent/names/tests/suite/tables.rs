//! The table of names: bounds, times, and what it says that changed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use cilium_names::{Limits, Table};
use proptest::prelude::*;

const SMALL: Limits = Limits { per_name: 3, pairs: 5, in_use: 2, min_ttl: 0, grace: 10 };

fn ip(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn names(table: &Table, number: u8) -> Vec<&str> {
    table.names_of(ip(number)).collect()
}

#[test]
fn a_pair_lives_for_its_ttl_and_the_grace() {
    let mut table = Table::new(Limits::default());
    table.learn("a.io.", &[ip(1)], 60, 1000);
    assert_eq!(table.take_changed(), BTreeSet::from([ip(1)]));
    for now in [1000, 1060, 1070] {
        assert!(!table.has_expired(now));
        table.forget_expired(now, &HashSet::new());
    }
    assert!(table.take_changed().is_empty());
    assert!(table.has_expired(1071));
    table.forget_expired(1071, &HashSet::new());
    assert!(table.is_empty());
    assert_eq!(table.take_changed(), BTreeSet::from([ip(1)]));
    assert!(table.take_evicted().is_empty());
}

#[test]
fn an_answer_prolongs_and_never_shortens() {
    let mut table = Table::new(Limits { min_ttl: 30, ..Limits::default() });
    table.learn("a.io.", &[ip(1)], 100, 1000);
    table.learn("a.io.", &[ip(1)], 0, 1010);
    assert_eq!(table.save()["a.io."][&ip(1)], 1100);
    table.learn("a.io.", &[ip(1)], 0, 1090);
    assert_eq!(table.save()["a.io."][&ip(1)], 1120);
    assert_eq!(table.len(), 1);
}

#[test]
fn what_connections_use_stays_within_its_bound() {
    let mut table = Table::new(Limits { in_use: 2, ..Limits::default() });
    for number in 1..=4 {
        table.learn("a.io.", &[ip(number)], u32::from(number), 1000);
    }
    let used = HashSet::from([ip(1), ip(2), ip(3)]);
    table.take_changed();
    table.forget_expired(2000, &used);
    assert_eq!((1..=4).map(|number| names(&table, number).len()).collect::<Vec<_>>(), [0, 1, 1, 0]);
    assert_eq!(table.take_evicted(), BTreeSet::from([ip(1)]));
    assert_eq!(table.take_changed(), BTreeSet::from([ip(1), ip(4)]));
    table.forget_expired(2000, &HashSet::new());
    assert!(table.is_empty());
}

#[test]
fn a_name_with_too_many_addresses_loses_the_one_that_goes_first() {
    let mut table = Table::new(SMALL);
    table.learn("a.io.", &[ip(2)], 5, 1000);
    table.learn("a.io.", &[ip(1), ip(3)], 60, 1000);
    table.learn("b.io.", &[ip(2)], 1, 1000);
    table.take_changed();
    table.learn("a.io.", &[ip(4)], 60, 1000);
    assert_eq!(names(&table, 2), ["b.io."]);
    assert_eq!(names(&table, 4), ["a.io."]);
    assert_eq!(table.take_evicted(), BTreeSet::from([ip(2)]));
    assert_eq!(table.take_changed(), BTreeSet::from([ip(2), ip(4)]));
}

#[test]
fn a_forgotten_name_takes_its_addresses_along() {
    let mut table = Table::new(Limits::default());
    table.learn("a.io.", &[ip(1), ip(2)], 60, 1000);
    table.learn("b.io.", &[ip(2)], 60, 1000);
    table.clear(Some("a.io."));
    assert_eq!((names(&table, 1).len(), names(&table, 2)), (0, vec!["b.io."]));
    table.clear(None);
    assert!(table.is_empty());
    assert_eq!(table.take_evicted(), BTreeSet::from([ip(1), ip(2)]));
}

#[derive(Clone, Debug)]
enum Step {
    Learn { name: usize, addresses: Vec<u8>, ttl: u32 },
    Forget { in_use: Vec<u8> },
    Wait(u64),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4usize, prop::collection::vec(0..8u8, 0..4), 0..50u32)
            .prop_map(|(name, addresses, ttl)| Step::Learn { name, addresses, ttl }),
        2 => prop::collection::vec(0..8u8, 0..8).prop_map(|in_use| Step::Forget { in_use }),
        2 => (0..40u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Everything that the table says fits together, and to the bounds.
fn check(table: &Table) {
    let saved = table.save();
    let pairs: BTreeSet<(String, IpAddr)> = saved
        .iter()
        .flat_map(|(name, addresses)| addresses.keys().map(|address| (name.clone(), *address)))
        .collect();
    assert_eq!(pairs.len(), table.len());
    assert!(pairs.len() <= SMALL.pairs);
    assert!(saved.values().all(|addresses| (1..=SMALL.per_name).contains(&addresses.len())));
    let turned: BTreeSet<(String, IpAddr)> = table
        .addresses()
        .flat_map(|address| table.names_of(address).map(move |name| (name.to_owned(), address)))
        .collect();
    assert_eq!(pairs, turned);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bounds_hold_and_changes_are_told(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut table = Table::new(SMALL);
        let mut now = 1000;
        let mut seen: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for step in steps {
            let before = table.save();
            match step {
                Step::Learn { name, addresses, ttl } => {
                    let addresses: Vec<IpAddr> = addresses.into_iter().map(ip).collect();
                    table.learn(&format!("{name}.io."), &addresses, ttl, now);
                }
                Step::Forget { in_use } => {
                    let in_use: HashSet<IpAddr> = in_use.into_iter().map(ip).collect();
                    table.forget_expired(now, &in_use);
                    let kept = table.save();
                    for (name, addresses) in &before {
                        for (address, expires) in addresses {
                            let is_kept = kept.get(name).is_some_and(|kept| kept.contains_key(address));
                            let is_over = expires + SMALL.grace < now;
                            prop_assert!(is_kept || is_over);
                            prop_assert!(!is_kept || !is_over || in_use.contains(address));
                        }
                    }
                    let over = kept.values().flatten().filter(|(_, expires)| *expires + SMALL.grace < now);
                    prop_assert!(over.count() <= SMALL.in_use);
                }
                Step::Wait(seconds) => now += seconds,
                Step::Restart => {
                    let text = serde_json::to_string(&table.save()).unwrap();
                    let changed = table.take_changed();
                    table = Table::restore(SMALL, &serde_json::from_str(&text).unwrap());
                    prop_assert_eq!(table.save(), before);
                    table.take_changed();
                    // What was changed and not asked about stays so.
                    for address in changed {
                        seen.insert(address, table.names_of(address).map(str::to_owned).collect());
                    }
                }
            }
            check(&table);
            for address in table.take_changed() {
                seen.insert(address, table.names_of(address).map(str::to_owned).collect());
            }
            seen.retain(|_, names| !names.is_empty());
            let all: BTreeMap<IpAddr, Vec<String>> = table
                .addresses()
                .map(|address| (address, table.names_of(address).map(str::to_owned).collect()))
                .collect();
            prop_assert_eq!(&seen, &all);
        }
    }
}
