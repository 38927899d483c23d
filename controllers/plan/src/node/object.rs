use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::{parts, slim};
use ipnet::IpNet;

use crate::config::Config;

/// A Kubernetes Node, reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) uid: String,
    /// InternalIP, in the order of the object.
    pub(crate) internal: Vec<IpAddr>,
    /// ExternalIP, in the order of the object.
    pub(crate) external: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Labels of the object, where policies can ask for them.
    pub(crate) labels: BTreeMap<String, String>,
    /// Empty when it has none.
    pub(crate) zone: String,
}

/// Label of a node that names its zone (Kubernetes, "well-known labels").
const ZONE: &str = "topology.kubernetes.io/zone";

impl Node {
    pub(crate) fn reduce(node: &slim::Node, config: &Config) -> Self {
        let of_type = |wanted: &str| {
            let addresses = node.status.addresses.iter().filter(|address| address.type_ == wanted);
            addresses.filter_map(|address| address.address.parse().ok()).collect()
        };
        let labels = node.metadata.labels.as_ref();
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            internal: of_type("InternalIP"),
            external: of_type("ExternalIP"),
            // With pools, Kubernetes may give prefixes all the same, and nobody uses them.
            pod_cidrs: if config.pod_pools { Vec::new() } else { pod_cidrs(&node.spec.pod_cidrs, config) },
            labels: labels.filter(|_| config.tells_nodes_apart()).cloned().unwrap_or_default(),
            zone: labels.and_then(|labels| labels.get(ZONE)).cloned().unwrap_or_default(),
        }
    }

    /// All addresses, the ones that other nodes use first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let external = self.external.iter().filter(|address| !self.internal.contains(address));
        self.internal.iter().chain(external).copied()
    }

    pub(crate) fn part(&self, api_server: bool, identity: Option<u32>) -> parts::Node {
        let pod_cidrs = self.pod_cidrs.iter().map(ToString::to_string).collect();
        let (addresses, zone) = (self.addresses().collect(), self.zone.clone());
        parts::Node { addresses, pod_cidrs, api_server, identity, zone, ..parts::Node::default() }
    }
}

/// Prefixes of the families that pods use.
fn pod_cidrs(texts: &[String], config: &Config) -> Vec<IpNet> {
    let all = texts.iter().filter_map(|text| text.parse().ok());
    all.filter(|prefix: &IpNet| config.has_family(prefix.addr())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn internal_addresses_come_first_and_malformed_ones_are_left_out() {
        let node = json!({
            "metadata": {"uid": "u", "labels": {"topology.kubernetes.io/zone": "east"}},
            "spec": {"podCIDRs": ["10.1.0.0/24", "bad", "fd00::/64"]},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "a"},
                {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "bad"},
                {"type": "ExternalIP", "address": "10.0.0.1"},
            ]},
        });
        let config = Config { ipv6: false, ..Config::default() };
        let part = Node::reduce(&serde_json::from_value(node).unwrap(), &config).part(true, None);
        let addresses: Vec<_> = part.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "192.0.2.1"]);
        assert_eq!((part.pod_cidrs, part.api_server), (vec!["10.1.0.0/24".to_owned()], true));
        assert_eq!(part.zone, "east");
    }
}
