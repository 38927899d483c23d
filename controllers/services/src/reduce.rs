//! API objects, reduced to what can change a part. What is malformed is left out here, so that later steps cannot fail.

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
    pub(crate) endpoints: Vec<(IpAddr, Readiness)>,
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
        let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
        Some(Self { cluster_ips, ports, publish_not_ready })
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
        let endpoints = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| {
                // Addresses of one entry stand for the same backend: the first is enough.
                let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
                (address.is_ipv4() == ipv4).then(|| (address, Readiness::reduce(&endpoint.conditions)))
            })
            .collect();
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
