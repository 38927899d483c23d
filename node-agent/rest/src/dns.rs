//! What the DNS proxy and the agent say to each other over a unix socket: one JSON object in each line.
//!
//! The proxy connects, and again when the connection breaks. The agent tells it the rules, at once and whenever they change; the
//! proxy tells the agent what it learned, and hears when that is in force.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where the agent listens for the proxy unless told otherwise.
pub const SOCKET: &str = "/var/run/cilium/dns-proxy.sock";

/// Port of the proxy on the loopback addresses unless told otherwise.
pub const PORT: u16 = 10053;

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromAgent {
    /// The rules as they are from now on.
    Rules(Rules),
    /// What was learned is in force, as far as policies ask for it.
    InForce {
        /// Number of the last [`Learned`] for which that holds, and for all before it.
        id: u64,
        /// Something that was learned before had to go, so nothing that was in force can be relied on.
        forgotten: bool,
    },
}

/// What the proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromProxy {
    /// An answer.
    Learned(Learned),
    /// What it has counted.
    Counts(Counts),
}

/// Ends of intervals of time, in seconds, inclusive: how long name servers took.
pub const BUCKETS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Counters of the proxy since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Questions that came, readable or not.
    pub received: u64,
    /// Questions that were passed on.
    pub forwarded: u64,
    /// Questions that no rule allows.
    pub denied: u64,
    /// Messages that are no question.
    pub malformed: u64,
    /// Answers that were passed on before the agent had them in force.
    pub timeouts: u64,
    /// Replies of name servers by time: in each interval that [`BUCKETS`] end, and beyond.
    pub replies: Vec<u64>,
    /// Microseconds that all of these took together.
    pub reply_micros: u64,
}

/// An answer that the proxy is about to pass on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Learned {
    /// Number of the message on this connection, rising.
    pub id: u64,
    /// The name, lower case, with a dot at the end.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which the answer still holds.
    pub ttl: u32,
}

/// Who may ask whom for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Identity of IPv4 addresses that nothing is known of.
    pub world4: u32,
    /// The same for IPv6.
    pub world6: u32,
    /// Rules of each identity that has pods on the node.
    pub by_identity: BTreeMap<u32, Vec<Rule>>,
}

/// Questions that a name server may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Identity of the name server; 0 is any.
    pub peer: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the name server.
    pub port: u16,
    /// Names and patterns, as in node state.
    pub patterns: Vec<String>,
}
