//! Packets as they stand on the wire.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder, PacketBuilderStep, icmpv4, icmpv6,
};

/// Link header that pods write: destination is the host's end, which is the device's own address.
pub const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xaa];

/// Hop limit of packets made here.
pub const HOPS: u8 = 64;

/// Address family; every table is run for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The protocol number of this family's ICMP.
    pub fn icmp(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    /// The type of an echo request.
    pub fn echo_request(self) -> u16 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }
}

/// TCP flags that matter to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    /// Opens a connection.
    Syn,
    /// Answers to that.
    SynAck,
    /// In the middle.
    Ack,
    /// The sender is done.
    Fin,
    /// Ends the connection at once.
    Rst,
}

/// Direction of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The question.
    Request,
    /// The answer.
    Reply,
}

fn ethernet(mac: [u8; 6]) -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(POD_MAC, mac)
}

macro_rules! ip {
    ($mac:expr, $source:expr, $destination:expr) => {
        match ($source, $destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet($mac).ipv4(source.octets(), destination.octets(), HOPS)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet($mac).ipv6(source.octets(), destination.octets(), HOPS)
            }
            _ => unreachable!("both addresses are of one family"),
        }
    };
}

/// A TCP packet without payload; `mac` is the link destination.
pub fn tcp(mac: [u8; 6], from: SocketAddr, to: SocketAddr, flags: Tcp) -> Vec<u8> {
    let step = ip!(mac, from.ip(), to.ip()).tcp(from.port(), to.port(), 1000, 1000);
    let step = match flags {
        Tcp::Syn => step.syn(),
        Tcp::SynAck => step.syn().ack(1),
        Tcp::Ack => step.ack(1),
        Tcp::Fin => step.fin().ack(1),
        Tcp::Rst => step.rst(),
    };
    let mut packet = Vec::new();
    step.write(&mut packet, b"").expect("a vector takes everything");
    packet
}

/// A UDP packet.
pub fn udp(mac: [u8; 6], from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip!(mac, from.ip(), to.ip()).udp(from.port(), to.port());
    step.write(&mut packet, payload).expect("a vector takes everything");
    packet
}

/// An echo request or reply.
pub fn echo(mac: [u8; 6], from: IpAddr, to: IpAddr, echo: Echo, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip!(mac, from, to);
    match (from, echo) {
        (IpAddr::V4(_), Echo::Request) => step.icmpv4_echo_request(id, 1).write(&mut packet, b"ping"),
        (IpAddr::V4(_), Echo::Reply) => step.icmpv4_echo_reply(id, 1).write(&mut packet, b"ping"),
        (IpAddr::V6(_), Echo::Request) => step.icmpv6_echo_request(id, 1).write(&mut packet, b"ping"),
        (IpAddr::V6(_), Echo::Reply) => step.icmpv6_echo_reply(id, 1).write(&mut packet, b"ping"),
    }
    .expect("a vector takes everything");
    packet
}

/// An SCTP packet (RFC 9260 section 3) with a common header and no chunks.
pub fn sctp(mac: [u8; 6], from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = [0; 12];
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    with_payload(mac, from.ip(), to.ip(), IpNumber(132), &header, None)
}

/// An ICMP message of any type of the family, with what echo has for its id.
pub fn icmp(mac: [u8; 6], from: IpAddr, to: IpAddr, kind: u8, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip!(mac, from, to);
    let [high, low] = id.to_be_bytes();
    match from {
        IpAddr::V4(_) => step.icmpv4_raw(kind, 0, [high, low, 0, 1]).write(&mut packet, &[0; 16]),
        IpAddr::V6(_) => step.icmpv6_raw(kind, 0, [high, low, 0, 1]).write(&mut packet, &[0; 16]),
    }
    .expect("a vector takes everything");
    packet
}

/// The ICMP error "port unreachable" about `about`, a packet with link header.
pub fn unreachable(mac: [u8; 6], from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let quote = &about[Ethernet2Header::LEN..];
    let step = ip!(mac, from, to);
    match from {
        IpAddr::V4(_) => {
            step.icmpv4_raw(icmpv4::TYPE_DEST_UNREACH, 3, [0; 4]).write(&mut packet, &quote[..28])
        }
        IpAddr::V6(_) => step.icmpv6_raw(icmpv6::TYPE_DST_UNREACH, 4, [0; 4]).write(&mut packet, quote),
    }
    .expect("a vector takes everything");
    packet
}

/// Any ICMPv6 message.
pub fn icmp6(mac: [u8; 6], from: IpAddr, to: IpAddr, kind: u8, hops: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ip!(mac, from, to).icmpv6_raw(kind, 0, [0; 4]);
    step.write(&mut packet, &[0; 16]).expect("a vector takes everything");
    with_hops(packet, hops)
}

/// The packet with another hop limit and a right header checksum.
pub fn with_hops(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    if packet[14] >> 4 == 6 {
        packet[14 + 7] = hops;
        return packet;
    }
    packet[14 + 8] = hops;
    packet[14 + 10..14 + 12].fill(0);
    let sum = crate::seen::checksum(&[&packet[14..34]]);
    packet[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A packet of a protocol that the programs do not know.
pub fn other_protocol(mac: [u8; 6], from: IpAddr, to: IpAddr, protocol: u8) -> Vec<u8> {
    with_payload(mac, from, to, IpNumber(protocol), &[0; 32], None)
}

/// Cuts a packet into two fragments, of which the first has `head` bytes (a multiple of 8) after the IP header.
pub fn fragments(packet: &[u8], head: usize, id: u16) -> [Vec<u8>; 2] {
    let seen = crate::Seen::read(packet);
    let mac = seen.mac_destination;
    let transport = &packet[seen.transport..];
    let cut = |bytes: &[u8], offset: usize, more: bool| {
        let fragment = Some((offset as u16 / 8, more, id));
        with_payload(mac, seen.source, seen.destination, IpNumber(seen.protocol), bytes, fragment)
    };
    [cut(&transport[..head], 0, true), cut(&transport[head..], head, false)]
}

/// IP header and payload; `fragment` is offset in units of 8 bytes, "more fragments", and the id.
fn with_payload(
    mac: [u8; 6],
    from: IpAddr,
    to: IpAddr,
    protocol: IpNumber,
    payload: &[u8],
    fragment: Option<(u16, bool, u16)>,
) -> Vec<u8> {
    let ether_type = if from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let mut packet = Ethernet2Header { source: POD_MAC, destination: mac, ether_type }.to_bytes().to_vec();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(payload.len() as u16, HOPS, protocol, from.octets(), to.octets())
                    .expect("the payload fits");
            if let Some((offset, more, id)) = fragment {
                header.identification = id;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset).expect("a small offset");
            }
            header.header_checksum = header.calc_header_checksum();
            packet.extend_from_slice(&header.to_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend(ipv6(from.octets(), to.octets(), protocol, payload, fragment));
        }
        _ => unreachable!("both addresses are of one family"),
    }
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(
    from: [u8; 16],
    to: [u8; 16],
    protocol: IpNumber,
    payload: &[u8],
    fragment: Option<(u16, bool, u16)>,
) -> Vec<u8> {
    let extension = fragment.map(|(offset, more, id)| {
        let offset = IpFragOffset::try_new(offset).expect("a small offset");
        Ipv6FragmentHeader::new(protocol, offset, more, id.into()).to_bytes()
    });
    let header = Ipv6Header {
        payload_length: (payload.len() + extension.map_or(0, |bytes| bytes.len())) as u16,
        next_header: if extension.is_some() { IpNumber::IPV6_FRAGMENTATION_HEADER } else { protocol },
        hop_limit: HOPS,
        source: from,
        destination: to,
        ..Ipv6Header::default()
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(extension.into_iter().flatten());
    bytes
}
