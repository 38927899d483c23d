//! Entries of kernel maps.

use cilium_rest::model::{
    BackendEntry, CtEntry, EndpointEntry, IpcacheEntry, MaglevEntry, MetricEntry, NatEntry, PolicyEntry,
    ServiceEntry,
};

use anyhow::Context as _;
use cilium_rest::Client;

use crate::cluster::by_address;
use crate::endpoint;
use crate::list::{Row, show};
use cilium_print::output::TableOutput;
use cilium_print::table::{Line, line, spread};

impl Row for EndpointEntry {
    const PATH: &'static str = "/v1/map/endpoints";
    const HEADERS: &'static [&'static [&'static str]] = &[&["IP ADDRESS", "LOCAL ENDPOINT INFO"]];

    fn order(&self) -> impl Ord {
        by_address(&self.ip)
    }

    fn lines(&self) -> Vec<Line> {
        let Self { ip, ifindex, identity, slot, id, mac, node_mac } = self;
        let info =
            format!("id={id} sec_id={identity} slot={slot} ifindex={ifindex} mac={mac} nodemac={node_mac}");
        vec![line([ip, &info])]
    }
}

impl Row for IpcacheEntry {
    const PATH: &'static str = "/v1/map/ipcache";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["IP PREFIX/ADDRESS", "IDENTITY", "TUNNEL ENDPOINT"]];

    fn order(&self) -> impl Ord {
        by_address(&self.prefix)
    }

    fn lines(&self) -> Vec<Line> {
        vec![line([&self.prefix, &self.identity.to_string(), &self.tunnel_endpoint])]
    }
}

impl Row for PolicyEntry {
    const PATH: &'static str = "/v1/map/policy";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["IDENTITIES", "POLICY", "DIRECTION", "PEER", "PORT/PROTO", "GENERATION", "ORIGINS"]];

    fn order(&self) -> impl Ord {
        let peer = (self.peer, &self.block);
        (&self.identities, self.generation, &self.direction, peer, &self.protocol, self.ports)
    }

    fn lines(&self) -> Vec<Line> {
        let first = vec![
            identities(&self.identities),
            self.verdict.clone(),
            self.direction.clone(),
            peer(self),
            ports(self.ports, &self.protocol),
            self.generation.to_string(),
            String::new(),
        ];
        spread(first, 6, self.origins.iter().cloned())
    }
}

/// Prints the entries of one endpoint, those of the generation that its identity is under.
///
/// # Errors
/// There is no such endpoint, it has no identity yet, or the agent does not answer.
pub(crate) fn policy(client: &Client, name: &str, output: &TableOutput) -> anyhow::Result<()> {
    let endpoint = endpoint::find(client, name)?;
    let identity = endpoint.status.identity.map(|identity| identity.id);
    let identity = identity.with_context(|| format!("endpoint {} has no identity yet", endpoint.id))?;
    let mut entries: Vec<PolicyEntry> = client.get(PolicyEntry::PATH)?;
    entries.retain(|entry| entry.identities.iter().any(|number| i64::from(*number) == identity));
    show(entries, output)
}

fn peer(entry: &PolicyEntry) -> String {
    match (entry.peer, entry.block.as_str()) {
        (0, _) => "ANY".into(),
        (peer, "") => peer.to_string(),
        (_, block) => block.into(),
    }
}

/// A generation that nobody uses is about to be removed.
fn identities(identities: &[u32]) -> String {
    let numbers: Vec<String> = identities.iter().map(u32::to_string).collect();
    if numbers.is_empty() { "unused".into() } else { numbers.join(",") }
}

fn ports((first, last): (u16, u16), protocol: &str) -> String {
    match (first, last) {
        (0, 0) if protocol == "ANY" => "ANY".into(),
        (0, 0) => format!("ANY/{protocol}"),
        _ if first == last => format!("{first}/{protocol}"),
        _ => format!("{first}-{last}/{protocol}"),
    }
}

impl Row for CtEntry {
    const PATH: &'static str = "/v1/map/ct";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["PROTO", "SOURCE", "DESTINATION", "STATE", "EXPIRES", "GENERATIONS"]];

    fn order(&self) -> impl Ord {
        (&self.protocol, &self.source, &self.destination)
    }

    fn lines(&self) -> Vec<Line> {
        let (sender, receiver) = self.generations;
        vec![line([
            &self.protocol,
            &self.source,
            &self.destination,
            &self.state,
            &expiry(self.expires_in),
            &format!("{sender}/{receiver}"),
        ])]
    }
}

/// What has ended stays in the map until it is swept.
fn expiry(seconds: i64) -> String {
    if seconds > 0 { format!("{seconds}s") } else { "expired".to_owned() }
}

impl Row for NatEntry {
    const PATH: &'static str = "/v1/map/nat";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["PROTO", "DIRECTION", "SOURCE", "DESTINATION", "TRANSLATED"]];

    fn order(&self) -> impl Ord {
        (&self.protocol, &self.direction, &self.source, &self.destination)
    }

    fn lines(&self) -> Vec<Line> {
        let Self { protocol, direction, source, destination, translated } = self;
        vec![line([protocol, direction, source, destination, translated])]
    }
}

impl Row for ServiceEntry {
    const PATH: &'static str = "/v1/map/services";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["SERVICE ADDRESS", "GENERATION", "COUNT", "BACKENDS"]];

    fn order(&self) -> impl Ord {
        &self.frontend
    }

    fn lines(&self) -> Vec<Line> {
        let first = line([&self.frontend, &self.generation.to_string(), &self.count.to_string(), ""]);
        spread(first, 3, self.backends.iter().cloned())
    }
}

impl Row for BackendEntry {
    const PATH: &'static str = "/v1/map/backends";
    const HEADERS: &'static [&'static [&'static str]] = &[&["GENERATION", "INDEX", "BACKEND ADDRESS"]];

    fn order(&self) -> impl Ord {
        (self.generation, self.index)
    }

    fn lines(&self) -> Vec<Line> {
        vec![line([&self.generation.to_string(), &self.index.to_string(), &self.backend])]
    }
}

impl Row for MaglevEntry {
    const PATH: &'static str = "/v1/map/maglev";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["SERVICE ADDRESS", "GENERATION", "TABLE SIZE", "TABLE DIGEST", "BACKENDS", "ENTRIES"]];

    fn order(&self) -> impl Ord {
        &self.frontend
    }

    fn lines(&self) -> Vec<Line> {
        let share = |at: usize| match self.backends.get(at) {
            Some(share) => [share.backend.clone(), share.entries.to_string()],
            None => [String::new(), String::new()],
        };
        let head =
            [self.frontend.clone(), self.generation.to_string(), self.size.to_string(), self.digest.clone()];
        let first = head.into_iter().chain(share(0)).collect();
        let rest = (1..self.backends.len())
            .map(|at| [const { String::new() }; 4].into_iter().chain(share(at)).collect());
        [first].into_iter().chain(rest).collect()
    }
}

impl Row for MetricEntry {
    const PATH: &'static str = "/v1/map/metrics";
    const HEADERS: &'static [&'static [&'static str]] = &[&["REASON", "DIRECTION", "PACKETS", "BYTES"]];

    fn order(&self) -> impl Ord {
        (&self.reason, &self.direction)
    }

    fn lines(&self) -> Vec<Line> {
        let Self { reason, direction, packets, bytes } = self;
        vec![line([reason, direction, &packets.to_string(), &bytes.to_string()])]
    }
}
