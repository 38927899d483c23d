//! Ports of a rule, and what is asked of the traffic on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::l7::L7Rules;
use crate::schema;
use crate::string_enum::string_enum;

/// Ports, and rules for what is spoken on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRule {
    /// Ports as alternatives. Absent or empty means no port at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub ports: Option<Vec<PortProtocol>>,
    /// Keys with which TLS from the client is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "terminatingTLS")]
    pub terminating_tls: Option<TlsContext>,
    /// Keys with which TLS to the server is begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "originatingTLS")]
    pub originating_tls: Option<TlsContext>,
    /// Server names that a TLS client may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1),
        inner(length(max = 255), regex(pattern = "^([-a-zA-Z0-9_*]+[.]?)+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub server_names: Option<Vec<String>>,
    /// Proxy listener that the traffic is sent through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// Requests that are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<L7Rules>,
}

/// Ports that are denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortDenyRule {
    /// Ports as alternatives. Absent or empty means no port at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortProtocol>>,
}

/// A port or a range of ports, and a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortProtocol {
    /// Number from 0 to 65535, or name of a container port. 0 means any port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = "^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$"
    ))]
    pub port: Option<String>,
    /// Last port of a range that starts at port. Not higher than port means no range.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub end_port: Option<i32>,
    /// Protocol. Absent or ANY means TCP, UDP and SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

string_enum! {
    /// Transport or network protocol of a [`PortProtocol`].
    Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
        /// VRRP, IP protocol 112; without port.
        Vrrp = "VRRP",
        /// IGMP, IP protocol 2; without port.
        Igmp = "IGMP",
        /// GRE, IP protocol 47; without port.
        Gre = "GRE",
        /// IPv4 in IP, IP protocol 4; without port.
        Ipip = "IPIP",
        /// IPv6 in IP, IP protocol 41; without port.
        Ipv6 = "IPV6",
        /// ESP, IP protocol 50; without port.
        Esp = "ESP",
        /// AH, IP protocol 51; without port.
        Ah = "AH",
        /// TCP, UDP and SCTP.
        Any = "ANY",
    }
}

/// Keys and certificates for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsContext {
    /// Secret that holds them.
    pub secret: SecretRef,
    /// Entry of the secret with the certificates that peers are checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "trustedCA")]
    pub trusted_ca: Option<String>,
    /// Entry of the secret with the certificate that is shown to peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Entry of the secret with the key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
}

/// Name of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Namespace of the Secret. What absent means depends on where the Secret is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
}

/// A listener of a proxy configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The configuration that defines the listener.
    pub envoy_config: EnvoyConfigRef,
    /// Name of the listener in it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Which listener is used when several rules name one for the same traffic: the lowest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), transform = schema::plain_integer)]
    pub priority: Option<i64>,
}

/// Name of a proxy configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfigRef {
    /// Kind of the configuration. Absent means the kind with the scope of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<EnvoyConfigKind>,
    /// Name of the configuration.
    #[schemars(length(min = 1))]
    pub name: String,
}

string_enum! {
    /// Kinds of proxy configurations.
    EnvoyConfigKind {
        /// In the namespace of the policy.
        Namespaced = "CiliumEnvoyConfig",
        /// Of the whole cluster.
        Clusterwide = "CiliumClusterwideEnvoyConfig",
    }
}
