//! Tables by Maglev hashing: shares, agreement, and how few connections move.

use std::net::IpAddr;

use cilium_bpf::layout::{BackendEntry, NetPort};
use cilium_dataplane::maglev::{DEFAULT_SIZE, Maglev, SIZES};
use proptest::prelude::*;

fn mk_backend(number: u32) -> BackendEntry {
    BackendEntry { address: IpAddr::from((0x0af4_0000 + number).to_be_bytes()).into(), port: NetPort(80) }
}

fn mk_backends(count: u32) -> Vec<BackendEntry> {
    (1..=count).map(mk_backend).collect()
}

/// The backend behind each entry.
fn behind(maglev: Maglev, backends: &[BackendEntry]) -> Vec<BackendEntry> {
    let table = maglev.fill(backends).expect("there is something to choose");
    table.iter().map(|index| backends[usize::from(*index)]).collect()
}

fn shares(table: &[u16], count: usize) -> Vec<usize> {
    let mut shares = vec![0; count];
    table.iter().for_each(|index| shares[usize::from(*index)] += 1);
    shares
}

/// Share of the entries that lead elsewhere although their backend is still there.
fn moved(before: &[BackendEntry], after: &[BackendEntry], gone: BackendEntry) -> f64 {
    let stayed = before.iter().zip(after).filter(|(old, _)| **old != gone);
    let moved = stayed.filter(|(old, new)| old != new).count();
    moved as f64 / before.len() as f64
}

#[test]
fn sizes_are_primes() {
    let is_prime = |n: u32| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    assert!(SIZES.into_iter().all(is_prime));
    assert!(SIZES.contains(&DEFAULT_SIZE));
}

#[test]
fn a_small_table_is_the_one_that_is_written_down() {
    // A change of the hash would make agents of two versions disagree while one replaces the other.
    let table = Maglev { size: 251, seed: 7 }.fill(&mk_backends(3)).expect("there is one");
    assert_eq!(table[..24], [1, 0, 0, 1, 1, 1, 0, 2, 2, 1, 1, 2, 1, 0, 1, 0, 0, 2, 2, 1, 0, 2, 0, 2]);
}

#[test]
fn there_is_no_table_without_a_choice_or_with_too_many_backends() {
    let maglev = Maglev { size: 251, seed: 0 };
    let has_table = |count| maglev.fill(&mk_backends(count)).is_some();
    assert_eq!([0, 1, 2, 251, 252].map(has_table), [false, false, true, true, false]);
    let table = maglev.fill(&mk_backends(251)).expect("there is one");
    assert_eq!(shares(&table, 251), vec![1; 251], "each has one");
}

#[test]
fn other_seeds_make_other_tables() {
    let backends = mk_backends(10);
    let [one, other] = [1, 2].map(|seed| behind(Maglev { size: 16_381, seed }, &backends));
    let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!((1300..2000).contains(&same), "a tenth is the same by chance: {same}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_even(size in prop::sample::select(SIZES[..8].to_vec()), count in 2u32..80, seed: u32) {
        let table = Maglev { size, seed }.fill(&mk_backends(count)).expect("there is one");
        prop_assert_eq!(table.len(), size as usize);
        let shares = shares(&table, count as usize);
        let (least, most) = (size / count, size.div_ceil(count));
        prop_assert!(shares.iter().all(|share| (least as usize..=most as usize).contains(share)));
    }

    #[test]
    fn the_order_of_backends_does_not_matter(
        backends in Just(mk_backends(20)).prop_shuffle(), seed: u32
    ) {
        let maglev = Maglev { size: 2039, seed };
        prop_assert_eq!(behind(maglev, &backends), behind(maglev, &mk_backends(20)));
    }

    #[test]
    fn few_entries_move_when_a_backend_goes(count in 3u32..100, gone in 0u32..100, seed: u32) {
        let maglev = Maglev { size: DEFAULT_SIZE, seed };
        let backends = mk_backends(count);
        let gone = mk_backend(1 + gone % count);
        let before = behind(maglev, &backends);
        let rest: Vec<_> = backends.into_iter().filter(|backend| *backend != gone).collect();
        let share = moved(&before, &behind(maglev, &rest), gone);
        prop_assert!(share < 0.05, "{share} of the entries move for nothing");
    }
}
