//! Kubernetes' own NetworkPolicy.
//!
//! The API server has validated it, it has no status to say no in, and it only allows. So it is always put in force: a part that
//! is not understood grants nothing, and is named.

use cilium_api::kubernetes_network_policy::{
    EgressRule, IngressRule, IntOrString, IpBlock, NetworkPolicy, Peer, Port,
};
use cilium_api::parts::Note;
use cilium_api::selector::LabelSelector;
use cilium_core::pod::{CLUSTER, NAMESPACE, NAMESPACE_LABELS};
use cilium_core::{Peers, Requirement, Selector, Source};

use super::ports::Found;
use super::{DEFAULT_NAMESPACE, prefixes};
use crate::invalid::{Invalid, Path};
use crate::key::PolicyKey;
use crate::rules::{Block, ByAddress, PolicyRules, PortName, Ports, Rule, SCTP, Section, TCP, Traffic, UDP};

/// Key of a NetworkPolicy.
pub fn netpol_key(policy: &NetworkPolicy) -> PolicyKey {
    PolicyKey::netpol(namespace(policy), policy.metadata.name.as_deref().unwrap_or_default())
}

/// Reduces a NetworkPolicy, with the parts of it that grant nothing because they are not understood. `cluster` is the name of
/// the local cluster.
pub fn netpol(policy: &NetworkPolicy, cluster: &str) -> (PolicyRules, Vec<Invalid>) {
    let mut reading = Reading { namespace: namespace(policy), cluster, notes: Vec::new() };
    let rules = vec![reading.rule(policy)];
    (PolicyRules { rules }, reading.notes)
}

fn namespace(policy: &NetworkPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
}

/// What the rules of a direction allow.
#[derive(Default)]
struct Allowed {
    traffic: Vec<Traffic>,
    by_address: Vec<ByAddress>,
}

/// A policy while it is read.
struct Reading<'a> {
    namespace: &'a str,
    cluster: &'a str,
    notes: Vec<Invalid>,
}

impl Reading<'_> {
    fn rule(&mut self, policy: &NetworkPolicy) -> Rule {
        let (spec, path) = (&policy.spec, Path::root("spec"));
        // Without labels that are understood, the policy closes more pods rather than fewer.
        let own = parse(&path.field("podSelector"), &spec.pod_selector, "");
        let subject = self.noted(own).unwrap_or_default().and(self.own_namespace());
        let has_type = |name: &str| spec.policy_types.iter().any(|known| known == name);
        let closes_ingress = has_type("Ingress") || !has_type("Egress");
        let ingress = self.ingress(&path.field("ingress"), &spec.ingress);
        let egress = self.egress(&path.field("egress"), &spec.egress);
        Rule {
            path: path.into(),
            note: Note::default(),
            nodes: false,
            subject,
            ingress: section(ingress, !spec.ingress.is_empty() || closes_ingress),
            egress: section(egress, !spec.egress.is_empty() || has_type("Egress")),
        }
    }

    fn ingress(&mut self, path: &Path, rules: &[IngressRule]) -> Allowed {
        let mut allowed = Allowed::default();
        for (at, rule) in rules.iter().enumerate() {
            let traffic =
                self.read(&mut allowed.by_address, &path.index(at), "from", &rule.from, &rule.ports);
            allowed.traffic.extend(traffic);
        }
        allowed
    }

    fn egress(&mut self, path: &Path, rules: &[EgressRule]) -> Allowed {
        let mut allowed = Allowed::default();
        for (at, rule) in rules.iter().enumerate() {
            let traffic = self.read(&mut allowed.by_address, &path.index(at), "to", &rule.to, &rule.ports);
            allowed.traffic.extend(traffic.into_iter().flat_map(Traffic::out));
        }
        allowed
    }

    /// What a rule allows: adds what it says of addresses, and returns the rest.
    fn read(
        &mut self,
        by_address: &mut Vec<ByAddress>,
        path: &Path,
        field: &str,
        list: &[Peer],
        ports: &[Port],
    ) -> Option<Traffic> {
        let found = self.ports(&path.field("ports"), ports);
        let (peers, blocks) = self.peers(&path.field(field), list);
        if found.is_empty() {
            return None;
        }
        let Found { ports, named } = found;
        if !blocks.is_empty() {
            by_address.push(ByAddress {
                path: path.clone().into(),
                blocks,
                ports: ports.clone(),
                named: named.clone(),
            });
        }
        (peers != Peers::Selected(Vec::new())).then_some(Traffic {
            path: path.clone().into(),
            peers,
            references: Vec::new(),
            names: Vec::new(),
            ports,
            named,
            questions: None,
        })
    }

    fn peers(&mut self, path: &Path, list: &[Peer]) -> (Peers, Vec<Block>) {
        let (mut selectors, mut blocks) = (Vec::new(), Vec::new());
        for (at, peer) in list.iter().enumerate() {
            let path = path.index(at);
            match (&peer.pod_selector, &peer.namespace_selector, &peer.ip_block) {
                (None, None, Some(found)) => blocks.extend(self.noted(block(&path.field("ipBlock"), found))),
                (_, _, Some(_)) => {
                    self.notes.push(path.malformed("ipBlock and selectors exclude each other"));
                }
                (None, None, None) => self
                    .notes
                    .push(path.malformed("one of podSelector, namespaceSelector and ipBlock must be given")),
                (pods, namespaces, None) => {
                    let selector = self.pods(&path, pods.as_ref(), namespaces.as_ref());
                    selectors.extend(self.noted(selector));
                }
            }
        }
        selectors.sort_unstable();
        selectors.dedup();
        (if list.is_empty() { Peers::Any } else { Peers::Selected(selectors) }, blocks)
    }

    fn pods(
        &self,
        path: &Path,
        pods: Option<&LabelSelector>,
        labels: Option<&LabelSelector>,
    ) -> Result<Selector, Invalid> {
        let own =
            pods.map(|pods| parse(&path.field("podSelector"), pods, "")).transpose()?.unwrap_or_default();
        let place = match labels {
            None => Selector::default().and(self.own_namespace()),
            Some(labels) => namespaces(&path.field("namespaceSelector"), labels)?,
        };
        Ok(in_cluster(own, self.cluster).and_all(&place))
    }

    fn ports(&mut self, path: &Path, list: &[Port]) -> Found {
        let mut found = if list.is_empty() { Found::everything() } else { Found::default() };
        for (at, port) in list.iter().enumerate() {
            let added = add_port(&mut found, &path.index(at), port);
            self.noted(added);
        }
        found.sorted()
    }

    fn own_namespace(&self) -> Requirement {
        Requirement::equals(Source::K8S, NAMESPACE, self.namespace)
    }

    fn noted<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|note| self.notes.push(note)).ok()
    }
}

fn section(allowed: Allowed, speaks: bool) -> Option<Section> {
    let Allowed { traffic, by_address } = allowed;
    speaks.then(|| Section {
        default_deny: true,
        allow: traffic,
        by_address,
        deny: Vec::new(),
        ordered: None,
    })
}

/// Pods of namespaces with such labels.
pub(super) fn namespaces(path: &Path, labels: &LabelSelector) -> Result<Selector, Invalid> {
    Ok(parse(path, labels, NAMESPACE_LABELS)?.and(Requirement::exists(Source::K8S, NAMESPACE)))
}

/// Pods with labels, of the local cluster unless the labels name one.
pub(super) fn in_cluster(pods: Selector, cluster: &str) -> Selector {
    let names_cluster = pods.requirements().iter().any(|requirement| &*requirement.key == CLUSTER);
    if names_cluster { pods } else { pods.and(Requirement::equals(Source::K8S, CLUSTER, cluster)) }
}

/// A selector of labels from Kubernetes, with `start` before the keys.
pub(super) fn parse(path: &Path, selector: &LabelSelector, start: &str) -> Result<Selector, Invalid> {
    let named = |key: &String| format!("{}:{start}{key}", Source::K8S);
    let mut selector = selector.clone();
    if let Some(labels) = &mut selector.match_labels {
        *labels = labels.iter().map(|(key, value)| (named(key), value.clone())).collect();
    }
    for expression in selector.match_expressions.iter_mut().flatten() {
        expression.key = named(&expression.key);
    }
    Selector::parse(&selector).map_err(|error| path.field(&error.path).malformed(error.reason))
}

fn block(path: &Path, block: &IpBlock) -> Result<Block, Invalid> {
    let prefix = prefixes::parse(&path.field("cidr"), &block.cidr)?;
    let except = prefixes::except(&path.field("except"), &block.except, Some(prefix))?;
    Ok(Block { prefix, except })
}

fn add_port(found: &mut Found, path: &Path, port: &Port) -> Result<(), Invalid> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => TCP,
        Some("UDP") => UDP,
        Some("SCTP") => SCTP,
        Some(other) => {
            return Err(path.field("protocol").malformed(format!("{other:?} is not a protocol with ports")));
        }
    };
    match &port.port {
        None => found.ports.push(Ports { protocol, first: 0, last: 0 }),
        Some(IntOrString::Int(first)) => {
            let (first, last) = range(path, *first, port.end_port)?;
            found.ports.push(Ports { protocol, first, last });
        }
        Some(IntOrString::String(name)) if port.end_port.is_some() => {
            let reason = format!("a range cannot begin at a port by name ({name:?})");
            return Err(path.field("endPort").malformed(reason));
        }
        Some(IntOrString::String(name)) => {
            found.named.push(PortName { protocol, name: name.as_str().into() });
        }
    }
    Ok(())
}

/// The number of a port.
pub(super) fn number(path: &Path, number: i32) -> Result<u16, Invalid> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| path.malformed(format!("{number} is not a port, they go from 1 to 65535")))
}

fn range(path: &Path, first: i32, end: Option<i32>) -> Result<(u16, u16), Invalid> {
    let first = number(&path.field("port"), first)?;
    let last = end.map_or(Ok(first), |end| number(&path.field("endPort"), end))?;
    if last < first {
        return Err(path
            .field("endPort")
            .malformed(format!("the range ends before it begins, at port {first}")));
    }
    Ok((first, last))
}
