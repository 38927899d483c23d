use serde::{Deserialize, Serialize};

/// What a line of `GET /v1/monitor` tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A packet was dropped.
    Drop,
    /// Policy decided on a new connection.
    PolicyVerdict,
}

/// A line of `GET /v1/monitor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// Sort.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// `allowed` or `denied`.
    pub verdict: String,
    /// Why a packet was dropped; of a verdict the policies that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the rules that decided want said of such flows (`log.value`), each text once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_log: Vec<String>,
    /// `ingress` or `egress`, seen from the pod whose policy decided.
    pub direction: String,
    /// Number of the endpoint whose policy decided, 0 when there is none.
    pub endpoint: u16,
    /// Identity of the sender.
    pub source_identity: u32,
    /// Identity of the receiver.
    pub destination_identity: u32,
    /// Protocol name.
    pub protocol: String,
    /// `address:port`, or the address alone.
    pub source: String,
    /// `address:port`, or the address alone.
    pub destination: String,
    /// Length of the packet in bytes.
    pub length: u32,
}
