//! Pools that change under use, and pools in each other's way.

use cilium_lbipam::Pool;
use serde_json::json;

use crate::world::{World, mk_cidr, mk_pool, mk_request, mk_service};

/// A pool 10.0.0.0/24 and the Services `a/1` and `a/3`, which have 10.0.0.0 and 10.0.0.2.
fn mk_world() -> World {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_service("a/1", 1, json!({})));
    world.put(mk_service("a/2", 2, json!({})));
    world.put(mk_service("a/3", 3, json!({})));
    world.plan();
    world.delete("a/2");
    world.plan();
    world
}

#[test]
fn a_pool_that_shrinks_moves_only_those_outside() {
    let mut world = mk_world();
    world.put_pool(mk_pool("p", 1, json!({"blocks": [{"start": "10.0.0.2", "stop": "10.0.0.9"}]})));
    assert_eq!(world.plan(), ["a/1"]);
    assert_eq!(
        (world.addresses("a/1").concat(), world.addresses("a/3").concat()),
        ("10.0.0.3".into(), "10.0.0.2".into())
    );
}

#[test]
fn an_address_stays_when_another_block_or_pool_has_it() {
    let mut world = mk_world();
    world.put_pool(mk_cidr("other", 5, "10.0.0.0/16"));
    world.delete_pool("p");
    assert_eq!(world.plan(), Vec::<String>::new());
    assert_eq!(world.addresses("a/3"), ["10.0.0.2"]);
}

#[test]
fn a_disabled_pool_gives_nothing_and_takes_nothing_even_over_a_restart() {
    let mut world = mk_world();
    world.put_pool(mk_pool("p", 1, json!({"blocks": [{"cidr": "10.0.0.0/24"}], "disabled": true})));
    world.put(mk_service("a/4", 4, json!({})));
    world.put(mk_service("a/5", 4, mk_request("10.0.0.9")));
    assert_eq!(world.plan(), ["a/4", "a/5"]);
    let reasons = [world.reason("a/1"), world.reason("a/4"), world.reason("a/5")];
    let expected = [
        "True satisfied",
        "False no_pool: There are no enabled CiliumLoadBalancerIPPools that match this service",
        "False no_pool: No pool exists with a CIDR containing '10.0.0.9'",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(world.restarted().addresses("a/3"), ["10.0.0.2"]);
}

#[test]
fn a_pool_that_selects_others_now_lets_go() {
    let mut world = mk_world();
    let selector = json!({"matchExpressions": [{"key": "io.kubernetes.service.name", "operator": "In", "values": ["3"]}]});
    world.put_pool(mk_pool(
        "p",
        1,
        json!({"serviceSelector": selector, "blocks": [{"cidr": "10.0.0.0/24"}]}),
    ));
    assert_eq!(world.plan(), ["a/1"]);
    assert_eq!((world.addresses("a/1").len(), world.addresses("a/3").len()), (0, 1));
}

#[test]
fn ends_that_are_no_longer_given_stay_with_who_has_them() {
    let mut world = mk_world();
    world.put_pool(mk_pool("p", 1, json!({"allowFirstLastIPs": "No", "blocks": [{"cidr": "10.0.0.0/24"}]})));
    assert_eq!(world.plan(), Vec::<String>::new());
    assert_eq!(
        (world.addresses("a/1").concat(), world.counts("p")),
        ("10.0.0.0".into(), "256 253 3 0".into())
    );
}

#[test]
fn the_older_of_two_pools_wins_and_both_say_so() {
    let mut world = World::on([mk_cidr("young", 2, "10.0.0.128/24"), mk_cidr("old", 1, "10.0.0.64/26")]);
    world.put(mk_service("a/1", 1, json!({})));
    world.put(mk_service("a/2", 1, mk_request("10.0.0.1")));
    world.plan();
    let young = [
        "PoolConflict True cidr_overlap: Pool conflicts since range '10.0.0.0 - 10.0.0.255' overlaps range '10.0.0.64 - 10.0.0.127' from IP Pool 'old'",
        "IPsTotal Unknown noreason: 256",
        "IPsAvailable Unknown noreason: 255",
        "IPsUsed Unknown noreason: 1",
        "IPsConflicting Unknown noreason: 64",
    ];
    assert_eq!(world.conditions("young"), young);
    let old = [
        "PoolConflict False resolved",
        "IPsTotal Unknown noreason: 64",
        "IPsAvailable Unknown noreason: 63",
        "IPsUsed Unknown noreason: 1",
        "IPsConflicting Unknown noreason: 64",
        "PoolOverlapped True newer_pool: range '10.0.0.0 - 10.0.0.255' of the newer IP Pool 'young' overlaps range '10.0.0.64 - 10.0.0.127'; this pool goes on, the newer one gives no addresses",
    ];
    assert_eq!(world.conditions("old"), old);
    assert_eq!((world.addresses("a/1").concat(), world.addresses("a/2").len()), ("10.0.0.64".into(), 0));
    world.delete_pool("old");
    world.plan();
    assert_eq!(world.conditions("young")[0], "PoolConflict False resolved");
    assert_eq!(
        (world.addresses("a/1").concat(), world.addresses("a/2").concat()),
        ("10.0.0.64".into(), "10.0.0.1".into())
    );
}

#[test]
fn the_name_decides_between_pools_of_one_age() {
    let world = World::on([mk_cidr("b", 1, "10.0.0.0/24"), mk_cidr("a", 1, "10.0.0.0/25")]).restarted();
    assert_eq!(world.conditions("a")[0], "PoolConflict False resolved");
    assert!(world.conditions("b")[0].ends_with("from IP Pool 'a'"), "{:?}", world.conditions("b"));
}

#[test]
fn addresses_of_a_pool_that_comes_into_conflict_stay() {
    let mut world = mk_world();
    world.put_pool(mk_cidr("older", 0, "10.0.0.0/30"));
    assert_eq!(world.plan(), Vec::<String>::new());
    assert!(world.conditions("p")[0].starts_with("PoolConflict True"));
    let fresh = world.restarted();
    assert_eq!(
        (fresh.addresses("a/1"), fresh.addresses("a/3")),
        (world.addresses("a/1"), world.addresses("a/3"))
    );
}

#[test]
fn a_pool_can_stand_in_its_own_way() {
    let blocks = json!({"blocks": [{"cidr": "10.0.0.0/30"}, {"cidr": "fd00::/64"}, {"start": "10.0.0.2", "stop": "10.0.0.9"}]});
    let mut world = World::on([mk_pool("p", 1, blocks)]);
    world.put(mk_service("a/1", 1, json!({})));
    world.plan();
    let expected = "PoolConflict True cidr_overlap: Pool conflicts since range '10.0.0.0 - 10.0.0.3' overlaps range '10.0.0.2 - 10.0.0.9' from IP Pool 'p'";
    assert_eq!(world.conditions("p")[0], expected);
    assert_eq!(world.counts("p"), "18446744073709551626 18446744073709551626 0 2");
    assert!(world.addresses("a/1").is_empty());
}

#[test]
fn a_block_that_cannot_be_read_is_named_and_left_out() {
    let pool = mk_pool(
        "p",
        1,
        json!({"blocks": [{"cidr": "10.0.0.0/30"}, {"start": "10.0.0.9", "stop": "10.0.0.8"}]}),
    );
    let error = Pool::check(&pool).unwrap_err().to_string();
    assert_eq!(error, "spec.blocks[1].stop: 10.0.0.8 is before 10.0.0.9, where the block starts");
    let mut world = World::on([pool]);
    world.put(mk_service("a/1", 1, json!({})));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.0"]);
    let last = world.conditions("p").pop().unwrap();
    assert_eq!(last, format!("Valid False Malformed: {error}; the rest of the pool is in use"));
}

#[test]
fn a_selector_that_cannot_be_read_takes_nothing_away() {
    let mut world = mk_world();
    let selector = json!({"matchExpressions": [{"key": "app", "operator": "In"}]});
    let pool = mk_pool("p", 1, json!({"serviceSelector": selector, "blocks": [{"cidr": "10.0.0.0/24"}]}));
    let error = Pool::check(&pool).unwrap_err().to_string();
    assert_eq!(error, "spec.serviceSelector.matchExpressions[0].values: In needs at least one value");
    world.put_pool(pool);
    world.put(mk_service("a/4", 4, json!({})));
    assert_eq!(world.plan(), ["a/4"]);
    assert!(world.addresses("a/4").is_empty());
    let last = world.conditions("p").pop().unwrap();
    assert_eq!(last, format!("Valid False Malformed: {error}; it gives no addresses"));
}

#[test]
fn a_slip_in_a_block_takes_no_address_away() {
    let mut world =
        World::on([mk_pool("p", 1, json!({"blocks": [{"start": "10.0.0.2", "stop": "10.0.0.9"}]}))]);
    world.put(mk_service("a/1", 1, json!({})));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.2"]);
    world.put_pool(mk_pool("p", 1, json!({"blocks": [{"start": "10.0.0.2", "stop": "10.0.0.9O"}]})));
    assert_eq!((world.plan().len(), world.addresses("a/1").concat()), (0, "10.0.0.2".into()));
    world.put(mk_service("a/2", 2, json!({})));
    world.plan();
    assert_eq!(world.addresses("a/2").len(), 0, "nobody knows what else it has");
    world.put_pool(mk_pool("p", 1, json!({"blocks": [{"start": "10.0.0.3", "stop": "10.0.0.9"}]})));
    world.plan();
    assert_eq!([world.addresses("a/1"), world.addresses("a/2")], [["10.0.0.3"], ["10.0.0.4"]]);
}
