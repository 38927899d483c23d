//! What forms of a Kubernetes NetworkPolicy mean.

use cilium_core::Labels;
use cilium_policy::{Flow, PolicyIndex, PolicyKey, PolicyRules, reduce, verdict};
use serde_json::{Value, json};

use crate::support::{CLUSTER, TCP, UDP, compile_all, mk_index, mk_key, mk_labels, passes, reduce_spec};

const WEB: u32 = 300;
const NEAR: u32 = 301;
const FAR: u32 = 302;
const WORLD: u32 = 9;

fn reduce_netpol(spec: Value) -> (PolicyRules, Vec<String>) {
    let policy = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    let (rules, notes) = reduce::netpol(&serde_json::from_value(policy).unwrap(), CLUSTER);
    (rules, notes.iter().map(ToString::to_string).collect())
}

/// `web` and `client` in namespace `default`, `client` in namespace `far`, which is of team 1.
fn index_with(spec: Value) -> PolicyIndex {
    let mut index = mk_index(&[(WEB, "default", &["app=web"]), (NEAR, "default", &["app=client"])]);
    let team = Labels::parse(["k8s:io.cilium.k8s.namespace.labels.team=1"]).unwrap();
    let far = mk_labels("far", &["app=client"]);
    index.set_identity(FAR, Some(far.iter().chain(team.iter()).cloned().collect()));
    let (rules, notes) = reduce_netpol(spec);
    assert_eq!(notes, Vec::<String>::new());
    index.set_policy(&PolicyKey::netpol("default", "p"), Some(rules));
    index
}

fn web() -> Value {
    json!({"matchLabels": {"app": "web"}})
}

/// Who reaches `web` at TCP 80, of near, far and the world.
fn reach_web(spec: Value) -> [bool; 3] {
    let index = index_with(spec);
    [NEAR, FAR, WORLD].map(|peer| passes(&index, peer, WEB, TCP, 80))
}

/// Whom `web` reaches at TCP 80.
fn web_reaches(spec: Value) -> [bool; 3] {
    let index = index_with(spec);
    [NEAR, FAR, WORLD].map(|peer| passes(&index, WEB, peer, TCP, 80))
}

#[test]
fn types_close_directions_that_have_no_rule() {
    let both = |spec: Value| (reach_web(spec.clone())[0], web_reaches(spec)[0]);
    assert_eq!(both(json!({"podSelector": web()})), (false, true));
    assert_eq!(both(json!({"podSelector": web(), "policyTypes": ["Ingress"]})), (false, true));
    assert_eq!(both(json!({"podSelector": web(), "policyTypes": ["Egress"]})), (true, false));
    assert_eq!(both(json!({"podSelector": web(), "policyTypes": ["Ingress", "Egress"]})), (false, false));
    // Rules count even where the types leave them out.
    assert_eq!(
        both(json!({"podSelector": web(), "policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]})),
        (true, true)
    );
    assert_eq!(both(json!({"podSelector": {"matchLabels": {"app": "other"}}})), (true, true));
}

#[test]
fn peers_by_pods_and_namespaces() {
    let from = |peer: Value| reach_web(json!({"podSelector": web(), "ingress": [{"from": [peer]}]}));
    assert_eq!(from(json!({"podSelector": {}})), [true, false, false]);
    assert_eq!(from(json!({"podSelector": {"matchLabels": {"app": "web"}}})), [false; 3]);
    assert_eq!(from(json!({"namespaceSelector": {}})), [true, true, false]);
    assert_eq!(from(json!({"namespaceSelector": {"matchLabels": {"team": "1"}}})), [false, true, false]);
    let elsewhere = json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
    assert_eq!(from(json!({"namespaceSelector": elsewhere})), [true, false, false]);
    let clients = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["client"]}]});
    assert_eq!(
        from(json!({"namespaceSelector": {"matchLabels": {"team": "1"}}, "podSelector": clients})),
        [false, true, false]
    );
    assert_eq!(reach_web(json!({"podSelector": web(), "ingress": [{}]})), [true; 3]);
    assert_eq!(reach_web(json!({"podSelector": web(), "ingress": [{"from": []}]})), [true; 3]);
    assert_eq!(
        web_reaches(json!({"podSelector": web(), "egress": [{"to": [{"namespaceSelector": {}}]}]})),
        [true, true, false]
    );
}

#[test]
fn ports() {
    let index = index_with(json!({"podSelector": {}, "ingress": [{"ports": [
        {"port": 80}, {"protocol": "UDP"}, {"port": 8000, "endPort": 8002},
    ]}]}));
    let open = |protocol, port| passes(&index, NEAR, WEB, protocol, port);
    assert!(open(TCP, 80) && !open(TCP, 81));
    assert!(open(UDP, 1) && open(UDP, 65535) && !open(132, 80));
    assert!(!open(TCP, 7999) && open(TCP, 8000) && open(TCP, 8002) && !open(TCP, 8003));
}

#[test]
fn policies_of_both_kinds_add_up_and_denials_win() {
    let mut index = index_with(json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}));
    let allow = json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]});
    index.set_policy(&mk_key("allow"), Some(reduce_spec(allow).unwrap()));
    assert_eq!([NEAR, FAR, WORLD].map(|peer| passes(&index, peer, WEB, TCP, 80)), [true, false, true]);
    let deny = json!({"endpointSelector": {}, "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}]});
    index.set_policy(&mk_key("deny"), Some(reduce_spec(deny).unwrap()));
    assert_eq!([NEAR, FAR, WORLD].map(|peer| passes(&index, peer, WEB, TCP, 80)), [false, false, true]);
}

#[test]
fn what_is_not_understood_grants_nothing_and_is_named() {
    for (rule, note) in [
        (
            json!({"from": [{}]}),
            "spec.ingress[0].from[0]: one of podSelector, namespaceSelector and ipBlock must be given",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
            "spec.ingress[0].from[0]: ipBlock and selectors exclude each other",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "moon"}}]}),
            "spec.ingress[0].from[0].ipBlock.cidr: \"moon\" is not a prefix such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}),
            "spec.ingress[0].from[0].ipBlock.except[0]: \"11.0.0.0/9\" does not lie inside of 10.0.0.0/8",
        ),
        (
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like"}]}}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: \"Like\" is not an operator",
        ),
        (
            json!({"ports": [{"protocol": "ICMP"}]}),
            "spec.ingress[0].ports[0].protocol: \"ICMP\" is not a protocol with ports",
        ),
        (
            json!({"ports": [{"port": 80, "endPort": 70}]}),
            "spec.ingress[0].ports[0].endPort: the range ends before it begins, at port 80",
        ),
        (
            json!({"ports": [{"port": 70000}]}),
            "spec.ingress[0].ports[0].port: 70000 is not a port, they go from 1 to 65535",
        ),
    ] {
        let (rules, notes) = reduce_netpol(json!({"podSelector": {}, "ingress": [rule]}));
        assert_eq!(notes, [note]);
        let mut index = mk_index(&[(WEB, "default", &["app=web"]), (NEAR, "default", &["app=client"])]);
        index.set_policy(&PolicyKey::netpol("default", "p"), Some(rules));
        assert!(!passes(&index, NEAR, WEB, TCP, 80), "{note}");
    }
    // A subject that is not understood closes the whole namespace.
    let subject = json!({"matchExpressions": [{"key": "app", "operator": "Like"}]});
    let (rules, notes) = reduce_netpol(json!({"podSelector": subject}));
    assert_eq!(notes, ["spec.podSelector.matchExpressions[0].operator: \"Like\" is not an operator"]);
    assert_eq!(rules.rules[0].subject.requirements().len(), 1);
}

#[test]
fn a_block_is_about_addresses_whoever_has_them() {
    let index = index_with(json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}], "ports": [{"port": 80}]},
        {"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}]},
    ]}));
    let policies = compile_all(&index, &[WEB]);
    let reaches = |address: &str, port| {
        let addresses = Some(("10.9.9.9".parse().unwrap(), address.parse().unwrap()));
        // A pod, a node and the world.
        let verdicts = [NEAR, 6, WORLD].map(|destination| {
            let flow = Flow { source: WEB, destination, protocol: TCP, destination_port: port, addresses };
            verdict(&policies, &flow).allowed()
        });
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{verdicts:?}");
        verdicts[0]
    };
    assert!(reaches("10.0.0.1", 80) && !reaches("10.0.0.1", 81));
    assert!(!reaches("10.1.0.1", 80) && !reaches("10.2.0.1", 80));
    assert!(reaches("10.1.2.3", 81) && reaches("10.1.2.3", 80));
    assert!(!reaches("11.0.0.1", 80) && !reaches("fd00::1", 80));
    assert_eq!(policies[&WEB].egress.blocks.len(), 4);
}
