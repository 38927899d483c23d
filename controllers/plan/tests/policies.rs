//! Policies: what is in force, and what their status says.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that lacks what it looks at has failed; builders take json!(…) as it is written"
)]

mod common;

use cilium_api::node_state::{AppliedState, Failure};
use cilium_api::parts::{Action, Part, PartKey, Policy};
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
        Part::Policy(policy) => Some((key, *policy)),
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
    assert_eq!(times, ["2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z", "2027-01-15T08:00:00Z"]);
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
    assert!(valid.starts_with("False Disabled: spec.egress[0].toNodes"), "{valid}");
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
    let message = "its 3 entries cannot all be written; what was in force before stays: map cilium_policy is full, its limit is 2 entries";
    let failure = |object: &str| Failure { object: object.into(), message: message.into() };
    assert_eq!(
        fail(&mut world, vec![failure(&part.0)], 1),
        format!("False NodeFailure: in force on 1 of 2 nodes; a: {message}")
    );
    assert_eq!(fail(&mut world, vec![failure("policy/9")], 1), "True InForce: in force on 2 of 2 nodes");
    assert_eq!(fail(&mut world, vec![failure("policy/9")], 2), "False Pending: in force on 1 of 2 nodes");
    assert_eq!(fail(&mut world, vec![], 0), "True InForce: in force on 2 of 2 nodes");
}

#[test]
fn a_pod_with_known_labels_costs_no_compilation() {
    let mut world = mk_world();
    world.apply(mk_node("c", 3));
    world.apply(mk_cnp("default", "rule1", 1, rule1()));
    world.settle();
    let before = world.planner.compilations();
    assert!(before > 0);
    for (name, node) in [("second", "a"), ("third", "c"), ("fourth", "c")] {
        world.apply(mk_pod("default", name, node, &["org=empire", "class=deathstar"]));
        world.settle();
        assert!(!policies(&world, node).is_empty());
    }
    assert_eq!(world.planner.compilations(), before);
    world.apply(mk_pod("default", "other", "c", &["org=empire", "class=cruiser"]));
    world.settle();
    // Its own, and that of the identity whose policy it is a peer of.
    assert_eq!(world.planner.compilations(), before + 2);
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
    assert!(left.keys().all(|key| !key.0.starts_with("identity/1") || *key.0 == *"identity/256"), "{left:?}");
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

/// Prefixes that a node's only pod may send to, by what their identities are labelled with; `world-ipv4` for all the rest of it.
fn reachable(world: &World) -> Vec<String> {
    let node = Agent(&world.store).node_parts("a").unwrap();
    let Some(Part::Policy(policy)) = node.get(&PartKey::policy(256)) else { panic!("{node:?}") };
    let shared = Agent(&world.store).shared_parts();
    let name = |peer: u32| match shared.get(&PartKey::identity(peer)) {
        Some(Part::Identity(identity)) => {
            identity.labels.iter().find_map(|label| label.strip_prefix("cidr:")).unwrap().to_owned()
        }
        _ => peer.to_string(),
    };
    let mut names: Vec<_> = policy.egress.allow.iter().map(|entry| name(entry.peer)).collect();
    names.sort();
    names
}

#[test]
fn a_group_changes_what_is_enforced_without_the_policy() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "web", "a", &["app=web"]));
    let spec = json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [
        {"cidrGroupRef": "servers", "except": ["10.1.0.0/16"]},
    ]}]});
    world.apply(mk_cnp("default", "p", 1, spec));
    world.settle();
    assert_eq!(world.condition("default", "p", "Valid"), "True Valid: Policy validation succeeded");
    assert_eq!(reachable(&world), Vec::<String>::new(), "no such group");

    world.apply(mk_group("servers", &[], &["10.0.0.0/8", "192.0.2.7/32"]));
    world.apply(mk_group("others", &[], &["198.51.100.0/24"]));
    world.settle();
    assert_eq!(reachable(&world), ["10.0.0.0/8", "192.0.2.7/32"]);
    let names: Vec<_> = prefixes(&world).into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(names, ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32"], "nobody is about the other group");

    world.apply(mk_group("servers", &[], &["10.0.0.0/9"]));
    world.settle();
    assert_eq!(reachable(&world), ["10.0.0.0/9"]);
    // What another policy names lies in the group as well.
    let other = json!({"endpointSelector": {"matchLabels": {"app": "other"}}, "egress": [{"toCIDR": ["10.2.0.0/16"]}]});
    world.apply(mk_cnp("default", "q", 1, other));
    world.settle();
    assert_eq!(reachable(&world), ["10.0.0.0/9", "10.2.0.0/16"]);

    world.restart();
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0, "a restart finds the same");
    world.apply(mk_group("servers", &[], &["0.0.0.0/0"]));
    world.settle();
    assert_eq!(reachable(&world), ["10.2.0.0/16", "9"], "all of IPv4 but what is left out");
    world.delete(&ObjectKey::cluster(Kind::CidrGroup, "servers"));
    world.settle();
    assert_eq!(reachable(&world), Vec::<String>::new());
    assert_eq!(prefixes(&world).len(), 2, "the policies' own prefixes");
}

#[test]
fn groups_by_label_are_each_taken_for_themselves() {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "web", "a", &["app=web"]));
    let spec = json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidrGroupSelector": {
        "matchLabels": {"stage": "test"}, "matchExpressions": [{"key": "closed", "operator": "DoesNotExist"}],
    }}]}]});
    world.apply(mk_cnp("default", "p", 1, spec));
    world.apply(mk_group("one", &["stage=test"], &["10.1.0.0/16", "10.9.0.0/16"]));
    world.apply(mk_group("two", &["stage=test"], &["10.2.0.0/16"]));
    world.apply(mk_group("live", &["stage=live", "closed=yes"], &["10.9.0.0/16", "10.3.0.0/16"]));
    world.settle();
    // Also what another group holds, with a label that the selector does not want.
    assert_eq!(reachable(&world), ["10.1.0.0/16", "10.2.0.0/16", "10.9.0.0/16"]);
    world.apply(mk_group("two", &["stage=live"], &["10.2.0.0/16"]));
    world.apply(mk_group("live", &["stage=test"], &["10.3.0.0/16"]));
    world.settle();
    assert_eq!(reachable(&world), ["10.1.0.0/16", "10.3.0.0/16", "10.9.0.0/16"]);
    world.delete(&ObjectKey::cluster(Kind::CidrGroup, "one"));
    world.settle();
    assert_eq!(reachable(&world), ["10.3.0.0/16"]);
}

#[test]
fn an_item_that_is_no_prefix_is_left_out_and_told() {
    let mut world = World::new(Config::default());
    world.planner.observe(mk_group("odd", &[], &["example.org", "::ffff:10.0.0.0/104"]).into());
    let output = world.planner.plan(world.now);
    let notes: Vec<_> = output.events.iter().map(|event| event.note.as_str()).collect();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("spec.externalCIDRs: \"example.org\" is not a prefix"), "{notes:?}");
}

fn mk_selecting_service(
    namespace: &str,
    name: &str,
    texts: &[&str],
    pods: &[&str],
) -> cilium_api::slim::Service {
    mk(json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels(texts)},
        "spec": {"clusterIPs": ["None"], "selector": labels(pods), "ports": [{"port": 80}]},
    }))
}

/// A cluster with a client in the namespace `default` (identity 256), servers there (257) and elsewhere (258).
fn mk_service_world(to_services: Value) -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_namespace("shop", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_pod("default", "client", "a", &["app=client"]));
    world.settle();
    world.apply(mk_pod("default", "server", "a", &["app=web"]));
    world.settle();
    world.apply(mk_pod("shop", "server", "a", &["app=web"]));
    let spec = json!({"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [{
        "toServices": to_services, "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
    }]});
    world.apply(mk_cnp("default", "p", 1, spec));
    world.settle();
    world
}

/// Who the client may send to.
fn peers(world: &World) -> Vec<u32> {
    let node = Agent(&world.store).node_parts("a").unwrap();
    let Some(Part::Policy(policy)) = node.get(&PartKey::policy(256)) else { panic!("{node:?}") };
    assert!(policy.egress.enforced);
    policy.egress.allow.iter().map(|entry| entry.peer).collect()
}

#[test]
fn a_service_stands_for_its_pods_as_it_changes() {
    let mut world = mk_service_world(json!([{"k8sService": {"serviceName": "web", "namespace": "shop"}}]));
    assert_eq!(peers(&world), Vec::<u32>::new(), "no such service: nobody, not everybody on the port");
    assert_eq!(world.condition("default", "p", "Valid"), "True Valid: Policy validation succeeded");
    world.apply(mk_selecting_service("default", "web", &[], &["app=web"]));
    world.settle();
    assert_eq!(peers(&world), Vec::<u32>::new(), "another namespace");
    world.apply(mk_selecting_service("shop", "web", &[], &["app=web"]));
    world.settle();
    assert_eq!(peers(&world), [258]);
    world.apply(mk_selecting_service("shop", "web", &[], &["app=db"]));
    world.settle();
    assert_eq!(peers(&world), Vec::<u32>::new());
    world.apply(mk_selecting_service("shop", "web", &[], &["app=web"]));
    world.settle();
    world.restart();
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0, "a restart finds the same");
    assert_eq!(peers(&world), [258]);
    world.delete(&ObjectKey::namespaced(Kind::Service, "shop", "web"));
    world.settle();
    assert_eq!(peers(&world), Vec::<u32>::new());
}

#[test]
fn services_by_label_in_one_namespace_or_in_any() {
    let selector = json!({"matchLabels": {"k8s:tier": "front"}});
    for (namespace, expected) in [(json!("shop"), vec![258]), (json!(null), vec![257, 258])] {
        let item = json!([{"k8sServiceSelector": {"selector": selector.clone(), "namespace": namespace}}]);
        let mut world = mk_service_world(item);
        for namespace in ["default", "shop"] {
            world.apply(mk_selecting_service(namespace, "web", &["tier=back"], &["app=web"]));
        }
        world.settle();
        assert_eq!(peers(&world), Vec::<u32>::new());
        for namespace in ["default", "shop"] {
            world.apply(mk_selecting_service(namespace, "web", &["tier=front"], &["app=web"]));
        }
        world.settle();
        assert_eq!(peers(&world), expected);
    }
}

#[test]
fn a_service_without_selector_stands_for_where_its_backends_are_outside() {
    let mut world = mk_service_world(json!([{"k8sService": {"serviceName": "db"}}]));
    world.apply(mk_service("shop", "db", "10.96.0.7", 80));
    world.apply(mk_endpoint_slice("shop", "db", &["192.0.2.7", "10.1.0.2", "192.168.0.1"], 5432));
    world.settle();
    let names: Vec<_> = prefixes(&world).into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(names, ["10.1.0.2/32", "192.0.2.7/32", "192.168.0.1/32"]);
    // Addresses of pods and nodes have the identities of these, so the prefixes around them mean nobody.
    assert_eq!(peers(&world).len(), 3);
    world.apply(mk_endpoint_slice("shop", "db", &["192.0.2.8"], 5432));
    world.settle();
    let names: Vec<_> = prefixes(&world).into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!((names, peers(&world).len()), (vec!["192.0.2.8/32".to_owned()], 1));
    world.delete(&ObjectKey::namespaced(Kind::EndpointSlice, "shop", "db-1"));
    world.settle();
    assert_eq!((prefixes(&world), peers(&world)), (vec![], vec![]));
}

/// A node with labels.
fn mk_labelled_node(name: &str, number: u8, texts: &[&str]) -> cilium_api::slim::Node {
    let mut node = mk_node(name, number);
    node.metadata.labels = Some(mk(labels(texts)));
    node
}

#[test]
fn nodes_are_peers_by_their_labels_where_that_is_turned_on() {
    let mut world = World::new(Config { node_selector_labels: true, ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_labelled_node("a", 1, &["zone=east"]));
    world.apply(mk_labelled_node("b", 2, &["zone=west"]));
    world.apply(mk_pod("default", "client", "a", &["app=client"]));
    let zone = |zone: &str| json!({"endpointSelector": {}, "egress": [{"toNodes": [{"matchLabels": {"zone": zone}}]}]});
    world.apply(mk_cnp("default", "p", 1, zone("west")));
    world.settle();
    let numbers = |world: &World| {
        let shared = Agent(&world.store).shared_parts();
        let number = |name: &str| match shared.get(&PartKey::node(name)) {
            Some(Part::Node(node)) => node.identity.unwrap(),
            other => panic!("{other:?}"),
        };
        [number("a"), number("b")]
    };
    let [east, west] = numbers(&world);
    assert_eq!((east >> 24, west >> 24), (2, 2));
    assert_eq!(peers(&world), [west]);
    world.restart();
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0, "a restart finds the same");

    world.apply(mk_labelled_node("b", 2, &["zone=east"]));
    world.settle();
    assert_eq!(
        (peers(&world), numbers(&world)),
        (vec![], [east, west]),
        "the number stays, its labels change"
    );
    world.apply(mk_cnp("default", "p", 2, zone("east")));
    world.settle();
    let mut both = [east, west];
    both.sort_unstable();
    assert_eq!(peers(&world), both);
    // The entity takes all of them, whichever there are.
    let entity = json!({"endpointSelector": {}, "egress": [{"toEntities": ["remote-node"]}]});
    world.apply(mk_cnp("default", "p", 3, entity));
    world.settle();
    assert_eq!(peers(&world), [6, 7, 14]);
    world.delete(&ObjectKey::cluster(Kind::Node, "b"));
    world.settle();
    let shared = Agent(&world.store).shared_parts();
    assert!(!shared.contains_key(&PartKey::identity(west)) && shared.contains_key(&PartKey::identity(east)));
}

#[test]
fn policies_of_kubernetes_are_in_force_without_a_status() {
    let mut world = mk_world();
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "moon"}}], "ports": [{"port": 80}]}]});
    world.apply(mk_netpol("default", "closed", 1, spec));
    world.deliver();
    let output = world.plan();
    let [event] = &output.events[..] else { panic!("{:?}", output.events) };
    assert_eq!(event.regarding, ObjectKey::namespaced(Kind::KubernetesNetworkPolicy, "default", "closed"));
    assert_eq!((event.reason, event.uid.as_str()), ("NotUnderstood", "netpol-default-closed"));
    assert!(
        event.note.starts_with("grants nothing: spec.ingress[0].from[0].ipBlock.cidr: "),
        "{}",
        event.note
    );
    world.settle();
    let [(_, policy)] = &policies(&world, "a")[..] else { panic!("one identity is closed") };
    assert!(policy.ingress.enforced && !policy.egress.enforced);
    assert!(policy.ingress.allow.iter().all(|entry| entry.origins.is_empty()), "{policy:?}");
    world.apply(mk_netpol("default", "closed", 2, json!({"podSelector": {}, "ingress": [{}]})));
    world.settle();
    assert_eq!(policies(&world, "a")[0].1.origins, ["netpol/default/closed"]);
    world.delete(&ObjectKey::namespaced(Kind::KubernetesNetworkPolicy, "default", "closed"));
    world.settle();
    assert_eq!(policies(&world, "a"), []);
}

#[test]
fn ordered_policies_are_in_force_as_far_as_they_are_understood() {
    let mut world = mk_world();
    let namespaces = json!({"namespaces": {}});
    let rules = json!([{"action": "Pass", "from": [{"moon": {}}], "protocols": [{"udp": {}}]}, {"action": "Accept", "from": [namespaces]}]);
    let spec = json!({"tier": "Admin", "priority": 1, "subject": namespaces, "ingress": rules});
    world.apply(mk_clusternetpol("a", 1, spec.clone()));
    world.deliver();
    let output = world.plan();
    let [event] = &output.events[..] else { panic!("{:?}", output.events) };
    assert_eq!(event.regarding, ObjectKey::cluster(Kind::ClusterNetworkPolicy, "a"));
    assert_eq!((event.reason, event.uid.as_str()), ("NotUnderstood", "clusternetpol-a"));
    assert!(
        event.note.starts_with("spec.ingress[0].from[0]: ")
            && event.note.ends_with("; the rule denies everybody")
    );
    world.settle();
    let [(_, policy)] = &policies(&world, "a")[..] else { panic!("one identity is restricted") };
    let steps: Vec<_> = policy.ingress.admin.iter().map(|step| (step.action, step.entries[0].peer)).collect();
    assert_eq!(steps, [(Action::Deny, 0), (Action::Accept, 11)]);
    assert_eq!(policy.origins, ["clusternetpol/a"]);
    // The same generation again changes and tells nothing.
    world.apply(mk_clusternetpol("a", 1, spec));
    world.deliver();
    assert!(world.plan().events.is_empty());
    world.delete(&ObjectKey::cluster(Kind::ClusterNetworkPolicy, "a"));
    world.settle();
    assert_eq!(policies(&world, "a"), []);
}

#[test]
fn a_policy_for_nodes_is_in_force_on_the_nodes_that_it_selects() {
    let mut world = World::new(Config { host_firewall: true, ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_labelled_node("a", 1, &["zone=east"]));
    world.apply(mk_labelled_node("b", 2, &["zone=west"]));
    world.apply(mk_pod("default", "web", "a", &["app=web"]));
    let spec = |zone: &str| json!({"nodeSelector": {"matchLabels": {"zone": zone}}, "ingress": [{"fromEntities": ["remote-node"]}]});
    world.apply(mk_ccnp("nodes", 1, spec("east")));
    // One for all endpoints selects no node, whatever labels it has.
    world.apply(mk_ccnp("pods", 1, json!({"endpointSelector": {}, "egress": [{}]})));
    world.settle();
    let host =
        |world: &World, node: &str| match Agent(&world.store).node_parts(node)?.get(&PartKey::policy(1))? {
            Part::Policy(policy) => Some(Policy::clone(policy)),
            other => panic!("{other:?}"),
        };
    let policy = host(&world, "a").unwrap();
    assert!(policy.ingress.enforced && !policy.egress.enforced);
    let peers: Vec<_> = policy.ingress.allow.iter().map(|entry| entry.peer).collect();
    assert_eq!(
        (peers, policy.origins),
        (vec![6, 7, 14], vec!["ccnp/nodes".to_owned()]),
        "and no implied entry"
    );
    assert_eq!(host(&world, "b"), None);
    let status = |world: &World| {
        let key = ObjectKey::cluster(Kind::ClusterwideNetworkPolicy, "nodes");
        match world.store.get(&key) {
            Some(Object::ClusterwideNetworkPolicy(policy)) => policy.status.clone().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (status(&world).enforced.as_deref(), status(&world).selected_endpoints),
        (Some("1/1"), Some(1))
    );

    world.restart();
    world.deliver();
    assert_eq!(count_output(&world.plan()), 0, "a restart finds the same");
    world.apply(mk_labelled_node("b", 2, &["zone=east"]));
    world.settle();
    assert!(host(&world, "b").is_some());
    assert_eq!(status(&world).enforced.as_deref(), Some("2/2"));
    world.apply(mk_ccnp("nodes", 2, spec("west")));
    world.settle();
    assert_eq!((host(&world, "a"), host(&world, "b")), (None, None));
    let shared = Agent(&world.store).shared_parts();
    assert!(
        shared.keys().all(|key| key.kind() != "identity" || *key.0 == *"identity/256"),
        "{:?}",
        shared.keys()
    );
    world.apply(mk_ccnp("nodes", 3, json!({"nodeSelector": {}, "egressDeny": [{"toEntities": ["world"]}]})));
    world.settle();
    assert!(host(&world, "b").unwrap().egress.enforced);
    world.delete(&ObjectKey::cluster(Kind::Node, "b"));
    world.settle();
    assert_eq!(status(&world).enforced.as_deref(), Some("1/1"));
}
