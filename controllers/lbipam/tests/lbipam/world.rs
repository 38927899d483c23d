//! Objects as the API server has them, and a planner that is told of them.

use std::collections::BTreeMap;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::condition::Condition;
use cilium_api::slim::Service;
use cilium_lbipam::{Config, FIELD_MANAGER, Lbipam, Outcome, Pool, SATISFIED};
use cilium_services::ServiceName;
use serde_json::{Value, json};

pub(crate) const CONFIG: Config =
    Config { ipv4: true, ipv6: true, default_class: true, bgp_class: false, l2_class: true };

/// RFC 3339 of so many seconds.
fn time(seconds: u32) -> String {
    format!("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A pool that was made at a time, in seconds.
pub(crate) fn mk_pool(name: &str, at: u32, spec: Value) -> CiliumLoadBalancerIPPool {
    let meta = json!({"name": name, "creationTimestamp": time(at)});
    serde_json::from_value(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": meta, "spec": spec,
    }))
    .unwrap()
}

/// A pool of one prefix for all Services.
pub(crate) fn mk_cidr(name: &str, at: u32, cidr: &str) -> CiliumLoadBalancerIPPool {
    mk_pool(name, at, json!({"blocks": [{"cidr": cidr}]}))
}

/// A Service `namespace/name` of type LoadBalancer with port 80 that was made at a time. `rest` are more fields of its spec, and
/// `annotations` and `labels`.
pub(crate) fn mk_service(name: &str, at: u32, mut rest: Value) -> Service {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut take =
        |field: &str| rest.as_object_mut().and_then(|rest| rest.remove(field)).unwrap_or(json!({}));
    let (annotations, labels) = (take("annotations"), take("labels"));
    let mut spec = json!({
        "type": "LoadBalancer", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
        "ports": [{"port": 80, "protocol": "TCP"}],
    });
    for (field, value) in rest.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name, "creationTimestamp": time(at), "annotations": annotations, "labels": labels,
        },
        "spec": spec,
    }))
    .unwrap()
}

/// Annotations that request addresses.
pub(crate) fn mk_request(addresses: &str) -> Value {
    json!({"annotations": {"lbipam.cilium.io/ips": addresses}})
}

/// Puts addresses into the status, as `manager` does. Ours also sets the condition.
pub(crate) fn give(service: &mut Service, manager: &str, addresses: &[&str]) {
    let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    service.status.load_balancer = serde_json::from_value(json!({"ingress": ingress})).unwrap();
    let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let entry =
        json!([{"manager": manager, "operation": "Update", "subresource": "status", "fieldsV1": fields}]);
    service.metadata.managed_fields = serde_json::from_value(entry).unwrap();
    if manager == FIELD_MANAGER {
        mark(service);
    }
}

/// The condition of ours, whatever it says.
pub(crate) fn mark(service: &mut Service) {
    service.status.conditions.retain(|condition| condition.type_ != SATISFIED);
    let condition = Condition { type_: SATISFIED.into(), status: "True".into(), ..Condition::default() };
    service.status.conditions.push(condition);
}

/// What the API server has, with a planner.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) pools: BTreeMap<String, CiliumLoadBalancerIPPool>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) lbipam: Lbipam,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { pools: BTreeMap::new(), services: BTreeMap::new(), lbipam: Lbipam::new(CONFIG) }
    }

    pub(crate) fn on(pools: impl IntoIterator<Item = CiliumLoadBalancerIPPool>) -> Self {
        let mut world = Self::new();
        pools.into_iter().for_each(|pool| world.put_pool(pool));
        world
    }

    pub(crate) fn put_pool(&mut self, pool: CiliumLoadBalancerIPPool) {
        let name = pool.metadata.name.clone().unwrap();
        self.lbipam.set_pool(&name, Some(Pool::reduce(&pool)));
        self.pools.insert(name, pool);
    }

    pub(crate) fn delete_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.lbipam.set_pool(name, None);
    }

    /// Creates a Service, or edits all of it but its status.
    pub(crate) fn put(&mut self, mut service: Service) {
        let meta = &service.metadata;
        let name = format!("{}/{}", meta.namespace.as_deref().unwrap(), meta.name.as_deref().unwrap());
        if let Some(known) = self.services.get(&name) {
            service.status.clone_from(&known.status);
            service.metadata.managed_fields.clone_from(&known.metadata.managed_fields);
            service.metadata.creation_timestamp.clone_from(&known.metadata.creation_timestamp);
        }
        self.lbipam.set_service(&service, false);
        self.services.insert(name, service);
    }

    /// A Service with a status.
    pub(crate) fn put_whole(&mut self, service: Service) {
        let meta = &service.metadata;
        let name = format!("{}/{}", meta.namespace.as_deref().unwrap(), meta.name.as_deref().unwrap());
        self.lbipam.set_service(&service, false);
        self.services.insert(name, service);
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.services.remove(name);
        self.lbipam.remove_service(&key(name));
    }

    /// Plans, checks what must hold, and brings every status to what was planned. Returns the names of the Services that changed.
    pub(crate) fn plan(&mut self) -> Vec<String> {
        let changes = self.lbipam.plan();
        assert_eq!(self.lbipam.check(), Vec::<String>::new());
        let names: Vec<String> =
            changes.services.iter().map(|name| format!("{}/{}", name.namespace, name.name)).collect();
        for name in self.services.keys().cloned().collect::<Vec<_>>() {
            self.write(&name);
        }
        assert_eq!(self.lbipam.plan().services, [], "what is written back changes nothing");
        names
    }

    fn write(&mut self, name: &str) {
        let service = self.services.get_mut(name).unwrap();
        match self.lbipam.outcome(&key(name)) {
            None => return,
            Some(Outcome::Assigned { addresses, .. }) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                give(service, FIELD_MANAGER, &texts.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Some(Outcome::Released { keeps_ingress }) => {
                service.status.conditions.retain(|condition| condition.type_ != SATISFIED);
                if !keeps_ingress {
                    service.status.load_balancer.ingress.clear();
                }
            }
        }
        let service = service.clone();
        self.lbipam.set_service(&service, false);
    }

    /// An operator that has just been started on these objects, after its first plan.
    pub(crate) fn restarted(&self) -> Self {
        let mut fresh = Self::new();
        self.pools.values().rev().cloned().for_each(|pool| fresh.put_pool(pool));
        self.services.values().rev().cloned().for_each(|service| fresh.put_whole(service));
        fresh.plan();
        fresh
    }

    /// Addresses in the status.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = &self.services[name].status.load_balancer.ingress;
        ingress.iter().map(|it| it.ip.clone().unwrap()).collect()
    }

    /// Reason and message of the condition of ours.
    pub(crate) fn reason(&self, name: &str) -> String {
        let condition = self.lbipam.outcome(&key(name)).and_then(Outcome::condition);
        condition.map_or_else(|| "none".to_owned(), |it| text(&it))
    }

    /// The conditions of a pool, without their common prefix.
    pub(crate) fn conditions(&self, pool: &str) -> Vec<String> {
        let conditions = self.lbipam.pool_conditions(pool).unwrap();
        let short = |it: &Condition| it.type_.trim_start_matches("cilium.io/").to_owned();
        conditions.iter().map(|it| format!("{} {}", short(it), text(it))).collect()
    }

    /// Total, available, used, conflicting.
    pub(crate) fn counts(&self, pool: &str) -> String {
        let conditions = self.lbipam.pool_conditions(pool).unwrap();
        let numbers = conditions.iter().filter(|it| it.status == "Unknown");
        numbers.map(|it| it.message.clone().unwrap()).collect::<Vec<_>>().join(" ")
    }
}

fn text(condition: &Condition) -> String {
    let (reason, message) = (condition.reason.as_deref().unwrap(), condition.message.as_deref().unwrap());
    format!("{} {reason}: {message}", condition.status).trim_end_matches([':', ' ']).to_owned()
}

fn key(name: &str) -> ServiceName {
    let (namespace, name) = name.split_once('/').unwrap();
    ServiceName::new(namespace, name)
}
