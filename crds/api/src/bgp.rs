//! Desired state of BGP on nodes: sessions, what they carry, and the prefixes of each advertisement.
//!
//! An instance says with whom a node speaks and under which advertisements' names prefixes go to each peer; routes say which prefixes
//! there are, each with the advertisements that it belongs to. So a Service that comes or goes is one small part, for all nodes
//! together ([`crate::parts::Part::Route`]), or for those that have backends of their own ([`crate::parts::Part::NodeRoute`]).
//!
//! An *advertisement* is one entry of `spec.advertisements` of a CiliumBGPAdvertisement, written `name/place`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// A BGP router on the node (CiliumBGPClusterConfig, `bgpInstances`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpInstance {
    /// Its AS number; not 0.
    pub asn: u32,
    /// BGP identifier (RFC 6286).
    pub router_id: Ipv4Addr,
    /// TCP port on which peers may connect; `None`: the node connects, nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What goes with the prefixes of each advertisement that a peer names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advertisements: BTreeMap<String, BgpAdvertisement>,
    /// By name, as the user has it.
    pub peers: BTreeMap<String, BgpPeer>,
}

/// What goes with the prefixes of an advertisement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpAdvertisement {
    /// Standard and well-known communities (RFC 1997), sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<u32>,
    /// Large communities (RFC 8092), sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<(u32, u32, u32)>,
    /// LOCAL_PREF; goes to peers of the same AS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// A device of the node whose addresses are the prefixes, beside those of routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// A neighbour (CiliumBGPClusterConfig, `peers`, with its CiliumBGPPeerConfig).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeer {
    /// Where it is.
    pub address: BgpPeerAddress,
    /// Device of the node on whose link `address` is, where that is link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its AS number; 0 is whatever it says.
    pub asn: u32,
    /// Its TCP port.
    pub port: u16,
    /// Address of the node that the session has; `None`: that of `source_interface`, or else what the kernel takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// A device whose one address of the peer's family the session has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_interface: Option<String>,
    /// Seconds between two attempts to connect.
    pub connect_retry: u32,
    /// Seconds without a message after which the peer is gone, as proposed to it; at least 3.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs, as proposed; at most `hold_time`.
    pub keepalive: u16,
    /// Where the password of TCP-MD5 (RFC 2385) is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BgpSecret>,
    /// Seconds for which the peer shall keep routes while the node restarts (RFC 4724); `None`: no graceful restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<u16>,
    /// Further seconds for which it shall keep them as last resort (RFC 9494).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_time: Option<u32>,
    /// TTL of what is sent to an external peer; at least 1.
    pub hops: u8,
    /// Packets come from at most `hops` away, or are dropped (RFC 5082); what is sent has TTL 255.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ttl_security: bool,
    /// The peer connects, the node does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passive: bool,
    /// Liveness beside the session (RFC 5880).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// Routes of the peer go to the node's table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub import: bool,
    /// What the session carries.
    pub families: BTreeMap<IpFamily, BTreeSet<String>>,
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BgpPeerAddress {
    /// Here.
    At(IpAddr),
    /// At the gateway of the node's default route of a family.
    DefaultGateway(IpFamily),
}

/// A family of addresses, unicast (RFC 4760). As a key of [`BgpPeer::families`] it has the advertisements whose prefixes go to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IpFamily {
    /// AFI 1.
    Ipv4,
    /// AFI 2.
    Ipv6,
}

/// A Secret in the namespace for secrets of BGP, whose key `password` is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpSecret {
    /// Its name.
    pub name: String,
    /// Its `resourceVersion`, so that nodes read it again when it changes; `None` while there is none, and no session either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Parameters of BFD, asynchronous mode, single hop (RFC 5881).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// Milliseconds between packets that the node wants to send.
    pub transmit: u32,
    /// Milliseconds between packets that it can take.
    pub receive: u32,
    /// Packets that may be missing until the peer is gone; at least 1.
    pub multiplier: u8,
}

/// A prefix that nodes make known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The advertisements that it belongs to: it goes to peers that have any of them, with what goes with each of those.
    pub advertisements: BTreeSet<String>,
}
