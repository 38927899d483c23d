//! Reserved identities: numbers that mean the same in every cluster.

use std::collections::BTreeMap;

use crate::filter::LabelFilter;
use crate::label::{Label, Labels, Source};
use crate::selector::Selector;
use crate::{pod, prefix};

/// Any peer, in policy entries.
pub const ANY: u32 = 0;
/// The node that a packet is on, with the processes in its network.
pub const HOST: u32 = 1;
/// Everything outside the cluster, when there is one address family.
pub const WORLD: u32 = 2;
/// Pods that this network does not manage.
pub const UNMANAGED: u32 = 3;
/// Health endpoints.
pub const HEALTH: u32 = 4;
/// Endpoints whose labels are not known yet.
pub const INIT: u32 = 5;
/// Other nodes.
pub const REMOTE_NODE: u32 = 6;
/// Other nodes that run an API server.
pub const KUBE_APISERVER: u32 = 7;
/// Proxies of Ingress and Gateway.
pub const INGRESS: u32 = 8;
/// IPv4 outside the cluster, when there are two address families.
pub const WORLD_IPV4: u32 = 9;
/// IPv6 outside the cluster, when there are two address families.
pub const WORLD_IPV6: u32 = 10;

/// In policy entries: every pod of the local cluster, whatever its labels.
pub const AGGREGATE_CLUSTER: u32 = 11;
/// In policy entries: every prefix outside of the cluster that has an identity.
pub const AGGREGATE_WORLD: u32 = 13;
/// In policy entries: every node that has an identity of its own.
pub const AGGREGATE_REMOTE_NODE: u32 = 14;

/// Below are numbers with a fixed meaning and aggregates.
const FIRST_WELL_KNOWN: u32 = 100;
/// First number that is allocated for labels.
pub const FIRST_ALLOCATED: u32 = 256;
/// Last number that is allocated for labels.
pub const LAST_ALLOCATED: u32 = 65535;
/// First number that stands for addresses outside the cluster.
pub const FIRST_LOCAL: u32 = 1 << 24;
/// First number that stands for another node by itself, where nodes are told apart by their labels.
pub const FIRST_REMOTE_NODE: u32 = 2 << 24;
/// First number that a node gives by itself to addresses outside the cluster that have names; up to 2^25 - 1. Below are prefixes.
pub const FIRST_NAMED: u32 = FIRST_LOCAL | 1 << 23;

/// First number that stands for a node as a subject of policies. These numbers are used by planners only: to its own node it is
/// [`HOST`], to others what [`FIRST_REMOTE_NODE`] says.
pub const FIRST_NODE_HOST: u32 = 0xfe << 24;

/// The number as which policies select a node, from the number that it has for other nodes.
pub fn node_host(remote: u32) -> u32 {
    FIRST_NODE_HOST | (remote & 0xff_ffff)
}

/// Whether the number stands for a node as a subject of policies.
pub fn is_node_host(number: u32) -> bool {
    number >> 24 == FIRST_NODE_HOST >> 24
}

/// Address families that the cluster uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    #[default]
    Dual,
}

impl Families {
    /// Identities of addresses outside the cluster that nothing else is known about.
    pub fn world(self) -> &'static [u32] {
        match self {
            Self::Ipv4 | Self::Ipv6 => &[WORLD],
            Self::Dual => &[WORLD_IPV4, WORLD_IPV6],
        }
    }

    /// Identity of an address outside the cluster that nothing else is known about.
    pub fn world_of(self, address: std::net::IpAddr) -> u32 {
        match (self, address) {
            (Self::Ipv4 | Self::Ipv6, _) => WORLD,
            (Self::Dual, std::net::IpAddr::V4(_)) => WORLD_IPV4,
            (Self::Dual, std::net::IpAddr::V6(_)) => WORLD_IPV6,
        }
    }
}

/// Keys of the labels of a reserved identity, all of source `reserved`.
fn names(number: u32) -> &'static [&'static str] {
    match number {
        HOST => &["host"],
        WORLD => &["world"],
        UNMANAGED => &["unmanaged"],
        HEALTH => &["health"],
        INIT => &["init"],
        REMOTE_NODE => &["remote-node"],
        KUBE_APISERVER => &["kube-apiserver", "remote-node"],
        INGRESS => &["ingress"],
        WORLD_IPV4 => &["world-ipv4"],
        WORLD_IPV6 => &["world-ipv6"],
        AGGREGATE_CLUSTER => &["aggregate-cluster"],
        AGGREGATE_WORLD => &["aggregate-world"],
        AGGREGATE_REMOTE_NODE => &["aggregate-remote-node"],
        _ => &[],
    }
}

/// The aggregate that an identity is one of; [`ANY`] for those that are in none.
pub fn aggregate_of(number: u32) -> u32 {
    match number {
        FIRST_WELL_KNOWN..=LAST_ALLOCATED => AGGREGATE_CLUSTER,
        _ if number >> 24 == FIRST_LOCAL >> 24 => AGGREGATE_WORLD,
        _ if number >> 24 == FIRST_REMOTE_NODE >> 24 => AGGREGATE_REMOTE_NODE,
        _ => ANY,
    }
}

/// Selects an aggregate: all identities of a range, with labels that are known or not. Nothing has this label.
pub fn aggregate(number: u32) -> Option<Selector> {
    let name = names(number).first()?;
    is_aggregate(number).then(|| Selector::reserved(name))
}

/// The aggregate that a selector was made for by [`aggregate`].
pub fn selected_aggregate(selector: &Selector) -> Option<u32> {
    let all = [AGGREGATE_CLUSTER, AGGREGATE_WORLD, AGGREGATE_REMOTE_NODE];
    all.into_iter().find(|number| aggregate(*number).as_ref() == Some(selector))
}

fn is_aggregate(number: u32) -> bool {
    matches!(number, AGGREGATE_CLUSTER | AGGREGATE_WORLD | AGGREGATE_REMOTE_NODE)
}

/// Labels of a reserved identity or of an aggregate; `None` for other numbers.
pub fn labels(number: u32) -> Option<Labels> {
    match names(number) {
        [] => None,
        names => Some(names.iter().map(|name| Label::reserved(name)).collect()),
    }
}

/// Labels of [`HOST`] on a node that runs an API server.
pub fn api_server_host_labels() -> Labels {
    [Label::reserved("host"), Label::reserved("kube-apiserver")].into_iter().collect()
}

/// Labels of a node as a subject of policies: those of the host, and its own as far as they count for identities.
pub fn node_host_labels(api_server: bool, labels: &BTreeMap<String, String>, filter: &LabelFilter) -> Labels {
    let host =
        if api_server { api_server_host_labels() } else { [Label::reserved("host")].into_iter().collect() };
    let own = labels.iter().map(|(key, value)| Label::k8s(key, value)).filter(|label| filter.counts(label));
    host.iter().cloned().chain(own).collect()
}

/// Labels of the identity that a node has by itself for all other nodes.
pub fn remote_node_labels(cluster: &str, api_server: bool, labels: &BTreeMap<String, String>) -> Labels {
    let number = if api_server { KUBE_APISERVER } else { REMOTE_NODE };
    let reserved = names(number).iter().map(|name| Label::reserved(name));
    let own = labels.iter().map(|(key, value)| Label::new(Source::NODE, key, value));
    reserved.chain(own).chain([Label::k8s(pod::CLUSTER, cluster)]).collect()
}

/// Labels of the identity of an API server's address outside the cluster's nodes.
pub fn external_api_server_labels(families: Families, address: std::net::IpAddr) -> Labels {
    let outside = prefix::labels(families, prefix::host(address));
    outside.iter().cloned().chain([Label::reserved("kube-apiserver")]).collect()
}

/// All reserved identities of a cluster with these families, in the order of their numbers.
pub fn all(families: Families) -> Vec<(u32, Labels)> {
    let always = [HOST, UNMANAGED, HEALTH, INIT, REMOTE_NODE, KUBE_APISERVER, INGRESS];
    let mut numbers = [families.world(), &always].concat();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(|number| labels(number).map(|labels| (number, labels))).collect()
}

/// Whether the number can belong to an endpoint, which policies can select: not to nodes, and not to what is outside.
pub fn is_endpoint(number: u32) -> bool {
    matches!(number, HEALTH | INIT | INGRESS) || (FIRST_WELL_KNOWN..FIRST_LOCAL).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_depends_on_the_families() {
        let numbers = |families| all(families).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(Families::Ipv4), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(numbers(Families::Dual), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(Families::Dual.world_of("2001:db8::1".parse().unwrap()), 10);
        assert_eq!(Families::Ipv6.world_of("2001:db8::1".parse().unwrap()), 2);
    }

    #[test]
    fn labels_of_nodes() {
        assert_eq!(labels(7).unwrap().to_strings(), ["reserved:kube-apiserver", "reserved:remote-node"]);
        assert_eq!(api_server_host_labels().to_strings(), ["reserved:host", "reserved:kube-apiserver"]);
        let own = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let texts = remote_node_labels("kind", true, &own).to_strings();
        let expected = [
            "k8s:io.cilium.k8s.policy.cluster=kind",
            "node:zone=a",
            "reserved:kube-apiserver",
            "reserved:remote-node",
        ];
        assert_eq!(texts, expected);
        let own = ["zone", "topology.kubernetes.io/zone"].map(|key| (key.to_owned(), "a".to_owned()));
        let host = node_host_labels(false, &own.into_iter().collect(), &LabelFilter::default());
        assert_eq!(host.to_strings(), ["k8s:zone=a", "reserved:host"]);
        let external = external_api_server_labels(Families::Dual, "192.0.2.1".parse().unwrap());
        assert_eq!(
            external.to_strings(),
            ["cidr:192.0.2.1/32", "reserved:kube-apiserver", "reserved:world-ipv4"]
        );
        assert_eq!(labels(12), None);
    }

    #[test]
    fn aggregates_are_of_identities_that_come_and_go() {
        for number in [100, 256, 65535] {
            assert_eq!(aggregate_of(number), AGGREGATE_CLUSTER);
        }
        assert_eq!(aggregate_of(FIRST_LOCAL + 5), AGGREGATE_WORLD);
        assert_eq!(aggregate_of(FIRST_REMOTE_NODE + 5), AGGREGATE_REMOTE_NODE);
        for number in [0, 1, 6, 7, 9, 11, 13, 14, 65536, 3 << 24, u32::MAX] {
            assert_eq!(aggregate_of(number), ANY, "{number}");
        }
        let selector = aggregate(AGGREGATE_WORLD).unwrap();
        assert_eq!(selected_aggregate(&selector), Some(AGGREGATE_WORLD));
        assert_eq!(aggregate(WORLD), None);
        assert_eq!(selected_aggregate(&Selector::reserved("world")), None);
    }

    #[test]
    fn endpoints_are_neither_nodes_nor_outside() {
        for number in [4, 5, 8, 100, 256, 65535, 1 << 16] {
            assert!(is_endpoint(number), "{number}");
        }
        for number in [0, 1, 2, 3, 6, 7, 9, 10, 11, 14, FIRST_LOCAL, 2 << 24, node_host(2 << 24)] {
            assert!(!is_endpoint(number), "{number}");
        }
    }
}
