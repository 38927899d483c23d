//! Why flows pass or not: fields of rules, and near misses.

use cilium_policy::{Decision, Flow, Host, Missed, PolicyIndex, Reason, Side};
use serde_json::{Value, json};

use crate::support::{TCP, UDP, mk_index, mk_key, reduce_spec};

const SERVER: u32 = 300;
const CLIENT: u32 = 301;
const STRANGER: u32 = 302;

fn index_with(spec: Value) -> PolicyIndex {
    let mut index = mk_index(&[
        (SERVER, "default", &["app=server"]),
        (CLIENT, "default", &["app=client", "tier=web"]),
        (STRANGER, "other", &["app=client", "tier=batch"]),
    ]);
    index.set_policy(&mk_key("p"), Some(reduce_spec(spec).unwrap()));
    index
}

fn two_ports() -> Value {
    json!({
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [
            {"fromEndpoints": [{"matchLabels": {"app": "nobody"}}]},
            {
                "fromEndpoints": [{"matchLabels": {"app": "client", "tier": "web"}}],
                "toPorts": [
                    {"ports": [{"port": "80", "protocol": "TCP"}]},
                    {"ports": [{"port": "443", "protocol": "TCP"}]},
                ],
            },
        ],
        "ingressDeny": [{"fromEntities": ["world"]}],
    })
}

fn ask(index: &PolicyIndex, source: u32, protocol: u8, port: u16) -> Decision {
    let flow = Flow { source, destination: SERVER, protocol, destination_port: port, addresses: None };
    index.explain(Side::Ingress, &flow, Host::Plain)
}

fn reason(index: &PolicyIndex, source: u32, protocol: u8, port: u16) -> Reason {
    match ask(index, source, protocol, port) {
        Decision::DefaultDeny(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// Requirements as texts.
fn unmet(missed: &Missed) -> Vec<String> {
    match missed {
        Missed::Port(_) | Missed::Name(..) | Missed::Unheard => Vec::new(),
        Missed::Peer(requirements) | Missed::Both(requirements, _) => {
            requirements.iter().map(ToString::to_string).collect()
        }
    }
}

#[test]
fn the_rule_that_decides_is_named_by_its_field() {
    let index = index_with(two_ports());
    let Decision::Granted(places) = ask(&index, CLIENT, TCP, 443) else { panic!("not granted") };
    assert_eq!(places.len(), 1);
    assert_eq!(
        (places[0].policy.as_str(), &*places[0].path),
        ("cnp/default/p", "spec.ingress[1].toPorts[1]")
    );
    let Decision::Denied(places) = ask(&index, 9, TCP, 443) else { panic!("not denied") };
    assert_eq!(&*places[0].path, "spec.ingressDeny[0]");
    assert_eq!(ask(&index, 1, TCP, 22), Decision::LocalHost);
    let back =
        Flow { source: SERVER, destination: CLIENT, protocol: TCP, destination_port: 1, addresses: None };
    assert_eq!(index.explain(Side::Egress, &back, Host::Plain), Decision::NotEnforced);
}

#[test]
fn a_missed_port_is_nearer_than_a_missed_peer() {
    let index = index_with(two_ports());
    let Reason { closed_by, nearest } = reason(&index, CLIENT, UDP, 80);
    assert_eq!(closed_by, [mk_key("p")]);
    let nearest = nearest.unwrap();
    assert_eq!(&*nearest.place.path, "spec.ingress[1].toPorts[0]");
    assert!(matches!(&nearest.missed, Missed::Port(ports) if ports[0].first == 80), "{nearest:?}");
}

#[test]
fn a_missed_peer_comes_with_the_labels_that_it_lacks() {
    let index = index_with(two_ports());
    let nearest = reason(&index, STRANGER, TCP, 80).nearest.unwrap();
    // The first rule has no ports: one label is missing there, and the namespace; two here as well, and this path sorts later.
    assert_eq!(unmet(&nearest.missed), ["any:app=nobody", "k8s:io.kubernetes.pod.namespace=default"]);
    let mut index = index_with(two_ports());
    let labels = crate::support::mk_labels("default", &["app=client", "tier=batch"]);
    index.set_identity(STRANGER, Some(labels));
    let nearest = reason(&index, STRANGER, TCP, 80).nearest.unwrap();
    assert_eq!(unmet(&nearest.missed), ["any:app=nobody"]);
    let only = json!({
        "endpointSelector": {}, "ingress": [
            {"fromEndpoints": [{"matchLabels": {"tier": "web"}}], "toPorts": [{"ports": [{"port": "80"}]}]},
        ],
    });
    let index = index_with(only);
    let nearest = reason(&index, SERVER, TCP, 81).nearest.unwrap();
    assert_eq!(
        (&*nearest.place.path, unmet(&nearest.missed)),
        ("spec.ingress[0].toPorts[0]", vec!["any:tier=web".to_owned()])
    );
    assert!(matches!(nearest.missed, Missed::Both(..)));
}

#[test]
fn a_rule_for_nobody_leaves_nothing_to_miss() {
    let index = index_with(json!({"endpointSelector": {}, "ingress": [{}]}));
    assert_eq!(reason(&index, CLIENT, TCP, 80), Reason { closed_by: vec![mk_key("p")], nearest: None });
}

#[test]
fn specs_are_told_apart() {
    let policy = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "specs": [
            {"endpointSelector": {"matchLabels": {"app": "other"}}, "ingress": [{}]},
            {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"icmps": [{"fields": [{"type": 8}]}]}]},
        ],
    });
    let policy = serde_json::from_value(policy).unwrap();
    let mut index = index_with(two_ports());
    index.set_policy(&mk_key("p"), Some(cilium_policy::reduce::cnp(&policy, "kind").unwrap()));
    let Decision::Granted(places) = ask(&index, CLIENT, 1, 8) else { panic!("not granted") };
    assert_eq!(&*places[0].path, "specs[1].ingress[0].icmps[0]");
}

#[test]
fn an_address_and_a_port_by_name_are_explained_by_their_fields() {
    let policy = json!({
        "metadata": {"name": "k", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [
                {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}}], "ports": [{"port": "web"}]},
            ],
        },
    });
    let policy = serde_json::from_value(policy).unwrap();
    let (rules, notes) = cilium_policy::reduce::netpol(&policy, "default");
    assert!(notes.is_empty());
    let mut index = index_with(two_ports());
    index.set_policy(&mk_key("p"), None);
    let named = cilium_core::Labels::parse(["gen:io.cilium.k8s.named-ports=web.TCP.8080"]).unwrap();
    let labels = crate::support::mk_labels("default", &["app=server"]);
    index.set_identity(SERVER, Some(labels.iter().chain(named.iter()).cloned().collect()));
    index.set_policy(&cilium_policy::reduce::netpol_key(&policy), Some(rules));
    let ask = |from: &str, port| {
        let addresses = Some((from.parse().unwrap(), "10.1.0.1".parse().unwrap()));
        let flow =
            Flow { source: CLIENT, destination: SERVER, protocol: TCP, destination_port: port, addresses };
        index.explain(Side::Ingress, &flow, Host::Plain)
    };
    let Decision::Granted(places) = ask("10.1.0.2", 8080) else { panic!("not granted") };
    assert_eq!((places[0].policy.as_str(), &*places[0].path), ("netpol/default/k", "spec.ingress[0]"));
    let nearest = |from, port| match ask(from, port) {
        Decision::DefaultDeny(Reason { nearest: Some(miss), .. }) => miss.missed,
        other => panic!("{other:?}"),
    };
    assert!(matches!(nearest("10.9.0.2", 8080), Missed::Peer(requirements) if requirements.is_empty()));
    assert!(matches!(nearest("10.1.0.2", 80), Missed::Port(ports) if ports[0].first == 8080));
}
