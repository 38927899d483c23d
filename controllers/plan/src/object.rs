//! What the planner reads: objects of the API, and their names.

use std::fmt;

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::CiliumNodeState;
use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Secret, Service};
use cilium_api::{
    CiliumBGPAdvertisement, CiliumBGPClusterConfig, CiliumBGPNodeConfig, CiliumBGPNodeConfigOverride,
    CiliumBGPPeerConfig, CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity,
    CiliumL2AnnouncementPolicy, CiliumLoadBalancerIPPool, CiliumLocalRedirectPolicy, CiliumNetworkPolicy,
    CiliumNode, CiliumPodIPPool,
};

/// Kinds that the planner reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Pod.
    Pod,
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Node.
    Node,
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// CiliumNetworkPolicy.
    NetworkPolicy,
    /// CiliumClusterwideNetworkPolicy.
    ClusterwideNetworkPolicy,
    /// CiliumCIDRGroup.
    CidrGroup,
    /// networking.k8s.io/v1 NetworkPolicy.
    KubernetesNetworkPolicy,
    /// policy.networking.k8s.io ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// CiliumLocalRedirectPolicy.
    LocalRedirectPolicy,
    /// CiliumLoadBalancerIPPool.
    LoadBalancerPool,
    /// CiliumPodIPPool.
    PodPool,
    /// CiliumL2AnnouncementPolicy.
    L2AnnouncementPolicy,
    /// CiliumBGPClusterConfig.
    BgpClusterConfig,
    /// CiliumBGPPeerConfig.
    BgpPeerConfig,
    /// CiliumBGPAdvertisement.
    BgpAdvertisement,
    /// CiliumBGPNodeConfig.
    BgpNodeConfig,
    /// CiliumBGPNodeConfigOverride.
    BgpNodeConfigOverride,
    /// core/v1 Secret, of the namespace for secrets of BGP: its name and version, not what is in it.
    Secret,
    /// CiliumIdentity.
    Identity,
    /// CiliumEndpoint.
    Endpoint,
    /// CiliumNode.
    CiliumNode,
    /// CiliumNodeState.
    NodeState,
    /// CiliumNodeStateSlice.
    Slice,
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: Kind,
    /// Namespace, empty for kinds of cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Name of an object in a namespace.
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
    /// Name of an object of cluster scope.
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self::namespaced(kind, "", name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A policy that the API server stores and that does not parse as its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePolicy {
    /// Kind (one of the two policy kinds), namespace and name.
    pub key: ObjectKey,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// What the parser said.
    pub reason: String,
}

/// An object as the API server has it now.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A namespace.
    Namespace(Box<Namespace>),
    /// A node.
    Node(Box<Node>),
    /// A Service.
    Service(Box<Service>),
    /// Backends of a Service.
    EndpointSlice(Box<EndpointSlice>),
    /// A policy of one namespace.
    NetworkPolicy(Box<CiliumNetworkPolicy>),
    /// A policy of all namespaces.
    ClusterwideNetworkPolicy(Box<CiliumClusterwideNetworkPolicy>),
    /// A policy of Kubernetes' own kind.
    KubernetesNetworkPolicy(Box<NetworkPolicy>),
    /// Rules before or behind those of namespaces.
    ClusterNetworkPolicy(Box<ClusterNetworkPolicy>),
    /// A policy of either kind of ours that does not parse.
    UnreadablePolicy(Box<UnreadablePolicy>),
    /// Prefixes that policies refer to.
    CidrGroup(Box<CiliumCIDRGroup>),
    /// A policy that leads clients to pods of their own node.
    LocalRedirectPolicy(Box<CiliumLocalRedirectPolicy>),
    /// Addresses for Services of load balancers.
    LoadBalancerPool(Box<CiliumLoadBalancerIPPool>),
    /// Addresses for pods.
    PodPool(Box<CiliumPodIPPool>),
    /// Which nodes announce which addresses.
    L2AnnouncementPolicy(Box<CiliumL2AnnouncementPolicy>),
    /// Who speaks BGP with whom.
    BgpClusterConfig(Box<CiliumBGPClusterConfig>),
    /// How with a peer, and about what.
    BgpPeerConfig(Box<CiliumBGPPeerConfig>),
    /// What is made known by BGP.
    BgpAdvertisement(Box<CiliumBGPAdvertisement>),
    /// BGP of a node, as last written.
    BgpNodeConfig(Box<CiliumBGPNodeConfig>),
    /// What is different on a node.
    BgpNodeConfigOverride(Box<CiliumBGPNodeConfigOverride>),
    /// A password of BGP sessions, without it.
    Secret(Box<Secret>),
    /// An identity: the record of numbers.
    Identity(Box<CiliumIdentity>),
    /// An endpoint: a record of addresses.
    Endpoint(Box<CiliumEndpoint>),
    /// The public view of a node.
    CiliumNode(Box<CiliumNode>),
    /// Desired state of a node, as last written, and what its agent says.
    NodeState(Box<CiliumNodeState>),
    /// A slice, as last written.
    Slice(Box<CiliumNodeStateSlice>),
}

macro_rules! from_boxed {
    ($($variant:ident: $type:ty),* $(,)?) => {
        $(impl From<$type> for Object {
            fn from(object: $type) -> Self {
                Self::$variant(Box::new(object))
            }
        })*
    };
}

from_boxed! {
    Pod: Pod,
    Namespace: Namespace,
    Node: Node,
    Service: Service,
    EndpointSlice: EndpointSlice,
    NetworkPolicy: CiliumNetworkPolicy,
    ClusterwideNetworkPolicy: CiliumClusterwideNetworkPolicy,
    KubernetesNetworkPolicy: NetworkPolicy,
    ClusterNetworkPolicy: ClusterNetworkPolicy,
    UnreadablePolicy: UnreadablePolicy,
    CidrGroup: CiliumCIDRGroup,
    LocalRedirectPolicy: CiliumLocalRedirectPolicy,
    LoadBalancerPool: CiliumLoadBalancerIPPool,
    PodPool: CiliumPodIPPool,
    L2AnnouncementPolicy: CiliumL2AnnouncementPolicy,
    BgpClusterConfig: CiliumBGPClusterConfig,
    BgpPeerConfig: CiliumBGPPeerConfig,
    BgpAdvertisement: CiliumBGPAdvertisement,
    BgpNodeConfig: CiliumBGPNodeConfig,
    BgpNodeConfigOverride: CiliumBGPNodeConfigOverride,
    Secret: Secret,
    Identity: CiliumIdentity,
    Endpoint: CiliumEndpoint,
    CiliumNode: CiliumNode,
    NodeState: CiliumNodeState,
    Slice: CiliumNodeStateSlice,
}
