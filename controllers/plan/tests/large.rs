//! A policy that is too large to be told to a node.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::parts::Part;
use cilium_plan::Config;
use common::*;
use serde_json::json;

#[test]
fn a_policy_that_is_too_large_to_travel_closes_its_endpoints_and_nothing_else() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(mk_pod("default", "star-a", "a", &["org=empire"]));
    world.apply(mk_pod("default", "star-b", "b", &["org=empire"]));
    world.apply(mk_pod("default", "xwing", "a", &["org=alliance"]));
    let ports: Vec<_> = (1..=40).map(|port| json!({"port": port.to_string(), "protocol": "TCP"})).collect();
    let prefixes: Vec<_> = (0..4000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
    let large = json!({"endpointSelector": {"matchLabels": {"org": "empire"}}, "egress": [{"toCIDR": prefixes, "toPorts": [{"ports": ports}]}]});
    world.apply(mk_cnp("default", "large", 1, large));
    let small = json!({"endpointSelector": {"matchLabels": {"org": "alliance"}}, "ingress": [{}]});
    world.apply(mk_cnp("default", "small", 1, small));
    world.settle();
    let enforced = world.condition("default", "large", "Enforced");
    assert!(enforced.starts_with("False TooLarge: what all policies together say"), "{enforced}");
    assert_eq!(world.condition("default", "small", "Enforced"), "True InForce: in force on 1 of 1 nodes");
    let parts = Agent(&world.store).node_parts("b").unwrap();
    let closed = parts.into_values().find_map(|part| match part {
        Part::Policy(policy) => Some(*policy),
        _ => None,
    });
    let closed = closed.unwrap();
    assert!(closed.egress.enforced && closed.egress.allow.is_empty() && !closed.ingress.is_restricted());
    assert_eq!(closed.origins, ["cnp/default/large"]);

    let wider = json!({"endpointSelector": {"matchLabels": {"org": "empire"}}, "egress": [{"toCIDR": ["10.0.0.0/8"]}]});
    world.apply(mk_cnp("default", "large", 2, wider));
    world.settle();
    assert_eq!(world.condition("default", "large", "Enforced"), "True InForce: in force on 2 of 2 nodes");
}
