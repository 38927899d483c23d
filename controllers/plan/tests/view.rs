//! Who is who, and why a flow passes or not.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use std::net::IpAddr;

use cilium_plan::{Config, End, Explained};
use cilium_policy::{Decision, PolicyKey};
use common::*;
use serde_json::json;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server on node `a`, which runs the API server, and a client on node `b`.
fn mk_world() -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_service("default", "kubernetes", "10.96.0.1", 443));
    world.apply(mk_endpoint_slice("default", "kubernetes", &["192.168.0.1"], 6443));
    world.apply(running(mk_pod("default", "server", "a", &["app=server"]), &["10.1.0.10"]));
    world.apply(mk_pod("default", "client", "b", &["app=client"]));
    world.settle();
    world
}

#[test]
fn addresses_are_pods_nodes_or_outside() {
    let mut world = mk_world();
    let server = world.planner.pod("default", "server").unwrap();
    assert_eq!(world.planner.address(ip("10.1.0.10")).by_any_address(), server);
    assert_eq!(world.planner.pod("default", "nobody"), None);
    let node = world.planner.address(ip("192.168.0.1"));
    let address = Some(ip("192.168.0.1"));
    assert_eq!(node, End::Node { name: "a".to_owned(), api_server: true, identity: None, address });
    // The one that it has among its pods, by which its own processes come to other nodes' pods.
    assert_eq!(world.planner.address(ip("10.1.0.1")).by_any_address(), node.clone().by_any_address());
    assert_eq!([Some("a"), Some("b"), None].map(|judge| node.identity_on(judge)), [1, 7, 7]);
    assert_eq!(world.planner.address(ip("192.168.0.2")).identity_on(Some("a")), 6);
    assert_eq!(world.planner.address(ip("192.0.2.1")).identity_on(None), 9);
    let spec = json!({"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24", "192.0.0.0/16"]}]});
    world.apply(mk_cnp("default", "out", 1, spec));
    world.settle();
    let narrow = world.planner.address(ip("192.0.2.1")).identity_on(None);
    let wide = world.planner.address(ip("192.0.3.1")).identity_on(None);
    assert!(narrow >= 1 << 24 && wide >= 1 << 24 && narrow != wide);
    assert_eq!(world.planner.labels(narrow).unwrap().to_strings()[0], "cidr:192.0.2.0/24");
    assert_eq!(
        world.planner.backends(&node, ("default", "kubernetes"), None, 6, 443),
        Some(vec![(ip("192.168.0.1"), 6443)])
    );
    assert_eq!(world.planner.backends(&node, ("default", "nobody"), None, 6, 443), None);
    let service = world.planner.service_at(ip("10.96.0.1"));
    assert_eq!(service, Some(("default".to_owned(), "kubernetes".to_owned())));
    assert_eq!(world.planner.service_at(ip("192.0.2.1")), None);
}

#[test]
fn a_service_has_the_backends_that_the_senders_node_uses() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    for (name, number) in [("a", 1), ("b", 2)] {
        world.apply(mk_node(name, number));
        world.apply(mk_pod("default", &format!("pod-{name}"), name, &["app=web"]));
    }
    let mut service = mk_service("default", "web", "10.96.0.7", 80);
    let mut slice = mk_endpoint_slice("default", "web", &["10.1.0.10", "10.2.0.10"], 8080);
    for (endpoint, node) in slice.endpoints.iter_mut().zip(["a", "b"]) {
        endpoint.node_name = Some(node.to_owned());
    }
    world.apply(service.clone());
    world.apply(slice);
    world.settle();
    let asked = |world: &World, pod: &str, at: Option<&str>, port: u16| {
        let from = world.planner.pod("default", pod).unwrap();
        world.planner.backends(&from, ("default", "web"), at.map(ip), 6, port).unwrap()
    };
    let seen = |world: &World, pod: &str| asked(world, pod, None, 80);
    let is_local = |world: &World, at: Option<&str>| world.planner.is_local("default", "web", at.map(ip));
    let both = vec![(ip("10.1.0.10"), 8080), (ip("10.2.0.10"), 8080)];
    assert_eq!((seen(&world, "pod-a"), is_local(&world, None)), (both.clone(), false));
    service.spec.internal_traffic_policy = Some("Local".to_owned());
    service.spec.type_ = Some("LoadBalancer".to_owned());
    service.spec.external_ips = vec!["192.0.2.81".to_owned()];
    service.spec.ports[0].node_port = Some(30080);
    service.status = mk(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.80"}]}}));
    world.apply(service);
    world.settle();
    assert_eq!(seen(&world, "pod-a"), [(ip("10.1.0.10"), 8080)]);
    assert_eq!(seen(&world, "pod-b"), [(ip("10.2.0.10"), 8080)]);
    assert_eq!(asked(&world, "pod-b", Some("10.96.0.7"), 80), [(ip("10.2.0.10"), 8080)]);
    assert!(is_local(&world, None) && is_local(&world, Some("10.96.0.7")));
    // The load balancer's address leads everywhere, and only to its own port.
    let at = Some("192.0.2.80");
    assert_eq!((asked(&world, "pod-b", at, 80), is_local(&world, at)), (both, false));
    assert_eq!(asked(&world, "pod-b", at, 30080), []);
    assert_eq!(asked(&world, "pod-b", None, 30080), []);
    // From within the cluster, an external address is what the network takes it for.
    assert_eq!(world.planner.service_at(ip("192.0.2.81")), None);
}

#[test]
fn both_sides_are_asked_where_they_are() {
    let mut world = mk_world();
    let server = json!({"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"fromEntities": ["kube-apiserver"]}]});
    world.apply(mk_cnp("default", "in", 1, server));
    world.settle();
    let (client, server) =
        (world.planner.pod("default", "client").unwrap(), world.planner.pod("default", "server").unwrap());
    let Explained { egress, ingress } = world.planner.explain(&client, &server, 6, 80);
    assert_eq!(egress, Some(Decision::NotEnforced));
    let Some(Decision::DefaultDeny(reason)) = ingress else { panic!("{ingress:?}") };
    assert_eq!(reason.closed_by, [PolicyKey::cnp("default", "in")]);
    // The node of the server is an API server's: the entity means it, on the node itself as elsewhere.
    let node = world.planner.address(ip("192.168.0.1"));
    let Explained { egress, ingress } = world.planner.explain(&node, &server, 6, 80);
    assert_eq!(egress, None);
    assert!(matches!(ingress, Some(Decision::Granted(_))), "{ingress:?}");
    let other = world.planner.address(ip("192.168.0.2"));
    assert!(matches!(world.planner.explain(&other, &server, 6, 80).ingress, Some(Decision::DefaultDeny(_))));
}

#[test]
fn an_address_is_asked_about_in_its_own_family() {
    let mut world = mk_world();
    let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]});
    world.apply(mk_netpol("default", "in", 1, spec));
    world.apply(mk_pod("default", "dual", "a", &["app=server"]));
    world.settle();
    let ends = ["client", "dual"].map(|pod| {
        let place = if pod == "client" { "b" } else { "a" };
        world.addresses(place, "default", pod).into_iter().map(|text| ip(&text)).collect::<Vec<_>>()
    });
    let mut judged = 0;
    for address in &ends[1] {
        let client = ends[0].iter().find(|own| own.is_ipv4() == address.is_ipv4()).unwrap();
        let (from, to) = (world.planner.address(*client), world.planner.address(*address));
        let granted = matches!(world.planner.explain(&from, &to, 6, 80).ingress, Some(Decision::Granted(_)));
        assert_eq!(granted, address.is_ipv4(), "{client} to {address}");
        judged += 1;
    }
    assert_eq!(judged, 2);
}

#[test]
fn what_lies_in_a_prefix_has_the_identity_of_the_narrowest_around() {
    let mut world = mk_world();
    let spec = json!({"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24"]}]});
    world.apply(mk_cnp("default", "out", 1, spec));
    world.settle();
    let access = world.planner.access();
    let of = |text: &str| access.identity_of(&text.parse().unwrap()).unwrap();
    assert_eq!(of("192.0.2.128/25"), of("192.0.2.0/24"));
    assert_eq!((of("192.0.0.0/16"), of("2001:db8::/32")), (9, 10));
    assert_eq!(access.policies.len(), 2);
}
