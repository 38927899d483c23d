//! What the node's BGP speaker says: it answers whether or not the agent runs.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use cilium_print::bgp::{peer, peer_header, policy, policy_header, route, route_header};
use cilium_print::output::{TableOutput, encode, print};
use cilium_print::table::{Line, align};
use cilium_rest::Client;
use cilium_rest::bgp::{Peers, RoutePolicy, RouteTable, RouteView, SOCKET, SOCKET_VARIABLE};
use cilium_rest::model::BgpPeer;
use jiff::Timestamp;
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
    show(&peers, peer_header("Session"), peers.iter().flat_map(peer), output)
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
    let mut found: Vec<RouteView> = client.get("/v1/routes")?;
    found.retain(|route| {
        route.table == of
            && route.prefix.addr().is_ipv4() == (afi == Afi::Ipv4)
            && which.asn.is_none_or(|asn| route.local_asn == asn)
            && which.peer.is_none_or(|peer| route.peer == Some(peer))
    });
    found.sort_by(|one, other| {
        let key = |route: &RouteView| (route.instance.clone(), route.peer, route.prefix);
        key(one).cmp(&key(other))
    });
    let (now, has_peers) = (now(), table != TableName::Available);
    let rows = found.iter().map(|it| route(it, has_peers, now));
    show(&found, route_header(has_peers), rows, output)
}

fn policies(client: &Client, output: &TableOutput) -> anyhow::Result<()> {
    let policies: Vec<RoutePolicy> = client.get("/v1/policies")?;
    show(&policies, policy_header(), policies.iter().flat_map(policy), output)
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
}
