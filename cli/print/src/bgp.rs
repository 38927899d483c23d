//! Tables of BGP: of one node, or of many, where the node's name stands before.

use std::net::IpAddr;

use cilium_rest::bgp::{Attributes, Family, RoutePolicy, RouteView};
use cilium_rest::model::BgpPeer;
use jiff::SignedDuration;

use crate::table::{Line, line, spread};

/// Header of [`peer`].
pub fn peer_header(state: &str) -> Line {
    line([
        "Local AS",
        "Peer AS",
        "Peer Address",
        state,
        "Uptime",
        "Family",
        "Received",
        "Advertised",
        "BFD",
        "Reason",
    ])
}

/// A neighbour; one line for each family.
pub fn peer(peer: &BgpPeer) -> Vec<Line> {
    let address = match peer.peer_address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", peer.peer_port),
        _ => format!("{}:{}", peer.peer_address, peer.peer_port),
    };
    let bfd = peer.bfd.map(|state| format!("{state:?}").to_lowercase()).unwrap_or_default();
    let first = line([
        &peer.local_asn.to_string(),
        &peer.peer_asn.to_string(),
        &address,
        peer.session_state.name(),
        &span(peer.uptime_nanoseconds / 1_000_000_000),
        "",
        "",
        "",
        &bfd,
        peer.reason.as_deref().unwrap_or_default(),
    ]);
    let names = peer.families.iter().map(|family| format!("{}/{}", family.afi, family.safi));
    let mut lines = spread(first, 5, names);
    for (line, family) in lines.iter_mut().zip(&peer.families) {
        line[6] = family.received.to_string();
        line[7] = family.advertised.to_string();
    }
    lines
}

/// Header of [`route`]; routes from or to peers have one column more.
pub fn route_header(has_peers: bool) -> Line {
    if has_peers {
        line(["VRouter", "Peer", "Prefix", "NextHop", "Age", "Attrs"])
    } else {
        line(["VRouter", "Prefix", "NextHop", "Age", "Attrs"])
    }
}

/// A route at a time, in seconds since 1970.
pub fn route(route: &RouteView, has_peers: bool, now: u64) -> Line {
    let peer = has_peers.then(|| route.peer.map(|peer| peer.to_string()).unwrap_or_default());
    let rest = [
        route.prefix.to_string(),
        route.next_hop.to_string(),
        span(now.saturating_sub(route.since)),
        attributes(route),
    ];
    [route.local_asn.to_string()].into_iter().chain(peer).chain(rest).collect()
}

/// Header of [`policy`].
pub fn policy_header() -> Line {
    line([
        "VRouter",
        "Policy Name",
        "Type",
        "Match Peers",
        "Match Families",
        "Match Prefixes (Min..Max Len)",
        "RIB Action",
        "Path Actions",
    ])
}

/// What goes to a peer for an advertisement; one line for each prefix.
pub fn policy(policy: &RoutePolicy) -> Vec<Line> {
    let family = match policy.family {
        Family::Ipv4 => "ipv4/unicast",
        Family::Ipv6 => "ipv6/unicast",
    };
    let first = line([
        &policy.local_asn.to_string(),
        &format!("{}-{}", policy.peer, policy.advertisement),
        "export",
        &policy.address.to_string(),
        family,
        "",
        "accept",
        &actions(&policy.attributes),
    ]);
    let prefixes = policy.prefixes.iter();
    spread(first, 5, prefixes.map(|prefix| format!("{prefix} ({0}..{0})", prefix.prefix_len())))
}

/// Seconds as hours, minutes and seconds.
fn span(seconds: u64) -> String {
    let duration = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    format!("{duration:#}").replace(' ', "")
}

/// What a route has beside its next hop, as GoBGP lists it.
fn attributes(route: &RouteView) -> String {
    let mut parts = vec![format!("{{Origin: {}}}", route.origin.chars().next().unwrap_or('?'))];
    if !route.as_path.is_empty() {
        parts.push(format!("{{AsPath: {}}}", route.as_path.join(" ")));
    }
    parts.extend(route.med.map(|med| format!("{{Med: {med}}}")));
    parts.extend(route.local_preference.map(|preference| format!("{{LocalPref: {preference}}}")));
    parts.extend(communities(&route.communities, &route.large_communities));
    if route.stale {
        parts.push("{Stale}".to_owned());
    }
    format!("[{}]", parts.join(" "))
}

fn communities(standard: &[u32], large: &[(u32, u32, u32)]) -> Vec<String> {
    let standard: Vec<String> =
        standard.iter().map(|community| format!("{}:{}", community >> 16, community & 0xffff)).collect();
    let large: Vec<String> = large.iter().map(|(a, b, c)| format!("{a}:{b}:{c}")).collect();
    let mut parts = Vec::new();
    if !standard.is_empty() {
        parts.push(format!("{{Communities: {}}}", standard.join(", ")));
    }
    if !large.is_empty() {
        parts.push(format!("{{LargeCommunities: {}}}", large.join(", ")));
    }
    parts
}

fn actions(attributes: &Attributes) -> String {
    let preference = attributes.local_preference.map(|value| format!("{{LocalPref: {value}}}"));
    let communities = communities(&attributes.communities, &attributes.large_communities);
    preference.into_iter().chain(communities).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        assert_eq!((span(0).as_str(), span(3725).as_str()), ("0s", "1h2m5s"));
    }
}
