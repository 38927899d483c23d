//! Which addresses are announced, by whom, and on which devices.

use cilium_l2::{Changes, Served};
use serde_json::json;

use crate::world::*;

#[test]
fn a_policy_announces_the_kinds_of_addresses_that_it_names() {
    let part = mk_part(&["192.0.2.1"], &["198.51.100.1"]);
    for (balanced, external) in [(true, false), (false, true), (true, true), (false, false)] {
        let mut l2 = mk_l2(json!({"loadBalancerIPs": balanced, "externalIPs": external}));
        set(&mut l2, "web", "web", &part);
        assert_eq!(announced(&mut l2, "192.0.2.1").is_some(), balanced);
        assert_eq!(announced(&mut l2, "198.51.100.1").is_some(), external);
    }
}

#[test]
fn an_address_goes_to_all_selected_nodes_in_an_order_of_its_own() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1", "192.0.2.2"], &[]));
    let first = announced(&mut l2, "192.0.2.1").unwrap();
    let second = announced(&mut l2, "192.0.2.2").unwrap();
    assert_eq!(first.owners, ["b", "c", "a"]);
    assert_eq!(second.owners, ["c", "a", "b"]);
    assert_eq!(first.services, ["shop/web"]);
    assert_eq!(first.interfaces, [""; 0]);
    l2.set_policy(
        "p",
        Some(mk_policy(json!({
            "loadBalancerIPs": true, "nodeSelector": {"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["a"]}]},
        }))),
    );
    assert_eq!(announced(&mut l2, "192.0.2.1").unwrap().owners, ["b", "c"]);
}

#[test]
fn services_are_selected_by_labels_name_and_namespace_and_those_of_other_classes_are_not() {
    let part = mk_part(&["192.0.2.1"], &[]);
    let selects = |selector, class| {
        let mut l2 = mk_l2(json!({"loadBalancerIPs": true, "serviceSelector": {"matchLabels": selector}}));
        l2.set_claim(&name("web"), mk_claim("web", "front", class));
        l2.set_served(&name("web"), Some(Served::reduce(&part)));
        announced(&mut l2, "192.0.2.1").is_some()
    };
    assert!(selects(json!({"app": "front"}), None));
    assert!(!selects(json!({"app": "back"}), None));
    assert!(selects(json!({"io.kubernetes.service.name": "web"}), None));
    assert!(selects(json!({"io.kubernetes.service.namespace": "shop"}), None));
    assert!(!selects(json!({"io.kubernetes.service.namespace": "other"}), None));
    assert!(selects(json!({}), Some("io.cilium/l2-announcer")));
    assert!(!selects(json!({}), Some("io.cilium/bgp-control-plane")));
}

#[test]
fn what_an_annotation_leaves_out_is_not_announced() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true, "externalIPs": true}));
    let mut part = mk_part(&["192.0.2.1"], &["198.51.100.1"]);
    part.only = Some(cilium_api::frontends::FrontendKind::ClusterIp);
    set(&mut l2, "web", "web", &part);
    assert_eq!(announced(&mut l2, "192.0.2.1"), None);
    assert!(announced(&mut l2, "198.51.100.1").is_some(), "external addresses are met whatever it says");
}

#[test]
fn interfaces_are_those_of_all_policies_that_select_service_and_node() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true, "interfaces": ["^eth", "^bond0$", "^eth"]}));
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1"], &[]));
    assert_eq!(announced(&mut l2, "192.0.2.1").unwrap().interfaces, ["^bond0$", "^eth"]);
    let of_node = |node: &str, interfaces| {
        let selector = json!({"matchLabels": {"name": node}});
        mk_policy(json!({"loadBalancerIPs": true, "nodeSelector": selector, "interfaces": interfaces}))
    };
    l2.set_policy("q", Some(of_node("a", json!(["^wlan"]))));
    l2.set_policy("r", Some(of_node("b", json!([]))));
    l2.plan();
    let interfaces = |node| l2.announcement(ip("192.0.2.1"), node).unwrap().interfaces;
    assert_eq!(interfaces("a"), ["^bond0$", "^eth", "^wlan"]);
    assert_eq!(interfaces("b"), [""; 0], "one policy wants all devices");
    assert_eq!(interfaces("c"), ["^bond0$", "^eth"]);
}

#[test]
fn a_node_without_a_device_that_matches_is_no_owner_once_that_is_known() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true, "interfaces": ["th1"]}));
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1"], &[]));
    l2.set_heard("a", &["eth0".into(), "eth12".into()], &[]);
    l2.set_heard("b", &["eth0".into(), "eth2".into()], &[]);
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "c"], "unanchored; nothing is known of c");
    assert_eq!(l2.reach("p").unwrap().deviceless, ["b"]);
    l2.set_heard("b", &["eth0".into(), "eth1".into()], &[]);
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b", "c"]);
}

#[test]
fn a_service_with_local_backends_goes_where_they_are() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    let part = |nodes: &[&str]| local(mk_part(&["192.0.2.1", "2001:db8::1"], &[]), nodes);
    set(&mut l2, "web", "web", &part(&["a", "-b"]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a"], "a ready backend before one on its way out");
    assert_eq!(owners(&mut l2, "2001:db8::1"), [""; 0], "there is none of that family");
    assert_eq!(l2.reach("p").unwrap().unowned, [ip("2001:db8::1")]);
    set(&mut l2, "web", "web", &part(&["-a", "-b"]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b"]);
    set(&mut l2, "web", "web", &part(&[]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), [""; 0]);
}

#[test]
fn a_shared_address_goes_to_a_node_that_serves_all_its_services() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    let part = mk_part(&["192.0.2.1"], &[]);
    set(&mut l2, "one", "web", &local(part.clone(), &["a", "b"]));
    set(&mut l2, "two", "web", &local(part.clone(), &["b", "c"]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["b"]);
    assert_eq!(announced(&mut l2, "192.0.2.1").unwrap().services, ["shop/one", "shop/two"]);
    set(&mut l2, "two", "web", &local(part.clone(), &["c"]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b", "c"], "no node serves both");
    set(&mut l2, "two", "web", &local(part.clone(), &[]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b"], "the other one is served nowhere anyway");
    set(&mut l2, "two", "web", &part);
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b"], "every node serves the other one");
}

#[test]
fn a_shared_address_without_local_services_goes_to_the_nodes_of_any() {
    let of = |app: &str, node: &str| {
        mk_policy(json!({
            "loadBalancerIPs": true, "nodeSelector": {"matchLabels": {"name": node}},
            "serviceSelector": {"matchLabels": {"app": app}},
        }))
    };
    let mut l2 = mk_l2(json!({}));
    l2.set_policy("p", Some(of("one", "a")));
    l2.set_policy("q", Some(of("two", "b")));
    set(&mut l2, "one", "one", &mk_part(&["192.0.2.1"], &[]));
    set(&mut l2, "two", "two", &mk_part(&["192.0.2.1"], &[]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b"]);
    l2.set_claim(&name("two"), None);
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a"]);
    assert_eq!(announced(&mut l2, "192.0.2.1").unwrap().services, ["shop/one"]);
}

#[test]
fn an_address_of_a_node_is_never_announced() {
    let mut l2 = mk_l2(json!({"externalIPs": true}));
    set(&mut l2, "web", "web", &mk_part(&[], &["192.0.2.1", "192.0.2.2"]));
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b", "c"]);
    l2.set_addresses("b", [ip("192.0.2.1"), ip("10.0.0.1")]);
    assert_eq!(owners(&mut l2, "192.0.2.1"), [""; 0]);
    assert_eq!(owners(&mut l2, "192.0.2.2"), ["a", "b", "c"]);
    assert_eq!(l2.reach("p").unwrap().taken, [ip("192.0.2.1")]);
    assert!(l2.reach("p").unwrap().unowned.is_empty());
    l2.set_node("c", None);
    l2.set_addresses("c", [ip("192.0.2.1")]);
    l2.set_addresses("b", [ip("10.0.0.1")]);
    assert_eq!(owners(&mut l2, "192.0.2.1"), [""; 0], "c still has it");
    l2.set_addresses("c", []);
    assert_eq!(owners(&mut l2, "192.0.2.1"), ["a", "b"]);
}

#[test]
fn an_address_has_at_most_eight_owners() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    for number in 0..20 {
        l2.set_node(&format!("n{number}"), Some(mk_labels(&[])));
    }
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1"], &[]));
    l2.plan();
    let nodes = (0..20).map(|number| format!("n{number}")).chain(["a", "b", "c"].map(str::to_owned));
    assert_eq!(nodes.filter(|node| l2.announcement(ip("192.0.2.1"), node).is_some()).count(), 8);
}

#[test]
fn the_first_owner_that_most_others_hear_answers() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true}));
    set(&mut l2, "web", "web", &mk_part(&["192.0.2.1"], &[]));
    assert_eq!(announced(&mut l2, "192.0.2.1").unwrap().owners, ["b", "c", "a"]);
    let address = ip("192.0.2.1");
    assert_eq!(l2.answers(address), Some("b"));
    l2.set_heard("a", &[], &["b".into()]);
    assert_eq!(l2.answers(address), Some("b"), "one of two is no majority");
    l2.set_heard("c", &[], &["b".into()]);
    assert_eq!(l2.answers(address), Some("c"));
    assert_eq!(l2.announced("p")[0].node.as_deref(), Some("c"));
    assert_eq!(l2.plan(), Changes { parts: Vec::new(), policies: ["p".into()].into() }, "no part changes");
    l2.set_heard("b", &[], &["a".into(), "c".into()]);
    assert_eq!(l2.answers(address), Some("c"), "what a cut off node says does not outvote the others");
    l2.set_heard("a", &[], &["b".into(), "c".into()]);
    l2.set_heard("c", &[], &["a".into(), "b".into()]);
    assert_eq!(l2.answers(address), None, "nobody hears anybody");
}

#[test]
fn a_change_touches_what_it_reaches() {
    let mut l2 = mk_l2(json!({"loadBalancerIPs": true, "serviceSelector": {"matchLabels": {"app": "web"}}}));
    set(&mut l2, "one", "web", &mk_part(&["192.0.2.1"], &[]));
    set(&mut l2, "two", "web", &mk_part(&["192.0.2.2"], &[]));
    l2.plan();
    assert_eq!(l2.plan(), Changes::default());
    set(&mut l2, "two", "web", &mk_part(&["192.0.2.3"], &[]));
    let changes = l2.plan();
    let addresses: Vec<_> = changes.parts.iter().map(|(address, _)| *address).collect();
    assert_eq!(addresses, [ip("192.0.2.2"), ip("192.0.2.3")]);
    assert_eq!(changes.policies, ["p".into()].into());
    set(&mut l2, "other", "db", &mk_part(&["192.0.2.4"], &[]));
    assert_eq!(l2.plan(), Changes::default());
    l2.set_node("d", Some(mk_labels(&[])));
    l2.plan();
    l2.set_heard("d", &["eth0".into()], &[]);
    assert_eq!(l2.plan(), Changes::default(), "the policy is for all devices");
    l2.set_node("d", None);
    let nodes: Vec<_> = l2.plan().parts.into_iter().map(|(_, nodes)| nodes.contains("d")).collect();
    assert_eq!(nodes, [true, true]);
}
