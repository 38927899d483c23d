//! Bodies of requests and answers. Field names are upstream's where upstream has the field.

mod bgp;
mod cluster;
mod endpoint;
mod map;
mod monitor;
mod status;

pub use bgp::{BgpFamily, BgpPeer};
pub use cluster::{
    Address, Announcement, ClusterNode, ClusterNodes, Identity, IpEntry, NameEntry, Policy, Redirect,
    RedirectBackend, RedirectMapping, SCOPE_INTERNAL, Service, ServiceAddress, ServiceSpec,
};
pub use endpoint::{
    AddressPair, Endpoint, EndpointChange, EndpointIdentity, EndpointNetworking, EndpointPolicy,
    EndpointStatus, ExternalIdentifiers, IpamAnswer, RealizedPolicy,
};
pub use map::{
    BackendEntry, CtEntry, EndpointEntry, IpcacheEntry, MaglevEntry, MaglevShare, MetricEntry, NatEntry,
    PolicyEntry, ServiceEntry,
};
pub use monitor::{Event, EventKind};
pub use status::{
    AddressFamilyConfig, Addressing, Config, ConfigStatus, Feature, Health, IdentityRange, Ipam,
    KubeProxyReplacement, MapSize, Maps, Masquerading, Monitor, NodeState, NodeStateFailure, ReplacementPart,
    Routing, Status,
};

use serde::{Deserialize, Serialize};

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What happened, to which object, and what to do.
    pub message: String,
}
