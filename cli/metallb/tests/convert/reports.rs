//! What has no counterpart, and what cannot be read.

use cilium_metallb::{Source, convert};

use super::*;

#[test]
fn what_has_no_counterpart_is_named() {
    let mk = |version: &str, kind: &str| {
        format!(
            "{{apiVersion: metallb.io/{version}, kind: {kind}, metadata: {{name: x}}, spec: {{}}}}\n---\n"
        )
    };
    let found = converted(&[
        mk("v1beta2", "BGPPeer"),
        mk("v1beta1", "BGPAdvertisement"),
        mk("v1beta1", "BFDProfile"),
        mk("v1beta1", "Community"),
        mk("v1beta1", "Teapot"),
        mk("v1beta1", "ServiceL2Status"),
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: speaker}}\n---\n".to_owned(),
        mk_pool("a", &format!("{A}, \"colour\\e[2J\": red")),
        mk_advertisement(
            "ipAddressPools: [a], colour: red, preferredNodeSelectors: [{weight: 1, preference: {}}]",
        ),
    ]);
    assert_eq!(
        noted(&found),
        [
            "BGPPeer x",
            "BGPAdvertisement x",
            "BFDProfile x",
            "Community x",
            "Teapot x",
            r"IPAddressPool a spec.colour\u{1b}[2J",
            "L2Advertisement lan spec.colour",
            "L2Advertisement lan spec.preferredNodeSelectors"
        ]
    );
    assert_eq!(found.notes[0].meaning, "BGP is not converted, and this version does not speak it");
    assert_eq!(
        found.passed_over,
        [
            "in.yaml, document 6: ServiceL2Status x (MetalLB writes it itself)",
            "in.yaml, document 7: DaemonSet speaker (it is none of MetalLB's)"
        ]
    );
}

#[test]
fn data_has_everything() {
    let found = converted(&[
        mk_pool("a", &format!("{A}, autoAssign: false")),
        mk_service("metallb.io/address-pool: a", "ports: []", ""),
    ]);
    let value = serde_json::to_value(&found).unwrap();
    assert_eq!(value["objects"][0]["metadata"]["name"], "a");
    let service = serde_json::json!([{"namespace": "shop", "name": "web", "labels": {"ip-pool": "a"}}]);
    assert_eq!(value["services"], service);
    assert_eq!(
        (&value["notes"][0]["object"], &value["notes"][0]["field"]),
        (&"IPAddressPool a".into(), &"spec.autoAssign".into())
    );
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let many = |key: &str, count: usize| {
        let one = |n: usize| format!("{{matchLabels: {{{key}{n}: x, y: z}}}}");
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    for (text, expected) in [
        ("kind: Deployment".to_owned(), "there is nothing of MetalLB in what was given, and no Service"),
        ("a: [".to_owned(), "in.yaml, document 1 is neither YAML nor JSON"),
        ("--- {}".to_owned(), "in.yaml, document 1: an object: kind: it is missing"),
        ("[1]".to_owned(), "in.yaml, document 1: an object: the object: this has to be a map of fields"),
        (
            [mk_pool("b", B), mk_pool("a", "addresses: [192.0.2.0/24, 192.0.2.300-192.0.2.9]")].concat(),
            "in.yaml, document 2: IPAddressPool a: spec.addresses[1]: \"192.0.2.300\" is no IP address",
        ),
        (mk_pool("a", ""), "in.yaml, document 1: IPAddressPool a: spec.addresses: a pool needs addresses"),
        (
            mk_pool("a", "addresses: [10]"),
            "in.yaml, document 1: IPAddressPool a: spec.addresses[0]: this has to be a text; put it in quotes",
        ),
        (
            mk_pool("a", &format!("{A}, autoAssign: 'no'")),
            "in.yaml, document 1: IPAddressPool a: spec.autoAssign: this has to be true or false",
        ),
        (
            [mk_pool("a", A), mk_pool("b", "addresses: [192.0.2.0/24]")].concat(),
            "in.yaml, document 2: IPAddressPool b: spec.addresses[0]: 192.0.2.0/24 and 192.0.2.16/28 of pool a have addresses in common",
        ),
        (
            [mk_pool("a", A), mk_pool("a", B)].concat(),
            "in.yaml, document 2: IPAddressPool a: the object: there is another one with this name",
        ),
        (
            [mk_pool("a", A), mk_pool("a", &format!("protocol: layer2, {B}")).replace("IPAddressPool", "AddressPool")].concat(),
            "in.yaml, document 2: AddressPool a: spec: there is another pool with the name a",
        ),
        (
            mk_pool("a", A).replace("v1beta1", "v9"),
            "in.yaml, document 1: IPAddressPool a: apiVersion: \"v9\" is not known; v1beta1 and v1beta2 are read",
        ),
        (
            mk_pool("\"$(id)\"", A),
            "in.yaml, document 1: IPAddressPool $(id): metadata.name: \"$(id)\" is no name of an object: small letters, digits, - and . are allowed",
        ),
        (
            mk_pool("a", &format!("{A}, serviceAllocation: {{namespaces: [shop.test]}}")),
            "in.yaml, document 1: IPAddressPool a: spec.serviceAllocation.namespaces[0]: \"shop.test\" is no name of a namespace: at most 63 characters, without dots",
        ),
        (
            mk_advertisement("nodeSelectors: [{matchLabel: {a: b}}]"),
            "in.yaml, document 1: L2Advertisement lan: spec.nodeSelectors[0].matchLabel: there is no such field in a label selector",
        ),
        (
            mk_advertisement("nodeSelectors: [{matchExpressions: [{key: a, operator: Like}]}]"),
            "in.yaml, document 1: L2Advertisement lan: spec.nodeSelectors[0].matchExpressions[0].operator: \"Like\" is not an operator",
        ),
        (
            mk_advertisement(&format!("nodeSelectors: [{}], serviceSelectors: [{}]", many("a", 11), many("b", 11))),
            "in.yaml, document 1: L2Advertisement lan: spec: its selectors would make more than 100 policies; use fewer, on one label each",
        ),
        (
            mk_service("metallb.io/loadBalancerIPs: 'a,b'", "ports: []", ""),
            "in.yaml, document 1: Service shop/web: metadata.annotations[metallb.io/loadBalancerIPs]: \"a\" is no IP address",
        ),
        (
            mk_pool("a", "protocol: ospf, addresses: [192.0.2.0/24]").replace("IPAddressPool", "AddressPool"),
            "in.yaml, document 1: AddressPool a: spec.protocol: \"ospf\" is neither layer2 nor bgp",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: config}, data: {config: 'address-pools: [{name: a, addresses: [x]}]'}}".to_owned(),
            "in.yaml, document 1: ConfigMap config: data.config.address-pools[0].addresses[0]: \"x\" is no range of addresses; write 192.0.2.0/24, or 192.0.2.10-192.0.2.19",
        ),
    ] {
        let error = convert(&[Source { name: "in.yaml", text: &text }], &mk_options()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
