//! Each reason for which a Service has no address, word by word.

use cilium_lbipam::{Numbers, PoolNumbers};
use serde_json::{Value, json};

use crate::world::{World, mk_cidr, mk_pool, mk_request, mk_service};

/// What is said of a Service that asks `rest` of a pool 10.0.0.0/31 for `app: web`, beside a Service `a/first` that has 10.0.0.0 with
/// the key `k` and port 80.
fn said(rest: Value) -> String {
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut world = World::on([mk_pool(
        "p",
        1,
        json!({"serviceSelector": selector, "blocks": [{"cidr": "10.0.0.0/31"}]}),
    )]);
    let first = json!({
        "annotations": {"lbipam.cilium.io/sharing-key": "k", "lbipam.cilium.io/sharing-cross-namespace": "b"},
        "labels": {"app": "web"}, "selector": {"app": "x"},
    });
    world.put(mk_service("a/first", 1, first));
    world.plan();
    let name = if rest["namespace"].is_null() { "a/asks" } else { "b/asks" };
    world.put(mk_service(name, 2, rest));
    world.plan();
    assert_eq!(world.addresses("a/first"), ["10.0.0.0"]);
    world.reason(name)
}

/// A Service for `app: web` that requests an address with a sharing key.
fn mk_sharing(address: &str, key: &str, mut rest: Value) -> Value {
    rest["labels"] = json!({"app": "web"});
    rest["annotations"]["lbipam.cilium.io/ips"] = json!(address);
    rest["annotations"]["lbipam.cilium.io/sharing-key"] = json!(key);
    rest
}

#[test]
fn no_pool() {
    let mut rest = mk_request("10.0.9.9");
    rest["labels"] = json!({"app": "web"});
    assert_eq!(said(rest), "False no_pool: No pool exists with a CIDR containing '10.0.9.9'");
    let generic = "False no_pool: There are no enabled CiliumLoadBalancerIPPools that match this service";
    assert_eq!(said(json!({"labels": {"app": "other"}})), generic);
    assert_eq!(said(json!({"labels": {"app": "web"}, "ipFamilies": ["IPv6"]})), generic);
}

#[test]
fn pool_selector_mismatch() {
    let expected = "False pool_selector_mismatch: The pool with the CIDR containing '10.0.0.1', doesn't select this service";
    assert_eq!(said(mk_request("10.0.0.1")), expected);
}

#[test]
fn already_allocated() {
    let mut rest = mk_request("10.0.0.0");
    rest["labels"] = json!({"app": "web"});
    let expected = "False already_allocated: The IP '10.0.0.0' is already allocated to another service";
    assert_eq!(said(rest), expected);
}

#[test]
fn ends_of_a_prefix_are_allocated() {
    let pool = json!({"allowFirstLastIPs": "No", "blocks": [{"cidr": "10.0.0.0/30"}]});
    let mut world = World::on([mk_pool("p", 1, pool)]);
    world.put(mk_service("a/first", 1, mk_request("10.0.0.0")));
    world.put(mk_service("a/last", 1, mk_request("10.0.0.3")));
    world.put(mk_service("a/other", 1, json!({})));
    world.plan();
    let expected = "False already_allocated: The IP '10.0.0.3' is already allocated to another service";
    assert_eq!((world.reason("a/last").as_str(), world.addresses("a/first").len()), (expected, 0));
    assert_eq!((world.addresses("a/other"), world.counts("p")), (vec!["10.0.0.1".into()], "4 1 3 0".into()));
}

#[test]
fn already_allocated_incompatible_service() {
    let port = |port: u16| json!([{"port": port, "protocol": "TCP"}]);
    let mut elsewhere = mk_sharing("10.0.0.0", "k", json!({"ports": port(81)}));
    elsewhere["namespace"] = json!("b");
    for (rest, why) in [
        (mk_sharing("10.0.0.0", "other", json!({"ports": port(81)})), "different sharing key"),
        (elsewhere, "different and not permitted namespace"),
        (mk_sharing("10.0.0.0", "k", json!({"ports": port(80)})), "same port and protocol"),
        (
            mk_sharing("10.0.0.0", "k", json!({"ports": port(81), "externalTrafficPolicy": "Local"})),
            "different ExternalTrafficPolicy",
        ),
    ] {
        let expected = format!(
            "False already_allocated_incompatible_service: The IP '10.0.0.0' is already allocated to an incompatible service. Reason: {why}"
        );
        assert_eq!(said(rest), expected);
    }
}

#[test]
fn local_services_share_only_with_the_same_pods() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    for (name, port, pods) in
        [("a/1", 80, json!({"app": "x"})), ("a/2", 81, json!({"app": "y"})), ("a/3", 82, json!({"app": "x"}))]
    {
        let local = json!({"ports": [{"port": port}], "externalTrafficPolicy": "Local", "selector": pods});
        world.put(mk_service(name, port, mk_sharing("10.0.0.7", "k", local)));
        world.plan();
    }
    let expected = "False already_allocated_incompatible_service: The IP '10.0.0.7' is already allocated to an incompatible service. \
        Reason: compatible ExternalTrafficPolicy local but selecting different set of pods";
    assert_eq!(world.reason("a/2"), expected);
    assert_eq!(world.addresses("a/3"), ["10.0.0.7"]);
}

#[test]
fn out_of_ips() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/31"), mk_cidr("v6", 1, "fd00::/126")]);
    for name in ["a/1", "a/2", "a/3"] {
        world.put(mk_service(name, 1, json!({})));
    }
    world.plan();
    let expected = "False out_of_ips: All enabled CiliumLoadBalancerIPPools that match this service ran out of allocatable IPs";
    assert_eq!((world.reason("a/3").as_str(), world.counts("p").as_str()), (expected, "2 0 2 0"));
    world.delete("a/1");
    assert_eq!(world.plan(), ["a/3"], "who waits gets what becomes free");
    assert_eq!(
        (world.addresses("a/3"), world.reason("a/3")),
        (vec!["10.0.0.0".into()], "True satisfied".into())
    );
}

#[test]
fn the_last_of_several_failures_is_told() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/30")]);
    world.put(mk_service("a/1", 1, mk_request("10.0.9.9, 10.0.0.1,,10.0.8.8 ,10.0.0.2")));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(world.reason("a/1"), "False no_pool: No pool exists with a CIDR containing '10.0.8.8'");
}

#[test]
fn what_is_no_address_is_said_and_nothing_is_given_in_place_of_it() {
    let said = |text: &str| {
        format!(
            "False invalid_ip: The requested IP '{text}' is not an IP address; correct or remove it. \
             Until then, this service gets no IP in place of it"
        )
    };
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/30")]);
    world.put(mk_service("a/annotated", 1, mk_request("nonsense")));
    world.put(mk_service("a/field", 1, json!({"loadBalancerIP": "x"})));
    world.put(mk_service("a/partly", 1, mk_request("10.0.0.1/32, 10.0.0.2,10.0.9.9")));
    world.put(mk_service("a/long", 1, mk_request(&"7".repeat(1000))));
    world.plan();
    let states =
        ["a/annotated", "a/field", "a/partly"].map(|name| (world.addresses(name), world.reason(name)));
    let expected =
        [(vec![], said("nonsense")), (vec![], said("x")), (vec!["10.0.0.2".to_owned()], said("10.0.0.1/32"))];
    assert_eq!(states, expected);
    assert_eq!(world.reason("a/long"), said(&"7".repeat(64)));
    world.put(mk_service("a/annotated", 1, mk_request("10.0.0.3")));
    world.put(mk_service("a/field", 1, json!({"loadBalancerIP": ""})));
    world.plan();
    assert_eq!(
        (world.addresses("a/annotated"), world.addresses("a/field")),
        (vec!["10.0.0.3".into()], vec!["10.0.0.0".into()])
    );
}

#[test]
fn a_slip_takes_nothing_away() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/30")]);
    world.put(mk_service("a/1", 1, mk_request("10.0.0.1,10.0.0.2")));
    world.plan();
    world.put(mk_service("a/1", 1, mk_request("10.0.0.1,10.0.0.2x")));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.1", "10.0.0.2"]);
    assert!(world.reason("a/1").starts_with("False invalid_ip: "));
    assert_eq!(world.restarted().addresses("a/1"), ["10.0.0.1", "10.0.0.2"]);
    world.put(mk_service("a/1", 1, mk_request("10.0.0.1")));
    world.plan();
    assert_eq!(
        (world.addresses("a/1"), world.reason("a/1")),
        (vec!["10.0.0.1".into()], "True satisfied".into())
    );
}

#[test]
fn what_there_is_is_counted() {
    let mut world = World::on([mk_cidr("old", 1, "10.0.0.0/31"), mk_cidr("new", 2, "10.0.0.0/24")]);
    for name in ["a/1", "a/2", "a/3"] {
        world.put(mk_service(name, 1, json!({})));
    }
    world.put(mk_service("a/none", 1, json!({"type": "ClusterIP"})));
    world.plan();
    let pool = |name: &str, available, used| PoolNumbers { name: name.to_owned(), available, used };
    let expected = Numbers {
        conflicting_pools: 1,
        services_matching: 3,
        services_unsatisfied: 1,
        pools: vec![pool("old", 0, 2), pool("new", 254, 2)],
    };
    assert_eq!(world.lbipam.numbers(), expected);
    world.delete("a/3");
    world.delete_pool("new");
    world.plan();
    let expected = Numbers {
        conflicting_pools: 0,
        services_matching: 2,
        services_unsatisfied: 0,
        pools: vec![pool("old", 0, 2)],
    };
    assert_eq!(world.lbipam.numbers(), expected);
}
