//! `CiliumEndpoint`: a pod as the network sees it.

use std::collections::BTreeMap;

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};
use crate::schema;
use crate::string_enum::string_enum;

const DEFINITION: Definition = Definition {
    kind: "CiliumEndpoint",
    version: VERSION,
    plural: "ciliumendpoints",
    singular: "ciliumendpoint",
    short_names: &["cep", "ciliumep"],
    categories: &["cilium"],
    namespaced: true,
    // Writers replace `status` on the object itself.
    status_subresource: false,
    columns: &[
        Column::integer("Security Identity", ".status.identity.id"),
        Column::wide("Ingress Enforcement", ".status.policy.ingress.state"),
        Column::wide("Egress Enforcement", ".status.policy.egress.state"),
        Column::text("Endpoint State", ".status.state"),
        Column::text("IPv4", ".status.networking.addressing[0].ipv4"),
        Column::text("IPv6", ".status.networking.addressing[0].ipv6"),
    ],
};

/// State of an endpoint. Name and namespace are those of the pod, which owns the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumEndpoint {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata. The labels are those that the pod had when the object was made.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// State of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<EndpointStatus>,
}

resource!(CiliumEndpoint, NamespaceResourceScope, DEFINITION);

/// State of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// Number of the endpoint on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Background tasks for the endpoint. Not filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controllers: Option<Vec<Controller>>,
    /// Names of the endpoint elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_identifiers: Option<ExternalIdentifiers>,
    /// Health of the endpoint. Not filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
    /// Security identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<EndpointIdentity>,
    /// Last changes of state. Not filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<LogEntry>>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<EndpointNetworking>,
    /// Encryption of the traffic of the endpoint's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Enforcement in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicy>,
    /// Where the endpoint is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
    /// Ports that the pod gave names to, in the order of the names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_ports: Option<Vec<NamedPort>>,
    /// Service account of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}

string_enum! {
    /// Where an endpoint is in its life.
    EndpointState {
        /// Being made.
        Creating = "creating",
        /// Its identity is not known yet.
        WaitingForIdentity = "waiting-for-identity",
        /// Its kernel state could not be made.
        NotReady = "not-ready",
        /// Its kernel state is about to be made again.
        WaitingToRegenerate = "waiting-to-regenerate",
        /// Its kernel state is being made again.
        Regenerating = "regenerating",
        /// Being taken over from an earlier run.
        Restoring = "restoring",
        /// In service.
        Ready = "ready",
        /// Being removed.
        Disconnecting = "disconnecting",
        /// Removed.
        Disconnected = "disconnected",
        /// Asked for with wrong values.
        Invalid = "invalid",
    }
}

/// A background task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Controller {
    /// Name of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the task is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ControllerConfiguration>,
    /// How the last runs went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ControllerStatus>,
    /// Unique name of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// How a background task is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ControllerConfiguration {
    /// Whether it is tried again after an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_retry: Option<bool>,
    /// Base of the waiting time after an error, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_retry_base: Option<i64>,
    /// Time between runs, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
}

/// How the runs of a background task went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ControllerStatus {
    /// Failed runs since the last good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failure_count: Option<i64>,
    /// All failed runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_count: Option<i64>,
    /// Error of the last failed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_msg: Option<String>,
    /// Time of the last failed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_timestamp: Option<String>,
    /// Time of the last good run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_timestamp: Option<String>,
    /// All good runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_count: Option<i64>,
}

/// Names of an endpoint elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExternalIdentifiers {
    /// Container and interface that the CNI plugin was called with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_attachment_id: Option<String>,
    /// Id of the container. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Endpoint of Docker's network driver. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_endpoint_id: Option<String>,
    /// Network of Docker's network driver. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_network_id: Option<String>,
    /// Namespace of the pod. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Name of the pod. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// Namespace and name of the pod. Old objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// Health of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHealth {
    /// Of its programs in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf: Option<String>,
    /// Of its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// The worst of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overall_health: Option<String>,
}

/// Security identity of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointIdentity {
    /// Number of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Labels of the identity as source:key=value, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// A change of state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LogEntry {
    /// ok or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// State after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Addresses of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointNetworking {
    /// Pairs of addresses.
    pub addressing: Vec<AddressPair>,
    /// Address of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// An address of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AddressPair {
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Encryption of the traffic of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EncryptionSpec {
    /// Index of the key, 0 without encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub key: Option<i64>,
}

/// Enforcement of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointPolicy {
    /// For traffic to the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<EndpointPolicyDirection>,
    /// For traffic from the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EndpointPolicyDirection>,
}

/// Enforcement in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointPolicyDirection {
    /// Whether only allowed traffic passes.
    pub enforcing: bool,
    /// Identities and ports that are allowed. Not filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<IdentityTuple>>,
    /// Identities and ports that are denied. Not filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<Vec<IdentityTuple>>,
    /// Deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<IdentityTuple>>,
    /// Deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<IdentityTuple>>,
    /// enforcing, non-enforcing or disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// An identity, and what it may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IdentityTuple {
    /// Number of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<i64>,
    /// Labels of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_labels: Option<BTreeMap<String, String>>,
    /// Port, 0 for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub dest_port: Option<i64>,
    /// IP protocol number, 0 for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub protocol: Option<i64>,
}

/// A container port with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NamedPort {
    /// Name of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub port: Option<i64>,
    /// Protocol: TCP, UDP, SCTP, ICMP, ICMPV6 or ANY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}
