//! Kinds that the operator deals with: where they are, and what it does to them. Rights and paths follow from this table.

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
use cilium_plan::{Kind, ObjectKey};
use cilium_runtime::object::{Key, ObjectRef, Resource};

/// What the operator writes of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    Nothing,
    /// Only the status.
    Status,
    /// The object and its status, but never its existence.
    Content,
    /// Everything.
    All,
    /// Everything, and the status through its own endpoint.
    AllAndStatus,
}

/// A kind that is watched.
pub trait Watched: kube::Resource<DynamicType = ()> {
    /// Its name for the planner.
    const KIND: Kind;
}

macro_rules! watched {
    ($($type:ident: $kind:ident),* $(,)?) => { $(impl Watched for $type { const KIND: Kind = Kind::$kind; })* };
}

watched! {
    Pod: Pod,
    Namespace: Namespace,
    Node: Node,
    Service: Service,
    EndpointSlice: EndpointSlice,
    CiliumNetworkPolicy: NetworkPolicy,
    CiliumClusterwideNetworkPolicy: ClusterwideNetworkPolicy,
    CiliumCIDRGroup: CidrGroup,
    NetworkPolicy: KubernetesNetworkPolicy,
    ClusterNetworkPolicy: ClusterNetworkPolicy,
    CiliumLocalRedirectPolicy: LocalRedirectPolicy,
    CiliumLoadBalancerIPPool: LoadBalancerPool,
    CiliumPodIPPool: PodPool,
    CiliumL2AnnouncementPolicy: L2AnnouncementPolicy,
    CiliumBGPClusterConfig: BgpClusterConfig,
    CiliumBGPPeerConfig: BgpPeerConfig,
    CiliumBGPAdvertisement: BgpAdvertisement,
    CiliumBGPNodeConfig: BgpNodeConfig,
    CiliumBGPNodeConfigOverride: BgpNodeConfigOverride,
    Secret: Secret,
    CiliumIdentity: Identity,
    CiliumEndpoint: Endpoint,
    CiliumNode: CiliumNode,
    CiliumNodeState: NodeState,
    CiliumNodeStateSlice: Slice,
}

/// All kinds that are watched.
pub const ALL: [Kind; 25] = [
    Kind::Pod,
    Kind::Namespace,
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::NetworkPolicy,
    Kind::ClusterwideNetworkPolicy,
    Kind::CidrGroup,
    Kind::KubernetesNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::LocalRedirectPolicy,
    Kind::LoadBalancerPool,
    Kind::PodPool,
    Kind::L2AnnouncementPolicy,
    Kind::BgpClusterConfig,
    Kind::BgpPeerConfig,
    Kind::BgpAdvertisement,
    Kind::BgpNodeConfig,
    Kind::BgpNodeConfigOverride,
    Kind::Secret,
    Kind::Identity,
    Kind::Endpoint,
    Kind::CiliumNode,
    Kind::NodeState,
    Kind::Slice,
];

/// Resource of a kind, and what is written of it.
pub const fn describe(kind: Kind) -> (Resource, Written) {
    match kind {
        Kind::Pod => (core("Pod", "pods"), Written::Nothing),
        Kind::Namespace => (core("Namespace", "namespaces"), Written::Nothing),
        Kind::Node => (core("Node", "nodes"), Written::Content),
        Kind::Service => (core("Service", "services"), Written::Status),
        Kind::EndpointSlice => {
            (resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"), Written::Nothing)
        }
        Kind::NetworkPolicy => (cilium("CiliumNetworkPolicy", "ciliumnetworkpolicies"), Written::Status),
        Kind::ClusterwideNetworkPolicy => {
            (cilium("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies"), Written::Status)
        }
        Kind::CidrGroup => (cilium("CiliumCIDRGroup", "ciliumcidrgroups"), Written::Nothing),
        Kind::KubernetesNetworkPolicy => {
            (resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"), Written::Nothing)
        }
        Kind::ClusterNetworkPolicy => {
            let (group, plural) = ("policy.networking.k8s.io", "clusternetworkpolicies");
            (resource(group, "v1alpha2", "ClusterNetworkPolicy", plural), Written::Nothing)
        }
        Kind::LocalRedirectPolicy => {
            (cilium("CiliumLocalRedirectPolicy", "ciliumlocalredirectpolicies"), Written::Status)
        }
        Kind::LoadBalancerPool => {
            (cilium("CiliumLoadBalancerIPPool", "ciliumloadbalancerippools"), Written::Status)
        }
        Kind::PodPool => (alpha("CiliumPodIPPool", "ciliumpodippools"), Written::Nothing),
        Kind::L2AnnouncementPolicy => {
            (alpha("CiliumL2AnnouncementPolicy", "ciliuml2announcementpolicies"), Written::Status)
        }
        Kind::BgpClusterConfig => {
            (cilium("CiliumBGPClusterConfig", "ciliumbgpclusterconfigs"), Written::Status)
        }
        Kind::BgpPeerConfig => (cilium("CiliumBGPPeerConfig", "ciliumbgppeerconfigs"), Written::Status),
        Kind::BgpAdvertisement => {
            (cilium("CiliumBGPAdvertisement", "ciliumbgpadvertisements"), Written::Nothing)
        }
        Kind::BgpNodeConfig => (cilium("CiliumBGPNodeConfig", "ciliumbgpnodeconfigs"), Written::All),
        Kind::BgpNodeConfigOverride => {
            (cilium("CiliumBGPNodeConfigOverride", "ciliumbgpnodeconfigoverrides"), Written::Nothing)
        }
        Kind::Secret => (core("Secret", "secrets"), Written::Nothing),
        Kind::Identity => (cilium("CiliumIdentity", "ciliumidentities"), Written::All),
        Kind::Endpoint => (cilium("CiliumEndpoint", "ciliumendpoints"), Written::All),
        Kind::CiliumNode => (cilium("CiliumNode", "ciliumnodes"), Written::All),
        Kind::NodeState => (alpha("CiliumNodeState", "ciliumnodestates"), Written::AllAndStatus),
        Kind::Slice => (alpha("CiliumNodeStateSlice", "ciliumnodestateslices"), Written::All),
    }
}

/// Kubernetes Events, which are only created.
pub const EVENTS: Resource = resource("events.k8s.io", "v1", "Event", "events");

const fn resource(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Resource {
    Resource { group, version, kind, plural }
}

const fn core(kind: &'static str, plural: &'static str) -> Resource {
    resource("", "v1", kind, plural)
}

const fn cilium(kind: &'static str, plural: &'static str) -> Resource {
    resource(cilium_api::GROUP, cilium_api::VERSION, kind, plural)
}

const fn alpha(kind: &'static str, plural: &'static str) -> Resource {
    resource(cilium_api::GROUP, "v2alpha1", kind, plural)
}

/// The object that the planner means.
pub fn to_ref(key: &ObjectKey) -> ObjectRef {
    let (resource, _) = describe(key.kind);
    ObjectRef { resource, key: Key { namespace: key.namespace.clone(), name: key.name.clone() } }
}

/// The planner's name of an object; `None` for kinds that it does not know.
pub fn to_key(object: &ObjectRef) -> Option<ObjectKey> {
    let kind = ALL.into_iter().find(|kind| describe(*kind).0 == object.resource)?;
    Some(ObjectKey::namespaced(kind, &object.key.namespace, &object.key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: Watched>() {
        let (resource, _) = describe(K::KIND);
        assert_eq!(resource.kind, K::kind(&()));
        assert_eq!(resource.plural, K::plural(&()));
        assert_eq!(resource.group, K::group(&()));
        assert_eq!(resource.version, K::version(&()));
    }

    #[test]
    fn the_table_agrees_with_the_types() {
        check::<Pod>();
        check::<Namespace>();
        check::<Node>();
        check::<Service>();
        check::<EndpointSlice>();
        check::<CiliumNetworkPolicy>();
        check::<CiliumClusterwideNetworkPolicy>();
        check::<CiliumCIDRGroup>();
        check::<NetworkPolicy>();
        check::<ClusterNetworkPolicy>();
        check::<CiliumLocalRedirectPolicy>();
        check::<CiliumLoadBalancerIPPool>();
        check::<CiliumPodIPPool>();
        check::<CiliumL2AnnouncementPolicy>();
        check::<CiliumBGPClusterConfig>();
        check::<CiliumBGPPeerConfig>();
        check::<CiliumBGPAdvertisement>();
        check::<CiliumBGPNodeConfig>();
        check::<CiliumBGPNodeConfigOverride>();
        check::<Secret>();
        check::<CiliumIdentity>();
        check::<CiliumEndpoint>();
        check::<CiliumNode>();
        check::<CiliumNodeState>();
        check::<CiliumNodeStateSlice>();
    }

    #[test]
    fn keys_go_there_and_back() {
        for kind in ALL {
            let key = ObjectKey::namespaced(kind, "a", "b");
            assert_eq!(to_key(&to_ref(&key)), Some(key));
        }
        assert_eq!(to_key(&ObjectRef::cluster(EVENTS, "x")), None);
    }
}
