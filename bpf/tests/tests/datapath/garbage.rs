//! Packets that make no sense.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Place::*, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_bpf::reason::DropReason;
use cilium_drivers::datapath::DeviceProgram;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::ANY_MAC;

#[test]
fn what_is_cut_short_is_dropped() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        for whole in [
            packet::tcp(ANY_MAC, PodA.at(family, 1), PodB.at(family, 2), Tcp::Syn),
            packet::udp(ANY_MAC, PodA.at(family, 1), PodB.at(family, 2), b""),
        ] {
            // Below the IP header the kernel's test run itself refuses.
            let ip_header = if family == Family::V4 { 34 } else { 54 };
            for length in ip_header..whole.len() {
                let action = stage.leave(PodA, &whole[..length]).action;
                assert_eq!(action, Action::Drop(DropReason::CtInvalidHeader), "{length} of {}", whole.len());
            }
        }
    }
}

#[test]
fn wrong_headers_are_named() {
    let stage = Stage::new(Mode::Native);
    let v4 = packet::udp(ANY_MAC, PodA.at(Family::V4, 1), PodB.at(Family::V4, 2), b"");
    let v6 = packet::udp(ANY_MAC, PodA.at(Family::V6, 1), PodB.at(Family::V6, 2), b"");
    let with = |packet: &[u8], at: usize, value: u8| {
        let mut changed = packet.to_vec();
        changed[at] = value;
        changed
    };
    let mapped = {
        let mut packet = v6.clone();
        packet[14 + 8..14 + 24]
            .copy_from_slice(&std::net::Ipv4Addr::new(10, 1, 0, 5).to_ipv6_mapped().octets());
        packet
    };
    let table = [
        ("version 5 in an IPv4 frame", with(&v4, 14, 0x55), DropReason::InvalidPacket),
        ("IPv4 header of 16 bytes", with(&v4, 14, 0x44), DropReason::InvalidPacket),
        ("IPv4 in an IPv6 frame", with(&v6, 14, 0x45), DropReason::InvalidPacket),
        ("IPv4-mapped address on the wire", mapped, DropReason::InvalidPacket),
        ("GRE", with(&v4, 14 + 9, 47), DropReason::UnknownL4),
        ("ICMPv6 over IPv4", with(&v4, 14 + 9, 58), DropReason::UnknownL4),
        ("ICMP over IPv6", with(&v6, 14 + 6, 1), DropReason::UnknownL4),
        ("no next header", with(&v6, 14 + 6, 59), DropReason::UnknownL4),
        ("LLDP", with(&with(&v4, 12, 0x88), 13, 0xcc), DropReason::UnsupportedL3),
    ];
    for (what, packet, reason) in table {
        assert_eq!(stage.leave(PodA, &packet).action, Action::Drop(reason), "{what}");
    }
    let arp = with(&with(&v4, 12, 0x08), 13, 0x06);
    assert_eq!(stage.leave(PodA, &arp).action, Action::Pass, "ARP");
}

#[test]
fn extension_headers_are_walked_but_not_for_ever() {
    let stage = Stage::new(Mode::Native);
    let plain = packet::udp(ANY_MAC, PodA.at(Family::V6, 1), PodB.at(Family::V6, 2), b"");
    let with_options = |count: usize| {
        let mut packet = plain[..54].to_vec();
        packet[14 + 6] = 60;
        for left in (0..count).rev() {
            packet.extend([if left == 0 { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        packet.extend(&plain[54..]);
        packet
    };
    for count in 1..=6 {
        assert_eq!(stage.leave(PodA, &with_options(count)).action, Action::Redirect, "{count} headers");
    }
    let expected = Action::Drop(DropReason::InvalidExtensionHeader);
    assert_eq!(stage.leave(PodA, &with_options(7)).action, expected);
    let mut endless = with_options(1);
    endless[54 + 1] = 255;
    assert_eq!(stage.leave(PodA, &endless).action, expected);
}

/// Bytes that often look like a packet: a real one with a few bytes changed and cut somewhere.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        Just(packet::tcp(ANY_MAC, PodA.at(Family::V4, 1), PodB.at(Family::V4, 2), Tcp::Syn)),
        Just(packet::udp(ANY_MAC, PodA.at(Family::V6, 1), World.at(Family::V6, 2), b"payload")),
        Just(packet::unreachable(
            ANY_MAC,
            PodA.ip(Family::V4),
            PodB.ip(Family::V4),
            &packet::udp(ANY_MAC, PodB.at(Family::V4, 1), PodA.at(Family::V4, 2), b"")
        )),
        Just(packet::unreachable(
            ANY_MAC,
            World.ip(Family::V6),
            Host.ip(Family::V6),
            &packet::udp(ANY_MAC, Host.at(Family::V6, 61_000), World.at(Family::V6, 2), b"")
        )),
        Just(packet::tcp(ANY_MAC, World.at(Family::V4, 4000), Host.at(Family::V4, 30_080), Tcp::Syn)),
        Just(packet::udp(ANY_MAC, World.at(Family::V6, 4000), Host.at(Family::V6, 30_080), b"payload")),
        Just(packet::tcp(ANY_MAC, RemotePod.at(Family::V4, 80), Host.at(Family::V4, 61_000), Tcp::SynAck)),
        Just(packet::udp(ANY_MAC, Host.at(Family::V4, 80), World.at(Family::V4, 4000), b"payload")),
        Just(packet::unreachable(
            ANY_MAC,
            World.ip(Family::V4),
            Host.ip(Family::V4),
            &packet::tcp(ANY_MAC, Host.at(Family::V4, 30_080), World.at(Family::V4, 4000), Tcp::Ack)
        )),
        prop::collection::vec(any::<u8>(), 14..200),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (base, changes, 14usize..300).prop_map(|(mut packet, changes, length)| {
        for (index, value) in changes {
            let at = index.index(packet.len());
            packet[at] = value;
        }
        packet.truncate(length);
        packet
    })
}

#[test]
fn every_packet_gets_a_verdict() {
    let mut stages = [Stage::new(Mode::Native), Stage::new(Mode::Tunnel)];
    for stage in &mut stages {
        for (generation, (family, protocol)) in (1..).zip([(Family::V4, 6), (Family::V6, 17)]) {
            let any = if family == Family::V4 { ip("0.0.0.0") } else { ip("::") };
            let backends = [PodA, RemotePod, Host].map(|place| place.at(family, 80));
            let service = Frontend { generation, protocol, ..Frontend::default() };
            service.serve(&mut stage.maps, (any, 30_080).into(), &backends);
        }
    }
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&any_packet(), |packet| {
        for stage in &stages {
            for (program, device) in [
                (DeviceProgram::FromContainer, stage.link(PodA)),
                (DeviceProgram::ToContainer, stage.link(PodA)),
                (DeviceProgram::FromNetdev, &stage.uplink),
                (DeviceProgram::ToNetdev, &stage.uplink),
                (DeviceProgram::FromOverlay, &stage.tunnel),
                (DeviceProgram::FromHost, &stage.router),
            ] {
                if let Some(outcome) = stage.try_run(program, device, &packet) {
                    prop_assert!(outcome.packet.len() == packet.len(), "no program changes the length");
                }
            }
        }
        Ok(())
    });
    result.unwrap();
}
