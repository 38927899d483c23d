//! `CiliumBGPAdvertisement`: prefixes that BGP neighbours learn, and what goes with them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::ObjectMeta;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::definition::{ApiVersion, Column, Definition, VERSION, also_served, resource};
use crate::schema;
use crate::selector::LabelSelector;
use crate::string_enum::string_enum;

const DEFINITION: Definition = Definition {
    kind: "CiliumBGPAdvertisement",
    version: VERSION,
    plural: "ciliumbgpadvertisements",
    singular: "ciliumbgpadvertisement",
    short_names: &["cbgpadvert"],
    categories: &["cilium", "ciliumbgp"],
    namespaced: false,
    status_subresource: false,
    columns: &[Column::age()],
};

/// Prefixes for the peers whose CiliumBGPPeerConfig selects it by its labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub struct CiliumBGPAdvertisement {
    /// Always `cilium.io/v2`.
    #[serde(rename = "apiVersion", default)]
    pub api_version: ApiVersion,
    /// Standard object metadata.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub metadata: ObjectMeta,
    /// Which prefixes.
    pub spec: BgpAdvertisementSpec,
}

/// Content of a [`CiliumBGPAdvertisement`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpAdvertisementSpec {
    /// Kinds of prefixes, each with its own attributes.
    pub advertisements: Vec<BgpAdvertised>,
}

/// Prefixes of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.advertisementType != 'Service' || has(self.service)", "message": "a Service advertisement needs service"},
    {"rule": "self.advertisementType == 'Service' || !has(self.service)", "message": "service is for Service advertisements only"},
    {"rule": "self.advertisementType != 'Interface' || has(self.interface)", "message": "an Interface advertisement needs interface"},
    {"rule": "self.advertisementType == 'Interface' || !has(self.interface)", "message": "interface is for Interface advertisements only"},
    {"rule": "self.advertisementType != 'PodCIDR' || !has(self.selector)", "message": "a PodCIDR advertisement takes no selector"}
]))]
pub struct BgpAdvertised {
    /// The kind.
    pub advertisement_type: AdvertisementType,
    /// Which addresses of Services, for the kind Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<AdvertisedService>,
    /// Which device, for the kind Interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<AdvertisedInterface>,
    /// Services or pools, by their labels; none of them if absent. The keys `io.kubernetes.service.namespace` and
    /// `io.kubernetes.service.name` stand for namespace and name of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What goes with the prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BgpAttributes>,
}

string_enum! {
    /// Kinds of prefixes.
    AdvertisementType {
        /// The prefixes of the node out of which its pods have addresses.
        PodCidr = "PodCIDR",
        /// Those of CiliumPodIPPools.
        PodIpPool = "CiliumPodIPPool",
        /// Addresses of Services.
        Service = "Service",
        /// Addresses of a device of the node.
        Interface = "Interface",
    }
}

/// Addresses of Services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisedService {
    /// Kinds of addresses.
    #[schemars(length(min = 1))]
    pub addresses: Vec<ServiceAddressType>,
    /// Length of the prefix that an IPv4 address goes into; 32 if absent. It does not count where only some nodes advertise the address
    /// (traffic policy Local).
    #[serde(rename = "aggregationLengthIPv4", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31), transform = schema::plain_integer)]
    pub aggregation_length_ipv4: Option<i32>,
    /// The same for IPv6; 128 if absent.
    #[serde(rename = "aggregationLengthIPv6", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 127), transform = schema::plain_integer)]
    pub aggregation_length_ipv6: Option<i32>,
}

string_enum! {
    /// Kinds of addresses of a Service.
    ServiceAddressType {
        /// `status.loadBalancer.ingress`.
        LoadBalancer = "LoadBalancerIP",
        /// `spec.clusterIPs`.
        Cluster = "ClusterIP",
        /// `spec.externalIPs`.
        External = "ExternalIP",
    }
}

/// A device of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdvertisedInterface {
    /// Its name.
    pub name: String,
}

/// Path attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpAttributes {
    /// Marks for policies of routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<BgpCommunities>,
    /// LOCAL_PREF (RFC 4271, section 5.1.5), for peers of the same AS. Of several advertisements of a prefix the highest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<i64>,
}

/// Communities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpCommunities {
    /// As RFC 1997 has them: one number, or two of 16 bits with a colon between.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = standard)]
    pub standard: Option<Vec<String>>,
    /// By the names that IANA registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub well_known: Option<Vec<WellKnownCommunity>>,
    /// As RFC 8092 has them: three numbers with colons between.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = large)]
    pub large: Option<Vec<String>>,
}

string_enum! {
    /// Communities with a meaning for all (IANA, "BGP Well-known Communities").
    WellKnownCommunity {
        /// Everybody, 0:0.
        Internet = "internet",
        /// RFC 8326, 65535:0.
        PlannedShut = "planned-shut",
        /// RFC 7611, 65535:1.
        AcceptOwn = "accept-own",
        /// 65535:2.
        RouteFilterTranslatedV4 = "route-filter-translated-v4",
        /// 65535:3.
        RouteFilterV4 = "route-filter-v4",
        /// 65535:4.
        RouteFilterTranslatedV6 = "route-filter-translated-v6",
        /// 65535:5.
        RouteFilterV6 = "route-filter-v6",
        /// RFC 9494, 65535:6.
        LlgrStale = "llgr-stale",
        /// RFC 9494, 65535:7.
        NoLlgr = "no-llgr",
        /// RFC 7999, 65535:666.
        Blackhole = "blackhole",
        /// RFC 1997, 65535:65281.
        NoExport = "no-export",
        /// RFC 1997, 65535:65282.
        NoAdvertise = "no-advertise",
        /// RFC 1997, 65535:65283.
        NoExportSubconfed = "no-export-subconfed",
        /// RFC 3765, 65535:65284.
        NoPeer = "no-peer",
    }
}

impl WellKnownCommunity {
    /// Its number; `None` for one that this version does not know.
    pub fn number(&self) -> Option<u32> {
        let low: u16 = match self {
            Self::Internet => return Some(0),
            Self::PlannedShut => 0,
            Self::AcceptOwn => 1,
            Self::RouteFilterTranslatedV4 => 2,
            Self::RouteFilterV4 => 3,
            Self::RouteFilterTranslatedV6 => 4,
            Self::RouteFilterV6 => 5,
            Self::LlgrStale => 6,
            Self::NoLlgr => 7,
            Self::Blackhole => 666,
            Self::NoExport => 65281,
            Self::NoAdvertise => 65282,
            Self::NoExportSubconfed => 65283,
            Self::NoPeer => 65284,
            Self::Other(_) => return None,
        };
        Some(0xffff_0000 | u32::from(low))
    }
}

/// A number of 32 bits, in decimal.
macro_rules! u32_pattern {
    () => {
        concat!(
            "([0-9]|[1-9][0-9]{1,8}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}",
            "|42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])"
        )
    };
}

/// A number of 16 bits, in decimal.
macro_rules! u16_pattern {
    () => {
        "([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

const STANDARD: &str = concat!("^", u32_pattern!(), "$|^", u16_pattern!(), ":", u16_pattern!(), "$");
const LARGE: &str = concat!("^", u32_pattern!(), ":", u32_pattern!(), ":", u32_pattern!(), "$");

fn standard(schema: &mut Schema) {
    of_items(schema, STANDARD);
}

fn large(schema: &mut Schema) {
    of_items(schema, LARGE);
}

fn of_items(schema: &mut Schema, pattern: &str) {
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("pattern".into(), json!(pattern));
    }
}

resource!(CiliumBGPAdvertisement, ClusterResourceScope, DEFINITION);

impl CiliumBGPAdvertisement {
    /// The definition, with the older version that clients may still use.
    pub(crate) fn with_old_version() -> CustomResourceDefinition {
        also_served(Self::crd(), "v2alpha1")
    }
}
