//! Services and redirects that nodes cannot serve as planned, which users are told by an Event.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts;
use cilium_services::ServiceName;

use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

/// IP protocol number.
const SCTP: u8 = 132;

/// What users have been told.
#[derive(Debug, Default)]
pub(crate) struct Troubled {
    /// By Service or CiliumLocalRedirectPolicy, the nodes that cannot serve it.
    failing: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// Services with ports that no node serves.
    unsupported: BTreeSet<ServiceName>,
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

    /// A Service is planned anew: of ports that no node serves, users are told once.
    pub(crate) fn follow_unsupported(&mut self, service: &ServiceName, part: Option<&parts::Service>) {
        let ports = part.into_iter().flat_map(|part| &part.ports).filter(|port| changes_sctp_ports(port));
        let ports: Vec<String> = ports.map(|port| port.port.to_string()).collect();
        let told = &mut self.nodes.troubled.unsupported;
        if ports.is_empty() {
            told.remove(service);
        } else if told.insert(service.clone()) {
            let ports = ports.join(", ");
            let note = format!(
                "SCTP cannot change its port on the way (port {ports}): give targetPort the same number; ports of nodes are not served"
            );
            self.warn_of_trouble(service_key(service), "NotSupported", &note);
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
