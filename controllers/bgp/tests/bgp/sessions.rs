//! With whom nodes speak, and how.

use cilium_api::bgp::{Bfd, BgpPeerAddress, BgpSecret, IpFamily};
use cilium_bgp_plan::{Bgp, Changes};
use serde_json::{Value, json};

use crate::world::*;

fn of_nodes(nodes: Value, asn: u32) -> Value {
    json!({"nodeSelector": nodes, "bgpInstances": [{"name": "r", "localASN": asn}]})
}

fn families(bgp: &Bgp) -> Vec<(IpFamily, Vec<&str>)> {
    let families = tor(bgp, "a").unwrap().families.iter();
    families.map(|(family, ids)| (*family, ids.iter().map(String::as_str).collect())).collect()
}

fn owner<'a>(bgp: &'a Bgp, node: &str) -> Option<&'a str> {
    bgp.node_config(node).map(|it| &*it.owner)
}

#[test]
fn a_configuration_holds_for_the_nodes_that_it_selects() {
    let mut bgp = Bgp::default();
    ["a", "b"].iter().for_each(|node| set_node(&mut bgp, node));
    bgp.set_cluster("c", Some(mk_cluster("c", 1, of_nodes(json!({"matchLabels": {"name": "b"}}), 65001))));
    plan(&mut bgp);
    assert_eq!((owner(&bgp, "a"), owner(&bgp, "b")), (None, Some("c")));
    assert_eq!(bgp.node_config("b").unwrap().owner_uid, "uid-c");
    assert_eq!(bgp.instance("b", "r").unwrap().asn, 65001);
    bgp.set_cluster("c", Some(mk_cluster("c", 1, of_nodes(Value::Null, 65001))));
    plan(&mut bgp);
    assert_eq!((owner(&bgp, "a"), owner(&bgp, "b")), (Some("c"), Some("c")));
    bgp.remove_node("b");
    plan(&mut bgp);
    assert_eq!((owner(&bgp, "a"), owner(&bgp, "b")), (Some("c"), None));
    bgp.set_cluster("c", None);
    plan(&mut bgp);
    assert_eq!(owner(&bgp, "a"), None);
}

#[test]
fn a_selector_that_cannot_be_read_selects_no_node() {
    let mut bgp = Bgp::default();
    set_node(&mut bgp, "a");
    bgp.set_cluster(
        "c",
        Some(mk_cluster("c", 1, of_nodes(json!({"matchLabels": {"not a key": "x"}}), 65001))),
    );
    plan(&mut bgp);
    assert_eq!(owner(&bgp, "a"), None);
}

#[test]
fn a_node_of_two_goes_by_the_older_and_then_by_the_first_name() {
    let mut bgp = Bgp::default();
    set_node(&mut bgp, "a");
    for (name, second, asn) in [("a-young", 9, 3), ("old-2", 1, 2), ("old-1", 1, 1)] {
        bgp.set_cluster(name, Some(mk_cluster(name, second, of_nodes(Value::Null, asn))));
    }
    for (expected, asn) in [("old-1", 1), ("old-2", 2), ("a-young", 3)] {
        plan(&mut bgp);
        assert_eq!(owner(&bgp, "a"), Some(expected));
        assert_eq!(bgp.instance("a", "r").unwrap().asn, asn);
        bgp.set_cluster(expected, None);
    }
}

#[test]
fn a_peer_without_its_configuration_is_in_the_object_and_not_in_the_part() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    bgp.set_peer("p", None);
    plan(&mut bgp);
    let public = bgp.node_config("a").unwrap().spec.bgp_instances[0].peers.clone().unwrap();
    assert_eq!((public.len(), public[0].name.as_str()), (1, "tor"));
    assert_eq!(tor(&bgp, "a"), None);
    assert!(bgp.instance("a", "r").unwrap().peers.is_empty());
    bgp.set_peer("p", Some(mk_peer(json!({}))));
    plan(&mut bgp);
    assert_eq!(tor(&bgp, "a").unwrap().address, BgpPeerAddress::At(ip("203.0.113.1")));
}

#[test]
fn a_peer_without_address_is_not_in_the_part_and_a_gateway_is_one() {
    let mut spec = one_router();
    let peer = &mut spec["bgpInstances"][0]["peers"][0];
    peer.as_object_mut().unwrap().remove("peerAddress");
    let mut bgp = mk_bgp(json!([]));
    bgp.set_cluster("c", Some(mk_cluster("c", 1, spec.clone())));
    plan(&mut bgp);
    assert_eq!(tor(&bgp, "a"), None);
    spec["bgpInstances"][0]["peers"][0]["autoDiscovery"] =
        json!({"mode": "DefaultGateway", "defaultGateway": {"addressFamily": "ipv6"}});
    bgp.set_cluster("c", Some(mk_cluster("c", 1, spec)));
    plan(&mut bgp);
    assert_eq!(tor(&bgp, "a").unwrap().address, BgpPeerAddress::DefaultGateway(IpFamily::Ipv6));
}

#[test]
fn a_router_without_as_number_is_in_the_object_and_not_in_the_part() {
    let mut bgp = Bgp::default();
    set_node(&mut bgp, "a");
    bgp.set_cluster("c", Some(mk_cluster("c", 1, json!({"bgpInstances": [{"name": "r"}]}))));
    plan(&mut bgp);
    let public = &bgp.node_config("a").unwrap().spec.bgp_instances[0];
    assert_eq!((public.name.as_str(), public.local_asn), ("r", None));
    assert_eq!(bgp.instance("a", "r"), None);
    bgp.set_override("a", Some(mk_override(json!({"bgpInstances": [{"name": "r", "localASN": 65009}]}))));
    plan(&mut bgp);
    assert_eq!(bgp.instance("a", "r").unwrap().asn, 65009);
}

#[test]
fn an_override_holds_for_its_node_router_and_peer() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_override(
        "a",
        Some(mk_override(json!({"bgpInstances": [
            {
                "name": "r", "routerID": "198.51.100.9", "localPort": 1179, "localASN": 65009,
                "peers": [{"name": "tor", "localAddress": "203.0.113.2"}, {"name": "other", "localAddress": "203.0.113.3"}],
            },
            {"name": "none", "localASN": 1},
        ]}))),
    );
    plan(&mut bgp);
    let router = bgp.instance("a", "r").unwrap();
    assert_eq!(router.router_id.to_string(), "198.51.100.9");
    assert_eq!((router.port, router.asn), (Some(1179), 65009));
    assert_eq!(tor(&bgp, "a").unwrap().local_address, Some(ip("203.0.113.2")));
    let public = &bgp.node_config("a").unwrap().spec.bgp_instances;
    assert_eq!(public.len(), 1);
    assert_eq!(public[0].router_id.as_deref(), Some("198.51.100.9"));
    assert_eq!((public[0].local_port, public[0].local_asn), (Some(1179), Some(65009)));
    assert_eq!(public[0].peers.as_ref().unwrap()[0].local_address.as_deref(), Some("203.0.113.2"));
    let other = bgp.instance("b", "r").unwrap();
    assert_eq!((other.port, other.asn), (None, 65001));
    assert_eq!(tor(&bgp, "b").unwrap().local_address, None);
    bgp.set_override("a", None);
    plan(&mut bgp);
    assert_eq!(bgp.instance("a", "r").unwrap().router_id.to_string(), "192.0.2.1");
}

#[test]
fn defaults_stand_in_place_of_what_is_absent() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    bgp.set_peer("p", Some(mk_peer(json!({}))));
    plan(&mut bgp);
    let peer = tor(&bgp, "a").unwrap();
    assert_eq!((peer.asn, peer.port, peer.hops), (65000, 179, 1));
    assert_eq!((peer.connect_retry, peer.hold_time, peer.keepalive), (120, 90, 30));
    assert_eq!((peer.restart_time, peer.stale_time, peer.bfd, &peer.secret), (None, None, None, &None));
    assert!(!peer.ttl_security && !peer.passive && !peer.import);
    assert_eq!(families(&bgp), [(IpFamily::Ipv4, vec![]), (IpFamily::Ipv6, vec![])]);
}

#[test]
fn what_a_peer_configuration_says_is_told() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    bgp.set_peer(
        "p",
        Some(mk_peer(json!({
            "transport": {"peerPort": 1790, "sourceInterface": "lo", "passive": true, "ttlSecurity": true},
            "timers": {"connectRetryTimeSeconds": 5, "holdTimeSeconds": 9, "keepAliveTimeSeconds": 3},
            "gracefulRestart": {"enabled": true, "longLivedStaleTimeSeconds": 3600},
            "ebgpMultihop": 4, "bfd": {"transmitIntervalMilliseconds": 100}, "importRoutes": true,
        }))),
    );
    plan(&mut bgp);
    let peer = tor(&bgp, "a").unwrap();
    assert_eq!((peer.port, peer.source_interface.as_deref(), peer.hops), (1790, Some("lo"), 4));
    assert_eq!((peer.connect_retry, peer.hold_time, peer.keepalive), (5, 9, 3));
    assert_eq!((peer.restart_time, peer.stale_time), (Some(120), Some(3600)));
    assert_eq!(peer.bfd, Some(Bfd { transmit: 100, receive: 300, multiplier: 3 }));
    assert!(peer.ttl_security && peer.passive && peer.import);
}

#[test]
fn restart_times_count_only_where_graceful_restart_is_enabled() {
    let mut bgp = mk_bgp(json!([]));
    let spec = json!({"gracefulRestart": {"enabled": false, "restartTimeSeconds": 9, "longLivedStaleTimeSeconds": 9}});
    bgp.set_peer("p", Some(mk_peer(spec)));
    plan(&mut bgp);
    let peer = tor(&bgp, "a").unwrap();
    assert_eq!((peer.restart_time, peer.stale_time), (None, None));
}

#[test]
fn a_peer_that_names_no_configuration_has_a_session_and_no_advertisements() {
    let mut spec = one_router();
    spec["bgpInstances"][0]["peers"][0].as_object_mut().unwrap().remove("peerConfigRef");
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}]));
    bgp.set_cluster("c", Some(mk_cluster("c", 1, spec)));
    assert_eq!(of_node(&mut bgp, "a"), [""; 0]);
    assert_eq!(families(&bgp), [(IpFamily::Ipv4, vec![]), (IpFamily::Ipv6, vec![])]);
}

#[test]
fn a_family_has_the_advertisements_that_it_selects_and_without_selector_none() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR"}, {"advertisementType": "PodCIDR"}]));
    bgp.set_advertisement("y", Some(mk_advertisement("y", "off", json!([{"advertisementType": "PodCIDR"}]))));
    let mut spec = selecting("on");
    spec["families"].as_array_mut().unwrap().push(json!({"afi": "ipv6", "safi": "unicast"}));
    bgp.set_peer("p", Some(mk_peer(spec)));
    plan(&mut bgp);
    assert_eq!(families(&bgp), [(IpFamily::Ipv4, vec!["x/0", "x/1"]), (IpFamily::Ipv6, vec![])]);
    let router = bgp.instance("a", "r").unwrap();
    assert_eq!(router.advertisements.keys().collect::<Vec<_>>(), ["x/0", "x/1"]);
}

#[test]
fn a_secret_has_the_version_of_the_object_and_without_object_none() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_peer("p", Some(mk_peer(json!({"authSecretRef": "key"}))));
    for version in [None, Some("7"), Some("8"), None] {
        bgp.set_secret("key", version);
        bgp.set_secret("other", Some("1"));
        plan(&mut bgp);
        let expected = BgpSecret { name: "key".to_owned(), version: version.map(str::to_owned) };
        assert_eq!(tor(&bgp, "b").unwrap().secret, Some(expected));
    }
}

#[test]
fn another_version_of_a_secret_changes_sessions_only_and_one_that_nobody_names_nothing() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_peer("p", Some(mk_peer(json!({"authSecretRef": "key"}))));
    bgp.set_secret("key", Some("7"));
    plan(&mut bgp);
    bgp.set_secret("key", Some("8"));
    let changes = bgp.plan();
    assert_eq!((changes.instances.len(), changes.node_configs.len(), changes.peers.len()), (2, 0, 1));
    bgp.set_secret("other", Some("8"));
    assert_eq!(bgp.plan(), Changes::default());
}

#[test]
fn a_link_local_peer_is_on_the_link_of_a_device() {
    let with = |address: &str| {
        let peer =
            json!({"name": "tor", "peerAddress": address, "peerASN": 65000, "peerConfigRef": {"name": "p"}});
        mk_cluster("c", 1, json!({"bgpInstances": [{"name": "r", "localASN": 64512, "peers": [peer]}]}))
    };
    let mut bgp = mk_bgp(json!([]));
    bgp.set_cluster("c", Some(with(" fe80::1%eth0 ")));
    plan(&mut bgp);
    let found = tor(&bgp, "a").unwrap();
    assert_eq!((found.address, found.device.as_deref()), (BgpPeerAddress::At(ip("fe80::1")), Some("eth0")));
    let without = with("fe80::1");
    assert_eq!(
        without.faults()[0].to_string(),
        "spec.bgpInstances[0].peers[0].peerAddress: a link-local address needs the device on whose link it is, as in fe80::1%eth0"
    );
    bgp.set_cluster("c", Some(without));
    plan(&mut bgp);
    assert_eq!(tor(&bgp, "a"), None);
}
