//! What rules say of themselves travels with them, and decides nothing.

use std::collections::BTreeMap;

use cilium_api::parts::{Note, Policy};
use cilium_policy::{Flow, Host, Judgement, PolicyIndex, entries_of, reduce, verdict};
use serde_json::{Value, json};

use crate::support::{CLUSTER, TCP, mk_cnp, mk_index, mk_key, mk_rule};

fn mk_spec(port: u16, more: Value) -> Value {
    let mut spec = json!({
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"toPorts": [{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]}],
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

fn compile(specs: Vec<Value>) -> (PolicyIndex, Policy) {
    let mut index = mk_index(&[(300, "default", &["app=web"]), (301, "default", &["app=client"])]);
    let policy = mk_cnp("default", specs.into_iter().map(mk_rule).collect());
    index.set_policy(&mk_key("rule"), Some(reduce::cnp(&policy, CLUSTER).unwrap()));
    let compiled = index.compile(300, Host::Plain).unwrap();
    (index, compiled)
}

/// Whether a connection passes; the policy is named once, whichever of its rules decide.
fn passes(policy: &Policy, port: u16) -> bool {
    let policies = BTreeMap::from([(300, policy.clone())]);
    let flow = Flow { source: 301, destination: 300, protocol: TCP, destination_port: port, addresses: None };
    let verdict = verdict(&policies, &flow);
    assert_eq!(verdict.ingress.origins(), ["cnp/default/rule"]);
    matches!(verdict.ingress, Judgement::Granted(_))
}

#[test]
fn each_note_is_an_origin_of_its_own() {
    let labels = json!([{"key": "team", "value": "shop", "source": "k8s"}, {"key": "reviewed"}]);
    let (_, policy) = compile(vec![
        mk_spec(80, json!({})),
        mk_spec(443, json!({"log": {"value": "payments"}, "labels": labels})),
        mk_spec(444, json!({"log": {"value": "payments"}, "labels": labels})),
    ]);
    assert_eq!(policy.origins, ["cnp/default/rule"; 2]);
    let labels = vec!["k8s:team=shop".to_owned(), "unspec:reviewed".to_owned()];
    assert_eq!(policy.notes, BTreeMap::from([(1, Note { log: "payments".into(), labels })]));
    let by: Vec<_> =
        policy.ingress.allow.iter().map(|entry| (entry.first, entry.origins.as_slice())).collect();
    assert_eq!(by, [(80, &[0][..]), (443, &[1]), (444, &[1]), (0, &[])]);
    assert_eq!(entries_of(&policy, &mk_key("rule")), 3);
    assert_eq!([80, 443, 81].map(|port| passes(&policy, port)), [true, true, false]);
}

#[test]
fn without_notes_nothing_is_added() {
    let (_, policy) = compile(vec![mk_spec(80, json!({})), mk_spec(443, json!({"description": "text"}))]);
    assert_eq!(policy.origins, ["cnp/default/rule"]);
    let text = serde_json::to_string(&policy).unwrap();
    assert!(!text.contains("notes"), "{text}");
}

#[test]
fn another_note_is_another_policy_for_the_kernel() {
    let specs = |log: &str| vec![mk_spec(80, json!({"log": {"value": log}}))];
    let (mut index, before) = compile(specs("one"));
    index.take_affected();
    let policy = mk_cnp("default", specs("two").into_iter().map(mk_rule).collect());
    index.set_policy(&mk_key("rule"), Some(reduce::cnp(&policy, CLUSTER).unwrap()));
    assert!(index.take_affected().contains(&300));
    assert_ne!(index.compile(300, Host::Plain).unwrap(), before);
}
