use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::{parts, slim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::build::build;
use crate::redirect::RedirectPort;
use crate::reduce::{Frontend, Readiness, Slice};
use crate::target::{Described, Target};

/// Label of an EndpointSlice that names its Service (Kubernetes API, EndpointSlice).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Label of an EndpointSlice that is for clients which choose themselves, and not for proxies (Kubernetes, "well-known labels").
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceName {
    /// Puts the two together.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Addresses and ports of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Face {
    /// Cluster addresses, in the order of the Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Of its load balancer, and external ones.
    pub others: Vec<IpAddr>,
    /// TCP and UDP ports.
    pub ports: Vec<RedirectPort>,
}

/// What is known under one Service name. Either half may come first.
#[derive(Clone, Debug, Default)]
struct Entry {
    frontend: Option<Frontend>,
    /// Of the Service, as far as there is one.
    described: Option<Described>,
    /// By name of the slice.
    slices: BTreeMap<String, Slice>,
}

/// All Services and EndpointSlices.
#[derive(Clone, Debug, Default)]
pub struct Services {
    entries: BTreeMap<ServiceName, Entry>,
    /// Namespace and name of a slice → name of its Service, to find it again when the label changes or the slice goes.
    owners: BTreeMap<(String, String), String>,
    changed: BTreeSet<ServiceName>,
    /// Services that mean something else to policies.
    changed_targets: BTreeSet<ServiceName>,
}

impl Services {
    /// Takes a Service as it is now.
    pub fn set_service(&mut self, service: &slim::Service) {
        let (namespace, name) = names(&service.metadata);
        let name = ServiceName::new(namespace, name);
        self.put_described(&name, Some(Described::reduce(service)));
        self.put_frontend(name, Frontend::reduce(service));
    }

    /// Takes note that a Service is gone.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let name = ServiceName::new(namespace, name);
        self.put_described(&name, None);
        self.put_frontend(name, None);
    }

    /// Takes an EndpointSlice as it is now.
    pub fn set_slice(&mut self, slice: &slim::EndpointSlice) {
        let (namespace, name) = names(&slice.metadata);
        let labels = slice.metadata.labels.as_ref();
        let is_headless = labels.is_some_and(|labels| labels.contains_key(HEADLESS_LABEL));
        let label = labels.and_then(|labels| labels.get(SERVICE_LABEL)).filter(|_| !is_headless);
        let owner = label.filter(|owner| !owner.is_empty());
        match (owner, Slice::reduce(slice)) {
            (Some(owner), Some(reduced)) => self.put_slice(namespace, name, owner, reduced),
            _ => self.remove_slice(namespace, name),
        }
    }

    /// Takes note that an EndpointSlice is gone.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(owner) = self.owners.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let service = ServiceName { namespace: namespace.to_owned(), name: owner };
        if let Some(entry) = self.entries.get_mut(&service) {
            entry.slices.remove(name);
        }
        self.touch(service);
    }

    /// Services that changed since the last call, in order.
    pub fn take_changed(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.changed)
    }

    /// Services that mean something else to policies since the last call, in order.
    pub fn take_changed_targets(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.changed_targets)
    }

    /// All Services that exist, in order, of any type.
    pub fn described(&self) -> impl Iterator<Item = (&ServiceName, &Described)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.described.as_ref()?)))
    }

    /// A Service that exists, of any type.
    pub fn describe(&self, service: &ServiceName) -> Option<&Described> {
        self.entries.get(service)?.described.as_ref()
    }

    /// Where a Service leads; `None` if there is no such Service.
    pub fn target(&self, service: &ServiceName) -> Option<Target<'_>> {
        let described = self.describe(service)?;
        Some(match &described.selector {
            Some(labels) => Target::Pods(labels),
            None => Target::Addresses(self.backend_addresses(service)),
        })
    }

    /// The part of a Service; `None` if it is gone, headless, an ExternalName or another proxy's.
    pub fn part(&self, service: &ServiceName) -> Option<parts::Service> {
        let entry = self.entries.get(service)?;
        Some(build(entry.frontend.as_ref()?, &entry.slices))
    }

    /// What cannot be read of a Service, a sentence each.
    pub fn complaints(&self, service: &ServiceName) -> &[String] {
        let frontend = self.entries.get(service).and_then(|entry| entry.frontend.as_ref());
        frontend.map_or(&[], |frontend| &frontend.complaints)
    }

    /// What of a Service can be redirected, or stands in the way of redirecting an address; `None` as for [`Services::part`].
    pub fn face(&self, service: &ServiceName) -> Option<Face> {
        let frontend = self.entries.get(service)?.frontend.as_ref()?;
        let ports = frontend.ports.iter().map(|it| &it.port);
        Some(Face {
            cluster_ips: frontend.cluster_ips.clone(),
            others: frontend.load_balancer.iter().chain(&frontend.external).copied().collect(),
            ports: ports.filter_map(|it| RedirectPort::of_service(&it.name, it.protocol, it.port)).collect(),
        })
    }

    /// Addresses of all backends that take connections, whatever the port, also if there is no Service of that name.
    pub fn backend_addresses(&self, service: &ServiceName) -> BTreeSet<IpAddr> {
        let slices = self.entries.get(service).into_iter().flat_map(|entry| entry.slices.values());
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        endpoints.filter(|it| it.readiness != Readiness::NotReady).map(|it| it.address).collect()
    }

    fn put_described(&mut self, service: &ServiceName, described: Option<Described>) {
        if self.describe(service) != described.as_ref() {
            self.entries.entry(service.clone()).or_default().described = described;
            self.changed_targets.insert(service.clone());
            self.drop_empty(service);
        }
    }

    fn put_frontend(&mut self, service: ServiceName, frontend: Option<Frontend>) {
        let known = self.entries.get(&service).and_then(|entry| entry.frontend.as_ref());
        if known == frontend.as_ref() {
            return;
        }
        self.entries.entry(service.clone()).or_default().frontend = frontend;
        self.touch(service);
    }

    fn put_slice(&mut self, namespace: &str, name: &str, owner: &str, slice: Slice) {
        let key = (namespace.to_owned(), name.to_owned());
        if self.owners.get(&key).is_some_and(|known| known != owner) {
            self.remove_slice(namespace, name);
        }
        let service = ServiceName::new(namespace, owner);
        let slices = &mut self.entries.entry(service.clone()).or_default().slices;
        if slices.get(name) == Some(&slice) {
            return;
        }
        slices.insert(name.to_owned(), slice);
        self.owners.insert(key, owner.to_owned());
        self.touch(service);
    }

    fn touch(&mut self, service: ServiceName) {
        if self.describe(&service).is_some_and(|described| described.selector.is_none()) {
            self.changed_targets.insert(service.clone());
        }
        self.drop_empty(&service);
        self.changed.insert(service);
    }

    fn drop_empty(&mut self, service: &ServiceName) {
        let is_empty =
            |entry: &Entry| entry.frontend.is_none() && entry.described.is_none() && entry.slices.is_empty();
        if self.entries.get(service).is_some_and(is_empty) {
            self.entries.remove(service);
        }
    }
}

fn names(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}
