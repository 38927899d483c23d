//! Ranges of addresses, and how pools write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_api::load_balancer_pool::PoolBlock;
use ipnet::IpNet;

/// Field and reason, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it, and what to write instead.
    pub reason: String,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Family of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The address with this number.
    pub(crate) fn address(self, bits: u128) -> IpAddr {
        match self {
            // Numbers of this family come from its addresses, so they fit.
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

/// An address as a number of its family.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => it.to_bits().into(),
        IpAddr::V6(it) => it.to_bits(),
    }
}

/// Addresses of one family from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) family: Family,
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl Range {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&bits(address))
    }

    /// What both have.
    pub(crate) fn meet(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.family == other.family && first <= last).then_some(Self { family: self.family, first, last })
    }

    /// Number of addresses; one less for all of IPv6, which does not fit.
    pub(crate) fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.family.address(self.first), self.family.address(self.last))
    }
}

/// Joins ranges that overlap or touch.
pub(crate) fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.family == range.family && range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// A block of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) range: Range,
    /// The first and the last address are not given.
    pub(crate) spares_ends: bool,
}

impl Block {
    /// `field` is where the block stands. A prefix wins over `start` and `stop`; only its ends are spared, and only if it has more
    /// than two addresses.
    pub(crate) fn parse(block: &PoolBlock, field: &str, spare_ends: bool) -> Result<Self, Invalid> {
        if let Some(text) = &block.cidr {
            let range = prefix(text, field)?;
            return Ok(Self { range, spares_ends: spare_ends && range.count() > 2 });
        }
        let Some(start) = &block.start else {
            let reason = "a block needs cidr, or start; stop alone does not say where it begins".to_owned();
            return Err(Invalid { field: field.to_owned(), reason });
        };
        let start = address(start, &format!("{field}.start"))?;
        let stop = match &block.stop {
            Some(stop) => address(stop, &format!("{field}.stop"))?,
            None => start,
        };
        let fail = |reason: &str| Invalid {
            field: format!("{field}.stop"),
            reason: format!("{stop} {reason} {start}, where the block starts"),
        };
        let family = Family::of(start);
        if family != Family::of(stop) {
            return Err(fail("is of another address family than"));
        }
        let range = Range { family, first: bits(start), last: bits(stop) };
        if range.last < range.first { Err(fail("is before")) } else { Ok(Self { range, spares_ends: false }) }
    }

    /// Whether the address is at an end that is spared.
    pub(crate) fn spares(&self, address: IpAddr) -> bool {
        self.spares_ends && self.range.contains(address) && self.ends().contains(&bits(address))
    }

    /// The first and the last address.
    pub(crate) fn ends(&self) -> [u128; 2] {
        [self.range.first, self.range.last]
    }
}

fn prefix(text: &str, field: &str) -> Result<Range, Invalid> {
    let parsed: IpNet = text.parse().map_err(|_| Invalid {
        field: format!("{field}.cidr"),
        reason: format!("{text:?} is no prefix; write one such as 192.0.2.0/24 or 2001:db8::/112"),
    })?;
    Ok(Range {
        family: Family::of(parsed.addr()),
        first: bits(parsed.network()),
        last: bits(parsed.broadcast()),
    })
}

fn address(text: &str, field: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid {
        field: field.to_owned(),
        reason: format!("{text:?} is no IP address; write one such as 192.0.2.10 or 2001:db8::10"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(cidr: &str, start: &str, stop: &str, spare_ends: bool) -> Result<Block, Invalid> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let block = PoolBlock { cidr: some(cidr), start: some(start), stop: some(stop) };
        Block::parse(&block, "spec.blocks[0]", spare_ends)
    }

    #[test]
    fn blocks_are_read_in_all_forms() {
        for (cidr, start, stop, expected) in [
            ("10.0.0.7/30", "", "", "10.0.0.4 - 10.0.0.7"),
            ("10.0.0.0/32", "192.0.2.1", "", "10.0.0.0 - 10.0.0.0"),
            ("::/0", "", "", ":: - ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("", "10.0.0.9", "", "10.0.0.9 - 10.0.0.9"),
            ("", "10.0.0.255", "10.0.1.3", "10.0.0.255 - 10.0.1.3"),
            ("", "fd00::1", "fd00::1:0", "fd00::1 - fd00::1:0"),
        ] {
            assert_eq!(parse(cidr, start, stop, false).unwrap().range.to_string(), expected);
        }
    }

    #[test]
    fn only_ends_of_larger_prefixes_are_spared() {
        let spares =
            |cidr: &str, start: &str, stop: &str| parse(cidr, start, stop, true).unwrap().spares_ends;
        assert!(spares("10.0.0.0/30", "", "") && spares("fd00::/126", "", ""));
        assert!(!spares("10.0.0.0/31", "", "") && !spares("10.0.0.0/32", "", ""));
        assert!(!spares("fd00::/127", "", "") && !spares("fd00::/128", "", ""));
        assert!(!spares("", "10.0.0.1", "10.0.0.9"));
        let block = parse("10.0.0.0/30", "", "", true).unwrap();
        let spared =
            ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|it| block.spares(it.parse().unwrap()));
        assert_eq!(spared, [true, false, false, true]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (cidr, start, stop, expected) in [
            (
                "10.0.0.0",
                "",
                "",
                "spec.blocks[0].cidr: \"10.0.0.0\" is no prefix; write one such as 192.0.2.0/24 or 2001:db8::/112",
            ),
            (
                "",
                "",
                "10.0.0.9",
                "spec.blocks[0]: a block needs cidr, or start; stop alone does not say where it begins",
            ),
            (
                "",
                "10.0.0",
                "",
                "spec.blocks[0].start: \"10.0.0\" is no IP address; write one such as 192.0.2.10 or 2001:db8::10",
            ),
            (
                "",
                "10.0.0.9",
                "10.0.0.8",
                "spec.blocks[0].stop: 10.0.0.8 is before 10.0.0.9, where the block starts",
            ),
            (
                "",
                "10.0.0.9",
                "fd00::1",
                "spec.blocks[0].stop: fd00::1 is of another address family than 10.0.0.9, where the block starts",
            ),
        ] {
            assert_eq!(parse(cidr, start, stop, false).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_largest_range_is_counted_but_for_one() {
        assert_eq!(parse("::/0", "", "", false).unwrap().range.count(), u128::MAX);
        assert_eq!(parse("10.0.0.0/15", "", "", false).unwrap().range.count(), 131_072);
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        let range = |cidr: &str| parse(cidr, "", "", false).unwrap().range;
        let merged = merge(vec![
            range("10.0.1.0/24"),
            range("fd00::/120"),
            range("10.0.0.0/24"),
            range("10.0.3.0/24"),
        ]);
        let texts: Vec<String> = merged.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.0 - 10.0.1.255", "10.0.3.0 - 10.0.3.255", "fd00:: - fd00::ff"]);
    }
}
