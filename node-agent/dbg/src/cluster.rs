//! What the node knows of the cluster: identities, addresses, Services, nodes.

use std::net::IpAddr;

use anyhow::Context as _;
use cilium_rest::Client;
use cilium_rest::model::{
    Announcement, ClusterNode, ClusterNodes, Identity, IpEntry, NameEntry, Policy, Redirect, RedirectBackend,
    RedirectMapping, Service,
};
use jiff::Timestamp;

use crate::list::{Row, show};
use cilium_print::output::{DataOutput, TableOutput, encode, print};
use cilium_print::table::{Line, line, spread};

impl Row for Identity {
    const PATH: &'static str = "/v1/identity";
    const HEADERS: &'static [&'static [&'static str]] = &[&["ID", "LABELS"]];

    fn order(&self) -> impl Ord {
        self.id
    }

    fn lines(&self) -> Vec<Line> {
        spread(line([&self.id.to_string(), "no labels"]), 1, self.labels.iter().cloned())
    }
}

/// Prints one identity.
///
/// # Errors
/// The node does not know it, or the agent does not answer.
pub(crate) fn identity(client: &Client, id: i64, output: &TableOutput) -> anyhow::Result<()> {
    let mut identities: Vec<Identity> = client.get(Identity::PATH)?;
    identities.retain(|identity| identity.id == id);
    let known = identities.first().map(|_| ());
    known
        .with_context(|| format!("identity {id} is not known on this node; see: cilium-dbg identity list"))?;
    show(identities, output)
}

impl Row for IpEntry {
    const PATH: &'static str = "/v1/ip";
    const HEADERS: &'static [&'static [&'static str]] = &[&["IP", "IDENTITY", "HOST"]];

    fn order(&self) -> impl Ord {
        by_address(&self.cidr)
    }

    fn lines(&self) -> Vec<Line> {
        vec![line([&self.cidr, &self.identity.to_string(), &self.host_ip])]
    }
}

impl Row for NameEntry {
    const PATH: &'static str = "/v1/fqdn/cache";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["Endpoint", "Source", "FQDN", "TTL", "ExpirationTime", "IPs"]];

    fn order(&self) -> impl Ord {
        (self.fqdn.clone(), self.ip.parse::<IpAddr>().ok())
    }

    fn lines(&self) -> Vec<Line> {
        let source = if self.ttl > 0 { "lookup" } else { "connection" };
        let ttl = self.ttl.max(0).to_string();
        vec![line(["all", source, &self.fqdn, &ttl, &expiration(self.ttl), &self.ip])]
    }
}

/// The time in so many seconds, to the second.
fn expiration(seconds: i64) -> String {
    let now = Timestamp::now().as_second();
    let time = Timestamp::from_second(now.saturating_add(seconds));
    time.map_or_else(|_| "never".to_owned(), |time| time.to_string())
}

/// Order of prefixes and addresses: IPv4 first, by number.
pub(crate) fn by_address(prefix: &str) -> (Option<IpAddr>, Option<u8>, &str) {
    let (address, length) = prefix.split_once('/').unwrap_or((prefix, ""));
    (address.parse().ok(), length.parse().ok(), prefix)
}

impl Row for Service {
    const PATH: &'static str = "/v1/service";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["ID", "Frontend", "Service Type", "Service", "Backend"]];

    fn order(&self) -> impl Ord {
        self.spec.id
    }

    fn lines(&self) -> Vec<Line> {
        let spec = &self.spec;
        let first = vec![
            spec.id.to_string(),
            spec.frontend_address.to_string(),
            spec.r#type.clone(),
            format!("{}/{}", spec.namespace, spec.name),
            String::new(),
        ];
        let backends = spec.backend_addresses.iter().enumerate();
        spread(first, 4, backends.map(|(index, backend)| format!("{} => {backend}", index + 1)))
    }
}

impl Row for Redirect {
    const PATH: &'static str = "/v1/lrp";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["LRP namespace", "LRP name", "FrontendType", "Matching Service"]];

    fn order(&self) -> impl Ord {
        (&self.namespace, &self.name)
    }

    fn lines(&self) -> Vec<Line> {
        let first = line([&self.namespace, &self.name, &self.frontend_type, &self.service_id]);
        let mapping = |it: &RedirectMapping| {
            let backend = |it: &RedirectBackend| format!("{}({})", it.backend_address, it.pod_id);
            let backends: Vec<String> = it.backends.iter().map(backend).collect();
            line(["", "|", &format!("{} -> {}", it.frontend_address, backends.join(", "))])
        };
        [first].into_iter().chain(self.frontend_mappings.iter().map(mapping)).collect()
    }
}

impl Row for Announcement {
    const PATH: &'static str = "/v1/l2-announcement";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["IP", "INTERFACE", "STATE", "NODE", "REPLIES", "SERVICES", "CLAIMED BY"]];

    fn order(&self) -> impl Ord {
        // Numbers as numbers, and IPv4 first.
        (self.address.parse::<IpAddr>().ok(), &self.interface)
    }

    fn lines(&self) -> Vec<Line> {
        let claimed_by = self.claimed_by.clone().unwrap_or_default();
        vec![vec![
            self.address.clone(),
            self.interface.clone(),
            self.state.clone(),
            self.node.clone(),
            self.replies.to_string(),
            self.services.join(","),
            claimed_by,
        ]]
    }
}

impl Row for ClusterNode {
    const PATH: &'static str = "/v1/cluster/nodes";
    const HEADERS: &'static [&'static [&'static str]] =
        &[&["Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR"]];

    fn order(&self) -> impl Ord {
        &self.name
    }

    fn lines(&self) -> Vec<Line> {
        let addresses: Vec<&str> = self.addresses.iter().map(|address| address.ip.as_str()).collect();
        let prefixes: Vec<&str> = self.pod_cidrs.iter().map(String::as_str).collect();
        let first = |all: &[&str], ipv6| {
            all.iter().find(|text| text.contains(':') == ipv6).map_or_else(String::new, ToString::to_string)
        };
        vec![vec![
            self.name.clone(),
            first(&addresses, false),
            first(&prefixes, false),
            first(&addresses, true),
            first(&prefixes, true),
        ]]
    }
}

/// Prints the nodes.
///
/// # Errors
/// The agent does not answer.
pub(crate) fn nodes(client: &Client, output: &TableOutput) -> anyhow::Result<()> {
    let nodes: ClusterNodes = client.get(ClusterNode::PATH)?;
    show(nodes.nodes_added, output)
}

/// Prints the compiled policy of the node, and its revision.
///
/// # Errors
/// The agent does not answer.
pub(crate) fn policy(client: &Client, output: &DataOutput) -> anyhow::Result<()> {
    let policy: Policy = client.get("/v1/policy")?;
    let text = match output.output {
        Some(format) => encode(&policy, format)?,
        None => format!("{}\nRevision: {}\n", policy.policy.trim_end(), policy.revision),
    };
    Ok(print(&text)?)
}
