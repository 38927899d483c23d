use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Place of the router in a prefix.
const ROUTER: u32 = 1;
/// Place of the first address for pods.
const FIRST: u32 = 2;
/// A prefix is used up to here: more than a node can have pods, and it keeps arithmetic in 32 bits.
const MAX_PLACES: u128 = 1 << 24;

/// A pod prefix, seen as numbered places: place 0 is the network itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    prefix: IpNet,
    /// First place for pods.
    first: u32,
    /// Last place for pods; below the first when the prefix is too small for any.
    last: u32,
}

impl Range {
    pub(crate) fn new(prefix: IpNet) -> Self {
        let prefix = prefix.trunc();
        Self { prefix, first: FIRST, last: last_place(prefix, prefix.addr().is_ipv4()) }
    }

    /// A block of a pool: nothing in it is the router's by its place.
    pub(crate) fn of_block(prefix: IpNet, allow_first: bool, allow_last: bool) -> Self {
        let prefix = prefix.trunc();
        let is_tiny = prefix.max_prefix_len() - prefix.prefix_len() <= 1;
        let first = u32::from(!allow_first && !is_tiny);
        Self { prefix, first, last: last_place(prefix, !allow_last && !is_tiny) }
    }

    pub(crate) fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// All places for pods, from the one after `last` round to `last` itself.
    pub(crate) fn places_after(&self, last: u32) -> impl Iterator<Item = u32> + use<> {
        let start = if last >= self.last { self.first } else { self.first.max(last + 1) };
        (start..=self.last).chain(self.first..start)
    }

    /// Whether the place is for pods.
    pub(crate) fn has(&self, place: u32) -> bool {
        (self.first..=self.last).contains(&place)
    }

    /// The router's address, unless the prefix is a single address.
    pub(crate) fn router(&self) -> Option<IpAddr> {
        (self.prefix.prefix_len() < self.prefix.max_prefix_len()).then(|| self.address(ROUTER))
    }

    /// Address at a place.
    pub(crate) fn address(&self, place: u32) -> IpAddr {
        match self.prefix.addr() {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() + place).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + u128::from(place)).into(),
        }
    }

    /// Place of an address, if the prefix has it within the places that are used.
    pub(crate) fn place(&self, address: IpAddr) -> Option<u32> {
        if !self.prefix.contains(&address) {
            return None;
        }
        let distance = match (self.prefix.addr(), address) {
            (IpAddr::V4(base), IpAddr::V4(it)) => u128::from(it.to_bits() - base.to_bits()),
            (IpAddr::V6(base), IpAddr::V6(it)) => it.to_bits() - base.to_bits(),
            _ => return None,
        };
        u32::try_from(distance).ok()
    }
}

/// The last place, or the one before it.
fn last_place(prefix: IpNet, spare_end: bool) -> u32 {
    let places = 1u128.checked_shl(u32::from(prefix.max_prefix_len() - prefix.prefix_len()));
    let last = places.unwrap_or(u128::MAX).saturating_sub(1 + u128::from(spare_end));
    // At most MAX_PLACES - 1, which fits.
    last.min(MAX_PLACES - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_range(prefix: &str) -> Range {
        Range::new(prefix.parse().unwrap())
    }

    #[test]
    fn places_leave_out_network_router_and_broadcast() {
        let range = mk_range("10.0.1.7/29");
        let all: Vec<_> = range.places_after(ROUTER).map(|p| range.address(p).to_string()).collect();
        assert_eq!(all, ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"]);
        assert_eq!(range.router(), Some("10.0.1.1".parse().unwrap()));
    }

    #[test]
    fn the_last_address_of_an_ipv6_prefix_is_usable() {
        let range = mk_range("fd00::/126");
        let all: Vec<_> = range.places_after(0).map(|p| range.address(p).to_string()).collect();
        assert_eq!(all, ["fd00::2", "fd00::3"]);
    }

    #[test]
    fn a_block_spares_its_ends_unless_it_is_tiny_or_told_otherwise() {
        let all = |prefix: &str, first, last| {
            let range = Range::of_block(prefix.parse().unwrap(), first, last);
            range.places_after(u32::MAX).map(|place| range.address(place).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("10.0.0.4/30", false, false), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(all("10.0.0.4/30", true, false), ["10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(all("fd00::/126", false, true), ["fd00::1", "fd00::2", "fd00::3"]);
        assert_eq!(all("10.0.0.4/31", false, false), ["10.0.0.4", "10.0.0.5"]);
        assert_eq!(all("fd00::9/128", false, false), ["fd00::9"]);
    }

    #[test]
    fn the_search_goes_round_once_and_ends_at_the_last_given() {
        let range = mk_range("10.0.1.0/29");
        assert_eq!(range.places_after(4).collect::<Vec<_>>(), [5, 6, 2, 3, 4]);
        assert_eq!(range.places_after(6).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(range.places_after(99).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn prefixes_without_room_have_no_places() {
        for prefix in ["10.0.0.0/32", "10.0.0.0/31", "fd00::1/128", "fd00::/127"] {
            for last in [0, 1, 2, 50] {
                assert_eq!(mk_range(prefix).places_after(last).next(), None, "{prefix} after {last}");
            }
        }
        assert_eq!(mk_range("10.0.0.0/32").router(), None);
    }

    #[test]
    fn a_place_and_its_address_name_each_other() {
        let range = mk_range("fd00:1::/64");
        assert_eq!(range.place(range.address(77)), Some(77));
        assert_eq!(range.place("fd00:2::4d".parse().unwrap()), None);
        assert_eq!(range.place("10.0.0.1".parse().unwrap()), None);
    }
}
