//! Peers of a rule beside endpoints and nodes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::selector::{EndpointSelector, LabelSelector};
use crate::string_enum::string_enum;

string_enum! {
    /// A well-known peer or set of peers.
    Entity {
        /// Everything.
        All = "all",
        /// Everything outside the cluster.
        World = "world",
        /// Everything inside the local cluster.
        Cluster = "cluster",
        /// Everything inside all connected clusters.
        ClusterMesh = "cluster-mesh",
        /// The node of the endpoint.
        Host = "host",
        /// Endpoints whose labels are not known yet.
        Init = "init",
        /// The proxies of Ingress and Gateway.
        Ingress = "ingress",
        /// Pods of the cluster that this network does not manage.
        Unmanaged = "unmanaged",
        /// All other nodes.
        RemoteNode = "remote-node",
        /// Health endpoints.
        Health = "health",
        /// Nothing.
        None = "none",
        /// The Kubernetes API servers.
        KubeApiserver = "kube-apiserver",
    }
}

/// A prefix with exceptions, or groups of prefixes. Exactly one of cidr, cidrGroupRef and cidrGroupSelector must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "oneOf" = [{"required": ["cidr"]}, {"required": ["cidrGroupRef"]}, {"required": ["cidrGroupSelector"]}]
))]
pub struct CidrRule {
    /// The prefix, for example 192.0.2.0/24.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr)]
    pub cidr: Option<String>,
    /// Name of a CiliumCIDRGroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub cidr_group_ref: Option<String>,
    /// CiliumCIDRGroups by labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr_group_selector: Option<EndpointSelector>,
    /// Prefixes inside that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::cidr_list)]
    pub except: Option<Vec<String>>,
}

/// A Kubernetes service by name, or services by labels. The labels win when both are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSelector {
    /// Services by their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_service_selector: Option<ServiceLabels>,
    /// One service by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_service: Option<ServiceName>,
}

/// Services by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLabels {
    /// Labels of the service.
    pub selector: LabelSelector,
    /// Namespace of the service. Absent means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A service by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceName {
    /// Name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Namespace of the service. Absent means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Addresses that a cloud provider knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Addresses of AWS instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsGroup>,
}

/// Addresses of AWS instances. All parts that are given must match, one entry of each list is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsGroup {
    /// Tags of the instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Security groups by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups_ids: Option<Vec<String>>,
    /// Security groups by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups_names: Option<Vec<String>>,
    /// Accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A DNS name, or a pattern of names. Exactly one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["matchName"]}, {"required": ["matchPattern"]}]))]
pub struct FqdnSelector {
    /// The whole name, upper and lower case alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = "^([-a-zA-Z0-9_]+[.]?)+$"))]
    pub match_name: Option<String>,
    /// Names in which an asterisk stands for any number of characters of one label.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = "^([-a-zA-Z0-9_*]+[.]?)+$"))]
    pub match_pattern: Option<String>,
}
