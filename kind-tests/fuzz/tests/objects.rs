//! Objects of every other kind that the operator watches: a planner takes them, or they do not parse.

use std::sync::LazyLock;

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::node_slice::CiliumNodeStateSlice;
use cilium_api::node_state::CiliumNodeState;
use cilium_api::slim::{EndpointSlice, Namespace, Node, Pod, Service};
use cilium_api::{CiliumEndpoint, CiliumIdentity, CiliumNode};
use cilium_plan::{Config, Object, Planner};
use fuzz::Input;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let mut samples =
        fuzz::documents(&[include_str!("../../../crds/api/tests/examples/cluster-objects.yaml")]);
    samples.extend([
        json!({"kind": "Node", "metadata": {"name": "a", "uid": "u1"},
            "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}}),
        json!({"kind": "Namespace", "metadata": {"name": "default", "labels": {"team": "blue"}}}),
        json!({"kind": "Pod", "metadata": {"namespace": "default", "name": "p", "uid": "u2", "labels": {"app": "web"}},
            "spec": {"nodeName": "a", "serviceAccountName": "default"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00:1::7"}]}}),
        json!({"kind": "Service", "metadata": {"namespace": "default", "name": "s"},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "name": "http", "nodePort": 30080}],
                "externalIPs": ["192.0.2.9"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                "loadBalancerSourceRanges": ["198.51.100.0/24"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.80", "ipMode": "VIP"}]}}}),
        json!({"kind": "EndpointSlice", "metadata": {"namespace": "default", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"port": 8080, "name": "http"}],
            "endpoints": [{"addresses": ["10.1.0.7"], "conditions": {"ready": true}}]}),
        json!({"kind": "CiliumNodeState", "metadata": {"name": "a"}, "spec": {}, "status": {
            "desired": {"format": 2, "revision": 7, "digest": "x", "inline": "{}"},
            "applied": {"revision": 7, "digest": "x", "failureCount": 1, "failures": [{"object": "policy/300", "message": "full"}]}}}),
        json!({"kind": "CiliumNodeStateSlice", "metadata": {"name": "cluster.r", "labels": {"cilium.io/state-of": "CLUSTER"}},
            "spec": {"format": 2, "count": 1, "digest": "x", "data": "{\"address/10.1.0.7\":{\"address\":{\"identity\":300,\"node\":\"a\"}}}"}}),
        json!({"kind": "ClusterNetworkPolicy", "metadata": {"name": "p", "uid": "u4", "generation": 1}, "spec": {
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "blue"}}}]}]}}),
        json!({"kind": "CiliumIdentity", "metadata": {"name": "300"}, "security-labels": {"k8s:app": "web"}}),
    ]);
    samples
});

/// Reads the text as every kind.
fn objects(text: &[u8]) -> Vec<Object> {
    fn one<T: DeserializeOwned + Into<Object>>(text: &[u8], all: &mut Vec<Object>) {
        all.extend(serde_json::from_slice::<T>(text).ok().map(Into::into));
    }
    let mut all = Vec::new();
    one::<Node>(text, &mut all);
    one::<Namespace>(text, &mut all);
    one::<Pod>(text, &mut all);
    one::<Service>(text, &mut all);
    one::<EndpointSlice>(text, &mut all);
    one::<ClusterNetworkPolicy>(text, &mut all);
    one::<CiliumNode>(text, &mut all);
    one::<CiliumEndpoint>(text, &mut all);
    one::<CiliumIdentity>(text, &mut all);
    one::<CiliumNodeState>(text, &mut all);
    one::<CiliumNodeStateSlice>(text, &mut all);
    all
}

/// Plans with all samples, then with what the text is, before and after a restart.
fn check(text: &[u8]) {
    let mut planner = Planner::new(Config::default());
    let samples = SAMPLES.iter().flat_map(|sample| objects(sample.to_string().as_bytes()));
    let (early, late) = (objects(text), objects(text));
    if early.is_empty() {
        return;
    }
    samples.chain(early).for_each(|object| planner.observe(object));
    planner.synced();
    planner.plan(1_800_000_000);
    planner.report(1_800_000_000);
    late.into_iter().for_each(|object| planner.observe(object));
    planner.plan(1_800_000_001);
    planner.report(1_800_000_001);
}

#[test]
fn any_object() {
    bolero::check!().with_iterations(300).for_each(|bytes: &[u8]| {
        let input = Input(bytes);
        check(bytes);
        if let Some(document) = input.changed(&SAMPLES) {
            check(document.to_string().as_bytes());
        }
        if let Some(text) = input.damaged(&SAMPLES) {
            check(&text);
        }
    });
}
