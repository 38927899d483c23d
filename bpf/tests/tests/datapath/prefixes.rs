//! Prefixes outside of the cluster that have an identity of their own.

use std::net::IpAddr;

use bpf_tests::packet::{self, Tcp};
use bpf_tests::seen::Seen;
use bpf_tests::stage::{Action, Place::*, Rule, Stage};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{Addr, DIRECTION_EGRESS, IpcacheEntry, IpcacheKey};
use cilium_delta::Table;

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, TCP};

/// Identities of a prefix and of a narrower one inside.
const WIDE: u32 = (1 << 24) + 7;
const NARROW: u32 = (1 << 24) + 8;

/// Gives the first `length` bits of an address (counted for IPv4 in its 32) an identity.
fn know(stage: &mut Stage, address: IpAddr, length: u8, identity: u32) {
    let net = ipnet::IpNet::new(address, length).unwrap().trunc();
    let entry = IpcacheEntry { tunnel: Addr::NONE, identity };
    stage.maps.ipcache.set(&IpcacheKey::new(net.addr(), length), &entry).unwrap();
}

fn lengths(family: Family) -> (u8, u8) {
    if family == Family::V4 { (16, 24) } else { (32, 64) }
}

/// Description, entries that allow, an entry that denies, and what becomes of a connection with the prefix.
type Case<'a> = (&'a str, &'a [Rule], Option<Rule>, Action);

const PASSES: Action = Action::Redirect;
const TABLE: [Case<'_>; 10] = [
    ("the narrowest prefix", &[Rule(NARROW, TCP, Some(80))], None, PASSES),
    ("a prefix around", &[Rule(WIDE, TCP, Some(80))], None, DENIED),
    ("the world", &[Rule(9, 0, None), Rule(10, 0, None)], None, DENIED),
    ("everybody", &[Rule(0, 0, None)], None, PASSES),
    ("everybody, and the prefix is denied", &[Rule(0, 0, None)], Some(Rule(NARROW, 0, None)), DENIED_BY_RULE),
    ("all prefixes", &[Rule(13, TCP, Some(80))], None, PASSES),
    (
        "all prefixes, and this one is denied",
        &[Rule(13, 0, None)],
        Some(Rule(NARROW, TCP, None)),
        DENIED_BY_RULE,
    ),
    ("all pods and all nodes", &[Rule(11, 0, None), Rule(14, 0, None)], None, DENIED),
    ("all prefixes at another port", &[Rule(13, TCP, Some(81))], None, DENIED),
    ("another prefix is denied", &[Rule(0, 0, None)], Some(Rule(WIDE, 0, None)), PASSES),
];

#[test]
fn an_address_has_the_identity_of_the_narrowest_prefix() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = Stage::new(mode);
        let mut generation = 100;
        for family in Family::ALL {
            let (wide, narrow) = lengths(family);
            know(&mut stage, World.ip(family), wide, WIDE);
            know(&mut stage, World.ip(family), narrow, NARROW);
            for (what, allow, deny, expected) in TABLE {
                generation += 1;
                let port = 10_000 + generation as u16;
                stage.deny(generation, DIRECTION_EGRESS, deny.as_slice());
                stage.deny(generation, cilium_bpf::layout::DIRECTION_INGRESS, deny.as_slice());
                stage.enforce(PodA, generation, Some(allow), Some(allow));
                let syn = packet::tcp(ANY_MAC, PodA.at(family, port), World.at(family, 80), Tcp::Syn);
                let outcome = stage.leave(PodA, &syn);
                assert_eq!(outcome.action, expected, "{what}, out, {family:?}, {mode:?}");
                if expected == PASSES {
                    assert_eq!(Seen::read(&outcome.packet).source, Host.ip(family), "a part of the world");
                }
                let mac = stage.uplink.mac.0;
                let syn = packet::tcp(mac, World.at(family, port), PodA.at(family, 80), Tcp::Syn);
                assert_eq!(stage.receive(&syn).action, expected, "{what}, in, {family:?}, {mode:?}");
            }
        }
    }
}

#[test]
fn under_a_new_generation_connections_are_judged_by_the_new_identity() {
    let mut stage = Stage::new(Mode::Native);
    let rules = [Rule(9, 0, None), Rule(10, 0, None)];
    for (family, generation) in [(Family::V4, 300), (Family::V6, 400)] {
        let (from, to) = (PodA.at(family, 4500), World.at(family, 443));
        let mac = stage.uplink.mac.0;
        stage.enforce(PodA, generation, None, Some(&rules));
        let outcome = stage.leave(PodA, &packet::tcp(ANY_MAC, from, to, Tcp::Syn));
        assert_eq!(outcome.action, PASSES);
        let port = Seen::read(&outcome.packet).source_port;
        let answer = packet::tcp(mac, to, Host.at(family, port), Tcp::SynAck);
        assert_eq!(stage.receive(&answer).action, PASSES);
        let ack = packet::tcp(ANY_MAC, from, to, Tcp::Ack);
        assert_eq!(stage.leave(PodA, &ack).action, PASSES);

        know(&mut stage, World.ip(family), lengths(family).1, NARROW);
        stage.enforce(PodA, generation + 1, None, Some(&rules));
        assert_eq!(stage.leave(PodA, &ack).action, DENIED);
        assert_ne!(stage.receive(&answer).action, PASSES, "no replies to what is not allowed any more");

        stage.enforce(PodA, generation + 2, None, Some(&[Rule(NARROW, TCP, Some(443))]));
        assert_eq!(stage.leave(PodA, &ack).action, PASSES);
    }
}
