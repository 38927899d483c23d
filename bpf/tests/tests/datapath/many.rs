//! Peers of whom much is said.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{Action, Place::*, Stage};
use bpf_tests::{Family, Mode};
use cilium_api::parts::{Direction, Entry, Policy};
use cilium_bpf::layout::Slot;
use cilium_dataplane::compile;

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, TCP, write_pieces};

/// The other pod, and anybody.
const PEERS: [u32; 2] = [1006, 0];

fn mk_entry(peer: u32, first: u16, last: u16) -> Entry {
    Entry { peer, protocol: TCP, first, last, origins: vec![0] }
}

/// Puts in force for PodA what it may, and what not.
fn enforce(stage: &mut Stage, generation: u32, allow: Vec<Entry>, deny: Vec<Entry>) {
    let egress = Direction { enforced: true, allow, deny, ..Direction::default() };
    let policy = Policy { egress, origins: vec!["cnp/default/a".to_owned()], ..Policy::default() };
    let compiled = compile(&policy).unwrap();
    write_pieces(&mut stage.maps, &compiled.pieces(generation));
    stage.set_slot(PodA, compiled.slot(generation));
}

/// What becomes of a new connection of PodA to PodB.
fn outcome(stage: &Stage, from: u16, port: u16) -> Action {
    let packet = packet::tcp(ANY_MAC, PodA.at(Family::V4, from), PodB.at(Family::V4, port), Tcp::Syn);
    stage.leave(PodA, &packet).action
}

#[test]
fn every_rule_counts_however_many_there_are() {
    let mut stage = Stage::new(Mode::Native);
    for (at, (peer, count)) in
        PEERS.into_iter().flat_map(|peer| [1, 6, 7, 8, 40].map(|count| (peer, count))).enumerate()
    {
        let number = u16::try_from(at).unwrap();
        let allow = (1..=count).map(|port| mk_entry(peer, 1000 + port, 1000 + port)).collect();
        enforce(&mut stage, 10 + u32::from(number), allow, Vec::new());
        for port in 1000..=1001 + count {
            let expected = if (1001..=1000 + count).contains(&port) { Action::Redirect } else { DENIED };
            assert_eq!(
                outcome(&stage, 2000 + number, port),
                expected,
                "{count} rules about {peer}, port {port}"
            );
        }
    }
}

#[test]
fn the_narrowest_rule_counts_however_many_there_are() {
    let mut stage = Stage::new(Mode::Native);
    for (at, (peer, count)) in
        PEERS.into_iter().flat_map(|peer| [1, 5, 6, 20].map(|count| (peer, count))).enumerate()
    {
        let number = u16::try_from(at).unwrap();
        let deny = (0..count).map(|port| mk_entry(peer, 1000 + 2 * port, 1000 + 2 * port)).collect();
        enforce(&mut stage, 10 + u32::from(number), vec![mk_entry(peer, 0, 0)], deny);
        for port in 999..=1001 + 2 * count {
            let is_denied = port % 2 == 0 && port >= 1000 && port < 1000 + 2 * count;
            let expected = if is_denied { DENIED_BY_RULE } else { Action::Redirect };
            assert_eq!(
                outcome(&stage, 2000 + number, port),
                expected,
                "{count} denials about {peer}, port {port}"
            );
        }
    }
}

#[test]
fn what_is_said_of_an_aggregate_counts_for_its_generation_only() {
    let mut stage = Stage::new(Mode::Native);
    enforce(&mut stage, 10 + 8192, vec![mk_entry(0, 80, 80)], Vec::new());
    assert_eq!(outcome(&stage, 2000, 80), Action::Redirect);
    stage.set_slot(PodA, Slot { generation: 10, egress_enforced: true, open: true, ..Slot::default() });
    assert_eq!(outcome(&stage, 2001, 80), DENIED, "these generations share a place");
}
