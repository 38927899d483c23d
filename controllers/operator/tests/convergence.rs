//! The operator's brain with the real planner against an API server in memory.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod world;

use cilium_plan::{Config, Kind, ObjectKey};
use serde_json::{Value, json};
use world::{World, mk_pod, mk_rule1, mk_starwars};

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().expect("the object has conditions");
    conditions.iter().find(|condition| condition["type"] == type_).expect("the condition is there")
}

fn policy_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::NetworkPolicy, "default", name)
}

/// Everything but versions, times and who applied what.
fn fingerprint(world: &World) -> Vec<(Kind, Value)> {
    let mut all = world.store.all();
    for (_, object) in &mut all {
        for field in ["resourceVersion", "uid", "creationTimestamp"] {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
    }
    all
}

#[test]
fn the_demo_is_planned_recorded_and_reported() {
    let mut world = World::on(mk_starwars());
    world.store.put(Kind::NetworkPolicy, mk_rule1());
    world.settle();
    world.ack_all();
    world.settle();
    assert_eq!(world.store.names(Kind::NodeState), ["n1", "n2"]);
    let endpoints = world.store.names(Kind::Endpoint);
    assert_eq!(endpoints, ["deathstar-1", "deathstar-2", "tiefighter", "xwing"]);
    assert_eq!(world.store.names(Kind::Identity).len(), 3);
    let policy = world.store.get(&policy_key("rule1")).unwrap();
    assert_eq!(condition(policy, "Valid")["status"], "True");
    assert_eq!(policy["status"]["enforced"], "2/2");
    assert_eq!(policy["status"]["selectedEndpoints"], 2);
}

#[test]
fn addresses_are_announced_and_a_restart_writes_nothing() {
    let config = || Config { l2_announcements: true, ..Config::default() };
    let mut world = World::with(mk_starwars(), config());
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]},
    });
    let policy = json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy",
        "metadata": {"name": "all", "generation": 1}, "spec": {"externalIPs": true},
    });
    world.store.put(Kind::Service, service);
    world.store.put(Kind::L2AnnouncementPolicy, policy);
    world.settle();
    world.ack_all();
    world.settle();
    let policy = world.store.get(&ObjectKey::cluster(Kind::L2AnnouncementPolicy, "all")).unwrap();
    assert_eq!(condition(policy, "Enforced")["message"], "in force on 2 of 2 nodes");
    let address = &policy["status"]["addresses"][0];
    assert_eq!((&address["address"], &address["services"]), (&json!("192.0.2.1"), &json!(["default/web"])));
    let mut restarted = World::with(world.store.clone(), config());
    restarted.settle();
    assert_eq!(restarted.written, Vec::<String>::new());
}

#[test]
fn a_restart_writes_nothing() {
    let mut world = World::on(mk_starwars());
    world.store.put(Kind::NetworkPolicy, mk_rule1());
    world.settle();
    world.ack_all();
    world.settle();
    let before = fingerprint(&world);
    let mut restarted = World::on(world.store.clone());
    restarted.settle();
    assert_eq!(restarted.written, Vec::<String>::new());
    assert_eq!(fingerprint(&restarted), before);
}

#[test]
fn a_restart_after_any_number_of_writes_ends_in_the_same_state() {
    let mut whole = World::on(mk_starwars());
    whole.store.put(Kind::NetworkPolicy, mk_rule1());
    whole.settle();
    let total = whole.written.len();
    for killed_after in 0..total {
        let mut world = World::on(mk_starwars());
        world.store.put(Kind::NetworkPolicy, mk_rule1());
        world.watch();
        let mut left = killed_after;
        while left > 0 {
            let jobs = world.plan();
            if jobs.is_empty() {
                break;
            }
            for job in jobs.iter().take(left) {
                world.carry_out(job);
            }
            left = left.saturating_sub(jobs.len());
            world.watch();
        }
        let addresses = addresses(&world);
        let mut restarted = World::on(world.store.clone());
        restarted.settle();
        for (pod, address) in addresses {
            let now = &self::addresses(&restarted);
            assert_eq!(now.get(&pod), Some(&address), "{pod} after a kill behind write {killed_after}");
        }
        assert_eq!(restarted.store.names(Kind::Endpoint).len(), 4);
        assert_eq!(restarted.store.names(Kind::Identity).len(), 3);
    }
}

/// Addresses that nodes were told, by part key.
fn addresses(world: &World) -> std::collections::BTreeMap<String, Value> {
    let mut found = std::collections::BTreeMap::new();
    for state in world.store.list(Kind::NodeState) {
        let Some(inline) = state["status"]["desired"]["inline"].as_str() else { continue };
        let parts: Value = serde_json::from_str(inline).unwrap();
        for (key, part) in parts.as_object().unwrap() {
            if key.starts_with("endpoint/") {
                found.insert(key.clone(), part["endpoint"].clone());
            }
        }
    }
    found
}

#[test]
fn writes_that_fail_are_repeated_until_all_is_there() {
    let mut world = World::on(mk_starwars());
    world.fails = |attempt| attempt % 3 != 0;
    world.store.put(Kind::NetworkPolicy, mk_rule1());
    world.settle();
    assert_eq!(world.store.names(Kind::Endpoint).len(), 4);
    assert_eq!(condition(world.store.get(&policy_key("rule1")).unwrap(), "Valid")["status"], "True");
}

#[test]
fn a_deposed_operator_cannot_undo_what_its_successor_wrote() {
    let mut old = World::on(mk_starwars());
    old.settle();
    // The old one has planned, and is cut off before it writes.
    old.store.put(Kind::Pod, mk_pod("late", "n1", &json!({"org": "empire"})));
    old.watch();
    let late = old.plan();
    assert!(late.iter().any(|job| job.object.to_string() == "CiliumNodeState n1"));
    // The new one leads, and the node gets another state in between.
    let mut new = World::on(old.store.clone());
    new.store.put(Kind::NetworkPolicy, mk_rule1());
    new.settle();
    let key = ObjectKey::cluster(Kind::NodeState, "n1");
    let state = new.store.get(&key).unwrap()["status"].clone();
    old.store = new.store.clone();
    let stale: Vec<_> = late.iter().filter(|job| job.object.to_string() == "CiliumNodeState n1").collect();
    for job in stale {
        let outcome = old.store.carry_out(job);
        assert!(matches!(outcome, cilium_runtime::writer::Outcome::Conflict(Some(_))), "{outcome:?}");
    }
    assert_eq!(old.store.get(&key).unwrap()["status"], state);
}

#[test]
fn a_policy_that_does_not_parse_says_so_and_stops_nothing() {
    let mut world = World::on(mk_starwars());
    world.store.put(Kind::NetworkPolicy, mk_rule1());
    world.settle();
    let enforced = world.store.get(&ObjectKey::cluster(Kind::NodeState, "n1")).unwrap()["status"].clone();
    let mut bad = mk_rule1();
    bad["metadata"]["name"] = json!("bad");
    bad["spec"]["ingress"] = json!("everything");
    world.store.put(Kind::NetworkPolicy, bad);
    // What was in force stays although its new version cannot be read.
    world.store.edit(&policy_key("rule1"), |policy| {
        policy["metadata"]["generation"] = json!(2);
        policy["spec"]["ingress"] = json!(7);
    });
    world.settle();
    for name in ["bad", "rule1"] {
        let policy = world.store.get(&policy_key(name)).unwrap();
        assert_eq!(condition(policy, "Valid")["status"], "False", "{name}");
    }
    let now = &world.store.get(&ObjectKey::cluster(Kind::NodeState, "n1")).unwrap()["status"];
    assert_eq!(now, &enforced);
    world.store.put(Kind::Pod, mk_pod("another", "n1", &json!({"org": "empire"})));
    world.settle();
    assert!(world.store.names(Kind::Endpoint).contains(&"another".to_owned()));
}

#[test]
fn a_node_opens_when_its_agent_has_applied_its_first_state() {
    let mut world = World::on(mk_starwars());
    world.settle();
    let key = ObjectKey::cluster(Kind::Node, "n1");
    assert_eq!(world.store.get(&key).unwrap()["spec"]["taints"].as_array().unwrap().len(), 1);
    world.ack_all();
    world.settle();
    let node = world.store.get(&key).unwrap();
    assert!(node["spec"]["taints"].as_array().unwrap().is_empty());
    assert_eq!(condition(node, "NetworkUnavailable")["reason"], "CiliumIsUp");
}

#[test]
fn a_pod_that_goes_takes_its_records_along() {
    let mut world = World::on(mk_starwars());
    world.settle();
    world.store.remove(&ObjectKey::namespaced(Kind::Pod, "default", "xwing"));
    world.settle();
    assert!(!world.store.names(Kind::Endpoint).contains(&"xwing".to_owned()));
    assert!(!addresses(&world).contains_key("endpoint/default/xwing"));
}

#[test]
fn records_that_somebody_deletes_come_back() {
    let mut world = World::on(mk_starwars());
    world.settle();
    let before = addresses(&world);
    world.store.remove(&ObjectKey::namespaced(Kind::Endpoint, "default", "xwing"));
    world.store.remove(&ObjectKey::cluster(Kind::NodeState, "n1"));
    let identity = world.store.names(Kind::Identity).remove(0);
    world.store.remove(&ObjectKey::cluster(Kind::Identity, &identity));
    world.settle();
    assert!(world.store.names(Kind::Endpoint).contains(&"xwing".to_owned()));
    assert!(world.store.names(Kind::Identity).contains(&identity));
    assert_eq!(addresses(&world), before);
}
