//! What the node's BGP speaker says: it answers whether or not the agent runs.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use cilium_print::output::{TableOutput, encode, print};
use cilium_print::table::{Line, align, line, spread};
use cilium_rest::Client;
use cilium_rest::bgp::{Attributes, Family, Peers, RoutePolicy, RouteTable, RouteView, SOCKET, SOCKET_VARIABLE};
use cilium_rest::model::BgpPeer;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::PATIENCE;
use crate::cli::{Afi, BgpCommand, TableName};

/// Runs a command of `bgp`.
///
/// # Errors
/// The speaker does not answer, or the output cannot be written.
pub(crate) fn run(command: &BgpCommand) -> anyhow::Result<()> {
    let socket = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    let client = Client::of_speaker(&socket, Some(PATIENCE));
    match command {
        BgpCommand::Peers(output) => peers(&client, output),
        BgpCommand::Routes { table, afi, safi: _, which, output } => {
            routes(&client, *table, *afi, &Which::parse(which)?, output)
        }
        BgpCommand::RoutePolicies(output) => policies(&client, output),
    }
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

/// Prints a table, or the data behind it.
fn show<T: Serialize>(
    data: &[T],
    header: Line,
    rows: impl IntoIterator<Item = Line>,
    output: &TableOutput,
) -> anyhow::Result<()> {
    let text = match output.data.output {
        Some(format) => encode(data, format)?,
        None => {
            let header = (!output.no_headers).then_some(header);
            align(&header.into_iter().chain(rows).collect::<Vec<_>>())
        }
    };
    Ok(print(&text)?)
}

fn peers(client: &Client, output: &TableOutput) -> anyhow::Result<()> {
    let peers: Peers = client.get("/v1/peers")?;
    let now = now();
    let peers: Vec<BgpPeer> = peers.peers.into_iter().map(|peer| BgpPeer::new(peer, now)).collect();
    let header = line([
        "Local AS",
        "Peer AS",
        "Peer Address",
        "Session",
        "Uptime",
        "Family",
        "Received",
        "Advertised",
        "BFD",
        "Reason",
    ]);
    show(&peers, header, peers.iter().flat_map(peer_lines), output)
}

fn peer_lines(peer: &BgpPeer) -> Vec<Line> {
    let address: Result<IpAddr, _> = peer.peer_address.parse();
    let address = match address {
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

/// Seconds as hours, minutes and seconds.
fn span(seconds: u64) -> String {
    let duration = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    format!("{duration:#}").replace(' ', "")
}

/// Of which routes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Which {
    asn: Option<u32>,
    peer: Option<IpAddr>,
}

impl Which {
    fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut which = Self::default();
        for pair in words.chunks(2) {
            match pair {
                [word, asn] if word == "vrouter" => {
                    which.asn = Some(asn.parse().with_context(|| format!("{asn:?} is no AS number"))?);
                }
                [word, address] if word == "peer" || word == "neighbor" => {
                    let parsed = address.parse();
                    which.peer = Some(parsed.with_context(|| format!("{address:?} is no IP address"))?);
                }
                _ => bail!("{:?}: expected is vrouter ASN or peer ADDRESS", pair.join(" ")),
            }
        }
        Ok(which)
    }
}

fn routes(
    client: &Client,
    table: TableName,
    afi: Afi,
    which: &Which,
    output: &TableOutput,
) -> anyhow::Result<()> {
    let of = match table {
        TableName::Available => RouteTable::Available,
        TableName::Advertised => RouteTable::Advertised,
        TableName::Received => RouteTable::Received,
    };
    let asns = asns(client)?;
    let asn_of = |route: &RouteView| {
        asns.iter().find(|(instance, _)| *instance == route.instance).map_or(0, |(_, asn)| *asn)
    };
    let mut found: Vec<RouteView> = client.get("/v1/routes")?;
    found.retain(|route| {
        route.table == of
            && route.prefix.addr().is_ipv4() == (afi == Afi::Ipv4)
            && which.asn.is_none_or(|asn| asn_of(route) == asn)
            && which.peer.is_none_or(|peer| route.peer == Some(peer))
    });
    found.sort_by(|one, other| {
        let key = |route: &RouteView| (route.instance.clone(), route.peer, route.prefix);
        key(one).cmp(&key(other))
    });
    let now = now();
    let has_peers = table != TableName::Available;
    let row = |route: &RouteView| {
        let peer = has_peers.then(|| route.peer.map(|peer| peer.to_string()).unwrap_or_default());
        let rest = [
            route.prefix.to_string(),
            route.next_hop.to_string(),
            span(now.saturating_sub(route.since)),
            attributes(route),
        ];
        [asn_of(route).to_string()].into_iter().chain(peer).chain(rest).collect()
    };
    let header: &[&str] = if has_peers {
        &["VRouter", "Peer", "Prefix", "NextHop", "Age", "Attrs"]
    } else {
        &["VRouter", "Prefix", "NextHop", "Age", "Attrs"]
    };
    show(&found, header.iter().map(|&cell| cell.to_owned()).collect(), found.iter().map(row), output)
}

/// AS number of each instance that has a neighbour.
fn asns(client: &Client) -> anyhow::Result<Vec<(String, u32)>> {
    let peers: Peers = client.get("/v1/peers")?;
    let mut asns: Vec<_> = peers.peers.into_iter().map(|peer| (peer.instance, peer.local_asn)).collect();
    asns.sort();
    asns.dedup();
    Ok(asns)
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

fn policies(client: &Client, output: &TableOutput) -> anyhow::Result<()> {
    let asns = asns(client)?;
    let policies: Vec<RoutePolicy> = client.get("/v1/policies")?;
    let header = line([
        "VRouter",
        "Policy Name",
        "Type",
        "Match Peers",
        "Match Families",
        "Match Prefixes (Min..Max Len)",
        "RIB Action",
        "Path Actions",
    ]);
    let rows = policies.iter().flat_map(|policy| policy_lines(policy, &asns));
    show(&policies, header, rows, output)
}

fn policy_lines(policy: &RoutePolicy, asns: &[(String, u32)]) -> Vec<Line> {
    let asn = asns.iter().find(|(instance, _)| *instance == policy.instance).map_or(0, |(_, asn)| *asn);
    let family = match policy.family {
        Family::Ipv4 => "ipv4/unicast",
        Family::Ipv6 => "ipv6/unicast",
    };
    let first = line([
        &asn.to_string(),
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

fn actions(attributes: &Attributes) -> String {
    let preference = attributes.local_preference.map(|value| format!("{{LocalPref: {value}}}"));
    let communities = communities(&attributes.communities, &attributes.large_communities);
    preference.into_iter().chain(communities).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_of_a_router_or_a_peer() {
        let parse = |words: &str| {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            Which::parse(&words).map_err(|error| format!("{error:#}"))
        };
        let peer = "fd00::1".parse().ok();
        assert_eq!(parse("vrouter 64512 neighbor fd00::1"), Ok(Which { asn: Some(64512), peer }));
        assert_eq!(parse(""), Ok(Which::default()));
        assert_eq!(parse("peer"), Err(r#""peer": expected is vrouter ASN or peer ADDRESS"#.to_owned()));
        let error = parse("vrouter one").expect_err("is no number");
        assert!(error.starts_with(r#""one" is no AS number"#), "{error}");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!((span(0).as_str(), span(3725).as_str()), ("0s", "1h2m5s"));
    }
}
