//! Objects for tests.

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Service};
use cilium_api::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumLocalRedirectPolicy, CiliumNetworkPolicy,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An object from its JSON.
pub fn mk<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("objects of tests are well-formed")
}

/// Labels from `key=value` texts.
pub fn labels(texts: &[&str]) -> Value {
    texts.iter().filter_map(|text| text.split_once('=')).collect::<Vec<_>>().into_iter().fold(
        json!({}),
        |mut all, (k, v)| {
            all[k] = json!(v);
            all
        },
    )
}

/// A node with an InternalIP and one prefix of each family, both from its number.
pub fn mk_node(name: &str, number: u8) -> Node {
    mk(json!({
        "metadata": {"name": name, "uid": format!("node-{name}-{number}")},
        "spec": {"podCIDRs": [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.0.{number}")}, {"type": "Hostname", "address": name},
        ]},
    }))
}

/// The same node with a further InternalIP of each family, or with another one in place of its own.
pub fn mk_moved_node(name: &str, number: u8, further: bool) -> Node {
    let mut node = mk_node(name, number);
    let own = format!("192.168.0.{number}");
    let more = [format!("192.168.1.{number}"), format!("fd00:ffff::{number}")];
    let addresses = more.iter().chain(further.then_some(&own));
    node.status.addresses =
        mk(addresses.map(|ip| json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>().into());
    node
}

pub fn mk_namespace(name: &str, texts: &[&str]) -> Namespace {
    let mut all = labels(texts);
    all["kubernetes.io/metadata.name"] = json!(name);
    mk(json!({"metadata": {"name": name, "labels": all}}))
}

/// A pod that is bound, and not connected yet.
pub fn mk_pod(namespace: &str, name: &str, node: &str, texts: &[&str]) -> Pod {
    mk(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": format!("pod-{namespace}-{name}"), "labels": labels(texts)},
        "spec": {"nodeName": node, "serviceAccountName": "default"},
        "status": {"phase": "Pending"},
    }))
}

/// The same pod as the kubelet reports it once it has its addresses.
pub fn running(mut pod: Pod, addresses: &[&str]) -> Pod {
    pod.status = mk(
        json!({"phase": "Running", "podIPs": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()}),
    );
    pod
}

/// The same pod, ready or not.
pub fn with_ready(mut pod: Pod, ready: bool) -> Pod {
    let status = if ready { "True" } else { "False" };
    pod.status.conditions = mk(json!([{"type": "Ready", "status": status}]));
    pod
}

/// A policy that is the older, the lower its number is.
pub fn mk_redirect(namespace: &str, name: &str, number: usize, spec: Value) -> CiliumLocalRedirectPolicy {
    let created = format!("2026-01-01T{:02}:{:02}:{:02}Z", number / 3600, number / 60 % 60, number % 60);
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy", "spec": spec,
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("redirect-{namespace}-{name}-{number}"), "generation": 1,
            "creationTimestamp": created,
        },
    }))
}

pub fn mk_service(namespace: &str, name: &str, address: &str, port: u16) -> Service {
    mk(json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "ClusterIP", "clusterIPs": [address], "ports": [{"port": port}]},
    }))
}

pub fn mk_endpoint_slice(namespace: &str, service: &str, addresses: &[&str], port: u16) -> EndpointSlice {
    let endpoints: Vec<_> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    mk(json!({
        "metadata": {
            "namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"port": port}], "endpoints": endpoints,
    }))
}

pub fn mk_cnp(namespace: &str, name: &str, generation: i64, spec: Value) -> CiliumNetworkPolicy {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "spec": spec,
        "metadata": {"namespace": namespace, "name": name, "uid": format!("cnp-{namespace}-{name}"), "generation": generation},
    }))
}

pub fn mk_ccnp(name: &str, generation: i64, spec: Value) -> CiliumClusterwideNetworkPolicy {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "spec": spec,
        "metadata": {"name": name, "uid": format!("ccnp-{name}"), "generation": generation},
    }))
}

pub fn mk_group(name: &str, texts: &[&str], prefixes: &[&str]) -> CiliumCIDRGroup {
    mk(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": name, "labels": labels(texts)},
        "spec": {"externalCIDRs": prefixes},
    }))
}

pub fn mk_netpol(namespace: &str, name: &str, generation: i64, spec: Value) -> NetworkPolicy {
    mk(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": format!("netpol-{namespace}-{name}"), "generation": generation},
        "spec": spec,
    }))
}

pub fn mk_clusternetpol(name: &str, generation: i64, spec: Value) -> ClusterNetworkPolicy {
    mk(json!({
        "metadata": {"name": name, "uid": format!("clusternetpol-{name}"), "generation": generation},
        "spec": spec,
    }))
}

/// The example of the guide: ships of the empire reach the deathstar at port 80, nobody else does.
pub fn rule1() -> Value {
    json!({
        "endpointSelector": {"matchLabels": {"org": "empire", "class": "deathstar"}},
        "ingress": [{
            "fromEndpoints": [{"matchLabels": {"org": "empire"}}],
            "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
        }],
    })
}
