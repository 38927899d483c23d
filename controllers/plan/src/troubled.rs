//! Services and redirects that nodes cannot serve as planned, which users are told by an Event.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts;
use cilium_services::ServiceName;

use crate::config::ServiceConfig;
use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

/// IP protocol number.
const SCTP: u8 = 132;

/// What users have been told.
#[derive(Debug, Default)]
pub(crate) struct Troubled {
    /// By Service or CiliumLocalRedirectPolicy, the nodes that cannot serve it.
    failing: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// Services of which something is not served as they ask: reasons and notes.
    unserved: BTreeMap<ServiceName, Vec<(&'static str, String)>>,
}

impl Troubled {
    /// Takes what a node says. True when it is the first of them, so that many nodes with one trouble are one Event.
    fn is_news(&mut self, object: &ObjectKey, node: &str, is_failing: bool) -> bool {
        if is_failing {
            let nodes = self.failing.entry(object.clone()).or_default();
            return nodes.insert(node.to_owned()) && nodes.len() == 1;
        }
        if let Some(nodes) = self.failing.get_mut(object) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.failing.remove(object);
            }
        }
        false
    }

    /// A node is gone, and with it what it said.
    pub(crate) fn forget(&mut self, node: &str) {
        self.failing.retain(|_, nodes| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }
}

impl Planner {
    /// A node says something new about one of its parts.
    pub(crate) fn follow_trouble(&mut self, node: &str, part: &str) {
        let Some(object) = object_of(part) else { return };
        let message = self.nodes.get(node).and_then(|entry| entry.state.message(part)).map(str::to_owned);
        let is_news = self.nodes.troubled.is_news(&object, node, message.is_some());
        if let Some(message) = message.filter(|_| is_news) {
            self.warn_of_trouble(object, "NotProgrammed", &format!("node {node}: {message}"));
        }
    }

    /// A Service is planned anew: of what nobody serves as it asks, users are told once.
    pub(crate) fn follow_unserved(&mut self, service: &ServiceName, part: Option<&parts::Service>) {
        let unreadable = self.services.complaints(service).iter();
        let mut notes: Vec<_> = unreadable.map(|note| ("NotUnderstood", note.clone())).collect();
        let unsupported = part.into_iter().flat_map(|part| unsupported(part, &self.config.services));
        notes.extend(unsupported.map(|note| ("NotSupported", note)));
        let told = &mut self.nodes.troubled.unserved;
        if notes.is_empty() {
            told.remove(service);
            return;
        }
        let before = told.insert(service.clone(), notes.clone()).unwrap_or_default();
        for (reason, note) in notes.iter().filter(|note| !before.contains(note)) {
            self.warn_of_trouble(service_key(service), reason, note);
        }
    }

    /// Nobody is told of what is gone.
    fn warn_of_trouble(&mut self, object: ObjectKey, reason: &'static str, note: &str) {
        let uid = if object.kind == Kind::LocalRedirectPolicy {
            self.redirects.uid(&object).map(str::to_owned)
        } else {
            let service = ServiceName::new(&object.namespace, &object.name);
            self.services.describe(&service).map(|described| described.uid.clone())
        };
        if let Some(uid) = uid {
            self.warn(object, Some(&uid), reason, &note);
        }
    }
}

/// What of a Service nodes do not do, a sentence each.
fn unsupported(part: &parts::Service, config: &ServiceConfig) -> impl Iterator<Item = String> + use<> {
    let list = |is_meant: &dyn Fn(&&parts::ServicePort) -> bool, number: fn(&parts::ServicePort) -> u16| {
        let numbers: Vec<_> =
            part.ports.iter().filter(is_meant).map(|port| number(port).to_string()).collect();
        (!numbers.is_empty()).then(|| numbers.join(", "))
    };
    let sctp = list(&|port| changes_sctp_ports(port), |port| port.port).map(|ports| {
        format!(
            "SCTP cannot change its port on the way (port {ports}): give targetPort the same number; ports of nodes are not served"
        )
    });
    let is_foreign =
        |port: &&parts::ServicePort| port.node_port != 0 && !config.node_ports.contains(&port.node_port);
    let foreign = list(&is_foreign, |port| port.node_port).map(|ports| {
        let (first, last) = (config.node_ports.start(), config.node_ports.end());
        format!("nodes do not serve nodePort {ports}: they serve {first} to {last} (node-port-range, in the chart nodePort.range)")
    });
    let unheard = |is_asked: bool, is_heard: bool, annotation: &str, setting: &str| {
        (is_asked && !is_heard).then(|| {
            format!(
                "annotation {annotation} has no effect: set {setting} in the chart to let Services choose"
            )
        })
    };
    let algorithm = unheard(
        part.algorithm.is_some(),
        config.algorithm_by_annotation,
        "service.cilium.io/lb-algorithm",
        "bpf.lbAlgorithmAnnotation",
    );
    let forwarding = unheard(
        part.forwarding.is_some(),
        config.forwarding_by_annotation,
        "service.cilium.io/forwarding-mode",
        "bpf.lbModeAnnotation",
    );
    [sctp, foreign, algorithm, forwarding].into_iter().flatten()
}

/// The checksum of SCTP is a CRC over its ports, and nobody computes it anew.
fn changes_sctp_ports(port: &parts::ServicePort) -> bool {
    let is_other = |number| port.backends.iter().any(|backend| backend.port != number);
    port.protocol == SCTP && (is_other(port.port) || (port.node_port != 0 && is_other(port.node_port)))
}

fn service_key(service: &ServiceName) -> ObjectKey {
    ObjectKey::namespaced(Kind::Service, &service.namespace, &service.name)
}

/// The object that a part of a node is made of, for those that are watched here.
fn object_of(part: &str) -> Option<ObjectKey> {
    let (kind, rest) = part.split_once('/')?;
    let kind = match kind {
        "service" => Kind::Service,
        "redirect" => Kind::LocalRedirectPolicy,
        _ => return None,
    };
    let (namespace, name) = rest.split_once('/')?;
    Some(ObjectKey::namespaced(kind, namespace, name))
}
