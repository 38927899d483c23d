//! Which prefixes are made known, by whom.

use cilium_bgp_plan::{Changes, Config};
use cilium_services::ServiceName;
use serde_json::{Value, json};

use crate::world::{World, of_services};

fn mk_world(advertisements: Value) -> World {
    let mut world = World::usual(Config::default());
    world.advertisement("a", advertisements);
    world
}

#[test]
fn addresses_go_by_their_kind() {
    let mut world = mk_world(json!([
        of_services(&["LoadBalancerIP"]),
        of_services(&["ExternalIP"]),
        of_services(&["ClusterIP"]),
    ]));
    world.service("web", 1, json!({}), &["n1"]);
    world.plan();
    assert_eq!(world.shared(), ["10.96.0.1/32 a/2", "198.51.100.1/32 a/0", "203.0.113.1/32 a/1"]);
    // A load balancer of somebody else's class keeps its address for itself.
    world.service("web", 1, json!({"loadBalancerClass": "example.com/other"}), &["n1"]);
    world.plan();
    assert_eq!(world.shared(), ["10.96.0.1/32 a/2", "203.0.113.1/32 a/1"]);
    world.service("web", 1, json!({"loadBalancerClass": "io.cilium/bgp-control-plane"}), &["n1"]);
    world.plan();
    assert_eq!(world.shared().len(), 3);
}

#[test]
fn without_a_selector_nothing_is_selected() {
    let mut all = of_services(&["LoadBalancerIP"]);
    all["selector"] = Value::Null;
    let mut world = mk_world(json!([all]));
    world.service("web", 1, json!({}), &["n1"]);
    world.plan();
    assert_eq!(world.shared(), Vec::<String>::new());
    let mut by_name = of_services(&["LoadBalancerIP"]);
    by_name["selector"] = json!({"matchExpressions": [{"key": "io.kubernetes.service.name", "operator": "NotIn", "values": ["x"]}]});
    world.advertisement("a", json!([by_name]));
    world.plan();
    assert_eq!(world.shared(), ["198.51.100.1/32 a/0"]);
    // What no peer has, is nobody's route.
    world.peer("tor", json!({"families": [{"afi": "ipv4", "safi": "unicast"}]}));
    world.plan();
    assert_eq!(world.shared(), Vec::<String>::new());
}

#[test]
fn local_services_are_known_where_their_backends_are() {
    let mut aggregated = of_services(&["LoadBalancerIP", "ClusterIP"]);
    aggregated["service"]["aggregationLengthIPv4"] = json!(24);
    let mut world = mk_world(json!([aggregated]));
    world.service("web", 1, json!({"externalTrafficPolicy": "Local"}), &["n1", "n9"]);
    world.plan();
    assert_eq!(world.shared(), ["10.96.0.0/24 a/0"]);
    assert_eq!(world.of_node("n1"), ["198.51.100.1/32 a/0"]);
    assert_eq!(world.of_node("n2"), Vec::<String>::new());
    world.service("web", 1, json!({"internalTrafficPolicy": "Local"}), &["n2"]);
    let changes = world.plan();
    assert_eq!(world.shared(), ["198.51.100.0/24 a/0"]);
    assert_eq!((world.of_node("n1"), world.of_node("n2")), (vec![], vec!["10.96.0.1/32 a/0".to_owned()]));
    assert_eq!((changes.routes.len(), changes.node_routes.len(), changes.instances.len()), (2, 2, 0));
}

#[test]
fn a_prefix_of_several_goes_with_the_last() {
    let mut aggregated = of_services(&["LoadBalancerIP"]);
    aggregated["service"]["aggregationLengthIPv4"] = json!(24);
    let mut world = mk_world(json!([aggregated]));
    world.service("web", 1, json!({}), &["n1"]);
    world.service("shop", 2, json!({}), &["n1"]);
    world.plan();
    assert_eq!(world.shared(), ["198.51.100.0/24 a/0"]);
    world.bgp.set_served(&ServiceName::new("shop", "web"), None);
    assert!(world.plan().routes.is_empty(), "the other one has it still");
    world.bgp.set_claim(&ServiceName::new("shop", "shop"), None);
    assert_eq!(world.plan().routes.len(), 1);
    assert_eq!(world.shared(), Vec::<String>::new());
}

#[test]
fn a_prefix_that_one_takes_over_from_another_is_not_named() {
    let mut world = mk_world(json!([of_services(&["LoadBalancerIP"])]));
    world.service("web", 1, json!({}), &["n1"]);
    world.plan();
    // Plans look at Services by their names: one before and one behind the first.
    for (old, new) in [("web", "a"), ("a", "z")] {
        world.bgp.set_claim(&ServiceName::new("shop", old), None);
        world.service(new, 1, json!({}), &["n1"]);
        assert_eq!(world.plan(), Changes::default());
        assert_eq!(world.shared(), ["198.51.100.1/32 a/0"]);
    }
}

#[test]
fn services_without_backends_are_known_unless_settings_say_otherwise() {
    for (without_backends, expected) in [(true, 1), (false, 0)] {
        let mut world = World::usual(Config { without_backends, ..Config::default() });
        world.advertisement("a", json!([of_services(&["LoadBalancerIP"])]));
        world.service("web", 1, json!({}), &[]);
        world.plan();
        assert_eq!(world.shared().len(), expected);
        world.service("web", 1, json!({}), &["n1"]);
        world.plan();
        assert_eq!(world.shared().len(), 1);
    }
}

#[test]
fn pods_are_known_by_their_node() {
    let mut world = mk_world(json!([{"advertisementType": "PodCIDR"}]));
    world.plan();
    assert_eq!(
        (world.of_node("n1"), world.of_node("n2")),
        (vec!["10.1.0.0/16 a/0".to_owned()], vec!["10.2.0.0/16 a/0".to_owned()],)
    );
    world.cluster(
        "one",
        json!({"nodeSelector": {"matchLabels": {"name": "n2"}}, "bgpInstances": [crate::world::rack()]}),
    );
    world.plan();
    assert_eq!((world.of_node("n1"), world.of_node("n2").len()), (vec![], 1), "n1 speaks with nobody");
}

#[test]
fn attributes_go_with_the_advertisement() {
    let mut services = of_services(&["LoadBalancerIP"]);
    services["attributes"] = json!({
        "localPreference": 200,
        "communities": {"standard": ["64512:80", "80"], "wellKnown": ["no-export", "blackhole"], "large": ["64512:1:2"]},
    });
    let mut world =
        mk_world(json!([services, {"advertisementType": "Interface", "interface": {"name": "lo0"}}]));
    world.plan();
    let all = world.rack("n1").advertisements;
    let of_services = &all["a/0"];
    assert_eq!(of_services.communities, [80, 64512 << 16 | 80, 0xffff_029a, 0xffff_ff01]);
    assert_eq!(of_services.large_communities, [(64512, 1, 2)]);
    assert_eq!(of_services.local_preference, Some(200));
    assert_eq!(all["a/1"].interface.as_deref(), Some("lo0"));
}
