//! Manifests for `cilium migrate metallb`: they are refused with their place, or what becomes of them is what our operator takes.

use std::sync::LazyLock;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::load_balancer_pool::PoolBlock;
use cilium_api::selector::LabelSelector;
use cilium_core::Selector;
use cilium_metallb::{Converted, Options, Source, convert};
use fuzz::Input;
use serde_json::{Value, json};

/// Each is one document: a List, so that a change may mix its objects.
static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let metallb = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": "metallb-system", "labels": {"pool": name}}})
    };
    let selectors = json!([{"matchLabels": {"host": "n1"}}, {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r1"]}]}]);
    let allocation = json!({"priority": 5, "namespaces": ["shop"], "namespaceSelectors": selectors, "serviceSelectors": selectors});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {
            "metallb.io/loadBalancerIPs": "192.0.2.9,2001:db8::9", "metallb.universe.tf/allow-shared-ip": "k", "metallb.io/address-pool": "a"}},
        "spec": {"type": "LoadBalancer", "loadBalancerIP": "192.0.2.9"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}});
    let config = "address-pools: [{name: c, protocol: layer2, addresses: [203.0.113.0/24], avoid-buggy-ips: true}]\npeers: []\n";
    vec![
        list(json!([
            metallb(
                "IPAddressPool",
                "a",
                json!({"addresses": ["192.0.2.0/24", "2001:db8::-2001:db8::ff"], "avoidBuggyIPs": true, "autoAssign": false})
            ),
            metallb(
                "IPAddressPool",
                "b",
                json!({"addresses": ["198.51.100.1-198.51.100.9"], "serviceAllocation": allocation})
            ),
            metallb(
                "L2Advertisement",
                "lan",
                json!({"ipAddressPools": ["a"], "ipAddressPoolSelectors": selectors, "nodeSelectors": selectors,
                "serviceSelectors": selectors, "interfaces": ["eth0.1"], "preferredNodeSelectors": [{}]})
            ),
            service,
        ])),
        list(json!([
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"config": config}},
            metallb("AddressPool", "d", json!({"protocol": "bgp", "addresses": ["10.0.0.0/8"], "avoidBuggyIPs": true})),
            metallb("BGPPeer", "tor", json!({"myASN": 64500})),
        ])),
    ]
});

fn check(text: &[u8]) -> Option<Converted> {
    let text = std::str::from_utf8(text).ok()?;
    let source = Source { name: "in.yaml", text };
    let moved_label = Some(("moved".to_owned(), "yes".to_owned()));
    let options = Options { namespace: "default".to_owned(), moved_label, ignore_exclude_lb: false };
    let converted = match convert(&[source], &options) {
        Ok(converted) => converted,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let pools = converted.objects.iter().filter(|object| object["kind"] == "CiliumLoadBalancerIPPool");
    for object in pools {
        let pool: CiliumLoadBalancerIPPool = serde_json::from_value(object.clone()).expect("a pool of ours");
        cilium_lbipam::Pool::check(&pool).expect("the operator takes it");
        let spec = &pool.spec;
        let is_empty = |block: &PoolBlock| block.cidr.is_none() && block.start.is_none();
        assert!(!spec.blocks.iter().flatten().any(is_empty), "{object}");
    }
    let policies = converted.objects.iter().filter(|object| object["kind"] == "CiliumL2AnnouncementPolicy");
    for spec in policies.map(|object| &object["spec"]) {
        for field in ["serviceSelector", "nodeSelector"] {
            let selector: LabelSelector = serde_json::from_value(spec[field].clone()).expect("a selector");
            Selector::parse(&selector).expect("the operator takes it");
        }
    }
    // Whoever runs the commands runs nothing else: one line each, and it is a comment until then.
    let printed = converted.text().expect("plain data");
    let read = fuzz::documents(&[&printed]);
    assert_eq!(read, converted.objects, "what is printed is not what was made");
    assert_eq!(converted.is_complete(), !converted.report().contains("What to do"));
    Some(converted)
}

#[test]
fn samples_are_read() {
    let all: Vec<Converted> =
        SAMPLES.iter().map(|sample| check(sample.to_string().as_bytes()).expect("is read")).collect();
    let counts: Vec<_> = all.iter().map(|it| (it.objects.len(), it.services.len(), it.notes.len())).collect();
    assert_eq!(counts, [(6, 1, 8), (3, 0, 6)]);
}

#[test]
fn any_manifest() {
    bolero::check!().for_each(|bytes: &[u8]| {
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
