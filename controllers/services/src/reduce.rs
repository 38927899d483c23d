//! API objects, reduced to what can change a part. What is malformed is left out here, so that later steps cannot fail.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cilium_api::slim;

/// Label by which a Service is handed to another proxy (Kubernetes, "well-known labels").
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Cluster addresses and ports of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frontend {
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Sorted by (port, protocol).
    pub(crate) ports: Vec<Port>,
    /// Readiness does not matter.
    pub(crate) publish_not_ready: bool,
    /// Addresses of the load balancer that nodes answer for.
    pub(crate) load_balancer: Vec<IpAddr>,
    /// Nodes use their own backends under the cluster addresses.
    pub(crate) local: bool,
    /// Seconds; 0 is no affinity.
    pub(crate) affinity: u32,
}

/// Seconds of affinity when the Service does not say (Kubernetes API, `ClientIPConfig`).
const AFFINITY: u32 = 10_800;

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
        let mut ports: Vec<Port> = spec
            .ports
            .iter()
            .filter_map(|p| Port::reduce(p.name.as_deref(), p.protocol.as_deref(), Some(p.port)))
            .collect();
        ports.sort_by_key(|p| (p.port, p.protocol));
        let has_affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let seconds = spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(AFFINITY);
        Some(Self {
            cluster_ips,
            ports,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            load_balancer: load_balancer(service),
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            affinity: if has_affinity { seconds } else { 0 },
        })
    }
}

/// Sorted, without duplicates.
fn load_balancer(service: &slim::Service) -> Vec<IpAddr> {
    if service.spec.type_.as_deref() != Some("LoadBalancer") {
        return Vec::new();
    }
    let ingress = service.status.load_balancer.ingress.iter();
    let ours = ingress.filter(|it| it.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    let addresses: BTreeSet<IpAddr> = ours.filter_map(|it| it.ip.as_ref()?.parse().ok()).collect();
    addresses.into_iter().collect()
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
        let port = u16::try_from(port?).ok().filter(|port| *port != 0)?;
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
