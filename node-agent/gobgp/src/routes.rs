//! Routes: which of them are asked for, and how they are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use cilium_rest::bgp::{Family, ImportedRoute, RouteTable, RouteView};
use ipnet::IpNet;
use prost_types::Timestamp;
use tonic::Status;

use crate::peers::{family_of, seconds};
use crate::proto::attribute::Attr;
use crate::proto::{
    self, AsPathAttribute, AsSegment, CommunitiesAttribute, Destination, IpAddressPrefix,
    LargeCommunitiesAttribute, LargeCommunity, LocalPrefAttribute, MpReachNlriAttribute,
    MultiExitDiscAttribute, NextHopAttribute, OriginAttribute, Path, TableLookupPrefix,
};
use crate::version::Version;

/// Routes by prefix.
pub(crate) type Table = BTreeMap<IpNet, Vec<RouteView>>;

/// A table that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// What the node and its peers know.
    Local,
    /// What a peer made known.
    In(IpAddr),
    /// What a peer was told.
    Out(IpAddr),
}

impl Which {
    /// The table with this number; `name` is the neighbour's address where it is one of a neighbour.
    pub(crate) fn parse(version: Version, number: i32, name: &str) -> Result<Self, Status> {
        let peer = || {
            name.parse()
                .map_err(|e| Status::invalid_argument(format!("`{name}` is no neighbour's address: {e}")))
        };
        match version.ordinal(number) {
            0 | 1 => Ok(Self::Local),
            2 => Ok(Self::In(peer()?)),
            3 => Ok(Self::Out(peer()?)),
            4 => Err(Status::unimplemented("this speaker has no VRFs")),
            _ => Err(Status::invalid_argument(format!("there is no table with the number {number}"))),
        }
    }

    /// The neighbour that it is a table of.
    pub(crate) fn peer(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::In(peer) | Self::Out(peer) => Some(peer),
        }
    }

    fn has(self, route: &RouteView) -> bool {
        match self {
            Self::Local => route.table != RouteTable::Advertised,
            Self::In(peer) => route.table == RouteTable::Received && route.peer == Some(peer),
            Self::Out(peer) => route.table == RouteTable::Advertised && route.peer == Some(peer),
        }
    }
}

/// The routes of a table and a family (`None`: of both); those of the node itself come first.
pub(crate) fn table(routes: Vec<RouteView>, which: Which, family: Option<&proto::Family>) -> Table {
    let mut table = Table::new();
    for route in routes {
        if which.has(&route) && is_of(&route.prefix, family) {
            table.entry(route.prefix).or_default().push(route);
        }
    }
    for routes in table.values_mut() {
        routes.sort_by_key(|route| route.table);
    }
    table
}

fn is_of(prefix: &IpNet, family: Option<&proto::Family>) -> bool {
    family.is_none_or(|asked| asked.afi == 0 || *asked == family_of(family_of_prefix(prefix)))
}

fn family_of_prefix(prefix: &IpNet) -> Family {
    if prefix.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// Keeps the prefixes that one of `lookups` means; all where there is none.
pub(crate) fn look_up(
    version: Version,
    table: &mut Table,
    lookups: &[TableLookupPrefix],
) -> Result<(), Status> {
    if lookups.is_empty() {
        return Ok(());
    }
    let mut found = BTreeSet::new();
    for lookup in lookups {
        found.extend(matches(version, table, lookup)?);
    }
    table.retain(|prefix, _| found.contains(prefix));
    Ok(())
}

fn matches(version: Version, table: &Table, lookup: &TableLookupPrefix) -> Result<Vec<IpNet>, Status> {
    let text = &lookup.prefix;
    let asked = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let asked =
        asked.map_err(|_| Status::invalid_argument(format!("`{text}` is neither prefix nor address")))?;
    let asked = asked.trunc();
    let prefixes = table.keys().copied();
    Ok(match version.ordinal(lookup.r#type) {
        1 => prefixes.filter(|prefix| asked.contains(prefix)).collect(),
        2 => prefixes.filter(|prefix| prefix.contains(&asked)).collect(),
        _ if text.contains('/') => prefixes.filter(|prefix| *prefix == asked).collect(),
        _ => {
            let holding = prefixes.filter(|prefix| prefix.contains(&asked));
            holding.max_by_key(IpNet::prefix_len).into_iter().collect()
        }
    })
}

/// Next hops of the best routes that peers made known, by instance and prefix.
pub(crate) type Best = HashMap<(String, IpNet), Vec<IpAddr>>;

/// `best` of all instances, in one table.
pub(crate) fn best(best: BTreeMap<String, Vec<ImportedRoute>>) -> Best {
    let all = best.into_iter().flat_map(|(instance, routes)| {
        routes.into_iter().map(move |route| ((instance.clone(), route.prefix), route.next_hops))
    });
    all.collect()
}

/// A prefix with its routes. `best` marks one of each instance: the node's own, or else what it has of peers.
pub(crate) fn destination(
    version: Version,
    prefix: &IpNet,
    routes: &[RouteView],
    best: &Best,
) -> Destination {
    let mut decided = BTreeSet::new();
    let paths = routes
        .iter()
        .map(|route| path(version, route, may_be_best(route, best) && decided.insert(&route.instance)));
    Destination { prefix: prefix.to_string(), paths: paths.collect() }
}

fn may_be_best(route: &RouteView, best: &Best) -> bool {
    match route.table {
        RouteTable::Available => true,
        RouteTable::Advertised => false,
        RouteTable::Received => {
            let best = best.get(&(route.instance.clone(), route.prefix));
            best.is_some_and(|next_hops| next_hops.contains(&route.next_hop))
        }
    }
}

fn path(version: Version, route: &RouteView, best: bool) -> Path {
    Path {
        nlri: version.prefix(prefix(&route.prefix)),
        pattrs: attributes(version, route).into_iter().map(|a| version.attribute(a)).collect(),
        age: Some(Timestamp { seconds: seconds(route.since), nanos: 0 }),
        best,
        family: Some(family_of(family_of_prefix(&route.prefix))),
        stale: route.stale,
        neighbor_ip: route.peer.map(|peer| peer.to_string()).unwrap_or_default(),
    }
}

fn prefix(prefix: &IpNet) -> IpAddressPrefix {
    IpAddressPrefix { prefix_len: prefix.prefix_len().into(), prefix: prefix.network().to_string() }
}

/// Attributes in the order of their codes.
fn attributes(version: Version, route: &RouteView) -> Vec<Attr> {
    let origin = match route.origin.as_str() {
        "igp" => 0,
        "egp" => 1,
        _ => 2,
    };
    let mut all = vec![
        Attr::Origin(OriginAttribute { origin }),
        Attr::AsPath(AsPathAttribute { segments: segments(&route.as_path) }),
    ];
    let next_hop = route.next_hop.to_string();
    // RFC 4760: only IPv4 prefixes with IPv4 next hops have NEXT_HOP.
    let plain = route.prefix.addr().is_ipv4() && route.next_hop.is_ipv4();
    if plain {
        all.push(Attr::NextHop(NextHopAttribute { next_hop: next_hop.clone() }));
    }
    all.extend(route.med.map(|med| Attr::MultiExitDisc(MultiExitDiscAttribute { med })));
    all.extend(route.local_preference.map(|local_pref| Attr::LocalPref(LocalPrefAttribute { local_pref })));
    if !route.communities.is_empty() {
        all.push(Attr::Communities(CommunitiesAttribute { communities: route.communities.clone() }));
    }
    if !plain {
        all.push(Attr::MpReach(MpReachNlriAttribute {
            family: Some(family_of(family_of_prefix(&route.prefix))),
            next_hops: vec![next_hop],
            nlris: vec![version.prefix(prefix(&route.prefix))],
        }));
    }
    if !route.large_communities.is_empty() {
        let communities = route.large_communities.iter();
        let communities = communities.map(|&(global_admin, local_data1, local_data2)| LargeCommunity {
            global_admin,
            local_data1,
            local_data2,
        });
        all.push(Attr::LargeCommunities(LargeCommunitiesAttribute { communities: communities.collect() }));
    }
    all
}

/// AS numbers in segments: a set by itself, numbers beside each other as a sequence.
fn segments(path: &[String]) -> Vec<AsSegment> {
    const SET: i32 = 1;
    const SEQUENCE: i32 = 2;
    let mut segments: Vec<AsSegment> = Vec::new();
    for element in path {
        let set = element.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let numbers = set.unwrap_or(element).split(',').filter_map(|number| number.parse().ok());
        match segments.last_mut() {
            Some(last) if set.is_none() && last.r#type == SEQUENCE => last.numbers.extend(numbers),
            _ => {
                let r#type = if set.is_some() { SET } else { SEQUENCE };
                segments.push(AsSegment { r#type, numbers: numbers.collect() });
            }
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_table(prefixes: &[&str]) -> Table {
        prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Vec::new())).collect()
    }

    fn found(prefix: &str, ordinal: i32) -> Vec<String> {
        let mut table = mk_table(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8", "fd00::/16"]);
        let version = Version::V4;
        let lookup = TableLookupPrefix { prefix: prefix.to_owned(), r#type: version.number(ordinal) };
        look_up(version, &mut table, &[lookup]).unwrap();
        table.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn prefixes_are_looked_up_as_they_are_asked_for() {
        assert_eq!(found("10.1.0.0/16", 0), ["10.1.0.0/16"]);
        assert_eq!(found("10.1.0.0/17", 0), [""; 0]);
        assert_eq!(found("10.1.2.3", 0), ["10.1.2.0/24"]);
        assert_eq!(found("10.9.2.3", 0), ["10.0.0.0/8"]);
        assert_eq!(found("fd00::1", 0), ["fd00::/16"]);
        assert_eq!(found("10.1.0.0/16", 1), ["10.1.0.0/16", "10.1.2.0/24"]);
        assert_eq!(found("10.1.0.0/16", 2), ["10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(found("0.0.0.0/0", 1), ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8"]);
    }

    #[test]
    fn what_cannot_be_looked_up_is_refused() {
        let lookup = TableLookupPrefix { prefix: "ten".to_owned(), r#type: 0 };
        let refused = look_up(Version::V3, &mut Table::new(), &[lookup]).unwrap_err();
        assert_eq!(refused.message(), "`ten` is neither prefix nor address");
        assert_eq!(Which::parse(Version::V4, 3, "eth0").unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(Which::parse(Version::V4, 5, "").unwrap_err().code(), tonic::Code::Unimplemented);
    }

    #[test]
    fn sets_are_segments_of_their_own() {
        let path = ["1", "2", "{3,4}", "5"].map(str::to_owned);
        let segment = |r#type, numbers: &[u32]| AsSegment { r#type, numbers: numbers.to_vec() };
        assert_eq!(segments(&path), [segment(2, &[1, 2]), segment(1, &[3, 4]), segment(2, &[5])]);
        assert_eq!(segments(&[]), []);
    }
}
