//! Random NetworkPolicies, and a second reading of them that shares nothing with the code under test but the types of the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::kubernetes_network_policy::{
    EgressRule, IngressRule, IntOrString, IpBlock, NetworkPolicy, NetworkPolicySpec, Peer, Port,
};
use cilium_api::selector::{LabelSelector, MatchExpression, MatchOperator};
use cilium_policy::{Flow, Side};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::reference::{Answer, PlainLabels};

pub(crate) fn mk_netpol(namespace: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
    let mut policy = NetworkPolicy { spec, ..NetworkPolicy::default() };
    policy.metadata.namespace = Some(namespace.into());
    policy
}

/// Labels with keys as pods or namespaces have them.
pub(crate) fn selector(
    names: &'static [(&'static str, &'static str)],
) -> impl Strategy<Value = LabelSelector> {
    let expression = (select(names), select(vec!["In", "NotIn", "Exists", "DoesNotExist"]));
    let expression = expression.prop_map(|((key, value), operator)| {
        let values = matches!(operator, "In" | "NotIn").then(|| vec![value.into()]);
        MatchExpression { key: key.into(), operator: operator.into(), values }
    });
    let labels =
        option::of(vec(select(names), 0..2).prop_map(|labels| {
            labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
        }));
    (labels, option::weighted(0.3, vec(expression, 0..2)))
        .prop_map(|(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions })
}

pub(crate) fn pods() -> impl Strategy<Value = LabelSelector> {
    selector(&[("app", "x"), ("app", "y"), ("org", "z"), ("io.cilium.k8s.policy.cluster", "other")])
}

fn peer() -> impl Strategy<Value = Peer> {
    let namespaces = selector(&[("team", "1"), ("team", "2")]);
    prop_oneof![
        pods().prop_map(|pods| Peer { pod_selector: Some(pods), ..Peer::default() }),
        (option::of(pods()), namespaces).prop_map(|(pods, namespaces)| Peer {
            pod_selector: pods,
            namespace_selector: Some(namespaces),
            ..Peer::default()
        }),
        block().prop_map(|block| Peer { ip_block: Some(block), ..Peer::default() }),
    ]
}

/// Prefixes that lie in each other, and addresses at their edges.
const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/23",
    "10.1.2.3/32",
    "::/0",
    "fd00::/8",
    "fd00:1::/64",
];
const ADDRESSES: [&str; 7] =
    ["9.255.255.255", "10.0.0.0", "10.1.2.3", "10.1.3.255", "10.1.4.0", "11.0.0.0", "10.1.255.255"];
const ADDRESSES_V6: [&str; 4] = ["fc00::1", "fd00::1", "fd00:1::ffff", "::ffff"];

fn block() -> impl Strategy<Value = IpBlock> {
    (select(&PREFIXES[..]), vec(select(&PREFIXES[..]), 0..3)).prop_map(|(cidr, except)| {
        let except = except.into_iter().filter(|inner| {
            let (address, length) = inner.split_once('/').unwrap();
            let (_, outer) = cidr.split_once('/').unwrap();
            length.parse::<u8>().unwrap() > outer.parse().unwrap()
                && is_inside(address.parse().unwrap(), cidr)
        });
        IpBlock { cidr: cidr.into(), except: except.map(str::to_owned).collect() }
    })
}

/// Addresses of both ends, of one family.
pub(crate) fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let pair = |all: &'static [&'static str]| (select(all), select(all));
    prop_oneof![2 => pair(&ADDRESSES), 1 => pair(&ADDRESSES_V6)]
        .prop_map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap()))
}

/// Whether an address has the bits of a prefix.
fn is_inside(address: IpAddr, prefix: &str) -> bool {
    let (start, length) = prefix.split_once('/').unwrap();
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{:032b}", u32::from(address)),
        IpAddr::V6(address) => format!("{:0128b}", u128::from(address)),
    };
    let (start, length): (IpAddr, usize) = (start.parse().unwrap(), length.parse().unwrap());
    start.is_ipv4() == address.is_ipv4() && bits(start)[..length] == bits(address)[..length]
}

fn port() -> impl Strategy<Value = Port> {
    let number = IntOrString::Int;
    let name = |name: &str| IntOrString::String(name.to_owned());
    let range = select(vec![
        (None, None),
        (Some(number(80)), None),
        (Some(number(80)), Some(90)),
        (Some(number(81)), Some(81)),
        (Some(name("web")), None),
        (Some(name("dns")), None),
    ]);
    (range, option::of(select(vec!["TCP", "UDP", "SCTP"]))).prop_map(|((port, end_port), protocol)| Port {
        port,
        end_port,
        protocol: protocol.map(Into::into),
    })
}

pub(crate) fn spec() -> impl Strategy<Value = NetworkPolicySpec> {
    let rule = || (vec(peer(), 0..3), vec(port(), 0..3));
    let types = vec(select(vec!["Ingress", "Egress"]), 0..3);
    (pods(), vec(rule(), 0..3), vec(rule(), 0..3), types).prop_map(
        |(pod_selector, ingress, egress, types)| NetworkPolicySpec {
            pod_selector,
            ingress: ingress.into_iter().map(|(from, ports)| IngressRule { from, ports }).collect(),
            egress: egress.into_iter().map(|(to, ports)| EgressRule { to, ports }).collect(),
            policy_types: types.into_iter().map(str::to_owned).collect(),
        },
    )
}

type PeersAndPorts<'a> = (&'a [Peer], &'a [Port]);

/// What the reading needs to know of the world.
pub(crate) struct Situation<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) subject: &'a PlainLabels,
    pub(crate) peer: Option<&'a PlainLabels>,
    pub(crate) destination: Option<&'a PlainLabels>,
    pub(crate) side: Side,
    pub(crate) flow: &'a Flow,
}

impl Situation<'_> {
    /// Adds what one policy says.
    pub(crate) fn ask(&self, key: &str, policy: &NetworkPolicy, answer: &mut Answer) {
        let namespace = policy.metadata.namespace.as_deref().unwrap();
        let spec = &policy.spec;
        if namespace_of(self.subject) != Some(namespace) || !has(self.subject, &spec.pod_selector, "k8s:") {
            return;
        }
        let named = |name: &str| spec.policy_types.iter().any(|known| known == name);
        let (closed, rules): (bool, Vec<PeersAndPorts<'_>>) = match self.side {
            Side::Ingress => (
                named("Ingress") || !named("Egress"),
                spec.ingress.iter().map(|rule| (&rule.from[..], &rule.ports[..])).collect(),
            ),
            Side::Egress => {
                (named("Egress"), spec.egress.iter().map(|rule| (&rule.to[..], &rule.ports[..])).collect())
            }
        };
        if !closed && rules.is_empty() {
            return;
        }
        answer.restricted = true;
        answer.closed_by.insert(key.to_owned());
        answer.spoken_of = true;
        let granted = rules.iter().any(|(peers, ports)| {
            let on_port =
                |peer: Option<&Peer>| ports.is_empty() || ports.iter().any(|port| self.is_port(peer, port));
            let from = |peer: &Peer| self.is_peer(namespace, peer) && on_port(Some(peer));
            if peers.is_empty() { on_port(None) } else { peers.iter().any(from) }
        });
        if granted {
            answer.granted_by.insert(key.into());
        }
    }

    fn is_peer(&self, own_namespace: &str, peer: &Peer) -> bool {
        if let Some(block) = &peer.ip_block {
            let address =
                self.flow.addresses.map(|(from, to)| if self.side == Side::Egress { to } else { from });
            let inside = |prefix: &String| address.is_some_and(|address| is_inside(address, prefix));
            return inside(&block.cidr) && !block.except.iter().any(inside);
        }
        let Some(labels) = self.peer else { return false };
        let Some(namespace) = namespace_of(labels) else { return false };
        let place = match &peer.namespace_selector {
            None => namespace == own_namespace,
            Some(selector) => has(labels, selector, "k8s:io.cilium.k8s.namespace.labels."),
        };
        let none = LabelSelector::default();
        let pods = peer.pod_selector.as_ref().unwrap_or(&none);
        let names_cluster = pods.match_labels.iter().flatten().map(|(key, _)| key);
        let mut names_cluster =
            names_cluster.chain(pods.match_expressions.iter().flatten().map(|expression| &expression.key));
        let key = "io.cilium.k8s.policy.cluster";
        let cluster = labels.get(&format!("k8s:{key}")).is_some_and(|found| found == self.cluster);
        place && has(labels, pods, "k8s:") && (cluster || names_cluster.any(|name| name == key))
    }

    fn is_port(&self, peer: Option<&Peer>, port: &Port) -> bool {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => 6,
            "UDP" => 17,
            _ => 132,
        };
        let found = i32::from(self.flow.destination_port);
        let number = match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => *first <= found && found <= port.end_port.unwrap_or(*first),
            // Nobody knows the names of what is behind an address.
            Some(IntOrString::String(_))
                if self.side == Side::Egress && peer.is_some_and(|peer| peer.ip_block.is_some()) =>
            {
                false
            }
            Some(IntOrString::String(name)) => has_port(self.destination, name, self.flow),
        };
        protocol == self.flow.protocol && number
    }
}

/// Whether the destination has a port of this name where the flow goes.
pub(crate) fn has_port(destination: Option<&PlainLabels>, name: &str, flow: &Flow) -> bool {
    let protocol = match flow.protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => return false,
    };
    let wanted = format!("{name}.{protocol}.{}", flow.destination_port);
    let ports = destination.and_then(|labels| labels.get("gen:io.cilium.k8s.named-ports"));
    ports.is_some_and(|ports| ports.split('_').any(|port| port == wanted))
}

pub(crate) fn namespace_of(labels: &PlainLabels) -> Option<&str> {
    labels.get("k8s:io.kubernetes.pod.namespace").map(String::as_str)
}

/// Whether labels match a selector whose keys stand behind `start`.
pub(crate) fn has(labels: &BTreeMap<String, String>, selector: &LabelSelector, start: &str) -> bool {
    let value = |key: &str| labels.get(&format!("{start}{key}"));
    let by_label = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    let by_expression = selector.match_expressions.iter().flatten().all(|expression| {
        let found = value(&expression.key);
        let one_of =
            found.is_some_and(|found| expression.values.iter().flatten().any(|value| value == found));
        match expression.operator {
            MatchOperator::In => one_of,
            MatchOperator::NotIn => !one_of,
            MatchOperator::Exists => found.is_some(),
            MatchOperator::DoesNotExist => found.is_none(),
            MatchOperator::Other(_) => unreachable!("the generator makes no unknown operators"),
        }
    });
    by_label && by_expression
}
