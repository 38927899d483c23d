//! A CiliumL2AnnouncementPolicy, reduced to what can change an outcome.

use std::collections::BTreeMap;

use cilium_api::CiliumL2AnnouncementPolicy;
use cilium_api::selector::LabelSelector;
use cilium_core::{Labels, Selector};
use regex::Regex;

/// Fields that can be malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `spec.nodeSelector`.
    NodeSelector,
    /// `spec.serviceSelector`.
    ServiceSelector,
    /// `spec.interfaces`.
    Interfaces,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NodeSelector, Self::ServiceSelector, Self::Interfaces];

    /// Type of the condition by which upstream tells of it.
    pub fn condition(self) -> &'static str {
        match self {
            Self::NodeSelector => "io.cilium/bad-node-selector",
            Self::ServiceSelector => "io.cilium/bad-service-selector",
            Self::Interfaces => "io.cilium/bad-interface-regex",
        }
    }
}

/// What is malformed in a policy, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Fault {
    /// The field.
    pub field: Field,
    /// Path of what is wrong inside of it, from the root of the object.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A policy. A malformed one selects nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Addresses of load balancers are announced.
    pub(crate) load_balancer: bool,
    /// External addresses are.
    pub(crate) external: bool,
    services: Selector,
    nodes: Selector,
    /// By their text. None are all devices.
    interfaces: BTreeMap<String, Regex>,
    /// At most one for each field.
    faults: Vec<Fault>,
}

/// Expressions with the same text are the same.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        let flags = |it: &Self| (it.load_balancer, it.external);
        flags(self) == flags(other)
            && self.services == other.services
            && self.nodes == other.nodes
            && self.interfaces.keys().eq(other.interfaces.keys())
            && self.faults == other.faults
    }
}

impl Policy {
    /// Reads a policy. Without `spec`, it is one that asks for nothing.
    pub fn reduce(policy: &CiliumL2AnnouncementPolicy) -> Self {
        let Some(spec) = &policy.spec else { return Self::default() };
        let mut faults = Vec::new();
        let mut read = |field, name: &str, selector: &Option<LabelSelector>| {
            let parsed = selector.as_ref().map_or_else(|| Ok(Selector::default()), Selector::parse);
            parsed.unwrap_or_else(|error| {
                let path = format!("spec.{name}.{}", error.path);
                faults.push(Fault { field, path, reason: error.reason });
                Selector::default()
            })
        };
        let nodes = read(Field::NodeSelector, "nodeSelector", &spec.node_selector);
        let services = read(Field::ServiceSelector, "serviceSelector", &spec.service_selector);
        let interfaces = interfaces(spec.interfaces.as_deref().unwrap_or_default());
        let interfaces = interfaces.unwrap_or_else(|fault| {
            faults.push(fault);
            BTreeMap::new()
        });
        Self {
            load_balancer: spec.load_balancer_ips == Some(true),
            external: spec.external_ips == Some(true),
            services,
            nodes,
            interfaces,
            faults,
        }
    }

    /// What is malformed in it; nothing if it is put in force.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether it asks for any kind of address.
    pub fn has_kind(&self) -> bool {
        self.load_balancer || self.external
    }

    /// Expressions for devices, sorted. None are all devices.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &String> {
        self.interfaces.keys()
    }

    /// Whether it is for Services with these labels.
    pub(crate) fn selects(&self, service: &Labels) -> bool {
        self.faults.is_empty() && self.services.matches(service)
    }

    /// Whether it is for nodes with these labels.
    pub(crate) fn selects_node(&self, node: &Labels) -> bool {
        self.faults.is_empty() && self.nodes.matches(node)
    }

    /// Whether any of these devices is one to announce on. As long as none is known, one may be.
    pub(crate) fn has_device(&self, devices: &[String]) -> bool {
        let is_meant = |device: &String| self.interfaces.values().any(|it| it.is_match(device));
        self.interfaces.is_empty() || devices.is_empty() || devices.iter().any(is_meant)
    }
}

fn interfaces(texts: &[String]) -> Result<BTreeMap<String, Regex>, Fault> {
    let compile = |(index, text): (usize, &String)| {
        let fault = |error: regex::Error| Fault {
            field: Field::Interfaces,
            path: format!("spec.interfaces[{index}]"),
            reason: format!("{text:?} is no regular expression: {}", in_one_line(&error)),
        };
        Regex::new(text).map(|regex| (text.clone(), regex)).map_err(fault)
    };
    texts.iter().enumerate().map(compile).collect()
}

/// The library draws an arrow under the text, and says what is wrong in the last line.
fn in_one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
