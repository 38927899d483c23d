//! Addresses of load balancers: what `cilium_lbipam` decides, against what stands in the status of Services and pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::condition::Condition;
use cilium_api::load_balancer_pool::LoadBalancerPoolStatus;
use cilium_api::slim::{LoadBalancerIngress, Service};
use cilium_core::condition;
use cilium_lbipam::{Lbipam, Numbers, Outcome, POOL_OPTIONAL, Pool, SATISFIED};
use cilium_services::ServiceName;

use crate::config::Config;
use crate::ledger::Ledger;
use crate::object::{Kind, ObjectKey};
use crate::output::{self, ServiceStatus, Write};
use crate::planner::Planner;

/// Services of load balancers, and pools.
#[derive(Debug)]
pub(crate) struct LoadBalancers {
    /// `None`: somebody else gives addresses.
    ipam: Option<Lbipam>,
    /// Only of Services that are something to us, or were.
    pub(crate) services: Ledger<Status>,
    pub(crate) pools: Ledger<Vec<Condition>>,
    /// `metadata.generation` of pools, and of Services where they have one.
    generations: BTreeMap<ObjectKey, i64>,
}

/// What a Service's status says, as far as it is ours to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    ingress: Vec<LoadBalancerIngress>,
    conditions: Vec<Condition>,
}

impl Status {
    fn addresses(&self) -> Vec<IpAddr> {
        self.ingress.iter().filter_map(address).collect()
    }
}

fn address(ingress: &LoadBalancerIngress) -> Option<IpAddr> {
    ingress.ip.as_deref()?.parse().ok()
}

impl LoadBalancers {
    pub(crate) fn new(config: &Config) -> Self {
        let ipam = config.lb_ipam.then(|| {
            Lbipam::new(cilium_lbipam::Config {
                ipv4: config.ipv4,
                ipv6: config.ipv6,
                default_class: config.lb_default_class,
                bgp_class: config.lb_bgp_class,
                l2_class: config.lb_l2_class,
            })
        });
        Self { ipam, services: Ledger::default(), pools: Ledger::default(), generations: BTreeMap::new() }
    }

    pub(crate) fn observe_service(&mut self, service: &Service) {
        let Some(ipam) = &mut self.ipam else { return };
        let meta = &service.metadata;
        let key = service_key(&name_of(service));
        let is_load_balancer = service.spec.type_.as_deref() == Some("LoadBalancer");
        let is_marked = service.status.conditions.iter().any(|condition| condition.type_ == SATISFIED);
        if !is_load_balancer && !is_marked && self.services.stored(&key).is_none() {
            return;
        }
        let status = Status {
            ingress: service.status.load_balancer.ingress.clone(),
            conditions: service.status.conditions.clone(),
        };
        if !self.services.observe(&key, status, meta.resource_version.as_deref(), meta.uid.as_deref()) {
            return;
        }
        let is_writing = self.services.is_writing(&key, |it| *it == key);
        if ipam.set_service(service, is_writing) {
            self.set_generation(&key, meta.generation);
        } else {
            self.services.forget(&key);
            self.generations.remove(&key);
        }
    }

    pub(crate) fn forget_service(&mut self, key: &ObjectKey) {
        if let Some(ipam) = &mut self.ipam {
            ipam.remove_service(&ServiceName::new(&key.namespace, &key.name));
            self.services.forget(key);
            self.generations.remove(key);
        }
    }

    pub(crate) fn observe_pool(&mut self, pool: &CiliumLoadBalancerIPPool) {
        let Some(ipam) = &mut self.ipam else { return };
        let meta = &pool.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let key = pool_key(name);
        let status = pool.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        if self.pools.observe(&key, status, meta.resource_version.as_deref(), None) {
            ipam.set_pool(name, Some(Pool::reduce(pool)));
            self.set_generation(&key, meta.generation);
        }
    }

    pub(crate) fn forget_pool(&mut self, key: &ObjectKey) {
        if let Some(ipam) = &mut self.ipam {
            ipam.set_pool(&key.name, None);
            self.pools.forget(key);
            self.generations.remove(key);
        }
    }

    /// Takes note of how the write of a Service's status went. One that failed may have been made all the same, so what was planned
    /// stays planned.
    pub(crate) fn service_written(&mut self, key: &ObjectKey, outcome: output::Outcome) {
        let is_known = outcome != output::Outcome::Failed;
        self.services.written(key, outcome);
        let name = ServiceName::new(&key.namespace, &key.name);
        let Some(ipam) = &mut self.ipam else { return };
        if !ipam.knows(&name) {
            // It went, or is nothing to us any more, while the write was out.
            self.services.forget(key);
        } else if let Some(stored) = self.services.stored(key).filter(|_| is_known) {
            ipam.set_held(&name, stored.addresses());
        }
    }

    /// Warnings for the author of a pool that is about to be stored.
    pub(crate) fn advise(&self, pool: &CiliumLoadBalancerIPPool) -> Vec<String> {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        self.ipam.iter().filter_map(|ipam| ipam.advise(name, Pool::reduce(pool))).collect()
    }

    /// Decides anew where something changed.
    pub(crate) fn follow(&mut self) {
        let Some(ipam) = &mut self.ipam else { return };
        let changes = ipam.plan();
        changes.services.iter().for_each(|name| self.services.touch(service_key(name)));
        changes.pools.iter().for_each(|name| self.pools.touch(pool_key(name)));
    }

    /// `None`: somebody else gives addresses.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        self.ipam.as_ref().map(Lbipam::numbers)
    }

    /// What must hold after every plan, and does not.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) -> Vec<String> {
        self.ipam.as_ref().map(Lbipam::check).unwrap_or_default()
    }

    fn set_generation(&mut self, key: &ObjectKey, generation: Option<i64>) {
        match generation.filter(|generation| *generation != 0) {
            Some(generation) => drop(self.generations.insert(key.clone(), generation)),
            None => drop(self.generations.remove(key)),
        }
    }

    fn write_service(&mut self, key: &ObjectKey, now: i64) -> Option<Write<ServiceStatus>> {
        let stored = self.services.stored(key).cloned();
        let desired = stored.as_ref().map(|stored| self.service_status(key, stored, now));
        let content = desired.clone().zip(stored).map(|(desired, stored)| ServiceStatus {
            resource_version: self.services.precondition(key).resource_version,
            ingress: (desired.ingress != stored.ingress).then_some(desired.ingress),
            conditions: (desired.conditions != stored.conditions).then_some(desired.conditions),
        });
        let action = self.services.decide(key, desired, || content)?;
        Some(Write { key: key.clone(), action })
    }

    fn service_status(&self, key: &ObjectKey, stored: &Status, now: i64) -> Status {
        let name = ServiceName::new(&key.namespace, &key.name);
        let outcome = self.ipam.as_ref().and_then(|ipam| ipam.outcome(&name));
        let Some(outcome) = outcome else { return stored.clone() };
        let ingress = match outcome {
            Outcome::Assigned { addresses, .. } => {
                addresses.iter().map(|address| entry(&stored.ingress, *address)).collect()
            }
            Outcome::Released { keeps_ingress: true } => stored.ingress.clone(),
            Outcome::Released { keeps_ingress: false } => Vec::new(),
        };
        let mut conditions = stored.conditions.clone();
        match outcome.condition() {
            Some(new) => drop(condition::set(&mut conditions, self.of_generation(key, new), now)),
            None => conditions.retain(|condition| condition.type_ != SATISFIED),
        }
        Status { ingress, conditions }
    }

    fn of_generation(&self, key: &ObjectKey, condition: Condition) -> Condition {
        Condition { observed_generation: self.generations.get(key).copied(), ..condition }
    }

    fn write_pool(&mut self, key: &ObjectKey, now: i64) -> Option<Write<LoadBalancerPoolStatus>> {
        let desired = self.pool_status(key, now);
        let content =
            desired.clone().map(|conditions| LoadBalancerPoolStatus { conditions: Some(conditions) });
        let action = self.pools.decide(key, desired, || content)?;
        Some(Write { key: key.clone(), action })
    }

    fn pool_status(&self, key: &ObjectKey, now: i64) -> Option<Vec<Condition>> {
        let wanted = self.ipam.as_ref()?.pool_conditions(&key.name)?;
        let mut conditions = self.pools.stored(key)?.clone();
        let is_over =
            |type_: &str| POOL_OPTIONAL.contains(&type_) && wanted.iter().all(|it| it.type_ != type_);
        conditions.retain(|known| !is_over(&known.type_));
        for new in wanted {
            condition::set(&mut conditions, self.of_generation(key, new), now);
        }
        Some(conditions)
    }
}

impl Planner {
    pub(crate) fn write_load_balancers(&mut self, now: i64) -> Vec<Write<ServiceStatus>> {
        let due = self.load_balancers.services.take_due();
        due.iter().filter_map(|key| self.load_balancers.write_service(key, now)).collect()
    }

    pub(crate) fn report_pools(&mut self, now: i64) -> Vec<Write<LoadBalancerPoolStatus>> {
        let due = self.load_balancers.pools.take_due();
        due.iter().filter_map(|key| self.load_balancers.write_pool(key, now)).collect()
    }
}

/// The entry that is there for an address, or a new one.
fn entry(stored: &[LoadBalancerIngress], wanted: IpAddr) -> LoadBalancerIngress {
    let found = stored.iter().find(|it| address(it) == Some(wanted));
    let new = || LoadBalancerIngress { ip: Some(wanted.to_string()), ..LoadBalancerIngress::default() };
    found.cloned().unwrap_or_else(new)
}

fn service_key(name: &ServiceName) -> ObjectKey {
    ObjectKey::namespaced(Kind::Service, &name.namespace, &name.name)
}

fn pool_key(name: &str) -> ObjectKey {
    ObjectKey::cluster(Kind::LoadBalancerPool, name)
}

fn name_of(service: &Service) -> ServiceName {
    let meta = &service.metadata;
    ServiceName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
