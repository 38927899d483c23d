//! Announced addresses: what nodes are told, and what stands in the status of a policy.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]
#![allow(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]

mod common;

use std::collections::BTreeMap;

use cilium_api::CiliumL2AnnouncementPolicy;
use cilium_api::condition::Condition;
use cilium_api::l2_announcement_policy::L2AnnouncementStatus;
use cilium_api::node_state::{CiliumNodeState, Failure};
use cilium_api::parts::{Announcement, Part, PartKey};
use cilium_api::slim::{EndpointSlice, Service};
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::{Value, json};

fn mk_config() -> Config {
    Config { l2_announcements: true, ..Config::default() }
}

fn mk_policy(generation: i64, spec: Value) -> CiliumL2AnnouncementPolicy {
    mk(json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "spec": spec,
        "metadata": {"name": "p", "generation": generation, "uid": "policy-p"},
    }))
}

fn balanced() -> Value {
    json!({"loadBalancerIPs": true})
}

fn mk_balanced(name: &str, address: &str, traffic: &str) -> Service {
    mk(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "nodePort": 30080}],
            "externalTrafficPolicy": traffic,
        },
        // As written by another controller.
        "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}},
    }))
}

fn mk_backend(service: &str, node: &str) -> EndpointSlice {
    mk(json!({
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.1.0.9"], "nodeName": node, "conditions": {"ready": true}}],
    }))
}

/// Three nodes, a Service and a policy.
fn mk_world(policy: Value) -> World {
    mk_world_with(mk_config(), policy)
}

fn mk_world_with(config: Config, policy: Value) -> World {
    let mut world = World::new(config);
    for (number, name) in (1..).zip(["n1", "n2", "n3"]) {
        let mut node = mk_node(name, number);
        node.metadata.labels = Some(BTreeMap::from([("name".to_owned(), name.to_owned())]));
        world.apply(node);
    }
    world.apply(mk_balanced("web", "192.0.2.1", "Cluster"));
    world.apply(mk_policy(1, policy));
    world.settle();
    world
}

#[test]
fn where_leases_decide_the_policy_does_not_say_who_answers() {
    let world = mk_world_with(Config { l2_leases: true, ..mk_config() }, balanced());
    assert_eq!(told(&world, "n1", "192.0.2.1").unwrap().owners.len(), 3, "any of them may hold the Lease");
    let addresses = status(&world).addresses.unwrap();
    assert_eq!((addresses[0].address.as_str(), addresses[0].node.as_ref()), ("192.0.2.1", None));
    assert_eq!(addresses[0].services, ["shop/web"]);
}

/// Edits the policy, as a user does: its status stays.
fn edit_policy(world: &mut World, generation: i64, spec: Value) {
    let mut policy = mk_policy(generation, spec);
    policy.status = Some(status(world));
    world.apply(policy);
}

fn state_key(node: &str) -> ObjectKey {
    ObjectKey::cluster(Kind::NodeState, node)
}

fn state(world: &World, node: &str) -> CiliumNodeState {
    match world.store.get(&state_key(node)) {
        Some(Object::NodeState(state)) => (**state).clone(),
        other => panic!("{other:?}"),
    }
}

/// The part of an address, as a node is told.
fn told(world: &World, node: &str, address: &str) -> Option<Announcement> {
    let inline = state(world, node).status?.desired?.inline?;
    let parts: BTreeMap<PartKey, Part> = serde_json::from_str(&inline).unwrap();
    match parts.get(&PartKey::announcement(address.parse().unwrap()))? {
        Part::Announcement(announcement) => Some(announcement.clone()),
        other => panic!("{other:?}"),
    }
}

fn edit_state(world: &mut World, node: &str, edit: impl FnOnce(&mut CiliumNodeState)) {
    let mut state = state(world, node);
    edit(&mut state);
    world.apply(state);
}

fn status(world: &World) -> L2AnnouncementStatus {
    match world.store.get(&ObjectKey::cluster(Kind::L2AnnouncementPolicy, "p")) {
        Some(Object::L2AnnouncementPolicy(policy)) => policy.status.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

fn condition(world: &World, type_: &str) -> Option<Condition> {
    status(world).conditions.unwrap_or_default().into_iter().find(|it| it.type_ == type_)
}

/// Status, reason and message.
fn text(world: &World, type_: &str) -> String {
    let found = condition(world, type_).unwrap();
    format!("{} {}: {}", found.status, found.reason.unwrap(), found.message.unwrap())
}

#[test]
fn owners_are_told_and_the_policy_says_who_answers() {
    let mut world = mk_world(balanced());
    let part = told(&world, "n1", "192.0.2.1").unwrap();
    assert_eq!(part.services, ["shop/web"]);
    for node in ["n2", "n3"] {
        assert_eq!(told(&world, node, "192.0.2.1").as_ref(), Some(&part));
    }
    let status = status(&world);
    let addresses = status.addresses.unwrap();
    assert_eq!((status.address_count, status.node_count), (Some(1), Some(3)));
    assert_eq!((addresses.len(), addresses[0].address.as_str()), (1, "192.0.2.1"));
    assert_eq!(addresses[0].node.as_ref(), part.owners.first());
    assert_eq!(text(&world, "Valid"), "True Valid: Policy validation succeeded");
    assert_eq!(text(&world, "Effective"), "True Announcing: 1 addresses are announced by 3 nodes");
    assert_eq!(text(&world, "Enforced"), "True InForce: in force on 3 of 3 nodes");
    assert_eq!(condition(&world, "Valid").unwrap().observed_generation, Some(1));
    let writes = world.writes;
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.writes, writes, "nothing is written at rest, nor after a restart");
}

#[test]
fn without_the_feature_nothing_is_planned() {
    let mut world = World::new(Config::default());
    world.apply(mk_node("n1", 1));
    world.apply(mk_balanced("web", "192.0.2.1", "Cluster"));
    world.apply(mk_policy(1, balanced()));
    world.settle();
    assert_eq!(told(&world, "n1", "192.0.2.1"), None);
    assert_eq!(status(&world), L2AnnouncementStatus::default());
    let warnings = world.planner.advise(&mk_policy(1, balanced()).into());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("l2announcements.enabled"), "{warnings:?}");
}

#[test]
fn an_address_follows_its_service_policy_nodes_and_backends() {
    let mut world = mk_world(balanced());
    world.apply(mk_balanced("web", "192.0.2.2", "Local"));
    world.settle();
    assert_eq!(told(&world, "n1", "192.0.2.1"), None);
    assert_eq!(told(&world, "n1", "192.0.2.2"), None, "there is no backend");
    let expected = "False NoBackends: externalTrafficPolicy: Local, and no selected node has a backend: nobody announces 192.0.2.2";
    assert_eq!(text(&world, "Effective"), expected);
    assert_eq!(
        text(&world, "Enforced"),
        "True NoNodes: no node announces anything; in force on 0 of 0 nodes"
    );
    world.apply(mk_backend("web", "n2"));
    world.settle();
    assert_eq!(told(&world, "n2", "192.0.2.2").unwrap().owners, ["n2"]);
    world.apply(mk_backend("web", "n3"));
    world.settle();
    assert_eq!(told(&world, "n2", "192.0.2.2"), None);
    assert_eq!(told(&world, "n3", "192.0.2.2").unwrap().owners, ["n3"]);
    world.apply(mk_balanced("web", "192.0.2.2", "Cluster"));
    world.delete(&ObjectKey::cluster(Kind::Node, "n3"));
    world.settle();
    let mut owners = told(&world, "n1", "192.0.2.2").unwrap().owners;
    owners.sort_unstable();
    assert_eq!(owners, ["n1", "n2"]);
    world.delete(&ObjectKey::cluster(Kind::L2AnnouncementPolicy, "p"));
    world.settle();
    assert_eq!(told(&world, "n1", "192.0.2.2"), None);
}

#[test]
fn a_policy_says_what_stands_in_the_way() {
    let mut world = mk_world(json!({}));
    let cases = [
        (
            json!({}),
            "False NoAddressKind: set spec.loadBalancerIPs or spec.externalIPs to true: otherwise, nothing is announced",
        ),
        (
            json!({"loadBalancerIPs": true, "serviceSelector": {"matchLabels": {"app": "db"}}}),
            "False NoServices: spec.serviceSelector selects no Service without loadBalancerClass or of the class io.cilium/l2-announcer",
        ),
        (
            json!({"externalIPs": true}),
            "False NoAddresses: 1 Services are selected, and none of them has such an address",
        ),
        (
            json!({"loadBalancerIPs": true, "nodeSelector": {"matchLabels": {"name": "n9"}}}),
            "False NoNodes: spec.nodeSelector selects no node",
        ),
    ];
    for (generation, (spec, expected)) in (2..).zip(cases) {
        edit_policy(&mut world, generation, spec);
        world.settle();
        assert_eq!(text(&world, "Effective"), expected);
        assert_eq!(condition(&world, "Effective").unwrap().observed_generation, Some(generation));
        assert_eq!(told(&world, "n1", "192.0.2.1"), None);
    }
}

#[test]
fn an_address_of_a_node_stays_the_nodes() {
    let mut world = mk_world(json!({"externalIPs": true}));
    let mut service = mk_service("shop", "own", "10.96.0.2", 80);
    service.spec.external_ips = vec!["192.168.0.2".to_owned(), "192.0.2.7".to_owned()];
    world.apply(service);
    world.settle();
    for node in ["n1", "n2", "n3"] {
        assert_eq!(told(&world, node, "192.168.0.2"), None, "n2 has it");
        assert!(told(&world, node, "192.0.2.7").is_some());
    }
    let expected = "False NodeAddress: addresses of nodes are never announced: 192.168.0.2";
    assert_eq!(text(&world, "Effective"), expected);
    world.delete(&ObjectKey::cluster(Kind::Node, "n2"));
    world.settle();
    assert!(told(&world, "n1", "192.168.0.2").is_some());
}

#[test]
fn devices_decide_once_they_are_known() {
    let mut world = mk_world(json!({"loadBalancerIPs": true, "interfaces": ["^eth0$"]}));
    assert_eq!(told(&world, "n1", "192.0.2.1").unwrap().interfaces, ["^eth0$"]);
    for (node, device) in [("n1", "eth0"), ("n2", "ens3"), ("n3", "ens3")] {
        edit_state(&mut world, node, |state| {
            let applied = state.status.as_mut().unwrap().applied.as_mut().unwrap();
            applied.devices = vec![device.to_owned(), "lo".to_owned()];
        });
    }
    world.settle();
    assert_eq!(told(&world, "n1", "192.0.2.1").unwrap().owners, ["n1"]);
    assert_eq!(
        text(&world, "Effective"),
        "False NoDevices: spec.interfaces matches no device on nodes n2, n3"
    );
    assert_eq!(text(&world, "Enforced"), "True InForce: in force on 1 of 1 nodes");
}

#[test]
fn upstreams_conditions_come_with_an_error_and_stay_when_it_is_mended() {
    let mut world = mk_world(balanced());
    assert_eq!(condition(&world, "io.cilium/bad-interface-regex"), None);
    edit_policy(&mut world, 2, json!({"loadBalancerIPs": true, "interfaces": ["eth("]}));
    world.settle();
    let fault = r#"spec.interfaces[0]: "eth(" is no regular expression: unclosed group"#;
    assert_eq!(text(&world, "io.cilium/bad-interface-regex"), format!("True error: {fault}"));
    assert_eq!(condition(&world, "io.cilium/bad-node-selector"), None);
    assert_eq!(text(&world, "Valid"), format!("False Malformed: {fault}"));
    assert_eq!(text(&world, "Effective"), "False NotValid: nothing is announced");
    assert_eq!(text(&world, "Enforced"), "False NotValid: nothing is announced");
    assert_eq!(told(&world, "n1", "192.0.2.1"), None);
    edit_policy(&mut world, 3, balanced());
    world.settle();
    assert_eq!(text(&world, "io.cilium/bad-interface-regex"), "False error: ");
    assert!(told(&world, "n1", "192.0.2.1").is_some());
    edit_policy(&mut world, 4, json!({"loadBalancerIPs": true, "interfaces": ["(".repeat(40_000)]}));
    world.settle();
    let message = condition(&world, "io.cilium/bad-interface-regex").unwrap().message.unwrap();
    assert!(message.len() < 600, "the API server takes 32768 bytes");
}

#[test]
fn a_failover_writes_one_status_and_no_node_state() {
    let mut world = mk_world(balanced());
    for number in 2..30 {
        world.apply(mk_balanced(&format!("s{number}"), &format!("192.0.2.{number}"), "Cluster"));
    }
    world.settle();
    let owners = told(&world, "n1", "192.0.2.1").unwrap().owners;
    assert_eq!(status(&world).address_count, Some(29));
    assert_eq!(status(&world).addresses.unwrap().len(), 20);
    let [dead, next, last] = owners.as_slice() else { panic!("{owners:?}") };
    for other in [last, next] {
        world.deliver();
        world.plan();
        world.report();
        let writes = world.writes;
        edit_state(&mut world, other, |state| {
            state.status.as_mut().unwrap().applied.as_mut().unwrap().silent = vec![dead.clone()];
        });
        world.deliver();
        world.plan();
        world.report();
        let expected = usize::from(other == next);
        assert_eq!(world.writes - writes, expected, "one of two is no majority");
    }
    let answering = status(&world).addresses.unwrap();
    assert_eq!(answering[0].node.as_ref(), Some(next));
    assert!(answering.iter().all(|address| address.node.as_ref() != Some(dead)));
}

#[test]
fn a_node_that_cannot_announce_is_named() {
    let mut world = mk_world(balanced());
    let owner = told(&world, "n1", "192.0.2.1").unwrap().owners[0].clone();
    let fail = |world: &mut World, object: &str| {
        let failure = Failure { object: object.to_owned(), message: "the table is full".to_owned() };
        edit_state(world, &owner, |state| {
            let applied = state.status.as_mut().unwrap().applied.as_mut().unwrap();
            (applied.failures, applied.failure_count) = (vec![failure], 1);
        });
        world.deliver();
        world.plan();
        world.report();
    };
    fail(&mut world, "announcement/192.0.2.77");
    assert_eq!(text(&world, "Enforced"), "True InForce: in force on 3 of 3 nodes", "another address");
    fail(&mut world, "announcement/192.0.2.1");
    let expected = format!("False NodeFailure: in force on 2 of 3 nodes; node {owner}: the table is full");
    assert_eq!(text(&world, "Enforced"), expected);
    for object in ["announcements", "groups", "expression ("] {
        fail(&mut world, "announcement/192.0.2.77");
        assert_eq!(text(&world, "Enforced"), "True InForce: in force on 3 of 3 nodes");
        fail(&mut world, object);
        assert_eq!(text(&world, "Enforced"), expected, "{object}");
    }
}

#[test]
fn progress_of_nodes_is_told_at_its_end_or_after_a_while() {
    let mut world = mk_world(balanced());
    edit_policy(&mut world, 2, json!({"loadBalancerIPs": true, "interfaces": ["^eth"]}));
    world.deliver();
    world.plan();
    world.report();
    assert_eq!(text(&world, "Enforced"), "False Pending: in force on 0 of 3 nodes");
    let mut acknowledge = |node: &str| {
        world.deliver();
        acknowledge_node(&mut world.store, node);
        world.deliver();
        let wake = world.plan().wake;
        world.report();
        (text(&world, "Enforced"), wake)
    };
    let (told, _) = acknowledge("n1");
    assert_eq!(told, "False Pending: in force on 0 of 3 nodes");
    let (_, wake) = acknowledge("n2");
    assert!(wake.is_some_and(|wake| wake <= START + 10), "{wake:?}");
    assert_eq!(acknowledge("n3").0, "True InForce: in force on 3 of 3 nodes");
}
