use serde::{Deserialize, Serialize};

/// An element of `GET /v1/identity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Number.
    pub id: i64,
    /// `source:key=value`, sorted.
    pub labels: Vec<String>,
}

/// Answer to `GET /v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Compiled policy of every identity with endpoints on the node, as JSON text.
    pub policy: String,
    /// Revision of the node's state that holds it.
    pub revision: i64,
}

/// An element of `GET /v1/service`: one address and port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What is in force.
    pub spec: ServiceSpec,
}

/// Frontend and backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceSpec {
    /// Running number in the list: services have no numbers of their own.
    pub id: i64,
    /// What clients connect to.
    pub frontend_address: ServiceAddress,
    /// Where connections go.
    #[serde(default)]
    pub backend_addresses: Vec<ServiceAddress>,
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalIPs` or `LocalRedirect`.
    pub r#type: String,
}

/// An element of `GET /v1/l2-announcement`: an address of Services that the node makes known on its links, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Announcement {
    /// The address.
    pub address: String,
    /// Name of the device.
    pub interface: String,
    /// `answering`; `probing` while the node waits until nobody else answers; `standby` while another owner has it.
    pub state: String,
    /// The owner whose turn it is, or who holds the Lease, as far as this node knows; empty while it does not.
    #[serde(default)]
    pub node: String,
    /// All owners, in order.
    #[serde(default)]
    pub owners: Vec<String>,
    /// Services that have the address, as `namespace/name`.
    #[serde(default)]
    pub services: Vec<String>,
    /// Requests of ARP and neighbour discovery that this node answered.
    #[serde(default)]
    pub replies: u64,
    /// MAC address of somebody who has the address and should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
}

/// An element of `GET /v1/lrp`: a CiliumLocalRedirectPolicy with pods on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Redirect {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub name: String,
    /// What it redirects, such as `IP + port`.
    pub frontend_type: String,
    /// The Service, as namespace and name; empty for an address that is none's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    /// What leads where.
    pub frontend_mappings: Vec<RedirectMapping>,
}

/// A frontend of a [`Redirect`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RedirectMapping {
    /// What clients connect to.
    pub frontend_address: ServiceAddress,
    /// Pods of the node.
    pub backends: Vec<RedirectBackend>,
}

/// A backend of a [`RedirectMapping`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RedirectBackend {
    /// Where connections go.
    pub backend_address: ServiceAddress,
    /// The pod, as namespace and name.
    pub pod_id: String,
}

/// An element of `GET /v1/fqdn/cache`: an address that a DNS answer told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameEntry {
    /// The name, lower case, with a dot at the end.
    pub fqdn: String,
    /// The address.
    pub ip: String,
    /// Seconds until it expires; 0 and less: it is over, and kept while connections use the address.
    pub ttl: i64,
}

/// Address, port and protocol.
///
/// The scope is that of a frontend which leads elsewhere for packets that come from the network. It is written behind the rest, as `/i`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// Address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// [`SCOPE_INTERNAL`], or empty: for everybody who meets the Service there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

/// Scope of a frontend for sockets of pods and of the node, where there is another one for packets from the network.
pub const SCOPE_INTERNAL: &str = "internal";

impl std::fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.ip.contains(':') {
            write!(f, "[{}]:{}", self.ip, self.port)
        } else {
            write!(f, "{}:{}", self.ip, self.port)
        }?;
        if !self.protocol.is_empty() {
            write!(f, "/{}", self.protocol)?;
        }
        if self.scope == SCOPE_INTERNAL { f.write_str("/i") } else { Ok(()) }
    }
}

/// An element of `GET /v1/ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpEntry {
    /// Prefix, usually of a single address.
    pub cidr: String,
    /// Security identity.
    pub identity: i64,
    /// Tunnel endpoint or node behind which it lives, empty when there is none.
    #[serde(rename = "hostIP", default, skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// Answer to `GET /v1/cluster/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterNodes {
    /// Name of the node that answers.
    #[serde(rename = "self")]
    pub own: String,
    /// All nodes.
    pub nodes_added: Vec<ClusterNode>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterNode {
    /// Name.
    pub name: String,
    /// Its addresses, the first of each family is the tunnel endpoint.
    pub addresses: Vec<Address>,
    /// Pod prefixes.
    pub pod_cidrs: Vec<String>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: String,
}
