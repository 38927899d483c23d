//! `CiliumLocalRedirectPolicy`: what goes to an address or a Service goes to a pod of the client's own node.

use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::definition::{ApiVersion, Column, Definition, VERSION, resource};
use crate::schema;
use crate::selector::LabelSelector;
use crate::string_enum::string_enum;

const DEFINITION: Definition = Definition {
    kind: "CiliumLocalRedirectPolicy",
    version: VERSION,
    plural: "ciliumlocalredirectpolicies",
    singular: "ciliumlocalredirectpolicy",
    short_names: &["clrp"],
    categories: &["cilium", "ciliumpolicy"],
    namespaced: true,
    status_subresource: true,
    columns: &[
        Column::age(),
        Column::text("Valid", ".status.conditions[?(@.type=='Valid')].status"),
        Column::text("Effective", ".status.conditions[?(@.type=='Effective')].status"),
    ],
};

/// Leads clients to pods of their own node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumLocalRedirectPolicy {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What is redirected, and where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<LocalRedirectSpec>,
    /// What became of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<LocalRedirectStatus>,
}

/// Content of a [`CiliumLocalRedirectPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRedirectSpec {
    /// What the policy is for. It decides nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What clients talk to.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf", "message": "redirectFrontend cannot be changed: delete the policy, and create it again"
    }]))]
    pub redirect_frontend: RedirectFrontend,
    /// Who answers them.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf", "message": "redirectBackend cannot be changed: delete the policy, and create it again"
    }]))]
    pub redirect_backend: RedirectBackend,
    /// What the selected pods themselves send to the frontend is not redirected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false, "x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "skipRedirectFromBackend cannot be changed: delete the policy, and create it again"
    }]))]
    pub skip_redirect_from_backend: bool,
}

/// What is redirected: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["addressMatcher"]}, {"required": ["serviceMatcher"]}]))]
pub struct RedirectFrontend {
    /// An address that is no Service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_matcher: Option<AddressMatcher>,
    /// The cluster addresses of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_matcher: Option<ServiceMatcher>,
}

/// An address and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressMatcher {
    /// The address, of either family.
    #[schemars(transform = schema::ip)]
    pub ip: String,
    /// Ports. Several of them need names, by which they find their backends.
    pub to_ports: Vec<PortInfo>,
}

/// A Service and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMatcher {
    /// Namespace of the Service, which is that of the policy.
    pub namespace: String,
    /// Name of the Service.
    pub service_name: String,
    /// Ports of the Service. Absent or empty means all of them that have a backend port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortInfo>>,
}

/// Pods of the policy's namespace and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedirectBackend {
    /// Selects pods by their labels. Those that are ready, on the node of the client, answer.
    pub local_endpoint_selector: LabelSelector,
    /// Ports of the pods. Several of them need names.
    pub to_ports: Vec<PortInfo>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortInfo {
    /// Number from 1 to 65535.
    #[schemars(regex(
        pattern = "^()([1-9]|[1-5]?[0-9]{2,4}|6[1-4][0-9]{3}|65[1-4][0-9]{2}|655[1-2][0-9]|6553[1-5])$"
    ))]
    pub port: String,
    /// Protocol.
    pub protocol: RedirectProtocol,
    /// Name by which ports of frontend and backend find each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,4})|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$"))]
    pub name: Option<String>,
}

string_enum! {
    /// Protocol of a [`PortInfo`].
    RedirectProtocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
    }
}

/// What became of a [`CiliumLocalRedirectPolicy`]. Its size does not grow with the number of nodes or pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRedirectStatus {
    /// The policy is in force on every node with a pod that it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// Observations. Type Valid says whether the policy is put in force, type Effective whether anything is redirected; and if not, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
    /// Generation of the policy that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

resource!(CiliumLocalRedirectPolicy, NamespaceResourceScope, DEFINITION);
