//! Services as `cilium-dbg` lists them.

use std::net::IpAddr;

use cilium_api::frontends::{Frontend, FrontendKind, Scope};
use cilium_api::parts::{Part, PartKey};
use cilium_bpf::layout::{BackendEntry, ServiceKey};
use cilium_rest::model;

use super::Brain;
use crate::describe;

impl Brain {
    /// One entry for each address and port of a Service, a redirect or a `hostPort`, or two where it matters who comes. What belongs to
    /// another one is not there as the Service's.
    pub(crate) fn services(&self) -> Vec<model::Service> {
        let mut list = Vec::new();
        let Some(running) = &self.running else { return list };
        for (key, part) in self.state.iter() {
            let Part::Service(service) = part else { continue };
            let (namespace, name) = key.0.trim_start_matches("service/").split_once('/').unwrap_or_default();
            let specs = service_specs(running.dataplane.frontends(key, service), namespace, name);
            list.extend(specs.into_iter().map(|spec| model::Service { spec }));
        }
        let mut others = self.redirected_services();
        others.extend(running.dataplane.host_ports().filter_map(host_port_spec));
        others.sort_by_key(|spec| {
            (spec.namespace.clone(), spec.name.clone(), spec.frontend_address.to_string())
        });
        list.extend(others.into_iter().map(|spec| model::Service { spec }));
        for (number, service) in (1..).zip(&mut list) {
            service.spec.id = number;
        }
        list
    }
}

/// Entries of one Service, still without numbers. Both scopes of an address and port are one entry when they lead to the same backends.
fn service_specs<'a>(
    frontends: impl Iterator<Item = Frontend<'a>>,
    namespace: &str,
    name: &str,
) -> Vec<model::ServiceSpec> {
    let mut frontends = frontends.peekable();
    let mut specs = Vec::new();
    while let Some(frontend) = frontends.next() {
        let is_twin =
            |next: &&Frontend<'_>| frontend.scope == Scope::Internal && is_same_place(next, &frontend);
        let twin = frontends.peek().filter(is_twin).map(|twin| twin.backends == frontend.backends);
        let mut spec = service_spec(&frontend, namespace, name);
        match twin {
            Some(true) => drop(frontends.next()),
            Some(false) => model::SCOPE_INTERNAL.clone_into(&mut spec.frontend_address.scope),
            None => {}
        }
        specs.push(spec);
    }
    specs
}

fn is_same_place(one: &Frontend<'_>, other: &Frontend<'_>) -> bool {
    let place = |it: &Frontend<'_>| (it.kind, it.address, it.port, it.service_port.protocol);
    place(one) == place(other)
}

fn service_spec(frontend: &Frontend<'_>, namespace: &str, name: &str) -> model::ServiceSpec {
    let protocol = describe::protocol(frontend.service_port.protocol);
    let backends = frontend.backends.iter().map(|it| mk_address(it.address, it.port, &protocol));
    model::ServiceSpec {
        id: 0,
        frontend_address: mk_address(frontend.address, frontend.port, &protocol),
        backend_addresses: backends.collect(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        r#type: service_type(frontend.kind).to_owned(),
    }
}

/// With the name of the pod.
fn host_port_spec((part, at, backend): (&PartKey, &ServiceKey, &BackendEntry)) -> Option<model::ServiceSpec> {
    let (namespace, pod) = part.0.strip_prefix("endpoint/")?.split_once('/')?;
    let protocol = describe::protocol(at.protocol);
    Some(model::ServiceSpec {
        id: 0,
        frontend_address: mk_address(at.address.ip()?, at.port.0, &protocol),
        backend_addresses: vec![mk_address(backend.address.ip()?, backend.port.0, &protocol)],
        namespace: namespace.to_owned(),
        name: format!("{pod}:host-port"),
        r#type: "HostPort".to_owned(),
    })
}

/// As upstream writes them in lists.
fn service_type(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::ExternalIp => "ExternalIPs",
    }
}

pub(super) fn mk_address(ip: IpAddr, port: u16, protocol: &str) -> model::ServiceAddress {
    model::ServiceAddress { ip: ip.to_string(), port, protocol: protocol.to_owned(), scope: String::new() }
}

#[cfg(test)]
mod tests {
    use cilium_api::frontends::Here;
    use cilium_api::parts::{Backend, BackendPlace, Service, ServicePort};

    use super::*;

    fn mk_backend(address: &str, node: &str) -> Backend {
        let place = BackendPlace { node: node.to_owned(), ..BackendPlace::default() };
        Backend { address: address.parse().unwrap(), port: 8080, place: Some(Box::new(place)) }
    }

    fn mk_service() -> Service {
        let backends = vec![mk_backend("10.0.0.1", "n1"), mk_backend("10.0.0.2", "n2")];
        let port = ServicePort { name: String::new(), protocol: 132, port: 80, node_port: 30080, backends };
        let ip = |text: &str| text.parse().unwrap();
        Service {
            cluster_ips: vec![ip("10.96.0.9"), ip("fd96::9")],
            load_balancer: vec![ip("192.0.2.80")],
            external: vec![ip("192.0.2.81")],
            ports: vec![port],
            ..Service::default()
        }
    }

    /// Type, frontend and number of backends.
    fn shown(service: &Service) -> Vec<String> {
        let here = Here { node: "n1".to_owned(), ..Here::default() };
        let specs = service_specs(service.frontends(&here), "shop", "web");
        let line = |spec: model::ServiceSpec| {
            format!("{} {} {}", spec.r#type, spec.frontend_address, spec.backend_addresses.len())
        };
        specs.into_iter().map(line).collect()
    }

    #[test]
    fn scopes_with_the_same_backends_are_one_line() {
        let expected = [
            "ClusterIP 10.96.0.9:80/SCTP 2",
            "ClusterIP [fd96::9]:80/SCTP 0",
            "NodePort 0.0.0.0:30080/SCTP 2",
            "NodePort [::]:30080/SCTP 0",
            "LoadBalancer 192.0.2.80:80/SCTP 2",
            "ExternalIPs 192.0.2.81:80/SCTP 2",
        ];
        assert_eq!(shown(&mk_service()), expected);
    }

    #[test]
    fn scopes_with_other_backends_are_two_lines() {
        let service = Service { external_local: true, ..mk_service() };
        let expected = [
            "ClusterIP 10.96.0.9:80/SCTP 2",
            "ClusterIP [fd96::9]:80/SCTP 0",
            "NodePort 0.0.0.0:30080/SCTP/i 2",
            "NodePort 0.0.0.0:30080/SCTP 1",
            "NodePort [::]:30080/SCTP 0",
            "LoadBalancer 192.0.2.80:80/SCTP/i 2",
            "LoadBalancer 192.0.2.80:80/SCTP 1",
            "ExternalIPs 192.0.2.81:80/SCTP 1",
        ];
        assert_eq!(shown(&service), expected);
    }
}
