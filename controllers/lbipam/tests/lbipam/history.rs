//! Random histories of pools and Services, against a small model of what is allowed.

use std::collections::{BTreeMap, BTreeSet};

use cilium_lbipam::FIELD_MANAGER;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, give, mk_pool, mk_service};

const APPS: [&str; 2] = ["web", "db"];
const KEYS: [&str; 3] = ["", "k", "l"];

/// A pool of 10.0.0.`first` to 10.0.0.`last`.
#[derive(Clone, Debug)]
struct PoolModel {
    first: u8,
    last: u8,
    disabled: bool,
    /// Only for Services of this app.
    app: Option<usize>,
    at: u32,
}

#[derive(Clone, Debug)]
struct ServiceModel {
    app: usize,
    key: usize,
    port: u16,
    /// Last byte of the address that it asks for.
    request: Option<u8>,
    /// It asks for something else, too, that is no address.
    slips: bool,
    is_cluster_ip: bool,
    /// Shares with other namespaces.
    shares: bool,
    at: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Pool(usize, Option<PoolModel>),
    Service(usize, Option<ServiceModel>),
    /// Another controller writes an address.
    Other(usize, u8),
}

impl Step {
    fn object(&self) -> (bool, usize) {
        match self {
            Self::Pool(index, _) => (true, *index),
            Self::Service(index, _) | Self::Other(index, _) => (false, *index),
        }
    }
}

fn pool() -> impl Strategy<Value = PoolModel> {
    let app = prop_oneof![3 => Just(None), 1 => (0..APPS.len()).prop_map(Some)];
    (0..12u8, 0..6u8, prop::bool::weighted(0.2), app, 0..3u32).prop_map(|(first, more, disabled, app, at)| {
        PoolModel { first, last: first + more, disabled, app, at }
    })
}

fn service() -> impl Strategy<Value = ServiceModel> {
    let request = prop_oneof![3 => Just(None), 1 => (0..18u8).prop_map(Some)];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.5), prop::bool::weighted(0.1));
    (0..APPS.len(), 0..KEYS.len(), 80..83u16, request, flags, 0..3u32).prop_map(
        |(app, key, port, request, (is_cluster_ip, shares, slips), at)| ServiceModel {
            app,
            key,
            port,
            request,
            slips,
            is_cluster_ip,
            shares,
            at,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3usize, prop::option::weighted(0.8, pool())).prop_map(|(index, pool)| Step::Pool(index, pool)),
        6 => (0..8usize, prop::option::weighted(0.8, service())).prop_map(|(index, it)| Step::Service(index, it)),
        1 => (0..8usize, 0..18u8).prop_map(|(index, address)| Step::Other(index, address)),
    ]
}

/// Objects of the model, and the world that has the same.
#[derive(Clone)]
struct Both {
    pools: BTreeMap<usize, PoolModel>,
    services: BTreeMap<usize, ServiceModel>,
    world: World,
}

fn name(index: usize) -> String {
    format!("{}/{index}", ["a", "b"][index % 2])
}

fn address(last: u8) -> String {
    format!("10.0.0.{last}")
}

impl Both {
    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::Pool(index, Some(pool)) => {
                let selector = pool.app.map_or(json!({}), |app| json!({"matchLabels": {"app": APPS[app]}}));
                let blocks = json!([{"start": address(pool.first), "stop": address(pool.last)}]);
                let spec = json!({"serviceSelector": selector, "blocks": blocks, "disabled": pool.disabled});
                self.world.put_pool(mk_pool(&index.to_string(), pool.at, spec));
                self.pools.insert(index, pool);
            }
            Step::Pool(index, None) => {
                self.pools.remove(&index);
                self.world.delete_pool(&index.to_string());
            }
            Step::Service(index, Some(service)) => self.put_service(index, service),
            Step::Service(index, None) => {
                self.services.remove(&index);
                self.world.delete(&name(index));
            }
            Step::Other(index, last) => {
                if let Some(mut service) = self.world.services.get(&name(index)).cloned() {
                    give(&mut service, "other", &[&address(last)]);
                    self.world.put_whole(service);
                }
            }
        }
    }

    fn put_service(&mut self, index: usize, service: ServiceModel) {
        let mut annotations = json!({"lbipam.cilium.io/sharing-key": KEYS[service.key]});
        let slip = service.slips.then(|| "10.0.0.x".to_owned());
        let requests: Vec<String> = service.request.map(address).into_iter().chain(slip).collect();
        annotations["lbipam.cilium.io/ips"] = json!(requests.join(","));
        if service.shares {
            annotations["lbipam.cilium.io/sharing-cross-namespace"] = json!("*");
        }
        let type_ = if service.is_cluster_ip { "ClusterIP" } else { "LoadBalancer" };
        let rest = json!({
            "annotations": annotations, "labels": {"app": APPS[service.app]}, "type": type_,
            "ports": [{"port": service.port}],
        });
        self.world.put(mk_service(&name(index), service.at, rest));
        self.services.insert(index, service);
    }

    fn is_ours(&self, index: usize) -> bool {
        let fields = self.world.services[&name(index)].metadata.managed_fields.clone().unwrap_or_default();
        let is_foreign = fields.iter().any(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
            && !self.world.addresses(&name(index)).is_empty();
        !self.services[&index].is_cluster_ip && !is_foreign
    }

    /// Pools that may leave an address to a Service, or give it.
    fn pools_for(&self, service: &ServiceModel, last: u8) -> impl Iterator<Item = &PoolModel> {
        let app = service.app;
        let has = move |pool: &&PoolModel| (pool.first..=pool.last).contains(&last);
        self.pools.values().filter(has).filter(move |pool| pool.app.is_none_or(|only| only == app))
    }

    /// Last bytes of the addresses of a Service.
    fn held(&self, index: usize) -> Vec<u8> {
        let addresses = self.world.addresses(&name(index));
        addresses.iter().map(|text| text.rsplit('.').next().unwrap().parse().unwrap()).collect()
    }

    fn all_held(&self) -> BTreeMap<usize, Vec<u8>> {
        self.services.keys().map(|index| (*index, self.held(*index))).collect()
    }

    fn is_conflicting(&self, index: usize) -> bool {
        let pool = &self.pools[&index];
        self.pools.iter().any(|(other, it)| {
            (it.at, *other) < (pool.at, index) && it.first <= pool.last && pool.first <= it.last
        })
    }

    /// Nobody has what it may not have, and nobody lacks what there is.
    fn check(&self) {
        let held = self.all_held();
        for (index, service) in self.services.iter().filter(|(index, _)| self.is_ours(**index)) {
            for last in &held[index] {
                let is_idle = self.pools.is_empty() && self.world.reason(&name(*index)) == "none";
                assert!(is_idle || self.pools_for(service, *last).next().is_some(), "{index} has {last}");
                assert!(
                    service.slips || service.request.is_none_or(|request| request == *last),
                    "{index} has {last}"
                );
                let others =
                    self.services.iter().filter(|(other, _)| *other > index && self.is_ours(**other));
                for (other, it) in others.filter(|(other, _)| held[other].contains(last)) {
                    let permitted = index % 2 == other % 2 || service.shares && it.shares;
                    let may =
                        permitted && service.key == it.key && service.key != 0 && service.port != it.port;
                    assert!(may, "{index} and {other} have {last}");
                }
            }
            if held[index].is_empty() && service.request.is_none() && !service.slips {
                self.check_exhausted(service, &held);
            }
        }
    }

    fn check_exhausted(&self, service: &ServiceModel, held: &BTreeMap<usize, Vec<u8>>) {
        let used: BTreeSet<u8> = held.values().flatten().copied().collect();
        for (index, pool) in &self.pools {
            let is_open = !pool.disabled && !self.is_conflicting(*index);
            if is_open && pool.app.is_none_or(|app| app == service.app) {
                assert!(
                    (pool.first..=pool.last).all(|last| used.contains(&last)),
                    "{index} has room for {service:?}"
                );
            }
        }
    }

    /// Who was not touched, and may keep what it had, does.
    fn check_unmoved(&self, before: &BTreeMap<usize, Vec<u8>>, touched: &BTreeSet<(bool, usize)>) {
        for (index, service) in &self.services {
            let was = before.get(index).cloned().unwrap_or_default();
            if touched.contains(&(false, *index)) || !self.is_ours(*index) {
                continue;
            }
            for last in was {
                let may_stay = self.pools_for(service, last).next().is_some();
                assert!(!may_stay || self.held(*index).contains(&last), "{index} lost {last} without cause");
            }
        }
    }

    fn statuses(&self) -> Vec<(Vec<u8>, String)> {
        self.services.keys().map(|index| (self.held(*index), self.world.reason(&name(*index)))).collect()
    }
}

/// The last step of each object: what is reordered are events of different ones.
fn distinct(steps: &[Step]) -> Vec<Step> {
    let last: BTreeMap<_, _> = steps.iter().map(|step| (step.object(), step.clone())).collect();
    last.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_what_is_promised(batches in vec(vec(step(), 1..5), 1..25)) {
        let mut both = Both { pools: BTreeMap::new(), services: BTreeMap::new(), world: World::new() };
        for batch in &batches {
            let batch = distinct(batch);
            let before = both.all_held();
            let mut reversed = both.clone();
            batch.iter().for_each(|step| both.apply(step));
            batch.iter().rev().for_each(|step| reversed.apply(step));
            both.world.plan();
            reversed.world.plan();
            prop_assert_eq!(both.statuses(), reversed.statuses(), "the order of events left a trace");
            both.check();
            both.check_unmoved(&before, &batch.iter().map(Step::object).collect());
            let restarted = Both { world: both.world.restarted(), ..both.clone() };
            prop_assert_eq!(both.statuses(), restarted.statuses(), "a restart changed something");
        }
    }
}
