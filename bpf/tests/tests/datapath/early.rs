//! What the program before the stack does to packets: what the long way does, or nothing.

use std::net::SocketAddr;

use bpf_tests::packet::{self, Tcp};
use bpf_tests::seen::{Seen, check_checksums};
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Place, Place::*, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{NAT_IN, NAT_SERVICE, NatEntry};
use cilium_delta::Table as _;

use crate::nodeport::{CLIENT, PORT, any, mk_packet};
use crate::{TCP, UDP};

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
/// Both MAC addresses and no more: on the long way, these are the kernel's to set.
const MACS: usize = 12;

/// A known connection of a client outside with a backend elsewhere.
struct Known {
    stage: Stage,
    family: Family,
    protocol: u8,
    client: SocketAddr,
    service: SocketAddr,
    /// The node's end towards the backend.
    node: SocketAddr,
    backend: SocketAddr,
}

impl Known {
    fn new(mode: Mode, family: Family, protocol: u8, backend: Place) -> Self {
        let mut stage = Stage::new(mode);
        stage.meet(RemoteNode.ip(family), ROUTER_MAC);
        let service = Frontend { generation: 10, protocol, ..Frontend::default() };
        let (client, backend) = (World.at(family, CLIENT), backend.at(family, 80));
        service.serve(&mut stage.maps, (any(family), PORT).into(), &[backend]);
        let at = Host.at(family, PORT);
        let mac = stage.uplink.mac.0;
        let opened = stage.receive(&mk_packet(protocol, mac, client, at, Tcp::Syn));
        assert_eq!(opened.action, Action::Redirect);
        let seen = Seen::read(&opened.packet);
        let node = SocketAddr::new(seen.source, seen.source_port);
        let known = Self { stage, family, protocol, client, service: at, node, backend };
        known.stage.receive(&known.packet(backend, node, Tcp::SynAck));
        known.stage.receive(&known.packet(client, at, Tcp::Ack));
        known
    }

    fn packet(&self, from: SocketAddr, to: SocketAddr, flags: Tcp) -> Vec<u8> {
        mk_packet(self.protocol, self.stage.uplink.mac.0, from, to, flags)
    }

    fn forth(&self) -> Vec<u8> {
        self.packet(self.client, self.service, Tcp::Ack)
    }

    fn back(&self) -> Vec<u8> {
        self.packet(self.backend, self.node, Tcp::Ack)
    }

    /// The packet is sent on, as the long way would have it.
    fn check_sent(&self, packet: &[u8]) -> Vec<u8> {
        let (is_sent, early) = self.stage.receive_early(packet);
        assert!(is_sent, "{:?} {}", self.family, self.protocol);
        let long = self.stage.receive(packet);
        assert_eq!(long.action, Action::Redirect);
        assert_eq!(early[MACS..], long.packet[MACS..]);
        assert_eq!(early[..MACS], [ROUTER_MAC, self.stage.uplink.mac.0].concat());
        early
    }

    fn check_left_alone(&self, packet: &[u8], why: &str) {
        let (is_sent, early) = self.stage.receive_early(packet);
        assert!(!is_sent && early == packet, "{why}: {:?} {}", self.family, self.protocol);
    }

    fn entry(&self, direction: u8) -> NatEntry {
        let entries = self.stage.maps.snat.entries().unwrap();
        entries.into_iter().find(|(key, _)| key.direction == direction).unwrap().1
    }
}

fn each_kind() -> impl Iterator<Item = (Family, u8)> {
    Family::ALL.into_iter().flat_map(|family| [(family, TCP), (family, UDP)])
}

#[test]
fn known_connections_are_sent_on_as_on_the_long_way() {
    for (family, protocol) in each_kind() {
        let known = Known::new(Mode::Native, family, protocol, RemotePod);
        let forth = known.check_sent(&known.forth());
        check_checksums(&forth);
        let seen = Seen::read(&forth);
        assert_eq!((seen.source, seen.source_port), (known.node.ip(), known.node.port()));
        assert_eq!((seen.destination, seen.destination_port), (known.backend.ip(), 80));
        assert_eq!(seen.hops, packet::HOPS - 1);
        let back = known.check_sent(&known.back());
        check_checksums(&back);
        let seen = Seen::read(&back);
        assert_eq!((seen.source, seen.source_port), (known.service.ip(), PORT));
        assert_eq!((seen.destination, seen.destination_port), (known.client.ip(), CLIENT));
    }
}

#[test]
fn it_is_the_only_packet_that_is_counted() {
    let known = Known::new(Mode::Native, Family::V4, TCP, RemotePod);
    let total =
        |known: &Known| known.stage.maps.metrics.totals().unwrap().values().map(|it| it.packets).sum::<u64>();
    let before = total(&known);
    known.stage.receive_early(&known.forth());
    assert_eq!(total(&known), before + 1);
    known.stage.receive_early(&known.packet(known.client, Host.at(Family::V4, 22), Tcp::Ack));
    assert_eq!(total(&known), before + 1);
}

#[test]
fn in_tunnel_mode_it_serves_backends_that_need_no_tunnel() {
    for (family, protocol) in each_kind() {
        let outside = Known::new(Mode::Tunnel, family, protocol, Kept);
        outside.check_sent(&outside.forth());
        outside.check_sent(&outside.back());
        let inside = Known::new(Mode::Tunnel, family, protocol, RemotePod);
        inside.check_left_alone(&inside.forth(), "it needs the tunnel");
        inside.check_sent(&inside.back());
    }
}

#[test]
fn a_datagram_without_checksum_stays_one() {
    let known = Known::new(Mode::Native, Family::V4, UDP, RemotePod);
    let mut packet = known.forth();
    packet[40..42].fill(0);
    let sent = known.check_sent(&packet);
    assert_eq!(sent[40..42], [0, 0]);
}

#[test]
fn packets_that_change_a_connection_or_are_not_plain_take_the_long_way() {
    for (family, protocol) in each_kind() {
        let known = Known::new(Mode::Native, family, protocol, RemotePod);
        if protocol == TCP {
            for flags in [Tcp::Syn, Tcp::SynAck, Tcp::Fin, Tcp::Rst] {
                known.check_left_alone(&known.packet(known.client, known.service, flags), "it has a flag");
                known.check_left_alone(&known.packet(known.backend, known.node, flags), "it has a flag");
            }
        }
        for packet in [known.forth(), known.back()] {
            let mut last_hop = packet.clone();
            last_hop[if family == Family::V4 { 22 } else { 21 }] = 1;
            known.check_left_alone(&last_hop, "it is on its last hop");
            let mut others = packet.clone();
            others[0] ^= 2;
            known.check_left_alone(&others, "the frame is for another machine");
            let mut tagged = packet.clone();
            tagged.splice(12..12, [0x81, 0, 0, 5]);
            known.check_left_alone(&tagged, "it is of a VLAN");
            if family == Family::V4 {
                let mut fragment = packet.clone();
                fragment[20] |= 0x20;
                known.check_left_alone(&fragment, "it is a fragment");
                let mut options = packet.clone();
                options[14] = 0x46;
                known.check_left_alone(&options, "it has options");
            }
            known.check_left_alone(&packet[..40], "it is cut off");
        }
        let strange = known.packet(World.at(family, 1), known.service, Tcp::Ack);
        known.check_left_alone(&strange, "nobody knows the client");
        let elsewhere = known.packet(known.client, Host.at(family, 22), Tcp::Ack);
        known.check_left_alone(&elsewhere, "it is for the node itself");
        let pod = known.packet(known.client, PodA.at(family, 80), Tcp::Ack);
        known.check_left_alone(&pod, "it is for a pod");
    }
}

#[test]
fn a_checksum_that_a_device_shall_finish_is_left_to_the_stack() {
    for (family, protocol) in each_kind() {
        let known = Known::new(Mode::Native, family, protocol, RemotePod);
        for mut packet in [known.forth(), known.back()] {
            let (l3, l4) = if family == Family::V4 { (26, 34) } else { (22, 54) };
            let mut words: Vec<u16> =
                packet[l3..l4].chunks(2).map(|it| u16::from_be_bytes([it[0], it[1]])).collect();
            words.extend([protocol.into(), (packet.len() - l4) as u16]);
            let mut sum: u32 = words.into_iter().map(u32::from).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let at = l4 + if protocol == TCP { 16 } else { 6 };
            packet[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
            known.check_left_alone(&packet, "there is only the sum of the pseudo header");
        }
    }
}

#[test]
fn without_a_way_by_the_same_device_packets_are_left_alone() {
    let known = Known::new(Mode::Native, Family::V4, TCP, RemotePod);
    let mut large = packet::udp(known.stage.uplink.mac.0, known.client, known.service, &[0; 1600]);
    large[23] = TCP;
    large[47] = 0x10;
    known.check_left_alone(&large, "it is too large for the device");

    let mut stage = Stage::new(Mode::Native);
    let service = Frontend { generation: 1, protocol: UDP, ..Frontend::default() };
    service.serve(&mut stage.maps, (any(Family::V4), PORT).into(), &[RemotePod.at(Family::V4, 80)]);
    let packet = packet::udp(stage.uplink.mac.0, World.at(Family::V4, 7), Host.at(Family::V4, PORT), b"");
    assert_eq!(stage.receive(&packet).action, Action::Redirect);
    assert_eq!(
        stage.receive_early(&packet),
        (false, packet.clone()),
        "the router's address is not known yet"
    );
    stage.meet(RemoteNode.ip(Family::V4), ROUTER_MAC);
    assert!(stage.receive_early(&packet).0);
}

#[test]
fn backends_of_this_node_and_changed_sets_are_left_to_the_long_way() {
    for (family, protocol) in each_kind() {
        let here = Known::new(Mode::Native, family, protocol, PodA);
        here.check_left_alone(&here.forth(), "the backend is here");
        let mut known = Known::new(Mode::Native, family, protocol, RemotePod);
        let service = Frontend { generation: 11, protocol, ..Frontend::default() };
        service.serve(&mut known.stage.maps, (any(family), PORT).into(), &[known.backend]);
        known.check_left_alone(&known.forth(), "the set has been exchanged");
        service.close(&mut known.stage.maps, (any(family), PORT).into());
        known.check_left_alone(&known.forth(), "the service is gone");
        known.stage.know(ip(if family == Family::V4 { "198.51.100.9" } else { "2001:db8:ffff::9" }), 1, None);
        known.check_left_alone(&known.back(), "the client's address is the node's now");
    }
}

#[test]
fn lifetimes_go_on() {
    for (family, protocol) in each_kind() {
        for is_back in [false, true] {
            let mut known = Known::new(Mode::Native, family, protocol, RemotePod);
            let packet = if is_back { known.back() } else { known.forth() };
            for (key, mut entry) in known.stage.maps.snat.entries().unwrap() {
                entry.expires -= 5;
                known.stage.maps.snat.set(&key, &entry).unwrap();
            }
            let before = [NAT_SERVICE, NAT_IN].map(|direction| known.entry(direction).expires);
            assert!(known.stage.receive_early(&packet).0);
            let after = [NAT_SERVICE, NAT_IN].map(|direction| known.entry(direction).expires);
            assert!(after[0] >= before[0] + 5 && after[1] >= before[1] + 5, "{before:?}, {after:?}");
        }
    }
}
