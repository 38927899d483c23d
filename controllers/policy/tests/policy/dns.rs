//! Rules about DNS questions, and peers by name.

use std::collections::BTreeMap;

use cilium_api::parts::{DnsRule, NamedPeer, Policy};
use cilium_policy::InvalidKind::Malformed;
use cilium_policy::verdict::{Judgement, questions, verdict};
use cilium_policy::{Flow, Host, PolicyIndex, entries_of};
use serde_json::{Value, json};

use crate::support::{TCP, UDP, mk_index, mk_key, reduce_spec};

const SUBJECT: u32 = 300;
const SERVER: u32 = 400;
const OTHER: u32 = 500;

/// A subject, a name server and another pod, with one policy for each list of egress entries.
fn mk_world(policies: &[Value]) -> PolicyIndex {
    let mut index = mk_index(&[
        (SUBJECT, "default", &["app=subject"]),
        (SERVER, "default", &["app=server"]),
        (OTHER, "default", &["app=other"]),
    ]);
    for (number, spec) in policies.iter().enumerate() {
        let mut spec = spec.clone();
        spec["endpointSelector"] = json!({"matchLabels": {"app": "subject"}});
        index.set_policy(&mk_key(&format!("p{number}")), Some(reduce_spec(spec).unwrap()));
    }
    index
}

fn compiled(policies: &[Value]) -> Policy {
    mk_world(policies).compile(SUBJECT, Host::Plain).unwrap()
}

/// To the server, on UDP port 53, with what is asked for above it.
fn to_server(rules: &Value) -> Value {
    let mut item = json!({"ports": [{"port": "53", "protocol": "UDP"}]});
    if !rules.is_null() {
        item["rules"] = rules.clone();
    }
    json!({"toEndpoints": [{"matchLabels": {"app": "server"}}], "toPorts": [item]})
}

fn dns(patterns: &[&str]) -> Value {
    json!({"dns": patterns.iter().map(|it| json!({"matchPattern": it})).collect::<Vec<_>>()})
}

fn rule(patterns: &[&str], origins: &[u16]) -> DnsRule {
    let patterns = patterns.iter().map(|it| (*it).to_owned()).collect();
    DnsRule { peer: SERVER, protocol: UDP, port: 53, patterns, origins: origins.to_vec() }
}

#[test]
fn a_rule_about_questions_is_no_plain_entry() {
    let policy = compiled(&[json!({"egress": [to_server(&json!({"dns": [
        {"matchName": "Cilium.io"}, {"matchPattern": "*.Example.org."}, {"matchName": "cilium.io."},
    ]}))]})]);
    assert_eq!(policy.dns, [rule(&["*.example.org.", "cilium.io."], &[0])]);
    assert!(policy.egress.enforced && policy.egress.allow.is_empty() && policy.names.is_empty());
    assert!(policy.restricts_egress());
    assert_eq!(entries_of(&policy, &mk_key("p0")), 1);
}

#[test]
fn rules_of_several_policies_add_up() {
    let policy = compiled(&[
        json!({"egress": [to_server(&dns(&["a.io"]))]}),
        json!({"egress": [to_server(&dns(&["*.b.io"])), to_server(&dns(&["a.io"]))]}),
    ]);
    assert_eq!(policy.dns, [rule(&["*.b.io.", "a.io."], &[0, 1])]);
    let every = compiled(&[
        json!({"egress": [to_server(&dns(&["a.io"]))]}),
        json!({"egress": [to_server(&dns(&["*"]))]}),
    ]);
    assert_eq!(every.dns, [rule(&["*"], &[0, 1])]);
}

#[test]
fn what_is_allowed_without_looking_may_ask_for_everything() {
    // The same peers on the same port.
    let same = compiled(&[
        json!({"egress": [to_server(&dns(&["a.io"]))]}),
        json!({"egress": [to_server(&Value::Null)]}),
    ]);
    assert_eq!(same.dns, [rule(&["*"], &[0])]);
    assert_eq!(same.egress.allow.len(), 1);
    // Wider peers, or more ports: the rule about questions goes before them.
    for wider in [
        json!({"toEntities": ["all"], "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}]}),
        json!({"toEntities": ["cluster"]}),
        json!({"toEndpoints": [{"matchLabels": {"app": "server"}}]}),
    ] {
        let policy =
            compiled(&[json!({"egress": [to_server(&dns(&["a.io"]))]}), json!({"egress": [wider.clone()]})]);
        assert_eq!(policy.dns, [rule(&["a.io."], &[0])], "{wider}");
    }
}

#[test]
fn without_default_deny_questions_are_looked_at_and_pass() {
    let policy = compiled(&[json!({
        "egress": [to_server(&dns(&["a.io"])), {"toFQDNs": [{"matchName": "a.io"}]}],
        "enableDefaultDeny": {"egress": false},
    })]);
    assert_eq!(policy.dns, [rule(&["*"], &[0])]);
    assert!(!policy.egress.enforced && policy.names.is_empty() && policy.restricts_egress());
}

#[test]
fn peers_by_name_wait_for_a_node() {
    let on_443 = json!([{"ports": [{"port": "443", "endPort": 444, "protocol": "TCP"}]}]);
    let policy = compiled(&[
        json!({"egress": [{"toFQDNs": [{"matchName": "a.io"}, {"matchPattern": "*.B.io"}], "toPorts": on_443}]}),
        json!({"egress": [{"toFQDNs": [{"matchName": "A.io."}]}]}),
    ]);
    let peer = |pattern: &str, (protocol, first, last), origin| NamedPeer {
        pattern: pattern.to_owned(),
        protocol,
        first,
        last,
        origins: vec![origin],
    };
    let expected =
        [peer("*.b.io.", (TCP, 443, 444), 0), peer("a.io.", (0, 0, 0), 1), peer("a.io.", (TCP, 443, 444), 0)];
    assert_eq!(policy.names, expected);
    assert!(policy.egress.enforced && policy.egress.allow.is_empty());
}

#[test]
fn the_verdict_knows_what_may_be_asked() {
    let policies = |specs: &[Value]| BTreeMap::from([(SUBJECT, compiled(specs))]);
    let flow = |destination, protocol| Flow {
        source: SUBJECT,
        destination,
        protocol,
        destination_port: 53,
        addresses: None,
    };
    let allowed = policies(&[json!({"egress": [to_server(&dns(&["a.io"]))]})]);
    assert_eq!(verdict(&allowed, &flow(SERVER, UDP)).egress, Judgement::Granted(vec!["cnp/default/p0"]));
    assert_eq!(verdict(&allowed, &flow(SERVER, TCP)).egress, Judgement::DefaultDeny(vec!["cnp/default/p0"]));
    assert_eq!(verdict(&allowed, &flow(OTHER, UDP)).egress, Judgement::DefaultDeny(vec!["cnp/default/p0"]));
    let asked = questions(&allowed, &flow(SERVER, UDP)).unwrap();
    assert!(asked.iter().any(|pattern| pattern.matches("a.io.")));
    assert!(!asked.iter().any(|pattern| pattern.matches("b.io.")));
    assert_eq!(questions(&allowed, &flow(OTHER, UDP)), None);
    let denied = policies(&[
        json!({"egress": [to_server(&dns(&["a.io"]))]}),
        json!({"egressDeny": [{"toEndpoints": [{"matchLabels": {"app": "server"}}]}]}),
    ]);
    assert_eq!(verdict(&denied, &flow(SERVER, UDP)).egress, Judgement::Denied(vec!["cnp/default/p1"]));
}

#[test]
fn any_protocol_is_the_two_that_questions_come_by() {
    let mut entry = to_server(&dns(&["*"]));
    entry["toPorts"][0]["ports"][0]["protocol"] = json!("ANY");
    let policy = compiled(&[json!({"egress": [entry]})]);
    let protocols: Vec<u8> = policy.dns.iter().map(|rule| rule.protocol).collect();
    assert_eq!(protocols, [TCP, UDP]);
}

#[test]
fn what_cannot_be_a_rule_is_refused() {
    let rules = dns(&["*"]);
    let port = |port: Value| json!({"toPorts": [{"ports": [port], "rules": rules}]});
    for (direction, entry, path, reason) in [
        ("ingress", port(json!({"port": "53"})), "toPorts", "for egress only"),
        ("egress", port(json!({"port": "0"})), "toPorts[0].ports", "not port 0"),
        ("egress", port(json!({"port": "53", "endPort": 54})), "toPorts[0].ports", "single ports"),
        ("egress", json!({"toPorts": [{"rules": rules}]}), "toPorts[0].ports", "needs a port"),
        (
            "egress",
            json!({"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchName": "a*"}]}}]}),
            "toPorts[0].rules.dns[0].matchName",
            "is not a DNS name",
        ),
        ("egress", json!({"toFQDNs": [{}]}), "toFQDNs[0]", "exactly one of matchName and matchPattern"),
        ("egress", json!({"toFQDNs": [{"matchPattern": "a..b"}]}), "toFQDNs[0].matchPattern", "single dots"),
    ] {
        let spec = json!({"endpointSelector": {}, direction: [entry]});
        let invalid = reduce_spec(spec.clone()).expect_err(path);
        assert_eq!(invalid.path, format!("spec.{direction}[0].{path}"), "{spec}");
        assert!(invalid.kind == Malformed && invalid.reason.contains(reason), "{invalid}");
    }
}
