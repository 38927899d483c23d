//! Services of other controllers, and Services that change hands.

use cilium_lbipam::{FIELD_MANAGER, Outcome};
use cilium_services::ServiceName;
use serde_json::json;

use crate::world::{World, give, mark, mk_cidr, mk_request, mk_service};

#[test]
fn classes_decide_whose_a_service_is() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    for (name, class, expected) in [
        ("a/none", json!(null), 1),
        ("a/l2", json!("io.cilium/l2-announcer"), 1),
        ("a/bgp", json!("io.cilium/bgp-control-plane"), 0),
        ("a/node", json!("io.cilium/node"), 0),
        ("a/other", json!("example.org/lb"), 0),
    ] {
        world.put(mk_service(name, 1, json!({"loadBalancerClass": class})));
        world.plan();
        assert_eq!(world.addresses(name).len(), expected, "{name}");
    }
    world.put(mk_service("a/cluster", 1, json!({"type": "ClusterIP"})));
    assert_eq!((world.plan().len(), world.reason("a/cluster").as_str()), (0, "none"));
}

#[test]
fn what_another_controller_wrote_is_left_alone_and_given_to_nobody() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/31")]);
    let mut foreign = mk_service("a/foreign", 5, json!({}));
    give(&mut foreign, "another-controller", &["10.0.0.0"]);
    world.put_whole(foreign);
    world.put(mk_service("a/1", 1, json!({})));
    world.put(mk_service("a/2", 2, mk_request("10.0.0.0")));
    assert_eq!(world.plan(), ["a/1", "a/2", "a/foreign"]);
    assert_eq!(
        (world.addresses("a/foreign").concat(), world.addresses("a/1").concat()),
        ("10.0.0.0".into(), "10.0.0.1".into())
    );
    let expected = "False already_allocated: The IP '10.0.0.0' is already allocated to another service";
    assert_eq!((world.reason("a/2").as_str(), world.reason("a/foreign").as_str()), (expected, "none"));
}

#[test]
fn what_another_controller_gives_up_is_had_again_by_who_asks_for_it() {
    for class in [json!(null), json!("io.cilium/l2-announcer")] {
        let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/31")]);
        let mut moving = mk_service("a/moving", 5, mk_request("10.0.0.0"));
        give(&mut moving, "another-controller", &["10.0.0.0"]);
        world.put_whole(moving.clone());
        world.put(mk_service("a/other", 1, json!({})));
        world.plan();
        assert_eq!(world.reason("a/moving"), "none");
        give(&mut moving, "another-controller", &[]);
        moving.spec.load_balancer_class = class.as_str().map(str::to_owned);
        world.put_whole(moving);
        world.plan();
        assert_eq!(
            (world.addresses("a/moving").concat(), world.reason("a/moving").as_str()),
            ("10.0.0.0".into(), "True satisfied")
        );
    }
}

#[test]
fn an_address_of_another_class_is_given_to_nobody() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/31")]);
    let mut other = mk_service("a/other", 5, json!({"loadBalancerClass": "example.org/lb"}));
    give(&mut other, "another-controller", &["10.0.0.0"]);
    world.put_whole(other.clone());
    world.put(mk_service("a/1", 1, json!({})));
    world.plan();
    assert_eq!(world.addresses("a/1"), ["10.0.0.1"]);
    assert_eq!(world.services["a/other"], other, "nothing is said of it");
    world.put(mk_service("a/2", 2, json!({})));
    world.plan();
    assert_eq!(world.addresses("a/2").len(), 0);
    give(&mut other, "another-controller", &[]);
    world.put_whole(other);
    world.plan();
    assert_eq!(world.addresses("a/2"), ["10.0.0.0"]);
}

#[test]
fn writers_that_the_api_server_has_put_together_are_nobody() {
    for manager in ["ancient-changes", "before-first-apply"] {
        let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
        let mut service = mk_service("a/1", 1, json!({}));
        give(&mut service, manager, &["10.0.0.7"]);
        mark(&mut service);
        world.put_whole(service);
        world.plan();
        assert_eq!(
            (world.addresses("a/1").concat(), world.reason("a/1").as_str()),
            ("10.0.0.7".into(), "True satisfied")
        );
    }
}

#[test]
fn without_an_account_of_writers_the_condition_says_whose_it_is() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    for name in ["a/ours", "a/theirs"] {
        let mut service = mk_service(name, 1, json!({}));
        give(&mut service, "nobody", &["10.9.9.9"]);
        service.metadata.managed_fields = None;
        if name == "a/ours" {
            mark(&mut service);
        }
        world.put_whole(service);
    }
    assert_eq!(world.plan(), ["a/ours", "a/theirs"]);
    assert_eq!(
        (world.addresses("a/ours").concat(), world.addresses("a/theirs").concat()),
        ("10.0.0.0".into(), "10.9.9.9".into())
    );
}

#[test]
fn who_is_no_longer_ours_gives_its_address_back() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    world.put(mk_service("a/1", 1, json!({})));
    world.plan();
    world.put(mk_service("a/1", 1, json!({"type": "ClusterIP"})));
    assert_eq!(world.plan(), ["a/1"]);
    assert_eq!((world.addresses("a/1").len(), world.counts("p").as_str()), (0, "256 256 0 0"));
    assert!(world.services["a/1"].status.conditions.is_empty());
}

#[test]
fn what_was_said_of_a_service_goes_when_another_controller_serves_it() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/32")]);
    world.put(mk_service("a/1", 1, json!({})));
    world.put(mk_service("a/2", 2, json!({})));
    world.plan();
    let mut served = world.services["a/2"].clone();
    give(&mut served, "another-controller", &["192.0.2.1"]);
    world.put_whole(served);
    assert_eq!(world.plan(), ["a/2"]);
    assert_eq!(
        (world.addresses("a/2").concat(), world.services["a/2"].status.conditions.len()),
        ("192.0.2.1".into(), 0)
    );
}

#[test]
fn the_next_owner_keeps_what_it_has_written() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    let mut service = mk_service("a/1", 1, json!({"loadBalancerClass": "example.org/lb"}));
    give(&mut service, "another-controller", &["192.0.2.1"]);
    mark(&mut service);
    world.put_whole(service);
    assert_eq!(world.plan(), ["a/1"]);
    assert_eq!(world.addresses("a/1"), ["192.0.2.1"]);
    assert!(world.services["a/1"].status.conditions.is_empty());
}

#[test]
fn what_is_being_written_counts_whatever_comes_meanwhile() {
    let mut world = World::on([mk_cidr("p", 1, "10.0.0.0/24")]);
    let service = mk_service("a/1", 5, json!({}));
    world.lbipam.set_service(&service, false);
    world.lbipam.plan();
    // An edit from before the write arrives, and a Service that would go first.
    let edited = mk_service("a/1", 5, json!({"ports": [{"port": 81}]}));
    world.lbipam.set_service(&edited, true);
    world.put(mk_service("a/0", 1, json!({})));
    world.lbipam.plan();
    let addresses = |world: &World, name: &str| match world.lbipam.outcome(&ServiceName::new("a", name)) {
        Some(Outcome::Assigned { addresses, .. }) => {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (addresses(&world, "1").concat(), addresses(&world, "0").concat()),
        ("10.0.0.0".into(), "10.0.0.1".into())
    );
    // It turns out that something else stands there.
    world.lbipam.set_held(&ServiceName::new("a", "1"), vec!["10.0.0.1".parse().unwrap()]);
    world.lbipam.plan();
    assert_eq!((addresses(&world, "1").concat(), world.lbipam.check().len()), ("10.0.0.0".into(), 0));
    assert_eq!(FIELD_MANAGER, "cilium-operator-lb-ipam");
}
