//! Which prefixes nodes make known.

use cilium_bgp_plan::{Bgp, Changes, Config, Served};
use serde_json::{Value, json};

use crate::world::*;

const NONE: [&str; 0] = [];

#[test]
fn prefixes_of_pods_go_with_their_node_and_have_their_lengths() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    let pods = ["10.1.0.7/24", "2001:db8:1::/64"].map(|text| text.parse().unwrap());
    bgp.set_node("a", mk_labels(&[]), &[ip("192.0.2.1")], &pods);
    assert_eq!(of_node(&mut bgp, "a"), ["10.1.0.0/24 x/0", "2001:db8:1::/64 x/0"]);
    assert_eq!(of_node(&mut bgp, "b"), ["10.2.0.0/24 x/0"]);
    assert_eq!(shared(&mut bgp), NONE);
    bgp.remove_node("a");
    assert_eq!(of_node(&mut bgp, "a"), NONE);
}

#[test]
fn a_node_that_speaks_with_nobody_makes_nothing_known() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    let mut spec = one_router();
    spec["nodeSelector"] = json!({"matchLabels": {"name": "b"}});
    bgp.set_cluster("c", Some(mk_cluster("c", 1, spec)));
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (0, 1));
}

#[test]
fn an_advertisement_that_no_peer_has_gives_no_routes() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    bgp.set_peer("p", Some(mk_peer(selecting("off"))));
    assert_eq!(of_node(&mut bgp, "a"), NONE);
    bgp.set_peer("p", Some(mk_peer(selecting("on"))));
    assert_eq!(of_node(&mut bgp, "a"), ["10.1.0.0/24 x/0"]);
}

#[test]
fn each_kind_of_address_is_advertised_where_it_is_named() {
    let cases = [
        ("ClusterIP", "10.96.0.1/32 x/0"),
        ("LoadBalancerIP", "198.51.100.1/32 x/0"),
        ("ExternalIP", "203.0.113.80/32 x/0"),
    ];
    let part = mk_part(&["10.96.0.1"], &["198.51.100.1"], &["203.0.113.80"]);
    for (kind, expected) in cases {
        let mut bgp = mk_bgp(of_services(&[kind]));
        set(&mut bgp, "s", "web", &part);
        assert_eq!(shared(&mut bgp), [expected]);
        assert_eq!(of_node(&mut bgp, "a"), NONE);
    }
    let mut bgp = mk_bgp(of_services(&["ClusterIP", "LoadBalancerIP", "ExternalIP"]));
    set(&mut bgp, "s", "web", &part);
    assert_eq!(shared(&mut bgp), cases.map(|(_, line)| line));
    bgp.set_served(&name("s"), None);
    assert_eq!(shared(&mut bgp), NONE);
}

#[test]
fn a_service_is_selected_by_labels_name_and_namespace_and_by_nothing_without_selector() {
    let of = |selector: Value| {
        let mut advertisement = of_services(&["LoadBalancerIP"]);
        advertisement[0]["selector"] = selector;
        let mut bgp = mk_bgp(advertisement);
        set(&mut bgp, "s", "web", &mk_part(&[], &["198.51.100.1"], &[]));
        set(&mut bgp, "t", "db", &mk_part(&[], &["198.51.100.2"], &[]));
        shared(&mut bgp)
    };
    assert_eq!(of(Value::Null), NONE);
    assert_eq!(of(json!({})), ["198.51.100.1/32 x/0", "198.51.100.2/32 x/0"]);
    assert_eq!(of(json!({"matchLabels": {"app": "db"}})), ["198.51.100.2/32 x/0"]);
    assert_eq!(of(json!({"matchLabels": {"io.kubernetes.service.name": "s"}})), ["198.51.100.1/32 x/0"]);
    assert_eq!(of(json!({"matchLabels": {"io.kubernetes.service.namespace": "other"}})), NONE);
    assert_eq!(of(json!({"matchLabels": {"not a key": "x"}})), NONE);
}

#[test]
fn the_class_matters_for_addresses_of_the_load_balancer_only() {
    let of = |class: Option<&str>| {
        let mut bgp = mk_bgp(of_services(&["ClusterIP", "LoadBalancerIP", "ExternalIP"]));
        bgp.set_claim(&name("s"), Some(mk_claim("s", "web", class)));
        let part = mk_part(&["10.96.0.1"], &["198.51.100.1"], &["203.0.113.80"]);
        bgp.set_served(&name("s"), Some(Served::reduce(&part)));
        shared(&mut bgp).len()
    };
    assert_eq!(
        (of(None), of(Some("io.cilium/bgp-control-plane")), of(Some("io.cilium/l2-announcer"))),
        (3, 3, 2)
    );
}

#[test]
fn aggregates_stay_until_the_last_address_in_them_is_gone() {
    let mut advertisement = of_services(&["LoadBalancerIP"]);
    advertisement[0]["service"]["aggregationLengthIPv4"] = json!(24);
    advertisement[0]["service"]["aggregationLengthIPv6"] = json!(64);
    let mut bgp = mk_bgp(advertisement);
    set(&mut bgp, "s", "web", &mk_part(&[], &["198.51.100.1", "198.51.100.9", "2001:db8::1"], &[]));
    set(&mut bgp, "t", "web", &mk_part(&[], &["198.51.100.2"], &[]));
    assert_eq!(shared(&mut bgp), ["198.51.100.0/24 x/0", "2001:db8::/64 x/0"]);
    bgp.set_claim(&name("s"), None);
    assert_eq!(shared(&mut bgp), ["198.51.100.0/24 x/0"]);
    bgp.set_claim(&name("t"), None);
    assert_eq!(shared(&mut bgp), NONE);
}

#[test]
fn a_prefix_of_two_advertisements_names_both() {
    let mut advertisements = of_services(&["LoadBalancerIP"]);
    let second = advertisements[0].clone();
    advertisements.as_array_mut().unwrap().push(second);
    let mut bgp = mk_bgp(advertisements);
    set(&mut bgp, "s", "web", &mk_part(&[], &["198.51.100.1"], &[]));
    assert_eq!(shared(&mut bgp), ["198.51.100.1/32 x/0 x/1"]);
}

#[test]
fn external_local_goes_to_nodes_with_backends_as_whole_addresses() {
    let mut advertisement = of_services(&["ClusterIP", "LoadBalancerIP", "ExternalIP"]);
    advertisement[0]["service"]["aggregationLengthIPv4"] = json!(24);
    let mut bgp = mk_bgp(advertisement);
    let mut part = on(mk_part(&["10.96.0.1"], &["198.51.100.1"], &["203.0.113.80"]), &["b", "far"]);
    part.external_local = true;
    set(&mut bgp, "s", "web", &part);
    assert_eq!(shared(&mut bgp), ["10.96.0.0/24 x/0"]);
    assert_eq!(of_node(&mut bgp, "a"), NONE);
    assert_eq!(of_node(&mut bgp, "b"), ["198.51.100.1/32 x/0", "203.0.113.80/32 x/0"]);
    // A node that comes has what it would have had.
    assert_eq!(of_node(&mut bgp, "far"), NONE);
    bgp.set_node("far", mk_labels(&[]), &[ip("192.0.2.9")], &[]);
    assert_eq!(of_node(&mut bgp, "far"), ["198.51.100.1/32 x/0", "203.0.113.80/32 x/0"]);
    set(&mut bgp, "s", "web", &on(part, &["a"]));
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (2, 0));
}

#[test]
fn internal_local_holds_for_cluster_addresses_only() {
    let mut bgp = mk_bgp(of_services(&["ClusterIP", "LoadBalancerIP"]));
    let mut part = on(mk_part(&["10.96.0.1"], &["198.51.100.1"], &[]), &["b"]);
    part.local = true;
    set(&mut bgp, "s", "web", &part);
    assert_eq!(shared(&mut bgp), ["198.51.100.1/32 x/0"]);
    assert_eq!(
        (of_node(&mut bgp, "a"), of_node(&mut bgp, "b")),
        (vec![], vec!["10.96.0.1/32 x/0".to_owned()])
    );
}

#[test]
fn backends_of_one_family_do_not_count_for_the_other() {
    let mut bgp = mk_bgp(of_services(&["LoadBalancerIP"]));
    let mut part = on(mk_part(&[], &["198.51.100.1", "2001:db8::1"], &[]), &["a"]);
    part.external_local = true;
    set(&mut bgp, "s", "web", &part);
    assert_eq!(of_node(&mut bgp, "a"), ["198.51.100.1/32 x/0"]);
}

#[test]
fn of_local_a_backend_on_its_way_out_counts_only_where_no_ready_one_is_left() {
    let mut bgp = mk_bgp(of_services(&["LoadBalancerIP"]));
    let mut part = on(mk_part(&[], &["198.51.100.1"], &[]), &["a", "b"]);
    part.external_local = true;
    part.ports[0].backends[0].place.as_mut().unwrap().leaving = true;
    set(&mut bgp, "s", "web", &part);
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (0, 1));
    part.ports[0].backends.pop();
    set(&mut bgp, "s", "web", &part);
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (1, 0));
}

#[test]
fn services_without_backends_are_advertised_only_where_the_cluster_says_so() {
    let of = |without_backends: bool, nodes: &[&str]| -> Vec<String> {
        let config = Config { without_backends, ..Config::default() };
        let mut bgp: Bgp = mk_bgp_of(config, of_services(&["LoadBalancerIP"]));
        set(&mut bgp, "s", "web", &on(mk_part(&[], &["198.51.100.1"], &[]), nodes));
        shared(&mut bgp)
    };
    assert_eq!(of(true, &[]), ["198.51.100.1/32 x/0"]);
    assert_eq!(of(false, &[]), NONE);
    assert_eq!(of(false, &["far"]), ["198.51.100.1/32 x/0"]);
}

#[test]
fn a_prefix_that_one_takes_over_from_another_is_not_named() {
    let mut bgp = mk_bgp(of_services(&["LoadBalancerIP"]));
    let part = mk_part(&[], &["198.51.100.1"], &[]);
    set(&mut bgp, "s", "web", &part);
    plan(&mut bgp);
    // Plans look at Services by their names: one before and one behind the first.
    for (old, new) in [("s", "a"), ("a", "z")] {
        bgp.set_claim(&name(old), None);
        set(&mut bgp, new, "web", &part);
        assert_eq!(bgp.plan(), Changes::default());
        assert_eq!(shared(&mut bgp), ["198.51.100.1/32 x/0"]);
    }
}

#[test]
fn a_policy_that_changes_moves_prefixes_and_no_sessions() {
    let mut bgp = mk_bgp(of_services(&["LoadBalancerIP"]));
    let mut part = on(mk_part(&[], &["198.51.100.1"], &[]), &["a", "b"]);
    set(&mut bgp, "s", "web", &part);
    plan(&mut bgp);
    part.external_local = true;
    set(&mut bgp, "s", "web", &part);
    let changes = bgp.plan();
    assert_eq!((changes.routes.len(), changes.node_routes.len(), changes.instances.len()), (1, 2, 0));
}
