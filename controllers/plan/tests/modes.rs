//! Settings and shapes of policies: modes of enforcement, lists of rules, room.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use std::collections::BTreeMap;

use cilium_api::parts::{Part, Policy};
use cilium_plan::Config;
use cilium_policy::Mode;
use common::*;
use serde_json::json;

/// Identities of the pods of node `a` by name, and the compiled policies that the node has.
fn node(world: &World) -> (BTreeMap<String, u32>, BTreeMap<u32, Policy>) {
    let (mut pods, mut policies) = (BTreeMap::new(), BTreeMap::new());
    for (key, part) in Agent(&world.store).node_parts("a").unwrap() {
        let name = key.0.rsplit('/').next().unwrap();
        match part {
            Part::Endpoint(endpoint) => drop(pods.insert(name.to_owned(), endpoint.identity)),
            Part::Policy(policy) => drop(policies.insert(name.parse().unwrap(), *policy)),
            other => panic!("{other:?}"),
        }
    }
    (pods, policies)
}

fn mk_world(config: Config) -> World {
    let mut world = World::new(config);
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    for name in ["one", "two"] {
        world.apply(mk_pod("default", name, "a", &[&format!("app={name}")]));
    }
    world
}

fn spec(app: &str, rules: &[serde_json::Value]) -> serde_json::Value {
    json!({"endpointSelector": {"matchLabels": {"app": app}}, "ingress": rules})
}

/// Any peer on these ports.
fn ports(first: u16, last: u16) -> serde_json::Value {
    json!({"toPorts": [{"ports": [{"port": first.to_string(), "endPort": last, "protocol": "TCP"}]}]})
}

/// Directions that are closed for pods `one`, which a policy selects for ingress, and `two`; and what the policy says of itself.
fn closed(mode: Mode) -> ([[bool; 2]; 2], String) {
    let mut world = mk_world(Config { mode, ..Config::default() });
    world.apply(mk_cnp("default", "rule", 1, spec("one", &[ports(80, 80)])));
    world.settle();
    let (pods, policies) = node(&world);
    let of = |name: &str| {
        let policy = policies.get(&pods[name]);
        policy.map_or([false; 2], |policy| [policy.ingress.enforced, policy.egress.enforced])
    };
    ([of("one"), of("two")], world.condition("default", "rule", "Enforced"))
}

#[test]
fn modes_decide_which_pods_are_closed() {
    let in_force = "True InForce: in force on 1 of 1 nodes".to_owned();
    assert_eq!(closed(Mode::Default), ([[true, false], [false; 2]], in_force.clone()));
    assert_eq!(closed(Mode::Always), ([[true; 2]; 2], in_force));
    let off = "False EnforcementDisabled: policy enforcement is switched off (enable-policy=never)";
    assert_eq!(closed(Mode::Never), ([[false; 2]; 2], off.to_owned()));
}

#[test]
fn every_rule_of_a_list_stands_for_itself() {
    let mut world = mk_world(Config::default());
    let mut policy = mk_cnp("default", "rule", 1, spec("one", &[ports(80, 80)]));
    let specs = [spec("one", &[ports(81, 81)]), spec("two", &[ports(82, 82)])];
    policy.specs = Some(specs.map(|spec| serde_json::from_value(spec).unwrap()).into());
    world.apply(policy);
    world.settle();
    let (pods, policies) = node(&world);
    let allowed = |name: &str| {
        let ingress = &policies[&pods[name]].ingress;
        let said = ingress.allow.iter().filter(|entry| !entry.origins.is_empty());
        said.map(|entry| entry.first).collect::<Vec<_>>()
    };
    assert_eq!((allowed("one"), allowed("two")), (vec![80, 81], vec![82]));
    assert_eq!(world.status("default", "rule").selected_endpoints, Some(2));

    // One that is refused takes all of them along, and is named by its place.
    let mut bad = mk_cnp("default", "bad", 1, spec("one", &[ports(80, 80)]));
    let unsupported = json!({"fromEndpoints": [{}], "authentication": {"mode": "required"}});
    bad.specs = Some(vec![serde_json::from_value(spec("two", &[unsupported])).unwrap()]);
    world.apply(bad);
    world.settle();
    let valid = world.condition("default", "bad", "Valid");
    assert!(valid.starts_with("False Unsupported: specs[0].ingress[0].authentication"), "{valid}");
    assert_eq!(node(&world).1, policies);
}

#[test]
fn the_room_that_a_policy_takes_stands_beside_what_there_is() {
    let mut world = mk_world(Config { policy_map_entries: 1000, ..Config::default() });
    // Ports 1 to 4 are three entries of a trie, any peer is four.
    let mut policy = mk_cnp("default", "rule", 1, spec("one", &[ports(1, 4), ports(80, 80)]));
    policy.specs = Some(vec![serde_json::from_value(spec("two", &[ports(1, 4)])).unwrap()]);
    world.apply(policy);
    world.apply(mk_cnp("default", "other", 1, spec("one", &[ports(99, 99)])));
    world.settle();
    let status = world.status("default", "rule");
    assert_eq!(
        (status.compiled_entries, status.largest_endpoint_entries, status.entries_limit),
        (Some(3), Some(16), Some(1000)),
        "of this policy only"
    );
}
