//! API objects, reduced to what can change a part. What is malformed is left out here, so that later steps cannot fail.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_api::frontends::FrontendKind;
use cilium_api::parts::{Algorithm, Forwarding};
use cilium_api::slim;
use ipnet::IpNet;

use crate::complaints::complaints;

/// Label by which a Service is handed to another proxy (Kubernetes, "well-known labels").
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Annotation by which a Service says how clients from outside come to its backends (upstream's name).
pub(crate) const ALGORITHM: &str = "service.cilium.io/lb-algorithm";

/// Annotation by which a Service says how backends on other nodes see clients from outside (upstream's name).
pub(crate) const FORWARDING: &str = "service.cilium.io/forwarding-mode";

/// Annotation by which a Service says under which kind of address it is met (upstream's name).
pub(crate) const TYPE: &str = "service.cilium.io/type";

/// Annotation by which a Service says what its source ranges are for: `allow` (so it is without one) or `deny` (upstream's name).
pub(crate) const RANGES_POLICY: &str = "service.cilium.io/src-ranges-policy";

/// Cluster addresses and ports of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frontend {
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Sorted by (port, protocol).
    pub(crate) ports: Vec<FrontendPort>,
    /// Readiness does not matter.
    pub(crate) publish_not_ready: bool,
    /// Addresses of the load balancer that nodes answer for.
    pub(crate) load_balancer: Vec<IpAddr>,
    /// Addresses that the network brings to nodes.
    pub(crate) external: Vec<IpAddr>,
    /// Nodes use their own backends under the cluster addresses.
    pub(crate) local: bool,
    /// Nodes use their own backends for what comes from outside.
    pub(crate) external_local: bool,
    /// 0 is none.
    pub(crate) health_port: u16,
    /// Who may come by way of the load balancer; `None` is everybody.
    pub(crate) source_ranges: Option<Vec<IpNet>>,
    /// Those may not come.
    pub(crate) denies_ranges: bool,
    /// Seconds; 0 is no affinity.
    pub(crate) affinity: u32,
    /// `None` when it does not say, or says nothing that is known.
    pub(crate) algorithm: Option<Algorithm>,
    /// `None` as above.
    pub(crate) forwarding: Option<Forwarding>,
    /// `None` as above.
    pub(crate) only: Option<FrontendKind>,
    /// What cannot be read of it.
    pub(crate) complaints: Box<[String]>,
}

/// Seconds of affinity when the Service does not say (Kubernetes API, `ClientIPConfig`).
const AFFINITY: u32 = 10_800;

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrontendPort {
    pub(crate) port: Port,
    /// Where every node answers for it; 0 is nowhere.
    pub(crate) node_port: u16,
}

/// A port of a Service or of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty when it has none.
    pub(crate) name: String,
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// Backends that one EndpointSlice names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A backend on any port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) readiness: Readiness,
    /// Empty when nobody says.
    pub(crate) node: String,
    /// Sorted, as is the next.
    pub(crate) for_nodes: Vec<String>,
    pub(crate) for_zones: Vec<String>,
}

/// Whether a backend takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// On its way out, and still answering: for when nothing else is left.
    LastResort,
    NotReady,
}

impl Frontend {
    /// `None`: the Service has no cluster address, or is another proxy's.
    pub(crate) fn reduce(service: &slim::Service) -> Option<Self> {
        let spec = &service.spec;
        let labels = service.metadata.labels.as_ref();
        let elsewhere = labels.and_then(|l| l.get(OTHER_PROXY)).is_some_and(|proxy| !proxy.is_empty());
        if elsewhere || spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        // A headless Service has the single address "None", which parses as no address.
        let cluster_ips: Vec<IpAddr> = spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if cluster_ips.is_empty() {
            return None;
        }
        let external = usable(spec.external_ips.iter(), &cluster_ips);
        let external_local = external_local(spec, &external);
        Some(Self {
            ports: ports(spec),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            load_balancer: load_balancer(service, &cluster_ips),
            external,
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_port: health_port(spec),
            source_ranges: source_ranges(spec),
            denies_ranges: annotation(service, RANGES_POLICY) == Some("deny"),
            affinity: affinity(spec),
            algorithm: algorithm(service),
            forwarding: forwarding(service),
            only: only(service),
            complaints: complaints(service),
            cluster_ips,
        })
    }

    /// Nodes are told apart by where backends are.
    pub(crate) fn goes_by_node(&self) -> bool {
        self.local || self.external_local
    }
}

fn is_load_balancer(spec: &slim::ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

/// Every Service for a load balancer is one for ports of nodes, too (Kubernetes API, `ServiceSpec.type`).
fn has_node_ports(spec: &slim::ServiceSpec) -> bool {
    is_load_balancer(spec) || spec.type_.as_deref() == Some("NodePort")
}

/// Sorted by (port, protocol).
fn ports(spec: &slim::ServiceSpec) -> Vec<FrontendPort> {
    let reduce = |p: &slim::ServicePort| {
        let port = Port::reduce(p.name.as_deref(), p.protocol.as_deref(), Some(p.port))?;
        let node_port = p.node_port.filter(|_| has_node_ports(spec)).and_then(port_number);
        Some(FrontendPort { port, node_port: node_port.unwrap_or(0) })
    };
    let mut ports: Vec<FrontendPort> = spec.ports.iter().filter_map(reduce).collect();
    ports.sort_by_key(|p| (p.port.port, p.port.protocol));
    ports
}

/// Addresses of families that the Service has, sorted and without duplicates. An unspecified address is none: it stands for the
/// addresses of nodes.
fn usable<'a>(texts: impl Iterator<Item = &'a String>, cluster_ips: &[IpAddr]) -> Vec<IpAddr> {
    let has_family = |ip: &IpAddr| cluster_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
    let parsed = texts.filter_map(|text| text.parse::<IpAddr>().ok());
    let found: BTreeSet<IpAddr> = parsed.filter(|ip| has_family(ip) && !ip.is_unspecified()).collect();
    found.into_iter().collect()
}

fn load_balancer(service: &slim::Service, cluster_ips: &[IpAddr]) -> Vec<IpAddr> {
    if !is_load_balancer(&service.spec) {
        return Vec::new();
    }
    let ingress = service.status.load_balancer.ingress.iter();
    let ours = ingress.filter(|it| it.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    usable(ours.filter_map(|it| it.ip.as_ref()), cluster_ips)
}

/// The field may be left over from a time at which the Service was met from outside.
fn external_local(spec: &slim::ServiceSpec, external: &[IpAddr]) -> bool {
    let is_external = has_node_ports(spec) || !external.is_empty();
    is_external && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Only a load balancer asks, and only where nodes differ (Kubernetes API, `ServiceSpec.healthCheckNodePort`).
fn health_port(spec: &slim::ServiceSpec) -> u16 {
    let is_asked = is_load_balancer(spec) && spec.external_traffic_policy.as_deref() == Some("Local");
    spec.health_check_node_port.filter(|_| is_asked).and_then(port_number).unwrap_or(0)
}

/// A range that cannot be read lets nobody in; the Service stays closed to all but the others, also if there are no others.
fn source_ranges(spec: &slim::ServiceSpec) -> Option<Vec<IpNet>> {
    let mut texts = source_range_texts(spec).peekable();
    texts.peek()?;
    let ranges = texts.filter_map(|text| text.parse::<IpNet>().ok());
    let ranges: BTreeSet<IpNet> = ranges.map(|range| range.trunc()).collect();
    Some(ranges.into_iter().collect())
}

/// Only a load balancer has any.
pub(crate) fn source_range_texts(spec: &slim::ServiceSpec) -> impl Iterator<Item = &str> {
    let texts = if is_load_balancer(spec) { &spec.load_balancer_source_ranges[..] } else { &[] };
    texts.iter().map(|text| text.trim())
}

/// Seconds; 0 is no affinity.
fn affinity(spec: &slim::ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(AFFINITY)
}

pub(crate) fn annotation<'a>(service: &'a slim::Service, name: &str) -> Option<&'a str> {
    Some(service.metadata.annotations.as_ref()?.get(name)?.as_str())
}

fn algorithm(service: &slim::Service) -> Option<Algorithm> {
    match annotation(service, ALGORITHM)? {
        "random" => Some(Algorithm::Random),
        "maglev" => Some(Algorithm::Maglev),
        _ => None,
    }
}

fn forwarding(service: &slim::Service) -> Option<Forwarding> {
    match annotation(service, FORWARDING)? {
        "snat" => Some(Forwarding::Snat),
        "dsr" => Some(Forwarding::Dsr),
        _ => None,
    }
}

fn only(service: &slim::Service) -> Option<FrontendKind> {
    match annotation(service, TYPE)? {
        "ClusterIP" => Some(FrontendKind::ClusterIp),
        "NodePort" => Some(FrontendKind::NodePort),
        "LoadBalancer" => Some(FrontendKind::LoadBalancer),
        _ => None,
    }
}

/// `None` for 0, which stands for no port.
fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

impl Endpoint {
    fn reduce(endpoint: &slim::Endpoint) -> Option<Self> {
        let names = |hints: &[slim::Hint]| {
            let sorted: BTreeSet<&String> = hints.iter().map(|hint| &hint.name).collect();
            sorted.into_iter().cloned().collect()
        };
        Some(Self {
            // Addresses of one entry stand for the same backend: the first is enough.
            address: endpoint.addresses.first()?.parse().ok()?,
            readiness: Readiness::reduce(&endpoint.conditions),
            node: endpoint.node_name.clone().unwrap_or_default(),
            for_nodes: names(&endpoint.hints.for_nodes),
            for_zones: names(&endpoint.hints.for_zones),
        })
    }
}

impl Port {
    fn reduce(name: Option<&str>, protocol: Option<&str>, port: Option<i32>) -> Option<Self> {
        let protocol = match protocol.unwrap_or("TCP") {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => return None,
        };
        let port = port_number(port?)?;
        Some(Self { name: name.unwrap_or_default().to_owned(), protocol, port })
    }
}

impl Slice {
    /// `None`: the slice names no addresses, but for example host names.
    pub(crate) fn reduce(slice: &slim::EndpointSlice) -> Option<Self> {
        let ipv4 = match slice.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            _ => return None,
        };
        let ports = slice
            .ports
            .iter()
            .filter_map(|p| Port::reduce(p.name.as_deref(), p.protocol.as_deref(), p.port))
            .collect();
        let endpoints = slice.endpoints.iter().filter_map(Endpoint::reduce);
        let endpoints = endpoints.filter(|endpoint| endpoint.address.is_ipv4() == ipv4).collect();
        Some(Self { ports, endpoints })
    }
}

impl Readiness {
    fn reduce(conditions: &slim::EndpointConditions) -> Self {
        let terminating = conditions.terminating.unwrap_or(false);
        if conditions.ready.unwrap_or(true) {
            Self::Ready
        } else if terminating && conditions.serving.unwrap_or(true) {
            Self::LastResort
        } else {
            Self::NotReady
        }
    }
}
