//! Datagrams in pieces.

use bpf_tests::packet::{self, Echo, Tcp};
use bpf_tests::stage::{Action, Place::*, Rule, Stage};
use bpf_tests::{Family, Mode};
use cilium_bpf::reason::DropReason;

use crate::{ANY_MAC, DENIED, UDP};

const MISSING: Action = Action::Drop(DropReason::FragmentNotFound);

#[test]
fn later_fragments_follow_the_first() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodB, 10, Some(&[Rule(1005, UDP, Some(53))]), None);
    for family in Family::ALL {
        for (port, expected) in [(53, Action::Redirect), (54, DENIED)] {
            let whole = packet::udp(ANY_MAC, PodA.at(family, 9100), PodB.at(family, port), &[7; 64]);
            let [first, later] = packet::fragments(&whole, 24, port);
            assert_eq!(stage.leave(PodA, &first).action, expected, "port {port}");
            assert_eq!(stage.leave(PodA, &later).action, expected, "port {port}");
        }
    }
}

#[test]
fn a_fragment_that_overtakes_the_first_is_dropped() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let whole = packet::udp(ANY_MAC, PodA.at(family, 9101), PodB.at(family, 53), &[7; 64]);
        let [first, later] = packet::fragments(&whole, 24, 500);
        assert_eq!(stage.leave(PodA, &later).action, MISSING);
        assert_eq!(stage.leave(PodA, &first).action, Action::Redirect);
        assert_eq!(stage.leave(PodA, &later).action, Action::Redirect);
        let [_, other] = packet::fragments(&whole, 24, 501);
        assert_eq!(stage.leave(PodA, &other).action, MISSING, "of another datagram");
    }
}

#[test]
fn fragments_from_the_network_reach_the_pod() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 20, Some(&[Rule(1007, UDP, Some(53))]), None);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let whole = packet::udp(mac, RemotePod.at(family, 9102), PodA.at(family, 53), &[7; 64]);
        let [first, later] = packet::fragments(&whole, 24, 600);
        assert_eq!(stage.receive(&later).action, MISSING);
        assert_eq!(stage.receive(&first).action, Action::Redirect);
        assert_eq!(stage.receive(&later).action, Action::Redirect);
        let to_host = packet::udp(mac, World.at(family, 1), Host.at(family, 62_000), &[7; 64]);
        for fragment in packet::fragments(&to_host, 24, 601) {
            assert_eq!(stage.receive(&fragment).action, Action::Pass, "the node's own fragments");
        }
    }
}

#[test]
fn large_pings_work() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let mut whole = packet::echo(ANY_MAC, PodA.ip(family), PodB.ip(family), Echo::Request, 3);
        whole.extend([0; 60]);
        for fragment in packet::fragments(&whole, 16, 700) {
            assert_eq!(stage.leave(PodA, &fragment).action, Action::Redirect);
        }
    }
}

#[test]
fn a_first_fragment_must_hold_the_header_that_policy_needs() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let whole = packet::tcp(ANY_MAC, PodA.at(family, 9103), PodB.at(family, 80), Tcp::Syn);
        let [first, _] = packet::fragments(&whole, 8, 800);
        assert_eq!(stage.leave(PodA, &first).action, Action::Drop(DropReason::CtInvalidHeader));
    }
}
