//! Endpoints: pods of this node.

use anyhow::Context as _;
use cilium_rest::Client;
use cilium_rest::model::{Endpoint, EndpointStatus};

use crate::list::Row;
use cilium_print::output::{DataOutput, Format, encode, print};
use cilium_print::table::{Line, spread};

/// Column of the labels.
const LABELS: usize = 4;

impl Row for Endpoint {
    const PATH: &'static str = "/v1/endpoint";
    const HEADERS: &'static [&'static [&'static str]] = &[
        &[
            "ENDPOINT",
            "POLICY (ingress)",
            "POLICY (egress)",
            "IDENTITY",
            "LABELS (source:key[=value])",
            "IPv6",
            "IPv4",
            "STATUS",
        ],
        &["", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", ""],
    ];

    fn order(&self) -> impl Ord {
        self.id
    }

    fn lines(&self) -> Vec<Line> {
        let status = &self.status;
        let identity = status.identity.as_ref();
        let (ipv6, ipv4) = addresses(status);
        let first = vec![
            self.id.to_string(),
            enforcement(status, "ingress").into(),
            enforcement(status, "egress").into(),
            identity.map_or_else(|| "<no label id>".into(), |identity| identity.id.to_string()),
            "no labels".into(),
            ipv6.into(),
            ipv4.into(),
            status.state.clone(),
        ];
        let mut labels = identity.map(|identity| identity.labels.clone()).unwrap_or_default();
        labels.sort();
        spread(first, LABELS, labels)
    }
}

/// `Enabled`, `Disabled`, or `Unknown` as long as there is no policy.
fn enforcement(status: &EndpointStatus, direction: &str) -> &'static str {
    match status.policy.realized.policy_enabled.as_str() {
        "both" => "Enabled",
        "none" => "Disabled",
        one @ ("ingress" | "egress") if one == direction => "Enabled",
        "ingress" | "egress" => "Disabled",
        _ => "Unknown",
    }
}

/// IPv6 and IPv4 address.
fn addresses(status: &EndpointStatus) -> (&str, &str) {
    let pair = status.networking.addressing.first();
    let (ipv6, ipv4) = pair.map(|pair| (pair.ipv6.as_str(), pair.ipv4.as_str())).unwrap_or_default();
    (or_none(ipv6), or_none(ipv4))
}

fn or_none(address: &str) -> &str {
    if address.is_empty() { "No address" } else { address }
}

/// One endpoint: `name` is its number, or one of [`names`].
///
/// # Errors
/// There is none of that name, or the agent does not answer.
pub(crate) fn find(client: &Client, name: &str) -> anyhow::Result<Endpoint> {
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(client.get(&format!("/v1/endpoint/{name}"))?);
    }
    let all: Vec<Endpoint> = client.get(Endpoint::PATH)?;
    let found = all.into_iter().find(|endpoint| names(endpoint).iter().any(|known| known == name));
    found.with_context(|| format!("no endpoint of this node is {name}; see: cilium-dbg endpoint list"))
}

/// Prints one endpoint.
///
/// # Errors
/// As [`find`].
pub(crate) fn get(client: &Client, name: &str, output: &DataOutput) -> anyhow::Result<()> {
    let endpoint = find(client, name)?;
    Ok(print(&encode(&[endpoint], output.output.unwrap_or(Format::Json))?)?)
}

/// What an endpoint may be called besides its number.
fn names(endpoint: &Endpoint) -> Vec<String> {
    let known = &endpoint.status.external_identifiers;
    let mut names = vec![
        format!("pod-name:{}", known.pod_name),
        format!("container-id:{}", known.container_id),
        format!("cni-attachment-id:{}", known.cni_attachment_id),
    ];
    for pair in &endpoint.status.networking.addressing {
        names.extend([format!("ipv4:{}", pair.ipv4), format!("ipv6:{}", pair.ipv6)]);
    }
    names
}
