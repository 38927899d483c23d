//! `CiliumBGPPeerConfig`: what holds for sessions with BGP neighbours, and what these learn.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bgp_cluster_config::BgpStatus;
use crate::definition::{ApiVersion, Column, Definition, VERSION, also_served, resource};
use crate::selector::LabelSelector;
use crate::string_enum::string_enum;

const DEFINITION: Definition = Definition {
    kind: "CiliumBGPPeerConfig",
    version: VERSION,
    plural: "ciliumbgppeerconfigs",
    singular: "ciliumbgppeerconfig",
    short_names: &["cbgppeer"],
    categories: &["cilium", "ciliumbgp"],
    namespaced: false,
    status_subresource: true,
    columns: &[Column::age()],
};

/// What holds for sessions with the peers that name it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumBGPPeerConfig {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// What holds.
    pub spec: BgpPeerConfigSpec,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<BgpStatus>,
}

/// Content of a [`CiliumBGPPeerConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerConfigSpec {
    /// The TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<BgpTransport>,
    /// How long is waited for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timers: Option<BgpTimers>,
    /// Name of a Secret in the namespace for secrets of BGP; its key `password` has the password of the session (TCP-MD5, RFC 2385).
    /// As long as there is no such Secret, there is no session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<String>,
    /// Whether the peer keeps routes while the node's speaker restarts (RFC 4724).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<BgpGracefulRestart>,
    /// TTL of packets to a peer of another AS: how many links away it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255), extend("default" = 1))]
    pub ebgp_multihop: Option<i32>,
    /// What the session carries. If absent or empty, IPv4 and IPv6, and nothing is advertised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub families: Option<Vec<BgpFamily>>,
    /// Bidirectional Forwarding Detection beside the session (RFC 5880, asynchronous mode; RFC 5881): a peer that goes silent is noticed in
    /// less than a second. The peer must have it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BgpBfd>,
    /// Routes of the peer go to the node's main table. If false, which it is if absent, they are counted only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_routes: Option<bool>,
}

/// The TCP connection of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpTransport {
    /// Port of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("default" = 179))]
    pub peer_port: Option<i32>,
    /// Device of the node whose address of the peer's family the session has. It must have exactly one that is usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_interface: Option<String>,
    /// The node waits for the peer to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// Packets from further away than `ebgpMultihop` links are dropped (Generalized TTL Security Mechanism, RFC 5082). The peer must have it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<bool>,
}

/// Timers of a session (RFC 4271, section 10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.keepAliveTimeSeconds <= self.holdTimeSeconds",
    "message": "keepAliveTimeSeconds may not be longer than holdTimeSeconds"
}]))]
pub struct BgpTimers {
    /// Pause between two attempts to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647), extend("default" = 120))]
    pub connect_retry_time_seconds: Option<i32>,
    /// Silence after which the peer counts as gone; the shorter one of both sides holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 65535), extend("default" = 90))]
    pub hold_time_seconds: Option<i32>,
    /// Pause between two signs of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("default" = 30))]
    pub keep_alive_time_seconds: Option<i32>,
}

/// Graceful restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpGracefulRestart {
    /// It is offered to the peer.
    pub enabled: bool,
    /// How long the peer keeps routes without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4095), extend("default" = 120))]
    pub restart_time_seconds: Option<i32>,
    /// How much longer it keeps them as last resort (long-lived graceful restart, RFC 9494). Not offered if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_215))]
    pub long_lived_stale_time_seconds: Option<i32>,
}

/// A family of addresses (RFC 4760), and what is advertised of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpFamily {
    /// Kind of addresses.
    pub afi: Afi,
    /// Kind of routes.
    pub safi: Safi,
    /// CiliumBGPAdvertisements that go to the peer, by their labels; none of them if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertisements: Option<LabelSelector>,
}

string_enum! {
    /// Address family identifiers (RFC 4760). Only the first two are spoken.
    Afi {
        /// AFI 1.
        Ipv4 = "ipv4",
        /// AFI 2.
        Ipv6 = "ipv6",
        /// AFI 25.
        L2vpn = "l2vpn",
        /// AFI 16388.
        Ls = "ls",
        /// AFI 16397.
        Opaque = "opaque",
    }
}

string_enum! {
    /// Subsequent address family identifiers (RFC 4760). Only the first is spoken.
    Safi {
        /// SAFI 1.
        Unicast = "unicast",
        /// SAFI 2.
        Multicast = "multicast",
        /// SAFI 4.
        MplsLabel = "mpls_label",
        /// SAFI 7.
        Encapsulation = "encapsulation",
        /// SAFI 65.
        Vpls = "vpls",
        /// SAFI 70.
        Evpn = "evpn",
        /// SAFI 71.
        Ls = "ls",
        /// SAFI 73.
        SrPolicy = "sr_policy",
        /// SAFI 85.
        Mup = "mup",
        /// SAFI 128.
        MplsVpn = "mpls_vpn",
        /// SAFI 129.
        MplsVpnMulticast = "mpls_vpn_multicast",
        /// SAFI 132.
        RouteTargetConstraints = "route_target_constraints",
        /// SAFI 133.
        FlowspecUnicast = "flowspec_unicast",
        /// SAFI 134.
        FlowspecVpn = "flowspec_vpn",
        /// SAFI 241.
        KeyValue = "key_value",
    }
}

/// Parameters of BFD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpBfd {
    /// Time between packets that the node wants to send; the peer may ask for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000), extend("default" = 300))]
    pub transmit_interval_milliseconds: Option<i32>,
    /// Time between packets that the node can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000), extend("default" = 300))]
    pub receive_interval_milliseconds: Option<i32>,
    /// Packets in a row that may be missing until the other side counts as gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50), extend("default" = 3))]
    pub detect_multiplier: Option<i32>,
}

resource!(CiliumBGPPeerConfig, ClusterResourceScope, DEFINITION);

impl CiliumBGPPeerConfig {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
