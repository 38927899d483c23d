//! BGP: what `cilium_bgp_plan` decides, as parts of nodes and of the cluster, as CiliumBGPNodeConfigs, and as conditions for authors.

use std::collections::BTreeMap;

use cilium_api::bgp_cluster_config::BgpStatus;
use cilium_api::bgp_node_config::BgpNodeConfigSpec;
use cilium_api::condition::Condition;
use cilium_api::parts::{self, Part, PartKey};
use cilium_api::slim;
use cilium_api::{
    CiliumBGPAdvertisement, CiliumBGPClusterConfig, CiliumBGPNodeConfig, CiliumBGPNodeConfigOverride,
    CiliumBGPPeerConfig,
};
use cilium_bgp_plan::{
    Advertisement, Bgp, CONDITIONS, Claim, ClusterConfig, NodeConfig, Override, PeerConfig, Served,
};
use cilium_core::{Label, Labels, condition};
use cilium_services::ServiceName;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::config::Config;
use crate::ledger::Ledger;
use crate::object::{Kind, ObjectKey};
use crate::output::Write;
use crate::planner::Planner;

/// What of a CiliumBGPNodeConfig is compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Print {
    /// UID of the CiliumBGPClusterConfig that owns it; empty for an object that is not ours.
    owner: String,
    spec: BgpNodeConfigSpec,
}

/// Routers of nodes, and what they make known.
#[derive(Debug)]
pub(crate) struct Routing {
    /// `None`: the feature is off.
    bgp: Option<Bgp>,
    /// Pods have addresses of pools, and not of their nodes' prefixes.
    pod_pools: bool,
    /// Of CiliumBGPClusterConfigs and CiliumBGPPeerConfigs.
    pub(crate) statuses: Ledger<BgpStatus>,
    pub(crate) node_configs: Ledger<Print>,
    /// `metadata.generation` of objects with a status, where they have one.
    generations: BTreeMap<ObjectKey, i64>,
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

impl Routing {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bgp: config.bgp.map(Bgp::new),
            pod_pools: config.pod_pools,
            statuses: Ledger::default(),
            node_configs: Ledger::default(),
            generations: BTreeMap::new(),
        }
    }

    pub(crate) fn observe_cluster(&mut self, object: &CiliumBGPClusterConfig) {
        if self.observe_status(Kind::BgpClusterConfig, &object.metadata, object.status.as_ref())
            && let Some(bgp) = &mut self.bgp
        {
            bgp.set_cluster(name_of(&object.metadata), Some(ClusterConfig::reduce(object)));
        }
    }

    pub(crate) fn observe_peer(&mut self, object: &CiliumBGPPeerConfig) {
        if self.observe_status(Kind::BgpPeerConfig, &object.metadata, object.status.as_ref())
            && let Some(bgp) = &mut self.bgp
        {
            bgp.set_peer(name_of(&object.metadata), Some(PeerConfig::reduce(object)));
        }
    }

    /// Whether it is news.
    fn observe_status(&mut self, kind: Kind, meta: &ObjectMeta, status: Option<&BgpStatus>) -> bool {
        if self.bgp.is_none() {
            return false;
        }
        let key = ObjectKey::cluster(kind, name_of(meta));
        let status = status.cloned().unwrap_or_default();
        if !self.statuses.observe(&key, status, meta.resource_version.as_deref(), None) {
            return false;
        }
        match meta.generation.filter(|generation| *generation != 0) {
            Some(generation) => drop(self.generations.insert(key, generation)),
            None => drop(self.generations.remove(&key)),
        }
        true
    }

    pub(crate) fn observe_advertisement(&mut self, object: &CiliumBGPAdvertisement) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_advertisement(name_of(&object.metadata), Some(Advertisement::reduce(object)));
        }
    }

    pub(crate) fn observe_override(&mut self, object: &CiliumBGPNodeConfigOverride) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_override(name_of(&object.metadata), Some(Override::reduce(object)));
        }
    }

    pub(crate) fn observe_node_config(&mut self, object: &CiliumBGPNodeConfig) {
        let Some(bgp) = &mut self.bgp else { return };
        let meta = &object.metadata;
        let mut owners = meta.owner_references.iter().flatten();
        let owner =
            owners.find(|owner| owner.kind == "CiliumBGPClusterConfig").map(|owner| owner.uid.clone());
        let print = Print { owner: owner.unwrap_or_default(), spec: object.spec.clone() };
        let key = ObjectKey::cluster(Kind::BgpNodeConfig, name_of(meta));
        let (version, uid) = (meta.resource_version.as_deref(), meta.uid.as_deref());
        if self.node_configs.observe(&key, print, version, uid) {
            bgp.set_recorded(&key.name, Some(&object.spec));
        }
    }

    pub(crate) fn observe_secret(&mut self, object: &slim::Secret) {
        if let Some(bgp) = &mut self.bgp {
            let meta = &object.metadata;
            bgp.set_secret(name_of(meta), meta.resource_version.as_deref());
        }
    }

    /// Takes note that an object of one of these kinds is gone.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        let Some(bgp) = &mut self.bgp else { return };
        let name = &key.name;
        match key.kind {
            Kind::BgpClusterConfig => bgp.set_cluster(name, None),
            Kind::BgpPeerConfig => bgp.set_peer(name, None),
            Kind::BgpAdvertisement => bgp.set_advertisement(name, None),
            Kind::BgpNodeConfigOverride => bgp.set_override(name, None),
            Kind::BgpNodeConfig => {
                bgp.set_recorded(name, None);
                self.node_configs.forget(key);
            }
            Kind::Secret => bgp.set_secret(name, None),
            _ => {}
        }
        if matches!(key.kind, Kind::BgpClusterConfig | Kind::BgpPeerConfig) {
            self.statuses.forget(key);
            self.generations.remove(key);
        }
    }

    /// A Service is there: advertisements may select it.
    pub(crate) fn observe_service(&mut self, service: &slim::Service) {
        let Some(bgp) = &mut self.bgp else { return };
        let meta = &service.metadata;
        let name = ServiceName::new(meta.namespace.as_deref().unwrap_or_default(), name_of(meta));
        bgp.set_claim(&name, Some(Claim::reduce(service)));
    }

    pub(crate) fn forget_service(&mut self, key: &ObjectKey) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_claim(&ServiceName::new(&key.namespace, &key.name), None);
        }
    }

    /// Nodes serve a Service so, or not at all.
    pub(crate) fn set_served(&mut self, service: &ServiceName, part: Option<&parts::Service>) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_served(service, part.map(Served::reduce));
        }
    }

    pub(crate) fn observe_node(&mut self, node: &slim::Node) {
        let Some(bgp) = &mut self.bgp else { return };
        let labels = node.metadata.labels.iter().flatten().map(|(key, value)| Label::k8s(key, value));
        let internal = node.status.addresses.iter().filter(|it| it.type_ == "InternalIP");
        let addresses: Vec<_> = internal.filter_map(|it| it.address.parse().ok()).collect();
        let texts = node.spec.pod_cidrs.iter().filter(|_| !self.pod_pools);
        let prefixes: Vec<_> = texts.filter_map(|it| it.parse().ok()).collect();
        bgp.set_node(name_of(&node.metadata), labels.collect(), &addresses, &prefixes);
    }

    /// A node has these blocks of pools.
    pub(crate) fn set_blocks(&mut self, node: &str, blocks: Vec<(String, IpNet)>) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_blocks(node, blocks);
        }
    }

    /// A pool has these labels, or is gone.
    pub(crate) fn set_pod_pool(&mut self, name: &str, labels: Option<Labels>) {
        if let Some(bgp) = &mut self.bgp {
            bgp.set_pod_pool(name, labels);
        }
    }

    pub(crate) fn forget_node(&mut self, name: &str) {
        if let Some(bgp) = &mut self.bgp {
            bgp.remove_node(name);
        }
    }

    /// What the parts of a node have to be.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn expected(&self, node: &str) -> BTreeMap<PartKey, Part> {
        let Some(bgp) = &self.bgp else { return BTreeMap::new() };
        let instances = bgp.instances(node);
        let instances = instances
            .map(|(name, instance)| (PartKey::bgp_instance(name), Part::Bgp(Box::new(instance.clone()))));
        let routes = bgp.all_node_routes(node).filter_map(|prefix| {
            Some((PartKey::node_route(prefix), Part::NodeRoute(bgp.node_route(node, prefix)?)))
        });
        instances.chain(routes).collect()
    }

    /// What of it all nodes share.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn expected_shared(&self) -> BTreeMap<PartKey, Part> {
        let Some(bgp) = &self.bgp else { return BTreeMap::new() };
        let part = |prefix| Some((PartKey::route(prefix), Part::Route(bgp.route(prefix)?)));
        bgp.all_routes().filter_map(part).collect()
    }

    /// What must hold after every plan, and does not.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) -> Vec<String> {
        self.bgp.as_ref().map(Bgp::check).unwrap_or_default()
    }
}

impl Planner {
    /// Makes the parts of nodes and of the cluster follow configurations, Services and nodes.
    pub(crate) fn follow_routing(&mut self) {
        let Some(bgp) = &mut self.routing.bgp else { return };
        let changes = bgp.plan();
        for (node, name) in &changes.instances {
            let part = bgp.instance(node, name).map(|it| Part::Bgp(Box::new(it.clone())));
            self.nodes.entry(node).state.set(&PartKey::bgp_instance(name), part.as_ref());
        }
        for (node, prefix) in &changes.node_routes {
            let part = bgp.node_route(node, *prefix).map(Part::NodeRoute);
            self.nodes.entry(node).state.set(&PartKey::node_route(*prefix), part.as_ref());
        }
        for prefix in &changes.routes {
            let part = bgp.route(*prefix).map(Part::Route);
            self.shared.set(&PartKey::route(*prefix), part.as_ref());
        }
        let Routing { statuses, node_configs, .. } = &mut self.routing;
        for node in &changes.node_configs {
            node_configs.touch(ObjectKey::cluster(Kind::BgpNodeConfig, node));
        }
        for name in &changes.clusters {
            statuses.touch(ObjectKey::cluster(Kind::BgpClusterConfig, name));
        }
        for name in &changes.peers {
            statuses.touch(ObjectKey::cluster(Kind::BgpPeerConfig, name));
        }
    }

    pub(crate) fn report_node_configs(&mut self) -> Vec<Write<CiliumBGPNodeConfig>> {
        let due = self.routing.node_configs.take_due();
        due.iter().filter_map(|key| self.report_node_config(key)).collect()
    }

    fn report_node_config(&mut self, key: &ObjectKey) -> Option<Write<CiliumBGPNodeConfig>> {
        let Routing { bgp, node_configs, .. } = &mut self.routing;
        let wanted = bgp.as_ref()?.node_config(&key.name);
        let stored = node_configs.stored(key);
        let print = wanted.map(|it| Print { owner: it.owner_uid.clone(), spec: it.spec.clone() });
        // What somebody else made is left alone. One of another owner goes first: that field of an object stays.
        let print = match (print, stored) {
            (None, Some(stored)) if stored.owner.is_empty() => return None,
            (Some(print), Some(stored)) if stored.owner != print.owner => None,
            (print, _) => print,
        };
        let action = node_configs.decide(key, print, || Some(node_config(&key.name, wanted?)))?;
        Some(Write { key: key.clone(), action })
    }

    pub(crate) fn report_bgp(&mut self, now: i64) -> Vec<Write<BgpStatus>> {
        let due = self.routing.statuses.take_due();
        due.iter().filter_map(|key| self.report_bgp_status(key, now)).collect()
    }

    fn report_bgp_status(&mut self, key: &ObjectKey, now: i64) -> Option<Write<BgpStatus>> {
        let desired = self.bgp_status(key, now);
        let content = desired.clone();
        let action = self.routing.statuses.decide(key, desired, || content)?;
        Some(Write { key: key.clone(), action })
    }

    fn bgp_status(&self, key: &ObjectKey, now: i64) -> Option<BgpStatus> {
        let Routing { bgp, statuses, generations, .. } = &self.routing;
        let bgp = bgp.as_ref()?;
        let wanted = match key.kind {
            Kind::BgpClusterConfig => bgp.cluster_conditions(&key.name)?,
            _ => bgp.peer_conditions(&key.name)?,
        };
        let mut status = statuses.stored(key).cloned().unwrap_or_default();
        let mut conditions = status.conditions.take().unwrap_or_default();
        if self.config.bgp_status {
            let observed_generation = generations.get(key).copied();
            for new in wanted {
                condition::set(&mut conditions, Condition { observed_generation, ..new }, now);
            }
        } else {
            conditions.retain(|it| !CONDITIONS.contains(&it.type_.as_str()));
        }
        status.conditions = (!conditions.is_empty()).then_some(conditions);
        Some(status)
    }
}

fn node_config(node: &str, wanted: &NodeConfig) -> CiliumBGPNodeConfig {
    let mut object = CiliumBGPNodeConfig::default();
    object.metadata.name = Some(node.to_owned());
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "cilium.io/v2".to_owned(),
        kind: "CiliumBGPClusterConfig".to_owned(),
        name: wanted.owner.to_string(),
        uid: wanted.owner_uid.clone(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    object.spec = wanted.spec.clone();
    object
}
