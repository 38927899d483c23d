//! The few messages of BGP that a peer under load says and hears (RFC 4271, 4), in bytes.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;

/// Bytes of the longest message.
const LONGEST: usize = 4096;
/// Marker, length and type.
pub(super) const HEADER: usize = 19;

/// Types of messages.
pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const NOTIFICATION: u8 = 3;
pub(super) const KEEPALIVE: u8 = 4;

/// Proposed seconds of silence that end a session; the figures are there long before.
const HOLD_TIME: u16 = 240;

/// A message of a type.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u16;
    [&[0xFF; 16], length.to_be_bytes().as_slice(), &[kind], body].concat()
}

/// OPEN with the capabilities of IPv4 unicast and of AS numbers of four bytes.
pub(super) fn open(asn: u16, id: Ipv4Addr) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(u32::from(asn).to_be_bytes());
    let mut body = vec![4];
    body.extend(asn.to_be_bytes());
    body.extend(HOLD_TIME.to_be_bytes());
    body.extend(id.octets());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// UPDATEs that announce prefixes with one path; each as long as it may be.
pub(super) fn announce(prefixes: &[Ipv4Net], as_path: &[u32], next_hop: Ipv4Addr) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0];
    attributes.extend([0x40, 2, 2 + 4 * as_path.len() as u8, 2, as_path.len() as u8]);
    attributes.extend(as_path.iter().flat_map(|asn| asn.to_be_bytes()));
    attributes.extend([0x40, 3, 4]);
    attributes.extend(next_hop.octets());
    let room = LONGEST - HEADER - 4 - attributes.len();
    let update = |prefixes: &[Ipv4Net]| {
        let mut body = vec![0, 0];
        body.extend((attributes.len() as u16).to_be_bytes());
        body.extend(&attributes);
        prefixes.iter().for_each(|prefix| put(&mut body, *prefix));
        message(UPDATE, &body)
    };
    prefixes.chunks(room / 5).flat_map(update).collect()
}

/// A prefix as it stands in an UPDATE.
pub(super) fn put(into: &mut Vec<u8>, prefix: Ipv4Net) {
    into.push(prefix.prefix_len());
    into.extend(&prefix.network().octets()[..usize::from(prefix.prefix_len()).div_ceil(8)]);
}

/// Type and length of the message that begins here, once all of it is there.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<(u8, usize)>> {
    let Some(header) = bytes.get(..HEADER) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    ensure!((HEADER..=LONGEST).contains(&length), "a message of {length} bytes");
    Ok((bytes.len() >= length).then_some((header[18], length)))
}

/// Prefixes that the body of an UPDATE takes back, and those that it announces.
pub(super) fn prefixes(body: &[u8]) -> Result<[Vec<Ipv4Net>; 2]> {
    let (withdrawn, rest) = counted(body).context("an UPDATE ends within what it takes back")?;
    let (_, announced) = counted(rest).context("an UPDATE ends within its attributes")?;
    Ok([list(withdrawn)?, list(announced)?])
}

/// So many bytes as two bytes say, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn list(mut bytes: &[u8]) -> Result<Vec<Ipv4Net>> {
    let mut all = Vec::new();
    while let [length, rest @ ..] = bytes {
        let (address, rest) = rest
            .split_at_checked(usize::from(*length).div_ceil(8))
            .context("an UPDATE ends within a prefix")?;
        let mut octets = [0; 4];
        octets.get_mut(..address.len()).context("a prefix is too long")?.copy_from_slice(address);
        all.push(Ipv4Net::new(octets.into(), *length)?);
        bytes = rest;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_heard() {
        let all: Vec<Ipv4Net> =
            ["10.0.0.0/8", "192.0.2.128/25", "0.0.0.0/0"].map(|it| it.parse().unwrap()).into();
        let bytes = announce(&all, &[64601, 65000], Ipv4Addr::new(10, 1, 1, 0));
        assert_eq!(whole(&bytes).unwrap(), Some((UPDATE, bytes.len())));
        assert_eq!(whole(&bytes[..bytes.len() - 1]).unwrap(), None);
        assert_eq!(prefixes(&bytes[HEADER..]).unwrap(), [vec![], all]);
        assert!(prefixes(&bytes[HEADER..bytes.len() - 2]).is_err());
        assert!(prefixes(&bytes[HEADER..HEADER + 10]).is_err());
    }

    #[test]
    fn a_thousand_prefixes_need_two_messages() {
        let all: Vec<Ipv4Net> =
            (0..1000u32).map(|it| Ipv4Net::new((0x1400_0000 + (it << 8)).into(), 24).unwrap()).collect();
        let bytes = announce(&all, &[64601], Ipv4Addr::LOCALHOST);
        let (_, first) = whole(&bytes).unwrap().unwrap();
        let (_, second) = whole(&bytes[first..]).unwrap().unwrap();
        assert_eq!(first + second, bytes.len());
    }
}
