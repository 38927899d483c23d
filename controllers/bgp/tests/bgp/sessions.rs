//! Which routers nodes have, and with whom these speak.

use std::net::Ipv4Addr;

use cilium_api::bgp::{Bfd, BgpPeerAddress, IpFamily};
use cilium_bgp_plan::{Config, RouterIds};
use serde_json::json;

use crate::world::{World, rack};

const NO_NODE: &str = "cilium.io/NoMatchingNode False MatchingNodeSelected: ";
const NO_CONFLICT: &str = "cilium.io/ConflictingClusterConfig False ClusterConfigValidated: ";
const NONE_MISSING: &str = "cilium.io/MissingPeerConfigs False PeerConfigsResolved: ";
const VALID: &str = "Valid True Valid: ";

#[test]
fn a_router_is_as_its_configurations_say() {
    let mut world = World::usual(Config::default());
    world.peer(
        "tor",
        json!({
            "transport": {"peerPort": 1790, "sourceInterface": "lo0", "passive": true, "ttlSecurity": true},
            "timers": {"connectRetryTimeSeconds": 5, "holdTimeSeconds": 9, "keepAliveTimeSeconds": 3},
            "gracefulRestart": {"enabled": true, "longLivedStaleTimeSeconds": 600},
            "ebgpMultihop": 4, "importRoutes": true, "bfd": {"detectMultiplier": 5},
        }),
    );
    world.plan();
    let rack = world.rack("n1");
    assert_eq!((rack.asn, rack.router_id, rack.port), (64512, Ipv4Addr::new(192, 0, 2, 1), None));
    let tor = &rack.peers["tor"];
    assert_eq!(tor.address, BgpPeerAddress::At("192.0.2.254".parse().unwrap()));
    assert_eq!((tor.asn, tor.port, tor.hops), (64500, 1790, 4));
    assert_eq!((tor.connect_retry, tor.hold_time, tor.keepalive), (5, 9, 3));
    assert_eq!((tor.restart_time, tor.stale_time), (Some(120), Some(600)));
    assert_eq!((tor.ttl_security, tor.passive, tor.import), (true, true, true));
    assert_eq!(tor.source_interface.as_deref(), Some("lo0"));
    assert_eq!(tor.bfd, Some(Bfd { transmit: 300, receive: 300, multiplier: 5 }));
    // Without families, both, and nothing in them.
    assert_eq!(tor.families, [(IpFamily::Ipv4, [].into()), (IpFamily::Ipv6, [].into())].into());
    assert_eq!(rack.advertisements.len(), 0);
}

#[test]
fn a_peer_without_its_configuration_is_public_only() {
    let mut world = World::usual(Config::default());
    world.bgp.set_peer("tor", None);
    world.plan();
    assert_eq!(world.rack("n1").peers.len(), 0);
    let config = world.bgp.node_config("n1").unwrap();
    let peers = config.spec.bgp_instances[0].peers.clone().unwrap();
    assert_eq!((peers[0].name.as_str(), peers[0].peer_asn), ("tor", Some(64500)));
    assert_eq!((&*config.owner, config.owner_uid.as_str()), ("one", "uid-one"));
    let missing = "cilium.io/MissingPeerConfigs True PeerConfigsMissing: Referenced CiliumBGPPeerConfig(s) are missing: [tor]";
    assert_eq!(world.of_cluster("one"), [NO_NODE, missing, NO_CONFLICT, VALID]);
}

#[test]
fn a_peer_without_a_reference_has_defaults() {
    let mut world = World::usual(Config::default());
    let peer = json!({"name": "tor", "autoDiscovery": {"mode": "DefaultGateway", "defaultGateway": {"addressFamily": "ipv6"}}});
    world.cluster(
        "one",
        json!({"bgpInstances": [{"name": "rack", "localASN": 64512, "localPort": 179, "peers": [peer]}]}),
    );
    world.plan();
    let rack = world.rack("n1");
    let tor = &rack.peers["tor"];
    assert_eq!((rack.port, tor.address), (Some(179), BgpPeerAddress::DefaultGateway(IpFamily::Ipv6)));
    assert_eq!((tor.asn, tor.port, tor.hops, tor.restart_time), (0, 179, 1, None));
    assert_eq!((tor.connect_retry, tor.hold_time, tor.keepalive), (120, 90, 30));
}

#[test]
fn the_older_of_two_has_a_node_and_the_younger_is_told() {
    let mut world = World::usual(Config::default());
    let mut younger = rack();
    younger["localASN"] = json!(64999);
    // Of one age, names decide.
    world.cluster("two", json!({"nodeSelector": {"matchLabels": {"name": "n2"}}, "bgpInstances": [younger]}));
    world.plan();
    assert_eq!(world.rack("n2").asn, 64512);
    assert_eq!(world.of_cluster("one"), [NO_NODE, NONE_MISSING, NO_CONFLICT, VALID]);
    let conflict = "cilium.io/ConflictingClusterConfig True ClusterConfigConflict: Selecting the same node(s) with ClusterConfig(s): [one]";
    assert_eq!(world.of_cluster("two"), [NO_NODE, NONE_MISSING, conflict, VALID]);
    world.bgp.set_cluster("one", None);
    let changes = world.plan();
    assert_eq!(world.bgp.instance("n1", "rack"), None);
    assert_eq!(world.rack("n2").asn, 64999);
    assert_eq!(changes.node_configs.iter().map(|it| &**it).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(world.of_cluster("two")[2], NO_CONFLICT);
}

#[test]
fn a_configuration_for_nobody_says_so() {
    let mut world = World::usual(Config::default());
    world.cluster("one", json!({"nodeSelector": {"matchLabels": {"name": "n9"}}, "bgpInstances": [rack()]}));
    world.plan();
    let nobody = "cilium.io/NoMatchingNode True MatchingNodeUnavailable: No node matches spec.nodeSelector";
    assert_eq!(world.of_cluster("one")[0], nobody);
    assert_eq!(world.bgp.node_config("n1"), None);
}

#[test]
fn a_node_can_be_different() {
    let mut world = World::usual(Config::default());
    world.different(
        "n1",
        json!([{
            "name": "rack", "routerID": "192.0.2.77", "localPort": 1179, "localASN": 64999,
            "peers": [{"name": "tor", "localAddress": "192.0.2.78"}],
        }]),
    );
    world.plan();
    let rack = world.rack("n1");
    assert_eq!((rack.asn, rack.router_id, rack.port), (64999, Ipv4Addr::new(192, 0, 2, 77), Some(1179)));
    assert_eq!(rack.peers["tor"].local_address, "192.0.2.78".parse().ok());
    assert_eq!(world.rack("n2").asn, 64512);
    let public = &world.bgp.node_config("n1").unwrap().spec.bgp_instances[0];
    assert_eq!((public.local_asn, public.router_id.as_deref()), (Some(64999), Some("192.0.2.77")));
}

#[test]
fn a_router_without_an_as_number_is_told_of() {
    let mut world = World::usual(Config::default());
    world.cluster("one", json!({"bgpInstances": [{"name": "rack"}]}));
    world.plan();
    assert_eq!(world.bgp.instance("n1", "rack"), None);
    assert!(world.bgp.node_config("n1").is_some());
    let valid = "Valid False NotInForce: instance rack does not run on n1 and 1 others: it has no localASN";
    assert_eq!(world.of_cluster("one")[3], valid);
}

#[test]
fn router_ids_of_a_pool_are_kept() {
    let pool = RouterIds::Pool("10.9.0.0/30".parse().unwrap());
    let config = Config { router_ids: pool, ..Config::default() };
    let mut world = World::usual(config);
    world.plan();
    let ids = |world: &World| [world.rack("n1").router_id, world.rack("n2").router_id];
    assert_eq!(ids(&world), [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)]);
    world.node("n3", 3);
    world.plan();
    assert_eq!(world.bgp.instance("n3", "rack"), None);
    let valid = "Valid False NotInForce: instance rack does not run on n3: the pool of router ids (bgp-router-id-allocation-ip-pool) is exhausted";
    assert_eq!(world.of_cluster("one")[3], valid);
    world.bgp.remove_node("n1");
    world.plan();
    assert_eq!(world.rack("n3").router_id, Ipv4Addr::new(10, 9, 0, 1));

    // After a restart, whoever had one has it again, in whatever order nodes are seen.
    let recorded = world.bgp.node_config("n3").unwrap().spec.clone();
    let mut again = World::new(config);
    again.bgp.set_recorded("n3", Some(&recorded));
    again.node("n2", 2);
    again.node("n3", 3);
    again.cluster("one", json!({"bgpInstances": [rack()]}));
    again.peer("tor", json!({}));
    again.plan();
    assert_eq!(again.rack("n3").router_id, Ipv4Addr::new(10, 9, 0, 1));
    assert_eq!(again.rack("n2").router_id, Ipv4Addr::new(10, 9, 0, 2));
}

#[test]
fn a_node_without_ipv4_has_a_router_id_all_the_same() {
    let mut world = World::usual(Config::default());
    let only6 = ["fd00::9".parse().unwrap()];
    world.bgp.set_node("n9", Default::default(), &only6, &[]);
    world.plan();
    let id = world.rack("n9").router_id;
    assert!(!id.is_unspecified());
    world.bgp.remove_node("n9");
    world.plan();
    world.bgp.set_node("n9", Default::default(), &only6, &[]);
    world.plan();
    assert_eq!(world.rack("n9").router_id, id);
}

#[test]
fn passwords_are_named_with_the_version_of_their_secret() {
    let mut world = World::usual(Config::default());
    world.peer("tor", json!({"authSecretRef": "pw"}));
    world.plan();
    let version = |world: &World| world.rack("n1").peers["tor"].secret.clone().unwrap().version;
    assert_eq!(version(&world), None);
    let missing =
        r#"cilium.io/MissingAuthSecret True AuthSecretMissing: Referenced Auth Secret "pw" is missing"#;
    assert_eq!(world.of_peer("tor"), [missing, VALID]);
    world.bgp.set_secret("pw", Some("7"));
    let changes = world.plan();
    assert_eq!(version(&world).as_deref(), Some("7"));
    assert_eq!((changes.instances.len(), changes.node_configs.len()), (2, 0));
    assert_eq!(world.of_peer("tor"), ["cilium.io/MissingAuthSecret False AuthSecretValidated: ", VALID]);
    world.bgp.set_secret("other", Some("8"));
    assert_eq!(world.plan(), Default::default(), "nobody asks for it");
    world.peer("tor", json!({}));
    world.plan();
    let none = "cilium.io/MissingAuthSecret False AuthSecretNotConfigured: Auth Secret is not configured";
    assert_eq!(world.of_peer("tor"), [none, VALID]);
}
