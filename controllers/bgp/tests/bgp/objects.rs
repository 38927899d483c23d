//! What is wrong with objects, and what a user will hardly have meant.

use cilium_bgp_plan::{Advertisement, ClusterConfig, Config, Override, PeerConfig};
use serde_json::json;

use crate::world::{World, mk, object, rack};

#[test]
fn what_cannot_be_read_is_named_by_its_path() {
    let cluster = json!({
        "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
        "bgpInstances": [{"name": "rack", "localASN": 4_294_967_296_i64, "peers": [
            {"name": "a", "peerAddress": "192.0.2"},
            {"name": "b", "peerAddress": "fe80::1%eth0"},
        ]}],
    });
    let cluster = ClusterConfig::reduce(&mk(object("CiliumBGPClusterConfig", "c", json!({}), cluster)));
    let faults: Vec<String> = cluster.faults().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[0].starts_with("spec.nodeSelector.matchExpressions[0]"), "{faults:?}");
    assert_eq!(
        faults[1..],
        [
            "spec.bgpInstances[0].localASN: an AS number is one of 1 to 4294967295",
            "spec.bgpInstances[0].peers[0].peerAddress: \"192.0.2\" is no address of IPv4 or IPv6",
            "spec.bgpInstances[0].peers[1].peerAddress: addresses with a zone, here eth0, are not supported",
        ]
    );
    let malformed: Vec<bool> = cluster.faults().iter().map(|fault| fault.is_malformed).collect();
    assert_eq!(malformed, [true, true, true, false]);

    let communities = json!({"standard": ["65536:1", "1:2:3"], "large": ["1:2"]});
    let advertisement = json!({"advertisements": [
        {"advertisementType": "PodCIDR", "attributes": {"communities": communities, "localPreference": -1}},
        {"advertisementType": "CiliumPodIPPool"},
    ]});
    let advertisement =
        Advertisement::reduce(&mk(object("CiliumBGPAdvertisement", "a", json!({}), advertisement)));
    let paths: Vec<(&str, bool)> =
        advertisement.faults().iter().map(|fault| (fault.path.as_str(), fault.is_malformed)).collect();
    assert_eq!(
        paths,
        [
            ("spec.advertisements[0].attributes.communities.standard[0]", true),
            ("spec.advertisements[0].attributes.communities.standard[1]", true),
            ("spec.advertisements[0].attributes.communities.large[0]", true),
            ("spec.advertisements[0].attributes.localPreference", true),
            ("spec.advertisements[1]", false),
        ]
    );

    let different = json!({"bgpInstances": [{"name": "rack", "routerID": "0.0.0.0", "localASN": 0}]});
    let different = Override::reduce(&mk(object("CiliumBGPNodeConfigOverride", "n", json!({}), different)));
    let paths: Vec<&str> = different.faults().iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["spec.bgpInstances[0].routerID", "spec.bgpInstances[0].localASN"]);

    let families = json!({"families": [{"afi": "l2vpn", "safi": "evpn"}]});
    let peer = PeerConfig::reduce(&mk(object("CiliumBGPPeerConfig", "p", json!({}), families)));
    let texts: Vec<String> = peer.faults().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec.families[0]: l2vpn/evpn is not supported: ipv4/unicast and ipv6/unicast are"]);
}

#[test]
fn faults_of_advertisements_are_told_with_the_peers_that_select_them() {
    let mut world = World::usual(Config::default());
    world.advertisement("a", json!([{"advertisementType": "CiliumPodIPPool"}]));
    world.plan();
    let told = &world.of_peer("tor")[1];
    assert!(
        told.starts_with(
            "Valid False NotInForce: CiliumBGPAdvertisement a: spec.advertisements[0]: it advertises nothing"
        ),
        "{told}"
    );
}

#[test]
fn users_hear_of_what_advertises_nothing() {
    let peer = PeerConfig::reduce(&mk(object("CiliumBGPPeerConfig", "p", json!({}), json!({}))));
    assert!(peer.advice()[0].starts_with("nothing is advertised: no entry of spec.families"));
    let advertisement = json!({"advertisements": [
        {"advertisementType": "Service", "service": {"addresses": ["ClusterIP"]}},
    ]});
    let advertisement =
        Advertisement::reduce(&mk(object("CiliumBGPAdvertisement", "a", json!({}), advertisement)));
    assert_eq!(
        advertisement.advice(),
        ["spec.advertisements[0] advertises nothing: without selector it selects no Service"]
    );
    let mut silent = rack();
    silent["peers"][0]["peerConfigRef"] = json!(null);
    let cluster = json!({"bgpInstances": [silent]});
    let cluster = ClusterConfig::reduce(&mk(object("CiliumBGPClusterConfig", "c", json!({}), cluster)));
    assert_eq!(cluster.advice(), ["nothing is advertised to peer tor of rack: it has no peerConfigRef"]);
}
