//! Services and slices in, parts out.
#![expect(clippy::needless_pass_by_value, reason = "builders take json!(…) as it is written")]

use std::collections::BTreeSet;

use cilium_api::parts;
use cilium_api::slim::{EndpointSlice, Service};
use cilium_services::{ServiceName, Services};
use proptest::prelude::*;
use serde_json::{Value, json};

fn mk_service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec}))
        .expect("services of tests are well-formed")
}

fn mk_slice(name: &str, family: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    }))
    .expect("slices of tests are well-formed")
}

fn mk_services(service: &Service, slices: &[EndpointSlice]) -> Services {
    let mut services = Services::default();
    services.set_service(service);
    slices.iter().for_each(|slice| services.set_slice(slice));
    services
}

fn web() -> ServiceName {
    ServiceName::new("shop", "web")
}

/// Backends of every port as `port: address:port …`.
fn shown(part: &parts::Service) -> Vec<String> {
    let backends = |port: &parts::ServicePort| {
        let all: Vec<_> = port.backends.iter().map(|b| format!("{}:{}", b.address, b.port)).collect();
        all.join(" ")
    };
    part.ports.iter().map(|p| format!("{}/{}: {}", p.port, p.protocol, backends(p))).collect()
}

fn one_port() -> Value {
    json!([{"port": 80}])
}

fn up(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}})
}

#[test]
fn ports_match_by_name_and_protocol_and_backends_come_from_all_slices() {
    let service = mk_service(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.9", "fd96::9"],
        "ports": [{"name": "dns-tcp", "port": 53}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "admin", "port": 9}],
    }));
    let ports = json!([{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5354}]);
    let slices = [
        mk_slice("a", "IPv4", ports.clone(), json!([up("10.0.0.3"), up("10.0.0.2")])),
        mk_slice("b", "IPv4", ports.clone(), json!([up("10.0.0.3"), up("10.0.0.4")])),
        mk_slice("c", "IPv6", ports, json!([up("fd00::2")])),
    ];
    let part = mk_services(&service, &slices).part(&web()).unwrap();
    assert_eq!(part.cluster_ips.len(), 2);
    assert_eq!(
        shown(&part),
        [
            "9/6: ",
            "53/6: 10.0.0.2:5354 10.0.0.3:5354 10.0.0.4:5354 fd00::2:5354",
            "53/17: 10.0.0.2:5353 10.0.0.3:5353 10.0.0.4:5353 fd00::2:5353",
        ]
    );
}

#[test]
fn a_slice_for_clients_that_choose_themselves_is_none() {
    let mut slice = mk_slice("web-1", "IPv4", json!([{"port": 8080}]), json!([{"addresses": ["10.0.0.1"]}]));
    let service = mk_service(json!({"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}));
    let mut services = mk_services(&service, std::slice::from_ref(&slice));
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: 10.0.0.1:8080"]);
    services.take_changed();
    slice
        .metadata
        .labels
        .get_or_insert_default()
        .insert("service.kubernetes.io/headless".into(), String::new());
    services.set_slice(&slice);
    assert_eq!(services.take_changed(), [web()].into());
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: "]);
}

#[test]
fn a_named_target_port_may_differ_between_slices() {
    let service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]}));
    let slices = [
        mk_slice("a", "IPv4", json!([{"name": "", "port": 8080}]), json!([up("10.0.0.2")])),
        mk_slice("b", "IPv4", json!([{"port": 8081}]), json!([up("10.0.0.3")])),
    ];
    let part = mk_services(&service, &slices).part(&web()).unwrap();
    assert_eq!(shown(&part), ["80/6: 10.0.0.2:8080 10.0.0.3:8081"]);
}

#[test]
fn without_a_ready_backend_serving_ones_on_their_way_out_are_used() {
    let service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    let leaving = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let gone = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false, "terminating": true}});
    let starting = json!({"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}});
    let slice = |endpoints| mk_slice("a", "IPv4", one_port(), endpoints);
    let mut services = mk_services(&service, &[slice(json!([leaving, gone, starting]))]);
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: 10.0.0.2:80"]);
    services.set_slice(&slice(json!([leaving, gone, up("10.0.0.4")])));
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: 10.0.0.4:80"]);
    // One family without a ready backend does not take the other's.
    services.set_slice(&mk_slice(
        "b",
        "IPv6",
        one_port(),
        json!([{"addresses": ["fd00::2"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
    ));
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: 10.0.0.4:80 fd00::2:80"]);
}

#[test]
fn absent_conditions_mean_ready() {
    let service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    let slice = mk_slice("a", "IPv4", one_port(), json!([{"addresses": ["10.0.0.2", "10.0.0.9"]}]));
    assert_eq!(shown(&mk_services(&service, &[slice]).part(&web()).unwrap()), ["80/6: 10.0.0.2:80"]);
}

#[test]
fn published_not_ready_addresses_count_as_ready() {
    let service = mk_service(
        json!({"clusterIPs": ["10.96.0.9"], "ports": one_port(), "publishNotReadyAddresses": true}),
    );
    let starting = json!({"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}});
    let slice = mk_slice("a", "IPv4", one_port(), json!([starting, up("10.0.0.2")]));
    let services = mk_services(&service, &[slice]);
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: 10.0.0.2:80 10.0.0.4:80"]);
}

/// The place of every backend of the first port.
fn places(part: &parts::Service) -> Vec<Value> {
    let place = |backend: &parts::Backend| serde_json::to_value(&backend.place).expect("places are data");
    part.ports[0].backends.iter().map(place).collect()
}

#[test]
fn hints_travel_with_ready_backends() {
    let service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    let with = |conditions: Value| {
        let hints = json!({"forZones": [{"name": "b"}, {"name": "a"}], "forNodes": [{"name": "n1"}]});
        let endpoint =
            json!({"addresses": ["10.0.0.2"], "nodeName": "n1", "conditions": conditions, "hints": hints});
        let slice = mk_slice("a", "IPv4", one_port(), json!([endpoint, up("10.0.0.3")]));
        places(&mk_services(&service, &[slice]).part(&web()).unwrap())
    };
    assert_eq!(with(json!({})), [json!({"forNodes": ["n1"], "forZones": ["a", "b"]}), json!(null)]);
    assert_eq!(with(json!({"ready": false})), [json!(null)], "and no more than the one without hints");
}

#[test]
fn a_local_service_says_where_its_backends_are() {
    let service = mk_service(
        json!({"clusterIPs": ["10.96.0.9"], "ports": one_port(), "internalTrafficPolicy": "Local"}),
    );
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let slice = mk_slice(
        "a",
        "IPv4",
        one_port(),
        json!([
            {"addresses": ["10.0.0.2"], "nodeName": "n1"},
            {"addresses": ["10.0.0.3"], "nodeName": "n2", "conditions": leaving},
            {"addresses": ["10.0.0.4"], "nodeName": "n2", "conditions": {"ready": false}},
        ]),
    );
    let part = mk_services(&service, &[slice]).part(&web()).unwrap();
    assert!(part.local);
    assert_eq!(places(&part), [json!({"node": "n1"}), json!({"node": "n2", "leaving": true})]);
}

#[test]
fn affinity_and_addresses_of_the_load_balancer_are_part_of_a_service() {
    let mut service = mk_service(json!({
        "type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "ports": one_port(), "sessionAffinity": "ClientIP",
    }));
    service.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.9"}, {"ip": "192.0.2.8", "ipMode": "VIP"}, {"ip": "192.0.2.7", "ipMode": "Proxy"}, {"hostname": "a"},
    ]}}))
    .unwrap();
    let part = |service: &Service| mk_services(service, &[]).part(&web()).unwrap();
    let addresses: Vec<_> = part(&service).load_balancer.iter().map(ToString::to_string).collect();
    assert_eq!(
        (addresses, part(&service).affinity),
        (vec!["192.0.2.8".to_owned(), "192.0.2.9".to_owned()], 10_800)
    );
    service.spec.session_affinity_config.client_ip.timeout_seconds = Some(60);
    assert_eq!(part(&service).affinity, 60);
    service.spec.session_affinity = Some("None".to_owned());
    assert_eq!(part(&service).affinity, 0);
}

/// The part of a Service without backends.
fn part_of(spec: Value) -> parts::Service {
    mk_services(&mk_service(spec), &[]).part(&web()).expect("it has a cluster address")
}

#[test]
fn ports_of_nodes_are_those_of_types_that_have_them() {
    let with = |type_: &str| {
        let ports = json!([
            {"port": 80, "nodePort": 30080}, {"name": "calls", "port": 5060, "protocol": "SCTP", "nodePort": 30060},
            {"name": "inside", "port": 81}, {"name": "bad", "port": 82, "nodePort": 70000}, {"name": "none", "port": 83, "nodePort": 0},
        ]);
        let part = part_of(json!({"type": type_, "clusterIPs": ["10.96.0.9"], "ports": ports}));
        part.ports.iter().map(|port| (port.port, port.protocol, port.node_port)).collect::<Vec<_>>()
    };
    let all = [(80, 6, 30080), (81, 6, 0), (82, 6, 0), (83, 6, 0), (5060, 132, 30060)];
    assert_eq!(with("NodePort"), all);
    assert_eq!(with("LoadBalancer"), all);
    assert!(with("ClusterIP").iter().all(|(_, _, node_port)| *node_port == 0));
}

#[test]
fn external_addresses_are_of_families_that_the_service_has() {
    let listed = json!(["fd00::9", "192.0.2.9", "192.0.2.8", "192.0.2.9", "moon", "0.0.0.0", "::"]);
    let with = |type_: &str, cluster_ips: Value| {
        let ports = one_port();
        let spec =
            json!({"type": type_, "clusterIPs": cluster_ips, "ports": ports, "externalIPs": listed.clone()});
        part_of(spec).external.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(with("ClusterIP", json!(["10.96.0.9"])), ["192.0.2.8", "192.0.2.9"]);
    assert_eq!(with("LoadBalancer", json!(["10.96.0.9"])), ["192.0.2.8", "192.0.2.9"]);
    assert_eq!(with("NodePort", json!(["fd96::9", "10.96.0.9"])), ["192.0.2.8", "192.0.2.9", "fd00::9"]);
}

#[test]
fn the_external_policy_and_the_health_port_count_where_the_service_is_met_from_outside() {
    let with = |more: Value| {
        let mut spec = json!({
            "clusterIPs": ["10.96.0.9"], "ports": one_port(), "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        });
        more.as_object().into_iter().flatten().for_each(|(name, value)| spec[name] = value.clone());
        let part = part_of(spec);
        (part.external_local, part.health_port)
    };
    assert_eq!(with(json!({"type": "LoadBalancer"})), (true, 31000));
    assert_eq!(with(json!({"type": "LoadBalancer", "healthCheckNodePort": 70000})), (true, 0));
    assert_eq!(with(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"})), (false, 0));
    assert_eq!(with(json!({"type": "LoadBalancer", "externalTrafficPolicy": null})), (false, 0));
    assert_eq!(with(json!({"type": "NodePort"})), (true, 0));
    assert_eq!(with(json!({"type": "ClusterIP"})), (false, 0));
    assert_eq!(with(json!({"externalIPs": ["fd00::9"]})), (false, 0), "of a family that it has not");
    assert_eq!(with(json!({"externalIPs": ["192.0.2.9"]})), (true, 0));
}

/// A Service with that annotation, as a part.
fn annotated(name: &str, value: &str) -> Value {
    let mut service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    service.metadata.annotations = Some([(name.to_owned(), value.to_owned())].into());
    let part = mk_services(&service, &[]).part(&web()).expect("is served");
    serde_json::to_value(part).expect("is JSON")
}

#[test]
fn the_algorithm_is_one_that_is_known_or_nobodys() {
    let with = |name: &str, value: &str| annotated(name, value)["algorithm"].clone();
    assert_eq!(with("service.cilium.io/lb-algorithm", "maglev"), json!("maglev"));
    assert_eq!(with("service.cilium.io/lb-algorithm", "random"), json!("random"));
    assert_eq!(with("service.cilium.io/lb-algorithm", "Maglev"), json!(null));
    assert_eq!(with("lb-algorithm", "maglev"), json!(null));
}

#[test]
fn the_way_of_forwarding_is_one_that_is_known_or_nobodys() {
    let with = |value: &str| annotated("service.cilium.io/forwarding-mode", value)["forwarding"].clone();
    assert_eq!(with("dsr"), json!("dsr"));
    assert_eq!(with("snat"), json!("snat"));
    assert_eq!(with("hybrid"), json!(null));
}

#[test]
fn the_kind_of_address_is_one_that_is_known_or_all_are() {
    let with = |value: &str| annotated("service.cilium.io/type", value)["only"].clone();
    assert_eq!(with("LoadBalancer"), json!("LoadBalancer"));
    assert_eq!(with("NodePort"), json!("NodePort"));
    assert_eq!(with("ClusterIP"), json!("ClusterIp"));
    assert_eq!(with("ExternalIP"), json!(null));
}

#[test]
fn ranges_may_be_those_that_may_not_come() {
    for (policy, expected) in [("deny", json!(true)), ("allow", json!(null)), ("maybe", json!(null))] {
        let part = annotated("service.cilium.io/src-ranges-policy", policy);
        assert_eq!(part["deniesRanges"], expected, "{policy}");
    }
}

#[test]
fn ranges_that_cannot_be_read_let_nobody_in() {
    let with = |type_: &str, ranges: Value| {
        let ports = one_port();
        let spec = json!({"type": type_, "clusterIPs": ["10.96.0.9"], "ports": ports, "loadBalancerSourceRanges": ranges});
        serde_json::to_value(part_of(spec)).unwrap()["sourceRanges"].clone()
    };
    let ranges =
        json!([" 192.0.2.0/24 ", "198.51.100.7/16", "fd00::/8\n", "192.0.2.0/24", "moon", "10.0.0.0/33"]);
    assert_eq!(
        with("LoadBalancer", ranges.clone()),
        json!(["192.0.2.0/24", "198.51.0.0/16", "fd00::/8"]),
        "sorted, without bits behind the length, and without those that are none"
    );
    assert_eq!(with("LoadBalancer", json!(["moon", ""])), json!([]));
    assert_eq!(with("LoadBalancer", json!([])), json!(null));
    assert_eq!(with("LoadBalancer", json!(null)), json!(null));
    assert_eq!(with("NodePort", ranges), json!(null));
    // An empty list is not lost on the way.
    let closed = parts::Service { source_ranges: Some(Vec::new()), ..parts::Service::default() };
    let text = serde_json::to_string(&closed).unwrap();
    assert_eq!(serde_json::from_str::<parts::Service>(&text).unwrap(), closed);
}

#[test]
fn the_usual_service_takes_no_more_bytes() {
    let service =
        json!({"clusterIPs": ["10.96.0.9"], "ports": one_port(), "externalTrafficPolicy": "Cluster"});
    let slice = mk_slice("a", "IPv4", one_port(), json!([{"addresses": ["10.0.0.2"], "nodeName": "n1"}]));
    let part = mk_services(&mk_service(service), &[slice]).part(&web()).unwrap();
    assert_eq!(
        serde_json::to_string(&part).unwrap(),
        r#"{"clusterIps":["10.96.0.9"],"ports":[{"protocol":6,"port":80,"backends":[["10.0.0.2",80]]}]}"#
    );
}

#[test]
fn hints_and_nodes_travel_together() {
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let hints = json!({"forZones": [{"name": "z"}]});
    let endpoints = json!([
        {"addresses": ["10.0.0.2"], "nodeName": "n1", "hints": hints},
        {"addresses": ["10.0.0.3"], "nodeName": "n2", "hints": hints, "conditions": leaving},
        {"addresses": ["10.0.0.4"], "hints": hints, "conditions": {"ready": false}},
        {"addresses": ["10.0.0.5"]},
    ]);
    let slice = mk_slice("a", "IPv4", one_port(), endpoints);
    let with = |policies: Value| {
        let mut spec = json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": one_port()});
        policies.as_object().into_iter().flatten().for_each(|(name, value)| spec[name] = value.clone());
        places(&mk_services(&mk_service(spec), std::slice::from_ref(&slice)).part(&web()).unwrap())
    };
    let placed =
        [json!({"node": "n1", "forZones": ["z"]}), json!({"node": "n2", "leaving": true}), json!(null)];
    assert_eq!(with(json!({"externalTrafficPolicy": "Local"})), placed);
    assert_eq!(with(json!({"internalTrafficPolicy": "Local"})), placed);
    assert_eq!(with(json!({})), [json!({"forZones": ["z"]}), json!(null)]);
}

#[test]
fn what_nodes_serve_from_outside_marks_a_service() {
    let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "ports": one_port()});
    let mut services = mk_services(&mk_service(spec.clone()), &[]);
    services.take_changed();
    let changes = json!({
        "externalIPs": ["192.0.2.9"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": ["moon"], "ports": [{"port": 80, "nodePort": 30080}],
    });
    let mut now = spec;
    for (name, value) in changes.as_object().into_iter().flatten() {
        now[name] = value.clone();
        services.set_service(&mk_service(now.clone()));
        assert_eq!(services.take_changed(), BTreeSet::from([web()]), "{name}");
    }
    assert_eq!(services.part(&web()), mk_services(&mk_service(now), &[]).part(&web()));
}

#[test]
fn services_without_a_cluster_address_have_no_part() {
    let cases = [
        json!({"clusterIPs": ["None"], "ports": one_port()}),
        json!({"ports": one_port()}),
        json!({"type": "ExternalName", "clusterIPs": ["10.96.0.9"], "ports": one_port()}),
    ];
    for spec in cases {
        assert_eq!(mk_services(&mk_service(spec.clone()), &[]).part(&web()), None, "{spec}");
    }
    let mut elsewhere = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    assert!(mk_services(&elsewhere, &[]).part(&web()).is_some());
    let label = ("service.kubernetes.io/service-proxy-name".to_owned(), "other".to_owned());
    elsewhere.metadata.labels = Some([label].into());
    assert_eq!(mk_services(&elsewhere, &[]).part(&web()), None);
}

#[test]
fn only_what_changes_a_part_marks_a_service() {
    let service = mk_service(json!({"clusterIPs": ["10.96.0.9"], "ports": one_port()}));
    let slice = mk_slice("a", "IPv4", one_port(), json!([up("10.0.0.2")]));
    let mut services = mk_services(&service, std::slice::from_ref(&slice));
    assert_eq!(services.take_changed(), BTreeSet::from([web()]));
    let mut relabelled = service;
    relabelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    services.set_service(&relabelled);
    services.set_slice(&slice);
    services.set_slice(&mk_slice("names", "FQDN", one_port(), json!([up("example.org")])));
    services.remove_slice("shop", "never-seen");
    assert_eq!(services.take_changed(), BTreeSet::new());
    let mut moved = slice.clone();
    moved.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), "other".to_owned())].into());
    services.set_slice(&moved);
    assert_eq!(services.take_changed(), BTreeSet::from([ServiceName::new("shop", "other"), web()]));
    assert_eq!(shown(&services.part(&web()).unwrap()), ["80/6: "]);
    services.remove_service("shop", "web");
    assert_eq!((services.part(&web()), services.take_changed()), (None, BTreeSet::from([web()])));
}

#[test]
fn addresses_behind_a_service_leave_out_those_that_do_not_answer() {
    let down = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false}});
    let mut services = Services::default();
    services.set_slice(&mk_slice("a", "IPv4", one_port(), json!([up("10.0.0.2"), down])));
    assert_eq!(services.backend_addresses(&web()), BTreeSet::from(["10.0.0.2".parse().unwrap()]));
}

/// One event of a history: slice number, owner (0 = none), and endpoints as (last byte, readiness).
type Event = (u8, u8, Vec<(u8, u8)>);

fn mk_event_slice((number, owner, endpoints): &Event) -> EndpointSlice {
    let conditions = |kind: u8| match kind {
        0 => json!({"ready": true}),
        1 => json!({"ready": false, "serving": true, "terminating": true}),
        _ => json!({"ready": false}),
    };
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(last, kind)| {
            let hints = if last % 2 == 0 { json!([{"name": "z"}]) } else { json!([]) };
            json!({"addresses": [format!("10.0.0.{last}")], "nodeName": format!("n{}", last % 3),
                "conditions": conditions(*kind), "hints": {"forZones": hints}})
        })
        .collect();
    let mut slice = mk_slice(&format!("s{number}"), "IPv4", one_port(), json!(endpoints));
    let owner = ["", "web", "api"][usize::from(*owner)].to_owned();
    slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), owner)].into());
    slice
}

proptest! {
    #[test]
    fn history_leaves_no_trace(
        events in prop::collection::vec((0..4u8, 0..3u8, prop::collection::vec((0..5u8, 0..3u8), 0..4)), 1..40),
        policy in prop::sample::select(vec!["Cluster", "Local"]),
    ) {
        let service = mk_service(json!({
            "type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": one_port(), "externalTrafficPolicy": policy,
        }));
        let (mut services, mut last, mut known) = (Services::default(), std::collections::BTreeMap::new(), None);
        services.set_service(&service);
        for event in &events {
            services.set_slice(&mk_event_slice(event));
            last.insert(event.0, event.clone());
            let now = services.part(&web());
            // What is not marked has not changed.
            prop_assert!(services.take_changed().contains(&web()) || now == known);
            known = now;
        }
        let fresh: Vec<_> = last.values().map(mk_event_slice).collect();
        prop_assert_eq!(known, mk_services(&service, &fresh).part(&web()));
    }
}
