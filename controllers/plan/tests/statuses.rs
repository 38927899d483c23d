//! How often the status of a policy is written while a thousand nodes put a change in force.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use std::collections::BTreeMap;

use cilium_plan::{Action, Config, Kind, Object, ObjectKey};
use common::*;
use proptest::prelude::*;
use serde_json::json;

const NODES: usize = 1000;
/// Most writes of a policy's status for one change, whatever the number of nodes: that it is pending, three quarters, the last
/// five nodes, that it is in force.
const MOST: usize = 10;

fn node(number: usize) -> String {
    format!("node-{number:03}")
}

fn mk_large_world(nodes: usize) -> World {
    let mut world = World::new(Config { identity_gc_interval: 0, ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    for number in 0..nodes {
        world.apply(mk::<cilium_api::slim::Node>(json!({
            "metadata": {"name": node(number), "uid": format!("uid-{number}")},
            "spec": {"podCIDRs": [format!("10.{}.{}.0/24", number / 250, number % 250)]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.{}.{}", number / 250, number % 250)}]},
        })));
        let labels = ["org=empire", ["class=deathstar", "class=tiefighter"][number % 2]];
        world.apply(mk_pod("default", &format!("pod-{number}"), &node(number), &labels));
    }
    world.apply(mk_cnp("default", "rule1", 1, spec(80)));
    world.apply(mk_cnp("default", "other", 1, json!({"endpointSelector": {}, "egress": [{}]})));
    world.settle();
    world
}

fn spec(port: u16) -> serde_json::Value {
    json!({
        "endpointSelector": {"matchLabels": {"org": "empire"}},
        "ingress": [{"toPorts": [{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]}],
    })
}

/// A report as the operator makes it after everything that happens; counts the statuses that it writes.
fn tell(world: &mut World, writes: &mut BTreeMap<String, usize>) {
    world.deliver();
    let due = world.plan().report_due;
    if !due {
        return;
    }
    for write in world.report().policies {
        assert!(matches!(write.action, Action::Update(_)));
        *writes.entry(write.key.name).or_default() += 1;
    }
}

/// Changes the policy, and lets nodes answer one by one. The writes of statuses by policy.
fn change(
    world: &mut World,
    port: u16,
    order: &[usize],
    mut pause: impl FnMut(&mut World),
) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    let key = ObjectKey::namespaced(Kind::NetworkPolicy, "default", "rule1");
    let Some(Object::NetworkPolicy(before)) = world.store.get(&key) else { panic!("no policy") };
    let status = before.status.clone();
    let mut policy = mk_cnp("default", "rule1", port.into(), spec(port));
    policy.status = status;
    world.apply(policy);
    tell(world, &mut writes);
    // Many at once, as they come in while the operator waits to report; in small clusters one after the other.
    for numbers in order.chunks(order.len().div_ceil(40)) {
        for number in numbers {
            acknowledge_node(&mut world.store, &node(*number));
        }
        pause(world);
        tell(world, &mut writes);
    }
    // What was written comes back by the watch.
    tell(world, &mut writes);
    writes
}

fn in_force(nodes: usize) -> String {
    format!("True InForce: in force on {nodes} of {nodes} nodes")
}

#[test]
fn a_thousand_nodes_make_as_few_writes_of_status_as_ten() {
    let mut world = mk_large_world(NODES);
    assert_eq!(world.condition("default", "rule1", "Enforced"), in_force(NODES));
    let mixed: Vec<usize> = (0..NODES).map(|at| at * 387 % NODES).collect();
    let writes = change(&mut world, 81, &mixed, |_| ());
    assert!(writes["rule1"] <= MOST && writes.len() == 1, "{writes:?}");
    assert_eq!(world.condition("default", "rule1", "Enforced"), in_force(NODES));
}

#[test]
fn slow_nodes_are_told_of_within_seconds() {
    let mut world = mk_large_world(40);
    let order: Vec<usize> = (0..40).collect();
    let mut seen = Vec::new();
    let start = world.now;
    let writes = change(&mut world, 81, &order, |world| {
        world.now += 3;
        seen.push(world.status("default", "rule1").enforced.unwrap());
    });
    let seconds = usize::try_from(world.now - start).unwrap();
    assert!(writes["rule1"] <= MOST + seconds / 10, "{writes:?} in {seconds} s");
    // Told at most 13 s late: the pause, and until something happens.
    for (at, text) in seen.iter().enumerate().skip(6) {
        let told: usize = text.split('/').next().unwrap().parse().unwrap();
        assert!(told + 6 >= at, "{text} after {at}");
    }
}

#[test]
fn a_status_that_waits_is_written_though_nothing_happens() {
    let mut world = mk_large_world(40);
    let writes = change(&mut world, 81, &(0..7).collect::<Vec<_>>(), |_| ());
    assert_eq!((writes["rule1"], world.status("default", "rule1").enforced.as_deref()), (1, Some("0/40")));
    let wake = world.plan().wake.unwrap();
    assert!((world.now + 1..=world.now + 10).contains(&wake));
    world.now = wake;
    let mut writes = BTreeMap::new();
    tell(&mut world, &mut writes);
    assert_eq!(world.status("default", "rule1").enforced.as_deref(), Some("7/40"));
    tell(&mut world, &mut writes);
    assert_eq!((writes["rule1"], world.plan().wake), (1, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_order_of_answers_makes_more_writes(order in Just((0..90).collect::<Vec<_>>()).prop_shuffle()) {
        let mut world = mk_large_world(90);
        let writes = change(&mut world, 81, &order, |_| ());
        prop_assert!(writes["rule1"] <= MOST, "{:?}", writes);
        prop_assert_eq!(world.condition("default", "rule1", "Enforced"), in_force(90));
    }
}
