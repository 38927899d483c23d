//! What a peer is told: from the node's prefixes to a sorted table, and from one table to the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cilium_rest::bgp::{Attributes, Family, Routes};
use ipnet::IpNet;

/// LOCAL_PREF towards peers of the same AS where no advertisement names one (RFC 4271, 5.1.5 leaves it open).
pub const LOCAL_PREFERENCE: u32 = 100;

/// What goes with a prefix towards one kind of peers: the advertisements of a prefix, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// Standard communities, sorted.
    pub communities: Vec<u32>,
    /// Large communities, sorted.
    pub large_communities: Vec<(u32, u32, u32)>,
    /// LOCAL_PREF; `None` towards external peers.
    pub local_preference: Option<u32>,
}

impl Offer {
    /// The union of communities, and the highest preference.
    pub fn merge<'a>(all: impl IntoIterator<Item = &'a Attributes>, is_internal: bool) -> Self {
        let mut offer = Self::default();
        for attributes in all {
            offer.communities.extend(&attributes.communities);
            offer.large_communities.extend(&attributes.large_communities);
            offer.local_preference = offer.local_preference.max(attributes.local_preference);
        }
        offer.communities.sort_unstable();
        offer.communities.dedup();
        offer.large_communities.sort_unstable();
        offer.large_communities.dedup();
        let preference = offer.local_preference.unwrap_or(LOCAL_PREFERENCE);
        offer.local_preference = is_internal.then_some(preference);
        offer
    }
}

/// Prefixes of one family and what goes with them, sorted by prefix. Peers that are told the same share it.
pub type Table = Vec<(IpNet, Arc<Offer>)>;

/// Family of a prefix.
pub fn family(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::Ipv4,
        IpNet::V6(_) => Family::Ipv6,
    }
}

/// The prefixes of `routes` that go to peers whose `family` names these `advertisements`; `known` says what goes with each of them.
pub fn export(
    routes: &Routes,
    known: &BTreeMap<String, Attributes>,
    advertisements: &[String],
    of: Family,
    is_internal: bool,
) -> Table {
    // Few sets of advertisements, many prefixes.
    let mut offers: HashMap<Vec<&str>, Arc<Offer>> = HashMap::new();
    let mut table = Table::new();
    for (prefix, names) in routes.iter().filter(|(prefix, _)| family(prefix) == of) {
        let mut matching: Vec<&str> =
            names.iter().filter(|name| advertisements.contains(name)).map(String::as_str).collect();
        matching.sort_unstable();
        matching.dedup();
        if matching.is_empty() {
            continue;
        }
        let offer = offers.entry(matching).or_insert_with_key(|matching| {
            let attributes = matching.iter().filter_map(|name| known.get(*name));
            Arc::new(Offer::merge(attributes, is_internal))
        });
        table.push((*prefix, offer.clone()));
    }
    table
}

/// What makes one table the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Prefixes that go, sorted.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes that come or change by what goes with them; sorted.
    pub announced: BTreeMap<Arc<Offer>, Vec<IpNet>>,
}

impl Changes {
    /// From `old` to `new`. With `all`, prefixes of `new` are said again that were in `old` with the same offer.
    pub fn between(old: &Table, new: &Table, all: bool) -> Self {
        let mut changes = Self::default();
        let mut before = old.iter().peekable();
        for (prefix, offer) in new {
            while let Some((gone, _)) = before.next_if(|(it, _)| it < prefix) {
                changes.withdrawn.push(*gone);
            }
            let had = before.next_if(|(it, _)| it == prefix);
            if all || had.is_none_or(|(_, had)| !Arc::ptr_eq(had, offer) && had != offer) {
                changes.announced.entry(offer.clone()).or_default().push(*prefix);
            }
        }
        changes.withdrawn.extend(before.map(|(gone, _)| *gone));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_routes(text: &[(&str, &[&str])]) -> Routes {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        text.iter().map(|(prefix, of)| (prefix.parse().unwrap(), names(of))).collect()
    }

    fn mk_known() -> BTreeMap<String, Attributes> {
        let a = Attributes {
            communities: vec![30, 10],
            large_communities: vec![(1, 2, 3)],
            local_preference: Some(50),
        };
        let b = Attributes { communities: vec![10, 20], local_preference: Some(200), ..Default::default() };
        [("a".to_owned(), a), ("b".to_owned(), b), ("c".to_owned(), Attributes::default())].into()
    }

    fn shown(table: &Table) -> Vec<(String, Vec<u32>, Option<u32>)> {
        let row = |(prefix, offer): &(IpNet, Arc<Offer>)| {
            (prefix.to_string(), offer.communities.clone(), offer.local_preference)
        };
        table.iter().map(row).collect()
    }

    #[test]
    fn advertisements_of_a_prefix_are_merged() {
        let routes = mk_routes(&[
            ("10.0.0.0/24", &["a", "b"]),
            ("10.0.1.0/24", &["c"]),
            ("10.0.2.0/24", &["other"]),
            ("fd00::/64", &["a"]),
        ]);
        let names = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let internal = export(&routes, &mk_known(), &names, Family::Ipv4, true);
        let expected = vec![
            ("10.0.0.0/24".to_owned(), vec![10, 20, 30], Some(200)),
            ("10.0.1.0/24".to_owned(), vec![], Some(100)),
        ];
        assert_eq!(shown(&internal), expected);
        let external = export(&routes, &mk_known(), &names[..1], Family::Ipv4, false);
        assert_eq!(shown(&external), vec![("10.0.0.0/24".to_owned(), vec![10, 30], None)]);
        let six = export(&routes, &mk_known(), &names[..1], Family::Ipv6, false);
        assert_eq!(shown(&six), vec![("fd00::/64".to_owned(), vec![10, 30], None)]);
        assert!(export(&routes, &mk_known(), &[], Family::Ipv4, true).is_empty());
    }

    #[test]
    fn only_what_differs_is_said() {
        let names = ["a".to_owned(), "b".to_owned()];
        let of = |text| export(&mk_routes(text), &mk_known(), &names, Family::Ipv4, false);
        let old = of(&[("10.0.0.0/24", &["a"]), ("10.0.1.0/24", &["a"]), ("10.0.2.0/24", &["a"])]);
        let new = of(&[("10.0.1.0/24", &["a"]), ("10.0.2.0/24", &["b"]), ("10.0.3.0/24", &["b"])]);
        let changes = Changes::between(&old, &new, false);
        let strings = |prefixes: &[IpNet]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(strings(&changes.withdrawn), ["10.0.0.0/24"]);
        let announced: Vec<_> =
            changes.announced.iter().map(|(o, p)| (o.communities.clone(), strings(p))).collect();
        let expected = ["10.0.2.0/24".to_owned(), "10.0.3.0/24".to_owned()];
        assert_eq!(announced, [(vec![10, 20], expected.to_vec())]);
        assert_eq!(Changes::between(&new, &new.clone(), false), Changes::default());
        assert_eq!(Changes::between(&new, &new, true).announced.len(), 2);
    }
}
