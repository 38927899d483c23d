//! Outgoing direction of a rule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::icmp::IcmpRule;
use crate::peer::{CidrRule, Entity, FqdnSelector, Group, ServiceSelector};
use crate::port::{PortDenyRule, PortRule};
use crate::rule::Authentication;
use crate::schema;
use crate::selector::EndpointSelector;

/// Where traffic goes to. At most one list may have entries; absent and empty lists differ, see each rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeers {
    /// Endpoints by labels. An empty list selects no peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_endpoints: Option<Vec<EndpointSelector>>,
    /// No longer supported, must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub to_requires: Option<Vec<String>>,
    /// Prefixes or addresses outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "toCIDR")]
    #[schemars(transform = schema::cidr_list)]
    pub to_cidr: Option<Vec<String>>,
    /// Prefixes with exceptions, and groups of prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "toCIDRSet")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    /// Well-known peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_entities: Option<Vec<Entity>>,
    /// Kubernetes services: their pods, or their addresses when they select no pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_services: Option<Vec<ServiceSelector>>,
    /// Groups that a cloud provider resolves to addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_nodes: Option<Vec<EndpointSelector>>,
}

/// Traffic that may go out: to these peers and these ports of theirs.
///
/// An entry with neither peers nor ports allows nothing and still closes the direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Where the traffic goes to.
    #[serde(flatten)]
    pub peers: EgressPeers,
    /// Ports of the peers. Absent or empty means all ports and protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// Peers by DNS name, known from the DNS answers that the endpoints received.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "toFQDNs")]
    pub to_fqdns: Option<Vec<FqdnSelector>>,
    /// ICMP messages. Not together with toPorts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
    /// Proof of identity that is asked of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// Traffic that must not go out: to these peers and these ports of theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressDenyRule {
    /// Where the traffic goes to. Services are accepted here and select nothing.
    #[serde(flatten)]
    pub peers: EgressPeers,
    /// Ports of the peers. Absent or empty means all ports and protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortDenyRule>>,
    /// ICMP messages. Not together with toPorts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
}
