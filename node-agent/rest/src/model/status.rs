use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer to `GET /v1/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The agent as a whole.
    pub cilium: Health,
    /// The API server.
    pub kubernetes: Health,
    /// Kinds that are watched.
    #[serde(default)]
    pub kubernetes_apis: Vec<String>,
    /// The CNI configuration file.
    pub cni_file: Health,
    /// What is desired of the node, and what is in force.
    pub node_state: NodeState,
    /// Addresses given to pods.
    pub ipam: Ipam,
    /// How packets travel.
    pub routing: Routing,
    /// `TCX` or `Legacy TC`.
    pub attach_mode: String,
    /// Devices that packets of the node come in on, with their addresses.
    #[serde(default)]
    pub devices: BTreeMap<String, Vec<String>>,
    /// Translation of addresses for traffic that leaves the cluster.
    pub masquerading: Masquerading,
    /// What is done for Services in kube-proxy's place.
    #[serde(default)]
    pub kube_proxy_replacement: KubeProxyReplacement,
    /// The ring buffer of events.
    pub node_monitor: Monitor,
    /// Identities that the operator allocates.
    pub identity_range: IdentityRange,
    /// What the kernel can do.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// Kernel maps.
    pub bpf_maps: Maps,
}

/// State of something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `Ok`, `Warning`, `Failure` or `Disabled`.
    pub state: String,
    /// Details.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub msg: String,
}

impl Health {
    /// All is well.
    pub fn ok(msg: impl Into<String>) -> Self {
        Self { state: "Ok".into(), msg: msg.into() }
    }
    /// Something is not, and the agent goes on.
    pub fn warning(msg: impl Into<String>) -> Self {
        Self { state: "Warning".into(), msg: msg.into() }
    }
    /// It does not work.
    pub fn failure(msg: impl Into<String>) -> Self {
        Self { state: "Failure".into(), msg: msg.into() }
    }
    /// It is not asked for.
    pub fn disabled(msg: impl Into<String>) -> Self {
        Self { state: "Disabled".into(), msg: msg.into() }
    }
    /// `Ok` or `Disabled`.
    pub fn is_fine(&self) -> bool {
        matches!(self.state.as_str(), "Ok" | "Disabled")
    }
}

/// Revisions of the node's desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeState {
    /// Newest revision seen.
    pub desired: i64,
    /// Revision in force.
    pub applied: i64,
    /// Objects that are not in force.
    #[serde(default)]
    pub failures: Vec<NodeStateFailure>,
    /// Kernel entries that somebody else changed and that were repaired.
    pub repairs: i64,
}

/// An object that is not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStateFailure {
    /// Name of the part.
    pub object: String,
    /// What happened.
    pub message: String,
}

/// Addresses given to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// `IPv4: 3/254 allocated from 10.244.1.0/24`.
    pub status: String,
    /// Address to owner.
    #[serde(default)]
    pub allocations: BTreeMap<String, String>,
}

/// How packets travel between nodes, and inside a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Routing {
    /// `Native` or `Tunnel`.
    pub inter_host_routing_mode: String,
    /// `BPF`.
    pub intra_host_routing_mode: String,
    /// `vxlan` in tunnel mode.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tunnel_protocol: String,
}

/// Translation of addresses for traffic that leaves the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Masquerading {
    /// For IPv4.
    pub ipv4: bool,
    /// For IPv6.
    pub ipv6: bool,
    /// Devices on which it happens.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Destinations that are left alone.
    #[serde(default)]
    pub snat_exclusion_cidr: Vec<String>,
}

/// What is done for Services in kube-proxy's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KubeProxyReplacement {
    /// `True`, or `False` while nothing is in force.
    pub mode: String,
    /// Devices on which clients outside are served, with the addresses of the node.
    #[serde(default)]
    pub devices: Vec<String>,
    /// How clients outside come to a backend elsewhere: `SNAT`.
    #[serde(default)]
    pub forwarding: String,
    /// How a backend is chosen: `Random`.
    #[serde(default)]
    pub selection: String,
    /// Whether packets of known clients are handled before the stack: `Disabled`, `Native`, `Best-Effort`, `Generic`.
    #[serde(default)]
    pub acceleration: String,
    /// Kinds of frontends, and what else is part of it.
    #[serde(default)]
    pub parts: Vec<ReplacementPart>,
    /// Modes of kube-proxy (`nftables`, `iptables`, `iptables-legacy`) of which there are rules on the node as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules_of_kube_proxy: Vec<String>,
}

/// Part of the replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementPart {
    /// As upstream calls it: `NodePort`, `Session Affinity`.
    pub name: String,
    /// It works on this node.
    pub enabled: bool,
    /// How far, or why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The ring buffer of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// Processors that write to it.
    pub cpus: u32,
    /// Its size in pages.
    pub npages: u32,
    /// Bytes of a page.
    pub pagesize: u32,
    /// Events that found it full.
    #[serde(default)]
    pub lost: u64,
    /// Clients that listen.
    #[serde(default)]
    pub listeners: u32,
}

/// Numbers from which identities are allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IdentityRange {
    /// First.
    pub min_identity: i64,
    /// Last.
    pub max_identity: i64,
}

/// Something that the kernel can or cannot do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Whether it can.
    pub available: bool,
    /// Version, path or error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Kernel maps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Maps {
    /// The part of the memory by which their sizes were chosen.
    pub dynamic_size_ratio: f64,
    /// Each of them.
    pub maps: Vec<MapSize>,
}

/// A kernel map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSize {
    /// Name.
    pub name: String,
    /// Entries that it has room for.
    pub size: u32,
}

/// Answer to `GET /v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// What is in force.
    pub status: ConfigStatus,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// MTU of pod devices, in bytes.
    #[serde(rename = "deviceMTU")]
    pub device_mtu: u32,
    /// MTU of routes to other nodes, in bytes.
    #[serde(rename = "routeMTU")]
    pub route_mtu: u32,
    /// `veth`.
    pub datapath_mode: String,
    /// The node's own addresses towards pods.
    pub addressing: Addressing,
    /// Settings as the agent read them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Addresses of the node towards pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressing {
    /// IPv4, when enabled and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<AddressFamilyConfig>,
    /// IPv6, when enabled and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<AddressFamilyConfig>,
}

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddressFamilyConfig {
    /// Router address.
    pub ip: String,
    /// Pod prefix of the node.
    pub alloc_range: String,
    /// Always true: a family that is off is absent.
    pub enabled: bool,
}
