//! Peers by way of other objects: which they are changes with those objects, without any change of the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_core::{Peers, Requirement, Selector, Source, pod, prefix};
use ipnet::IpNet;

use crate::rules::{PolicyRules, Rule, Section, Traffic};

/// Peers that other objects stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// What is in one of the groups of prefixes with such labels, and in no prefix of `except`.
    Groups {
        /// Asks for labels of groups.
        selector: Selector,
        /// Prefixes that are left out.
        except: Vec<IpNet>,
    },
    /// What Services lead to.
    Services(Services),
}

/// Which Services are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Namespace of the Services; `None` for any.
    pub namespace: Option<String>,
    /// Which of them.
    pub which: Which,
}

/// Which Services of a namespace are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of this name.
    Named(String),
    /// Those with labels that the selector matches.
    Labelled(Selector),
}

/// Where a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// To pods.
    Pods {
        /// Namespace of the Service and its pods.
        namespace: String,
        /// Labels that the pods have.
        labels: BTreeMap<String, String>,
    },
    /// To addresses outside of the cluster.
    Addresses(BTreeSet<IpAddr>),
}

/// The objects that references are about, as far as it takes to resolve them.
pub trait Catalog {
    /// Names of the groups of prefixes that a selector matches.
    fn groups(&self, selector: &Selector) -> Vec<String>;

    /// Where the Services lead that are meant.
    fn services(&self, wanted: &Services) -> Vec<Backends>;

    /// Name of the local cluster.
    fn cluster(&self) -> &str;
}

impl Backends {
    fn selectors(&self, cluster: &str) -> Vec<Selector> {
        match self {
            Self::Pods { namespace, labels } => {
                let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                let implied = [(pod::NAMESPACE, namespace.as_str()), (pod::CLUSTER, cluster)];
                let all = labels.chain(implied);
                vec![all.map(|(key, value)| Requirement::equals(Source::K8S, key, value)).collect()]
            }
            Self::Addresses(addresses) => {
                let within = |address: &IpAddr| Requirement::within(prefix::host(*address));
                addresses.iter().map(|address| [within(address)].into_iter().collect()).collect()
            }
        }
    }
}

impl Reference {
    /// Selectors of the peers that the reference stands for now; none if there is no such object.
    fn selectors(&self, catalog: &impl Catalog) -> Vec<Selector> {
        match self {
            Self::Groups { selector, except } => {
                catalog.groups(selector).iter().map(|name| in_group(name, except)).collect()
            }
            Self::Services(wanted) => {
                let found = catalog.services(wanted);
                found.iter().flat_map(|backends| backends.selectors(catalog.cluster())).collect()
            }
        }
    }
}

/// Selects what is in a group, and in no prefix of `except`.
pub(crate) fn in_group(name: &str, except: &[IpNet]) -> Selector {
    except.iter().copied().map(Requirement::not_within).chain([prefix::in_group(name)]).collect()
}

impl PolicyRules {
    /// Whether the rules mean something else when other objects change.
    pub fn has_references(&self) -> bool {
        self.references().next().is_some()
    }

    /// References in all rules.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.rules.iter().flat_map(Rule::traffic).flat_map(|traffic| &traffic.references)
    }

    /// The same rules with selectors in the place of references, as the other objects are now.
    ///
    /// A reference to what does not exist leaves a rule with fewer peers, never with more: without any it grants nothing.
    #[must_use]
    pub fn resolved(mut self, catalog: &impl Catalog) -> Self {
        for rule in &mut self.rules {
            for section in rule.ingress.iter_mut().chain(&mut rule.egress) {
                section.resolve(catalog);
            }
        }
        self
    }
}

impl Section {
    fn resolve(&mut self, catalog: &impl Catalog) {
        for traffic in self.allow.iter_mut().chain(&mut self.deny) {
            traffic.resolve(catalog);
        }
    }
}

impl Traffic {
    fn resolve(&mut self, catalog: &impl Catalog) {
        let references = std::mem::take(&mut self.references);
        if let Peers::Selected(selectors) = &mut self.peers {
            selectors.extend(references.iter().flat_map(|reference| reference.selectors(catalog)));
            selectors.sort_unstable();
            selectors.dedup();
        }
    }
}
