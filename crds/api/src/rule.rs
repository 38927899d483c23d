//! The rule that both policy kinds share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::egress::{EgressDenyRule, EgressRule};
use crate::ingress::{IngressDenyRule, IngressRule};
use crate::selector::EndpointSelector;
use crate::string_enum::string_enum;

/// What the selected endpoints may receive and send.
///
/// An absent section, or an empty one, says nothing about its direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "oneOf" = [{"required": ["endpointSelector"]}, {"required": ["nodeSelector"]}],
    "anyOf" = [{"required": ["ingress"]}, {"required": ["ingressDeny"]}, {"required": ["egress"]}, {"required": ["egressDeny"]}]
))]
pub struct Rule {
    /// Endpoints that the rule applies to. Exactly one of endpointSelector and nodeSelector must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<EndpointSelector>,
    /// Nodes whose host traffic the rule applies to, in CiliumClusterwideNetworkPolicy only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<EndpointSelector>,
    /// What may come in. Entries are alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<IngressRule>>,
    /// What must not come in, whatever ingress says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_deny: Option<Vec<IngressDenyRule>>,
    /// What may go out. Entries are alternatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
    /// What must not go out, whatever egress says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_deny: Option<Vec<EgressDenyRule>>,
    /// Labels of the rule itself, shown where the rule is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<RuleLabel>>,
    /// Whether the rule closes a direction for traffic that no rule allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_default_deny: Option<DefaultDeny>,
    /// Free text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How traffic that this rule decides on is marked in flow logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<RuleLog>,
}

/// Per direction: whether what no rule allows is dropped. Absent means yes if the rule has a section of that direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultDeny {
    /// For traffic to the selected endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// For traffic from the selected endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<bool>,
}

/// A label of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleLabel {
    /// Key of the label.
    pub key: String,
    /// Value of the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the label comes from, for example k8s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Mark in flow logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleLog {
    /// Text that flow logs carry, printable characters only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^\PC*$"))]
    pub value: Option<String>,
}

/// Whether peers must prove who they are before traffic is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// What is asked of the peer.
    pub mode: AuthenticationMode,
}

string_enum! {
    /// Mode of [`Authentication`].
    AuthenticationMode {
        /// No proof is asked for.
        Disabled = "disabled",
        /// Both sides must have proven their identity.
        Required = "required",
        /// Always refused, for tests.
        TestAlwaysFail = "test-always-fail",
    }
}
