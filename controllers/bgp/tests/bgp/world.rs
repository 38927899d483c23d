//! Objects of tests, and what is decided about them.

use std::net::IpAddr;

use cilium_api::bgp::BgpPeer;
use cilium_api::parts::{self, Backend, BackendPlace, ServicePort};
use cilium_bgp_plan::{Advertisement, Bgp, Claim, ClusterConfig, Config, Override, PeerConfig, Served};
use cilium_core::{Label, Labels};
use cilium_services::ServiceName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn object<K: DeserializeOwned>(kind: &str, metadata: Value, spec: Value) -> K {
    let object = json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

/// A CiliumBGPClusterConfig of this second.
pub(crate) fn mk_cluster(name: &str, second: u8, spec: Value) -> ClusterConfig {
    let created = format!("2026-01-01T00:00:{second:02}Z");
    let metadata = json!({"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created});
    ClusterConfig::reduce(&object("CiliumBGPClusterConfig", metadata, spec))
}

pub(crate) fn mk_peer(spec: Value) -> PeerConfig {
    PeerConfig::reduce(&object("CiliumBGPPeerConfig", json!({"name": "x"}), spec))
}

pub(crate) fn mk_override(spec: Value) -> Override {
    Override::reduce(&object("CiliumBGPNodeConfigOverride", json!({"name": "a"}), spec))
}

/// A CiliumBGPAdvertisement with the label `adv` of this value.
pub(crate) fn mk_advertisement(name: &str, label: &str, advertisements: Value) -> Advertisement {
    let metadata = json!({"name": name, "labels": {"adv": label}});
    let spec = json!({"advertisements": advertisements});
    Advertisement::reduce(&object("CiliumBGPAdvertisement", metadata, spec))
}

pub(crate) fn name(name: &str) -> ServiceName {
    ServiceName::new("shop", name)
}

pub(crate) fn mk_claim(name: &str, app: &str, class: Option<&str>) -> Claim {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}}, "spec": {"loadBalancerClass": class},
    });
    Claim::reduce(&serde_json::from_value(object).unwrap())
}

/// A Service with these cluster addresses, addresses of the load balancer, and external ones.
pub(crate) fn mk_part(cluster: &[&str], balanced: &[&str], external: &[&str]) -> parts::Service {
    let parse = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect();
    parts::Service {
        cluster_ips: parse(cluster),
        load_balancer: parse(balanced),
        external: parse(external),
        ..parts::Service::default()
    }
}

/// The same with backends of IPv4 on these nodes.
pub(crate) fn on(mut part: parts::Service, nodes: &[&str]) -> parts::Service {
    let backend = |(number, node): (u8, &&str)| {
        let place = BackendPlace { node: (*node).to_owned(), ..BackendPlace::default() };
        Backend { address: IpAddr::from([10, 0, 0, number]), port: 80, place: Some(Box::new(place)) }
    };
    let backends = (1..).zip(nodes).map(backend).collect();
    part.ports = vec![ServicePort { name: String::new(), protocol: 6, port: 80, node_port: 0, backends }];
    part
}

pub(crate) fn mk_labels(texts: &[(&str, &str)]) -> Labels {
    texts.iter().map(|(key, value)| Label::k8s(key, value)).collect()
}

pub(crate) fn set(bgp: &mut Bgp, service: &str, app: &str, part: &parts::Service) {
    bgp.set_claim(&name(service), Some(mk_claim(service, app, None)));
    bgp.set_served(&name(service), Some(Served::reduce(part)));
}

/// Node `a` is 192.0.2.1 with pods of 10.1.0.0/24, and so on.
pub(crate) fn set_node(bgp: &mut Bgp, node: &str) {
    let number = node.bytes().next().unwrap().saturating_sub(b'a' - 1);
    let pods = format!("10.{number}.0.0/24").parse().unwrap();
    bgp.set_node(node, mk_labels(&[("name", node)]), &[IpAddr::from([192, 0, 2, number])], &[pods]);
}

/// One router `r` with the peer `tor`, which has the CiliumBGPPeerConfig `p`.
pub(crate) fn one_router() -> Value {
    json!({"bgpInstances": [{
        "name": "r", "localASN": 65001,
        "peers": [{"name": "tor", "peerAddress": "203.0.113.1", "peerASN": 65000, "peerConfigRef": {"name": "p"}}],
    }]})
}

/// IPv4 with advertisements of this label.
pub(crate) fn selecting(label: &str) -> Value {
    json!({"families": [{"afi": "ipv4", "safi": "unicast", "advertisements": {"matchLabels": {"adv": label}}}]})
}

/// Nodes `a` and `b`, each with [`one_router`] of the CiliumBGPClusterConfig `c`, to whose peer goes the CiliumBGPAdvertisement `x`.
pub(crate) fn mk_bgp_of(config: Config, advertisements: Value) -> Bgp {
    let mut bgp = Bgp::new(config);
    ["a", "b"].iter().for_each(|node| set_node(&mut bgp, node));
    bgp.set_cluster("c", Some(mk_cluster("c", 1, one_router())));
    bgp.set_peer("p", Some(mk_peer(selecting("on"))));
    bgp.set_advertisement("x", Some(mk_advertisement("x", "on", advertisements)));
    bgp
}

pub(crate) fn mk_bgp(advertisements: Value) -> Bgp {
    mk_bgp_of(Config::default(), advertisements)
}

/// One advertisement of Services of the app `web`.
pub(crate) fn of_services(addresses: &[&str]) -> Value {
    json!([{
        "advertisementType": "Service", "service": {"addresses": addresses},
        "selector": {"matchLabels": {"app": "web"}},
    }])
}

pub(crate) fn plan(bgp: &mut Bgp) {
    bgp.plan();
    assert_eq!(bgp.check(), [""; 0]);
}

/// The peer `tor` of the router `r` of a node.
pub(crate) fn tor<'a>(bgp: &'a Bgp, node: &str) -> Option<&'a BgpPeer> {
    bgp.instance(node, "r")?.peers.get("tor")
}

/// Prefixes of all nodes, each with its advertisements, as `prefix name/place ..`.
pub(crate) fn shared(bgp: &mut Bgp) -> Vec<String> {
    plan(bgp);
    bgp.all_routes().map(|prefix| line(&prefix.to_string(), bgp.route(prefix))).collect()
}

/// Prefixes of a node, likewise.
pub(crate) fn of_node(bgp: &mut Bgp, node: &str) -> Vec<String> {
    plan(bgp);
    bgp.all_node_routes(node).map(|prefix| line(&prefix.to_string(), bgp.node_route(node, prefix))).collect()
}

fn line(prefix: &str, route: Option<cilium_api::bgp::Route>) -> String {
    let ids: Vec<String> = route.unwrap().advertisements.into_iter().collect();
    format!("{prefix} {}", ids.join(" "))
}
