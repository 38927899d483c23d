//! Direct server return: backends of other nodes answer clients by themselves.

use std::net::{IpAddr, SocketAddr};

use bpf_tests::packet::{self, Tcp};
use bpf_tests::seen::{Seen, Told, check_checksums, subject, told};
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Outcome, Place, Place::*, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{CONFIG_SET_RETVAL, SERVICE_DSR};
use cilium_bpf::reason::DropReason;

use crate::nodeport::mk_packet;
use crate::{ANY_MAC, SCTP, TCP, UDP};

const CLIENT: u16 = 40_000;
const PORT: u16 = 30_080;

/// An address of a load balancer.
fn balancer(family: Family) -> SocketAddr {
    (ip(if family == Family::V4 { "203.0.113.7" } else { "2001:db8:7::7" }), 443).into()
}

fn any(family: Family) -> SocketAddr {
    (ip(if family == Family::V4 { "0.0.0.0" } else { "::" }), PORT).into()
}

/// A stage with one service at a port of nodes and an address of a load balancer, with that backend.
fn stage(mode: Mode, flags: u32, backend: Place) -> Stage {
    let mut stage = Stage::with_config(mode, |config| {
        config.flags |= CONFIG_SET_RETVAL;
        config.mtu = 1500;
    });
    for (number, family) in (0..).zip(Family::ALL) {
        for (other, protocol) in [(0, TCP), (2, UDP)] {
            let service =
                Frontend { generation: 10 + number + other, protocol, flags, ..Frontend::default() };
            for at in [any(family), balancer(family)] {
                service.serve(&mut stage.maps, at, &[backend.at(family, 80)]);
            }
        }
    }
    stage
}

/// The bytes behind the IP header proper, as they go over the wire.
fn option(at: SocketAddr, next: u8) -> Vec<u8> {
    match at.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let [high, low] = at.port().to_be_bytes();
            vec![0x9a, 8, low, high, d, c, b, a]
        }
        IpAddr::V6(v6) => {
            let mut bytes = vec![next, 2, 0x1b, 20];
            bytes.extend_from_slice(&v6.octets());
            bytes.extend_from_slice(&at.port().to_be_bytes());
            bytes.extend_from_slice(&[0, 0]);
            bytes
        }
    }
}

/// Offset behind the IP header proper.
fn after_ip(family: Family) -> usize {
    14 + if family == Family::V4 { 20 } else { 40 }
}

/// Source and destination behind a header with an option, or without one.
fn ends(packet: &[u8], family: Family, announced: Option<(SocketAddr, u8)>) -> (SocketAddr, SocketAddr) {
    let mut plain = packet.to_vec();
    if let Some((at, protocol)) = announced {
        let wanted = option(at, protocol);
        let start = after_ip(family);
        assert_eq!(packet[start..start + wanted.len()], wanted);
        if family == Family::V4 {
            let header = &packet[14..start + 8];
            assert_eq!((header[0], bpf_tests::seen::checksum(&[header])), (0x47, 0));
            let length = u16::from_be_bytes([header[2], header[3]]);
            assert_eq!(usize::from(length), packet.len() - 14);
        } else {
            assert_eq!(packet[20], 60, "destination options");
            let length = u16::from_be_bytes([packet[18], packet[19]]);
            assert_eq!(usize::from(length), packet.len() - 54);
        }
        plain = without(packet, family, wanted.len());
    }
    check_checksums(&plain);
    let seen = Seen::read(&plain);
    ((seen.source, seen.source_port).into(), (seen.destination, seen.destination_port).into())
}

/// The packet as it would be without the option.
fn without(packet: &[u8], family: Family, length: usize) -> Vec<u8> {
    let start = after_ip(family);
    let mut plain = packet.to_vec();
    if family == Family::V4 {
        plain[14] = 0x45;
        let total = (packet.len() - 14 - length) as u16;
        plain[16..18].copy_from_slice(&total.to_be_bytes());
        plain[24..26].fill(0);
        let sum = bpf_tests::seen::checksum(&[&plain[14..34]]);
        plain[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        plain[20] = packet[start];
        let payload = (packet.len() - 54 - length) as u16;
        plain[18..20].copy_from_slice(&payload.to_be_bytes());
    }
    plain.drain(start..start + length);
    plain
}

fn redirected(outcome: &Outcome) -> &[u8] {
    assert_eq!(outcome.action, Action::Redirect);
    &outcome.packet
}

#[test]
fn the_first_packet_and_every_datagram_say_to_which_service_they_came() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let stage = stage(mode, SERVICE_DSR, RemotePod);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            for protocol in [TCP, UDP] {
                for (at, port) in [(Host.at(family, PORT), CLIENT), (balancer(family), CLIENT + 1)] {
                    let (client, pod) = (World.at(family, port), RemotePod.at(family, 80));
                    for flags in [Tcp::Syn, Tcp::Ack, Tcp::Fin] {
                        let told = protocol == UDP || flags == Tcp::Syn;
                        let outcome = stage.receive(&mk_packet(protocol, mac, client, at, flags));
                        let announced = told.then_some((at, protocol));
                        let ends = ends(redirected(&outcome), family, announced);
                        assert_eq!(ends, (client, pod), "{mode:?} {protocol} {flags:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_one_node_sends_the_other_answers_as_the_service() {
    let here = stage(Mode::Native, SERVICE_DSR, RemotePod);
    // To the other node, the pod is one of its own.
    let there = stage(Mode::Native, SERVICE_DSR, PodA);
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            for (port, at) in [(CLIENT, balancer(family)), (CLIENT + 1, RemoteNode.at(family, PORT))] {
                let client = World.at(family, port);
                let pod = PodA.at(family, 80);
                // The port of a node belongs to the node that the client came to.
                let met = if at == balancer(family) { at } else { Host.at(family, PORT) };
                let mac = here.uplink.mac.0;
                let sent = here.receive(&mk_packet(protocol, mac, client, met, Tcp::Syn));
                let arrived = readdressed(redirected(&sent), family, pod, at, there.uplink.mac.0);
                let outcome = there.receive(&arrived);
                assert_eq!(outcome.action, Action::Redirect, "{family:?} {protocol} {at}");
                for flags in [Tcp::SynAck, Tcp::Ack, Tcp::Ack] {
                    let back = there.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, client, flags));
                    assert_eq!(ends(redirected(&back), family, None), (at, client));
                }
                let more = mk_packet(TCP, there.uplink.mac.0, client, pod, Tcp::Ack);
                if protocol == TCP {
                    assert_eq!(there.receive(&more).action, Action::Redirect);
                }
            }
        }
    }
}

/// The packet as it comes in at a node with that pod and link, from a node with the address of `at`.
fn readdressed(packet: &[u8], family: Family, pod: SocketAddr, at: SocketAddr, mac: [u8; 6]) -> Vec<u8> {
    let length = if family == Family::V4 { 8 } else { 24 };
    let plain = without(packet, family, length);
    let seen = Seen::read(&plain);
    let client = SocketAddr::new(seen.source, seen.source_port);
    let fresh = mk_packet(seen.protocol, mac, client, pod, Tcp::Syn);
    announced(&fresh, family, at, seen.protocol)
}

/// A packet with the option.
fn announced(plain: &[u8], family: Family, at: SocketAddr, protocol: u8) -> Vec<u8> {
    let wanted = option(at, protocol);
    let start = after_ip(family);
    let mut packet = plain.to_vec();
    packet.splice(start..start, wanted.iter().copied());
    if family == Family::V4 {
        packet[14] = 0x47;
        let total = (packet.len() - 14) as u16;
        packet[16..18].copy_from_slice(&total.to_be_bytes());
        packet[24..26].fill(0);
        let sum = bpf_tests::seen::checksum(&[&packet[14..42]]);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[20] = 60;
        let payload = (packet.len() - 54) as u16;
        packet[18..20].copy_from_slice(&payload.to_be_bytes());
    }
    packet
}

#[test]
fn nobody_outside_makes_a_pod_answer_as_somebody_else() {
    let cases = [
        (SERVICE_DSR, PodA, PodB, "another pod is the backend"),
        (0, PodA, PodA, "the service does not do this"),
    ];
    for (flags, backend, pod, why) in cases {
        let stage = stage(Mode::Native, flags, backend);
        for family in Family::ALL {
            let (client, to) = (World.at(family, CLIENT), pod.at(family, 80));
            let plain = packet::udp(stage.uplink.mac.0, client, to, b"data");
            let outcome = stage.receive(&announced(&plain, family, balancer(family), UDP));
            assert_eq!(outcome.action, Action::Drop(DropReason::NoService), "{why}");
        }
    }
    let stage = stage(Mode::Native, SERVICE_DSR, PodA);
    for family in Family::ALL {
        let (client, to) = (World.at(family, CLIENT), PodA.at(family, 80));
        let plain = packet::udp(stage.uplink.mac.0, client, to, b"data");
        // Only an address that is a service's, and a node's for a port of nodes.
        for at in [World.at(family, 443), Kept.at(family, PORT), (balancer(family).ip(), 444).into()] {
            let outcome = stage.receive(&announced(&plain, family, at, UDP));
            assert_eq!(outcome.action, Action::Drop(DropReason::NoService), "{at}");
        }
    }
}

#[test]
fn a_backend_of_this_node_and_one_outside_need_no_option() {
    for (backend, client_seen) in [(PodA, true), (World, false)] {
        let stage = stage(Mode::Native, SERVICE_DSR, backend);
        for family in Family::ALL {
            let client = Kept.at(family, CLIENT);
            let syn = packet::tcp(stage.uplink.mac.0, client, balancer(family), Tcp::Syn);
            let (from, to) = ends(redirected(&stage.receive(&syn)), family, None);
            assert_eq!((from == client, to), (client_seen, backend.at(family, 80)));
        }
    }
}

#[test]
fn a_process_of_the_other_node_answers_as_the_service() {
    let stage = stage(Mode::Native, SERVICE_DSR, Host);
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            let (client, own) = (World.at(family, CLIENT), Host.at(family, 80));
            let plain = mk_packet(protocol, stage.uplink.mac.0, client, own, Tcp::Syn);
            let arrived = announced(&plain, family, balancer(family), protocol);
            assert_eq!(stage.receive(&arrived).action, Action::Pass);
            let answer = mk_packet(protocol, stage.uplink.mac.0, own, client, Tcp::SynAck);
            let outcome = stage.send_out(&answer, 0);
            assert_eq!(outcome.action, Action::Pass);
            assert_eq!(ends(&outcome.packet, family, None), (balancer(family), client));
        }
    }
}

#[test]
fn a_datagram_that_grows_too_large_is_answered_with_what_fits() {
    let stage = stage(Mode::Native, SERVICE_DSR, RemotePod);
    let mac = stage.uplink.mac.0;
    for (family, head, grows) in [(Family::V4, 28, 8), (Family::V6, 48, 24)] {
        let (client, at) = (World.at(family, CLIENT), balancer(family));
        let fits = vec![7; 1500 - head - grows];
        let outcome = stage.receive(&packet::udp(mac, client, at, &fits));
        assert_eq!(outcome.action, Action::Redirect);
        assert_eq!(outcome.packet.len(), 14 + 1500);
        let large = vec![7; 1500 - head - grows + 1];
        let outcome = stage.receive(&packet::udp(mac, client, at, &large));
        assert_eq!(outcome.action, Action::Answer(DropReason::FragmentationNeeded));
        let expected = (Host.ip(family), client.ip(), Told::TooBig(1500 - grows as u32));
        assert_eq!(told(&outcome.packet), expected);
        assert_eq!(subject(&outcome.packet), (client, at));
    }
}

#[test]
fn sctp_goes_to_backends_elsewhere_in_no_other_way() {
    for (flags, expected) in
        [(SERVICE_DSR, Action::Redirect), (0, Action::Drop(DropReason::NatUnsupportedProtocol))]
    {
        let mut stage = Stage::new(Mode::Native);
        for (generation, family) in (1..).zip(Family::ALL) {
            let service = Frontend { generation, protocol: SCTP, flags, ..Frontend::default() };
            let at = SocketAddr::new(balancer(family).ip(), 9899);
            service.serve(&mut stage.maps, at, &[RemotePod.at(family, 9899)]);
            let client = World.at(family, CLIENT);
            let sent = packet::sctp(stage.uplink.mac.0, client, at);
            let outcome = stage.receive(&sent);
            assert_eq!(outcome.action, expected);
            if flags == SERVICE_DSR {
                let length = option(at, SCTP).len();
                assert_eq!(outcome.packet.len(), sent.len() + length);
                let seen = Seen::read(&without(&outcome.packet, family, length));
                assert_eq!((seen.source, seen.destination), (client.ip(), RemotePod.ip(family)));
            }
        }
    }
}

#[test]
fn the_room_in_the_tunnel_counts_for_what_goes_through_it() {
    let too_big = Action::Answer(DropReason::FragmentationNeeded);
    for (backend, expected) in [(RemotePod, too_big), (RemoteNode, Action::Redirect)] {
        let mut stage = Stage::with_config(Mode::Tunnel, |config| config.mtu = 1450);
        for (generation, family) in (1..).zip(Family::ALL) {
            let service = Frontend { generation, protocol: UDP, ..Frontend::default() };
            service.serve(&mut stage.maps, balancer(family), &[backend.at(family, 80)]);
            let (client, mac) = (World.at(family, CLIENT), stage.uplink.mac.0);
            let mut large =
                packet::udp(mac, client, balancer(family), &vec![7; 1500 - after_ip(family) + 14 - 8]);
            if family == Family::V4 {
                large[20] |= 0x40;
                large[24..26].fill(0);
                let sum = bpf_tests::seen::checksum(&[&large[14..34]]);
                large[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            assert_eq!(large.len(), 1514);
            assert_eq!(stage.receive(&large).action, expected, "{family:?} {backend:?}");
        }
    }
}

#[test]
fn a_client_that_comes_by_another_service_ends_what_it_had() {
    let stage = stage(Mode::Native, SERVICE_DSR, PodA);
    for family in Family::ALL {
        let (client, pod) = (World.at(family, CLIENT), PodA.at(family, 80));
        for at in [balancer(family), RemoteNode.at(family, PORT), balancer(family)] {
            let plain = packet::tcp(stage.uplink.mac.0, client, pod, Tcp::Syn);
            redirected(&stage.receive(&announced(&plain, family, at, TCP)));
            let back = stage.leave(PodA, &packet::tcp(ANY_MAC, pod, client, Tcp::SynAck));
            assert_eq!(ends(redirected(&back), family, None), (at, client));
        }
        // And by a service at this node.
        let at = Host.at(family, PORT);
        let syn = packet::tcp(stage.uplink.mac.0, client, at, Tcp::Syn);
        assert_eq!(ends(redirected(&stage.receive(&syn)), family, None), (client, pod));
        let back = stage.leave(PodA, &packet::tcp(ANY_MAC, pod, client, Tcp::SynAck));
        assert_eq!(ends(redirected(&back), family, None), (at, client));
        // Straight to the pod: it answers as itself.
        let plain = packet::tcp(stage.uplink.mac.0, client, pod, Tcp::Syn);
        redirected(&stage.receive(&plain));
        let back = stage.leave(PodA, &packet::tcp(ANY_MAC, pod, client, Tcp::SynAck));
        assert_eq!(ends(redirected(&back), family, None), (pod, client));
    }
}
