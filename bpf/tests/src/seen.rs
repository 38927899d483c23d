//! What stands in a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET: usize = 14;

/// A packet taken apart. Independent of the code that makes packets, and of the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Link destination.
    pub mac_destination: [u8; 6],
    /// Link source.
    pub mac_source: [u8; 6],
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Hop limit.
    pub hops: u8,
    /// Protocol behind extension headers.
    pub protocol: u8,
    /// Offset of the transport header.
    pub transport: usize,
    /// Source port; ICMP: the echo id.
    pub source_port: u16,
    /// Destination port; ICMP: the echo id.
    pub destination_port: u16,
}

impl Seen {
    /// Takes a packet with link header apart.
    ///
    /// # Panics
    /// When it is not IP.
    pub fn read(packet: &[u8]) -> Self {
        let ip = &packet[ETHERNET..];
        let mut seen = match ip[0] >> 4 {
            4 => Self::ipv4(packet, ip),
            6 => Self::ipv6(packet, ip),
            version => panic!("IP version {version}"),
        };
        let icmp = matches!(seen.protocol, 1 | 58);
        let at = |offset: usize| {
            packet
                .get(seen.transport + offset..seen.transport + offset + 2)
                .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        (seen.source_port, seen.destination_port) = if icmp { (at(4), at(4)) } else { (at(0), at(2)) };
        seen
    }

    fn ipv4(packet: &[u8], ip: &[u8]) -> Self {
        let address = |at: usize| IpAddr::V4(Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]));
        let length = usize::from(ip[0] & 15) * 4;
        Self::new(packet, address(12), address(16), ip[8], ip[9], ETHERNET + length)
    }

    fn ipv6(packet: &[u8], ip: &[u8]) -> Self {
        let address = |at: usize| {
            let bytes: [u8; 16] = ip[at..at + 16].try_into().expect("16 bytes");
            IpAddr::V6(Ipv6Addr::from(bytes))
        };
        let (protocol, offset) = if ip[6] == 44 { (ip[40], 48) } else { (ip[6], 40) };
        Self::new(packet, address(8), address(24), ip[7], protocol, ETHERNET + offset)
    }

    fn new(
        packet: &[u8],
        source: IpAddr,
        destination: IpAddr,
        hops: u8,
        protocol: u8,
        transport: usize,
    ) -> Self {
        let mac = |at: usize| packet[at..at + 6].try_into().expect("6 bytes");
        Self {
            mac_destination: mac(0),
            mac_source: mac(6),
            source,
            destination,
            hops,
            protocol,
            transport,
            source_port: 0,
            destination_port: 0,
        }
    }

    /// The packet inside of an ICMP error, with a link header of zeros.
    pub fn quoted(packet: &[u8]) -> Self {
        let outer = Self::read(packet);
        let mut inner = vec![0; ETHERNET];
        inner.extend_from_slice(&packet[outer.transport + 8..]);
        Self::read(&inner)
    }
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody serves at that port.
    NoPort,
    /// The packet is larger than these bytes, which the next link can carry.
    TooBig(u32),
}

/// Source, destination and content of an ICMP error with right sums.
///
/// # Panics
/// When it is another packet.
pub fn told(packet: &[u8]) -> (IpAddr, IpAddr, Told) {
    check_checksums(packet);
    let seen = Seen::read(packet);
    let head = &packet[seen.transport..seen.transport + 8];
    let number = |at: usize| u32::from_be_bytes([0, 0, head[at], head[at + 1]]);
    let told = match (seen.protocol, head[0], head[1]) {
        (1, 3, 3) | (58, 1, 4) => Told::NoPort,
        (1, 3, 4) | (58, 2, 0) => Told::TooBig(number(6)),
        other => panic!("protocol, type and code {other:?}"),
    };
    (seen.source, seen.destination, told)
}

/// Source and destination of the packet that an ICMP error is about.
///
/// # Panics
/// When it is no error.
pub fn subject(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let quoted = Seen::quoted(packet);
    ((quoted.source, quoted.source_port).into(), (quoted.destination, quoted.destination_port).into())
}

/// The Internet checksum (RFC 1071) over the concatenation of parts, each of even length but the last.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Checks the header checksum of IPv4 and the transport checksum of a packet that is no fragment.
///
/// # Panics
/// When one is wrong.
pub fn check_checksums(packet: &[u8]) {
    let seen = Seen::read(packet);
    let ip = &packet[ETHERNET..];
    let transport = &packet[seen.transport..];
    if seen.source.is_ipv4() {
        assert_eq!(checksum(&[&ip[..seen.transport - ETHERNET]]), 0, "IPv4 header checksum");
    }
    if seen.protocol == 1 {
        assert_eq!(checksum(&[transport]), 0, "ICMP checksum");
        return;
    }
    let addresses = if seen.source.is_ipv4() { &ip[12..20] } else { &ip[8..40] };
    let length = (transport.len() as u32).to_be_bytes();
    let sum = checksum(&[addresses, &length, &[0, seen.protocol], transport]);
    assert_eq!(sum, 0, "transport checksum of protocol {}", seen.protocol);
}
