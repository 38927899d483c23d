//! Incoming direction of a rule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::icmp::IcmpRule;
use crate::peer::{CidrRule, Entity, Group};
use crate::port::{PortDenyRule, PortRule};
use crate::rule::Authentication;
use crate::schema;
use crate::selector::EndpointSelector;

/// Where traffic comes from. At most one list may have entries; absent and empty lists differ, see each rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressPeers {
    /// Endpoints by labels. An empty list selects no peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_endpoints: Option<Vec<EndpointSelector>>,
    /// No longer supported, must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub from_requires: Option<Vec<String>>,
    /// Prefixes or addresses outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "fromCIDR")]
    #[schemars(transform = schema::cidr_list)]
    pub from_cidr: Option<Vec<String>>,
    /// Prefixes with exceptions, and groups of prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "fromCIDRSet")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    /// Well-known peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_entities: Option<Vec<Entity>>,
    /// Groups that a cloud provider resolves to addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_groups: Option<Vec<Group>>,
    /// Nodes by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_nodes: Option<Vec<EndpointSelector>>,
}

/// Traffic that may come in: from these peers and to these ports.
///
/// An entry with neither peers nor ports allows nothing and still closes the direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// Where the traffic comes from.
    #[serde(flatten)]
    pub peers: IngressPeers,
    /// Ports of the selected endpoints. Absent or empty means all ports and protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortRule>>,
    /// ICMP messages. Not together with toPorts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
    /// Proof of identity that is asked of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// Traffic that must not come in: from these peers and to these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressDenyRule {
    /// Where the traffic comes from.
    #[serde(flatten)]
    pub peers: IngressPeers,
    /// Ports of the selected endpoints. Absent or empty means all ports and protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortDenyRule>>,
    /// ICMP messages. Not together with toPorts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<Vec<IcmpRule>>,
}
