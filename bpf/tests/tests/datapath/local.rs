//! Between two pods of one node.

use bpf_tests::packet::{self, HOPS, Tcp};
use bpf_tests::seen::{Seen, check_checksums};
use bpf_tests::stage::{Action, Place::*, Rule, Stage, pod_mac};
use bpf_tests::{Family, Mode, Place};
use cilium_bpf::layout::{
    CT_CONFIRMED, CT_FIN_ANSWERER, CT_FIN_STARTER, CT_REFUSED, CT_REPLIED, CT_RESET, CT_STARTED_BY_HIGH,
};
use cilium_bpf::reason::DropReason;

use crate::{ANY_MAC, DENIED, TCP, UDP};

fn tcp(from: Place, to: Place, ports: (u16, u16), family: Family, flags: Tcp) -> Vec<u8> {
    packet::tcp(ANY_MAC, from.at(family, ports.0), to.at(family, ports.1), flags)
}

fn udp(from: Place, to: Place, ports: (u16, u16), family: Family) -> Vec<u8> {
    packet::udp(ANY_MAC, from.at(family, ports.0), to.at(family, ports.1), b"hello")
}

#[test]
fn a_packet_is_addressed_to_the_pod_and_loses_a_hop() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        for packet in [udp(PodA, PodB, (4000, 53), family), tcp(PodA, PodB, (4000, 80), family, Tcp::Syn)] {
            let outcome = stage.leave(PodA, &packet);
            assert_eq!(outcome.action, Action::Redirect);
            let (before, after) = (Seen::read(&packet), Seen::read(&outcome.packet));
            let expected = Seen {
                mac_destination: pod_mac(PodB),
                mac_source: before.mac_destination,
                hops: HOPS - 1,
                ..before
            };
            assert_eq!(after, expected);
            check_checksums(&outcome.packet);
        }
    }
}

/// Description, rules of A's egress, rules of B's ingress, and whether TCP to port 80 passes.
type Case<'a> = (&'a str, Option<&'a [Rule]>, Option<&'a [Rule]>, bool);

#[test]
fn policy_decides_by_direction_peer_protocol_and_port() {
    let (a, b) = (1005, 1006);
    let table: [Case<'_>; 12] = [
        ("no policy", None, None, true),
        ("ingress denied by default", None, Some(&[]), false),
        ("egress denied by default", Some(&[]), None, false),
        ("ingress from the peer", None, Some(&[Rule(a, TCP, Some(80))]), true),
        ("ingress from another peer", None, Some(&[Rule(b, TCP, Some(80))]), false),
        ("ingress from anybody", None, Some(&[Rule(0, TCP, Some(80))]), true),
        ("ingress to another port", None, Some(&[Rule(a, TCP, Some(81))]), false),
        ("ingress to every port", None, Some(&[Rule(a, TCP, None)]), true),
        ("ingress of another protocol", None, Some(&[Rule(a, UDP, Some(80))]), false),
        ("ingress of every protocol", None, Some(&[Rule(a, 0, None)]), true),
        ("both directions", Some(&[Rule(b, TCP, Some(80))]), Some(&[Rule(a, TCP, Some(80))]), true),
        ("egress only, where both are enforced", Some(&[Rule(b, TCP, Some(80))]), Some(&[]), false),
    ];
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 10;
    for (what, egress, ingress, passes) in table {
        for family in Family::ALL {
            generation += 2;
            stage.enforce(PodA, generation, None, egress);
            stage.enforce(PodB, generation + 1, ingress, None);
            let ports = (10_000 + generation as u16, 80);
            let outcome = stage.leave(PodA, &tcp(PodA, PodB, ports, family, Tcp::Syn));
            let expected = if passes { Action::Redirect } else { DENIED };
            assert_eq!(outcome.action, expected, "{what}, {family:?}");
            let recorded = stage.connection(TCP, PodA.at(family, ports.0), PodB.at(family, 80)).is_some();
            assert_eq!(recorded, passes, "{what}, {family:?}");
        }
    }
}

#[test]
fn replies_pass_whatever_policy_says() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 20, Some(&[]), None);
    stage.enforce(PodB, 21, Some(&[Rule(1005, TCP, Some(80))]), Some(&[]));
    for family in Family::ALL {
        let ports = (4001, 80);
        let back = (80, 4001);
        assert_eq!(stage.leave(PodB, &tcp(PodB, PodA, back, family, Tcp::SynAck)).action, DENIED);
        assert_eq!(stage.leave(PodA, &tcp(PodA, PodB, ports, family, Tcp::Syn)).action, Action::Redirect);
        assert_eq!(stage.leave(PodB, &tcp(PodB, PodA, back, family, Tcp::SynAck)).action, Action::Redirect);
        assert_eq!(stage.leave(PodA, &tcp(PodA, PodB, ports, family, Tcp::Ack)).action, Action::Redirect);
        // Opening a connection backwards over the same ports is not a reply.
        assert_eq!(stage.leave(PodB, &tcp(PodB, PodA, back, family, Tcp::Syn)).action, DENIED);
        assert_eq!(stage.leave(PodB, &tcp(PodB, PodA, back, family, Tcp::Ack)).action, Action::Redirect);
    }
}

#[test]
fn the_table_follows_a_connection() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let flags = || {
            let entry = stage.connection(TCP, PodA.at(family, 4002), PodB.at(family, 80)).unwrap();
            assert_eq!((entry.egress_generation, entry.ingress_generation), (1, 1));
            entry.flags
        };
        let mut expected = 0;
        for (reply, step, adds) in [
            (false, Tcp::Syn, 0),
            (true, Tcp::SynAck, CT_REPLIED),
            (false, Tcp::Ack, CT_CONFIRMED),
            (false, Tcp::Fin, CT_FIN_STARTER),
            (true, Tcp::Fin, CT_FIN_ANSWERER),
        ] {
            let outcome = if reply {
                stage.leave(PodB, &tcp(PodB, PodA, (80, 4002), family, step))
            } else {
                stage.leave(PodA, &tcp(PodA, PodB, (4002, 80), family, step))
            };
            assert_eq!(outcome.action, Action::Redirect, "{step:?}");
            expected |= adds;
            assert_eq!(flags(), expected, "{step:?}");
        }
        // The same ports again: a new connection, and the first one's end does not count.
        stage.leave(PodA, &tcp(PodA, PodB, (4002, 80), family, Tcp::Syn));
        assert_eq!(flags(), 0);
        stage.leave(PodB, &tcp(PodB, PodA, (80, 4002), family, Tcp::Rst));
        assert_eq!(flags(), CT_REPLIED | CT_FIN_STARTER | CT_FIN_ANSWERER | CT_RESET);
    }
}

#[test]
fn who_started_is_remembered_for_the_higher_address_too() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        stage.leave(PodB, &udp(PodB, PodA, (4003, 53), family));
        let entry = stage.connection(UDP, PodB.at(family, 4003), PodA.at(family, 53)).unwrap();
        assert_eq!(entry.flags, CT_STARTED_BY_HIGH);
        stage.leave(PodA, &udp(PodA, PodB, (53, 4003), family));
        let entry = stage.connection(UDP, PodB.at(family, 4003), PodA.at(family, 53)).unwrap();
        assert_eq!(entry.flags, CT_STARTED_BY_HIGH | CT_REPLIED);
    }
}

#[test]
fn a_new_generation_judges_established_connections_again() {
    let mut stage = Stage::new(Mode::Native);
    for (family, generation) in [(Family::V4, 100), (Family::V6, 200)] {
        stage.open(PodB);
        let forth = udp(PodA, PodB, (4004, 53), family);
        let back = udp(PodB, PodA, (53, 4004), family);
        let entry = |stage: &Stage| stage.connection(UDP, PodA.at(family, 4004), PodB.at(family, 53));
        assert_eq!(stage.leave(PodA, &forth).action, Action::Redirect);
        assert_eq!(stage.leave(PodB, &back).action, Action::Redirect);

        stage.enforce(PodB, generation, Some(&[Rule(1005, UDP, None)]), Some(&[]));
        assert_eq!(stage.leave(PodA, &forth).action, Action::Redirect);
        let kept = entry(&stage).unwrap();
        assert_eq!((kept.egress_generation, kept.ingress_generation), (1, generation));
        assert_eq!(kept.flags, CT_REPLIED, "what was known of the connection stays");

        stage.enforce(PodB, generation + 1, Some(&[]), Some(&[]));
        assert_eq!(stage.leave(PodA, &forth).action, DENIED);
        assert_eq!(entry(&stage).unwrap().flags, CT_REPLIED | CT_REFUSED);
        assert_eq!(stage.leave(PodB, &back).action, DENIED, "no replies to what is not allowed any more");
    }
}

/// An answer that was on its way when policy ended the connection starts no connection of its own: the first one would go on
/// as its answers.
#[test]
fn a_late_answer_does_not_turn_a_refused_connection_round() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 500;
    for family in Family::ALL {
        for protocol in [UDP, TCP] {
            let packet = |from, to, ports, step| match protocol {
                UDP => udp(from, to, ports, family),
                _ => tcp(from, to, ports, family, step),
            };
            let forth = packet(PodA, PodB, (4006, 53), Tcp::Ack);
            let back = packet(PodB, PodA, (53, 4006), Tcp::Ack);
            stage.open(PodB);
            for round in [&packet(PodA, PodB, (4006, 53), Tcp::Syn), &forth] {
                assert_eq!(stage.leave(PodA, round).action, Action::Redirect);
                assert_eq!(stage.leave(PodB, &back).action, Action::Redirect);
            }
            generation += 2;
            stage.enforce(PodB, generation, Some(&[]), None);
            for _ in 0..3 {
                assert_eq!(stage.leave(PodA, &forth).action, DENIED, "{family:?} {protocol}");
                assert_eq!(stage.leave(PodB, &back).action, Action::Redirect, "B may send what it likes");
            }
            // Allowed again, it goes on; a connection that B opens is one.
            stage.enforce(PodB, generation + 1, Some(&[Rule(1005, protocol, Some(53))]), None);
            assert_eq!(stage.leave(PodA, &forth).action, Action::Redirect);
            let entry = stage.connection(protocol, PodA.at(family, 4006), PodB.at(family, 53)).unwrap();
            assert_eq!(entry.flags & (CT_REFUSED | CT_STARTED_BY_HIGH), 0);
        }
        generation += 2;
        stage.enforce(PodB, generation, Some(&[]), None);
        let ack = tcp(PodA, PodB, (4006, 53), family, Tcp::Ack);
        assert_eq!(stage.leave(PodA, &ack).action, DENIED);
        assert_eq!(
            stage.leave(PodB, &tcp(PodB, PodA, (53, 4006), family, Tcp::Syn)).action,
            Action::Redirect
        );
        assert_eq!(stage.leave(PodA, &ack).action, Action::Redirect, "an answer to what B has opened");
    }
}

#[test]
fn an_expired_connection_is_none() {
    let mut stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        stage.open(PodB);
        let ends = (PodA.at(family, 4005), PodB.at(family, 53));
        stage.leave(PodA, &udp(PodA, PodB, (4005, 53), family));
        let mut entry = stage.connection(UDP, ends.0, ends.1).unwrap();
        entry.expires = 1;
        let key = cilium_bpf::layout::CtKey::new(UDP, (ends.0.ip().into(), 4005), (ends.1.ip().into(), 53)).0;
        cilium_delta::Table::set(&mut stage.maps.ct, &key, &entry).unwrap();
        stage.enforce(PodB, 300, None, Some(&[]));
        assert_eq!(stage.leave(PodB, &udp(PodB, PodA, (53, 4005), family)).action, DENIED);
    }
}

#[test]
fn a_pod_may_only_use_its_own_address_and_device() {
    let stage = Stage::new(Mode::Native);
    let invalid = Action::Drop(DropReason::InvalidSourceIp);
    for family in Family::ALL {
        for source in [PodB, RemotePod, Host, World] {
            assert_eq!(stage.leave(PodA, &udp(source, PodB, (1, 2), family)).action, invalid, "{source:?}");
        }
        assert_eq!(stage.leave(PodB, &udp(PodA, PodB, (1, 2), family)).action, invalid);
    }
}

#[test]
fn a_closed_slot_lets_nothing_through() {
    let mut stage = Stage::new(Mode::Native);
    let closed = Action::Drop(DropReason::EndpointNotReady);
    for family in Family::ALL {
        stage.open(PodB);
        let (forth, back) = (udp(PodA, PodB, (4006, 53), family), udp(PodB, PodA, (53, 4006), family));
        assert_eq!(stage.leave(PodA, &forth).action, Action::Redirect);
        stage.close(PodB);
        assert_eq!(stage.leave(PodA, &forth).action, closed, "not even what is established");
        assert_eq!(stage.leave(PodB, &back).action, closed);
        assert_eq!(stage.leave(PodB, &udp(PodB, World, (1, 2), family)).action, closed);
        assert_eq!(stage.enter(PodB, &udp(Host, PodB, (1, 2), family)).action, closed);
        assert_eq!(
            stage
                .receive(&packet::udp(stage.uplink.mac.0, World.at(family, 1), PodB.at(family, 2), b""))
                .action,
            closed
        );
    }
}

#[test]
fn the_last_hop_is_left_to_the_stack() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let packet = packet::with_hops(udp(PodA, PodB, (1, 2), family), 1);
        let outcome = stage.leave(PodA, &packet);
        assert_eq!(outcome.action, Action::Refuse(DropReason::TtlExceeded));
        assert_eq!(outcome.packet, packet);
        let outcome = stage.leave(PodA, &packet::with_hops(packet, 2));
        assert_eq!((outcome.action, Seen::read(&outcome.packet).hops), (Action::Redirect, 1));
    }
}

#[test]
fn a_pod_may_talk_to_itself() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 400, Some(&[]), Some(&[]));
    for family in Family::ALL {
        assert_eq!(stage.leave(PodA, &udp(PodA, PodA, (9, 8), family)).action, Action::Redirect);
        assert_eq!(stage.leave(PodA, &udp(PodA, PodA, (8, 9), family)).action, Action::Redirect);
    }
}
