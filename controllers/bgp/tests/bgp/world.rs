//! Objects as the API has them, and what is planned of them.

use cilium_api::bgp::BgpInstance;
use cilium_api::parts;
use cilium_bgp_plan::{
    Advertisement, Bgp, Changes, Claim, ClusterConfig, Config, Override, PeerConfig, Served,
};
use cilium_core::{Label, Labels};
use cilium_services::ServiceName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn mk<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// An object of cluster scope.
pub(crate) fn object(kind: &str, name: &str, labels: Value, spec: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": kind, "spec": spec,
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
    })
}

pub(crate) struct World {
    pub(crate) bgp: Bgp,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self { bgp: Bgp::new(config) }
    }

    /// Nodes n1 and n2; a router `rack` with the peer `tor`, to which goes what has the label `to: tor`.
    pub(crate) fn usual(config: Config) -> Self {
        let mut world = Self::new(config);
        world.node("n1", 1);
        world.node("n2", 2);
        world.cluster("one", json!({"bgpInstances": [rack()]}));
        world.peer("tor", json!({"families": [to_tor("ipv4"), to_tor("ipv6")]}));
        world
    }

    pub(crate) fn node(&mut self, name: &str, number: u8) {
        let labels: Labels = [Label::k8s("name", name)].into_iter().collect();
        let addresses =
            [format!("192.0.2.{number}").parse().unwrap(), format!("fd00::{number}").parse().unwrap()];
        let prefixes = [format!("10.{number}.0.0/16").parse().unwrap()];
        self.bgp.set_node(name, labels, &addresses, &prefixes);
    }

    pub(crate) fn cluster(&mut self, name: &str, spec: Value) {
        let object = mk(object("CiliumBGPClusterConfig", name, json!({}), spec));
        self.bgp.set_cluster(name, Some(ClusterConfig::reduce(&object)));
    }

    pub(crate) fn peer(&mut self, name: &str, spec: Value) {
        let object = mk(object("CiliumBGPPeerConfig", name, json!({}), spec));
        self.bgp.set_peer(name, Some(PeerConfig::reduce(&object)));
    }

    /// One for the peer `tor`.
    pub(crate) fn advertisement(&mut self, name: &str, advertisements: Value) {
        let spec = json!({"advertisements": advertisements});
        let object = mk(object("CiliumBGPAdvertisement", name, json!({"to": "tor"}), spec));
        self.bgp.set_advertisement(name, Some(Advertisement::reduce(&object)));
    }

    pub(crate) fn different(&mut self, node: &str, instances: Value) {
        let spec = json!({"bgpInstances": instances});
        let object = mk(object("CiliumBGPNodeConfigOverride", node, json!({}), spec));
        self.bgp.set_override(node, Some(Override::reduce(&object)));
    }

    /// A Service `shop/NAME` with 10.96.0.1, 198.51.100.NUMBER and 203.0.113.NUMBER, and backends on nodes.
    pub(crate) fn service(&mut self, name: &str, number: u8, spec: Value, nodes: &[&str]) {
        let service = ServiceName::new("shop", name);
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        self.bgp.set_claim(&service, Some(Claim::reduce(&mk(object))));
        let is = |field: &str| spec[field] == "Local";
        let backends: Vec<Value> = nodes.iter().map(|node| json!(["10.1.0.9", 80, {"node": node}])).collect();
        let part: parts::Service = mk(json!({
            "clusterIps": ["10.96.0.1"], "loadBalancer": [format!("198.51.100.{number}")],
            "external": [format!("203.0.113.{number}")],
            "local": is("internalTrafficPolicy"), "externalLocal": is("externalTrafficPolicy"),
            "ports": [{"protocol": 6, "port": 80, "backends": backends}],
        }));
        self.bgp.set_served(&service, Some(Served::reduce(&part)));
    }

    pub(crate) fn plan(&mut self) -> Changes {
        let changes = self.bgp.plan();
        assert_eq!(self.bgp.check(), Vec::<String>::new());
        changes
    }

    pub(crate) fn rack(&self, node: &str) -> BgpInstance {
        self.bgp.instance(node, "rack").unwrap().clone()
    }

    /// Prefixes that all nodes make known, each with its advertisements.
    pub(crate) fn shared(&self) -> Vec<String> {
        let text = |prefix| Some(format!("{prefix} {}", ids(&self.bgp.route(prefix)?.advertisements)));
        self.bgp.all_routes().filter_map(text).collect()
    }

    /// The same of one node.
    pub(crate) fn of_node(&self, node: &str) -> Vec<String> {
        let text =
            |prefix| Some(format!("{prefix} {}", ids(&self.bgp.node_route(node, prefix)?.advertisements)));
        self.bgp.all_node_routes(node).filter_map(text).collect()
    }

    /// Type, status, reason and message of conditions.
    pub(crate) fn of_cluster(&self, name: &str) -> Vec<String> {
        texts(self.bgp.cluster_conditions(name).unwrap())
    }

    pub(crate) fn of_peer(&self, name: &str) -> Vec<String> {
        texts(self.bgp.peer_conditions(name).unwrap())
    }
}

fn ids(all: &std::collections::BTreeSet<String>) -> String {
    all.iter().cloned().collect::<Vec<_>>().join(" ")
}

fn texts(conditions: Vec<cilium_api::condition::Condition>) -> Vec<String> {
    let text = |it: cilium_api::condition::Condition| {
        format!("{} {} {}: {}", it.type_, it.status, it.reason.unwrap(), it.message.unwrap())
    };
    conditions.into_iter().map(text).collect()
}

pub(crate) fn rack() -> Value {
    json!({"name": "rack", "localASN": 64512, "peers": [
        {"name": "tor", "peerAddress": "192.0.2.254", "peerASN": 64500, "peerConfigRef": {"name": "tor"}},
    ]})
}

pub(crate) fn to_tor(afi: &str) -> Value {
    json!({"afi": afi, "safi": "unicast", "advertisements": {"matchLabels": {"to": "tor"}}})
}

/// Services of the namespace `shop`, by these addresses.
pub(crate) fn of_services(addresses: &[&str]) -> Value {
    json!({
        "advertisementType": "Service", "service": {"addresses": addresses},
        "selector": {"matchLabels": {"io.kubernetes.service.namespace": "shop"}},
    })
}
