//! Policies that are too large to be told to a node.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::parts::{Part, PartKey};
use cilium_plan::Config;
use common::*;
use serde_json::{Value, json};

/// So many prefixes on 40 ports, for the empire.
fn mk_spec(net: u8, prefixes: usize) -> Value {
    let ports: Vec<_> = (1..=40).map(|port| json!({"port": port.to_string(), "protocol": "TCP"})).collect();
    let prefixes: Vec<_> = (0..prefixes).map(|n| format!("10.{net}.{}.{}/32", n / 250, n % 250)).collect();
    json!({"endpointSelector": {"matchLabels": {"org": "empire"}}, "egress": [{"toCIDR": prefixes, "toPorts": [{"ports": ports}]}]})
}

/// Two endpoints of the empire, each on its node, and one of the alliance, for which there is a small policy.
fn mk_world() -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(mk_pod("default", "star-a", "a", &["org=empire"]));
    world.apply(mk_pod("default", "star-b", "b", &["org=empire"]));
    world.apply(mk_pod("default", "xwing", "a", &["org=alliance"]));
    let small = json!({"endpointSelector": {"matchLabels": {"org": "alliance"}}, "ingress": [{}]});
    world.apply(mk_cnp("default", "small", 1, small));
    world
}

#[test]
fn policies_that_are_too_large_together_close_their_endpoints_and_nothing_else() {
    let mut world = mk_world();
    // Each of them alone could travel.
    world.apply(mk_cnp("default", "one", 1, mk_spec(1, 900)));
    world.apply(mk_cnp("default", "two", 1, mk_spec(2, 900)));
    world.settle();
    for name in ["one", "two"] {
        let enforced = world.condition("default", name, "Enforced");
        assert!(enforced.starts_with("False TooLarge: what all policies together say"), "{enforced}");
    }
    assert_eq!(world.condition("default", "small", "Enforced"), "True InForce: in force on 1 of 1 nodes");
    let parts = Agent(&world.store).node_parts("b").unwrap();
    let closed = parts.into_values().find_map(|part| match part {
        Part::Policy(policy) => Some(*policy),
        _ => None,
    });
    let closed = closed.unwrap();
    assert!(closed.egress.enforced && closed.egress.allow.is_empty() && !closed.ingress.is_restricted());
    assert_eq!(closed.origins, ["cnp/default/one", "cnp/default/two"]);

    world.apply(mk_cnp("default", "two", 2, mk_spec(2, 9)));
    world.settle();
    for name in ["one", "two"] {
        let enforced = world.condition("default", name, "Enforced");
        assert_eq!(enforced, "True InForce: in force on 2 of 2 nodes");
    }
}

#[test]
fn a_node_whose_policies_are_too_large_still_talks_with_nodes() {
    let mut world = World::new(Config { host_firewall: true, ..Config::default() });
    world.apply(mk_node("a", 1));
    for (name, net) in [("one", 1), ("two", 2)] {
        let mut spec = mk_spec(net, 900);
        spec.as_object_mut().unwrap().remove("endpointSelector");
        spec["nodeSelector"] = json!({});
        world.apply(mk_ccnp(name, 1, spec));
    }
    world.settle();
    let parts = Agent(&world.store).node_parts("a").unwrap();
    let Some(Part::Policy(policy)) = parts.get(&PartKey::policy(1)) else { panic!("{parts:?}") };
    let peers: Vec<_> = policy.egress.allow.iter().map(|it| (it.peer, it.protocol, it.first)).collect();
    assert_eq!(peers, [(6, 0, 0), (7, 0, 0), (14, 0, 0)]);
    assert!(policy.egress.enforced && !policy.ingress.is_restricted());
}

#[test]
fn a_policy_that_is_too_large_alone_leaves_the_version_before_in_force() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "one", 1, mk_spec(1, 9)));
    world.settle();
    world.apply(mk_cnp("default", "one", 2, mk_spec(1, 1001)));
    world.settle();
    let valid = world.condition("default", "one", "Valid");
    assert!(valid.starts_with("False Unsupported: spec.egress: a direction with 40040 entries"), "{valid}");
    let enforced = world.condition("default", "one", "Enforced");
    assert_eq!(
        enforced,
        "False PreviousVersion: generation 1, the last valid one, is in force on 2 of 2 nodes"
    );
}
