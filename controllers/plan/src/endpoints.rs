//! From pods to endpoints: identity, addresses, parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use cilium_api::parts::{self, HostPort, Part, PartKey};
use cilium_core::{Labels, pod};
use cilium_ipam::{Ipam, Lease, Record};

use crate::config::Config;
use crate::names::PodName;
use crate::node::Token;
use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;
use crate::pod::Pod;

/// All endpoints, and what they hold.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) all: BTreeMap<PodName, Endpoint>,
    pub(crate) ipam: Ipam,
    /// Addresses of published endpoints.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Pods to look at in the next plan.
    pub(crate) dirty: BTreeSet<PodName>,
    /// Endpoints that lack something for which there was no room.
    waiting: BTreeSet<PodName>,
}

impl Endpoints {
    pub(crate) fn new(config: &Config) -> Self {
        let ipam = if config.pod_pools { Ipam::with_pools() } else { Ipam::default() };
        Self {
            all: BTreeMap::new(),
            ipam,
            addresses: BTreeSet::new(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }
}

/// The endpoint of a pod, from when the pod is bound until it is gone.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) uid: String,
    pub(crate) node: String,
    host_ports: Vec<HostPort>,
    /// Identity on record from before a restart, until it was asked for.
    pub(crate) before: Option<u32>,
    pub(crate) identity: Option<u32>,
    pub(crate) lease: Option<Lease>,
    /// The identity under which nodes know the endpoint.
    pub(crate) published: Option<u32>,
    /// What users were told last.
    trouble: Option<String>,
}

impl Endpoint {
    pub(crate) fn new(pod: &Pod) -> Self {
        Self {
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            host_ports: pod.host_ports.clone(),
            before: None,
            identity: None,
            lease: None,
            published: None,
            trouble: None,
        }
    }

    /// Whether it was planned for this pod, and not for an earlier one of the same name.
    fn is_of(&self, pod: &Pod) -> bool {
        (&self.uid, &self.node) == (&pod.uid, &pod.node)
    }

    /// Addresses of the lease.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.lease.into_iter().flat_map(|lease| lease.addresses())
    }

    fn part(&self, identity: u32) -> Option<Part> {
        let Lease { id, ipv4, ipv6 } = self.lease?;
        let (uid, host_ports) = (self.uid.clone(), self.host_ports.clone());
        Some(Part::Endpoint(parts::Endpoint { uid, id, identity, ipv4, ipv6, host_ports }))
    }
}

/// Where there is room again.
#[derive(Debug)]
pub(crate) enum Room<'a> {
    /// There are free identities.
    ForIdentities,
    /// A pod of this node is gone.
    On(&'a str),
    /// Pools changed.
    InPools,
}

/// Key of a pod among Kubernetes' objects.
fn pod_key(name: &PodName) -> ObjectKey {
    ObjectKey::namespaced(Kind::Pod, &name.namespace, &name.name)
}

/// Key of the CiliumEndpoint of a pod.
pub(crate) fn endpoint_key(name: &PodName) -> ObjectKey {
    ObjectKey::namespaced(Kind::Endpoint, &name.namespace, &name.name)
}

impl Planner {
    /// Makes endpoints follow the pods that changed.
    pub(crate) fn follow_pods(&mut self, now: i64) {
        for name in self.endpoints.dirty.clone() {
            let endpoint = self.endpoints.all.get(&name);
            if endpoint.is_some_and(|endpoint| !self.pods.get(&name).is_some_and(|pod| endpoint.is_of(pod))) {
                self.retire(&name, now);
            }
        }
        let dirty = std::mem::take(&mut self.endpoints.dirty);
        // Pods that have something already ask first: what is new must not be what such a pod has.
        let on_record = |name: &&PodName| {
            let recorded = self.endpoints.all.get(name).is_some_and(|endpoint| endpoint.before.is_some());
            recorded || self.pods.get(name).is_some_and(|pod| !pod.addresses.is_empty())
        };
        let (first, then): (Vec<_>, Vec<_>) = dirty.iter().partition(on_record);
        for name in first.into_iter().chain(then) {
            self.refresh(name, now);
        }
    }

    /// Takes everything back that an endpoint has.
    fn retire(&mut self, name: &PodName, now: i64) {
        self.unpublish(name);
        let Some(endpoint) = self.endpoints.all.remove(name) else { return };
        if let Some(lease) = endpoint.lease {
            self.endpoints.ipam.release(&endpoint.node, &lease);
            self.retry_waiting(&Room::On(&endpoint.node));
        }
        if let Some(number) = endpoint.identity {
            self.release_identity(number, now);
        }
        let node = self.node_mut(&endpoint.node);
        node.pods.remove(name);
        node.state.drop_token(&Token::Pod(name.clone()));
        self.endpoints.waiting.remove(name);
        self.reports.endpoints.touch(endpoint_key(name));
    }

    /// There is room again.
    pub(crate) fn retry_waiting(&mut self, room: &Room<'_>) {
        let Endpoints { all, dirty, waiting, ipam, .. } = &mut self.endpoints;
        let concerned = |name: &&PodName| {
            let endpoint = all.get(*name);
            endpoint.is_some_and(|e| match room {
                Room::ForIdentities => e.identity.is_none(),
                // What one node gives back of a pool is for all of them.
                Room::On(node) => e.lease.is_none() && (e.node == *node || ipam.has_pools()),
                Room::InPools => e.lease.is_none(),
            })
        };
        dirty.extend(waiting.iter().filter(concerned).cloned());
    }

    fn refresh(&mut self, name: &PodName, now: i64) {
        let Some(pod) = self.pods.get(name) else { return };
        let (node, new) = (pod.node.clone(), Endpoint::new(pod));
        self.endpoints.all.entry(name.clone()).or_insert(new);
        self.node_mut(&node).pods.insert(name.clone());
        self.reports.endpoints.touch(endpoint_key(name));
        let identity = self.resolve_identity(name, now);
        let lease = self.resolve_lease(name);
        let trouble = [identity, lease].into_iter().find_map(Result::err).flatten();
        self.tell_trouble(name, trouble);
        self.publish(name);
    }

    /// Labels of a pod's identity; `None` while its namespace is not known.
    fn labels_of(&self, name: &PodName, pod: &Pod) -> Option<Labels> {
        let facts = pod::Pod {
            namespace: &name.namespace,
            labels: &pod.labels,
            namespace_labels: self.namespaces.get(&name.namespace)?,
            service_account: &pod.service_account,
            cluster: &self.config.cluster,
            named_ports: &pod.ports(),
        };
        Some(pod::identity_labels(&facts, &self.config.labels))
    }

    /// # Errors
    /// What to tell users, if there is anything that they can do.
    fn resolve_identity(&mut self, name: &PodName, now: i64) -> Result<(), Option<String>> {
        let labels = self.pods.get(name).and_then(|pod| self.labels_of(name, pod));
        let Some(endpoint) = self.endpoints.all.get_mut(name) else { return Ok(()) };
        let (current, before) = (endpoint.identity, endpoint.before.take());
        if current.is_some() && current.and_then(|number| self.identities.labels(number)) == labels.as_ref() {
            return Ok(());
        }
        let next = labels.as_ref().map(|labels| self.acquire_identity(labels, before, now)).transpose();
        if let Some(number) = current {
            self.release_identity(number, now);
        }
        let (identity, result) = match next {
            Ok(identity) => (identity, Ok(())),
            Err(error) => (None, Err(Some(error.to_string()))),
        };
        if let Some(endpoint) = self.endpoints.all.get_mut(name) {
            endpoint.identity = identity;
        }
        result
    }

    /// # Errors
    /// What to tell users, if there is anything that they can do.
    fn resolve_lease(&mut self, name: &PodName) -> Result<(), Option<String>> {
        let choice = self.pools_of(name);
        let (Some(pod), Some(endpoint)) = (self.pods.get(name), self.endpoints.all.get_mut(name)) else {
            return Ok(());
        };
        if endpoint.lease.is_some() {
            return Ok(());
        }
        let ipam = &mut self.endpoints.ipam;
        // A pod that is connected already keeps what it has.
        let running = reported(ipam, pod).and_then(|record| ipam.restore(&pod.node, &record).ok());
        let new = |ipam: &mut Ipam| match &choice {
            Some(choice) => ipam.allocate_from(&pod.node, choice),
            None => ipam.allocate(&pod.node),
        };
        match running.map_or_else(|| new(ipam), Ok) {
            Ok(lease) => {
                endpoint.lease = Some(lease);
                Ok(())
            }
            // A node that is not known yet may only be late.
            Err(error) => {
                let is_node_known = self.nodes.get(&pod.node).is_some_and(|node| node.object.is_some());
                Err(is_node_known.then(|| error.to_string()))
            }
        }
    }

    fn tell_trouble(&mut self, name: &PodName, trouble: Option<String>) {
        let Some(endpoint) = self.endpoints.all.get_mut(name) else { return };
        if endpoint.lease.is_some() && endpoint.identity.is_some() {
            self.endpoints.waiting.remove(name);
        } else {
            self.endpoints.waiting.insert(name.clone());
        }
        if endpoint.trouble != trouble {
            endpoint.trouble.clone_from(&trouble);
            let uid = endpoint.uid.clone();
            if let Some(text) = trouble {
                self.warn(pod_key(name), Some(&uid), "NetworkNotPlanned", &text);
            }
        }
    }

    /// Tells nodes of an endpoint that is complete, or of its new identity.
    fn publish(&mut self, name: &PodName) {
        let Some(endpoint) = self.endpoints.all.get(name) else { return };
        let identity = endpoint.identity.filter(|_| endpoint.lease.is_some());
        if identity == endpoint.published {
            return;
        }
        self.unpublish(name);
        self.touch_redirects_of(name);
        let Some((identity, endpoint)) = identity.zip(self.endpoints.all.get_mut(name)) else { return };
        endpoint.published = Some(identity);
        let (part, node) = (endpoint.part(identity), endpoint.node.clone());
        for address in endpoint.addresses() {
            let part = Part::Address(parts::Address { identity, node: Some(node.clone()) });
            self.shared.set(&PartKey::address(address), Some(&part));
            self.endpoints.addresses.insert(address);
            self.api_server.address_changed(address);
        }
        let state = &mut self.node_mut(&node).state;
        state.set(&PartKey::endpoint(&name.namespace, &name.name), part.as_ref());
        state.await_token(Token::Pod(name.clone()));
        self.join(identity, &node);
    }

    fn unpublish(&mut self, name: &PodName) {
        let Some(endpoint) = self.endpoints.all.get_mut(name) else { return };
        let Some(identity) = endpoint.published.take() else { return };
        let node = endpoint.node.clone();
        self.touch_redirects_of(name);
        let Some(endpoint) = self.endpoints.all.get(name) else { return };
        for address in endpoint.addresses() {
            self.shared.set(&PartKey::address(address), None);
            self.endpoints.addresses.remove(&address);
            self.api_server.address_changed(address);
        }
        self.node_mut(&node).state.set(&PartKey::endpoint(&name.namespace, &name.name), None);
        self.leave(identity, &node);
    }

    /// Pods of a namespace are to be looked at: its labels changed.
    pub(crate) fn dirty_namespace(&mut self, namespace: &str) {
        let first = PodName::new(namespace, "");
        let pods = self.pods.range(first..).take_while(|(name, _)| name.namespace == namespace);
        self.endpoints.dirty.extend(pods.map(|(name, _)| name.clone()));
    }

    /// Adds an event for users.
    pub(crate) fn warn(
        &mut self,
        regarding: ObjectKey,
        uid: Option<&str>,
        reason: &'static str,
        note: &impl fmt::Display,
    ) {
        let uid = uid.unwrap_or_default().to_owned();
        let note = note.to_string();
        self.events.push(crate::output::Event { regarding, uid, type_: "Warning", reason, note });
    }
}

/// What the kubelet says that a pod has, if the node may have given it.
pub(crate) fn reported(ipam: &Ipam, pod: &Pod) -> Option<Record> {
    let mut record = Record::default();
    for address in &pod.addresses {
        match address {
            IpAddr::V4(it) => record.ipv4 = Some(*it),
            IpAddr::V6(it) => record.ipv6 = Some(*it),
        }
    }
    let mut addresses = record.addresses().peekable();
    addresses.peek()?;
    addresses.all(|address| ipam.is_pod_address(&pod.node, address)).then_some(record)
}
