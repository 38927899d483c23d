//! What of policies has no effect: as a condition, and before they are stored.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_plan::{Config, Object};
use common::*;
use serde_json::{Value, json};

/// A server on node `a`, and a client on node `b`.
fn mk_world() -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_pod("default", "server", "a", &["app=server"]));
    world.apply(mk_pod("default", "client", "b", &["app=client"]));
    world.settle();
    world
}

fn allow(subject: &str, peer: &str) -> Value {
    json!({
        "endpointSelector": {"matchLabels": {"app": subject}},
        "ingress": [{
            "fromEndpoints": [{"matchLabels": {"app": peer}}], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
        }],
    })
}

fn deny(port: &str) -> Value {
    json!({
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingressDeny": [{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}]}],
    })
}

fn effective(world: &mut World, name: &str) -> String {
    world.settle();
    let found = world.condition("default", name, "Effective");
    // What a planner says that followed all changes, one says that begins with their result.
    world.restart();
    world.settle();
    assert_eq!(world.condition("default", name, "Effective"), found);
    found
}

const EFFECTIVE: &str = "True Effective: all rules have endpoints and peers, none is denied";

#[test]
fn the_condition_follows_pods() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule", 1, allow("server", "client")));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    world.delete(&key_of(&mk_pod("default", "client", "b", &[]).into()));
    assert_eq!(effective(&mut world, "rule"), "False NoPeer: spec.ingress[0]: no peer matches");
    world.apply(mk_pod("default", "client-2", "a", &["app=client"]));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    world.delete(&key_of(&mk_pod("default", "server", "a", &[]).into()));
    assert_eq!(effective(&mut world, "rule"), "False NoEndpoint: spec selects no endpoint");
    world.apply(mk_pod("default", "server", "b", &["app=server"]));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
}

#[test]
fn the_condition_follows_denials_of_other_policies() {
    let mut world = mk_world();
    world.apply(mk_cnp("default", "rule", 1, allow("server", "client")));
    world.settle();
    world.apply(mk_cnp("default", "wall", 1, deny("443")));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    world.apply(mk_cnp("default", "wall", 2, deny("80")));
    assert_eq!(
        effective(&mut world, "rule"),
        "False Denied: spec.ingress[0].toPorts[0] allows only what is denied by cnp/default/wall spec.ingressDeny[0].toPorts[0]"
    );
    assert_eq!(effective(&mut world, "wall"), EFFECTIVE);
    // A pod of another namespace that the rule allows is not denied.
    let mut wider = allow("server", "client");
    wider["ingress"][0]["fromEndpoints"] = json!([{"matchExpressions": [
        {"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}, {"key": "app", "operator": "In", "values": ["client"]},
    ]}]);
    world.apply(mk_cnp("default", "rule", 2, wider));
    assert!(effective(&mut world, "rule").starts_with("False Denied"));
    world.apply(mk_namespace("other", &[]));
    world.apply(mk_pod("other", "client", "b", &["app=client"]));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
}

#[test]
fn the_message_is_short_however_much_has_no_effect() {
    let mut world = mk_world();
    let long = "x".repeat(60);
    let entries: Vec<Value> = (0..200)
        .map(|number| json!({"fromEndpoints": [{"matchLabels": {"app": format!("{long}{number}")}}]}))
        .collect();
    world.apply(mk_cnp("default", "rule", 1, json!({"endpointSelector": {}, "ingress": entries})));
    let message = effective(&mut world, "rule");
    assert!(
        message.starts_with("False NoPeer: spec.ingress[0]: no peer matches; spec.ingress[1]"),
        "{message}"
    );
    assert!(message.ends_with("; 197 more parts have no effect") && message.len() < 600, "{message}");
}

#[test]
fn prefixes_entities_and_rules_for_nobody_are_no_mistake() {
    let mut world = mk_world();
    let spec = json!({
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{}, {"fromCIDR": ["192.0.2.0/24"]}, {"fromEntities": ["world", "host", "ingress"]}],
        "egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}],
    });
    let policy = mk_cnp("default", "rule", 1, spec);
    assert_eq!(world.planner.advise(&Object::from(policy.clone())), Vec::<String>::new());
    world.apply(policy);
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
}

#[test]
fn advice_is_what_the_condition_would_say_and_leaves_no_trace() {
    let mut world = mk_world();
    let advise =
        |world: &World, spec: Value| world.planner.advise(&mk_cnp("default", "rule", 1, spec).into());
    assert_eq!(advise(&world, allow("server", "client")), Vec::<String>::new());
    assert_eq!(advise(&world, allow("nobody", "client")), ["spec selects no endpoint"]);
    assert_eq!(advise(&world, allow("server", "nobody")), ["spec.ingress[0]: no peer matches"]);
    let mut own = allow("server", "client");
    own["ingressDeny"] = json!([{"fromEndpoints": [{}]}]);
    let by_itself =
        ["spec.ingress[0].toPorts[0] allows only what is denied by cnp/default/rule spec.ingressDeny[0]"];
    assert_eq!(advise(&world, own.clone()), by_itself);
    world.apply(mk_cnp("default", "rule", 1, own));
    world.settle();
    // The version in force does not count against the one that takes its place.
    assert_eq!(advise(&world, allow("server", "client")), Vec::<String>::new());
    let before = world.writes;
    world.settle();
    assert_eq!(world.writes, before);
}

#[test]
fn a_refused_policy_is_stalled_until_it_is_corrected() {
    let mut world = mk_world();
    let bad = json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]});
    world.apply(mk_cnp("default", "rule", 1, bad));
    world.settle();
    assert!(
        world
            .condition("default", "rule", "Stalled")
            .starts_with("True Malformed: spec.ingress[0].toPorts[0]")
    );
    assert!(world.condition("default", "rule", "Effective").starts_with("False NotValid"));
    world.apply(mk_cnp("default", "rule", 2, allow("server", "client")));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    let conditions = world.status("default", "rule").conditions.unwrap();
    assert!(
        conditions.iter().all(|it| it.type_ != "Stalled" && it.observed_generation == Some(2)),
        "{conditions:?}"
    );
}

#[test]
fn peers_that_are_not_there_are_nobody() {
    let mut world = mk_world();
    let subject = json!({"matchLabels": {"app": "client"}});
    let egress = |entry: Value| json!({"endpointSelector": subject, "egress": [entry]});
    let nobody = "False NoPeer: spec.egress[0]: no peer matches";

    let service = json!({"toServices": [{"k8sService": {"serviceName": "web", "namespace": "default"}}]});
    world.apply(mk_cnp("default", "service", 1, egress(service)));
    assert_eq!(effective(&mut world, "service"), nobody);
    let group = json!({"toCIDRSet": [{"cidrGroupRef": "partners"}]});
    world.apply(mk_cnp("default", "group", 1, egress(group)));
    assert_eq!(effective(&mut world, "group"), nobody);

    world.apply(mk_group("partners", &[], &["192.0.2.0/24"]));
    assert_eq!(effective(&mut world, "group"), EFFECTIVE);
    world.apply(mk_group("partners", &[], &[]));
    assert_eq!(effective(&mut world, "group"), nobody);
    world.apply(mk_group("partners", &[], &["198.51.100.0/24"]));
    assert_eq!(effective(&mut world, "group"), EFFECTIVE);
    // Another policy keeps the prefix alive when it leaves the group.
    world.apply(mk_cnp("default", "prefix", 1, egress(json!({"toCIDR": ["198.51.100.0/24"]}))));
    assert_eq!(effective(&mut world, "prefix"), EFFECTIVE);
    world.apply(mk_group("partners", &[], &[]));
    assert_eq!(effective(&mut world, "group"), nobody);
    world.delete(&key_of(&mk_group("partners", &[], &[]).into()));
    assert_eq!(effective(&mut world, "group"), nobody);

    // Names are learned later.
    world.apply(mk_cnp("default", "name", 1, egress(json!({"toFQDNs": [{"matchName": "example.com"}]}))));
    world.apply(mk_cnp("default", "questions", 1, egress(questions())));
    assert_eq!(effective(&mut world, "name"), EFFECTIVE);
    world.apply(mk_cnp("default", "world", 1, egress(json!({"toEntities": ["world"]}))));
    assert_eq!(effective(&mut world, "world"), EFFECTIVE);
}

/// An entry that lets pods ask the server for every name.
fn questions() -> Value {
    json!({
        "toEndpoints": [{"matchLabels": {"app": "server"}}],
        "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
    })
}

#[test]
fn names_that_no_selected_pod_is_heard_to_ask_for_have_no_effect() {
    let mut world = mk_world();
    let rule = |subject: &Value, entries: Value| json!({"endpointSelector": subject, "egress": entries});
    let client = json!({"matchLabels": {"app": "client"}});
    let name = json!({"toFQDNs": [{"matchName": "example.com"}], "toPorts": [{"ports": [{"port": "443"}]}]});
    let unheard = "spec.egress[0]: no rule with rules.dns selects the same pods, so no addresses of these names are known";
    let idle = format!("False NoQuestion: {unheard}");
    let advise = |world: &World, spec: &Value| {
        world.planner.advise(&mk_cnp("default", "rule", 1, spec.clone()).into())
    };
    let alone = rule(&client, json!([name]));
    assert_eq!(advise(&world, &alone), [unheard]);
    assert_eq!(advise(&world, &rule(&client, json!([name, questions()]))), Vec::<String>::new());
    world.apply(mk_cnp("default", "rule", 1, alone.clone()));
    assert_eq!(effective(&mut world, "rule"), idle);
    // Another policy that selects the same pods will do, one for others will not.
    world.apply(mk_cnp(
        "default",
        "dns",
        1,
        rule(&json!({"matchLabels": {"app": "server"}}), json!([questions()])),
    ));
    assert_eq!(effective(&mut world, "rule"), idle);
    world.apply(mk_cnp("default", "dns", 2, rule(&json!({}), json!([questions()]))));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    assert_eq!(advise(&world, &alone), Vec::<String>::new());
    // Without a server, nobody answers.
    world.delete(&key_of(&mk_pod("default", "server", "a", &[]).into()));
    world.settle();
    let mut elsewhere = questions();
    elsewhere["toEndpoints"][0]["matchLabels"]["app"] = json!("nobody");
    world.apply(mk_cnp("default", "dns", 3, rule(&json!({}), json!([elsewhere]))));
    assert_eq!(effective(&mut world, "rule"), idle);
    world.apply(mk_pod("default", "late", "a", &["app=nobody"]));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
    world.delete(&key_of(&mk_cnp("default", "dns", 3, json!({})).into()));
    assert_eq!(effective(&mut world, "rule"), idle);
}

#[test]
fn one_of_the_selected_pods_is_enough_for_a_node_to_know_names() {
    let mut world = mk_world();
    let name = json!({"toFQDNs": [{"matchName": "example.com"}]});
    world.apply(mk_cnp("default", "rule", 1, json!({"endpointSelector": {}, "egress": [name]})));
    let dns = json!({"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [questions()]});
    assert!(effective(&mut world, "rule").starts_with("False NoQuestion"));
    world.apply(mk_cnp("default", "dns", 1, dns));
    assert_eq!(effective(&mut world, "rule"), EFFECTIVE);
}
