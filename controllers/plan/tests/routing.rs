//! BGP: what nodes are told, what all of them share, and what stands in the API.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]
#![allow(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]

mod common;

use std::collections::BTreeMap;

use cilium_api::bgp::{BgpInstance, BgpPeerAddress, BgpSecret};
use cilium_api::parts::{Part, PartKey};
use cilium_api::slim::{EndpointSlice, Secret, Service};
use cilium_api::{CiliumBGPAdvertisement, CiliumBGPClusterConfig, CiliumBGPNodeConfig, CiliumBGPPeerConfig};
use cilium_plan::{Config, Kind, Object, ObjectKey};
use common::*;
use serde_json::{Value, json};

fn mk_config() -> Config {
    Config { bgp: Some(Default::default()), ..Config::default() }
}

fn mk_cluster(name: &str, created: &str, asn: u32) -> CiliumBGPClusterConfig {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumBGPClusterConfig",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 3, "creationTimestamp": created},
        "spec": {"bgpInstances": [{
            "name": "rack", "localASN": asn,
            "peers": [{"name": "tor", "peerAddress": "192.0.2.254", "peerASN": 64500, "peerConfigRef": {"name": "tor"}}],
        }]},
    }))
}

fn mk_peer(spec: Value) -> CiliumBGPPeerConfig {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumBGPPeerConfig",
        "metadata": {"name": "tor", "generation": 1}, "spec": spec,
    }))
}

fn families() -> Value {
    json!([{"afi": "ipv4", "safi": "unicast", "advertisements": {"matchLabels": {"to": "tor"}}}])
}

fn mk_advertisement() -> CiliumBGPAdvertisement {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumBGPAdvertisement",
        "metadata": {"name": "a", "labels": {"to": "tor"}},
        "spec": {"advertisements": [
            {"advertisementType": "PodCIDR"},
            {
                "advertisementType": "Service", "service": {"addresses": ["LoadBalancerIP"]},
                "selector": {"matchLabels": {"io.kubernetes.service.namespace": "shop"}},
            },
        ]},
    }))
}

fn mk_service(traffic: &str) -> Service {
    mk(json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "nodePort": 30080}],
            "externalTrafficPolicy": traffic,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}},
    }))
}

fn mk_backend(node: &str) -> EndpointSlice {
    mk(json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.1.0.9"], "nodeName": node, "conditions": {"ready": true}}],
    }))
}

fn mk_world() -> World {
    let mut world = World::new(mk_config());
    for (number, name) in (1..).zip(["n1", "n2"]) {
        world.apply(mk_node(name, number));
    }
    world.apply(mk_cluster("one", "2026-01-01T00:00:00Z", 64512));
    world.apply(mk_peer(json!({"families": families()})));
    world.apply(mk_advertisement());
    world.apply(mk_service("Cluster"));
    world.apply(mk_backend("n1"));
    world.settle();
    world
}

/// Parts of a node of a kind, by key.
fn told(world: &World, node: &str, kind: &str) -> BTreeMap<String, Part> {
    let key = ObjectKey::cluster(Kind::NodeState, node);
    let Some(Object::NodeState(state)) = world.store.get(&key) else { panic!("{node} has no state") };
    let inline = state.status.clone().unwrap().desired.unwrap().inline.unwrap();
    let parts: BTreeMap<PartKey, Part> = serde_json::from_str(&inline).unwrap();
    parts
        .into_iter()
        .filter(|(key, _)| key.kind() == kind)
        .map(|(key, part)| (key.0.to_string(), part))
        .collect()
}

fn names(parts: &BTreeMap<String, Part>) -> Vec<&str> {
    parts.keys().map(String::as_str).collect()
}

fn instance(world: &World, node: &str) -> BgpInstance {
    match told(world, node, "bgp").remove("bgp/rack") {
        Some(Part::Bgp(instance)) => *instance,
        other => panic!("{other:?}"),
    }
}

/// Keys of routes that all nodes share.
fn shared(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for object in world.store.objects() {
        let Object::Slice(slice) = object else { continue };
        if let Ok(parts) = cilium_api::digest::decode(&slice.spec.data) {
            found.extend(
                parts.into_iter().filter(|(key, _)| key.kind() == "route").map(|(key, _)| key.0.to_string()),
            );
        }
    }
    found
}

fn node_config(world: &World, node: &str) -> Option<CiliumBGPNodeConfig> {
    match world.store.get(&ObjectKey::cluster(Kind::BgpNodeConfig, node)) {
        Some(Object::BgpNodeConfig(config)) => Some((**config).clone()),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// Type, status and reason of the conditions.
fn conditions(world: &World, kind: Kind, name: &str) -> Vec<String> {
    let status = match world.store.get(&ObjectKey::cluster(kind, name)) {
        Some(Object::BgpClusterConfig(config)) => config.status.clone(),
        Some(Object::BgpPeerConfig(config)) => config.status.clone(),
        other => panic!("{other:?}"),
    };
    let all = status.unwrap_or_default().conditions.unwrap_or_default();
    all.iter()
        .map(|it| format!("{} {} {}", it.type_, it.status, it.reason.as_deref().unwrap_or_default()))
        .collect()
}

#[test]
fn nodes_are_told_of_sessions_and_all_of_routes() {
    let mut world = mk_world();
    let rack = instance(&world, "n1");
    assert_eq!((rack.asn, rack.peers.len(), rack.advertisements.len()), (64512, 1, 2));
    assert_eq!(rack.peers["tor"].address, BgpPeerAddress::At("192.0.2.254".parse().unwrap()));
    assert_eq!(names(&told(&world, "n1", "nodeRoute")).len(), 2, "its prefixes of both families");
    assert_eq!(shared(&world), ["route/198.51.100.1/32"]);

    world.apply(mk_service("Local"));
    world.settle();
    assert_eq!(shared(&world), Vec::<String>::new());
    assert!(told(&world, "n1", "nodeRoute").contains_key("nodeRoute/198.51.100.1/32"));
    assert!(!told(&world, "n2", "nodeRoute").contains_key("nodeRoute/198.51.100.1/32"));
    world.apply(mk_backend("n2"));
    world.settle();
    assert!(!told(&world, "n1", "nodeRoute").contains_key("nodeRoute/198.51.100.1/32"));
    assert!(told(&world, "n2", "nodeRoute").contains_key("nodeRoute/198.51.100.1/32"));
}

#[test]
fn every_node_has_a_config_of_the_oldest_that_selects_it() {
    let mut world = mk_world();
    let config = node_config(&world, "n2").unwrap();
    assert_eq!(config.metadata.owner_references.as_ref().unwrap()[0].uid, "uid-one");
    assert_eq!(config.spec.bgp_instances[0].local_asn, Some(64512));

    world.apply(mk_cluster("older", "2025-01-01T00:00:00Z", 64513));
    world.settle();
    assert_eq!(instance(&world, "n2").asn, 64513);
    let config = node_config(&world, "n2").unwrap();
    assert_eq!(config.metadata.owner_references.as_ref().unwrap()[0].uid, "uid-older");
    let conflict = "cilium.io/ConflictingClusterConfig True ClusterConfigConflict".to_owned();
    assert!(conditions(&world, Kind::BgpClusterConfig, "one").contains(&conflict));
    assert!(!conditions(&world, Kind::BgpClusterConfig, "older").contains(&conflict));

    for name in ["one", "older"] {
        world.delete(&ObjectKey::cluster(Kind::BgpClusterConfig, name));
    }
    world.settle();
    assert_eq!(node_config(&world, "n2"), None);
    assert_eq!(names(&told(&world, "n2", "bgp")), Vec::<&str>::new());
    assert_eq!(shared(&world), Vec::<String>::new());
}

#[test]
fn a_config_that_somebody_else_made_is_left_alone() {
    let mut world = World::new(mk_config());
    world.apply(mk_node("n1", 1));
    let theirs: CiliumBGPNodeConfig = mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumBGPNodeConfig", "metadata": {"name": "n1"},
        "spec": {"bgpInstances": [{"name": "mine", "localASN": 1}]},
    }));
    world.apply(theirs.clone());
    world.settle();
    assert_eq!(node_config(&world, "n1").unwrap().spec, theirs.spec);
}

#[test]
fn a_secret_is_named_with_its_version_and_its_absence_is_told() {
    let mut world = mk_world();
    world.apply(mk_peer(json!({"families": families(), "authSecretRef": "pw"})));
    world.settle();
    let secret = |world: &World| instance(world, "n1").peers["tor"].secret.clone();
    assert_eq!(secret(&world), Some(BgpSecret { name: "pw".into(), version: None }));
    let missing = "cilium.io/MissingAuthSecret True AuthSecretMissing".to_owned();
    assert!(conditions(&world, Kind::BgpPeerConfig, "tor").contains(&missing));
    let found: Secret = mk(json!({"metadata": {"namespace": "kube-system", "name": "pw"}}));
    world.apply(found);
    world.settle();
    assert!(secret(&world).unwrap().version.is_some());
    assert!(!conditions(&world, Kind::BgpPeerConfig, "tor").contains(&missing));
    world.delete(&ObjectKey::namespaced(Kind::Secret, "kube-system", "pw"));
    world.settle();
    assert_eq!(secret(&world).unwrap().version, None);
}

#[test]
fn statuses_can_be_left_out_and_nothing_is_planned_without_the_feature() {
    let mut world = World::new(Config { bgp_status: false, ..mk_config() });
    world.apply(mk_cluster("one", "2026-01-01T00:00:00Z", 64512));
    world.settle();
    assert_eq!(conditions(&world, Kind::BgpClusterConfig, "one"), Vec::<String>::new());

    let mut world = World::new(Config::default());
    world.apply(mk_node("n1", 1));
    world.apply(mk_cluster("one", "2026-01-01T00:00:00Z", 64512));
    world.settle();
    assert_eq!(node_config(&world, "n1"), None);
    assert_eq!(names(&told(&world, "n1", "bgp")), Vec::<&str>::new());
}
