//! Pods: what they get, what they keep, what they give back.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::parts::{Part, PartKey};
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::json;

fn mk_world() -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world
}

fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::Pod, "default", name)
}

#[test]
fn an_endpoint_is_planned_before_the_pod_is_connected_and_ready_after_node_and_kubelet_say_so() {
    let mut world = mk_world();
    world.apply(mk_pod("default", "x", "a", &["app=x"]));
    world.deliver();
    world.plan();
    world.deliver();
    world.report();
    assert_eq!(world.addresses("a", "default", "x"), ["10.1.0.2", "fd00:1::2"]);
    let state = |world: &World| serde_json::to_value(world.endpoint("default", "x").unwrap().state).unwrap();
    assert_eq!(state(&world), "creating");
    world.apply(running(mk_pod("default", "x", "a", &["app=x"]), &["10.1.0.2", "fd00:1::2"]));
    world.deliver();
    world.plan();
    world.report();
    assert_eq!(state(&world), "creating", "the node has not confirmed it");
    world.settle();
    assert_eq!(state(&world), "ready");
    let Some(Object::Endpoint(object)) =
        world.store.get(&ObjectKey::namespaced(Kind::Endpoint, "default", "x"))
    else {
        panic!("no CiliumEndpoint")
    };
    let owner = &object.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.api_version, &*owner.kind, &*owner.uid), ("v1", "Pod", "pod-default-x"));
    assert_eq!(object.metadata.labels.as_ref().unwrap()["app"], "x");
}

#[test]
fn unbound_host_network_and_finished_pods_have_no_endpoint() {
    let mut world = mk_world();
    let mut unbound = mk_pod("default", "unbound", "", &[]);
    unbound.spec.node_name = None;
    let mut host = mk_pod("default", "host", "a", &[]);
    host.spec.host_network = Some(true);
    let mut done = mk_pod("default", "done", "a", &[]);
    done.status.phase = Some("Failed".into());
    for pod in [unbound, host, done] {
        world.apply(pod);
    }
    world.settle();
    assert!(world.store.keys(Kind::Endpoint).is_empty() && world.store.keys(Kind::Identity).is_empty());
}

#[test]
fn a_pod_that_waits_for_its_namespace_is_closed_and_says_so() {
    let mut world = World::new(Config::default());
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("late", "x", "a", &[]));
    world.settle();
    assert_eq!(world.planned("a", "late", "x"), None);
    let state = serde_json::to_value(world.endpoint("late", "x").unwrap().state).unwrap();
    assert_eq!(state, "waiting-for-identity");
    world.apply(mk_namespace("late", &[]));
    world.settle();
    assert!(world.planned("a", "late", "x").is_some());
}

#[test]
fn finished_and_deleted_pods_give_their_addresses_back() {
    let mut world = mk_world();
    let mut pods: Vec<_> = ["x", "y"].map(|name| mk_pod("default", name, "a", &[])).into();
    pods.iter().for_each(|pod| world.apply(pod.clone()));
    world.settle();
    pods[0].status.phase = Some("Succeeded".into());
    world.apply(pods.remove(0));
    world.delete(&pod_key("y"));
    world.settle();
    assert_eq!((world.planned("a", "default", "x"), world.planned("a", "default", "y")), (None, None));
    assert!(world.store.keys(Kind::Endpoint).is_empty());
    let parts = Agent(&world.store).shared_parts();
    assert!(parts.keys().all(|key| key.kind() != "address"), "{parts:?}");
    // Used again, but late.
    world.apply(mk_pod("default", "z", "a", &[]));
    world.settle();
    assert_eq!(world.addresses("a", "default", "z")[0], "10.1.0.4");
}

#[test]
fn a_pod_that_follows_one_of_the_same_name_is_another_pod() {
    let mut world = mk_world();
    world.apply(mk_pod("default", "web-0", "a", &[]));
    world.settle();
    world.delete(&pod_key("web-0"));
    let mut next = mk_pod("default", "web-0", "a", &[]);
    next.metadata.uid = Some("second".into());
    world.apply(next);
    world.settle();
    let endpoint = world.planned("a", "default", "web-0").unwrap();
    assert_eq!((&*endpoint.uid, endpoint.ipv4.unwrap().to_string().as_str()), ("second", "10.1.0.3"));
    let Some(Object::Endpoint(object)) =
        world.store.get(&ObjectKey::namespaced(Kind::Endpoint, "default", "web-0"))
    else {
        panic!("no CiliumEndpoint")
    };
    assert_eq!(object.metadata.owner_references.as_ref().unwrap()[0].uid, "second");
}

#[test]
fn labels_of_pod_and_namespace_decide_the_identity() {
    let mut world = mk_world();
    world.apply(mk_pod("default", "x", "a", &["app=x", "pod-template-hash=1"]));
    world.apply(mk_pod("default", "y", "a", &["app=x", "pod-template-hash=2"]));
    world.settle();
    let identity = |world: &World, name| world.planned("a", "default", name).unwrap().identity;
    let first = identity(&world, "x");
    assert_eq!(first, identity(&world, "y"));
    world.apply(mk_pod("default", "y", "a", &["app=y"]));
    world.settle();
    assert_ne!(first, identity(&world, "y"));
    world.apply(mk_namespace("default", &["team=red"]));
    world.settle();
    assert_ne!(first, identity(&world, "x"));
    let labels = world.endpoint("default", "x").unwrap().identity.unwrap().labels.unwrap();
    assert!(labels.contains(&"k8s:io.cilium.k8s.namespace.labels.team=red".to_owned()), "{labels:?}");
    world.apply(mk_namespace("default", &[]));
    world.settle();
    assert_eq!(first, identity(&world, "x"), "a known label set keeps its number");
}

#[test]
fn a_full_prefix_is_told_once_and_served_when_there_is_room() {
    let mut world = mk_world();
    let mut small = mk_node("a", 1);
    small.spec.pod_cidrs = vec!["10.9.0.0/30".into()];
    world.apply(small);
    world.apply(mk_pod("default", "x", "a", &[]));
    world.settle();
    world.apply(mk_pod("default", "y", "a", &[]));
    world.deliver();
    let output = world.plan();
    let event = &output.events[0];
    assert_eq!(
        (&event.regarding, event.reason, event.type_),
        (&pod_key("y"), "NetworkNotPlanned", "Warning")
    );
    assert!(event.note.contains("10.9.0.0/30") && event.note.contains("node a"), "{}", event.note);
    world.deliver();
    assert!(world.plan().events.is_empty());
    world.delete(&pod_key("x"));
    world.settle();
    assert_eq!(world.addresses("a", "default", "y"), ["10.9.0.2"]);
    assert_eq!(world.planner.totals().waiting, 0);
}

#[test]
fn a_node_without_prefixes_is_told_and_a_node_that_is_not_there_is_waited_for() {
    let mut world = mk_world();
    let mut bare = mk_node("bare", 2);
    bare.spec.pod_cidrs.clear();
    world.apply(bare);
    world.apply(mk_pod("default", "x", "bare", &[]));
    world.apply(mk_pod("default", "y", "later", &[]));
    world.deliver();
    let output = world.plan();
    assert_eq!(output.events.len(), 1);
    assert!(output.events[0].note.contains("spec.podCIDRs"), "{}", output.events[0].note);
    world.apply(mk_node("bare", 2));
    world.apply(mk_node("later", 3));
    world.settle();
    assert_eq!(world.addresses("bare", "default", "x")[0], "10.2.0.2");
    assert_eq!(world.addresses("later", "default", "y")[0], "10.3.0.2");
}

#[test]
fn only_families_in_use_are_given() {
    let mut world = World::new(Config { ipv6: false, ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "x", "a", &[]));
    world.settle();
    assert_eq!(world.addresses("a", "default", "x"), ["10.1.0.2"]);
}

/// Three pods, one of them connected.
fn mk_running_world() -> World {
    let mut world = mk_world();
    for name in ["p", "q"] {
        world.apply(mk_pod("default", name, "a", &["app=p"]));
    }
    world.settle();
    world.delete(&pod_key("p"));
    world.apply(running(mk_pod("default", "q", "a", &["app=p"]), &["10.1.0.3", "fd00:1::3"]));
    world.apply(mk_pod("default", "r", "a", &["app=r"]));
    world.settle();
    world
}

#[test]
fn a_restart_writes_nothing() {
    let mut world = mk_running_world();
    world.restart();
    let before = world.writes;
    world.settle();
    assert_eq!(world.writes, before);
}

#[test]
fn pods_keep_what_they_have_if_any_record_survives() {
    let lost: [&[Kind]; 4] = [
        &[Kind::NodeState, Kind::Slice],
        &[Kind::Endpoint],
        &[Kind::Identity],
        &[Kind::Identity, Kind::Endpoint, Kind::CiliumNode],
    ];
    for kinds in lost {
        let mut world = mk_running_world();
        let before = ["q", "r"].map(|name| world.planned("a", "default", name).unwrap());
        let gone: Vec<_> = kinds.iter().flat_map(|kind| world.store.keys(*kind)).collect();
        for key in gone {
            world.delete(&key);
        }
        world.restart();
        // A pod that comes first in every order, and would take what is free.
        world.apply(mk_pod("default", "a", "a", &["app=a"]));
        world.settle();
        let after = ["q", "r"].map(|name| world.planned("a", "default", name).unwrap());
        assert_eq!(after, before, "without {kinds:?}");
    }
}

#[test]
fn a_connected_pod_keeps_its_addresses_without_any_record() {
    let mut world = mk_running_world();
    for kind in [Kind::NodeState, Kind::Slice, Kind::Endpoint, Kind::Identity] {
        world.store.keys(kind).iter().for_each(|key| world.store.delete(key));
    }
    world.restart();
    world.apply(mk_pod("default", "a", "a", &["app=a"]));
    world.settle();
    assert_eq!(world.addresses("a", "default", "q"), ["10.1.0.3", "fd00:1::3"]);
}

#[test]
fn an_endpoint_object_that_claims_an_address_of_elsewhere_is_not_believed() {
    let mut world = mk_world();
    let pod = mk_pod("default", "x", "a", &[]);
    world.apply(pod);
    world.apply(mk::<cilium_api::CiliumEndpoint>(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"namespace": "default", "name": "x", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "pod-default-x"},
        ]},
        "status": {"id": 7, "networking": {"addressing": [{"ipv4": "192.168.0.1"}]}},
    })));
    world.restart();
    world.settle();
    assert_eq!(world.addresses("a", "default", "x")[0], "10.1.0.2");
}

#[test]
fn pods_of_a_node_that_comes_back_keep_their_addresses() {
    let mut world = mk_running_world();
    let before = world.planned("a", "default", "q").unwrap();
    world.delete(&ObjectKey::cluster(Kind::Node, "a"));
    world.settle();
    assert!(world.store.keys(Kind::NodeState).is_empty() && world.store.keys(Kind::CiliumNode).is_empty());
    let address = PartKey::address("10.1.0.3".parse().unwrap());
    assert!(Agent(&world.store).shared_parts().contains_key(&address), "the pod may still run");
    world.apply(mk_node("a", 1));
    world.settle();
    assert_eq!(world.planned("a", "default", "q").unwrap(), before);
    let Some(Object::NodeState(state)) = world.store.get(&ObjectKey::cluster(Kind::NodeState, "a")) else {
        panic!("no node state")
    };
    let revision = state.status.as_ref().unwrap().desired.as_ref().unwrap().revision;
    assert!(revision > 2, "revisions do not start again, this is {revision}");
}

#[test]
fn identities_without_endpoints_go_in_two_looks_and_come_back_when_used() {
    let mut world = mk_world();
    world.apply(mk_pod("default", "x", "a", &["app=x"]));
    world.settle();
    world.delete(&pod_key("x"));
    world.settle();
    let wake = world.plan().wake.unwrap();
    assert_eq!(wake, START + 15 * 60);
    for _ in 0..2 {
        world.now += 15 * 60;
        world.settle();
    }
    let Some(Object::Identity(identity)) = world.store.get(&ObjectKey::cluster(Kind::Identity, "256")) else {
        panic!("gone without a mark")
    };
    assert!(identity.metadata.annotations.as_ref().unwrap().contains_key("io.cilium.heartbeat"));
    let mut used = mk_pod("default", "y", "a", &["app=x"]);
    world.apply(used.clone());
    world.now += 15 * 60;
    world.settle();
    let Some(Object::Identity(identity)) = world.store.get(&ObjectKey::cluster(Kind::Identity, "256")) else {
        panic!("gone while in use")
    };
    assert!(identity.metadata.annotations.as_ref().is_none_or(|all| all.is_empty()), "the mark is taken off");
    used.status.phase = Some("Succeeded".into());
    world.apply(used);
    for _ in 0..5 {
        world.now += 15 * 60;
        world.settle();
    }
    assert!(world.store.keys(Kind::Identity).is_empty());
    assert!(!Agent(&world.store).shared_parts().contains_key(&PartKey::identity(256)));
}

#[test]
fn the_api_server_is_known_on_nodes_and_outside() {
    let mut world = mk_world();
    world.apply(mk_service("default", "kubernetes", "10.96.0.1", 443));
    let is_api_server = |world: &World| match &Agent(&world.store).shared_parts()[&PartKey::node("a")] {
        Part::Node(node) => node.api_server,
        other => panic!("{other:?}"),
    };
    let outside = PartKey::address("172.18.0.2".parse().unwrap());
    let has_outside = |world: &World| Agent(&world.store).shared_parts().contains_key(&outside);
    world.apply(mk_endpoint_slice("default", "kubernetes", &["192.168.0.1", "172.18.0.2"], 6443));
    world.settle();
    assert_eq!((is_api_server(&world), has_outside(&world)), (true, true));
    world.apply(mk_endpoint_slice("default", "kubernetes", &["172.18.0.2"], 6443));
    world.settle();
    assert_eq!((is_api_server(&world), has_outside(&world)), (false, true));
    world.apply(mk_endpoint_slice("default", "kubernetes", &["192.168.0.1"], 6443));
    world.settle();
    assert_eq!((is_api_server(&world), has_outside(&world)), (true, false));
    assert!(!Agent(&world.store).shared_parts().contains_key(&PartKey::identity(1 << 24)));
}
