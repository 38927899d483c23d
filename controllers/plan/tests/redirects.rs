//! Which pods stand in for an address or a Service, on which nodes.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::local_redirect_policy::LocalRedirectStatus;
use cilium_api::node_state::{AppliedState, Failure};
use cilium_api::parts::{Part, PartKey, Redirect, RedirectMatcher};
use cilium_api::slim::Service;
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::{Value, json};

/// Nodes a and b; a Service with two ports and a pod elsewhere.
fn mk_world(config: Config) -> World {
    let mut world = World::new(Config { local_redirects: true, ..config });
    world.apply(mk_namespace("dns", &[]));
    world.apply(mk_namespace("other", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(mk_dns("10.96.0.10"));
    world.settle();
    world
}

fn mk_dns(address: &str) -> Service {
    mk(json!({
        "metadata": {"namespace": "dns", "name": "kube-dns", "uid": "uid-kube-dns"},
        "spec": {"clusterIPs": [address, "fd96::10"], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "metrics", "port": 9153},
        ]},
    }))
}

fn backend(ports: &Value) -> Value {
    json!({"localEndpointSelector": {"matchLabels": {"app": "cache"}}, "toPorts": ports})
}

/// Both DNS ports of the Service to other ports of the pods.
fn by_service() -> Value {
    let ports = json!([
        {"name": "dns", "port": "1053", "protocol": "UDP"}, {"name": "dns-tcp", "port": "1054", "protocol": "TCP"},
    ]);
    let frontend = json!({"serviceMatcher": {"namespace": "dns", "serviceName": "kube-dns"}});
    json!({"redirectFrontend": frontend, "redirectBackend": backend(&ports)})
}

fn by_address(address: &str, port: &str) -> Value {
    let ports = |port: &str| json!([{"port": port, "protocol": "TCP"}]);
    let frontend = json!({"addressMatcher": {"ip": address, "toPorts": ports(port)}});
    json!({"redirectFrontend": frontend, "redirectBackend": backend(&ports("8080"))})
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::LocalRedirectPolicy, namespace, name)
}

/// What a node is told of a policy.
fn part(world: &World, node: &str, namespace: &str, name: &str) -> Option<Redirect> {
    let parts = Agent(&world.store).node_parts(node)?;
    match parts.get(&PartKey::redirect(namespace, name))? {
        Part::Redirect(redirect) => Some(redirect.clone()),
        other => panic!("{other:?} under the key of a redirect"),
    }
}

/// The same, one line for each frontend.
fn told(world: &World, node: &str, name: &str) -> Vec<String> {
    let part = part(world, node, "dns", name);
    let line = |it: &cilium_api::parts::RedirectFrontend| {
        let backends: Vec<String> =
            it.backends.iter().map(|(address, port)| format!("{address} {port}")).collect();
        format!("{} {}/{} -> {}", it.address, it.port, it.protocol, backends.join(", "))
    };
    part.iter().flat_map(|part| &part.frontends).map(line).collect()
}

fn status(world: &World, namespace: &str, name: &str) -> LocalRedirectStatus {
    match world.store.get(&key(namespace, name)) {
        Some(Object::LocalRedirectPolicy(policy)) => policy.status.clone().unwrap_or_default(),
        other => panic!("{other:?} under the key of a policy"),
    }
}

/// Status, reason and message of a condition.
fn condition(world: &World, name: &str, type_: &str) -> String {
    let all = status(world, "dns", name).conditions.unwrap_or_default();
    let it = all.into_iter().find(|it| it.type_ == type_).unwrap();
    format!("{} {}: {}", it.status, it.reason.unwrap(), it.message.unwrap())
}

fn put_pod(world: &mut World, namespace: &str, name: &str, node: &str, ready: bool) {
    let pod = mk_pod(namespace, name, node, &["app=cache"]);
    world.apply(with_ready(pod, ready));
    world.settle();
}

#[test]
fn every_node_has_its_own_pods_and_one_without_has_nothing() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    put_pod(&mut world, "other", "cache-b", "b", true);
    world.apply(mk_redirect("dns", "cache", 1, by_service()));
    world.settle();
    let expected = [
        "10.96.0.10 53/6 -> 10.1.0.2 1054",
        "10.96.0.10 53/17 -> 10.1.0.2 1053",
        "fd96::10 53/6 -> fd00:1::2 1054",
        "fd96::10 53/17 -> fd00:1::2 1053",
    ];
    assert_eq!(told(&world, "a", "cache"), expected);
    assert_eq!(told(&world, "b", "cache"), [""; 0], "a pod of another namespace");
    let redirect = part(&world, "a", "dns", "cache").unwrap();
    assert_eq!(
        (redirect.matcher, redirect.service.as_str(), redirect.exempt.len()),
        (RedirectMatcher::Service, "kube-dns", 0)
    );
    assert_eq!(condition(&world, "cache", "Valid"), "True Valid: Policy validation succeeded");
    assert_eq!(
        condition(&world, "cache", "Effective"),
        "True Redirecting: clients on 1 nodes are redirected"
    );
    assert_eq!(status(&world, "dns", "cache").ok, Some(true));
    put_pod(&mut world, "dns", "cache-b", "b", true);
    let b = told(&world, "b", "cache");
    assert_eq!((b.len(), b[0].as_str()), (4, "10.96.0.10 53/6 -> 10.2.0.3 1054"));
    assert_eq!(told(&world, "a", "cache"), expected);
    world.delete(&key("dns", "cache"));
    world.settle();
    assert_eq!((part(&world, "a", "dns", "cache"), part(&world, "b", "dns", "cache")), (None, None));
}

#[test]
fn pods_that_are_not_ready_or_on_their_way_out_do_not_answer() {
    let mut world = mk_world(Config::default());
    world.apply(mk_redirect("dns", "meta", 1, by_address("169.254.169.254", "80")));
    world.settle();
    assert_eq!(
        condition(&world, "meta", "Effective"),
        "False NoPods: spec.redirectBackend.localEndpointSelector selects no pod of namespace dns with an address of its own"
    );
    put_pod(&mut world, "dns", "cache-a", "a", false);
    assert_eq!(part(&world, "a", "dns", "meta"), None);
    assert_eq!(
        condition(&world, "meta", "Effective"),
        "False NoReadyPods: 1 pods are selected, and none of them is ready"
    );
    put_pod(&mut world, "dns", "cache-a", "a", true);
    assert_eq!(told(&world, "a", "meta"), ["169.254.169.254 80/6 -> 10.1.0.2 8080"]);
    let mut going = with_ready(mk_pod("dns", "cache-a", "a", &["app=cache"]), true);
    going.metadata.deletion_timestamp = Some(mk(json!("2026-01-01T00:00:00Z")));
    world.apply(going);
    world.settle();
    assert_eq!(part(&world, "a", "dns", "meta"), None);
    assert_eq!(status(&world, "dns", "meta").ok, Some(false));
}

#[test]
fn readiness_alone_writes_one_node_only() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    put_pod(&mut world, "dns", "cache-b", "b", true);
    world.apply(mk_redirect("dns", "meta", 1, by_address("169.254.169.254", "80")));
    world.settle();
    world.apply(with_ready(mk_pod("dns", "cache-b", "b", &["app=cache"]), false));
    world.deliver();
    let output = world.plan();
    let nodes: Vec<_> = output.node_states.iter().map(|write| write.key.name.as_str()).collect();
    assert_eq!((nodes, output.slices.len()), (vec!["b"], 0));
}

#[test]
fn pods_that_are_selected_are_exempt_whether_they_answer_or_not() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-1", "a", true);
    put_pod(&mut world, "dns", "cache-2", "a", false);
    let mut spec = by_address("169.254.169.254", "80");
    spec["skipRedirectFromBackend"] = json!(true);
    world.apply(mk_redirect("dns", "meta", 1, spec));
    world.settle();
    let redirect = part(&world, "a", "dns", "meta").unwrap();
    assert_eq!(redirect.exempt, ["cache-1", "cache-2"]);
    assert_eq!(redirect.frontends[0].backends.len(), 1);
}

#[test]
fn ports_that_are_named_are_redirected_and_no_others() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    let mut spec = by_service();
    let named = |port: &str| json!([{"name": "dns", "port": port, "protocol": "UDP"}]);
    spec["redirectFrontend"]["serviceMatcher"]["toPorts"] = named("53");
    world.apply(mk_redirect("dns", "cache", 1, spec.clone()));
    world.settle();
    let expected = ["10.96.0.10 53/17 -> 10.1.0.2 1053", "fd96::10 53/17 -> fd00:1::2 1053"];
    assert_eq!(told(&world, "a", "cache"), expected);
    spec["redirectFrontend"]["serviceMatcher"]["toPorts"] = named("54");
    world.apply(mk_redirect("dns", "cache", 2, spec));
    world.settle();
    assert_eq!(part(&world, "a", "dns", "cache"), None);
    assert_eq!(
        condition(&world, "cache", "Effective"),
        "False NoPort: Service dns/kube-dns has none of the ports in spec.redirectFrontend.serviceMatcher.toPorts"
    );
}

#[test]
fn a_service_may_come_later_move_and_go() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    let service = ObjectKey::namespaced(Kind::Service, "dns", "kube-dns");
    world.delete(&service);
    world.apply(mk_redirect("dns", "cache", 1, by_service()));
    world.settle();
    assert_eq!(
        condition(&world, "cache", "Effective"),
        "False NoService: there is no Service dns/kube-dns with a cluster address"
    );
    world.apply(mk_dns("10.96.0.11"));
    world.settle();
    assert_eq!(told(&world, "a", "cache")[0], "10.96.0.11 53/6 -> 10.1.0.2 1054");
    world.delete(&service);
    world.settle();
    assert_eq!(part(&world, "a", "dns", "cache"), None);
}

#[test]
fn an_address_of_a_service_is_refused_for_as_long_as_it_is_one() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    world.apply(mk_redirect("dns", "meta", 1, by_address("10.96.0.10", "8000")));
    world.deliver();
    let events = world.plan().events;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((event.type_, event.reason), ("Warning", "NotProgrammed"));
    assert_eq!((&event.regarding, event.uid.as_str()), (&key("dns", "meta"), "redirect-dns-meta-1"));
    world.settle();
    assert_eq!(part(&world, "a", "dns", "meta"), None);
    assert_eq!(
        condition(&world, "meta", "Valid"),
        "False AddressOfService: spec.redirectFrontend.addressMatcher.ip: 10.96.0.10 belongs to Service dns/kube-dns: name that one \
         in a serviceMatcher, in its namespace"
    );
    assert_eq!(condition(&world, "meta", "Effective"), "False NotValid: nothing is redirected");
    world.apply(mk_dns("10.96.0.11"));
    world.settle();
    assert_eq!(told(&world, "a", "meta"), ["10.96.0.10 8000/6 -> 10.1.0.2 8080"]);
}

#[test]
fn the_older_of_two_has_what_both_want() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    world.apply(mk_redirect("dns", "young", 20, by_address("169.254.169.254", "80")));
    world.apply(mk_redirect("dns", "other-port", 30, by_address("169.254.169.254", "81")));
    world.settle();
    assert_eq!(told(&world, "a", "young").len(), 1);
    world.apply(mk_redirect("dns", "z-old", 10, by_address("169.254.169.254", "80")));
    world.settle();
    assert_eq!(part(&world, "a", "dns", "young"), None);
    assert_eq!((told(&world, "a", "z-old").len(), told(&world, "a", "other-port").len()), (1, 1));
    assert_eq!(
        condition(&world, "young", "Valid"),
        "False Conflict: 169.254.169.254 port 80 is redirected by the older CiliumLocalRedirectPolicy dns/z-old: delete one of them"
    );
    world.delete(&key("dns", "z-old"));
    world.settle();
    assert_eq!(told(&world, "a", "young").len(), 1);
}

#[test]
fn what_the_settings_do_not_allow_is_said() {
    let mut world =
        mk_world(Config { redirect_cidrs: vec!["169.254.0.0/16".parse().unwrap()], ..Config::default() });
    put_pod(&mut world, "dns", "cache-a", "a", true);
    world.apply(mk_redirect("dns", "in", 1, by_address("169.254.169.254", "80")));
    world.apply(mk_redirect("dns", "out", 2, by_address("192.0.2.1", "80")));
    world.apply(mk_redirect("dns", "cache", 3, by_service()));
    world.settle();
    assert_eq!((told(&world, "a", "in").len(), told(&world, "a", "cache").len()), (1, 4));
    assert_eq!(part(&world, "a", "dns", "out"), None);
    let expected = "False AddressNotAllowed: spec.redirectFrontend.addressMatcher.ip: 192.0.2.1 lies in none of the prefixes 169.254.0.0/16";
    assert!(condition(&world, "out", "Valid").starts_with(expected));
    let off = World::new(Config::default());
    let policy: Object = mk_redirect("dns", "in", 1, by_address("169.254.169.254", "80")).into();
    let advice = off.planner.advise(&policy);
    assert!(advice[0].contains("enable-local-redirect-policy") && advice.len() == 1, "{advice:?}");
    assert_eq!(world.planner.advise(&policy), [""; 0]);
}

#[test]
fn nothing_is_put_in_force_while_it_is_off() {
    let mut world = mk_world(Config::default());
    world.config.local_redirects = false;
    world.restart();
    put_pod(&mut world, "dns", "cache-a", "a", true);
    world.apply(mk_redirect("dns", "cache", 1, by_service()));
    world.settle();
    assert_eq!(part(&world, "a", "dns", "cache"), None);
    assert!(condition(&world, "cache", "Valid").starts_with("False Disabled: "));
}

#[test]
fn what_a_node_cannot_do_is_told() {
    let mut world = mk_world(Config::default());
    put_pod(&mut world, "dns", "cache-a", "a", true);
    world.apply(mk_redirect("dns", "meta", 1, by_address("169.254.169.254", "80")));
    world.settle();
    let Some(Object::NodeState(state)) = world.store.get(&ObjectKey::cluster(Kind::NodeState, "a")) else {
        panic!("no node state")
    };
    let mut state = (**state).clone();
    let status = state.status.as_mut().unwrap();
    let failure =
        Failure { object: "redirect/dns/meta".into(), message: "map cilium_services is full".into() };
    status.applied =
        Some(AppliedState { failures: vec![failure], failure_count: 1, ..status.applied.take().unwrap() });
    world.apply(state);
    world.deliver();
    let events = world.plan().events;
    let told: Vec<_> = events.iter().map(|it| (it.regarding.clone(), it.reason, it.note.as_str())).collect();
    assert_eq!(told, [(key("dns", "meta"), "NotProgrammed", "node a: map cilium_services is full")]);
    world.report();
    assert_eq!(
        condition(&world, "meta", "Effective"),
        "False NodeFailure: node a: map cilium_services is full"
    );
}
