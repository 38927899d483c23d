//! Entries that deny.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{Action, Place::*, Rule, Stage};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{DIRECTION_EGRESS, DIRECTION_INGRESS};

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, TCP, UDP};

/// Description, entries that allow, entries that deny, and what becomes of TCP to port 80.
type Case<'a> = (&'a str, &'a [Rule], &'a [Rule], Action);

const A: u32 = 1005;
const B: u32 = 1006;

const PASSES: Action = Action::Redirect;

/// `PEER` stands for the other side.
const PEER: u32 = 77;

const TABLE: [Case<'_>; 9] = [
    ("everything else passes", &[Rule(0, 0, None)], &[Rule(PEER, TCP, Some(81))], PASSES),
    ("the peer's port", &[Rule(0, 0, None)], &[Rule(PEER, TCP, Some(80))], DENIED_BY_RULE),
    ("the peer", &[Rule(0, TCP, Some(80))], &[Rule(PEER, 0, None)], DENIED_BY_RULE),
    ("the peer's protocol", &[Rule(0, TCP, Some(80))], &[Rule(PEER, TCP, None)], DENIED_BY_RULE),
    ("another protocol", &[Rule(PEER, TCP, None)], &[Rule(PEER, UDP, None)], PASSES),
    ("everybody", &[Rule(9, 0, None)], &[Rule(0, 0, None)], DENIED_BY_RULE),
    ("everybody's port", &[Rule(PEER, TCP, Some(81))], &[Rule(0, TCP, Some(80))], DENIED_BY_RULE),
    (
        "a port inside of what is allowed",
        &[Rule(PEER, TCP, None)],
        &[Rule(PEER, TCP, Some(80))],
        DENIED_BY_RULE,
    ),
    ("another peer, where nothing is allowed", &[], &[Rule(9, 0, None)], DENIED),
];

fn with_peer(rules: &[Rule], peer: u32) -> Vec<Rule> {
    let named = |rule: &Rule| if rule.0 == PEER { Rule(peer, rule.1, rule.2) } else { *rule };
    rules.iter().map(named).collect()
}

#[test]
fn a_denial_drops_for_a_reason_of_its_own() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 10;
    for (what, allow, deny, expected) in TABLE {
        for family in Family::ALL {
            for direction in [DIRECTION_INGRESS, DIRECTION_EGRESS] {
                generation += 2;
                let (pod, peer, other) =
                    if direction == DIRECTION_INGRESS { (PodB, A, PodA) } else { (PodA, B, PodB) };
                stage.enforce(other, generation, None, None);
                stage.deny(generation + 1, direction, &with_peer(deny, peer));
                let allow = with_peer(allow, peer);
                let (ingress, egress) = if direction == DIRECTION_INGRESS {
                    (Some(&*allow), None)
                } else {
                    (None, Some(&*allow))
                };
                stage.enforce(pod, generation + 1, ingress, egress);
                let from = PodA.at(family, 10_000 + generation as u16);
                let syn = packet::tcp(ANY_MAC, from, PodB.at(family, 80), Tcp::Syn);
                let outcome = stage.leave(PodA, &syn);
                assert_eq!(outcome.action, expected, "{what}, {family:?}, direction {direction}");
                let side = if expected == PASSES { 0 } else { direction };
                assert_eq!(outcome.direction, side, "{what}, {family:?}");
            }
        }
    }
}

#[test]
fn the_host_reaches_its_pods_unless_an_entry_denies_it() {
    let mut stage = Stage::new(Mode::Native);
    for (number, (allow, deny, expected)) in [
        (Some(Rule(1, 0, None)), None, Action::Pass),
        (Some(Rule(1, 0, None)), Some(Rule(1, TCP, Some(80))), DENIED_BY_RULE),
        (None, Some(Rule(0, TCP, Some(80))), DENIED_BY_RULE),
        (None, None, DENIED),
    ]
    .into_iter()
    .enumerate()
    {
        let generation = 500 + number as u32;
        stage.deny(generation, DIRECTION_INGRESS, deny.as_slice());
        stage.enforce(PodA, generation, Some(allow.as_slice()), None);
        for family in Family::ALL {
            let from = Host.at(family, 7000 + generation as u16);
            let syn = packet::tcp(ANY_MAC, from, PodA.at(family, 80), Tcp::Syn);
            assert_eq!(stage.enter(PodA, &syn).action, expected, "{allow:?} {deny:?}");
        }
    }
}

#[test]
fn an_established_connection_ends_when_it_is_denied() {
    let mut stage = Stage::new(Mode::Native);
    for (family, generation) in [(Family::V4, 600), (Family::V6, 700)] {
        stage.open(PodB);
        let (a, b) = (PodA.at(family, 4010), PodB.at(family, 53));
        let (forth, back) = (packet::udp(ANY_MAC, a, b, b""), packet::udp(ANY_MAC, b, a, b""));
        assert_eq!(stage.leave(PodA, &forth).action, PASSES);
        assert_eq!(stage.leave(PodB, &back).action, PASSES);
        stage.deny(generation, DIRECTION_INGRESS, &[Rule(A, UDP, None)]);
        stage.enforce(PodB, generation, Some(&[Rule(0, 0, None)]), Some(&[]));
        assert_eq!(stage.leave(PodA, &forth).action, DENIED_BY_RULE);
        assert_eq!(stage.leave(PodB, &back).action, DENIED, "no replies to what is denied");
    }
}
