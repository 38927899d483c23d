//! SIG Network's ClusterNetworkPolicy.
//!
//! Its status is not ours to say no in, and it may deny. So it is always in force, and a rule that is not understood counts for the
//! stricter: of one that accepts, the part matches nothing; one that denies or passes on denies everybody, as the API asks for. Only a
//! subject that is not understood leaves the policy out: nobody knows whom to close. What it was is named.

use cilium_api::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, Destination, NamespacedPod, Peer, Port, PortRange,
    Protocol, Subject,
};
use cilium_api::parts::{Action, Note};
use cilium_api::selector::LabelSelector;
use cilium_core::pod::{CLUSTER, NAMESPACE};
use cilium_core::{NamePattern, Peers, Requirement, Selector, Source, reserved};

use super::netpol::{in_cluster, namespaces, number, parse};
use super::ports::Found;
use super::{Settings, prefixes};
use crate::invalid::{Invalid, Path};
use crate::key::PolicyKey;
use crate::rules::{
    Name, Ordered, OrderedRule, PolicyRules, PortName, Ports, Rule, SCTP, Section, TCP, Tier, Traffic, UDP,
};

/// Names of container ports under which name servers are asked.
const DNS_PORTS: [(u8, &str); 2] = [(UDP, "dns"), (TCP, "dns-tcp")];

/// Key of a ClusterNetworkPolicy.
pub fn clusternetpol_key(policy: &ClusterNetworkPolicy) -> PolicyKey {
    PolicyKey::clusternetpol(policy.metadata.name.as_deref().unwrap_or_default())
}

/// Reduces a ClusterNetworkPolicy, with the parts of it that are not understood, or mean less than they seem to, and what becomes of them.
pub fn clusternetpol<'a>(
    policy: &ClusterNetworkPolicy,
    settings: impl Into<Settings<'a>>,
) -> (PolicyRules, Vec<Invalid>) {
    let mut reading = Reading { settings: settings.into(), notes: Vec::new() };
    let rules = reading.rule(&policy.spec).into_iter().collect();
    (PolicyRules { rules }, reading.notes)
}

/// A rule of either direction.
struct Written<'a> {
    action: &'a str,
    peers: (&'static str, &'a [Peer]),
    protocols: &'a [Protocol],
    is_egress: bool,
}

/// Peers of a rule.
#[derive(Default)]
struct Meant {
    selectors: Vec<Selector>,
    names: Vec<Name>,
    /// Some of them have no ports with names.
    nameless: bool,
}

/// A policy while it is read.
struct Reading<'a> {
    settings: Settings<'a>,
    notes: Vec<Invalid>,
}

impl Reading<'_> {
    fn rule(&mut self, spec: &ClusterNetworkPolicySpec) -> Option<Rule> {
        let path = Path::root("spec");
        let subject = subject(&path.field("subject"), &spec.subject);
        let subject = self.noted(subject, "the policy is not in force")?;
        let tier = tier(&path.field("tier"), &spec.tier);
        let tier = self.noted(tier, "it goes before all other policies").unwrap_or(Tier::Admin);
        let ingress = spec.ingress.iter().map(|rule| Written {
            action: &rule.action,
            peers: ("from", &rule.from),
            protocols: &rule.protocols,
            is_egress: false,
        });
        let egress = spec.egress.iter().map(|rule| Written {
            action: &rule.action,
            peers: ("to", &rule.to),
            protocols: &rule.protocols,
            is_egress: true,
        });
        let mut section = |field, rules: Vec<Written<'_>>| {
            let path = path.field(field);
            let rules: Vec<_> =
                rules.iter().enumerate().map(|(at, rule)| self.ordered(&path.index(at), rule)).collect();
            (!rules.is_empty()).then(|| section(Ordered { tier, priority: spec.priority, rules }))
        };
        let ingress = section("ingress", ingress.collect());
        let egress = section("egress", egress.collect());
        Some(Rule { path: path.into(), note: Note::default(), nodes: false, subject, ingress, egress })
    }

    fn ordered(&mut self, path: &Path, rule: &Written<'_>) -> OrderedRule {
        let action = action(&path.field("action"), rule.action);
        let action = self.noted(action, "the rule denies").unwrap_or(Action::Deny);
        let consequence =
            if action == Action::Accept { "it matches nothing" } else { "the rule denies everybody" };
        let before = self.notes.len();
        let meant = self.peers(path, rule, action, consequence);
        let known = self.notes.len();
        let found = self.ports(path, rule, meant.nameless, consequence);
        if action != Action::Accept && self.notes.len() > before {
            let found = if self.notes.len() > known { Found::everything() } else { found };
            return OrderedRule { action: Action::Deny, traffic: everybody(path, found, rule.is_egress) };
        }
        self.note_networks(path, rule, action);
        OrderedRule { action, traffic: self.meant(path, meant, found) }
    }

    fn meant(&self, path: &Path, meant: Meant, found: Found) -> Vec<Traffic> {
        let Meant { mut selectors, names, .. } = meant;
        if found.is_empty() || (selectors.is_empty() && names.is_empty()) {
            return Vec::new();
        }
        selectors.sort_unstable();
        selectors.dedup();
        let servers = (!names.is_empty()).then(|| name_servers(path));
        let peers = traffic(path, Peers::Selected(self.with_aggregate(selectors)), names, found, None);
        [peers].into_iter().chain(servers).collect()
    }

    /// Where all pods of the cluster are meant, their aggregate stands for them.
    fn with_aggregate(&self, mut selectors: Vec<Selector>) -> Vec<Selector> {
        let pods = Selector::default().and(Requirement::exists(Source::K8S, NAMESPACE));
        let is_all = |selector: &Selector| {
            *selector == pods || *selector == in_cluster(pods.clone(), self.settings.cluster)
        };
        if selectors.iter().any(is_all) {
            selectors.extend(reserved::aggregate(reserved::AGGREGATE_CLUSTER));
        }
        selectors
    }

    fn peers(&mut self, path: &Path, rule: &Written<'_>, action: Action, consequence: &str) -> Meant {
        let (field, list) = rule.peers;
        let path = path.field(field);
        let mut meant = Meant::default();
        if list.is_empty() {
            let none: Result<(), _> = Err(path.malformed("at least one peer must be given"));
            self.noted(none, consequence);
        }
        for (at, peer) in list.iter().enumerate() {
            let added = self.add_peer(&mut meant, &path.index(at), peer, rule.is_egress, action);
            self.noted(added, consequence);
        }
        meant
    }

    fn add_peer(
        &self,
        meant: &mut Meant,
        path: &Path,
        peer: &Peer,
        is_egress: bool,
        action: Action,
    ) -> Result<(), Invalid> {
        let Peer { namespaces: of_namespaces, pods, nodes, networks, domain_names } = peer;
        let given = [of_namespaces.is_some(), pods.is_some(), nodes.is_some()].map(usize::from);
        let lists = [!networks.is_empty(), !domain_names.is_empty()].map(usize::from);
        if given.iter().chain(&lists).sum::<usize>() != 1 {
            return Err(
                path.malformed("exactly one kind of peer must be given, and one that this version knows")
            );
        }
        let outside = nodes.is_some() || lists != [0, 0];
        if outside && !is_egress {
            return Err(path.malformed("what comes in is from namespaces or pods"));
        }
        meant.nameless |= outside;
        if let Some(labels) = of_namespaces {
            meant.selectors.push(namespaces(&path.field("namespaces"), labels)?);
        }
        if let Some(pods) = pods {
            meant.selectors.push(in_cluster(namespaced(&path.field("pods"), pods)?, self.settings.cluster));
        }
        if let Some(labels) = nodes {
            meant.selectors.extend(self.nodes(&path.field("nodes"), labels, action)?);
        }
        for (at, text) in networks.iter().enumerate() {
            let prefix = prefixes::parse(&path.field("networks").index(at), text)?;
            meant.selectors.push([Requirement::within(prefix)].into_iter().collect());
        }
        for (at, text) in domain_names.iter().enumerate() {
            let path = path.field("domainNames").index(at);
            meant.names.push(Name { pattern: name(&path, text, action)?, path: path.into() });
        }
        Ok(())
    }

    /// Nodes by their labels. Those of the node that a pod is on are not known where policies are planned: it is one of all nodes, and
    /// it is denied to be on the safe side.
    fn nodes(&self, path: &Path, labels: &LabelSelector, action: Action) -> Result<Vec<Selector>, Invalid> {
        if !self.settings.node_selector_labels {
            let (flag, value) = ("enable-node-selector-labels", "nodeSelectorLabels");
            return Err(path.disabled("a peer by node labels", flag, value));
        }
        let labelled = parse(path, labels, "")?.on(&Source::NODE);
        let own = labelled == Selector::default() || action == Action::Deny;
        let cluster = Requirement::equals(Source::K8S, CLUSTER, self.settings.cluster);
        let others = labelled.and(cluster).and(Requirement::exists(Source::RESERVED, "remote-node"));
        Ok([others].into_iter().chain(own.then(|| Selector::reserved("host"))).collect())
    }

    fn ports(&mut self, path: &Path, rule: &Written<'_>, nameless: bool, consequence: &str) -> Found {
        let path = path.field("protocols");
        let mut found = if rule.protocols.is_empty() { Found::everything() } else { Found::default() };
        for (at, protocol) in rule.protocols.iter().enumerate() {
            let added = add_port(&mut found, &path.index(at), protocol, nameless);
            self.noted(added, consequence);
        }
        found.sorted()
    }

    /// A denial that leaves out what its author may think is in it.
    fn note_networks(&mut self, path: &Path, rule: &Written<'_>, action: Action) {
        let (field, list) = rule.peers;
        if let Some(at) = list.iter().position(|peer| action == Action::Deny && !peer.networks.is_empty()) {
            let path = path.field(field).index(at).field("networks");
            let what = "a denial of pods and nodes by their addresses";
            let note: Result<(), _> = Err(path.unsupported(what));
            self.noted(note, "what is outside of the cluster is denied");
        }
    }

    fn noted<T>(&mut self, result: Result<T, Invalid>, consequence: &str) -> Option<T> {
        result
            .map_err(|note| {
                let reason = format!("{}; {consequence}", note.reason);
                self.notes.push(Invalid { reason, ..note });
            })
            .ok()
    }
}

fn section(ordered: Ordered) -> Section {
    Section {
        default_deny: false,
        allow: Vec::new(),
        by_address: Vec::new(),
        deny: Vec::new(),
        ordered: Some(ordered),
    }
}

fn traffic(
    path: &Path,
    peers: Peers,
    names: Vec<Name>,
    found: Found,
    questions: Option<Vec<Name>>,
) -> Traffic {
    let Found { ports, named } = found;
    Traffic { path: path.clone().into(), peers, references: Vec::new(), names, ports, named, questions }
}

/// Whoever it is.
fn everybody(path: &Path, found: Found, is_egress: bool) -> Vec<Traffic> {
    let everybody = traffic(path, Peers::Any, Vec::new(), found, None);
    if is_egress { everybody.out() } else { vec![everybody] }
}

/// What has to be heard where addresses are meant by their names. Nothing is said about questions.
fn name_servers(path: &Path) -> Traffic {
    let server = Requirement::equals(Source::K8S, "k8s-app", "kube-dns");
    let named = DNS_PORTS.map(|(protocol, name)| PortName { protocol, name: name.into() }).into();
    let peers = Peers::Selected(vec![[server].into_iter().collect()]);
    let found = Found { ports: Vec::new(), named };
    let every = Name { path: path.clone().into(), pattern: NamePattern::every() };
    traffic(path, peers, Vec::new(), found, Some(vec![every]))
}

fn subject(path: &Path, subject: &Subject) -> Result<Selector, Invalid> {
    match (&subject.namespaces, &subject.pods) {
        (Some(labels), None) => namespaces(&path.field("namespaces"), labels),
        (None, Some(pods)) => namespaced(&path.field("pods"), pods),
        _ => Err(path.malformed("exactly one of namespaces and pods must be given")),
    }
}

fn namespaced(path: &Path, pods: &NamespacedPod) -> Result<Selector, Invalid> {
    let own = parse(&path.field("podSelector"), &pods.pod_selector, "")?;
    Ok(own.and_all(&namespaces(&path.field("namespaceSelector"), &pods.namespace_selector)?))
}

fn tier(path: &Path, text: &str) -> Result<Tier, Invalid> {
    match text {
        "Admin" => Ok(Tier::Admin),
        "Baseline" => Ok(Tier::Baseline),
        other => Err(path.malformed(format!("{other:?} is not a tier"))),
    }
}

fn action(path: &Path, text: &str) -> Result<Action, Invalid> {
    match text {
        "Accept" => Ok(Action::Accept),
        "Deny" => Ok(Action::Deny),
        "Pass" => Ok(Action::Pass),
        other => Err(path.malformed(format!("{other:?} is not an action"))),
    }
}

/// A name, or all names below one.
fn name(path: &Path, text: &str, action: Action) -> Result<NamePattern, Invalid> {
    if action != Action::Accept {
        return Err(path.malformed("names are for rules that accept"));
    }
    let pattern = match text.strip_prefix("*.") {
        Some(rest) => NamePattern::name(rest).and_then(|_| NamePattern::pattern(&format!("**.{rest}"))),
        None => NamePattern::name(text),
    };
    pattern.map_err(|error| path.malformed(error.to_string()))
}

fn add_port(found: &mut Found, path: &Path, protocol: &Protocol, nameless: bool) -> Result<(), Invalid> {
    let Protocol { tcp, udp, sctp, destination_named_port } = protocol;
    let numbered = [("tcp", TCP, tcp), ("udp", UDP, udp), ("sctp", SCTP, sctp)];
    let mut numbered =
        numbered.into_iter().filter_map(|(field, number, it)| Some((field, number, it.as_ref()?)));
    match (numbered.next(), numbered.next(), destination_named_port) {
        (Some((field, protocol, destination)), None, None) => {
            let (first, last) = range(&path.field(field), destination)?;
            found.ports.push(Ports { protocol, first, last });
        }
        (None, None, Some(_)) if nameless => {
            let path = path.field("destinationNamedPort");
            return Err(path.malformed("nodes, networks and domain names have no ports with names"));
        }
        (None, None, Some(name)) => {
            let named = [TCP, UDP, SCTP].map(|protocol| PortName { protocol, name: name.as_str().into() });
            found.named.extend(named);
        }
        _ => {
            let reason = "exactly one of tcp, udp, sctp and destinationNamedPort must be given";
            return Err(path.malformed(reason));
        }
    }
    Ok(())
}

/// First and last port; zeros for every port.
fn range(path: &Path, destination: &Destination) -> Result<(u16, u16), Invalid> {
    let path = path.field("destinationPort");
    match &destination.destination_port {
        None => Ok((0, 0)),
        Some(Port { number: Some(port), range: None }) => {
            let port = number(&path.field("number"), *port)?;
            Ok((port, port))
        }
        Some(Port { number: None, range: Some(PortRange { start, end }) }) => {
            let path = path.field("range");
            let (first, last) = (number(&path.field("start"), *start)?, number(&path.field("end"), *end)?);
            if last < first {
                return Err(path.malformed(format!("the range ends before it begins, at port {first}")));
            }
            Ok((first, last))
        }
        Some(_) => Err(path.malformed("exactly one of number and range must be given")),
    }
}
