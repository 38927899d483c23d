//! Addresses for the pods of a node.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::string_enum::string_enum;

/// Addresses that a node may give to pods, and how many it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IpamSpec {
    /// IPv4 addresses that the node may use, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<BTreeMap<String, Allocation>>,
    /// IPv6 addresses that the node may use, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<BTreeMap<String, Allocation>>,
    /// Named pools that the node takes prefixes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<IpamPools>,
    /// Prefixes of the node for its pods, one for each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "podCIDRs")]
    #[schemars(transform = schema::cidr_list)]
    pub pod_cidrs: Option<Vec<String>>,
    /// Least number of addresses that the node has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::natural)]
    pub min_allocate: Option<i64>,
    /// Greatest number of addresses that the node has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::natural)]
    pub max_allocate: Option<i64>,
    /// Number of addresses that are ready before they are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::natural)]
    pub pre_allocate: Option<i64>,
    /// Number of addresses above that which are given at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::natural)]
    pub max_above_watermark: Option<i64>,
    /// Tags of a public address that the node takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_ip_tags: Option<BTreeMap<String, String>>,
}

/// Who an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Allocation {
    /// Pod that uses the address, with its namespace. Absent when it is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Interface or prefix that the address comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// Named pools of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IpamPools {
    /// What the node asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Vec<PoolRequest>>,
    /// What the node was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Vec<PoolAllocation>>,
}

/// How many addresses of a pool a node asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoolRequest {
    /// Name of the pool.
    #[schemars(length(min = 1))]
    pub pool: String,
    /// Number of addresses of each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<PoolDemand>,
}

/// Numbers of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoolDemand {
    /// IPv4 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub ipv4_addrs: Option<i64>,
    /// IPv6 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub ipv6_addrs: Option<i64>,
}

/// Prefixes of a pool that a node was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoolAllocation {
    /// Name of the pool.
    #[schemars(length(min = 1))]
    pub pool: String,
    /// Whether the first address of a prefix may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "allowFirstIP")]
    pub allow_first_ip: Option<bool>,
    /// Whether the last address of a prefix may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "allowLastIP")]
    pub allow_last_ip: Option<bool>,
    /// The prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub cidrs: Option<Vec<String>>,
}

/// Addresses that a node uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IpamStatus {
    /// IPv4 addresses in use, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<BTreeMap<String, Allocation>>,
    /// IPv6 addresses in use, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_used: Option<BTreeMap<String, Allocation>>,
    /// Prefixes that are more than free, by prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_cidrs: Option<BTreeMap<String, PodCidrUse>>,
    /// What the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_status: Option<OperatorStatus>,
    /// IPv4 addresses that are given back, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_ips: Option<BTreeMap<String, ReleaseState>>,
    /// IPv6 addresses that are given back, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_ipv6s: Option<BTreeMap<String, ReleaseState>>,
    /// Public address that the node took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_static_ip: Option<String>,
}

/// How far a prefix is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PodCidrUse {
    /// How far the prefix is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodCidrState>,
}

string_enum! {
    /// How far a prefix of a node is used.
    PodCidrState {
        /// Given back.
        Released = "released",
        /// No address is free.
        Depleted = "depleted",
        /// Some addresses are in use.
        InUse = "in-use",
    }
}

/// What the operator says about the addresses of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorStatus {
    /// Why the node got no addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

string_enum! {
    /// How far the return of an address is.
    ReleaseState {
        /// The operator wants it back.
        MarkedForRelease = "marked-for-release",
        /// The node agrees.
        ReadyForRelease = "ready-for-release",
        /// The node needs it.
        DoNotRelease = "do-not-release",
        /// It is back.
        Released = "released",
    }
}
