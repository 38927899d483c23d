//! Frames as they are sent, from the Ethernet header on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_bpf::layout::{HEARTBEAT_ETHERTYPE, HEARTBEAT_MAGIC, HEARTBEAT_REQUEST, Heartbeat, Layout as _};
use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use siphasher::sip::SipHasher24;

/// A MAC address.
pub type Mac = [u8; 6];

/// To everybody on the link.
pub const BROADCAST: Mac = [0xff; 6];

/// Stands for whoever is there, in place of the number of a node.
pub const ANYBODY: u64 = 0;

/// Neighbour discovery takes nothing that has come over a router (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Of the option with the target's MAC address: type and length in units of 8 bytes (RFC 4861 section 4.6.1).
const TARGET_MAC: [u8; 2] = [2, 1];

/// The number that stands for a node's name in heartbeats: its hash, the same on all nodes.
pub fn node_number(name: &str) -> u64 {
    SipHasher24::new().hash(name.as_bytes())
}

/// What one heartbeat asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// MAC address of the sender's device.
    pub source: Mac,
    /// MAC address of the receiver's, or [`BROADCAST`].
    pub destination: Mac,
    /// Number of the receiver, or [`ANYBODY`].
    pub to: u64,
    /// Number of the sender.
    pub from: u64,
    /// `LINK_*` bits of the sender, and `HEARTBEAT_HEARS_YOU`.
    pub flags: u8,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub sent: u64,
    /// Nanoseconds of `CLOCK_REALTIME`: receivers ignore a request whose stamp is not above the last one's.
    pub stamp: u64,
}

impl Request {
    /// The frame, with its tag.
    pub fn to_frame(self, key: &[u8; 16]) -> Vec<u8> {
        let mut beat = Heartbeat {
            magic: HEARTBEAT_MAGIC.to_be(),
            kind: HEARTBEAT_REQUEST,
            flags: self.flags,
            to: self.to,
            from: self.from,
            sent: self.sent,
            stamp: self.stamp.to_be(),
            mac: self.source,
            ..Heartbeat::default()
        };
        beat.tag = tag(&beat, key);
        let mut frame = [&self.destination[..], &self.source, &HEARTBEAT_ETHERTYPE.to_be_bytes()].concat();
        frame.extend(beat.to_bytes());
        frame
    }
}

/// SipHash-2-4 of all that stands before the tag, as programs compute it.
pub fn tag(beat: &Heartbeat, key: &[u8; 16]) -> u64 {
    let bytes = beat.to_bytes();
    SipHasher24::new_with_key(key).hash(&bytes[..Heartbeat::SIZE - size_of::<u64>()])
}

/// Asks whether somebody has the address (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
pub fn probe(source: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(source, [0; 6], Ipv4Addr::UNSPECIFIED, address),
        IpAddr::V6(address) => {
            let group = solicited_node(address);
            let message = Message {
                destination: group,
                source: Ipv6Addr::UNSPECIFIED,
                kind: Icmpv6Type::NeighborSolicitation,
            };
            message.to_frame(source, &address.octets())
        }
    }
}

/// Tells everybody that the address is here now: a gratuitous request (RFC 5227 section 3), or an advertisement that nobody asked
/// for (RFC 4861 section 7.2.6).
pub fn announcement(source: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(source, BROADCAST, address, address),
        IpAddr::V6(address) => {
            let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            let payload = [&address.octets()[..], &TARGET_MAC, &source].concat();
            let kind = Icmpv6Type::NeighborAdvertisement(flags);
            Message { destination: ALL_NODES, source: address, kind }.to_frame(source, &payload)
        }
    }
}

/// Where those are asked for an IPv6 address who may have it (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The MAC address of a multicast group (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A request by ARP, to everybody.
fn arp(source: Mac, target_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &source,
        &sender.octets(),
        &target_mac,
        &target.octets(),
    );
    let mut frame = Vec::new();
    if let Ok(packet) = packet {
        let written = PacketBuilder::ethernet2(source, BROADCAST).arp(packet).write(&mut frame);
        debug_assert!(written.is_ok(), "a vector has room");
    }
    frame
}

/// A message of neighbour discovery.
struct Message {
    destination: Ipv6Addr,
    source: Ipv6Addr,
    kind: Icmpv6Type,
}

impl Message {
    fn to_frame(&self, mac: Mac, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let written = PacketBuilder::ethernet2(mac, group_mac(self.destination))
            .ipv6(self.source.octets(), self.destination.octets(), HOP_LIMIT)
            .icmpv6(self.kind)
            .write(&mut frame, payload);
        debug_assert!(written.is_ok(), "a vector has room");
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn ipv4_is_asked_for_and_announced_by_requests_to_everybody() {
        let address: IpAddr = "192.0.2.9".parse().expect("is one");
        let head = "ffffffffffff02000000000708060001080006040001020000000007";
        assert_eq!(hex(&probe(MAC, address)), format!("{head}00000000000000000000c0000209"));
        assert_eq!(hex(&announcement(MAC, address)), format!("{head}c0000209ffffffffffffc0000209"));
    }

    #[test]
    fn ipv6_is_asked_for_at_its_group_and_announced_to_all_nodes() {
        let address: IpAddr = "2001:db8::12:3456".parse().expect("is one");
        let target = "20010db8000000000000000000123456";
        let frame = hex(&probe(MAC, address));
        assert_eq!(&frame[..28], "3333ff12345602000000000786dd");
        assert!(frame.ends_with(target) && frame.contains("ff0200000000000000000001ff123456"), "{frame}");
        let frame = hex(&announcement(MAC, address));
        assert_eq!(&frame[..28], "33330000000102000000000786dd");
        assert!(frame.ends_with(&format!("20000000{target}0201020000000007")), "{frame}");
    }

    #[test]
    fn heartbeats_have_a_tag_of_all_before_it() {
        let request = Request {
            source: MAC,
            destination: BROADCAST,
            to: 0x1111_1111_1111_1111,
            from: 0x2222_2222_2222_2222,
            flags: 1,
            sent: 3,
            stamp: 4,
        };
        let key = std::array::from_fn(|at| u8::try_from(at).expect("is small"));
        let frame = request.to_frame(&key);
        let known = "ffffffffffff02000000000788b5434c484201010000111111111111111122222222222222220300000000000000\
                     00000000000000040000000000000000020000000007";
        assert_eq!(hex(&frame[..68]), known);
        let other = Request { flags: 3, ..request }.to_frame(&key);
        assert_ne!(frame[70..], other[70..], "it depends on the flags");
        assert_ne!(frame[70..], request.to_frame(&[0; 16])[70..], "and on the key");
    }

    /// The first of the vectors that the authors of SipHash publish with it, and one of ours: numbers must not change.
    #[test]
    fn numbers_of_nodes_are_their_hashes() {
        let key = std::array::from_fn(|at| u8::try_from(at).expect("is small"));
        assert_eq!(SipHasher24::new_with_key(&key).hash(b""), 0x726f_db47_dd0e_0e31);
        assert_ne!(node_number("worker-1"), node_number("worker-2"));
    }
}
