//! Core Kubernetes objects, reduced to the fields that can change a plan.
//!
//! A watch on these types keeps a fraction of the memory of the full ones: everything else is dropped while the
//! answer is parsed. Field names and defaults follow the Kubernetes API reference (core/v1, discovery.k8s.io/v1).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// Implements [`kube_core::Resource`] for a struct with a `metadata` field.
macro_rules! resource {
    ($type:ty, $scope:ty, $group:literal, $version:literal, $kind:literal, $plural:literal $(, metadata_api = $only:literal)?) => {
        impl kube_core::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;
            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                std::borrow::Cow::Borrowed($kind)
            }
            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                std::borrow::Cow::Borrowed($group)
            }
            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                std::borrow::Cow::Borrowed($version)
            }
            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                std::borrow::Cow::Borrowed($plural)
            }
            $(fn metadata_api() -> bool {
                $only
            })?
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use resource;

resource!(Pod, kube_core::NamespaceResourceScope, "", "v1", "Pod", "pods");
resource!(Namespace, kube_core::ClusterResourceScope, "", "v1", "Namespace", "namespaces");
resource!(Node, kube_core::ClusterResourceScope, "", "v1", "Node", "nodes");
resource!(Service, kube_core::NamespaceResourceScope, "", "v1", "Service", "services");
resource!(Secret, kube_core::NamespaceResourceScope, "", "v1", "Secret", "secrets", metadata_api = true);
resource!(
    EndpointSlice,
    kube_core::NamespaceResourceScope,
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices"
);

/// A Secret, without what is in it: the API server is asked for metadata only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Secret {
    /// Name, namespace, resourceVersion. `kubectl apply` leaves all of an object in an annotation: there are none.
    #[serde(deserialize_with = "without_annotations")]
    pub metadata: ObjectMeta,
}

fn without_annotations<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(ObjectMeta { annotations: None, ..ObjectMeta::deserialize(deserializer)? })
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Name, namespace, uid, labels, deletionTimestamp.
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: PodSpec,
    /// What the kubelet reports.
    pub status: PodStatus,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Empty until the pod is bound.
    pub node_name: Option<String>,
    /// Pods in the host's network have no endpoint.
    pub host_network: Option<bool>,
    /// `default` when absent.
    pub service_account_name: Option<String>,
    /// For named ports.
    #[serde(deserialize_with = "null_as_empty")]
    pub containers: Vec<Container>,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Declared ports.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<ContainerPort>,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, if any.
    pub name: Option<String>,
    /// 1–65535.
    pub container_port: i32,
    /// TCP when absent.
    pub protocol: Option<String>,
    /// Port of the node that leads to it.
    pub host_port: Option<i32>,
    /// Address of the node that has that port; all of them when empty.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed, Unknown.
    pub phase: Option<String>,
    /// Addresses that the runtime reported: their presence says that CNI ADD has succeeded.
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "null_as_empty")]
    pub pod_ips: Vec<PodIp>,
    /// For Ready.
    #[serde(deserialize_with = "null_as_empty")]
    pub conditions: Vec<PodCondition>,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// Address.
    pub ip: String,
}

/// A namespace; its labels are part of the identity of its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Name and labels.
    pub metadata: ObjectMeta,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Name, uid, labels.
    pub metadata: ObjectMeta,
    /// Pod prefixes, taints.
    pub spec: NodeSpec,
    /// Addresses.
    pub status: NodeStatus,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// One prefix per family.
    #[serde(rename = "podCIDRs")]
    #[serde(deserialize_with = "null_as_empty")]
    pub pod_cidrs: Vec<String>,
    /// Taints, to find the one that waits for us.
    #[serde(deserialize_with = "null_as_empty")]
    pub taints: Vec<Taint>,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule, NoExecute.
    pub effect: String,
    /// When it was added (NoExecute only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Addresses of all types.
    #[serde(deserialize_with = "null_as_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Only type and status are kept.
    #[serde(deserialize_with = "null_as_empty")]
    pub conditions: Vec<NodeCondition>,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCondition {
    /// `NetworkUnavailable`, `Ready`, ...
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False, Unknown.
    pub status: String,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname, ...
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// Addresses and ports.
    pub spec: ServiceSpec,
    /// Addresses of its load balancer.
    pub status: ServiceStatus,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP when absent.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Cluster addresses; `None` for headless Services.
    #[serde(rename = "clusterIPs")]
    #[serde(deserialize_with = "null_as_empty")]
    pub cluster_ips: Vec<String>,
    /// Pods behind it.
    pub selector: Option<BTreeMap<String, String>>,
    /// Ports.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<ServicePort>,
    /// Not-ready addresses count as ready.
    pub publish_not_ready_addresses: Option<bool>,
    /// Cluster when absent, or Local.
    pub internal_traffic_policy: Option<String>,
    /// None when absent, or ClientIP.
    pub session_affinity: Option<String>,
    /// For how long.
    pub session_affinity_config: SessionAffinityConfig,
    /// Addresses that the network brings to nodes, whoever sees to that.
    #[serde(rename = "externalIPs")]
    #[serde(deserialize_with = "null_as_empty")]
    pub external_ips: Vec<String>,
    /// Cluster when absent, or Local.
    pub external_traffic_policy: Option<String>,
    /// Where nodes say whether they have backends; absent or 0: nowhere.
    pub health_check_node_port: Option<i32>,
    /// Who may come by way of the load balancer; everybody when empty.
    #[serde(deserialize_with = "null_as_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Who is to make the load balancer; whoever does so by default when absent.
    pub load_balancer_class: Option<String>,
    /// The address that it is to have.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    /// SingleStack when absent, PreferDualStack, RequireDualStack.
    pub ip_family_policy: Option<String>,
    /// IPv4, IPv6.
    #[serde(deserialize_with = "null_as_empty")]
    pub ip_families: Vec<String>,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// Of the affinity by address.
    #[serde(rename = "clientIP")]
    pub client_ip: ClientIpConfig,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// 10800 when absent.
    pub timeout_seconds: Option<u32>,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What the load balancer answers on.
    pub load_balancer: LoadBalancerStatus,
    /// Of all who have something to say.
    #[serde(deserialize_with = "null_as_empty")]
    pub conditions: Vec<Condition>,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Addresses or names.
    #[serde(deserialize_with = "null_as_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Absent when it is known by name only.
    pub ip: Option<String>,
    /// VIP when absent; with Proxy, nodes must leave the address to the load balancer.
    pub ip_mode: Option<String>,
}

/// See [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Absent for a single port.
    pub name: Option<String>,
    /// TCP when absent.
    pub protocol: Option<String>,
    /// Port of the Service.
    pub port: i32,
    /// Port of every node; absent or 0: none.
    pub node_port: Option<i32>,
}

/// Backends of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// The label `kubernetes.io/service-name` names the Service.
    pub metadata: ObjectMeta,
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    /// Backends.
    #[serde(deserialize_with = "null_as_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Ports, the same for all endpoints.
    #[serde(deserialize_with = "null_as_empty")]
    pub ports: Vec<EndpointPort>,
}

/// See [`EndpointSlice`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// One address in practice.
    #[serde(deserialize_with = "null_as_empty")]
    pub addresses: Vec<String>,
    /// Readiness.
    pub conditions: EndpointConditions,
    /// Node of the backend.
    pub node_name: Option<String>,
    /// For whom it is.
    pub hints: EndpointHints,
}

/// See [`EndpointSlice`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones that should use it.
    #[serde(deserialize_with = "null_as_empty")]
    pub for_zones: Vec<Hint>,
    /// Nodes that should use it.
    #[serde(deserialize_with = "null_as_empty")]
    pub for_nodes: Vec<Hint>,
}

/// See [`EndpointHints`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hint {
    /// Name of the zone or node.
    pub name: String,
}

/// See [`EndpointSlice`]. Absent `ready` and `serving` mean true, absent `terminating` false.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes new connections.
    pub ready: Option<bool>,
    /// As ready, whether terminating or not.
    pub serving: Option<bool>,
    /// Being deleted.
    pub terminating: Option<bool>,
}

/// See [`EndpointSlice`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Equals the name of the Service's port.
    pub name: Option<String>,
    /// TCP when absent.
    pub protocol: Option<String>,
    /// Absent means all ports, which no ClusterIP Service uses.
    pub port: Option<i32>,
}

/// Lists of the API may be absent, empty or `null`; all three mean the same.
pub(crate) fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
