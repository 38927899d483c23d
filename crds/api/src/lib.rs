//! Types of the custom resources, and of what travels in them. Pure: no client, no runtime, no clock.
//!
//! One module for each kind, and one for each family of types that kinds share. [`all`] gives the definitions that
//! the operator installs; the same text is checked in under `crds/yaml`.
//!
//! # Guarantees
//! An object that the API server accepted under these schemas parses. That holds for enumerated strings of other
//! versions too: they parse as `Other`. An absent list is `None`, an empty one is `Some` and empty: policies tell them apart.

pub mod bgp;
pub mod bgp_advertisement;
pub mod bgp_cluster_config;
pub mod bgp_node_config;
pub mod bgp_node_config_override;
pub mod bgp_peer_config;
pub mod cidr_group;
pub mod cluster_network_policy;
pub mod clusterwide_network_policy;
pub mod condition;
mod definition;
pub mod digest;
pub mod egress;
pub mod endpoint;
pub mod frontends;
pub mod icmp;
pub mod identity;
pub mod ingress;
pub mod kubernetes_network_policy;
pub mod l2_announcement_policy;
pub mod l7;
pub mod load_balancer_pool;
pub mod local_redirect_policy;
pub mod network_policy;
pub mod node;
pub mod node_slice;
pub mod node_state;
pub mod parts;
pub mod peer;
pub mod pod_ip_pool;
pub mod policy_status;
pub mod port;
pub mod rule;
mod schema;
pub mod selector;
pub mod slim;
mod string_enum;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;

pub use bgp_advertisement::CiliumBGPAdvertisement;
pub use bgp_cluster_config::CiliumBGPClusterConfig;
pub use bgp_node_config::CiliumBGPNodeConfig;
pub use bgp_node_config_override::CiliumBGPNodeConfigOverride;
pub use bgp_peer_config::CiliumBGPPeerConfig;
pub use cidr_group::CiliumCIDRGroup;
pub use clusterwide_network_policy::CiliumClusterwideNetworkPolicy;
pub use definition::{ApiVersion, GROUP, SCHEMA_VERSION, SCHEMA_VERSION_LABEL, VERSION};
pub use endpoint::CiliumEndpoint;
pub use identity::CiliumIdentity;
pub use l2_announcement_policy::CiliumL2AnnouncementPolicy;
pub use load_balancer_pool::CiliumLoadBalancerIPPool;
pub use local_redirect_policy::CiliumLocalRedirectPolicy;
pub use network_policy::CiliumNetworkPolicy;
pub use node::CiliumNode;
pub use pod_ip_pool::CiliumPodIPPool;

/// The definitions of all kinds, as they are installed: with [`SCHEMA_VERSION_LABEL`] and a structural schema.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        CiliumNetworkPolicy::crd(),
        CiliumClusterwideNetworkPolicy::crd(),
        CiliumCIDRGroup::with_old_version(),
        CiliumLocalRedirectPolicy::crd(),
        CiliumLoadBalancerIPPool::with_old_version(),
        CiliumL2AnnouncementPolicy::crd(),
        CiliumBGPClusterConfig::with_old_version(),
        CiliumBGPPeerConfig::with_old_version(),
        CiliumBGPAdvertisement::with_old_version(),
        CiliumBGPNodeConfig::with_old_version(),
        CiliumBGPNodeConfigOverride::with_old_version(),
        CiliumPodIPPool::crd(),
        CiliumEndpoint::crd(),
        CiliumIdentity::crd(),
        CiliumNode::crd(),
        node_state::CiliumNodeState::crd(),
        node_slice::CiliumNodeStateSlice::crd(),
    ]
    .map(definition::finish)
    .into()
}
