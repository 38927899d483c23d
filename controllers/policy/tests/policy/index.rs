//! What a change touches.

use std::collections::BTreeSet;

use cilium_policy::{PolicyIndex, PolicyRules};
use serde_json::json;

use crate::support::{ingress_of, mk_index, mk_key, mk_labels, reduce_clusterwide, reduce_spec};

/// Policy `number` lets pods `client-<number>` reach pods `server-<number>`.
fn numbered(number: u32) -> PolicyRules {
    reduce_spec(json!({
        "endpointSelector": {"matchLabels": {"app": format!("server-{number}")}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": format!("client-{number}")}}]}],
    }))
    .unwrap()
}

fn a_thousand_policies() -> PolicyIndex {
    let mut index = mk_index(&[]);
    for number in 0..1000 {
        index.set_policy(&mk_key(&format!("p{number}")), Some(numbered(number)));
        for (offset, name) in [(1000, "server"), (3000, "client")] {
            let labels = mk_labels("default", &[&format!("app={name}-{number}")]);
            index.set_identity(offset + number, Some(labels));
        }
    }
    index.take_affected();
    index
}

#[test]
fn one_more_policy_touches_what_it_selects() {
    let mut index = a_thousand_policies();
    index.set_policy(&mk_key("more"), Some(numbered(7)));
    assert_eq!(index.take_affected(), BTreeSet::from([1007]));
    index.set_policy(&mk_key("more"), Some(numbered(7)));
    assert_eq!(index.take_affected(), BTreeSet::new(), "nothing changed");
    index.set_policy(&mk_key("more"), Some(numbered(8)));
    assert_eq!(index.take_affected(), BTreeSet::from([1007, 1008]));
    index.set_policy(&mk_key("more"), None);
    assert_eq!(index.take_affected(), BTreeSet::from([1008]));
}

#[test]
fn one_more_pod_touches_those_that_may_talk_to_it() {
    let mut index = a_thousand_policies();
    index.set_identity(5000, Some(mk_labels("default", &["app=client-7", "tier=edge"])));
    assert_eq!(index.take_affected(), BTreeSet::from([1007, 5000]));
    assert_eq!(ingress_of(&index, 1007).unwrap(), [(3007, 0, 0, 0), (5000, 0, 0, 0)]);
    index.set_identity(5000, Some(mk_labels("default", &["app=client-7", "tier=core"])));
    assert_eq!(index.take_affected(), BTreeSet::from([5000]), "no rule asks for the label");
    index.set_identity(5000, Some(mk_labels("default", &["app=client-7", "tier=core"])));
    assert_eq!(index.take_affected(), BTreeSet::new());
    index.set_identity(5000, Some(mk_labels("far", &["app=client-7"])));
    assert_eq!(index.take_affected(), BTreeSet::from([1007, 5000]));
    index.set_identity(5000, None);
    assert_eq!(index.take_affected(), BTreeSet::from([5000]));
    assert_eq!(ingress_of(&index, 1007).unwrap(), [(3007, 0, 0, 0)]);
}

#[test]
fn selectors_without_a_positive_requirement_are_kept_up_too() {
    let rules = reduce_clusterwide(json!({
        "endpointSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]},
        "ingress": [{}],
    }));
    let mut index = mk_index(&[(300, "default", &["app=web"])]);
    index.set_policy(&mk_key("p"), Some(rules.unwrap()));
    assert_eq!(index.selected(&mk_key("p")), BTreeSet::from([4, 5, 8]));
    index.set_identity(300, Some(mk_labels("default", &["app=db"])));
    index.set_identity(301, Some(mk_labels("default", &[])));
    assert_eq!(index.selected(&mk_key("p")), BTreeSet::from([4, 5, 8, 300, 301]));
}
