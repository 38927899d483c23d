//! A second reading of policies, as slow and plain as can be: it looks at the objects at every question and shares
//! nothing with the code under test but the types of the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::cluster_network_policy::ClusterNetworkPolicySpec;
use cilium_api::egress::EgressPeers;
use cilium_api::icmp::{IcmpFamily, IcmpField, IcmpRule, IcmpType};
use cilium_api::ingress::IngressPeers;
use cilium_api::kubernetes_network_policy::NetworkPolicy;
use cilium_api::peer::{CidrRule, Entity};
use cilium_api::port::{PortDenyRule, PortProtocol, PortRule, Protocol};
use cilium_api::rule::Rule;
use cilium_api::selector::{EndpointSelector, MatchOperator};
use cilium_policy::{Flow, Mode, Side};

use crate::clusternetpols::{self, Said};
use crate::netpols::{Situation, has_port};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";
const NAMESPACE_LABEL: &str = "io.cilium.k8s.namespace.labels.";

/// Labels as `source:key` to value.
pub(crate) type PlainLabels = BTreeMap<String, String>;

/// A policy as it was written: its namespace, if it has one, and its rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) namespace: Option<String>,
    pub(crate) rules: Vec<Rule>,
}

/// All that decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) mode: Mode,
    pub(crate) cluster: String,
    /// `4` or `6` in a cluster with one address family.
    pub(crate) only_family: Option<char>,
    pub(crate) identities: BTreeMap<u32, PlainLabels>,
    pub(crate) policies: BTreeMap<String, Written>,
    pub(crate) netpols: BTreeMap<String, NetworkPolicy>,
    pub(crate) clusternetpols: BTreeMap<String, ClusterNetworkPolicySpec>,
}

/// One side's answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What nobody allows is dropped.
    pub(crate) restricted: bool,
    /// Some rule says something about the direction.
    pub(crate) spoken_of: bool,
    /// Whose rules say that what nobody allows is dropped.
    pub(crate) closed_by: BTreeSet<String>,
    pub(crate) granted_by: BTreeSet<String>,
    pub(crate) denied_by: BTreeSet<String>,
    /// What is said before all this.
    pub(crate) admin: Said,
    /// What is said where all this does not decide.
    pub(crate) baseline: Said,
}

impl World {
    pub(crate) fn answer(&self, side: Side, flow: &Flow) -> Answer {
        let (subject, peer) = match side {
            Side::Egress => (flow.source, flow.destination),
            Side::Ingress => (flow.destination, flow.source),
        };
        let can_be_endpoint = matches!(subject, 4 | 5 | 8) || (100..1 << 24).contains(&subject);
        let mut answer = Answer::default();
        let Some(labels) =
            self.identities.get(&subject).filter(|_| can_be_endpoint && self.mode != Mode::Never)
        else {
            return answer;
        };
        answer.restricted = self.mode == Mode::Always || labels.contains_key("reserved:init");
        for (key, policy) in &self.policies {
            for rule in policy.rules.iter().filter(|rule| self.selects(policy, rule, labels)) {
                let about = About { world: self, policy, rule };
                let deny = rule.enable_default_deny.clone().unwrap_or_default();
                let (allowed, denied, deny) = match side {
                    Side::Ingress => {
                        (about.ingress(peer, flow), about.ingress_deny(peer, flow), deny.ingress)
                    }
                    Side::Egress => (about.egress(peer, flow), about.egress_deny(peer, flow), deny.egress),
                };
                let speaks = !(allowed.is_empty() && denied.is_empty());
                answer.spoken_of |= speaks;
                if speaks && deny != Some(false) {
                    answer.restricted = true;
                    answer.closed_by.insert(key.clone());
                }
                if allowed.contains(&true) {
                    answer.granted_by.insert(key.clone());
                }
                if denied.contains(&true) {
                    answer.denied_by.insert(key.clone());
                }
            }
        }
        let peer = self.identities.get(&peer);
        let destination = self.identities.get(&flow.destination);
        let situation = Situation { cluster: &self.cluster, subject: labels, peer, destination, side, flow };
        self.netpols.iter().for_each(|(key, policy)| situation.ask(key, policy, &mut answer));
        answer.admin = clusternetpols::ask(self, &situation, "Admin");
        answer.baseline = clusternetpols::ask(self, &situation, "Baseline");
        answer.spoken_of |= answer.admin.speaks || answer.baseline.speaks;
        answer
    }

    /// The prefix of an identity as text of bits, after the family.
    pub(crate) fn prefix_of(&self, labels: &PlainLabels) -> Option<String> {
        let cidr = labels.keys().find_map(|label| label.strip_prefix("cidr:"));
        let has = |name: &str| labels.contains_key(&format!("reserved:{name}"));
        match cidr {
            Some(text) => bits_of(&text.replace('-', ":")),
            None if has("world-ipv4") => Some("4".into()),
            None if has("world-ipv6") => Some("6".into()),
            None if has("world") => Some(self.only_family?.to_string()),
            None => None,
        }
    }

    fn selects(&self, policy: &Written, rule: &Rule, labels: &PlainLabels) -> bool {
        let selector = rule.endpoint_selector.as_ref().unwrap();
        let Some(namespace) = &policy.namespace else { return matches(selector, labels, false) };
        labels.get(&format!("k8s:{NAMESPACE}")) == Some(namespace) && matches(selector, labels, true)
    }
}

/// A rule with what surrounds it.
struct About<'a> {
    world: &'a World,
    policy: &'a Written,
    rule: &'a Rule,
}

/// Peers of an entry: which list is present, and whether one of its items matches.
struct PeerLists {
    present: bool,
    matched: bool,
}

impl About<'_> {
    fn ingress(&self, peer: u32, flow: &Flow) -> Vec<bool> {
        let entries = self.rule.ingress.iter().flatten();
        entries
            .map(|e| hits(&self.from(&e.peers, peer), &ports_of(&e.to_ports), &e.icmps, self.world, flow))
            .collect()
    }

    fn ingress_deny(&self, peer: u32, flow: &Flow) -> Vec<bool> {
        let entries = self.rule.ingress_deny.iter().flatten();
        entries
            .map(|e| {
                hits(&self.from(&e.peers, peer), &denied_ports_of(&e.to_ports), &e.icmps, self.world, flow)
            })
            .collect()
    }

    fn egress(&self, peer: u32, flow: &Flow) -> Vec<bool> {
        let entries = self.rule.egress.iter().flatten();
        entries
            .map(|e| hits(&self.to(&e.peers, peer), &ports_of(&e.to_ports), &e.icmps, self.world, flow))
            .collect()
    }

    fn egress_deny(&self, peer: u32, flow: &Flow) -> Vec<bool> {
        let entries = self.rule.egress_deny.iter().flatten();
        entries
            .map(|e| {
                hits(&self.to(&e.peers, peer), &denied_ports_of(&e.to_ports), &e.icmps, self.world, flow)
            })
            .collect()
    }

    fn from(&self, peers: &IngressPeers, peer: u32) -> PeerLists {
        let mut lists = self.lists(&peers.from_endpoints, &peers.from_entities, peer);
        lists.present |= peers.from_groups.is_some();
        self.add_nodes(&mut lists, &peers.from_nodes, peer);
        self.add_prefixes(&mut lists, &peers.from_cidr, &peers.from_cidr_set, peer);
        lists
    }

    fn to(&self, peers: &EgressPeers, peer: u32) -> PeerLists {
        let mut lists = self.lists(&peers.to_endpoints, &peers.to_entities, peer);
        lists.present |= peers.to_services.is_some() || peers.to_groups.is_some();
        self.add_nodes(&mut lists, &peers.to_nodes, peer);
        self.add_prefixes(&mut lists, &peers.to_cidr, &peers.to_cidr_set, peer);
        lists
    }

    fn lists(
        &self,
        endpoints: &Option<Vec<EndpointSelector>>,
        entities: &Option<Vec<Entity>>,
        peer: u32,
    ) -> PeerLists {
        let labels = self.world.identities.get(&peer);
        let by_labels =
            |selector: &EndpointSelector| labels.is_some_and(|labels| self.peer_matches(selector, labels));
        let by_entity = |entity: &Entity| {
            *entity == Entity::All || labels.is_some_and(|labels| self.entity_matches(entity, labels))
        };
        PeerLists {
            present: endpoints.is_some() || entities.is_some(),
            matched: endpoints.iter().flatten().any(by_labels) || entities.iter().flatten().any(by_entity),
        }
    }

    /// Peers outside whose prefix lies in one of the list, and in none that its item leaves out.
    fn add_prefixes(
        &self,
        lists: &mut PeerLists,
        cidrs: &Option<Vec<String>>,
        sets: &Option<Vec<CidrRule>>,
        peer: u32,
    ) {
        lists.present |= cidrs.is_some() || sets.is_some();
        let Some(labels) = self.world.identities.get(&peer) else { return };
        let Some(found) = self.world.prefix_of(labels) else { return };
        let inside = |text: &String| bits_of(text).is_some_and(|wanted| found.starts_with(&wanted));
        let in_group =
            |name: &String| labels.contains_key(&format!("cidrgroup:io.cilium.policy.cidrgroupname/{name}"));
        let in_set = |rule: &CidrRule| {
            let is_meant = rule.cidr.iter().any(inside) || rule.cidr_group_ref.iter().any(in_group);
            is_meant && !rule.except.iter().flatten().any(inside)
        };
        lists.matched |= cidrs.iter().flatten().any(inside) || sets.iter().flatten().any(in_set);
    }

    /// Other nodes of the cluster with such labels.
    fn add_nodes(&self, lists: &mut PeerLists, nodes: &Option<Vec<EndpointSelector>>, peer: u32) {
        lists.present |= nodes.is_some();
        let Some(labels) = self.world.identities.get(&peer) else { return };
        let is_node = labels.contains_key("reserved:remote-node")
            && labels.get(&format!("k8s:{CLUSTER_KEY}")) == Some(&self.world.cluster);
        lists.matched |= is_node && nodes.iter().flatten().any(|selector| matches(selector, labels, false));
    }

    fn peer_matches(&self, selector: &EndpointSelector, labels: &PlainLabels) -> bool {
        let names: Vec<&str> = names(selector);
        if !matches(selector, labels, false) {
            return false;
        }
        if names.iter().any(|name| name.starts_with("reserved:")) {
            return true;
        }
        let of_kubernetes = |name: &&str, wanted: &dyn Fn(&str) -> bool| {
            let key = name.strip_prefix("k8s:").or(name.strip_prefix("any:")).unwrap_or(name);
            !key.contains(':') && wanted(key)
        };
        let names_namespace = names.iter().any(|name| of_kubernetes(name, &|key| key == NAMESPACE));
        let names_namespace_label =
            names.iter().any(|name| of_kubernetes(name, &|key| key.starts_with(NAMESPACE_LABEL)));
        let names_cluster = names.iter().any(|name| of_kubernetes(name, &|key| key == CLUSTER_KEY));
        let namespace = labels.get(&format!("k8s:{NAMESPACE}"));
        let namespace_fits = match &self.policy.namespace {
            Some(own) => names_namespace || names_namespace_label || namespace == Some(own),
            None => names_namespace || self.is_about_init() || namespace.is_some(),
        };
        let cluster = labels.get(&format!("k8s:{CLUSTER_KEY}"));
        namespace_fits && (names_cluster || cluster == Some(&self.world.cluster))
    }

    fn is_about_init(&self) -> bool {
        names(self.rule.endpoint_selector.as_ref().unwrap()).contains(&"reserved:init")
    }

    fn entity_matches(&self, entity: &Entity, labels: &PlainLabels) -> bool {
        let has = |name: &str| labels.contains_key(&format!("reserved:{name}"));
        let cluster = labels.get(&format!("k8s:{CLUSTER_KEY}"));
        let inside = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];
        match entity.as_str() {
            "all" => true,
            "none" => false,
            "world" => ["world", "world-ipv4", "world-ipv6"].into_iter().any(has),
            "cluster" => inside.into_iter().any(has) || cluster == Some(&self.world.cluster),
            "cluster-mesh" => inside.into_iter().any(has) || cluster.is_some(),
            name => has(name),
        }
    }
}

/// `4` or `6` and the bits of a prefix.
pub(crate) fn bits_of(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "128"));
    let length: usize = length.parse().unwrap();
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            Some(format!("4{:032b}", u32::from(address)).chars().take(1 + length).collect())
        }
        IpAddr::V6(address) => {
            Some(format!("6{:0128b}", u128::from(address)).chars().take(1 + length).collect())
        }
    }
}

fn names(selector: &EndpointSelector) -> Vec<&str> {
    let labels = selector.match_labels.iter().flatten().map(|(name, _)| name.as_str());
    labels
        .chain(selector.match_expressions.iter().flatten().map(|expression| expression.key.as_str()))
        .collect()
}

/// Whether labels match a selector. With `overwritten`, `k8s:` labels for the namespace are not looked at.
fn matches(selector: &EndpointSelector, labels: &PlainLabels, overwritten: bool) -> bool {
    let by_label = selector.match_labels.iter().flatten().all(|(name, value)| {
        let skip = overwritten && *name == format!("k8s:{NAMESPACE}");
        skip || values_of(labels, name).contains(&value.as_str())
    });
    let by_expression = selector.match_expressions.iter().flatten().all(|expression| {
        let found = values_of(labels, &expression.key);
        let wanted = expression.values.as_deref().unwrap_or_default();
        let one_of = found.iter().any(|value| wanted.iter().any(|wanted| wanted == value));
        match expression.operator {
            MatchOperator::In => one_of,
            MatchOperator::NotIn => !one_of,
            MatchOperator::Exists => !found.is_empty(),
            MatchOperator::DoesNotExist => found.is_empty(),
            MatchOperator::Other(_) => unreachable!("the generator makes no unknown operators"),
        }
    });
    by_label && by_expression
}

/// Values of a label by the name that a selector has for it.
fn values_of<'a>(labels: &'a PlainLabels, name: &str) -> Vec<&'a str> {
    let (source, key) = name.split_once(':').unwrap_or(("any", name));
    let found = labels.iter().filter(|(label, _)| {
        let (label_source, label_key) = label.split_once(':').unwrap();
        label_key == key && (source == "any" || source == label_source)
    });
    found.map(|(_, value)| value.as_str()).collect()
}

/// Ports of the items of `toPorts`, if there are items.
type Ports<'a> = Option<Vec<&'a PortProtocol>>;

fn ports_of(to_ports: &Option<Vec<PortRule>>) -> Ports<'_> {
    let items = to_ports.as_ref().filter(|items| !items.is_empty())?;
    Some(items.iter().flat_map(|item| item.ports.iter().flatten()).collect())
}

fn denied_ports_of(to_ports: &Option<Vec<PortDenyRule>>) -> Ports<'_> {
    let items = to_ports.as_ref().filter(|items| !items.is_empty())?;
    Some(items.iter().flat_map(|item| item.ports.iter().flatten()).collect())
}

fn hits(
    peers: &PeerLists,
    ports: &Ports<'_>,
    icmps: &Option<Vec<IcmpRule>>,
    world: &World,
    flow: &Flow,
) -> bool {
    let icmps = icmps.as_ref().filter(|items| !items.is_empty());
    let on_port = ports.as_ref().map(|ports| ports.iter().any(|port| port_matches(port, world, flow)));
    let by_type = icmps
        .map(|items| items.iter().flat_map(|item| item.fields.iter().flatten()).any(|f| is_type(f, flow)));
    match on_port.or(by_type) {
        None => peers.matched,
        Some(matches) => (peers.matched || !peers.present) && matches,
    }
}

/// The generator has types as numbers only.
fn is_type(field: &IcmpField, flow: &Flow) -> bool {
    let protocol = if field.family == Some(IcmpFamily::Ipv6) { 58 } else { 1 };
    let IcmpType::Number(number) = field.type_ else { unreachable!("the generator makes no names") };
    flow.protocol == protocol && (number == 0 || number == i64::from(flow.destination_port))
}

fn port_matches(port: &PortProtocol, world: &World, flow: &Flow) -> bool {
    let protocol = match port.protocol {
        None | Some(Protocol::Any) => matches!(flow.protocol, 6 | 17 | 132),
        Some(Protocol::Tcp) => flow.protocol == 6,
        Some(Protocol::Udp) => flow.protocol == 17,
        Some(Protocol::Sctp) => flow.protocol == 132,
        _ => false,
    };
    let text = port.port.as_deref().unwrap();
    let Ok(first) = text.parse::<i32>() else {
        return protocol && has_port(world.identities.get(&flow.destination), &text.to_lowercase(), flow);
    };
    let last = port.end_port.unwrap_or(0).max(first);
    protocol && (first == 0 || (first..=last).contains(&i32::from(flow.destination_port)))
}
