//! Addresses of pools, and the blocks that they become.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cilium_api::load_balancer_pool::PoolBlock;
use ipnet::IpNet;

/// Addresses of one family from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    is_v6: bool,
    first: u128,
    last: u128,
    /// The range as a prefix, if it was written as one.
    prefix: Option<IpNet>,
}

/// IPv4 addresses with the same first three upper.
const SLASH_24: u128 = 256;

impl Range {
    /// MetalLB's forms: a prefix, or the first and the last address with a hyphen between them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((first, last)) = text.split_once('-') else { return prefix(text) };
        let (first, last) = (address(first)?, address(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!("{text:?} begins and ends in different address families"));
        }
        if last < first {
            return Err(format!("{text:?} ends before it begins"));
        }
        Ok(Self { is_v6: first.is_ipv6(), first: bits(first), last: bits(last), prefix: None })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv6() == self.is_v6 && (self.first..=self.last).contains(&bits(address))
    }

    /// Whether both have an address.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6 && self.first <= other.last && other.first <= self.last
    }

    /// Number of parts that [`Self::without_buggy`] makes, or one more.
    pub(crate) fn parts(&self) -> u128 {
        if self.is_v6 { 1 } else { self.last / SLASH_24 - self.first / SLASH_24 + 1 }
    }

    /// The same without IPv4 addresses that end in .0 or .255, which `avoidBuggyIPs` means.
    pub(crate) fn without_buggy(&self) -> Vec<Self> {
        if self.is_v6 {
            return vec![*self];
        }
        let part = |upper: u128| {
            let first = self.first.max(upper * SLASH_24 + 1);
            let last = self.last.min(upper * SLASH_24 + SLASH_24 - 2);
            let is_whole = (first, last) == (self.first, self.last);
            let prefix = self.prefix.filter(|_| is_whole);
            (first <= last).then_some(Self { is_v6: false, first, last, prefix })
        };
        (self.first / SLASH_24..=self.last / SLASH_24).filter_map(part).collect()
    }

    /// The range in a pool of ours.
    pub(crate) fn block(&self) -> PoolBlock {
        if let Some(prefix) = self.prefix {
            return PoolBlock { cidr: Some(prefix.to_string()), ..PoolBlock::default() };
        }
        let text = |bits| Some(self.address(bits).to_string());
        let stop = (self.first != self.last).then(|| text(self.last)).flatten();
        PoolBlock { start: text(self.first), stop, ..PoolBlock::default() }
    }

    fn address(&self, bits: u128) -> IpAddr {
        match u32::try_from(bits) {
            Ok(bits) if !self.is_v6 => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => prefix.fmt(f),
            None => write!(f, "{}-{}", self.address(self.first), self.address(self.last)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => it.to_bits().into(),
        IpAddr::V6(it) => it.to_bits(),
    }
}

fn prefix(text: &str) -> Result<Range, String> {
    let parsed: IpNet = text.trim().parse().map_err(|_| {
        format!("{text:?} is no range of addresses; write 192.0.2.0/24, or 192.0.2.10-192.0.2.19")
    })?;
    let prefix = parsed.trunc();
    let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
    Ok(Range { is_v6: prefix.addr().is_ipv6(), first, last, prefix: Some(prefix) })
}

fn address(text: &str) -> Result<IpAddr, String> {
    let parsed = text.trim().parse::<IpAddr>();
    parsed.map(|address| address.to_canonical()).map_err(|_| format!("{:?} is no IP address", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> String {
        let parts = Range::parse(text).unwrap().without_buggy();
        parts.iter().map(Range::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_that_end_in_0_or_255_are_left_out() {
        for (text, expected) in [
            ("192.0.2.0/24", "192.0.2.1-192.0.2.254"),
            ("192.0.2.16/28", "192.0.2.16/28"),
            ("192.0.2.240/28", "192.0.2.240-192.0.2.254"),
            ("192.0.2.250-192.0.3.4", "192.0.2.250-192.0.2.254 192.0.3.1-192.0.3.4"),
            ("192.0.2.255-192.0.3.0", ""),
            ("192.0.2.0/32", ""),
            ("255.255.255.255/32", ""),
            ("2001:db8::/120", "2001:db8::/120"),
        ] {
            assert_eq!(blocks(text), expected, "{text}");
        }
        assert_eq!(Range::parse("0.0.0.0/0").unwrap().parts(), 1 << 24);
    }

    #[test]
    fn both_forms_are_read() {
        for (text, expected) in [
            ("192.0.2.7/30", "192.0.2.4/30"),
            ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
            ("::ffff:192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.9"),
            ("2001:db8::1-2001:db8::9", "2001:db8::1-2001:db8::9"),
        ] {
            assert_eq!(Range::parse(text).unwrap().to_string(), expected);
        }
        for (text, reason) in [
            ("192.0.2.1", "\"192.0.2.1\" is no range of addresses"),
            ("192.0.2.9-192.0.2.1", "ends before it begins"),
            ("192.0.2.9-2001:db8::1", "different address families"),
            ("192.0.2.9-a", "\"a\" is no IP address"),
        ] {
            let error = Range::parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
