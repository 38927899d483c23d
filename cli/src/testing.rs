//! A planned cluster for tests.

use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Service};
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_plan::{Config, Object, Planner};
use serde_json::{Value, json};

/// The demo's ships in namespace `default`, with its policy `rule1` and a policy `later` that is refused.
pub(crate) fn mk_galaxy() -> Planner {
    let mut planner = Planner::new(Config::default());
    for object in objects() {
        planner.observe(object);
    }
    planner.synced();
    planner.plan(crate::cluster::now());
    planner
}

fn objects() -> Vec<Object> {
    let mut objects = vec![
        mk::<Node>(json!({
            "metadata": {"name": "n1", "uid": "n1"}, "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
        })),
        mk::<Namespace>(json!({"metadata": {"name": "default"}})),
        mk::<Service>(json!({
            "metadata": {"name": "deathstar", "namespace": "default"},
            "spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 8080}]},
        })),
        mk::<EndpointSlice>(json!({
            "metadata": {"name": "deathstar-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "deathstar"}},
            "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.1.0.10"], "conditions": {"ready": true}}],
        })),
        mk::<CiliumNetworkPolicy>(policy(
            "rule1",
            json!({
                "endpointSelector": {"matchLabels": {"org": "empire", "class": "deathstar"}},
                "ingress": [{
                    "fromEndpoints": [{"matchLabels": {"org": "empire"}}], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
                }],
            }),
        )),
        mk::<CiliumNetworkPolicy>(policy(
            "later",
            json!({
                "endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "authentication": {"mode": "required"}}],
            }),
        )),
        mk::<CiliumClusterwideNetworkPolicy>(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "nobody", "uid": "nobody", "generation": 1},
            "spec": {"endpointSelector": {"matchLabels": {"app": "nobody"}}, "ingress": [{}]},
        })),
    ];
    let ships = [
        ("deathstar", "empire", "10.1.0.10"),
        ("tiefighter", "empire", "10.1.0.11"),
        ("xwing", "alliance", "10.1.0.12"),
    ];
    objects.extend(ships.map(|(name, org, address)| mk_ship(name, name, org, address)));
    objects
}

/// A pod.
pub(crate) fn mk_ship(name: &str, class: &str, org: &str, address: &str) -> Object {
    mk::<Pod>(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"org": org, "class": class}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }))
}

/// A CiliumNetworkPolicy in namespace `default`.
pub(crate) fn mk_policy(name: &str, spec: Value) -> Object {
    mk::<CiliumNetworkPolicy>(policy(name, spec))
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "spec": spec,
        "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1},
    })
}

fn mk<K: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<K>(value).map(Into::into).expect("objects of tests are well-formed")
}
