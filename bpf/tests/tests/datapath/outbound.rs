//! From a pod to everything that is not a pod of its node, without masquerade.

use bpf_tests::packet::{self, HOPS, Tcp};
use bpf_tests::seen::{Seen, check_checksums};
use bpf_tests::stage::{Action, Place::*, Rule, Stage, ip};
use bpf_tests::{Family, Mode, Place};
use cilium_bpf::layout::{CONFIG_MASQUERADE4, CT_DIRECT, CT_REPLIED, CT_STACK, CT_TUNNEL};
use cilium_bpf::reason::DropReason;

use crate::{ANY_MAC, DENIED, TCP, UDP};

fn udp(from: Place, to: Place, ports: (u16, u16), family: Family) -> Vec<u8> {
    packet::udp(ANY_MAC, from.at(family, ports.0), to.at(family, ports.1), b"hello")
}

#[test]
fn each_destination_is_reached_by_its_own_way() {
    let table: [(Mode, Place, Action, u16); 8] = [
        (Mode::Native, Host, Action::Pass, CT_STACK),
        (Mode::Native, RemotePod, Action::Redirect, CT_DIRECT),
        (Mode::Native, RemoteNode, Action::Redirect, CT_DIRECT),
        (Mode::Native, Kept, Action::Redirect, CT_DIRECT),
        (Mode::Tunnel, Host, Action::Pass, CT_STACK),
        (Mode::Tunnel, RemotePod, Action::Redirect, CT_TUNNEL),
        (Mode::Tunnel, RemoteNode, Action::Redirect, CT_DIRECT),
        (Mode::Tunnel, Kept, Action::Redirect, CT_DIRECT),
    ];
    for mode in [Mode::Native, Mode::Tunnel] {
        let stage = Stage::new(mode);
        for (_, destination, action, route) in table.iter().filter(|row| row.0 == mode) {
            for family in Family::ALL {
                let what = format!("{mode:?} {destination:?} {family:?}");
                let packet = udp(PodA, *destination, (5000, 53), family);
                for flags in [0, CT_REPLIED] {
                    let outcome = stage.leave(PodA, &packet);
                    assert_eq!(outcome.action, *action, "{what}");
                    let entry =
                        stage.connection(UDP, PodA.at(family, 5000), destination.at(family, 53)).unwrap();
                    assert_eq!(entry.flags & (route | CT_REPLIED), route | flags, "{what}");
                    assert_eq!((entry.egress_generation, entry.ingress_generation), (1, 0), "{what}");
                    if flags == 0 {
                        let back = packet::udp(
                            stage.uplink.mac.0,
                            destination.at(family, 53),
                            PodA.at(family, 5000),
                            b"",
                        );
                        if *destination == Host {
                            stage.enter(PodA, &back);
                        } else if entry.nat_port.0 == 0 {
                            stage.receive(&back);
                        } else {
                            break;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_hop_limit_is_taken_from_what_is_forwarded_only() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let stage = Stage::new(mode);
        for family in Family::ALL {
            for (destination, hops) in [(Host, HOPS), (RemotePod, HOPS - 1), (World, HOPS - 1)] {
                let outcome = stage.leave(PodA, &udp(PodA, destination, (5001, 53), family));
                assert_eq!(Seen::read(&outcome.packet).hops, hops, "{destination:?}");
                check_checksums(&outcome.packet);
            }
            for destination in [RemotePod, World] {
                let packet = packet::with_hops(udp(PodA, destination, (5002, 53), family), 1);
                let outcome = stage.leave(PodA, &packet);
                assert_eq!(outcome.action, Action::Refuse(DropReason::TtlExceeded), "{destination:?}");
                assert_eq!(outcome.packet, packet, "the stack's answer must quote what the pod sent");
            }
        }
    }
}

#[test]
fn egress_policy_knows_who_is_there() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = Stage::new(mode);
        for (number, destination) in [Host, RemotePod, RemoteNode, World].into_iter().enumerate() {
            for family in Family::ALL {
                let identity = destination.identity(family);
                let generation = 1000 + number as u32 * 10 + identity * 100;
                let packet = udp(PodA, destination, (5003, 53), family);
                stage.enforce(PodA, generation, None, Some(&[Rule(identity + 1, 0, None)]));
                assert_eq!(stage.leave(PodA, &packet).action, DENIED, "{destination:?}");
                stage.enforce(PodA, generation + 1, None, Some(&[Rule(identity, UDP, Some(53))]));
                assert_ne!(stage.leave(PodA, &packet).action, DENIED, "{destination:?}");
                stage.enforce(PodA, generation + 2, None, Some(&[]));
                assert_eq!(stage.leave(PodA, &packet).action, DENIED, "{destination:?}");
            }
        }
    }
}

#[test]
fn a_prefix_of_the_world_can_have_an_identity() {
    let mut stage = Stage::new(Mode::Native);
    let known = 1 << 24 | 3;
    for (family, prefix, bits) in [(Family::V4, "198.51.100.0", 24), (Family::V6, "2001:db8:ffff::", 48)] {
        let key = cilium_bpf::layout::IpcacheKey::new(ip(prefix), bits);
        let entry = cilium_bpf::layout::IpcacheEntry { identity: known, ..Default::default() };
        cilium_delta::Table::set(&mut stage.maps.ipcache, &key, &entry).unwrap();
        stage.enforce(PodA, 2000, None, Some(&[Rule(known, UDP, None)]));
        assert_eq!(stage.leave(PodA, &udp(PodA, World, (5004, 53), family)).action, Action::Redirect);
        let entry = stage.connection(UDP, PodA.at(family, 5004), World.at(family, 53)).unwrap();
        assert_ne!(entry.nat_port.0, 0, "it is still outside");
    }
}

#[test]
fn a_new_address_is_noticed_while_nobody_answers() {
    let mut stage = Stage::new(Mode::Tunnel);
    let late = ip("10.2.0.99");
    let packet = packet::udp(ANY_MAC, PodA.at(Family::V4, 5005), (late, 53).into(), b"");
    stage.leave(PodA, &packet);
    let route =
        |stage: &Stage| stage.connection(UDP, PodA.at(Family::V4, 5005), (late, 53).into()).unwrap().flags;
    assert_eq!(route(&stage), CT_DIRECT);
    stage.know(late, 1099, Some(RemoteNode.ip(Family::V4)));
    assert_eq!(stage.leave(PodA, &packet).action, Action::Redirect);
    assert_eq!(route(&stage), CT_TUNNEL);
}

#[test]
fn without_a_route_the_stack_refuses_and_nothing_leaks() {
    let stage = Stage::new(Mode::Native);
    let multicast = packet::udp(ANY_MAC, PodA.at(Family::V4, 1), "224.0.0.251:5353".parse().unwrap(), b"");
    let outcome = stage.leave(PodA, &multicast);
    assert_eq!(outcome.action, Action::Pass);
    assert_eq!(outcome.packet, multicast, "not masqueraded, as the stack answers to the pod");
}

#[test]
fn nothing_is_masqueraded_that_is_not_asked_for() {
    let stage = Stage::with_config(Mode::Native, |config| config.flags = CONFIG_MASQUERADE4);
    for (family, source) in [(Family::V4, Host), (Family::V6, PodA)] {
        let outcome = stage.leave(PodA, &udp(PodA, World, (5006, 53), family));
        assert_eq!(Seen::read(&outcome.packet).source, source.ip(family));
    }
}

#[test]
fn the_hosts_own_packets_to_remote_pods_go_through_the_tunnel() {
    let stage = Stage::new(Mode::Tunnel);
    for family in Family::ALL {
        let to_pod = stage.route(&udp(Host, RemotePod, (5007, 80), family));
        assert_eq!((to_pod.action, Seen::read(&to_pod.packet).hops), (Action::Redirect, HOPS - 1));
        assert_eq!(stage.route(&udp(Host, Host, (5007, 80), family)).action, Action::Pass);
        let lost = stage.route(&udp(Host, Kept, (5007, 80), family));
        assert_eq!(lost.action, Action::Drop(DropReason::NoTunnelEndpoint));
    }
    let stage = Stage::new(Mode::Native);
    assert_eq!(stage.route(&udp(Host, RemotePod, (5007, 80), Family::V4)).action, Action::Pass);
}

#[test]
fn an_established_connection_keeps_its_way() {
    let mut stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let ends = (PodA.at(family, 5008), RemotePod.at(family, 80));
        let send = |stage: &Stage, flags| stage.leave(PodA, &packet::tcp(ANY_MAC, ends.0, ends.1, flags));
        let answer =
            |stage: &Stage, flags| stage.receive(&packet::tcp(stage.uplink.mac.0, ends.1, ends.0, flags));
        stage.enforce(PodA, 3000, Some(&[]), Some(&[Rule(1007, TCP, Some(80))]));
        assert_eq!(send(&stage, Tcp::Syn).action, Action::Redirect);
        assert_eq!(answer(&stage, Tcp::SynAck).action, Action::Redirect);
        assert_eq!(send(&stage, Tcp::Ack).action, Action::Redirect);
        stage.enforce(PodA, 3001, Some(&[]), Some(&[]));
        assert_eq!(send(&stage, Tcp::Ack).action, DENIED, "policy changes reach established connections");
        assert_eq!(answer(&stage, Tcp::Ack).action, DENIED);
    }
}
