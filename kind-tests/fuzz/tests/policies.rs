//! Policies as anybody may write them: they are refused, or they compile to something that the kernel can hold.

use std::sync::LazyLock;

use cilium_api::cluster_network_policy::ClusterNetworkPolicy;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_core::{Families, Labels, Selector, prefix};
use cilium_policy::{Backends, Catalog, Config, Host, PolicyIndex, PolicyKey, PolicyRules, Services, reduce};
use fuzz::Input;
use serde_json::{Value, json};

static SAMPLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let mut samples = fuzz::documents(&[
        include_str!("../../../crds/api/tests/examples/deny.yaml"),
        include_str!("../../../crds/api/tests/examples/entities-cidr.yaml"),
        include_str!("../../../crds/api/tests/examples/icmp.yaml"),
        include_str!("../../../crds/api/tests/examples/l3-endpoints.yaml"),
        include_str!("../../../crds/api/tests/examples/l4-ports.yaml"),
        include_str!("../../../crds/api/tests/examples/l7-dns-fqdn.yaml"),
        include_str!("../../../crds/api/tests/examples/l7-http.yaml"),
        include_str!("../../../crds/api/tests/examples/node-selector.yaml"),
        include_str!("../../../crds/api/tests/examples/specs.yaml"),
    ]);
    samples.push(ordered());
    samples
});

/// A ClusterNetworkPolicy with a peer of each kind.
fn ordered() -> Value {
    let pods =
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "frontend"}}}});
    let peers = json!([pods, {"nodes": {}}, {"networks": ["192.0.2.0/24", "2001:db8::/32"]}, {"domainNames": ["*.example.org"]}]);
    let range = json!({"destinationPort": {"range": {"start": 80, "end": 90}}});
    json!({"kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}, "spec": {
        "tier": "Admin", "priority": 5, "subject": {"namespaces": {"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}},
        "ingress": [{"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"destinationNamedPort": "web"}]},
            {"action": "Deny", "from": [pods], "protocols": [{"tcp": range}, {"udp": {"destinationPort": {"number": 53}}}]}],
        "egress": [{"action": "Accept", "to": peers, "protocols": [{"sctp": {}}, {"tcp": range}]},
            {"action": "Deny", "to": [{"namespaces": {}}]}]}})
}

/// Groups and Services: any reference finds something.
struct Found;

impl Catalog for Found {
    fn groups(&self, _: &Selector) -> Vec<String> {
        vec!["group".to_owned()]
    }
    fn services(&self, _: &Services) -> Vec<Backends> {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("an address"));
        vec![
            Backends::Pods { namespace: "default".to_owned(), labels },
            Backends::Addresses(addresses.into()),
        ]
    }
    fn cluster(&self) -> &str {
        "default"
    }
}

/// Nothing is switched off.
const SETTINGS: reduce::Settings<'static> =
    reduce::Settings { cluster: "default", node_selector_labels: true, host_firewall: true };

/// A policy that parses and is valid, of any kind.
fn reduced(text: &[u8]) -> Vec<(PolicyKey, PolicyRules)> {
    let cnp = serde_json::from_slice::<CiliumNetworkPolicy>(text).ok();
    let ccnp = serde_json::from_slice::<CiliumClusterwideNetworkPolicy>(text).ok();
    let cnp = cnp.and_then(|policy| Some((reduce::cnp_key(&policy), reduce::cnp(&policy, SETTINGS).ok()?)));
    let ccnp =
        ccnp.and_then(|policy| Some((reduce::ccnp_key(&policy), reduce::ccnp(&policy, SETTINGS).ok()?)));
    let ordered =
        serde_json::from_slice::<Value>(text).ok().filter(|it| it["kind"] == "ClusterNetworkPolicy");
    let ordered = ordered.and_then(|it| serde_json::from_value::<ClusterNetworkPolicy>(it).ok());
    let ordered = ordered
        .map(|policy| (reduce::clusternetpol_key(&policy), reduce::clusternetpol(&policy, SETTINGS).0));
    cnp.into_iter().chain(ccnp).chain(ordered).map(|(key, rules)| (key, rules.resolved(&Found))).collect()
}

fn check(text: &[u8]) -> bool {
    let all = reduced(text);
    for (key, rules) in &all {
        let mut index = PolicyIndex::new(Config::default());
        for (number, labels) in [(300, "k8s:app=web"), (301, "k8s:role=frontend"), (302, "k8s:env=prod")] {
            let texts = [
                labels,
                "k8s:io.kubernetes.pod.namespace=default",
                "k8s:io.cilium.k8s.policy.cluster=default",
            ];
            index.set_identity(number, Some(Labels::parse(texts).expect("labels")));
        }
        for (number, net) in (1 << 24..).zip(rules.prefixes()) {
            assert_eq!(net, net.trunc(), "an identity of a prefix with bits behind it");
            index.set_identity(number, Some(prefix::labels(Families::Dual, net)));
        }
        index.set_policy(key, Some(rules.clone()));
        for number in 300..303 {
            for host in [Host::Plain, Host::ApiServer] {
                let policy = index.compile(number, host);
                assert!(policy.is_none_or(|policy| cilium_dataplane::compile(&policy).is_ok()));
            }
        }
        index.set_policy(key, None);
        assert_eq!(index.compile(300, Host::Plain), None, "something of a policy outlives it");
    }
    !all.is_empty()
}

#[test]
fn samples_are_read() {
    let refused = SAMPLES.iter().filter(|sample| !check(sample.to_string().as_bytes()));
    let names: Vec<_> =
        refused.map(|sample| sample["metadata"]["name"].as_str().unwrap_or_default()).collect();
    // Groups of a cloud provider, HTTP, and authentication are not enforced by this version.
    assert_eq!(names, ["outside-world", "api-reads", "several-rules"]);
    assert_eq!(SAMPLES.len(), 11);
}

#[test]
fn any_policy() {
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
