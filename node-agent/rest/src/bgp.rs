//! What the BGP speaker of a node is told, and what it says: JSON over HTTP on a unix socket that only root opens.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /v1/config` | [`Config`] | 204; sessions that it does not change stay |
//! | `PUT /v1/routes` | [`Routes`] | 204; the prefixes from now on, all of them |
//! | `PATCH /v1/routes` | [`RouteChanges`] | 204; 409 before the first `PUT` |
//! | `GET /v1/peers` | – | [`Peers`] |
//! | `GET /v1/peers?after=GENERATION` | – | the same, as soon as its generation is another one, or after 20 s |
//! | `GET /v1/routes` | – | list of [`RouteView`] |
//! | `GET /v1/import` | – | list of [`ImportedRoute`] |
//! | `GET /v1/policies` | – | list of [`RoutePolicy`] |
//!
//! A refusal has a 4xx code and a line of text. The speaker keeps configuration and prefixes on disk: it starts with them, whether
//! or not the agent is there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the speaker listens unless told otherwise.
pub const SOCKET: &str = "/var/run/cilium/bgp/speaker.sock";

/// Environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "CILIUM_BGP_SOCK";

/// All that the speaker shall be, but for prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Routers of the node; names are unique.
    pub instances: Vec<Instance>,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// Its name, as the user has it.
    pub name: String,
    /// Its AS number; not 0.
    pub asn: u32,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// TCP port on which it listens, on all addresses of the node; `None`: nowhere. Instances do not share one.
    #[serde(default)]
    pub port: Option<u16>,
    /// Next hop of IPv4 prefixes where the session itself has no IPv4 address, and the peer takes no IPv6 next hop (RFC 8950).
    #[serde(default)]
    pub next_hop4: Option<Ipv4Addr>,
    /// Next hop of IPv6 prefixes where the session itself has no IPv6 address.
    #[serde(default)]
    pub next_hop6: Option<Ipv6Addr>,
    /// What goes with the prefixes of each advertisement.
    #[serde(default)]
    pub advertisements: BTreeMap<String, Attributes>,
    /// Neighbours; names are unique in the instance, and so are addresses.
    pub peers: Vec<Peer>,
}

/// What goes with the prefixes of an advertisement. A prefix of several has the communities of all, and the highest preference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attributes {
    /// Standard communities (RFC 1997).
    #[serde(default)]
    pub communities: Vec<u32>,
    /// Large communities (RFC 8092).
    #[serde(default)]
    pub large_communities: Vec<(u32, u32, u32)>,
    /// LOCAL_PREF, for peers of the same AS; 100 where none is given.
    #[serde(default)]
    pub local_preference: Option<u32>,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its name, as the user has it.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Device on which a link-local address is.
    #[serde(default)]
    pub device: Option<String>,
    /// Its AS number; 0 is whatever it says.
    pub asn: u32,
    /// Its TCP port.
    pub port: u16,
    /// Address of the node that the session has; `None`: what the kernel takes.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Seconds between two attempts to connect.
    pub connect_retry: u32,
    /// Proposed hold time in seconds, at least 3.
    pub hold_time: u16,
    /// Proposed seconds between KEEPALIVEs.
    pub keepalive: u16,
    /// Password of TCP-MD5 (RFC 2385), at most 80 bytes.
    #[serde(default)]
    pub password: Option<Password>,
    /// TTL of packets to an external peer; at least 1.
    pub hops: u8,
    /// GTSM (RFC 5082): what is sent has TTL 255, and what comes from further away than `hops` is dropped.
    #[serde(default)]
    pub ttl_security: bool,
    /// The speaker waits for the peer to connect.
    #[serde(default)]
    pub passive: bool,
    /// Graceful restart (RFC 4724), with this restart time in seconds, at most 4095.
    #[serde(default)]
    pub restart_time: Option<u16>,
    /// Long-lived graceful restart (RFC 9494), with this stale time in seconds, at most 16777215.
    #[serde(default)]
    pub stale_time: Option<u32>,
    /// BFD (RFC 5880, 5881); a session goes down with it.
    #[serde(default)]
    pub bfd: Option<Bfd>,
    /// Best routes of the peer are listed by `GET /v1/import`.
    #[serde(default)]
    pub import: bool,
    /// What the session carries, and the advertisements whose prefixes go to the peer.
    pub families: BTreeMap<Family, Vec<String>>,
}

/// A family of addresses, unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

/// Parameters of BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bfd {
    /// Milliseconds between packets that the node wants to send.
    pub transmit: u32,
    /// Milliseconds between packets that it can take.
    pub receive: u32,
    /// Packets that may be missing; at least 1.
    pub multiplier: u8,
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Prefixes, each with the advertisements that it belongs to, sorted. All instances share them.
pub type Routes = BTreeMap<IpNet, Vec<String>>;

/// Prefixes that change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteChanges {
    /// New ones, and ones that belong to other advertisements than before.
    #[serde(default)]
    pub set: Routes,
    /// Ones that go.
    #[serde(default)]
    pub removed: Vec<IpNet>,
}

/// Every neighbour, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// Another one whenever a state, a count or a reason is another one.
    pub generation: u64,
    /// The neighbours.
    pub peers: Vec<PeerState>,
}

/// How it stands with a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerState {
    /// Name of the instance.
    pub instance: String,
    /// Its AS number.
    pub local_asn: u32,
    /// Name of the neighbour.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port, as configured.
    pub port: u16,
    /// Its AS number: what it said, or else as configured.
    pub asn: u32,
    /// Its BGP identifier; `None` while not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// State of the session (RFC 4271, 8.2.2).
    pub state: SessionState,
    /// When the state was reached that holds, in seconds since 1970.
    pub since: u64,
    /// Times that the session was established since the speaker's start.
    pub established_count: u64,
    /// Hold time in force, in seconds; 0 while not established.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs in force; 0 while not established.
    pub keepalive: u16,
    /// Families that both sides named; those configured while not established.
    pub families: Vec<FamilyState>,
    /// Why the last session ended, or why there is none: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// State of BFD, where it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// What keeps BFD from working on this side: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_problem: Option<String>,
    /// What both sides agreed on beside families, by the names that RFCs give it, sorted: `graceful-restart`, `long-lived-graceful-restart`,
    /// `extended-message`, `extended-next-hop`, `four-octet-as`, `route-refresh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What a session carries of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyState {
    /// The family.
    pub family: Family,
    /// Prefixes that the peer made known.
    pub received: u64,
    /// Prefixes that it was told.
    pub advertised: u64,
}

impl PeerState {
    /// A reason, and what keeps BFD from working.
    pub fn with_bfd(&self, reason: Option<&str>) -> Option<String> {
        let bfd = self.bfd_problem.as_ref().map(|problem| format!("BFD does not work: {problem}"));
        let both: Vec<String> = reason.map(str::to_owned).into_iter().chain(bfd).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }
}

impl SessionState {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open_sent",
            Self::OpenConfirm => "open_confirm",
            Self::Established => "established",
        }
    }
}

/// State of a session (RFC 4271, 8.2.2), written as upstream writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Nothing is tried.
    #[default]
    Idle,
    /// TCP is being connected.
    Connect,
    /// Waits for the next attempt, or for the peer.
    Active,
    /// OPEN is sent.
    OpenSent,
    /// Both OPENs are there.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// State of BFD (RFC 5880, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BfdState {
    /// Held down by an administrator.
    AdminDown,
    /// Nothing is heard.
    #[default]
    Down,
    /// Heard, but the other side does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

/// A route in one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Name of the instance.
    pub instance: String,
    /// Its AS number.
    pub local_asn: u32,
    /// Where it stands.
    pub table: RouteTable,
    /// The peer that it came from or goes to; `None` for routes of the node in the instance's own table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// The prefix.
    pub prefix: IpNet,
    /// Next hop; unspecified (`0.0.0.0`, `::`) in the instance's own table.
    pub next_hop: IpAddr,
    /// AS numbers, nearest first; a set is `{1,2}` as one element.
    pub as_path: Vec<String>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Standard communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<u32>,
    /// Large communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<(u32, u32, u32)>,
    /// When it came, in seconds since 1970.
    pub since: u64,
    /// Kept from before a restart of the peer (RFC 4724).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// Tables of an instance, named as upstream's command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteTable {
    /// What the node has to make known.
    Available,
    /// What a peer was told.
    Advertised,
    /// What a peer made known.
    Received,
}

/// A prefix to put into the node's table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Next hops of the best routes, sorted; several where they are equally good.
    pub next_hops: Vec<IpAddr>,
}

/// Which prefixes go to a peer, and what goes with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePolicy {
    /// Name of the instance.
    pub instance: String,
    /// Its AS number.
    pub local_asn: u32,
    /// Name of the peer.
    pub peer: String,
    /// Address of the peer.
    pub address: IpAddr,
    /// The advertisement.
    pub advertisement: String,
    /// The family.
    pub family: Family,
    /// Prefixes, sorted.
    pub prefixes: Vec<IpNet>,
    /// What goes with them.
    #[serde(flatten)]
    pub attributes: Attributes,
}
