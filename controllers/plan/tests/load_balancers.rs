//! Addresses of load balancers: what is written, over what, and what is written again.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::condition::Condition;
use cilium_api::slim::Service;
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::json;

fn mk_pool(name: &str, cidr: &str) -> CiliumLoadBalancerIPPool {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": name, "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"blocks": [{"cidr": cidr}]},
    }))
}

fn mk_balanced(name: &str) -> Service {
    mk(json!({
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]},
    }))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::Service, "shop", name)
}

fn service(world: &World, name: &str) -> Service {
    match world.store.get(&key(name)) {
        Some(Object::Service(service)) => (**service).clone(),
        other => panic!("{other:?}"),
    }
}

fn addresses(world: &World, name: &str) -> Vec<String> {
    let ingress = service(world, name).status.load_balancer.ingress;
    ingress.into_iter().filter_map(|it| it.ip).collect()
}

fn pool_conditions(world: &World, name: &str) -> Vec<Condition> {
    match world.store.get(&ObjectKey::cluster(Kind::LoadBalancerPool, name)) {
        Some(Object::LoadBalancerPool(pool)) => pool.status.clone().unwrap().conditions.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_gets_an_address_and_the_pool_says_what_is_left() {
    let mut world = World::new(Config::default());
    world.apply(mk_balanced("web"));
    world.settle();
    assert!(addresses(&world, "web").is_empty() && service(&world, "web").status.conditions.is_empty());
    world.apply(mk_pool("p", "192.0.2.0/30"));
    world.settle();
    assert_eq!(addresses(&world, "web"), ["192.0.2.0"]);
    let condition = service(&world, "web").status.conditions.pop().unwrap();
    assert_eq!(
        (condition.type_.as_str(), condition.status.as_str()),
        ("cilium.io/IPAMRequestSatisfied", "True")
    );
    assert_eq!(condition.last_transition_time.as_deref(), Some("2027-01-15T08:00:00Z"));
    let available =
        pool_conditions(&world, "p").into_iter().find(|it| it.type_ == "cilium.io/IPsAvailable").unwrap();
    assert_eq!((available.message.as_deref(), available.observed_generation), (Some("3"), Some(3)));
    let writes = world.writes;
    world.settle();
    world.restart();
    world.settle();
    assert_eq!(world.writes, writes, "what stands is not written again");
}

#[test]
fn conditions_of_others_stay() {
    let mut world = World::new(Config::default());
    let mut web = mk_balanced("web");
    web.status.conditions.push(Condition {
        type_: "example.org/Ready".into(),
        status: "True".into(),
        ..Condition::default()
    });
    world.apply(web);
    world.apply(mk_pool("p", "192.0.2.0/30"));
    world.settle();
    let types: Vec<String> =
        service(&world, "web").status.conditions.into_iter().map(|it| it.type_).collect();
    assert_eq!(types, ["example.org/Ready", "cilium.io/IPAMRequestSatisfied"]);
}

#[test]
fn a_write_over_another_state_is_planned_again() {
    let mut world = World::new(Config::default());
    world.apply(mk_pool("p", "192.0.2.0/30"));
    world.apply(mk_balanced("web"));
    world.deliver();
    let output = world.planner.plan(world.now);
    let mut other = mk_balanced("web");
    other.status.load_balancer = mk(json!({"ingress": [{"ip": "203.0.113.9"}]}));
    other.metadata.managed_fields = Some(vec![mk_writer("somebody")]);
    world.apply(other);
    world.write_output(&output, &mut |_| Fate::Succeeds);
    world.settle();
    assert_eq!(addresses(&world, "web"), ["203.0.113.9"], "another controller was first");
    world.apply(mk_balanced("web"));
    world.settle();
    assert_eq!(addresses(&world, "web"), ["192.0.2.0"], "what was not given is free again");
}

#[test]
fn an_address_whose_write_may_have_been_made_is_given_to_nobody_else() {
    for fate in [Fate::Fails, Fate::Vanishes] {
        let mut world = World::new(Config::default());
        world.apply(mk_pool("p", "192.0.2.0/30"));
        world.apply(mk_balanced("b"));
        world.deliver();
        let output = world.planner.plan(world.now);
        assert_eq!(output.load_balancers.len(), 1);
        world.write_output(&output, &mut |_| fate);
        // It would go first.
        world.apply(mk_balanced("a"));
        world.settle();
        assert_eq!(
            (addresses(&world, "b").concat(), addresses(&world, "a").concat()),
            ("192.0.2.0".into(), "192.0.2.1".into())
        );
    }
}

#[test]
fn what_goes_is_given_back() {
    let mut world = World::new(Config::default());
    world.apply(mk_pool("p", "192.0.2.0/32"));
    world.apply(mk_balanced("a"));
    world.settle();
    world.apply(mk_balanced("b"));
    world.settle();
    assert_eq!(service(&world, "b").status.conditions[0].reason.as_deref(), Some("out_of_ips"));
    world.delete(&key("a"));
    world.settle();
    assert_eq!(addresses(&world, "b"), ["192.0.2.0"]);
    world.delete(&ObjectKey::cluster(Kind::LoadBalancerPool, "p"));
    world.settle();
    assert!(addresses(&world, "b").is_empty());
    assert_eq!(service(&world, "b").status.conditions[0].reason.as_deref(), Some("no_pool"));
}

#[test]
fn a_pool_is_warned_of_before_it_stands_in_the_way() {
    let mut world = World::new(Config::default());
    world.apply(mk_pool("p", "192.0.2.0/30"));
    world.settle();
    let mut pool = mk_pool("q", "192.0.2.2/31");
    pool.metadata.creation_timestamp = None;
    let expected = "it gives no addresses: Pool conflicts since range '192.0.2.2 - 192.0.2.3' overlaps range '192.0.2.0 - 192.0.2.3' from IP Pool 'p'";
    assert_eq!(world.planner.advise(&pool.into()), [expected]);
}

#[test]
fn nothing_is_done_when_it_is_switched_off() {
    let mut world = World::new(Config { lb_ipam: false, ..Config::default() });
    world.apply(mk_pool("p", "192.0.2.0/30"));
    world.apply(mk_balanced("web"));
    world.settle();
    assert!(addresses(&world, "web").is_empty() && service(&world, "web").status.conditions.is_empty());
    let pool = world.store.get(&ObjectKey::cluster(Kind::LoadBalancerPool, "p"));
    assert!(matches!(pool, Some(Object::LoadBalancerPool(pool)) if pool.status.is_none()));
}
