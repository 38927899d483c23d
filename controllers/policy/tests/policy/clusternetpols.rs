//! Random ClusterNetworkPolicies, and a second reading of them that shares nothing with the code under test but the types of the
//! objects.

use cilium_api::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, Destination, EgressRule, IngressRule, NamespacedPod,
    Peer, Port, PortRange, Protocol, Subject,
};
use cilium_api::selector::LabelSelector;
use cilium_policy::Side;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::netpols::{Situation, has, has_port, namespace_of, pods, selector};
use crate::reference::{PlainLabels, World, bits_of};

const NAMESPACE_LABEL: &str = "k8s:io.cilium.k8s.namespace.labels.";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";

pub(crate) fn mk_clusternetpol(key: &str, spec: ClusterNetworkPolicySpec) -> ClusterNetworkPolicy {
    let mut policy = ClusterNetworkPolicy { spec, ..ClusterNetworkPolicy::default() };
    policy.metadata.name = key.strip_prefix("clusternetpol/").map(str::to_owned);
    policy
}

fn namespaces() -> impl Strategy<Value = LabelSelector> {
    selector(&[("team", "1"), ("team", "2")])
}

fn namespaced() -> impl Strategy<Value = NamespacedPod> {
    let spaces = prop_oneof![Just(LabelSelector::default()), namespaces()];
    (spaces, pods())
        .prop_map(|(namespace_selector, pod_selector)| NamespacedPod { namespace_selector, pod_selector })
}

/// Also one of a kind that is not known.
fn near() -> impl Strategy<Value = Peer> {
    prop_oneof![
        6 => namespaces().prop_map(|labels| Peer { namespaces: Some(labels), ..Peer::default() }),
        2 => Just(Peer { namespaces: Some(LabelSelector::default()), ..Peer::default() }),
        6 => namespaced().prop_map(|pods| Peer { pods: Some(pods), ..Peer::default() }),
        1 => Just(Peer::default()),
    ]
}

const NETWORKS: [&str; 6] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.0/24", "192.0.2.0/25", "::/0", "2001:db8::/32"];

fn far() -> impl Strategy<Value = Peer> {
    let networks = vec(select(&NETWORKS[..]).prop_map(str::to_owned), 1..3);
    prop_oneof![
        8 => near(),
        2 => selector(&[("app", "x"), ("app", "y")])
            .prop_map(|labels| Peer { nodes: Some(labels), ..Peer::default() }),
        5 => networks.prop_map(|networks| Peer { networks, ..Peer::default() }),
        1 => Just(Peer { domain_names: vec!["*.example.io".into()], ..Peer::default() }),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let number = |number| Port { number: Some(number), range: None };
    let range = |start, end| Port { number: None, range: Some(PortRange { start, end }) };
    let port = select(vec![None, Some(number(80)), Some(number(81)), Some(range(80, 90))]);
    let port = port.prop_map(|destination_port| Destination { destination_port });
    let name = |name: &str| Protocol { destination_named_port: Some(name.into()), ..Protocol::default() };
    prop_oneof![
        3 => port.clone().prop_map(|port| Protocol { tcp: Some(port), ..Protocol::default() }),
        2 => port.clone().prop_map(|port| Protocol { udp: Some(port), ..Protocol::default() }),
        1 => port.prop_map(|port| Protocol { sctp: Some(port), ..Protocol::default() }),
        1 => select(vec![name("web"), name("dns")]),
    ]
}

fn action() -> impl Strategy<Value = String> {
    select(vec!["Accept", "Deny", "Pass"]).prop_map(str::to_owned)
}

pub(crate) fn spec() -> impl Strategy<Value = ClusterNetworkPolicySpec> {
    let protocols = || prop_oneof![Just(Vec::new()), vec(protocol(), 1..3)];
    let subject = prop_oneof![
        namespaces().prop_map(|labels| Subject { namespaces: Some(labels), pods: None }),
        Just(Subject { namespaces: Some(LabelSelector::default()), pods: None }),
        namespaced().prop_map(|pods| Subject { namespaces: None, pods: Some(pods) }),
    ];
    let ingress = (action(), vec(near(), 1..3), protocols())
        .prop_map(|(action, from, protocols)| IngressRule { action, from, protocols });
    let egress = (action(), vec(far(), 1..3), protocols()).prop_map(|(action, to, protocols)| EgressRule {
        action,
        to,
        protocols,
    });
    let tier = select(vec!["Admin", "Baseline"]).prop_map(str::to_owned);
    (tier, 0..3i32, subject, vec(ingress, 0..4), vec(egress, 0..4)).prop_map(
        |(tier, priority, subject, ingress, egress)| ClusterNetworkPolicySpec {
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}

/// What the policies of a tier say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Some policy has rules about the direction of the subject.
    pub(crate) speaks: bool,
    /// Whether the first rule about the flow accepts it, and of which policy it is; none if there is no such rule, or it passes.
    pub(crate) decided: Option<(bool, String)>,
}

/// A rule of either direction.
struct Written<'a> {
    action: &'a str,
    peers: &'a [Peer],
    protocols: &'a [Protocol],
}

pub(crate) fn ask(world: &World, situation: &Situation<'_>, tier: &str) -> Said {
    let mut policies: Vec<_> = world.clusternetpols.iter().collect();
    policies.sort_by_key(|(key, spec)| (spec.priority, key.to_string()));
    let mut said = Said::default();
    let mut is_over = false;
    for (key, spec) in policies {
        if spec.tier != tier || !is_subject(situation.subject, &spec.subject) {
            continue;
        }
        for rule in rules(spec, situation.side) {
            said.speaks = true;
            let reading = Reading { world, situation, rule: &rule };
            let Some(action) = reading.action() else { continue };
            if !is_over && action != "Pass" {
                said.decided = Some((action == "Accept", key.clone()));
            }
            is_over = true;
        }
    }
    said
}

impl<'a> From<&'a IngressRule> for Written<'a> {
    fn from(IngressRule { action, from, protocols }: &'a IngressRule) -> Self {
        Self { action, peers: from, protocols }
    }
}

impl<'a> From<&'a EgressRule> for Written<'a> {
    fn from(EgressRule { action, to, protocols }: &'a EgressRule) -> Self {
        Self { action, peers: to, protocols }
    }
}

fn rules(spec: &ClusterNetworkPolicySpec, side: Side) -> Vec<Written<'_>> {
    match side {
        Side::Ingress => spec.ingress.iter().map(Written::from).collect(),
        Side::Egress => spec.egress.iter().map(Written::from).collect(),
    }
}

fn is_subject(labels: &PlainLabels, subject: &Subject) -> bool {
    let Subject { namespaces, pods } = subject;
    namespace_of(labels).is_some()
        && namespaces.iter().all(|selector| has(labels, selector, NAMESPACE_LABEL))
        && pods.iter().all(|pods| {
            has(labels, &pods.namespace_selector, NAMESPACE_LABEL) && has(labels, &pods.pod_selector, "k8s:")
        })
}

struct Reading<'a> {
    world: &'a World,
    situation: &'a Situation<'a>,
    rule: &'a Written<'a>,
}

impl Reading<'_> {
    /// What is done with the flow, if the rule is about it.
    fn action(&self) -> Option<&str> {
        let Written { action, peers, protocols } = self.rule;
        let is_unclear = *action != "Accept" && self.is_unclear();
        // What is denied because nobody knows which port is meant is denied on every port.
        let any_port = is_unclear && protocols.iter().any(|protocol| self.is_dropped(protocol));
        let on_port =
            any_port || protocols.is_empty() || protocols.iter().any(|protocol| self.is_protocol(protocol));
        let hit = is_unclear || peers.iter().any(|peer| self.is_peer(peer));
        let action = if is_unclear { "Deny" } else { action };
        (hit && on_port).then_some(action)
    }

    /// Peers of no known kind, names where only addresses can be, ports with names where nothing has names.
    fn is_unclear(&self) -> bool {
        let is_unclear = |peer: &Peer| *peer == Peer::default() || !peer.domain_names.is_empty();
        self.rule.peers.iter().any(is_unclear) || self.rule.protocols.iter().any(|it| self.is_dropped(it))
    }

    fn is_dropped(&self, protocol: &Protocol) -> bool {
        let nameless =
            |peer: &Peer| peer.nodes.is_some() || !(peer.networks.is_empty() && peer.domain_names.is_empty());
        protocol.destination_named_port.is_some() && self.rule.peers.iter().any(nameless)
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        let Some(labels) = self.situation.peer else { return false };
        let is_pod = namespace_of(labels).is_some();
        if let Some(selector) = &peer.namespaces {
            return is_pod && has(labels, selector, NAMESPACE_LABEL);
        }
        if let Some(NamespacedPod { namespace_selector, pod_selector }) = &peer.pods {
            let fits = has(labels, namespace_selector, NAMESPACE_LABEL) && has(labels, pod_selector, "k8s:");
            return is_pod && fits && (self.is_here(labels) || names_cluster(pod_selector));
        }
        if let Some(selector) = &peer.nodes {
            let is_other = labels.contains_key("reserved:remote-node") && self.is_here(labels);
            let is_own = labels.contains_key("reserved:host");
            let all = selector.match_labels.iter().flatten().next().is_none()
                && selector.match_expressions.iter().flatten().next().is_none();
            return (is_other && has(labels, selector, "node:"))
                || (is_own && (all || self.rule.action == "Deny"));
        }
        let prefix = self.world.prefix_of(labels);
        let inside = |text: &String| {
            prefix.as_ref().is_some_and(|found| found.starts_with(&bits_of(text).unwrap_or_default()))
        };
        peer.networks.iter().any(inside)
    }

    fn is_here(&self, labels: &PlainLabels) -> bool {
        labels.get(&format!("k8s:{CLUSTER}")).is_some_and(|found| found == self.situation.cluster)
    }

    fn is_protocol(&self, protocol: &Protocol) -> bool {
        let flow = self.situation.flow;
        let Protocol { tcp, udp, sctp, destination_named_port } = protocol;
        if let Some(name) = destination_named_port {
            return !self.is_dropped(protocol) && has_port(self.situation.destination, name, flow);
        }
        let found = i32::from(flow.destination_port);
        let meant = [(6, tcp), (17, udp), (132, sctp)]
            .into_iter()
            .find_map(|(number, it)| it.as_ref().map(|destination| (number, &destination.destination_port)));
        let Some((number, port)) = meant else { return false };
        let fits = match port {
            None => true,
            Some(Port { number: Some(port), .. }) => *port == found,
            Some(Port { range: Some(range), .. }) => (range.start..=range.end).contains(&found),
            Some(_) => false,
        };
        number == flow.protocol && fits
    }
}

fn names_cluster(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.iter().flatten().map(|(key, _)| key);
    let expressions = selector.match_expressions.iter().flatten().map(|expression| &expression.key);
    labels.chain(expressions).any(|key| key == CLUSTER)
}
