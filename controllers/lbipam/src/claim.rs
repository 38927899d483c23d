//! A Service, reduced to what it asks for and whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::slim;
use cilium_core::Labels;
use cilium_services::{BGP_CLASS, L2_CLASS, ServiceName, selectable_labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::block::Family;
use crate::conditions::SATISFIED;

/// Name under which the API server records who wrote addresses into the status of a Service; upstream's, so that its addresses are ours.
pub const FIELD_MANAGER: &str = "cilium-operator-lb-ipam";

/// Annotation with the addresses that a Service asks for, separated by commas; with its older name, as the next.
pub const ADDRESSES: [&str; 2] = ["lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips"];
/// Annotation with the key of Services that may have an address together.
pub const SHARING_KEY: [&str; 2] = ["lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key"];
/// Annotation with the namespaces of these, separated by commas.
pub const CROSS_NAMESPACE: [&str; 2] =
    ["lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace"];

/// Of what cannot be read, so many characters are quoted.
const QUOTED: usize = 64;

/// Which Services get addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// Those without `loadBalancerClass`.
    pub default_class: bool,
    /// Those of the class `io.cilium/bgp-control-plane`.
    pub bgp_class: bool,
    /// Those of the class `io.cilium/l2-announcer`.
    pub l2_class: bool,
}

/// Whose the addresses of a Service are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gets addresses of pools.
    Ours,
    /// It got some, and is now of a type or class that does not. Its addresses go, unless another controller has written them since.
    Former {
        /// Another one has.
        keeps_ingress: bool,
    },
    /// Another controller wrote the addresses that it has.
    Foreign,
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When it was made, in seconds since the epoch. The oldest goes first.
    pub(crate) created: i64,
    pub(crate) role: Role,
    /// Its own, and its name and namespace.
    pub(crate) labels: Labels,
    /// In their order; without any, one address of each family.
    pub(crate) requested: Vec<IpAddr>,
    /// The first of its requests that is no address. Nothing is given in place of it, and nothing taken away: it may stand for what the
    /// Service has.
    pub(crate) unreadable: Option<String>,
    /// Families that it is to have an address of.
    pub(crate) families: Vec<Family>,
    /// Services with the same key may have an address together.
    pub(crate) sharing_key: Option<String>,
    /// Other namespaces that it shares with; `*` is all of them.
    pub(crate) shares_with: BTreeSet<String>,
    /// Number and protocol.
    pub(crate) ports: BTreeSet<(i32, String)>,
    /// `externalTrafficPolicy: Local`.
    pub(crate) is_local: bool,
    /// Pods behind it.
    pub(crate) pods: BTreeMap<String, String>,
}

/// A Service as it is: what it asks for, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reduced {
    pub(crate) claim: Claim,
    /// Addresses in its status, in their order.
    pub(crate) held: Vec<IpAddr>,
    /// Its status has a condition of ours.
    pub(crate) is_marked: bool,
    /// That is about its spec as it is.
    pub(crate) is_judged: bool,
}

impl Reduced {
    /// `None`: the Service is nothing to us, and never was, and has no address that somebody else gave.
    pub(crate) fn of(service: &slim::Service, config: &Config) -> Option<Self> {
        let is_marked = service.status.conditions.iter().any(|condition| condition.type_ == SATISFIED);
        let is_handled = is_handled(&service.spec, config);
        let held = ingress(service);
        let role = match (is_handled, is_marked) {
            // It stands in the way of its addresses, if it has any.
            (false, false) if is_load_balancer(&service.spec) && !held.is_empty() => Role::Foreign,
            (false, false) => return None,
            _ => role(service, is_handled, is_marked),
        };
        let is_judged = is_marked && judged_generation(service) == service.metadata.generation;
        Some(Self { claim: Claim::reduce(service, config, role), held, is_marked, is_judged })
    }
}

/// Addresses in the status.
fn ingress(service: &slim::Service) -> Vec<IpAddr> {
    let ingress = service.status.load_balancer.ingress.iter();
    ingress.filter_map(|it| it.ip.as_deref()?.parse().ok()).collect()
}

/// `observedGeneration` of our condition.
fn judged_generation(service: &slim::Service) -> Option<i64> {
    let ours = service.status.conditions.iter().find(|condition| condition.type_ == SATISFIED);
    ours.and_then(|condition| condition.observed_generation)
}

fn is_load_balancer(spec: &slim::ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

fn is_handled(spec: &slim::ServiceSpec, config: &Config) -> bool {
    is_load_balancer(spec)
        && match spec.load_balancer_class.as_deref() {
            None => config.default_class,
            Some(BGP_CLASS) => config.bgp_class,
            Some(L2_CLASS) => config.l2_class,
            Some(_) => false,
        }
}

fn role(service: &slim::Service, is_handled: bool, is_marked: bool) -> Role {
    let has_ingress = !service.status.load_balancer.ingress.is_empty();
    let is_written_by_others = has_ingress && !is_written_by_us(service, is_marked);
    match (is_handled, is_written_by_others) {
        (true, false) => Role::Ours,
        (true, true) => Role::Foreign,
        (false, keeps_ingress) => Role::Former { keeps_ingress },
    }
}

/// Names under which the API server puts together what it does not know any more: the oldest of many writers, and those from before
/// anybody kept account (Kubernetes, `managedfields` of apimachinery).
const NOBODY: [&str; 2] = ["ancient-changes", "before-first-apply"];

/// The API server knows who wrote the addresses last. Where it does not (nobody keeps account), our condition beside them says it.
fn is_written_by_us(service: &slim::Service, is_marked: bool) -> bool {
    let entries = service.metadata.managed_fields.iter().flatten();
    let is_somebody = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref().is_none_or(|manager| !NOBODY.contains(&manager))
    };
    let mut writers = entries.filter(is_somebody).filter(|entry| wrote_ingress(entry)).peekable();
    if writers.peek().is_none() {
        return is_marked;
    }
    writers.any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Kubernetes API, "Server-Side Apply": fields stand with the prefix `f:`.
fn wrote_ingress(entry: &ManagedFieldsEntry) -> bool {
    entry
        .fields_v1
        .as_ref()
        .is_some_and(|fields| fields.0.pointer("/f:status/f:loadBalancer/f:ingress").is_some())
}

impl Claim {
    fn reduce(service: &slim::Service, config: &Config, role: Role) -> Self {
        let spec = &service.spec;
        let created = service.metadata.creation_timestamp.as_ref();
        let (requested, unreadable) = requested(service);
        Self {
            created: created.map_or(i64::MAX, |time| time.0.as_second()),
            role,
            labels: selectable_labels(service),
            requested,
            unreadable,
            families: families(spec, config),
            sharing_key: annotation(service, &SHARING_KEY).filter(|key| !key.is_empty()).map(str::to_owned),
            shares_with: annotation(service, &CROSS_NAMESPACE)
                .into_iter()
                .flat_map(|list| list.split(',').map(str::to_owned))
                .collect(),
            ports: spec.ports.iter().map(port).collect(),
            is_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            pods: spec.selector.clone().unwrap_or_default(),
        }
    }

    /// Whether the same Services can have an address together with this one as with the other.
    pub(crate) fn shares_as(&self, other: &Self) -> bool {
        (self.role, self.is_local) == (other.role, other.is_local)
            && self.sharing_key == other.sharing_key
            && self.shares_with == other.shares_with
            && self.ports == other.ports
            && self.pods == other.pods
    }

    /// It asks for addresses, and takes no others.
    pub(crate) fn is_picky(&self) -> bool {
        !self.requested.is_empty() || self.unreadable.is_some()
    }

    /// Whether an address is one that the Service asks for, as far as that can be read.
    pub(crate) fn wants(&self, address: IpAddr) -> bool {
        if self.unreadable.is_some() {
            return true;
        }
        if self.requested.is_empty() {
            self.families.contains(&Family::of(address))
        } else {
            self.requested.contains(&address)
        }
    }
}

fn port(port: &slim::ServicePort) -> (i32, String) {
    (port.port, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()))
}

/// Addresses, and the first that is none. Between commas, there may be nothing.
fn requested(service: &slim::Service) -> (Vec<IpAddr>, Option<String>) {
    let listed = annotation(service, &ADDRESSES).into_iter().flat_map(|list| list.split(','));
    let texts = service.spec.load_balancer_ip.as_deref().into_iter().chain(listed);
    let (mut found, mut unreadable): (Vec<IpAddr>, _) = (Vec::new(), None);
    for text in texts.map(str::trim).filter(|text| !text.is_empty()) {
        match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if !found.contains(&address) => found.push(address),
            Ok(_) => {}
            Err(_) => drop(unreadable.get_or_insert_with(|| text.chars().take(QUOTED).collect())),
        }
    }
    (found, unreadable)
}

/// Kubernetes API, `ServiceSpec.ipFamilyPolicy`. What is required must be on; what is listed alone was chosen by the API server.
fn families(spec: &slim::ServiceSpec, config: &Config) -> Vec<Family> {
    let enabled = [(Family::V4, config.ipv4), (Family::V6, config.ipv6)];
    let enabled: Vec<Family> =
        enabled.into_iter().filter(|(_, is_on)| *is_on).map(|(family, _)| family).collect();
    let listed = spec.ip_families.iter().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    let listed: Vec<Family> = listed.collect();
    match spec.ip_family_policy.as_deref() {
        Some("RequireDualStack") => enabled,
        Some("PreferDualStack") if listed.is_empty() => enabled,
        Some("PreferDualStack") => enabled.into_iter().filter(|family| listed.contains(family)).collect(),
        _ => listed.into_iter().chain(enabled).take(1).collect(),
    }
}

fn annotation<'a>(service: &'a slim::Service, names: &[&str]) -> Option<&'a str> {
    let annotations = service.metadata.annotations.as_ref()?;
    names.iter().find_map(|name| annotations.get(*name)).map(String::as_str)
}

/// A Service's place in the order of all: by age, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) created: i64,
    pub(crate) name: ServiceName,
}
