//! Traffic that leaves the cluster under the node's address, and comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bpf_tests::packet::{self, Echo, Tcp};
use bpf_tests::seen::{Seen, check_checksums};
use bpf_tests::stage::{Action, Place::*, Rule, Stage, pod_mac};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{NAT_IN, NatEntry, NatKey, NetPort};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;

use crate::{ANY_MAC, DENIED, TCP, UDP};

/// Sends a packet out and gives the port it leaves with.
fn masqueraded(stage: &Stage, family: Family, packet: &[u8]) -> u16 {
    let outcome = stage.leave(PodA, packet);
    assert_eq!(outcome.action, Action::Redirect);
    check_checksums(&outcome.packet);
    let (before, after) = (Seen::read(packet), Seen::read(&outcome.packet));
    assert_eq!(after.source, Host.ip(family));
    assert_eq!(after.destination, before.destination);
    assert!(after.source_port >= 61_000);
    after.source_port
}

/// Checks that a packet from the network reached the pod under its own address.
fn arrived(stage: &Stage, packet: &[u8], to: SocketAddr) {
    let outcome = stage.receive(packet);
    assert_eq!(outcome.action, Action::Redirect);
    check_checksums(&outcome.packet);
    let after = Seen::read(&outcome.packet);
    assert_eq!((after.destination, after.destination_port), (to.ip(), to.port()));
    assert_eq!(after.source, Seen::read(packet).source);
    assert_eq!(after.mac_destination, pod_mac(PodA));
}

#[test]
fn out_and_back() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = Stage::new(mode);
        stage.enforce(PodA, 10, Some(&[]), Some(&[Rule(0, 0, None)]));
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let (pod, world) = (PodA.at(family, 7000), World.at(family, 443));
            let port = masqueraded(&stage, family, &packet::tcp(ANY_MAC, pod, world, Tcp::Syn));
            arrived(&stage, &packet::tcp(mac, world, Host.at(family, port), Tcp::SynAck), pod);
            for _ in 0..3 {
                assert_eq!(masqueraded(&stage, family, &packet::tcp(ANY_MAC, pod, world, Tcp::Ack)), port);
            }
            let port = masqueraded(&stage, family, &packet::udp(ANY_MAC, pod, world, b"odd"));
            arrived(&stage, &packet::udp(mac, world, Host.at(family, port), b"reply"), pod);

            let id = 77;
            let ping = packet::echo(ANY_MAC, pod.ip(), world.ip(), Echo::Request, id);
            let port = masqueraded(&stage, family, &ping);
            let pong = packet::echo(mac, world.ip(), Host.ip(family), Echo::Reply, port);
            arrived(&stage, &pong, (pod.ip(), id).into());
        }
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let stage = Stage::new(Mode::Native);
    let mut packet = packet::udp(ANY_MAC, PodA.at(Family::V4, 7010), World.at(Family::V4, 53), b"data");
    let checksum = Seen::read(&packet).transport + 6;
    packet[checksum..checksum + 2].fill(0);
    let outcome = stage.leave(PodA, &packet);
    assert_eq!(Seen::read(&outcome.packet).source, Host.ip(Family::V4));
    assert_eq!(outcome.packet[checksum..checksum + 2], [0, 0]);
}

#[test]
fn only_what_leaves_the_cluster() {
    for (mode, destination, expected) in [
        (Mode::Native, RemotePod, PodA),
        (Mode::Native, RemoteNode, PodA),
        (Mode::Native, Kept, PodA),
        (Mode::Native, World, Host),
        (Mode::Tunnel, RemotePod, PodA),
        (Mode::Tunnel, RemoteNode, Host),
        (Mode::Tunnel, World, Host),
    ] {
        let stage = Stage::new(mode);
        for family in Family::ALL {
            let packet = packet::udp(ANY_MAC, PodA.at(family, 7001), destination.at(family, 53), b"");
            let after = Seen::read(&stage.leave(PodA, &packet).packet);
            assert_eq!(after.source, expected.ip(family), "{mode:?} {destination:?}");
        }
    }
}

#[test]
fn only_the_one_that_was_asked_can_answer() {
    let stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (pod, world) = (PodA.at(family, 7002), World.at(family, 53));
        let port = masqueraded(&stage, family, &packet::udp(ANY_MAC, pod, world, b""));
        let host = Host.at(family, port);
        for (what, packet) in [
            ("another port", packet::udp(mac, World.at(family, 54), host, b"")),
            ("another address", packet::udp(mac, Kept.at(family, 53), host, b"")),
            ("another protocol", packet::tcp(mac, world, host, Tcp::SynAck)),
        ] {
            let outcome = stage.receive(&packet);
            assert_eq!((outcome.action, &outcome.packet), (Action::Pass, &packet), "{what}");
        }
    }
}

#[test]
fn the_nodes_address_opens_no_way_into_a_pod() {
    let mut stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (pod, world) = (PodA.at(family, 7003), World.at(family, 443));
        let port = masqueraded(&stage, family, &packet::tcp(ANY_MAC, pod, world, Tcp::Syn));
        let host = Host.at(family, port);
        let unknown = Action::Drop(DropReason::CtUnknownState);
        assert_eq!(stage.receive(&packet::tcp(mac, world, host, Tcp::Syn)).action, unknown);
        let key = cilium_bpf::layout::CtKey::new(TCP, (pod.ip().into(), 7003), (world.ip().into(), 443)).0;
        stage.maps.ct.delete(&key).unwrap();
        assert_eq!(stage.receive(&packet::tcp(mac, world, host, Tcp::Ack)).action, unknown);
        // The pod's next packet brings the connection back, with the same port.
        assert_eq!(masqueraded(&stage, family, &packet::tcp(ANY_MAC, pod, world, Tcp::Ack)), port);
        arrived(&stage, &packet::tcp(mac, world, host, Tcp::Ack), pod);
    }
}

#[test]
fn connections_to_one_place_get_different_ports() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let ports: BTreeSet<u16> = (0..300)
            .map(|i| packet::udp(ANY_MAC, PodA.at(family, 8000 + i), World.at(family, 53), b""))
            .map(|packet| masqueraded(&stage, family, &packet))
            .collect();
        assert_eq!(ports.len(), 300);
    }
}

#[test]
fn when_all_ports_are_taken_new_connections_fail_and_idle_ones_give_way() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.nat_last = 61_003);
    let open = |stage: &Stage, port| {
        let packet = packet::udp(ANY_MAC, PodA.at(Family::V4, port), World.at(Family::V4, 53), b"");
        stage.leave(PodA, &packet).action
    };
    for port in 1..=4 {
        assert_eq!(open(&stage, port), Action::Redirect);
    }
    assert_eq!(open(&stage, 5), Action::Drop(DropReason::NatNoMapping));
    assert_eq!(stage.connection(UDP, PodA.at(Family::V4, 5), World.at(Family::V4, 53)), None);

    let taken: Vec<(NatKey, NatEntry)> = stage.maps.snat.entries().unwrap();
    let (key, entry) = *taken.iter().find(|(key, _)| key.direction == NAT_IN).unwrap();
    stage.maps.snat.set(&key, &NatEntry { expires: 1, ..entry }).unwrap();
    assert_eq!(open(&stage, 5), Action::Redirect);
    let holder = stage.maps.snat.get(&key).unwrap().unwrap();
    assert_eq!(holder.to_port, NetPort(5));
}

#[test]
fn protocols_that_cannot_share_an_address_do_not_leave() {
    let stage = Stage::new(Mode::Native);
    let unsupported = Action::Drop(DropReason::NatUnsupportedProtocol);
    for family in Family::ALL {
        let sctp = packet::other_protocol(ANY_MAC, PodA.ip(family), World.ip(family), 132);
        assert_eq!(stage.leave(PodA, &sctp).action, unsupported);
        let pong = packet::echo(ANY_MAC, PodA.ip(family), World.ip(family), Echo::Reply, 5);
        assert_eq!(stage.leave(PodA, &pong).action, unsupported);
    }
}

#[test]
fn policy_is_asked_before_a_port_is_taken() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 20, None, Some(&[]));
    for family in Family::ALL {
        let packet = packet::udp(ANY_MAC, PodA.at(family, 7004), World.at(family, 53), b"");
        assert_eq!(stage.leave(PodA, &packet).action, DENIED);
    }
    assert_eq!(stage.maps.snat.count().unwrap(), 0);
}

#[test]
fn errors_from_outside_reach_the_pod_about_its_own_packet() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 30, Some(&[]), None);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (pod, world) = (PodA.at(family, 7005), World.at(family, 53));
        let sent = stage.leave(PodA, &packet::udp(ANY_MAC, pod, world, b"")).packet;
        let error = packet::unreachable(mac, Kept.ip(family), Host.ip(family), &sent);
        let outcome = stage.receive(&error);
        assert_eq!(outcome.action, Action::Redirect);
        check_checksums(&outcome.packet);
        assert_eq!(Seen::read(&outcome.packet).destination, pod.ip());
        let quoted = Seen::quoted(&outcome.packet);
        assert_eq!((quoted.source, quoted.source_port), (pod.ip(), pod.port()));
        assert_eq!((quoted.destination, quoted.destination_port), (world.ip(), world.port()));

        let about_node = packet::udp(ANY_MAC, Host.at(family, 62_000), world, b"");
        let error = packet::unreachable(mac, Kept.ip(family), Host.ip(family), &about_node);
        let outcome = stage.receive(&error);
        assert_eq!((outcome.action, &outcome.packet), (Action::Pass, &error), "about the node's own packet");
    }
}

#[test]
fn errors_of_the_pod_leave_about_what_the_other_end_sent() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 40, Some(&[]), Some(&[Rule(0, UDP, None)]));
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (pod, world) = (PodA.at(family, 7006), World.at(family, 53));
        let port = masqueraded(&stage, family, &packet::udp(ANY_MAC, pod, world, b""));
        let reply = stage.receive(&packet::udp(mac, world, Host.at(family, port), b"late")).packet;
        let outcome = stage.leave(PodA, &packet::unreachable(ANY_MAC, pod.ip(), world.ip(), &reply));
        assert_eq!(outcome.action, Action::Redirect);
        check_checksums(&outcome.packet);
        assert_eq!(Seen::read(&outcome.packet).source, Host.ip(family));
        let quoted = Seen::quoted(&outcome.packet);
        assert_eq!((quoted.destination, quoted.destination_port), (Host.ip(family), port));
        assert_eq!((quoted.source, quoted.source_port), (world.ip(), world.port()));
    }
}

#[test]
fn fragments_leave_and_come_back_under_one_address() {
    let stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (pod, world) = (PodA.at(family, 7007), World.at(family, 53));
        let [first, later] = packet::fragments(&packet::udp(ANY_MAC, pod, world, &[1; 64]), 24, 900);
        let head = stage.leave(PodA, &first);
        let port = Seen::read(&head.packet).source_port;
        assert_eq!((head.action, Seen::read(&head.packet).source), (Action::Redirect, Host.ip(family)));
        let tail = stage.leave(PodA, &later);
        assert_eq!((tail.action, Seen::read(&tail.packet).source), (Action::Redirect, Host.ip(family)));
        let payload = Seen::read(&tail.packet).transport;
        assert_eq!(tail.packet[payload..], later[payload..], "a later fragment has no ports to change");

        let whole = packet::udp(mac, world, Host.at(family, port), &[2; 64]);
        for fragment in packet::fragments(&whole, 24, 901) {
            let outcome = stage.receive(&fragment);
            assert_eq!(
                (outcome.action, Seen::read(&outcome.packet).destination),
                (Action::Redirect, pod.ip())
            );
        }
    }
}
