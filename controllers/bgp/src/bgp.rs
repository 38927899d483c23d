//! What follows from what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cilium_api::bgp::{BgpInstance, Route};
use cilium_api::bgp_node_config::BgpNodeConfigSpec;
use cilium_core::{Label, Labels, Selector};
use cilium_services::ServiceName;
use ipnet::{IpNet, Ipv4Net};

use crate::advertisement::{Advertisement, Place, Services, Source};
use crate::cluster::ClusterConfig;
use crate::members::{Member, Standing, candidates, member, standings, wanting};
use crate::overrides::Override;
use crate::peer::PeerConfig;
use crate::router_ids::Pool;
use crate::routes::{Given, Giver, Routes, Touched};
use crate::service::{Claim, Served};
use crate::session::Template;

/// Name of a node or of a CiliumBGPClusterConfig.
pub(crate) type Name = Arc<str>;

/// Settings of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where router ids come from.
    pub router_ids: RouterIds,
    /// There is a namespace for Secrets.
    pub secrets: bool,
    /// Services without any backend are advertised.
    pub without_backends: bool,
}

/// Where router ids come from, unless an override has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterIds {
    /// A node's IPv4 address, or else its name.
    Node,
    /// This prefix.
    Pool(Ipv4Net),
}

impl Default for Config {
    fn default() -> Self {
        Self { router_ids: RouterIds::Node, secrets: true, without_backends: true }
    }
}

/// A CiliumBGPNodeConfig as it shall be; its name is the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of the CiliumBGPClusterConfig that it comes from.
    pub owner: Arc<str>,
    /// UID of that.
    pub owner_uid: String,
    /// Its content.
    pub spec: BgpNodeConfigSpec,
}

/// Stands for the name of a pool.
const POOL_NAME_LABEL: &str = "io.cilium.podippool.name";
/// Stands for its namespace, of which it has none.
const POOL_NAMESPACE_LABEL: &str = "io.cilium.podippool.namespace";

/// A Service. Either half may come first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// `None`: there is no Service.
    claim: Option<Claim>,
    /// `None`: nodes do not serve it.
    served: Option<Served>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// `None`: it is not there, and something is known of it all the same.
    pub(crate) labels: Option<Labels>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pod_cidrs: Vec<IpNet>,
}

/// Everything that is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) config: Config,
    pub(crate) clusters: BTreeMap<Name, ClusterConfig>,
    pub(crate) peers: BTreeMap<String, PeerConfig>,
    pub(crate) advertisements: BTreeMap<String, Advertisement>,
    pub(crate) overrides: BTreeMap<String, Override>,
    /// Versions of Secrets.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) nodes: BTreeMap<Name, Node>,
    /// Blocks of nodes, each with its pool.
    blocks: BTreeMap<Name, Vec<(String, IpNet)>>,
    /// Labels of pools, with those that stand for their names.
    pod_pools: BTreeMap<String, Labels>,
    services: BTreeMap<ServiceName, Entry>,
    /// Router ids that stand in CiliumBGPNodeConfigs, by node and router.
    recorded: BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
}

impl Inputs {
    /// Router ids that overrides tell, whether or not their nodes are there.
    pub(crate) fn told_router_ids(&self) -> BTreeSet<Ipv4Addr> {
        self.overrides.values().flat_map(Override::router_ids).collect()
    }
}

/// What has changed since the last plan.
#[derive(Clone, Debug, Default)]
struct Dirty {
    /// Something that sessions of all nodes come from.
    sessions: bool,
    nodes: BTreeSet<Name>,
    /// What Services and nodes give for advertisements.
    routes: bool,
    services: BTreeSet<ServiceName>,
    pods: BTreeSet<Name>,
    clusters: BTreeSet<Name>,
    peers: BTreeSet<String>,
}

/// What one plan has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes and names of routers whose part is another one now, or none.
    pub instances: BTreeSet<(Arc<str>, String)>,
    /// Prefixes of all nodes, likewise.
    pub routes: BTreeSet<IpNet>,
    /// Prefixes of single nodes, likewise.
    pub node_routes: BTreeSet<(Arc<str>, IpNet)>,
    /// Nodes whose CiliumBGPNodeConfig is another one now, or none.
    pub node_configs: BTreeSet<Arc<str>>,
    /// CiliumBGPClusterConfigs of which there is something else to say.
    pub clusters: BTreeSet<Arc<str>>,
    /// CiliumBGPPeerConfigs likewise.
    pub peers: BTreeSet<String>,
}

/// All objects about BGP, Services and nodes.
///
/// # Expected flow
/// Feed objects as they are, then [`Bgp::plan`], and write what it names.
#[derive(Clone, Debug, Default)]
pub struct Bgp {
    pub(crate) inputs: Inputs,
    pub(crate) pool: Pool,
    /// Nodes that wait for an id of the pool.
    waiting: BTreeSet<Name>,
    templates: BTreeMap<Name, Vec<Template>>,
    pub(crate) members: BTreeMap<Name, Member>,
    pub(crate) standings: BTreeMap<Name, Standing>,
    /// Advertisements that any router has.
    used: BTreeSet<Arc<str>>,
    /// Services of which it matters on which nodes they have backends.
    by_node: BTreeSet<ServiceName>,
    pub(crate) routes: Routes,
    dirty: Dirty,
}

impl Bgp {
    /// Nothing is known yet.
    pub fn new(config: Config) -> Self {
        Self { inputs: Inputs { config, ..Inputs::default() }, ..Self::default() }
    }

    /// Everything that `other` was told, and nothing that it has made of it but the ids that it gave.
    pub(crate) fn told_like(other: &Self) -> Self {
        let dirty = Dirty {
            sessions: true,
            nodes: other.inputs.nodes.keys().cloned().collect(),
            routes: true,
            ..Dirty::default()
        };
        let (inputs, pool) = (other.inputs.clone(), other.pool.clone());
        Self { inputs, pool, by_node: other.by_node.clone(), dirty, ..Self::default() }
    }

    /// Takes a CiliumBGPClusterConfig as it is now; `None` if it is gone.
    pub fn set_cluster(&mut self, name: &str, config: Option<ClusterConfig>) {
        let name: Name = name.into();
        self.dirty.sessions |= put(&mut self.inputs.clusters, name.clone(), config);
        self.dirty.nodes.extend(self.inputs.nodes.keys().cloned());
        self.dirty.clusters.insert(name);
    }

    /// Takes a CiliumBGPPeerConfig as it is now; `None` if it is gone.
    pub fn set_peer(&mut self, name: &str, config: Option<PeerConfig>) {
        self.dirty.sessions |= put(&mut self.inputs.peers, name.to_owned(), config);
        self.dirty.peers.insert(name.to_owned());
    }

    /// Takes a CiliumBGPAdvertisement as it is now; `None` if it is gone.
    pub fn set_advertisement(&mut self, name: &str, advertisement: Option<Advertisement>) {
        if put(&mut self.inputs.advertisements, name.to_owned(), advertisement) {
            self.dirty.sessions = true;
            self.dirty.routes = true;
            // Any of them may select it, and tell what is wrong with it.
            self.dirty.peers.extend(self.inputs.peers.keys().cloned());
        }
    }

    /// Takes a CiliumBGPNodeConfigOverride as it is now; `None` if it is gone.
    pub fn set_override(&mut self, node: &str, different: Option<Override>) {
        if put(&mut self.inputs.overrides, node.to_owned(), different) {
            self.dirty.nodes.insert(node.into());
        }
    }

    /// Takes the `resourceVersion` of a Secret in the namespace for secrets of BGP; `None` if it is gone.
    pub fn set_secret(&mut self, name: &str, version: Option<&str>) {
        if !put(&mut self.inputs.secrets, name.to_owned(), version.map(str::to_owned)) {
            return;
        }
        let named = self.inputs.peers.iter().filter(|(_, it)| it.secret.as_deref() == Some(name));
        let named: Vec<String> = named.map(|(peer, _)| peer.clone()).collect();
        self.dirty.sessions |= !named.is_empty();
        self.dirty.peers.extend(named);
    }

    /// Takes a node as it is now: labels, addresses (the first of IPv4 is a router id), prefixes of its pods.
    pub fn set_node(&mut self, name: &str, labels: Labels, addresses: &[IpAddr], pod_cidrs: &[IpNet]) {
        let ipv4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let node = Node { labels: Some(labels), ipv4, pod_cidrs: pod_cidrs.to_vec() };
        self.put_node(name, Some(node));
    }

    /// Takes note that a node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.put_node(name, None);
    }

    /// Takes the blocks that a node has of pools.
    pub fn set_blocks(&mut self, node: &str, blocks: Vec<(String, IpNet)>) {
        let name: Name = node.into();
        if put(&mut self.inputs.blocks, name.clone(), (!blocks.is_empty()).then_some(blocks)) {
            self.dirty.pods.insert(name);
        }
    }

    /// Takes the labels of a CiliumPodIPPool; `None` if it is gone: then its blocks are not made known.
    pub fn set_pod_pool(&mut self, name: &str, labels: Option<Labels>) {
        let named = [Label::k8s(POOL_NAME_LABEL, name), Label::k8s(POOL_NAMESPACE_LABEL, "")];
        let labels = labels.map(|labels| labels.iter().cloned().chain(named).collect());
        if put(&mut self.inputs.pod_pools, name.to_owned(), labels) {
            self.dirty.routes = true;
        }
    }

    fn put_node(&mut self, name: &str, node: Option<Node>) {
        let name: Name = name.into();
        if put(&mut self.inputs.nodes, name.clone(), node) {
            self.dirty.nodes.insert(name.clone());
            self.dirty.pods.insert(name);
        }
    }

    /// Takes the router ids that stand in the CiliumBGPNodeConfig of a node: it keeps those of the pool.
    pub fn set_recorded(&mut self, node: &str, config: Option<&BgpNodeConfigSpec>) {
        let instances = config.into_iter().flat_map(|spec| &spec.bgp_instances);
        let ids = instances.filter_map(|it| Some((it.name.clone(), it.router_id.as_ref()?.parse().ok()?)));
        let ids: BTreeMap<String, Ipv4Addr> = ids.collect();
        put(&mut self.inputs.recorded, node.to_owned(), (!ids.is_empty()).then_some(ids));
    }

    /// Takes what selects a Service, as it is now; `None` if it is gone.
    pub fn set_claim(&mut self, service: &ServiceName, claim: Option<Claim>) {
        self.edit_service(service, |entry| replaced(&mut entry.claim, claim));
    }

    /// Takes where nodes serve a Service, as it is now; `None` if they do not.
    pub fn set_served(&mut self, service: &ServiceName, served: Option<Served>) {
        if served.as_ref().is_some_and(Served::goes_by_node) {
            self.by_node.insert(service.clone());
        } else {
            self.by_node.remove(service);
        }
        self.edit_service(service, |entry| replaced(&mut entry.served, served));
    }

    fn edit_service(&mut self, service: &ServiceName, edit: impl FnOnce(&mut Entry) -> bool) {
        let entry = self.inputs.services.entry(service.clone()).or_default();
        let changed = edit(entry);
        if entry.claim.is_none() && entry.served.is_none() {
            self.inputs.services.remove(service);
        }
        if changed {
            self.dirty.services.insert(service.clone());
        }
    }

    /// Decides anew where something changed since the last call.
    pub fn plan(&mut self) -> Changes {
        let mut changes = Changes::default();
        let dirty = std::mem::take(&mut self.dirty);
        let (nodes, routes) = self.follow_sessions(&dirty);
        self.follow_nodes(nodes, &mut changes);
        self.follow_standings(&mut changes);
        changes.clusters.extend(dirty.clusters);
        changes.peers.extend(dirty.peers);
        self.dirty.services.extend(dirty.services);
        self.dirty.pods.extend(dirty.pods);
        self.follow_routes(routes, &mut changes);
        changes
    }

    /// Puts configurations together anew. Gives the nodes to look at, and whether all prefixes have to be.
    fn follow_sessions(&mut self, dirty: &Dirty) -> (BTreeSet<Name>, bool) {
        if !dirty.sessions {
            return (dirty.nodes.clone(), dirty.routes);
        }
        let build = |(name, config): (&Name, &ClusterConfig)| {
            let templates = config.instances.iter().map(|it| Template::new(it, &self.inputs));
            (name.clone(), templates.collect())
        };
        let templates: BTreeMap<Name, Vec<Template>> = self.inputs.clusters.iter().map(build).collect();
        let used = templates.values().flatten().flat_map(|it| it.advertisements.keys().cloned()).collect();
        let mut nodes = dirty.nodes.clone();
        if templates != self.templates {
            nodes.extend(self.inputs.nodes.keys().cloned());
        }
        let routes = dirty.routes || used != self.used;
        (self.templates, self.used) = (templates, used);
        (nodes, routes)
    }

    fn follow_nodes(&mut self, mut nodes: BTreeSet<Name>, changes: &mut Changes) {
        self.follow_pool(&mut nodes);
        for name in nodes {
            let of_node = self.inputs.nodes.get(&name).map(|node| candidates(node, &self.inputs));
            let now = of_node.and_then(|all| member(&name, all, &self.templates, &self.inputs, &self.pool));
            self.put_member(name, now, changes);
        }
    }

    /// Gives routers ids of the pool that no override tells: first those back that they had, then free ones.
    fn follow_pool(&mut self, nodes: &mut BTreeSet<Name>) {
        let RouterIds::Pool(pool) = self.inputs.config.router_ids else { return };
        let (mut lost, mut is_freed) = self.pool.reserve(self.inputs.told_router_ids());
        nodes.append(&mut lost);
        for name in &*nodes {
            is_freed |= self.pool.keep(name, &self.wanting(name));
        }
        if is_freed {
            nodes.append(&mut self.waiting);
        }
        for name in &*nodes {
            for router in self.wanting(name) {
                let recorded = self.inputs.recorded.get(&**name).and_then(|ids| ids.get(&router));
                recorded.into_iter().for_each(|id| self.pool.claim(pool, name, &router, *id));
            }
        }
        for name in &*nodes {
            let wanting = self.wanting(name);
            // Each router gets one that can have one.
            let without = wanting.iter().filter(|router| !self.pool.allocate(pool, name, router)).count();
            if without == 0 {
                self.waiting.remove(name);
            } else {
                self.waiting.insert(name.clone());
            }
        }
    }

    /// Routers of a node that need an id of the pool.
    fn wanting(&self, name: &Name) -> BTreeSet<String> {
        let node = self.inputs.nodes.get(name);
        let owner = node.and_then(|node| candidates(node, &self.inputs).into_iter().next());
        let templates = owner.and_then(|owner| self.templates.get(&owner));
        let different = self.inputs.overrides.get(&**name);
        templates.map(|templates| wanting(templates, different)).unwrap_or_default()
    }

    fn put_member(&mut self, name: Name, now: Option<Member>, changes: &mut Changes) {
        let before = self.members.get(&name);
        if before == now.as_ref() {
            return;
        }
        let none = BTreeMap::new();
        let old = before.map_or(&none, |it| &it.instances);
        let new = now.as_ref().map_or(&none, |it| &it.instances);
        let changed = old.keys().chain(new.keys()).filter(|it| old.get(*it) != new.get(*it));
        changes.instances.extend(changed.map(|router| (name.clone(), router.clone())));
        if before.map(|it| &it.config) != now.as_ref().map(|it| &it.config) {
            changes.node_configs.insert(name.clone());
        }
        if old.is_empty() != new.is_empty() {
            self.dirty.pods.insert(name.clone());
            self.dirty.services.extend(self.by_node.iter().cloned());
        }
        put(&mut self.members, name, now);
    }

    fn follow_standings(&mut self, changes: &mut Changes) {
        let now = standings(&self.members, &self.inputs);
        let changed = now.keys().filter(|name| now.get(*name) != self.standings.get(*name));
        changes.clusters.extend(changed.cloned());
        self.standings = now;
    }

    fn follow_routes(&mut self, all: bool, changes: &mut Changes) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut givers: BTreeSet<Giver> = dirty.services.into_iter().map(Giver::Service).collect();
        givers.extend(dirty.pods.into_iter().map(Giver::Node));
        if all {
            givers.extend(self.routes.givers().cloned());
            givers.extend(self.inputs.services.keys().cloned().map(Giver::Service));
            givers.extend(self.inputs.nodes.keys().cloned().map(Giver::Node));
        }
        if givers.is_empty() {
            return;
        }
        let advertised = Advertised::new(&self.inputs, &self.used);
        let mut touched = Touched::default();
        for giver in givers {
            let given = match &giver {
                Giver::Service(name) => self.of_service(name, &advertised),
                Giver::Node(name) => self.of_pods(name, &advertised),
            };
            self.routes.give(giver, given, &mut touched);
        }
        (changes.routes, changes.node_routes) = touched.prefixes();
    }

    /// What a Service gives.
    fn of_service(&self, name: &ServiceName, advertised: &Advertised<'_>) -> BTreeSet<Given> {
        let mut given = BTreeSet::new();
        let Some(Entry { claim: Some(claim), served: Some(served) }) = self.inputs.services.get(name) else {
            return given;
        };
        for (id, services) in advertised.services.iter().filter(|(_, it)| it.selects(&claim.labels)) {
            let kinds = [
                (services.cluster, &served.cluster, served.is_local),
                (services.load_balancer && claim.is_ours, &served.load_balancer, served.is_external_local),
                (services.external, &served.external, served.is_external_local),
            ];
            for (_, addresses, is_local) in kinds.into_iter().filter(|(is_wanted, ..)| *is_wanted) {
                for address in addresses {
                    self.add_address(*address, is_local, served, (id, services), &mut given);
                }
            }
        }
        given
    }

    fn add_address(
        &self,
        address: IpAddr,
        is_local: bool,
        served: &Served,
        (id, services): (&Arc<str>, &Services),
        given: &mut BTreeSet<Given>,
    ) {
        let given_by = |node: Option<Name>, prefix| Given { node, prefix, id: id.clone() };
        if is_local {
            let speaks = |node: &Name| self.members.get(node).is_some_and(|it| !it.instances.is_empty());
            let nodes = served.nodes(address).iter();
            let nodes =
                nodes.filter_map(|node| self.members.get_key_value(node.as_str())).map(|(node, _)| node);
            given.extend(
                nodes.filter(|node| speaks(node)).map(|it| given_by(Some(it.clone()), address.into())),
            );
        } else if self.inputs.config.without_backends || served.has_backends(address) {
            given.insert(given_by(None, services.aggregate(address)));
        }
    }

    /// What the pods of a node give.
    fn of_pods(&self, name: &Name, advertised: &Advertised<'_>) -> BTreeSet<Given> {
        let speaks = self.members.get(name).is_some_and(|it| !it.instances.is_empty());
        let node = self.inputs.nodes.get(name).filter(|_| speaks);
        let prefixes = node.into_iter().flat_map(|node| &node.pod_cidrs);
        let given = prefixes.flat_map(|prefix| {
            advertised.pods.iter().map(|id| Given {
                node: Some(name.clone()),
                prefix: prefix.trunc(),
                id: (*id).clone(),
            })
        });
        let blocks = self.inputs.blocks.get(name).filter(|_| speaks).into_iter().flatten();
        let of_pools = blocks.flat_map(|(pool, prefix)| {
            let labels = self.inputs.pod_pools.get(pool);
            let selects = move |selector: &Selector| labels.is_some_and(|it| selector.matches(it));
            let selecting = advertised.pools.iter().filter(move |(_, selector)| selects(selector));
            selecting.map(|(id, _)| Given { node: Some(name.clone()), prefix: *prefix, id: (*id).clone() })
        });
        given.chain(of_pools).collect()
    }

    /// A router of a node, as the node is told of it.
    pub fn instance(&self, node: &str, name: &str) -> Option<&BgpInstance> {
        self.members.get(node)?.instances.get(name)
    }

    /// All routers of a node, by their names.
    pub fn instances(&self, node: &str) -> impl Iterator<Item = (&String, &BgpInstance)> {
        self.members.get(node).into_iter().flat_map(|it| &it.instances)
    }

    /// The CiliumBGPNodeConfig of a node.
    pub fn node_config(&self, node: &str) -> Option<&NodeConfig> {
        self.members.get(node).map(|it| &it.config)
    }

    /// A prefix that every node makes known.
    pub fn route(&self, prefix: IpNet) -> Option<Route> {
        self.routes.shared(prefix)
    }

    /// All of those.
    pub fn all_routes(&self) -> impl Iterator<Item = IpNet> {
        self.routes.all_shared()
    }

    /// A prefix that one node makes known.
    pub fn node_route(&self, node: &str, prefix: IpNet) -> Option<Route> {
        self.routes.of_node(node, prefix)
    }

    /// All of those.
    pub fn all_node_routes(&self, node: &str) -> impl Iterator<Item = IpNet> {
        self.routes.all_of_node(node)
    }
}

/// Advertisements that any router has, by where their prefixes come from.
struct Advertised<'a> {
    services: Vec<(&'a Arc<str>, &'a Services)>,
    pods: Vec<&'a Arc<str>>,
    pools: Vec<(&'a Arc<str>, &'a Selector)>,
}

impl<'a> Advertised<'a> {
    fn new(inputs: &'a Inputs, used: &BTreeSet<Arc<str>>) -> Self {
        let mut all = Self { services: Vec::new(), pods: Vec::new(), pools: Vec::new() };
        let places = inputs.advertisements.values().flat_map(|it| &it.places);
        for Place { id, source, .. } in places.filter(|place| used.contains(&place.id)) {
            match source {
                Source::Services(services) => all.services.push((id, services)),
                Source::PodCidr => all.pods.push(id),
                Source::PodPools(Some(selector)) => all.pools.push((id, selector)),
                Source::PodPools(None) | Source::Other => {}
            }
        }
        all
    }
}

/// Puts a value in the place of another. Says whether that changed anything.
fn replaced<V: PartialEq>(place: &mut V, value: V) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

/// Puts or removes an entry. Says whether that changed anything.
fn put<K: Ord, V: PartialEq>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if all.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => drop(all.insert(key, value)),
        None => drop(all.remove(&key)),
    }
    true
}
