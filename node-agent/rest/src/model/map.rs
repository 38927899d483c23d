//! Entries of kernel maps, as `GET /v1/map/{name}` lists them.

use serde::{Deserialize, Serialize};

/// `endpoints`: a local address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointEntry {
    /// Address.
    pub ip: String,
    /// Index of the host's end.
    pub ifindex: u32,
    /// Security identity.
    pub identity: u32,
    /// Policy slot.
    pub slot: u32,
    /// Number of the endpoint.
    pub id: u16,
    /// MAC of the pod's end.
    pub mac: String,
    /// MAC of the host's end.
    pub node_mac: String,
}

/// `ipcache`: a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpcacheEntry {
    /// `address/length`.
    pub prefix: String,
    /// Security identity.
    pub identity: u32,
    /// Tunnel endpoint, empty when there is none.
    #[serde(default)]
    pub tunnel_endpoint: String,
}

/// `policy`: what a generation allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyEntry {
    /// Identities whose endpoints use the generation; empty for one that is on its way out.
    pub identities: Vec<u32>,
    /// Generation.
    pub generation: u32,
    /// `Ingress` or `Egress`.
    pub direction: String,
    /// Identity of the peer, or a number for `block`; 0 for any.
    pub peer: u32,
    /// `address/length`: the peer is whoever has such an address, but for those in narrower blocks of the generation. Empty for
    /// peers by identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub block: String,
    /// Protocol name, or `ANY`.
    pub protocol: String,
    /// First and last port; 0 and 0 for any.
    pub ports: (u16, u16),
    /// `Allow` or `Deny`.
    pub verdict: String,
    /// Policies that grant it.
    #[serde(default)]
    pub origins: Vec<String>,
}

/// `ct`: a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CtEntry {
    /// Protocol name.
    pub protocol: String,
    /// Who started it, `address:port`.
    pub source: String,
    /// With whom.
    pub destination: String,
    /// Coarse state of a TCP connection; `refused` when policy has ended it (any protocol); empty for others.
    #[serde(default)]
    pub state: String,
    /// Seconds until it ends, unless a packet comes; not above 0 when it has ended: such an entry is as good as none.
    pub expires_in: i64,
    /// Generations under which it was allowed: of the sender's and of the receiver's policy.
    pub generations: (u32, u32),
}

/// `nat`: a translation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NatEntry {
    /// Protocol name.
    pub protocol: String,
    /// `OUT`, `IN`, or `SERVICE` for what comes to a service from outside.
    pub direction: String,
    /// Source of the packet.
    pub source: String,
    /// Destination of the packet.
    pub destination: String,
    /// What takes the source's (OUT) or destination's place; with `a -> b`, the source's and the destination's.
    pub translated: String,
}

/// `services`: a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceEntry {
    /// `address:port/protocol`; `/i` behind it: for the inside, where the outside has another one.
    pub frontend: String,
    /// Generation of its backends.
    pub generation: u32,
    /// Number of backends.
    pub count: u32,
    /// Backends, in order of their index.
    pub backends: Vec<String>,
}

/// `backends`: an entry of the backend map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendEntry {
    /// Generation.
    pub generation: u32,
    /// Index.
    pub index: u32,
    /// `address:port`.
    pub backend: String,
}

/// `maglev`: the table of a frontend, by which clients from outside come to its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MaglevEntry {
    /// `address:port/protocol`.
    pub frontend: String,
    /// Generation of its backends; frontends with the same one share the table.
    pub generation: u32,
    /// Entries of the table.
    pub size: u32,
    /// A number for the whole table, in hexadecimal: nodes with equal ones agree on every connection, if they have the same seed.
    pub digest: String,
    /// Backends, in order of their index.
    pub backends: Vec<MaglevShare>,
}

/// How much of a table is a backend's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MaglevShare {
    /// `address:port`.
    pub backend: String,
    /// Entries that lead to it.
    pub entries: u32,
}

/// `metrics`: packets by reason and direction, summed over processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MetricEntry {
    /// What happened to the packets.
    pub reason: String,
    /// `INGRESS`, `EGRESS` or empty.
    pub direction: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}
