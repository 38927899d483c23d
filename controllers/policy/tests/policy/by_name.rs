//! Why traffic to names passes or not.

use cilium_policy::{
    Decision, Flow, Host, Missed, Mode, Place, PolicyIndex, PolicyKey, Reason, ToName, reduce,
};
use serde_json::{Value, json};

use crate::support::{TCP, mk_index, mk_key, reduce_spec};

const POD: u32 = 300;
const SERVER: u32 = 400;
const WORLD_V4: u32 = 9;
const WORLD_V6: u32 = 10;

/// A pod and a name server, with one policy for each spec.
fn mk_world(policies: &[Value]) -> PolicyIndex {
    let mut index = mk_index(&[(POD, "default", &["app=pod"]), (SERVER, "default", &["app=dns"])]);
    for (number, spec) in policies.iter().enumerate() {
        let mut spec = spec.clone();
        spec["endpointSelector"] = json!({"matchLabels": {"app": "pod"}});
        index.set_policy(&mk_key(&format!("p{number}")), Some(reduce_spec(spec).unwrap()));
    }
    index
}

fn ask_world(index: &PolicyIndex, world: u32, name: &str, port: u16) -> ToName {
    let flow =
        Flow { source: POD, destination: world, protocol: TCP, destination_port: port, addresses: None };
    index.explain_name(&flow, name, Host::Plain)
}

fn ask(index: &PolicyIndex, name: &str, port: u16) -> ToName {
    let told = ask_world(index, WORLD_V4, name, port);
    assert_eq!(told, ask_world(index, WORLD_V6, &name.to_uppercase(), port));
    told
}

/// An entry that lets the pod ask the name server for names.
fn dns(names: &[&str]) -> Value {
    let names: Vec<Value> = names.iter().map(|name| json!({"matchPattern": name})).collect();
    let ports = json!([{"port": "53", "protocol": "ANY"}]);
    json!({
        "toEndpoints": [{"matchLabels": {"app": "dns"}}], "toPorts": [{"ports": ports, "rules": {"dns": names}}],
    })
}

fn fqdns(names: &[&str], port: &str) -> Value {
    let names: Vec<Value> = names.iter().map(|name| json!({"matchPattern": name})).collect();
    json!({"toFQDNs": names, "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}]})
}

fn texts<'a>(places: impl IntoIterator<Item = &'a Place>) -> Vec<String> {
    places.into_iter().map(|place| format!("{} {}", place.policy, place.path)).collect()
}

fn granted(decision: &Decision) -> Vec<String> {
    match decision {
        Decision::Granted(places) => texts(places),
        other => panic!("{other:?}"),
    }
}

/// The nearest rule, and what missed.
fn nearest(decision: &Decision) -> (String, &Missed) {
    match decision {
        Decision::DefaultDeny(Reason { nearest: Some(miss), closed_by }) => {
            assert!(!closed_by.is_empty());
            (miss.place.path.to_string(), &miss.missed)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_may_be_asked_for_is_allowed_by_the_field_that_names_it() {
    let index = mk_world(&[
        json!({"egress": [dns(&["other.io", "*.example.com"]), fqdns(&["z.io", "api.example.com"], "443")]}),
        json!({"egress": [fqdns(&["*.example.com"], "443"), {"toFQDNs": [{"matchName": "b.io"}]}]}),
    ]);
    let told = ask(&index, "api.example.com", 443);
    let rules = ["cnp/default/p0 spec.egress[1].toFQDNs[1]", "cnp/default/p1 spec.egress[0].toFQDNs[0]"];
    assert_eq!(granted(&told.traffic), rules);
    let question = ["cnp/default/p0 spec.egress[0].toPorts[0].rules.dns[1]"];
    assert_eq!(granted(&told.question.unwrap()), question);
    assert!(told.by_prefix.is_empty());
}

#[test]
fn the_nearest_name_that_missed_is_the_most_alike() {
    let spec = json!({"egress": [dns(&["*"]), fqdns(&["a.io", "www.example.com", "x.com"], "443")]});
    let index = mk_world(&[spec]);
    let told = ask(&index, "api.example.com", 443);
    let (path, missed) = nearest(&told.traffic);
    assert_eq!(path, "spec.egress[1].toFQDNs[1]");
    assert!(
        matches!(missed, Missed::Name(name, ports) if name.as_str() == "www.example.com." && ports.is_empty())
    );
    let told = ask(&index, "api.example.com", 80);
    assert!(matches!(nearest(&told.traffic).1, Missed::Name(_, ports) if ports[0].first == 443));
    let told = ask(&index, "www.example.com", 80);
    assert!(matches!(nearest(&told.traffic).1, Missed::Port(ports) if ports[0].first == 443));
}

#[test]
fn a_name_that_may_not_be_asked_for_has_no_addresses() {
    let name = fqdns(&["api.example.com"], "443");
    // Questions are looked at, and this one is refused.
    let index = mk_world(&[json!({"egress": [dns(&["a.io", "www.example.com"]), name]})]);
    let told = ask(&index, "api.example.com", 443);
    let question = told.question.unwrap();
    let (path, missed) = nearest(&question);
    assert_eq!(path, "spec.egress[0].toPorts[0].rules.dns[1]");
    assert!(matches!(missed, Missed::Name(name, _) if name.as_str() == "www.example.com."));
    assert_eq!(nearest(&told.traffic), ("spec.egress[1].toFQDNs[0]".to_owned(), &Missed::Unheard));
    // Nobody looks at them.
    let plain = json!({"toEndpoints": [{"matchLabels": {"app": "dns"}}]});
    let index = mk_world(&[json!({"egress": [plain, name]})]);
    let told = ask(&index, "api.example.com", 443);
    assert_eq!(told.question, None);
    assert_eq!(nearest(&told.traffic), ("spec.egress[1].toFQDNs[0]".to_owned(), &Missed::Unheard));
    // The name server is denied.
    let deny = json!({"egressDeny": [{"toEndpoints": [{"matchLabels": {"app": "dns"}}]}]});
    let index = mk_world(&[json!({"egress": [dns(&["*"]), name]}), deny]);
    let told = ask(&index, "api.example.com", 443);
    let Some(Decision::Denied(places)) = &told.question else { panic!("{told:?}") };
    assert_eq!(texts(places), ["cnp/default/p1 spec.egressDeny[0]"]);
    assert_eq!(nearest(&told.traffic).1, &Missed::Unheard);
}

#[test]
fn what_is_allowed_without_looking_may_ask_for_every_name() {
    let mut open = dns(&["a.io"]);
    open["toPorts"][0].as_object_mut().unwrap().remove("rules");
    let index = mk_world(&[json!({"egress": [dns(&["a.io"]), open, fqdns(&["b.io"], "443")]})]);
    let told = ask(&index, "b.io", 443);
    assert_eq!(granted(&told.traffic), ["cnp/default/p0 spec.egress[2].toFQDNs[0]"]);
    assert_eq!(granted(&told.question.unwrap()), ["cnp/default/p0 spec.egress[0].toPorts[0]"]);
}

#[test]
fn rules_about_all_addresses_outside_count_whatever_the_name_is() {
    for (peer, path) in [
        (json!({"toEntities": ["world"]}), "spec.egress[0]"),
        (json!({"toEntities": ["all"]}), "spec.egress[0]"),
        (json!({"toPorts": [{"ports": [{"port": "443"}]}]}), "spec.egress[0].toPorts[0]"),
        (json!({"toCIDR": ["0.0.0.0/0", "::/0"]}), "spec.egress[0]"),
    ] {
        let index = mk_world(&[json!({"egress": [peer]})]);
        let told = ask(&index, "api.example.com", 443);
        assert_eq!(granted(&told.traffic), [format!("cnp/default/p0 {path}")]);
        assert!(told.question.is_none() && told.by_prefix.is_empty());
    }
    // Of one family only.
    let index = mk_world(&[json!({"egress": [{"toCIDR": ["0.0.0.0/0"]}]})]);
    granted(&ask_world(&index, WORLD_V4, "a.io", 443).traffic);
    assert!(matches!(ask_world(&index, WORLD_V6, "a.io", 443).traffic, Decision::DefaultDeny(_)));
    // A denial wins over the name.
    let name = fqdns(&["a.io"], "443");
    let index =
        mk_world(&[json!({"egress": [dns(&["*"]), name], "egressDeny": [{"toEntities": ["world"]}]})]);
    assert!(matches!(&ask(&index, "a.io", 443).traffic, Decision::Denied(places) if places.len() == 1));
    let index = mk_world(&[]);
    let nothing = ToName { question: None, traffic: Decision::NotEnforced, by_prefix: [].into() };
    assert_eq!(ask(&index, "a.io", 443), nothing);
    let mut index = mk_world(&[]);
    index.set_mode(Mode::Always);
    let Decision::DefaultDeny(reason) = ask(&index, "a.io", 443).traffic else { panic!("it passes") };
    assert_eq!(reason, Reason { closed_by: Vec::new(), nearest: None });
}

#[test]
fn rules_about_some_addresses_are_told_apart() {
    let index = mk_world(&[json!({
        "egress": [
            {"toCIDR": ["192.0.2.0/24"]},
            {"toCIDR": ["192.0.2.0/24"], "toPorts": [{"ports": [{"port": "80"}]}]},
            {"toCIDRSet": [{"cidrGroupRef": "servers"}]},
        ],
        "egressDeny": [{"toCIDR": ["203.0.113.0/24"]}],
    })]);
    let told = ask(&index, "a.io", 443);
    assert!(matches!(told.traffic, Decision::DefaultDeny(_)));
    assert_eq!(texts(&told.by_prefix), ["cnp/default/p0 spec.egress[0]", "cnp/default/p0 spec.egress[2]"]);
    let but = json!([{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}]);
    let deny = json!([{"toCIDR": ["203.0.113.0/24"]}]);
    let index = mk_world(&[json!({"egress": [{"toCIDRSet": but}], "egressDeny": deny})]);
    let told = ask_world(&index, WORLD_V4, "a.io", 443);
    assert_eq!(granted(&told.traffic), ["cnp/default/p0 spec.egress[0]"]);
    let both = ["cnp/default/p0 spec.egressDeny[0]", "cnp/default/p0 spec.egress[0]"];
    assert_eq!(texts(&told.by_prefix), both);
}

#[test]
fn an_ip_block_of_all_addresses_counts_and_others_depend_on_the_address() {
    let mut index = mk_world(&[]);
    let mut set = |blocks: Value| {
        let policy = json!({
            "metadata": {"name": "k", "namespace": "default"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": blocks}]},
        });
        let (rules, notes) = reduce::netpol(&serde_json::from_value(policy).unwrap(), "kind");
        assert!(notes.is_empty());
        index.set_policy(&PolicyKey::netpol("default", "k"), Some(rules));
        ask_world(&index, WORLD_V4, "a.io", 443)
    };
    let told = set(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}]));
    assert_eq!(granted(&told.traffic), ["netpol/default/k spec.egress[0]"]);
    assert!(told.by_prefix.is_empty());
    let told = set(json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]));
    assert_eq!(granted(&told.traffic), texts(&told.by_prefix));
    let told = set(json!([{"ipBlock": {"cidr": "0.0.0.0/1"}}]));
    assert!(matches!(told.traffic, Decision::DefaultDeny(_)));
    assert_eq!(texts(&told.by_prefix), ["netpol/default/k spec.egress[0]"]);
}

#[test]
fn domain_names_of_cluster_rules_live_from_questions_to_cluster_dns() {
    let mut index = mk_world(&[]);
    let named = ["gen:io.cilium.k8s.named-ports=dns.UDP.53_dns-tcp.TCP.53"];
    let labels = crate::support::mk_labels("kube-system", &["k8s-app=kube-dns"]);
    let named = cilium_core::Labels::parse(named).unwrap();
    index.set_identity(SERVER, Some(labels.iter().chain(named.iter()).cloned().collect()));
    let policy = json!({
        "metadata": {"name": "c"},
        "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": [{"domainNames": ["a.io", "*.example.com"]}]},
                {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
            ],
        },
    });
    let policy = serde_json::from_value(policy).unwrap();
    let (rules, notes) = reduce::clusternetpol(&policy, "kind");
    index.set_policy(&reduce::clusternetpol_key(&policy), Some(rules));
    assert!(notes.iter().all(|note| note.reason.contains("outside")), "{notes:?}");
    let told = ask(&index, "api.example.com", 443);
    assert_eq!(granted(&told.traffic), ["clusternetpol/c spec.egress[0].to[0].domainNames[1]"]);
    assert_eq!(granted(&told.question.unwrap()), ["clusternetpol/c spec.egress[0]"]);
    assert!(matches!(ask(&index, "b.io", 443).traffic, Decision::Denied(_)));
}
