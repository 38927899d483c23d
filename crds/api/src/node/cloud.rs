//! Network interfaces of a node at cloud providers.
//!
//! Nothing here is written by us: the fields are there so that objects of other writers are kept whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// How AWS network interfaces are made for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EniSpec {
    /// Type of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Index of the first interface for pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::natural)]
    pub first_interface_index: Option<i64>,
    /// Security groups of the interfaces, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Security groups of the interfaces, by tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_tags: Option<BTreeMap<String, String>>,
    /// Subnets of the interfaces, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_ids: Option<Vec<String>>,
    /// Subnets of the interfaces, by tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_tags: Option<BTreeMap<String, String>>,
    /// Subnet of the first interface of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_subnet_id: Option<String>,
    /// Id of the VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// Availability zone of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Tags of interfaces that are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_interface_tags: Option<BTreeMap<String, String>>,
    /// Whether interfaces go with the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// Whether pods may have the first address of an interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_primary_address: Option<bool>,
    /// Whether single addresses are taken instead of prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_prefix_delegation: Option<bool>,
}

/// How Azure network interfaces are made for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AzureSpec {
    /// Name of the interface that pods get addresses from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
}

/// How Alibaba Cloud network interfaces are made for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AlibabaSpec {
    /// Type of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Availability zone of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Id of the VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// Prefix of the VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr_block: Option<String>,
    /// Switches of the interfaces, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vswitches: Option<Vec<String>>,
    /// Switches of the interfaces, by tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vswitch_tags: Option<BTreeMap<String, String>>,
    /// Security groups of the interfaces, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Security groups of the interfaces, by tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_tags: Option<BTreeMap<String, String>>,
}

/// AWS network interfaces of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EniStatus {
    /// Interfaces by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enis: Option<BTreeMap<String, Eni>>,
}

/// An AWS network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Eni {
    /// Id of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Availability zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Index of the interface at the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plain_integer)]
    pub number: Option<i64>,
    /// Subnet of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// VPC of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<EniVpc>,
    /// Further addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// IPv4 prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub prefixes: Option<Vec<String>>,
    /// IPv6 prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub ipv6_prefixes: Option<Vec<String>>,
    /// Security groups by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Public address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_ip: Option<String>,
}

/// VPC of an AWS network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EniVpc {
    /// Id of the VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub primary_cidr: Option<String>,
    /// Further prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub cidrs: Option<Vec<String>>,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Subnet {
    /// Id of the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
}

/// Azure network interfaces of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AzureStatus {
    /// The interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<AzureInterface>>,
}

/// An Azure network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AzureInterface {
    /// Id of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Name of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Provisioning state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<AzureAddress>>,
    /// Security group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group: Option<String>,
    /// Subnet of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// Prefix of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
    /// Gateway of the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// An address of an Azure network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AzureAddress {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Provisioning state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Subnet of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

/// Alibaba Cloud network interfaces of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AlibabaStatus {
    /// Interfaces by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enis: Option<BTreeMap<String, AlibabaEni>>,
}

/// An Alibaba Cloud network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AlibabaEni {
    /// Id of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_interface_id: Option<String>,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Primary or Secondary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Machine that has the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Security groups by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groupids: Option<Vec<String>>,
    /// VPC of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<AlibabaVpc>,
    /// Zone of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_id: Option<String>,
    /// Switch of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vswitch: Option<Vswitch>,
    /// First address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_ip_address: Option<String>,
    /// All addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_ipsets: Option<Vec<PrivateIp>>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// VPC of an Alibaba Cloud network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AlibabaVpc {
    /// Id of the VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// IPv4 prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
    /// IPv6 prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub ipv6_cidr: Option<String>,
    /// Further prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub secondary_cidrs: Option<Vec<String>>,
}

/// Switch of an Alibaba Cloud network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Vswitch {
    /// Id of the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vswitch_id: Option<String>,
    /// IPv4 prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
    /// IPv6 prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub ipv6_cidr: Option<String>,
}

/// An address of an Alibaba Cloud network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PrivateIp {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_ip_address: Option<String>,
    /// Whether it is the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<bool>,
}
