//! Pods with addresses out of pools: who gets which, what nodes are told, and what stays over a restart.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use cilium_api::parts::{Part, PartKey};
use cilium_api::slim::Pod;
use cilium_api::{CiliumNode, CiliumPodIPPool};
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::{Value, json};

#[expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]
fn mk_pool(name: &str, spec: Value) -> CiliumPodIPPool {
    mk(
        json!({"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool", "metadata": {"name": name}, "spec": spec}),
    )
}

fn of_prefix(name: &str, cidr: &str, mask: u8) -> CiliumPodIPPool {
    mk_pool(name, json!({"ipv4": {"cidrs": [cidr], "maskSize": mask}}))
}

fn asking(mut pod: Pod, pool: &str) -> Pod {
    pod.metadata.annotations = Some([("ipam.cilium.io/ip-pool".to_owned(), pool.to_owned())].into());
    pod
}

fn mk_world() -> World {
    let mut world = World::new(Config { ipv6: false, pod_pools: true, ..Config::default() });
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    world.apply(mk_node("b", 2));
    world.apply(of_prefix("default", "10.64.0.0/16", 27));
    world
}

fn public(world: &World, node: &str) -> Box<CiliumNode> {
    match world.store.get(&ObjectKey::cluster(Kind::CiliumNode, node)) {
        Some(Object::CiliumNode(object)) => object.clone(),
        other => panic!("no CiliumNode: {other:?}"),
    }
}

fn ipam(world: &World, node: &str) -> Value {
    serde_json::to_value(public(world, node).spec.ipam.as_ref().unwrap()).unwrap()
}

fn part(world: &World, node: &str) -> cilium_api::parts::Node {
    match Agent(&world.store).shared_parts().get(&PartKey::node(node)) {
        Some(Part::Node(part)) => part.clone(),
        other => panic!("no part: {other:?}"),
    }
}

#[test]
fn pods_get_addresses_of_their_pools_and_nodes_blocks_of_these() {
    let mut world = mk_world();
    world.apply(of_prefix("red", "10.9.0.0/24", 28));
    world.apply(mk_pod("default", "x", "a", &[]));
    world.apply(asking(mk_pod("default", "y", "a", &[]), "red"));
    world.settle();
    assert_eq!(world.addresses("a", "default", "x"), ["10.64.0.2"]);
    assert_eq!(world.addresses("a", "default", "y"), ["10.9.0.1"]);
    let pools =
        json!([{"pool": "default", "cidrs": ["10.64.0.0/27"]}, {"pool": "red", "cidrs": ["10.9.0.0/28"]}]);
    assert_eq!(ipam(&world, "a"), json!({"pools": {"allocated": pools}}));
    let told = part(&world, "a");
    assert_eq!(told.pod_cidrs, ["10.64.0.0/27", "10.9.0.0/28"]);
    assert_eq!(told.routers, ["10.64.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(part(&world, "b").pod_cidrs, ["10.64.0.32/27"], "its router has an address");
}

#[test]
fn a_pod_waits_for_its_pool_and_says_so() {
    let mut world = mk_world();
    world.apply(asking(mk_pod("default", "x", "a", &[]), "red"));
    world.deliver();
    let events = world.plan().events;
    let told: Vec<_> = events.iter().map(|event| (event.reason, &*event.note)).collect();
    let expected =
        "no address of IPv4: there is no CiliumPodIPPool red; make it, or let the pod use another pool";
    assert_eq!(told, [("NetworkNotPlanned", expected)]);
    world.apply(of_prefix("red", "10.9.0.0/32", 32));
    world.apply(asking(mk_pod("default", "y", "b", &[]), "red"));
    world.deliver();
    let events = world.plan().events;
    assert!(
        events[0].note.starts_with("CiliumPodIPPool red has no free block of IPv4 for node b: "),
        "{events:?}"
    );
    world.settle();
    assert_eq!(world.addresses("a", "default", "x"), ["10.9.0.0"]);
    world.delete(&ObjectKey::namespaced(Kind::Pod, "default", "x"));
    world.settle();
    assert_eq!(world.addresses("b", "default", "y"), ["10.9.0.0"], "what one node gives back is for another");
}

#[test]
fn a_restart_moves_nothing_whether_blocks_are_on_record_or_not() {
    let mut world = mk_world();
    world.apply(of_prefix("red", "10.9.0.0/24", 32));
    for name in ["x", "y", "z"] {
        world.apply(asking(mk_pod("default", name, "a", &[]), "red"));
    }
    world.settle();
    world.delete(&ObjectKey::namespaced(Kind::Pod, "default", "y"));
    world.settle();
    let (before, blocks) = (part(&world, "a"), ipam(&world, "a"));
    assert_eq!(before.pod_cidrs, ["10.64.0.0/27", "10.9.0.0/32", "10.9.0.1/32", "10.9.0.2/32"]);
    let writes = world.writes;
    world.restart();
    world.settle();
    assert_eq!((part(&world, "a"), ipam(&world, "a"), world.writes), (before, blocks, writes));
    // Written after pods were told to nodes, and lost.
    world.delete(&ObjectKey::cluster(Kind::CiliumNode, "a"));
    world.restart();
    world.settle();
    assert_eq!(world.addresses("a", "default", "x"), ["10.9.0.0"]);
    assert_eq!(world.addresses("a", "default", "z"), ["10.9.0.2"]);
    assert_eq!(part(&world, "a").pod_cidrs, ["10.64.0.0/27", "10.9.0.0/32", "10.9.0.2/32"]);
}
