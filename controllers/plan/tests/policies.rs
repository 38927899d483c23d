//! Policies: what is in force, and what their status says.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::node_state::{AppliedState, Failure};
use cilium_api::parts::{Part, PartKey, Policy};
use cilium_plan::{Config, Kind, Object, ObjectKey, UnreadablePolicy};
use common::*;
use serde_json::{Value, json};

/// Two nodes with a deathstar each.
fn mk_world() -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    for (number, node) in ["a", "b"].into_iter().enumerate() {
        world.apply(mk_node(node, number as u8 + 1));
        world.apply(mk_pod("default", &format!("star-{node}"), node, &["org=empire", "class=deathstar"]));
    }
    world.settle();
    world
}

fn key() -> ObjectKey {
    ObjectKey::namespaced(Kind::NetworkPolicy, "default", "rule1")
}

/// Replaces the policy by another generation, as the API server would: the status stays.
fn edit(world: &mut World, generation: i64, spec: Value) {
    let mut policy = mk_cnp("default", "rule1", generation, spec);
    policy.status = Some(world.status("default", "rule1"));
    world.apply(policy);
}

fn invalid() -> Value {
    json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "99999", "protocol": "TCP"}]}]}]})
}

/// Policies that a node has, by identity.
fn policies(world: &World, node: &str) -> Vec<(PartKey, Policy)> {
    let parts = Agent(&world.store).node_parts(node).unwrap();
    let policies = parts.into_iter().filter_map(|(key, part)| match part {
        Part::Policy(policy) => Some((key, policy)),
        _ => None,
    });
    policies.collect()
}

#[test]
fn enforcement_is_pending_until_every_node_that_needs_it_has_it() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.deliver();
    world.plan();
    world.report();
    assert_eq!(world.condition("default", "rule1", "Valid"), "True Valid: Policy validation succeeded");
    assert_eq!(world.condition("default", "rule1", "Enforced"), "False Pending: in force on 0 of 2 nodes");
    acknowledge_node(&mut world.store, "b");
    world.deliver();
    let output = world.plan();
    assert!(output.report_due);
    world.report();
    assert_eq!(world.condition("default", "rule1", "Enforced"), "False Pending: in force on 1 of 2 nodes");
    let status = world.status("default", "rule1");
    assert_eq!(status.nodes.unwrap().laggards.unwrap(), ["a"]);
    assert_eq!((status.enforced.as_deref(), status.selected_endpoints), (Some("1/2"), Some(2)));
    world.now += 60;
    world.settle();
    assert_eq!(world.condition("default", "rule1", "Enforced"), "True InForce: in force on 2 of 2 nodes");
    let times: Vec<_> = world
        .status("default", "rule1")
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| c.last_transition_time.unwrap())
        .collect();
    assert_eq!(times, ["2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z"]);
}

#[test]
fn endpoints_show_enforcement_as_it_comes_and_goes() {
    let mut world = mk_world();
    let shown = |world: &World| {
        let policy = world.endpoint("default", "star-a").unwrap().policy.unwrap();
        [policy.ingress, policy.egress].map(|it| it.map(|it| (it.enforcing, it.state.unwrap())).unwrap())
    };
    let (on, off) = ((true, "enforcing".to_owned()), (false, "disabled".to_owned()));
    assert_eq!(shown(&world), [off.clone(), off.clone()]);
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    assert_eq!(shown(&world), [on, off.clone()]);
    world.delete(&key());
    world.settle();
    assert_eq!(shown(&world), [off.clone(), off]);
    assert!(policies(&world, "a").is_empty());
}

#[test]
fn an_invalid_generation_changes_nothing_that_was_enforced_also_after_a_restart() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    let before = policies(&world, "a");
    assert_eq!(before.len(), 1);
    edit(&mut world, 2, invalid());
    world.settle();
    assert_eq!(policies(&world, "a"), before);
    let valid = world.condition("default", "rule1", "Valid");
    assert!(valid.starts_with("False Malformed: spec.ingress[0].toPorts[0].ports[0].port: "), "{valid}");
    assert_eq!(
        world.condition("default", "rule1", "Enforced"),
        "False PreviousVersion: generation 1, the last valid one, is in force on 2 of 2 nodes"
    );
    assert_eq!(world.status("default", "rule1").observed_generation, Some(2));
    world.restart();
    let writes = world.writes;
    world.settle();
    assert_eq!((policies(&world, "a"), world.writes), (before, writes));
    // Also the next invalid one, and until a valid one comes.
    edit(&mut world, 3, invalid());
    world.settle();
    assert_eq!(policies(&world, "a").len(), 1);
    edit(&mut world, 4, json!({"endpointSelector": {}, "egress": [{}]}));
    world.settle();
    assert_eq!(world.condition("default", "rule1", "Enforced"), "True InForce: in force on 2 of 2 nodes");
    assert!(policies(&world, "a")[0].1.egress.enforced);
}

#[test]
fn an_edit_that_no_operator_saw_changes_nothing_either() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.apply(mk_ccnp("all", 1, json!({"endpointSelector": {}, "egress": [{}]})));
    world.settle();
    let before = policies(&world, "a");
    edit(&mut world, 2, invalid());
    world.apply(mk_ccnp("all", 2, invalid()));
    world.restart();
    world.settle();
    assert_eq!(policies(&world, "a"), before);
    assert!(
        world.condition("default", "rule1", "Enforced").starts_with("False PreviousVersion: generation 1")
    );
    world.delete(&key());
    world.delete(&ObjectKey::cluster(Kind::ClusterwideNetworkPolicy, "all"));
    world.settle();
    assert!(policies(&world, "a").is_empty());
    assert!(world.store.keys(Kind::Slice).iter().all(|key| !key.name.starts_with("policy.")));
}

#[test]
fn a_policy_that_never_was_valid_enforces_nothing_and_says_so() {
    let mut world = mk_world();
    world.apply(mk_cnp(
        "default",
        "rule1",
        1,
        json!({"endpointSelector": {}, "egress": [{"toNodes": [{}]}]}),
    ));
    world.settle();
    assert!(policies(&world, "a").is_empty());
    let valid = world.condition("default", "rule1", "Valid");
    assert!(valid.starts_with("False Unsupported: spec.egress[0].toNodes"), "{valid}");
    assert!(world.condition("default", "rule1", "Enforced").starts_with("False NotValid: "));
}

#[test]
fn a_policy_that_does_not_parse_stops_nothing_and_is_told_once() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    let before = policies(&world, "a");
    let unreadable = || UnreadablePolicy {
        key: key(),
        generation: 2,
        resource_version: None,
        reason: "invalid type: string".into(),
    };
    world.planner.observe(unreadable().into());
    world.plan();
    let report = world.report();
    assert_eq!(report.policies.len(), 1);
    assert_eq!(policies(&world, "a"), before);
    let valid = world.condition("default", "rule1", "Valid");
    assert_eq!(valid, "False Unreadable: the object does not parse: invalid type: string");
    // Its own write comes back, unreadable again.
    world.planner.observe(unreadable().into());
    world.plan();
    assert_eq!(world.report().policies.len(), 0);
    edit(&mut world, 3, rule1());
    world.deliver();
    world.plan();
}

#[test]
fn a_policy_that_was_deleted_and_made_again_does_not_inherit() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    world.store.delete(&key());
    let mut other = mk_cnp("default", "rule1", 1, invalid());
    other.metadata.uid = Some("another".into());
    world.apply(other);
    // Both events in one go, and only the second.
    world.store.take_events().into_iter().skip(1).for_each(|event| event.tell(&mut world.planner));
    world.settle();
    assert!(policies(&world, "a").is_empty());
}

#[test]
fn a_part_that_fails_on_a_node_is_not_in_force_there() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    let (part, _) = policies(&world, "a").remove(0);
    let fail = |world: &mut World, failures: Vec<Failure>, count: i64| {
        let Some(Object::NodeState(state)) = world.store.get(&ObjectKey::cluster(Kind::NodeState, "a"))
        else {
            panic!("no node state")
        };
        let mut state = (**state).clone();
        let status = state.status.as_mut().unwrap();
        let applied = status.applied.take().unwrap();
        status.applied = Some(AppliedState { failures, failure_count: count, ..applied });
        world.apply(state);
        world.deliver();
        world.plan();
        world.report();
        world.condition("default", "rule1", "Enforced")
    };
    let failure = |object: &str| Failure { object: object.into(), message: "full".into() };
    assert_eq!(fail(&mut world, vec![failure(&part.0)], 1), "False Pending: in force on 1 of 2 nodes");
    assert_eq!(fail(&mut world, vec![failure("policy/9")], 1), "True InForce: in force on 2 of 2 nodes");
    assert_eq!(fail(&mut world, vec![failure("policy/9")], 2), "False Pending: in force on 1 of 2 nodes");
    assert_eq!(fail(&mut world, vec![], 0), "True InForce: in force on 2 of 2 nodes");
}

#[test]
fn at_most_five_laggards_are_named() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    for number in 1..=8 {
        world.apply(mk_node(&format!("n{number}"), number));
        world.apply(mk_pod("default", &format!("p{number}"), &format!("n{number}"), &["org=empire"]));
    }
    world.apply(mk_cnp("default", "rule1", 1, json!({"endpointSelector": {}, "ingress": [{}]})));
    world.deliver();
    world.plan();
    world.report();
    let nodes = world.status("default", "rule1").nodes.unwrap();
    assert_eq!((nodes.needed, nodes.enforcing), (8, 0));
    assert_eq!(nodes.laggards.unwrap(), ["n1", "n2", "n3", "n4", "n5"]);
}

#[test]
fn one_more_policy_on_the_same_endpoints_does_not_put_the_others_in_doubt() {
    let mut world = mk_world();
    for number in 0..20 {
        world.apply(mk_cnp("default", &format!("old-{number}"), 1, rule1()));
    }
    world.settle();
    world.apply(mk_cnp("default", "rule1", 1, json!({"endpointSelector": {}, "egress": [{}]})));
    world.deliver();
    world.plan();
    let report = world.report();
    let names: Vec<_> = report.policies.iter().map(|write| write.key.name.as_str()).collect();
    assert_eq!(names, ["rule1"], "no agent has acknowledged anything");
    assert_eq!(world.condition("default", "rule1", "Enforced"), "False Pending: in force on 0 of 2 nodes");
}

#[test]
fn a_policy_without_endpoints_is_in_force_and_says_that_it_selects_nothing() {
    let mut world = mk_world();
    let spec = json!({"endpointSelector": {"matchLabels": {"org": "rebels"}}, "ingress": [{}]});
    world.apply(mk_cnp("default", "rule1", 1, spec));
    world.settle();
    assert_eq!(
        world.condition("default", "rule1", "Enforced"),
        "True NoEndpoints: selects no endpoints; in force on 0 of 0 nodes"
    );
    world.apply(mk_pod("default", "rebel", "b", &["org=rebels"]));
    world.settle();
    assert_eq!(world.condition("default", "rule1", "Enforced"), "True InForce: in force on 1 of 1 nodes");
}

#[test]
fn clusterwide_policies_have_a_status_too() {
    let mut world = mk_world();
    world.apply(mk_ccnp("all", 1, json!({"endpointSelector": {}, "ingress": [{}]})));
    world.settle();
    let Some(Object::ClusterwideNetworkPolicy(policy)) =
        world.store.get(&ObjectKey::cluster(Kind::ClusterwideNetworkPolicy, "all"))
    else {
        panic!("no policy")
    };
    assert_eq!(policy.status.as_ref().unwrap().enforced.as_deref(), Some("2/2"));
}

/// Prefix parts with their identities, and the labels of these.
fn prefixes(world: &World) -> Vec<(String, Vec<String>)> {
    let parts = Agent(&world.store).shared_parts();
    let labels = |number: u32| match parts.get(&PartKey::identity(number)) {
        Some(Part::Identity(identity)) => identity.labels.clone(),
        other => panic!("identity {number} is {other:?}"),
    };
    let prefix = |(key, part): (&PartKey, &Part)| match part {
        Part::Prefix(prefix) => {
            Some((key.0.trim_start_matches("prefix/").to_owned(), labels(prefix.identity)))
        }
        _ => None,
    };
    parts.iter().filter_map(prefix).collect()
}

#[test]
fn prefixes_have_identities_while_policies_name_them() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "web", "a", &["app=web"]));
    let outside = |except: Value| json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidr": "10.7.0.0/8", "except": except}]}]});
    world.apply(mk_cnp("default", "p", 1, outside(json!(["10.1.0.0/16"]))));
    world.apply(mk_cnp(
        "default",
        "q",
        1,
        json!({"endpointSelector": {}, "egressDeny": [{"toCIDR": ["2001:db8::/32", "::/0"]}]}),
    ));
    world.settle();
    let of = |text: &str, label: &str, world: &str| {
        (text.to_owned(), vec![format!("cidr:{label}"), format!("reserved:{world}")])
    };
    let [wide, narrow, v6] = [
        of("10.0.0.0/8", "10.0.0.0/8", "world-ipv4"),
        of("10.1.0.0/16", "10.1.0.0/16", "world-ipv4"),
        of("2001:db8::/32", "2001-db8--0/32", "world-ipv6"),
    ];
    assert_eq!(prefixes(&world), [wide.clone(), narrow, v6.clone()]);
    let node = Agent(&world.store).node_parts("a").unwrap();
    let Some(Part::Policy(policy)) = node.get(&PartKey::policy(256)) else { panic!("{node:?}") };
    assert_eq!(
        (policy.egress.allow.len(), policy.egress.deny.len()),
        (1, 2),
        "the world of IPv6 and its prefix"
    );

    world.restart();
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0, "numbers are as before");
    world.apply(mk_cnp("default", "p", 2, outside(json!([]))));
    world.settle();
    assert_eq!(prefixes(&world), [wide, v6]);
    for name in ["p", "q"] {
        world.delete(&ObjectKey::namespaced(Kind::NetworkPolicy, "default", name));
    }
    world.settle();
    assert_eq!(prefixes(&world), []);
    let left = Agent(&world.store).shared_parts();
    assert!(left.keys().all(|key| !key.0.starts_with("identity/1") || key.0 == "identity/256"), "{left:?}");
}

#[test]
fn an_api_server_outside_is_in_prefixes_too() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "web", "a", &["app=web"]));
    world.apply(mk_service("default", "kubernetes", "10.96.0.1", 443));
    world.apply(mk_endpoint_slice("default", "kubernetes", &["172.18.0.2"], 6443));
    world.apply(mk_cnp(
        "default",
        "p",
        1,
        json!({"endpointSelector": {}, "egress": [{"toCIDR": ["172.18.0.0/16"]}]}),
    ));
    world.settle();
    let egress = |world: &World| {
        let node = Agent(&world.store).node_parts("a").unwrap();
        let Some(Part::Policy(policy)) = node.get(&PartKey::policy(256)) else { panic!("{node:?}") };
        policy.egress.allow.iter().map(|entry| entry.peer).collect::<Vec<_>>()
    };
    let address = |world: &World| {
        let parts = Agent(&world.store).shared_parts();
        match parts.get(&PartKey::address("172.18.0.2".parse().unwrap())) {
            Some(Part::Address(address)) => Some(address.identity),
            _ => None,
        }
    };
    let number = address(&world).unwrap();
    assert_eq!(egress(&world).len(), 2);
    assert!(egress(&world).contains(&number));
    let only = json!({"endpointSelector": {}, "egress": [{"toCIDR": ["172.18.0.2/32"]}]});
    world.apply(mk_cnp("default", "p", 2, only));
    world.settle();
    assert_eq!(egress(&world), [number]);
    world.apply(mk_endpoint_slice("default", "kubernetes", &["192.168.0.1"], 6443));
    world.settle();
    assert_eq!((address(&world), egress(&world)), (None, vec![number]), "the prefix stays");
}
