//! What goes with prefixes, and what is wrong with objects.

use cilium_api::bgp::BgpAdvertisement;
use cilium_bgp_plan::Fault;
use serde_json::{Value, json};

use crate::world::*;

/// What the node is told of the only advertisement.
fn told(attributes: Value) -> BgpAdvertisement {
    let mut bgp = mk_bgp(json!([{"advertisementType": "PodCIDR", "attributes": attributes}]));
    plan(&mut bgp);
    bgp.instance("a", "r").unwrap().advertisements["x/0"].clone()
}

fn lines(faults: &[Fault]) -> Vec<String> {
    let sort = |it: &Fault| if it.is_malformed { "malformed" } else { "unsupported" };
    faults.iter().map(|it| format!("{} {it}", sort(it))).collect()
}

#[test]
fn communities_of_all_forms_become_sorted_numbers() {
    let told = told(json!({
        "communities": {
            "standard": ["65000:100", "7", "0:7", "4294967295"],
            "wellKnown": ["no-export", "blackhole", "internet", "no-llgr"],
            "large": ["65000:2:1", "65000:1:2", "65000:1:2"],
        },
        "localPreference": 4_294_967_295_u32,
    }));
    assert_eq!(told.communities, [0, 7, 4_259_840_100, 0xffff_0007, 0xffff_029a, 0xffff_ff01, 0xffff_ffff]);
    assert_eq!(told.large_communities, [(65000, 1, 2), (65000, 2, 1)]);
    assert_eq!((told.local_preference, told.interface), (Some(4_294_967_295), None));
}

#[test]
fn attributes_that_cannot_be_read_are_left_out_and_named_by_their_paths() {
    let attributes = json!({
        "communities": {
            "standard": ["65000:1", "65536:1", "+1", "4294967296", "1:2:3", ""],
            "wellKnown": ["no-export", "no-sleep"],
            "large": ["1:2:3", "1:2", "1:2:3:4", "1:2:4294967296"],
        },
        "localPreference": -1,
    });
    let it = mk_advertisement("x", "on", json!([{"advertisementType": "PodCIDR", "attributes": attributes}]));
    let at = "spec.advertisements[0].attributes.communities";
    let standard = "is neither a number up to 4294967295 nor two up to 65535 with a colon between";
    let large = "is not three numbers up to 4294967295 with colons between";
    assert_eq!(
        lines(it.faults()),
        [
            format!("malformed {at}.standard[1]: \"65536:1\" {standard}"),
            format!("malformed {at}.standard[2]: \"+1\" {standard}"),
            format!("malformed {at}.standard[3]: \"4294967296\" {standard}"),
            format!("malformed {at}.standard[4]: \"1:2:3\" {standard}"),
            format!("malformed {at}.standard[5]: \"\" {standard}"),
            format!("unsupported {at}.wellKnown[1]: no-sleep is not among the well-known communities"),
            format!("malformed {at}.large[1]: \"1:2\" {large}"),
            format!("malformed {at}.large[2]: \"1:2:3:4\" {large}"),
            format!("malformed {at}.large[3]: \"1:2:4294967296\" {large}"),
            "malformed spec.advertisements[0].attributes.localPreference: a local preference is one of 0 to 4294967295"
                .to_owned(),
        ]
    );
    let told = told(attributes);
    assert_eq!((told.communities, told.large_communities), (vec![0xfde8_0001, 0xffff_ff01], vec![(1, 2, 3)]));
    assert_eq!(told.local_preference, None);
}

#[test]
fn an_interface_is_told_by_its_name_and_gives_no_routes() {
    let mut bgp = mk_bgp(json!([{"advertisementType": "Interface", "interface": {"name": "lo"}}]));
    plan(&mut bgp);
    let told = &bgp.instance("a", "r").unwrap().advertisements["x/0"];
    assert_eq!(told.interface.as_deref(), Some("lo"));
    assert_eq!((of_node(&mut bgp, "a").len(), shared(&mut bgp).len()), (0, 0));
}

#[test]
fn a_node_makes_its_blocks_of_selected_pools_known() {
    let selected = json!([
        {"advertisementType": "CiliumPodIPPool", "selector": {"matchLabels": {"io.cilium.podippool.name": "red"}}},
        {"advertisementType": "CiliumPodIPPool", "selector": {"matchLabels": {"out": "yes"}}},
        {"advertisementType": "CiliumPodIPPool"},
    ]);
    let mut bgp = mk_bgp(selected.clone());
    bgp.set_pod_pool("red", Some(mk_labels(&[])));
    bgp.set_pod_pool("blue", Some(mk_labels(&[("out", "yes")])));
    bgp.set_pod_pool("default", Some(mk_labels(&[])));
    let block = |pool: &str, prefix: &str| (pool.to_owned(), prefix.parse().unwrap());
    bgp.set_blocks("a", vec![block("red", "10.9.0.0/28"), block("default", "10.0.0.0/28")]);
    bgp.set_blocks("b", vec![block("blue", "10.8.0.0/28")]);
    assert_eq!(of_node(&mut bgp, "a"), ["10.9.0.0/28 x/0"]);
    assert_eq!(of_node(&mut bgp, "b"), ["10.8.0.0/28 x/1"]);
    bgp.set_blocks("a", vec![block("blue", "10.8.0.16/28")]);
    bgp.set_pod_pool("blue", Some(mk_labels(&[])));
    bgp.set_pod_pool("red", None);
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (0, 0));
    let advice = mk_advertisement("x", "on", selected).advice();
    assert_eq!(advice, ["spec.advertisements[2] advertises nothing: without selector it selects no pool"]);
}

#[test]
fn kinds_of_advertisements_that_give_nothing_say_why() {
    let it = mk_advertisement(
        "x",
        "on",
        json!([
            {"advertisementType": "Service", "selector": {}},
            {"advertisementType": "Interface"},
            {"advertisementType": "Later"},
        ]),
    );
    assert_eq!(
        lines(it.faults()),
        [
            "malformed spec.advertisements[0]: the type Service needs service.addresses",
            "malformed spec.advertisements[1]: the type Interface needs interface.name",
            "unsupported spec.advertisements[2]: the type Later is not supported",
        ]
    );
    assert_eq!(it.advice(), [""; 0]);
}

#[test]
fn a_selector_that_is_absent_is_advised_about_and_one_that_cannot_be_read_is_a_fault() {
    let of = |selector: Value| {
        let mut places = of_services(&["ClusterIP"]);
        places[0]["selector"] = selector;
        mk_advertisement("x", "on", places)
    };
    let absent = of(Value::Null);
    assert_eq!(absent.faults(), []);
    assert_eq!(
        absent.advice(),
        ["spec.advertisements[0] advertises nothing: without selector it selects no Service"]
    );
    let bad = of(json!({"matchLabels": {"not a key": "x"}}));
    assert!(bad.faults()[0].is_malformed);
    assert_eq!(bad.faults()[0].path, "spec.advertisements[0].selector.matchLabels[not a key]");
    assert_eq!((bad.faults().len(), bad.advice().len()), (1, 0));
}

#[test]
fn faults_of_a_cluster_configuration() {
    let peer = |fields: Value| {
        let mut peer = json!({"name": "t", "peerConfigRef": {"name": "p"}});
        peer.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        peer
    };
    let it = mk_cluster(
        "c",
        1,
        json!({"bgpInstances": [{
            "name": "r", "localASN": 0, "localPort": 65536,
            "peers": [
                peer(json!({"peerAddress": "300.0.0.1", "peerASN": 4_294_967_296_i64})),
                peer(json!({"peerAddress": "2001:db8::1%eth0"})),
                peer(json!({"autoDiscovery": {"mode": "DefaultGateway"}})),
                peer(json!({"autoDiscovery": {"mode": "Later"}})),
                peer(json!({"autoDiscovery": {"mode": "DefaultGateway", "defaultGateway": {"addressFamily": "ipv5"}}})),
            ],
        }]}),
    );
    let at = "spec.bgpInstances[0]";
    assert_eq!(
        lines(it.faults()),
        [
            format!("malformed {at}.localASN: an AS number is one of 1 to 4294967295"),
            format!("malformed {at}.localPort: a port is one of 1 to 65535"),
            format!("malformed {at}.peers[0].peerASN: an AS number is one of 0 to 4294967295"),
            format!("malformed {at}.peers[0].peerAddress: \"300.0.0.1\" is no address of IPv4 or IPv6"),
            format!(
                "unsupported {at}.peers[1].peerAddress: a zone, here eth0, belongs to link-local addresses of peers only"
            ),
            format!(
                "malformed {at}.peers[2].autoDiscovery: the mode DefaultGateway needs defaultGateway.addressFamily"
            ),
            format!("unsupported {at}.peers[3].autoDiscovery.mode: the mode Later is not supported"),
            format!(
                "unsupported {at}.peers[4].autoDiscovery.defaultGateway.addressFamily: the family ipv5 is not supported"
            ),
        ]
    );
}

#[test]
fn faults_of_an_override_and_of_a_peer_configuration() {
    let it = mk_override(json!({"bgpInstances": [{
        "name": "r", "routerID": "0.0.0.0", "localPort": 0, "localASN": -1,
        "peers": [{"name": "t", "localAddress": "here"}],
    }]}));
    let at = "spec.bgpInstances[0]";
    assert_eq!(
        lines(it.faults()),
        [
            format!("malformed {at}.routerID: a router id is an IPv4 address other than 0.0.0.0"),
            format!("malformed {at}.localPort: a port is one of 1 to 65535"),
            format!("malformed {at}.localASN: an AS number is one of 1 to 4294967295"),
            format!("malformed {at}.peers[0].localAddress: \"here\" is no address of IPv4 or IPv6"),
        ]
    );
    let it = mk_peer(json!({"families": [{"afi": "l2vpn", "safi": "evpn"}]}));
    assert_eq!(
        lines(it.faults()),
        ["unsupported spec.families[0]: l2vpn/evpn is not supported: ipv4/unicast and ipv6/unicast are"]
    );
}

#[test]
fn advice_names_peers_without_address_and_without_anything_to_say() {
    let it =
        mk_cluster("c", 1, json!({"bgpInstances": [{"name": "r", "localASN": 1, "peers": [{"name": "t"}]}]}));
    assert_eq!(it.faults(), []);
    assert_eq!(
        it.advice(),
        [
            "nothing is advertised to peer t of r: it has no peerConfigRef",
            "there is no session with peer t of r: it has neither peerAddress nor autoDiscovery",
        ]
    );
    let expected = "nothing is advertised: no entry of spec.families has advertisements (an absent selector selects nothing; matchLabels with labels of a CiliumBGPAdvertisement does)";
    assert_eq!(mk_peer(json!({})).advice(), [expected]);
    assert_eq!(mk_peer(selecting("on")).advice(), [""; 0]);
}
