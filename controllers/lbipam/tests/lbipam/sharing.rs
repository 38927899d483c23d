//! Services that have an address together.

use serde_json::{Value, json};

use crate::world::{World, mk_cidr, mk_pool, mk_service};

/// A Service with a key and a port.
fn mk_sharing(name: &str, at: u32, key: &str, port: u16, with: &str) -> cilium_api::slim::Service {
    let mut annotations = json!({"lbipam.cilium.io/sharing-key": key});
    if !with.is_empty() {
        annotations["lbipam.cilium.io/sharing-cross-namespace"] = Value::from(with);
    }
    mk_service(name, at, json!({"annotations": annotations, "ports": [{"port": port}]}))
}

fn found(world: &World, names: &[&str]) -> String {
    names.iter().map(|name| world.addresses(name).concat()).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_can_share_does_and_who_cannot_gets_another_address() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_sharing("a/1", 1, "k", 80, ""));
    world.put(mk_sharing("a/2", 2, "k", 81, ""));
    world.put(mk_sharing("a/3", 3, "k", 80, ""));
    world.put(mk_sharing("a/4", 4, "other", 82, ""));
    world.put(mk_sharing("a/5", 5, "k", 83, ""));
    world.plan();
    assert_eq!(
        found(&world, &["a/1", "a/2", "a/3", "a/4", "a/5"]),
        "10.0.0.0 10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.0"
    );
    assert_eq!(world.counts("p"), "256 253 3 0");
    world.delete("a/1");
    world.delete("a/2");
    world.plan();
    assert_eq!((found(&world, &["a/5"]).as_str(), world.counts("p").as_str()), ("10.0.0.0", "256 253 3 0"));
}

#[test]
fn both_namespaces_have_to_permit_it() {
    for (one, other, together) in
        [("b", "a", true), ("*", "x,a", true), ("b", "", false), ("", "*", false), ("b", "x, a", false)]
    {
        let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
        world.put(mk_sharing("a/1", 1, "k", 80, one));
        world.put(mk_sharing("b/1", 2, "k", 81, other));
        world.plan();
        assert_eq!(world.addresses("a/1") == world.addresses("b/1"), together, "{one:?} {other:?}");
    }
}

#[test]
fn who_changes_loses_what_it_may_no_longer_share() {
    for changed in ["a/1", "a/2"] {
        let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
        world.put(mk_sharing("a/1", 1, "k", 80, ""));
        world.put(mk_sharing("a/2", 2, "k", 81, ""));
        world.plan();
        world.put(mk_sharing(changed, 1, "new", 82, ""));
        assert_eq!(world.plan(), [changed]);
        assert_eq!(found(&world, &[changed]), "10.0.0.1");
        let fresh = world.restarted();
        assert_eq!(found(&fresh, &["a/1", "a/2"]), found(&world, &["a/1", "a/2"]));
    }
}

#[test]
fn a_key_leads_only_to_addresses_of_pools_that_select_the_service() {
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut world = World::on([
        mk_pool("web", 1, json!({"serviceSelector": selector, "blocks": [{"cidr": "10.0.1.0/24"}]})),
        mk_cidr("all", 2, "10.0.2.0/24"),
    ]);
    let mut web = mk_sharing("a/1", 1, "k", 80, "");
    web.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    world.put(web);
    world.put(mk_sharing("a/2", 2, "k", 81, ""));
    world.plan();
    assert_eq!(found(&world, &["a/1", "a/2"]), "10.0.1.0 10.0.2.0");
}

#[test]
fn of_two_that_have_an_address_and_may_not_the_older_keeps_it() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    for (name, at) in [("a/1", 2), ("a/2", 1)] {
        let mut service = mk_service(name, at, json!({}));
        crate::world::give(&mut service, cilium_lbipam::FIELD_MANAGER, &["10.0.0.7"]);
        world.put_whole(service);
    }
    assert_eq!(world.plan(), ["a/2", "a/1"]);
    assert_eq!(found(&world, &["a/2", "a/1"]), "10.0.0.7 10.0.0.0");
}

#[test]
fn who_joins_can_be_the_reason_why_another_waits() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/32")]);
    world.put(mk_sharing("a/2", 1, "k", 80, "b"));
    world.put(mk_sharing("b/waits", 1, "k", 80, "a"));
    world.plan();
    let mut picky = mk_sharing("b/waits", 1, "k", 80, "a");
    picky
        .metadata
        .annotations
        .get_or_insert_default()
        .insert("lbipam.cilium.io/ips".into(), "10.0.0.0".into());
    world.put(picky);
    world.plan();
    assert!(
        world.reason("b/waits").ends_with("Reason: same port and protocol"),
        "{}",
        world.reason("b/waits")
    );
    world.put(mk_sharing("a/1", 1, "k", 81, ""));
    assert_eq!(world.plan(), ["a/1", "b/waits"]);
    let expected = "Reason: different and not permitted namespace";
    assert!(world.reason("b/waits").ends_with(expected), "{}", world.reason("b/waits"));
    assert_eq!(world.restarted().reason("b/waits"), world.reason("b/waits"));
}

#[test]
fn who_changes_only_its_labels_keeps_what_it_shares_with_one_that_changes_more() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_sharing("a/1", 1, "k", 80, ""));
    world.put(mk_sharing("a/2", 2, "k", 81, ""));
    world.plan();
    let mut labelled = mk_sharing("a/2", 2, "k", 81, "");
    labelled.metadata.labels = Some([("chart".to_owned(), "2".to_owned())].into());
    world.put(mk_sharing("a/1", 1, "k", 81, ""));
    world.put(labelled);
    world.plan();
    assert_eq!(found(&world, &["a/1", "a/2"]), "10.0.0.1 10.0.0.0");
}
