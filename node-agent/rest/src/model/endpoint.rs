use serde::{Deserialize, Serialize};

/// Answer to `POST /v1/ipam`: what the operator planned for the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpamAnswer {
    /// IPv4 address of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// IPv6 address of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<std::net::Ipv6Addr>,
    /// Number of the endpoint.
    pub endpoint_id: u16,
    /// Security identity.
    pub identity: u32,
    /// Router address of the node, the pod's next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<std::net::Ipv4Addr>,
    /// Router address of the node, the pod's next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<std::net::Ipv6Addr>,
    /// MTU of the pod's device, in bytes.
    pub device_mtu: u32,
    /// MTU of the pod's default routes, in bytes.
    pub route_mtu: u32,
}

/// Body of `PUT /v1/endpoint/{id}`: how the pod is connected. Also the answer, and what the agent keeps on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointChange {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub container_interface_name: String,
    /// The host's end of the link.
    pub interface_name: String,
    /// Its index.
    pub interface_index: u32,
    /// MAC of the pod's end, `02:…`.
    pub mac: String,
    /// MAC of the host's end.
    pub host_mac: String,
    /// The pod's network namespace as the runtime named it.
    pub netns_path: String,
    /// Namespace of the pod.
    pub k8s_namespace: String,
    /// Name of the pod.
    pub k8s_pod_name: String,
    /// UID of the pod.
    pub k8s_uid: String,
}

impl EndpointChange {
    /// What names the attachment over its life: `<container>:<interface>`.
    pub fn attachment(&self) -> String {
        format!("{}:{}", self.container_id, self.container_interface_name)
    }
}

/// An endpoint, as `GET /v1/endpoint/{id}` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Number, unique on the node.
    pub id: i64,
    /// Everything else.
    pub status: EndpointStatus,
}

/// State of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// `waiting-for-identity` (no plan), `creating` (planned, no link yet), `ready`, `not-ready`.
    pub state: String,
    /// Names by which others know it.
    #[serde(default)]
    pub external_identifiers: ExternalIdentifiers,
    /// Identity, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<EndpointIdentity>,
    /// Addresses and devices.
    #[serde(default)]
    pub networking: EndpointNetworking,
    /// Policy.
    #[serde(default)]
    pub policy: EndpointPolicy,
    /// What is wrong, empty when nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// Names by which others know an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExternalIdentifiers {
    /// `<container>:<interface>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cni_attachment_id: String,
    /// Container that holds the pod's namespaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub k8s_namespace: String,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub k8s_pod_name: String,
    /// `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

/// Identity of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointIdentity {
    /// Number.
    pub id: i64,
    /// `source:key=value`, sorted.
    pub labels: Vec<String>,
}

/// Addresses and devices of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointNetworking {
    /// One pair.
    #[serde(default)]
    pub addressing: Vec<AddressPair>,
    /// Device in the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_interface_name: String,
    /// MAC of the host's end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_mac: String,
    /// Index of the host's end.
    #[serde(default)]
    pub interface_index: i64,
    /// The host's end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface_name: String,
    /// MAC of the pod's end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
}

/// An address of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// IPv4.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// IPv6.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
}

/// Policy of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPolicy {
    /// What the kernel enforces.
    pub realized: RealizedPolicy,
}

/// What the kernel enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RealizedPolicy {
    /// `none`, `ingress`, `egress` or `both`; empty when no policy was given yet.
    #[serde(default)]
    pub policy_enabled: String,
    /// Generation of the entries in force.
    #[serde(default)]
    pub policy_revision: i64,
    /// Entries in force.
    #[serde(default)]
    pub entries: i64,
}
