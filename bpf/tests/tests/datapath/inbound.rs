//! From outside of the node's pods to one of them.

use bpf_tests::packet::{self, HOPS, Tcp};
use bpf_tests::seen::{Seen, check_checksums};
use bpf_tests::stage::{Action, Place::*, Rule, Stage, ip, pod_mac};
use bpf_tests::{Family, Mode, Place};
use cilium_bpf::layout::{CT_DIRECT, CT_REPLIED, CT_STACK, CT_STARTED_BY_HIGH};
use cilium_bpf::reason::DropReason;

use crate::{ANY_MAC, DENIED, TCP, UDP};

fn udp(stage: &Stage, from: Place, to: Place, ports: (u16, u16), family: Family) -> Vec<u8> {
    packet::udp(stage.uplink.mac.0, from.at(family, ports.0), to.at(family, ports.1), b"hello")
}

#[test]
fn a_packet_from_the_network_is_delivered_past_the_stack() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let packet = udp(&stage, RemotePod, PodA, (6000, 80), family);
        let outcome = stage.receive(&packet);
        assert_eq!(outcome.action, Action::Redirect);
        let expected = Seen {
            mac_destination: pod_mac(PodA),
            mac_source: stage.uplink.mac.0,
            hops: HOPS - 1,
            ..Seen::read(&packet)
        };
        assert_eq!(Seen::read(&outcome.packet), expected);
        check_checksums(&outcome.packet);
        let entry = stage.connection(UDP, RemotePod.at(family, 6000), PodA.at(family, 80)).unwrap();
        assert_eq!(entry.flags, CT_DIRECT | CT_STARTED_BY_HIGH);
        assert_eq!((entry.egress_generation, entry.ingress_generation), (0, 1));
    }
}

#[test]
fn ingress_policy_knows_who_sends() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 4000;
    for sender in [RemotePod, RemoteNode, World] {
        for family in Family::ALL {
            generation += 10;
            let identity = sender.identity(family);
            let packet = udp(&stage, sender, PodA, (6001, 80), family);
            stage.enforce(PodA, generation, Some(&[Rule(identity + 1, 0, None)]), None);
            assert_eq!(stage.receive(&packet).action, DENIED, "{sender:?}");
            stage.enforce(PodA, generation + 1, Some(&[Rule(identity, UDP, Some(80))]), None);
            assert_eq!(stage.receive(&packet).action, Action::Redirect, "{sender:?}");
            stage.enforce(PodA, generation + 2, Some(&[]), None);
            assert_eq!(stage.receive(&packet).action, DENIED, "{sender:?}: judged again");
        }
    }
}

#[test]
fn the_pods_answer_passes_and_is_not_masqueraded() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 4100, Some(&[Rule(0, TCP, Some(80))]), Some(&[]));
    for family in Family::ALL {
        let ends = (World.at(family, 6002), PodA.at(family, 80));
        stage.receive(&packet::tcp(stage.uplink.mac.0, ends.0, ends.1, Tcp::Syn));
        let outcome = stage.leave(PodA, &packet::tcp(ANY_MAC, ends.1, ends.0, Tcp::SynAck));
        assert_eq!(outcome.action, Action::Redirect);
        assert_eq!(Seen::read(&outcome.packet).source, PodA.ip(family));
        check_checksums(&outcome.packet);
    }
}

#[test]
fn nobody_outside_may_use_an_address_of_this_node() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        for sender in [Host, PodB, PodA] {
            let packet = udp(&stage, sender, PodA, (6003, 80), family);
            assert_eq!(
                stage.receive(&packet).action,
                Action::Drop(DropReason::InvalidSourceIp),
                "{sender:?}"
            );
        }
    }
}

#[test]
fn what_is_not_for_pods_goes_to_the_stack_as_it_is() {
    let stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let host = |port| packet::udp(mac, World.at(family, 6004), Host.at(family, port), b"");
        let table = [
            ("for the node", host(22)),
            ("for a port that connections are masqueraded with, but none is", host(61_000)),
            ("through the node", udp(&stage, World, Kept, (1, 2), family)),
            (
                "for another machine",
                packet::udp([2, 9, 9, 9, 9, 9], World.at(family, 1), PodA.at(family, 2), b""),
            ),
            ("an unknown protocol", packet::other_protocol(mac, World.ip(family), PodA.ip(family), 47)),
        ];
        for (what, packet) in table {
            let outcome = stage.receive(&packet);
            assert_eq!(outcome.action, Action::Pass, "{what}");
            assert_eq!(outcome.packet, packet, "{what}");
        }
    }
}

#[test]
fn the_host_reaches_its_pods_and_gets_its_answers() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 4200, Some(&[Rule(1, 0, None)]), Some(&[]));
    for family in Family::ALL {
        let ends = (Host.at(family, 6005), PodA.at(family, 8080));
        let packet = packet::tcp(ANY_MAC, ends.0, ends.1, Tcp::Syn);
        let outcome = stage.enter(PodA, &packet);
        assert_eq!((outcome.action, &outcome.packet), (Action::Pass, &packet));
        let answer = stage.leave(PodA, &packet::tcp(ANY_MAC, ends.1, ends.0, Tcp::SynAck));
        assert_eq!(answer.action, Action::Pass);
        let entry = stage.connection(TCP, ends.0, ends.1).unwrap();
        assert_eq!(entry.flags & (CT_STACK | CT_REPLIED), CT_STACK | CT_REPLIED);
        let other = packet::tcp(ANY_MAC, PodA.at(family, 8081), ends.0, Tcp::Syn);
        assert_eq!(stage.leave(PodA, &other).action, DENIED, "not the other way round");
    }
}

#[test]
fn what_the_stack_forwards_is_judged_by_its_sender() {
    let mut stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let packet = packet::udp(ANY_MAC, World.at(family, 6006), PodA.at(family, 80), b"");
        stage.enforce(PodA, 4300, Some(&[]), None);
        assert_eq!(stage.enter(PodA, &packet).action, DENIED);
        stage.enforce(PodA, 4301, Some(&[Rule(World.identity(family), UDP, None)]), None);
        assert_eq!(stage.enter(PodA, &packet).action, Action::Pass);
        let elsewhere = packet::udp(ANY_MAC, Host.at(family, 1), PodB.at(family, 80), b"");
        assert_eq!(stage.enter(PodA, &elsewhere).action, Action::Drop(DropReason::UnknownTarget));
    }
}

#[test]
fn a_packet_from_the_tunnel_must_have_a_tunnel_key() {
    let stage = Stage::new(Mode::Tunnel);
    let packet = udp(&stage, RemotePod, PodA, (1, 2), Family::V4);
    let program = cilium_drivers::datapath::DeviceProgram::FromOverlay;
    let outcome = stage.run(program, &stage.tunnel, &packet, 1);
    assert_eq!(outcome.action, Action::Drop(DropReason::TunnelKey));
}

#[test]
fn an_unknown_address_of_the_other_family_is_world_too() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 4400, Some(&[Rule(10, 0, None)]), None);
    let v6 = packet::udp(stage.uplink.mac.0, (ip("2001:db8:5::5"), 5).into(), PodA.at(Family::V6, 80), b"");
    assert_eq!(stage.receive(&v6).action, Action::Redirect);
    let v4 = packet::udp(stage.uplink.mac.0, (ip("203.0.113.5"), 5).into(), PodA.at(Family::V4, 80), b"");
    assert_eq!(stage.receive(&v4).action, DENIED);
}
