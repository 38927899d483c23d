//! Policies that cannot be read.

use cilium_l2::Field;
use serde_json::json;

use crate::world::*;

#[test]
fn each_malformed_field_is_named_once_by_its_path() {
    let policy = mk_policy(json!({
        "loadBalancerIPs": true,
        "nodeSelector": {"matchLabels": {"not a key": "x"}},
        "serviceSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": []}]},
        "interfaces": ["^eth0$", "eth(", "[z-a]"],
    }));
    let fields: Vec<Field> = policy.faults().iter().map(|fault| fault.field).collect();
    assert_eq!(fields, Field::ALL);
    let texts: Vec<String> = policy.faults().iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("spec.nodeSelector.matchLabels[not a key]: "), "{texts:?}");
    assert!(texts[1].starts_with("spec.serviceSelector.matchExpressions[0]"), "{texts:?}");
    assert_eq!(texts[2], r#"spec.interfaces[1]: "eth(" is no regular expression: unclosed group"#);
}

#[test]
fn a_malformed_policy_announces_nothing() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1"], &[]));
    assert!(announced(&mut l2, "192.0.2.1").is_some());
    l2.set_policy("p", Some(mk_policy(json!({"loadBalancerIPs": true, "interfaces": ["("]}))));
    assert_eq!(announced(&mut l2, "192.0.2.1"), None);
    l2.set_policy("p", Some(mk_policy(json!({"loadBalancerIPs": true}))));
    assert!(announced(&mut l2, "192.0.2.1").is_some());
    l2.set_policy("p", None);
    assert_eq!(announced(&mut l2, "192.0.2.1"), None);
    assert_eq!(l2.reach("p"), None);
}

#[test]
fn expressions_are_read_as_go_reads_them() {
    let policy = mk_policy(
        json!({"interfaces": ["^(eth|en[ops])\\d+$", "(?i)BOND", "^net[[:digit:]]{1,2}$", "\\Aib\\z"]}),
    );
    assert_eq!(policy.faults(), []);
    assert!(!mk_policy(json!({"interfaces": ["(?=a)"]})).faults().is_empty(), "Go has no look-ahead");
}
