//! Who gets what, and keeps it.

use serde_json::json;

use crate::world::{World, mk_cidr, mk_pool, mk_request, mk_service};

#[test]
fn the_oldest_service_goes_first_and_the_oldest_pool_gives_first() {
    let mut world = World::on([
        mk_cidr("a", 9, "10.0.2.0/31"),
        mk_cidr("z", 1, "10.0.1.0/31"),
        mk_cidr("b", 9, "10.0.3.0/31"),
    ]);
    for (name, at) in [("a/1", 7), ("b/1", 5), ("a/2", 5), ("c/1", 8), ("c/2", 8)] {
        world.put(mk_service(name, at, json!({})));
    }
    assert_eq!(world.plan(), ["a/2", "b/1", "a/1", "c/1", "c/2"]);
    let found = ["a/2", "b/1", "a/1", "c/1", "c/2"].map(|name| world.addresses(name).concat());
    assert_eq!(found, ["10.0.1.0", "10.0.1.1", "10.0.2.0", "10.0.2.1", "10.0.3.0"]);
}

#[test]
fn a_request_is_met_before_others_take_the_address() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_service("a/any", 1, json!({})));
    world.put(mk_service("a/one", 2, mk_request("10.0.0.0")));
    world.plan();
    assert_eq!(
        (world.addresses("a/one"), world.addresses("a/any")),
        (vec!["10.0.0.0".into()], vec!["10.0.0.1".into()])
    );
}

#[test]
fn requests_come_from_both_fields_and_old_names() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24"), mk_cidr("v6", 1, "fd00::/120")]);
    let rest =
        json!({"loadBalancerIP": "10.0.0.9", "annotations": {"io.cilium/lb-ipam-ips": "fd00::7,10.0.0.9"}});
    world.put(mk_service("a/1", 1, rest));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.9", "fd00::7"]);
    world.put(mk_service("a/1", 1, mk_request("fd00::7,10.0.0.8")));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["fd00::7", "10.0.0.8"], "what is no longer asked for goes");
    assert_eq!(world.counts("p"), "256 255 1 0");
}

#[test]
fn families_follow_the_policy() {
    let both = ["10.0.0.0", "fd00::"];
    for (policy, families, expected) in [
        (json!("SingleStack"), json!(["IPv6", "IPv4"]), &both[1..]),
        (json!(null), json!([]), &both[..1]),
        (json!("PreferDualStack"), json!(["IPv6"]), &both[1..]),
        (json!("PreferDualStack"), json!([]), &both[..]),
        (json!("RequireDualStack"), json!(["IPv6", "IPv4"]), &both[..]),
    ] {
        let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24"), mk_cidr("v6", 1, "fd00::/120")]);
        world.put(mk_service("a/1", 1, json!({"ipFamilyPolicy": policy, "ipFamilies": families})));
        world.plan();
        assert_eq!(world.addresses("a/1"), expected, "{policy} {families}");
    }
}

#[test]
fn half_of_two_families_is_given_and_the_rest_is_told() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_service("a/1", 1, json!({"ipFamilyPolicy": "RequireDualStack"})));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.0"]);
    assert!(
        world.reason("a/1").starts_with("False no_pool: There are no enabled"),
        "{}",
        world.reason("a/1")
    );
    world.put_pool(mk_cidr("v6", 2, "fd00::/120"));
    world.plan();
    assert_eq!(
        (world.addresses("a/1").join(" "), world.reason("a/1")),
        ("10.0.0.0 fd00::".into(), "True satisfied".into())
    );
}

#[test]
fn selectors_may_name_the_service_and_its_namespace() {
    let selector = json!({"matchLabels": {"io.kubernetes.service.namespace": "shop", "io.kubernetes.service.name": "web"}});
    let mut world =
        World::on([mk_pool("p", 1, json!({"serviceSelector": selector, "blocks": [{"start": "10.0.0.5"}]}))]);
    for name in ["shop/web", "shop/db", "other/web"] {
        world.put(mk_service(name, 1, json!({})));
    }
    world.plan();
    let found = ["shop/web", "shop/db", "other/web"].map(|name| world.addresses(name).concat());
    assert_eq!(found, ["10.0.0.5", "", ""]);
}

#[test]
fn a_gap_is_filled_before_a_large_block_is_cut() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    for index in 0..4 {
        world.put(mk_service(&format!("a/{index}"), index, json!({})));
    }
    world.put(mk_service("a/far", 9, mk_request("10.0.0.250")));
    world.plan();
    world.delete("a/1");
    world.put(mk_service("a/5", 10, json!({})));
    world.put(mk_service("a/6", 11, json!({})));
    world.plan();
    world.put(mk_service("a/7", 12, json!({})));
    world.plan();
    let found = ["a/0", "a/5", "a/6", "a/7"].map(|name| world.addresses(name).concat());
    assert_eq!(found, ["10.0.0.251", "10.0.0.252", "10.0.0.255", "10.0.0.0"]);
}

#[test]
fn nothing_is_done_before_the_first_pool() {
    let mut world = World::new();
    world.put(mk_service("a/1", 1, json!({})));
    assert_eq!((world.plan().len(), world.reason("a/1").as_str()), (0, "none"));
    world.put_pool(mk_cidr("p", 1, "10.0.0.0/24"));
    assert_eq!(world.plan(), ["a/1"]);
    world.delete_pool("p");
    world.put(mk_service("a/2", 2, json!({})));
    assert_eq!(world.plan(), ["a/1"], "what was given goes, and what never had any is left alone");
    assert!(world.addresses("a/1").is_empty() && world.reason("a/1").starts_with("False no_pool"));
    assert_eq!(world.reason("a/2"), "none");
}
