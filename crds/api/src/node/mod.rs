//! `CiliumNode`: a node as the network sees it, and its share of addresses.

mod cloud;
mod ipam;

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::cloud::*;
pub use self::ipam::*;
use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};
use crate::endpoint::{AddressPair, EncryptionSpec};

const DEFINITION: Definition = Definition {
    kind: "CiliumNode",
    version: VERSION,
    plural: "ciliumnodes",
    singular: "ciliumnode",
    short_names: &["cn", "ciliumn"],
    categories: &["cilium"],
    namespaced: false,
    status_subresource: true,
    columns: &[
        Column::text("CiliumInternalIP", r#".spec.addresses[?(@.type=="CiliumInternalIP")].ip"#),
        Column::text("InternalIP", r#".spec.addresses[?(@.type=="InternalIP")].ip"#),
        Column::age(),
    ],
};

/// A node. The object has the name of the Kubernetes node, which owns it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumNode {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What is known of the node and asked for by it.
    pub spec: NodeSpec,
    /// What the node has and uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

resource!(CiliumNode, ClusterResourceScope, DEFINITION);

/// What is known of a node and asked for by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeSpec {
    /// Name of the machine at its cloud provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Id that changes with every boot of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootid: Option<String>,
    /// Addresses of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<NodeAddress>>,
    /// Addresses of the health endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<AddressPair>,
    /// Addresses of the proxy of Ingress and Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<AddressPair>,
    /// Encryption of traffic between nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Addresses for pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamSpec>,
    /// AWS network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniSpec>,
    /// Azure network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureSpec>,
    /// Alibaba Cloud network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alibaba_cloud: Option<AlibabaSpec>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname, CiliumInternalIP, or another type that Kubernetes knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// What a node has and uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStatus {
    /// Addresses for pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamStatus>,
    /// AWS network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniStatus>,
    /// Azure network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStatus>,
    /// Alibaba Cloud network interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alibaba_cloud: Option<AlibabaStatus>,
}
