//! Services that nodes cannot serve as planned, which users are told by an Event.

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
    /// By Service, the nodes that cannot serve it.
    failing: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Services with ports that no node serves.
    unsupported: BTreeSet<ServiceName>,
}

impl Troubled {
    /// Takes what a node says. True when it is the first of them, so that many nodes with one trouble are one Event.
    fn is_news(&mut self, service: &ServiceName, node: &str, is_failing: bool) -> bool {
        if is_failing {
            let nodes = self.failing.entry(service.clone()).or_default();
            return nodes.insert(node.to_owned()) && nodes.len() == 1;
        }
        if let Some(nodes) = self.failing.get_mut(service) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.failing.remove(service);
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
        let Some((namespace, name)) = part.strip_prefix("service/").and_then(|rest| rest.split_once('/'))
        else {
            return;
        };
        let service = ServiceName::new(namespace, name);
        let message = self.nodes.get(node).and_then(|entry| entry.state.message(part)).map(str::to_owned);
        let is_news = self.nodes.troubled.is_news(&service, node, message.is_some());
        if let Some(message) = message.filter(|_| is_news) {
            self.warn_of_service(&service, "NotProgrammed", &format!("node {node}: {message}"));
        }
    }

    /// A Service is planned anew: of ports that no node serves, users are told once.
    pub(crate) fn follow_unsupported(&mut self, service: &ServiceName, part: Option<&parts::Service>) {
        let ports = part.into_iter().flat_map(|part| &part.ports).filter(|port| port.protocol == SCTP);
        let ports: Vec<String> = ports.map(|port| port.port.to_string()).collect();
        let told = &mut self.nodes.troubled.unsupported;
        if ports.is_empty() {
            told.remove(service);
        } else if told.insert(service.clone()) {
            let ports = ports.join(", ");
            let note = format!(
                "SCTP is not served at addresses of Services (port {ports}): connect to the pods themselves"
            );
            self.warn_of_service(service, "NotSupported", &note);
        }
    }

    fn warn_of_service(&mut self, service: &ServiceName, reason: &'static str, note: &str) {
        let Some(uid) = self.services.describe(service).map(|described| described.uid.clone()) else {
            return;
        };
        let regarding = ObjectKey::namespaced(Kind::Service, &service.namespace, &service.name);
        self.warn(regarding, Some(&uid), reason, &note);
    }
}
