//! The example of the guide, from objects to node states.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::CiliumNetworkPolicy;
use cilium_api::digest::decode;
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::{Value, json};

const EMPIRE: &[&str] = &["org=empire", "class=deathstar", "app.kubernetes.io/name=deathstar"];

/// Two nodes, the control plane outside, the demo's pods and its Service.
fn mk_world() -> World {
    let mut world = World::new(Config { cluster: "kind".into(), ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("node1", 1));
    world.apply(mk_node("node2", 2));
    world.apply(mk_service("default", "kubernetes", "10.96.0.1", 443));
    world.apply(mk_endpoint_slice("default", "kubernetes", &["172.18.0.2"], 6443));
    world.apply(mk_service("default", "deathstar", "10.96.7.7", 80));
    world.apply(mk_pod("default", "deathstar-1", "node1", EMPIRE));
    world.apply(mk_pod("default", "deathstar-2", "node2", EMPIRE));
    world.apply(mk_pod("default", "tiefighter", "node1", &["org=empire", "class=tiefighter"]));
    world.apply(mk_pod("default", "xwing", "node2", &["org=alliance", "class=xwing"]));
    world.settle();
    // The kubelets have started the pods, and the endpoints controller has seen them.
    world.apply(running(mk_pod("default", "deathstar-1", "node1", EMPIRE), &["10.1.0.2", "fd00:1::2"]));
    world.apply(running(mk_pod("default", "deathstar-2", "node2", EMPIRE), &["10.2.0.2", "fd00:2::2"]));
    world.apply(mk_endpoint_slice("default", "deathstar", &["10.1.0.2", "10.2.0.2"], 80));
    world.settle();
    world
}

/// Everything that was written, in a form for people: encoded parts decoded, versions and uids left out.
fn shown(world: &World) -> Value {
    let written = [Kind::NodeState, Kind::Slice, Kind::Identity, Kind::Endpoint, Kind::CiliumNode];
    let mut all = json!({});
    for key in written.into_iter().flat_map(|kind| world.store.keys(kind)) {
        all[key.to_string()] = match world.store.get(&key) {
            Some(Object::NodeState(state)) => {
                let desired = state.status.as_ref().and_then(|status| status.desired.clone()).unwrap();
                json!({"revision": desired.revision, "inline": decode(&desired.inline.unwrap()).unwrap()})
            }
            // Records of policies, not parts.
            Some(Object::Slice(slice)) if key.name.starts_with("policy.") => json!(slice.spec.count),
            Some(Object::Slice(slice)) => json!(decode(&slice.spec.data).unwrap()),
            Some(Object::Identity(identity)) => json!(identity.security_labels),
            Some(Object::Endpoint(endpoint)) => json!(endpoint.status),
            Some(Object::CiliumNode(node)) => json!(node.spec),
            _ => panic!("{key} is not shown"),
        };
    }
    all
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("snapshots have a JSON form")
}

fn policy(world: &World, name: &str) -> CiliumNetworkPolicy {
    match world.store.get(&ObjectKey::namespaced(Kind::NetworkPolicy, "default", name)) {
        Some(Object::NetworkPolicy(policy)) => (**policy).clone(),
        _ => panic!("there is no policy {name}"),
    }
}

#[test]
fn without_a_policy() {
    insta::assert_snapshot!(pretty(&shown(&mk_world())));
}

#[test]
fn with_the_policy_of_the_guide() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    let states = shown(&world);
    let states: serde_json::Map<_, _> = states
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| key.starts_with("NodeState"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    insta::assert_snapshot!("node_states_with_the_policy", pretty(&states));
    insta::assert_snapshot!("status_of_the_policy", pretty(&policy(&world, "rule1").status));
}

#[test]
fn the_policy_goes_without_a_trace() {
    let mut world = mk_world();
    let before = shown(&world);
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    world.delete(&ObjectKey::namespaced(Kind::NetworkPolicy, "default", "rule1"));
    world.settle();
    let mut after = shown(&world);
    for node in ["NodeState node1", "NodeState node2"] {
        assert_eq!(after[node]["revision"], before[node]["revision"].as_i64().unwrap() + 2);
        after[node]["revision"] = before[node]["revision"].clone();
    }
    assert_eq!(after, before);
}

#[test]
fn a_policy_costs_one_write_for_each_node_that_needs_it() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.deliver();
    let output = world.plan();
    assert_eq!((output.node_states.len(), output.slices.len(), output.identities.len()), (2, 0, 0));
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0);
}
