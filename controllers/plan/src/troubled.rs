//! Services that nodes cannot serve as planned, which users are told by an Event.

use std::collections::{BTreeMap, BTreeSet};

use cilium_services::ServiceName;

use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;

/// By Service, the nodes that say so.
#[derive(Debug, Default)]
pub(crate) struct Troubled(BTreeMap<ServiceName, BTreeSet<String>>);

impl Troubled {
    /// Takes what a node says. True when it is the first of them, so that many nodes with one trouble are one Event.
    fn is_news(&mut self, service: &ServiceName, node: &str, is_failing: bool) -> bool {
        if is_failing {
            let nodes = self.0.entry(service.clone()).or_default();
            return nodes.insert(node.to_owned()) && nodes.len() == 1;
        }
        if let Some(nodes) = self.0.get_mut(service) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.0.remove(service);
            }
        }
        false
    }

    /// A node is gone, and with it what it said.
    pub(crate) fn forget(&mut self, node: &str) {
        self.0.retain(|_, nodes| {
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
        let Some(message) = message.filter(|_| is_news) else { return };
        let Some(uid) = self.services.describe(&service).map(|described| described.uid.clone()) else {
            return;
        };
        let regarding = ObjectKey::namespaced(Kind::Service, namespace, name);
        self.warn(regarding, Some(&uid), "NotProgrammed", &format!("node {node}: {message}"));
    }
}
