//! Services as nodes have them.

use std::net::IpAddr;

use cilium_api::frontends::{Frontend, FrontendKind, Here, Scope};
use cilium_api::parts::{Backend, BackendPlace, Service, ServicePort};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("addresses of tests are well-formed")
}

fn mk_here() -> Here {
    Here { node: "n1".to_owned(), zone: "a".to_owned(), ..Here::default() }
}

fn mk_backend(address: &str, node: &str, leaving: bool, zones: &[&str]) -> Backend {
    let for_zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
    let place = BackendPlace { node: node.to_owned(), leaving, for_zones, ..BackendPlace::default() };
    Backend { address: ip(address), port: 8080, place: Some(Box::new(place)) }
}

/// Backends 1 and 2 are here and in this zone, 3 is elsewhere and in another one.
fn mk_backends() -> Vec<Backend> {
    vec![
        mk_backend("10.0.0.1", "n1", false, &["a"]),
        mk_backend("10.0.0.2", "n1", true, &[]),
        mk_backend("10.0.0.3", "n2", false, &["b"]),
        mk_backend("fd00::1", "n1", false, &["a"]),
        mk_backend("fd00::3", "n2", false, &["b"]),
    ]
}

/// Met under addresses of every kind.
fn mk_service(backends: Vec<Backend>) -> Service {
    let port = ServicePort { name: "http".to_owned(), protocol: 6, port: 80, node_port: 30080, backends };
    Service {
        cluster_ips: vec![ip("10.96.0.9"), ip("fd96::9")],
        load_balancer: vec![ip("192.0.2.80")],
        external: vec![ip("192.0.2.81"), ip("2001:db8::81")],
        ports: vec![port],
        ..Service::default()
    }
}

/// Scope, address and port.
fn place(frontend: &Frontend<'_>) -> String {
    let address = std::net::SocketAddr::new(frontend.address, frontend.port);
    format!("{:?} {:?} {address}", frontend.kind, frontend.scope)
}

/// Last numbers of the backends of IPv4 for a kind and scope, and whether they are all that the node ever uses.
fn seen(service: &Service, kind: FrontendKind, scope: Scope) -> (Vec<u8>, bool) {
    let here = mk_here();
    let is_asked = |it: &Frontend<'_>| it.kind == kind && it.scope == scope && it.address.is_ipv4();
    let found: Vec<_> = service.frontends(&here).filter(is_asked).collect();
    let [frontend] = found.as_slice() else { panic!("{found:?}") };
    let last = |backend: &&Backend| match backend.address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => panic!("{address} under {}", frontend.address),
    };
    (frontend.backends.iter().map(last).collect(), frontend.only_own)
}

const OUTSIDE: [FrontendKind; 3] =
    [FrontendKind::NodePort, FrontendKind::LoadBalancer, FrontendKind::ExternalIp];

#[test]
fn every_kind_of_address_is_for_its_scopes() {
    let service = mk_service(mk_backends());
    let here = mk_here();
    let all: Vec<String> = service.frontends(&here).map(|frontend| place(&frontend)).collect();
    assert_eq!(
        all,
        [
            "ClusterIp Internal 10.96.0.9:80",
            "ClusterIp Internal [fd96::9]:80",
            "NodePort Internal 0.0.0.0:30080",
            "NodePort External 0.0.0.0:30080",
            "NodePort Internal [::]:30080",
            "NodePort External [::]:30080",
            "LoadBalancer Internal 192.0.2.80:80",
            "LoadBalancer External 192.0.2.80:80",
            "ExternalIp External 192.0.2.81:80",
            "ExternalIp External [2001:db8::81]:80",
        ]
    );
    for frontend in service.frontends(&here) {
        assert_eq!((frontend.service_port.name.as_str(), frontend.service_port.protocol), ("http", 6));
        let of_family = |it: &&Backend| it.address.is_ipv4() == frontend.address.is_ipv4();
        assert!(!frontend.backends.is_empty() && frontend.backends.iter().all(of_family));
    }
}

#[test]
fn a_service_may_be_met_under_one_kind_of_address_only() {
    let here = mk_here();
    for (only, expected) in [
        (
            FrontendKind::ClusterIp,
            ["ClusterIp Internal 10.96.0.9:80", "ClusterIp Internal [fd96::9]:80"].as_slice(),
        ),
        (
            FrontendKind::LoadBalancer,
            &["LoadBalancer Internal 192.0.2.80:80", "LoadBalancer External 192.0.2.80:80"],
        ),
    ] {
        let service = Service { only: Some(only), ..mk_service(mk_backends()) };
        let all: Vec<String> = service.frontends(&here).map(|frontend| place(&frontend)).collect();
        let external = ["ExternalIp External 192.0.2.81:80", "ExternalIp External [2001:db8::81]:80"];
        assert_eq!(all, [expected, &external].concat());
    }
}

#[test]
fn an_external_address_of_the_node_itself_is_for_both_scopes() {
    let service = mk_service(mk_backends());
    let here = Here { addresses: vec![ip("192.0.2.81")], ..mk_here() };
    let external = service.frontends(&here).filter(|frontend| frontend.kind == FrontendKind::ExternalIp);
    let all: Vec<String> = external.map(|frontend| place(&frontend)).collect();
    assert_eq!(
        all,
        [
            "ExternalIp Internal 192.0.2.81:80",
            "ExternalIp External 192.0.2.81:80",
            "ExternalIp External [2001:db8::81]:80",
        ]
    );
}

#[test]
fn ports_of_nodes_are_of_families_that_the_service_has_and_of_ports_that_have_one() {
    let mut service = mk_service(Vec::new());
    service.cluster_ips.remove(0);
    service.external.clear();
    service.load_balancer.clear();
    let inside = ServicePort { port: 81, node_port: 0, ..service.ports[0].clone() };
    service.ports.push(inside);
    let here = mk_here();
    let all: Vec<String> = service.frontends(&here).map(|frontend| place(&frontend)).collect();
    assert_eq!(
        all,
        [
            "ClusterIp Internal [fd96::9]:80",
            "ClusterIp Internal [fd96::9]:81",
            "NodePort Internal [::]:30080",
            "NodePort External [::]:30080",
        ]
    );
}

#[test]
fn an_external_address_that_the_load_balancer_has_is_the_load_balancers() {
    let mut service = mk_service(Vec::new());
    service.external = vec![ip("192.0.2.80")];
    let here = mk_here();
    let kinds: Vec<_> = service.frontends(&here).filter(|it| it.address == ip("192.0.2.80")).collect();
    assert_eq!(kinds.len(), 2);
    assert!(kinds.iter().all(|it| it.kind == FrontendKind::LoadBalancer));
}

#[test]
fn without_policies_hints_count_everywhere() {
    let service = mk_service(mk_backends());
    assert_eq!(seen(&service, FrontendKind::ClusterIp, Scope::Internal), (vec![1], false));
    assert_eq!(seen(&service, FrontendKind::NodePort, Scope::Internal), (vec![1], false));
    assert_eq!(seen(&service, FrontendKind::LoadBalancer, Scope::Internal), (vec![1], false));
    for kind in OUTSIDE {
        assert_eq!(seen(&service, kind, Scope::External), (vec![1], false), "{kind:?}");
    }
}

#[test]
fn the_external_policy_is_about_what_comes_from_outside() {
    let mut service = mk_service(mk_backends());
    service.external_local = true;
    // No hints: all that are healthy, where nodes use all.
    service.ports[0].backends[0] = mk_backend("10.0.0.1", "n1", false, &[]);
    let mut expect = |own: &[u8], all: &[u8], change: &dyn Fn(&mut Vec<Backend>)| {
        change(&mut service.ports[0].backends);
        for kind in OUTSIDE {
            assert_eq!(seen(&service, kind, Scope::External), (own.to_vec(), true), "{kind:?}");
        }
        for kind in [FrontendKind::ClusterIp, FrontendKind::NodePort, FrontendKind::LoadBalancer] {
            assert_eq!(seen(&service, kind, Scope::Internal), (all.to_vec(), false), "{kind:?}");
        }
    };
    expect(&[1], &[1, 3], &|_| {});
    expect(&[2], &[3], &|backends| drop(backends.remove(0)));
    expect(&[], &[3], &|backends| drop(backends.remove(0)));
    expect(&[], &[], &|backends| drop(backends.remove(0)));
}

#[test]
fn the_internal_policy_is_about_cluster_addresses() {
    let service = Service { local: true, ..mk_service(mk_backends()) };
    assert_eq!(seen(&service, FrontendKind::ClusterIp, Scope::Internal), (vec![1], true));
    for kind in [FrontendKind::NodePort, FrontendKind::LoadBalancer] {
        assert_eq!(seen(&service, kind, Scope::Internal), (vec![1], false), "by its hint: {kind:?}");
    }
    let elsewhere = Here { node: "n3".to_owned(), zone: "b".to_owned(), ..Here::default() };
    for frontend in service.frontends(&elsewhere) {
        let is_own = frontend.kind == FrontendKind::ClusterIp;
        let expected = usize::from(!is_own);
        assert_eq!((frontend.only_own, frontend.backends.len()), (is_own, expected), "{frontend:?}");
    }
}

#[test]
fn a_node_without_a_name_has_no_backends_of_its_own() {
    let nowhere = Backend::from((ip("10.0.0.1"), 8080));
    let service = Service { external_local: true, local: true, ..mk_service(vec![nowhere]) };
    let here = Here::default();
    let mut own = service.frontends(&here).filter(|frontend| frontend.only_own);
    assert!(own.all(|frontend| frontend.backends.is_empty()));
}
