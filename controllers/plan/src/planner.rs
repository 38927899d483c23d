//! The planner as its caller sees it.

use std::collections::BTreeMap;

use cilium_ipam::Request;

use crate::announcements::Announcements;
use crate::api_server::ApiServer;
use crate::config::Config;
use crate::endpoints::Endpoints;
use crate::groups::Groups;
use crate::identities::Identities;
use crate::last_valid;
use crate::ledger::Ledger;
use crate::load_balancers::LoadBalancers;
use crate::names::PodName;
use crate::nodes::Nodes;
use crate::object::{Kind, Object, ObjectKey};
use crate::output::{Event, Outcome, Output, Report};
use crate::packed::Packed;
use crate::pod::Pod;
use crate::pod_pools::PodPools;
use crate::policies::Policies;
use crate::prefixes::Prefixes;
use crate::redirects::Redirects;
use crate::references::References;
use crate::reports::Reports;
use crate::restore::Records;
use crate::routing::Routing;
use crate::slices;

/// Objects in, writes out.
///
/// # Expected flow
/// [`Planner::observe`] every object of every kind, then [`Planner::synced`]. From then on: pass on what watches bring, call
/// [`Planner::plan`], do its writes and tell [`Planner::written`] of each; call [`Planner::report`] now and then.
///
/// # Guarantees
/// - The desired state depends on the present objects, and on what was given to running pods before: not on the order of events.
/// - A plan touches what the changes since the last one can reach, and writes nothing that is as desired already.
/// - A new planner that is fed with the objects that another one wrote changes nothing for pods that run.
///
/// # Assumptions
/// One planner at a time writes (leader election); events of one object come in their order, a relist as its difference.
#[derive(Debug)]
pub struct Planner {
    pub(crate) config: Config,
    pub(crate) pods: BTreeMap<PodName, Pod>,
    /// Labels of namespaces.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) pod_pools: PodPools,
    pub(crate) nodes: Nodes,
    pub(crate) endpoints: Endpoints,
    pub(crate) identities: Identities,
    pub(crate) policies: Policies,
    pub(crate) references: References,
    pub(crate) groups: Groups,
    pub(crate) prefixes: Prefixes,
    pub(crate) services: cilium_services::Services,
    pub(crate) redirects: Redirects,
    pub(crate) load_balancers: LoadBalancers,
    pub(crate) announcements: Announcements,
    pub(crate) routing: Routing,
    pub(crate) api_server: ApiServer,
    /// Parts that all nodes share.
    pub(crate) shared: Packed,
    /// Versions of policies that are in force, for a later start.
    pub(crate) kept: Packed,
    pub(crate) slices: Ledger<slices::Print>,
    pub(crate) reports: Reports,
    pub(crate) events: Vec<Event>,
    /// Until the first plan.
    pub(crate) records: Option<Records>,
    synced: bool,
}

impl Planner {
    /// A planner that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let policies = cilium_policy::Config { families: config.families(), mode: config.mode };
        Self {
            load_balancers: LoadBalancers::new(&config),
            announcements: Announcements::new(&config),
            routing: Routing::new(&config),
            endpoints: Endpoints::new(&config),
            config,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            nodes: Nodes::default(),
            pod_pools: PodPools::default(),
            identities: Identities::default(),
            policies: Policies::new(policies),
            references: References::default(),
            groups: Groups::default(),
            prefixes: Prefixes::default(),
            services: cilium_services::Services::default(),
            redirects: Redirects::default(),
            api_server: ApiServer::default(),
            shared: Packed::new(slices::SHARED_OWNER),
            kept: Packed::new(last_valid::OWNER),
            slices: Ledger::default(),
            reports: Reports::default(),
            events: Vec::new(),
            records: Some(Records::default()),
            synced: false,
        }
    }

    /// Takes an object as it is now. An object older than what is known of it is ignored.
    pub fn observe(&mut self, object: Object) {
        match object {
            Object::Pod(it) => {
                let name = pod_name(it.metadata.namespace.as_deref(), it.metadata.name.as_deref());
                self.put_pod(name, Pod::reduce(&it));
            }
            Object::Namespace(it) => {
                let name = it.metadata.name.as_deref().unwrap_or_default();
                self.put_request(name, Request::read(it.metadata.annotations.as_ref()));
                let labels = it.metadata.labels.unwrap_or_default();
                self.put_namespace(it.metadata.name.unwrap_or_default(), Some(labels));
            }
            Object::Node(it) => self.observe_node(&it),
            Object::Service(it) => {
                self.services.set_service(&it);
                self.load_balancers.observe_service(&it);
                self.announcements.observe_service(&it);
                self.routing.observe_service(&it);
            }
            Object::EndpointSlice(it) => self.services.set_slice(&it),
            Object::NetworkPolicy(it) => self.observe_cnp(&it),
            Object::ClusterwideNetworkPolicy(it) => self.observe_ccnp(&it),
            Object::KubernetesNetworkPolicy(it) => self.observe_netpol(&it),
            Object::ClusterNetworkPolicy(it) => self.observe_clusternetpol(&it),
            Object::UnreadablePolicy(it) => self.observe_unreadable(&it),
            Object::CidrGroup(it) => self.observe_group(&it),
            Object::LocalRedirectPolicy(it) => self.observe_redirect(&it),
            Object::LoadBalancerPool(it) => self.load_balancers.observe_pool(&it),
            Object::PodPool(it) => self.observe_pod_pool(&it),
            Object::L2AnnouncementPolicy(it) => self.announcements.observe_policy(&it),
            Object::BgpClusterConfig(it) => self.routing.observe_cluster(&it),
            Object::BgpPeerConfig(it) => self.routing.observe_peer(&it),
            Object::BgpAdvertisement(it) => self.routing.observe_advertisement(&it),
            Object::BgpNodeConfig(it) => self.routing.observe_node_config(&it),
            Object::BgpNodeConfigOverride(it) => self.routing.observe_override(&it),
            Object::Secret(it) => self.routing.observe_secret(&it),
            Object::Identity(it) => self.observe_identity(&it),
            Object::Endpoint(it) => self.observe_endpoint(&it),
            Object::CiliumNode(it) => self.observe_public_node(&it),
            Object::NodeState(it) => self.observe_node_state(&it),
            Object::Slice(it) => self.observe_slice(&it),
        }
    }

    /// Takes note that an object is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        let ObjectKey { kind, namespace, name } = key;
        match kind {
            Kind::Pod => self.put_pod(PodName::new(namespace, name), None),
            Kind::Namespace => {
                self.put_request(name, None);
                self.put_namespace(name.clone(), None);
            }
            Kind::Node => {
                self.put_node(name, None);
                self.announcements.forget_node(name);
                self.routing.forget_node(name);
            }
            Kind::Service => {
                self.services.remove_service(namespace, name);
                self.load_balancers.forget_service(key);
                self.announcements.forget_service(key);
                self.routing.forget_service(key);
            }
            Kind::EndpointSlice => self.services.remove_slice(namespace, name),
            Kind::NetworkPolicy
            | Kind::ClusterwideNetworkPolicy
            | Kind::KubernetesNetworkPolicy
            | Kind::ClusterNetworkPolicy => self.forget_policy(key),
            Kind::CidrGroup => self.put_group(name, None),
            Kind::LocalRedirectPolicy => self.forget_redirect(key),
            Kind::LoadBalancerPool => self.load_balancers.forget_pool(key),
            Kind::PodPool => self.forget_pod_pool(name),
            Kind::L2AnnouncementPolicy => self.announcements.forget_policy(key),
            Kind::BgpClusterConfig
            | Kind::BgpPeerConfig
            | Kind::BgpAdvertisement
            | Kind::BgpNodeConfig
            | Kind::BgpNodeConfigOverride
            | Kind::Secret => self.routing.forget(key),
            Kind::Identity => self.forget_identity(key),
            Kind::Endpoint => self.reports.endpoints.forget(key),
            Kind::CiliumNode => self.reports.nodes.forget(key),
            Kind::NodeState => {
                self.node_mut(name).state.forget();
                self.follow_heard(name);
            }
            Kind::Slice => self.slices.forget(key),
        }
    }

    /// Says that every kind was listed once. Before that nothing is planned.
    pub fn synced(&mut self) {
        self.synced = true;
    }

    /// Says how a write went. Plan again afterwards: what was held back meanwhile comes then.
    pub fn written(&mut self, key: &ObjectKey, outcome: Outcome) {
        match key.kind {
            Kind::NodeState => self.node_mut(&key.name).state.written(outcome),
            Kind::Slice => self.slices.written(key, outcome),
            Kind::Identity => self.identity_written(key, outcome),
            Kind::Endpoint => self.reports.endpoints.written(key, outcome),
            Kind::CiliumNode => self.reports.nodes.written(key, outcome),
            Kind::NetworkPolicy | Kind::ClusterwideNetworkPolicy => {
                self.policies.statuses.written(key, outcome);
            }
            Kind::LocalRedirectPolicy => self.redirects.statuses.written(key, outcome),
            Kind::Service => self.load_balancers.service_written(key, outcome),
            Kind::LoadBalancerPool => self.load_balancers.pools.written(key, outcome),
            Kind::L2AnnouncementPolicy => self.announcements.statuses.written(key, outcome),
            Kind::BgpClusterConfig | Kind::BgpPeerConfig => self.routing.statuses.written(key, outcome),
            Kind::BgpNodeConfig => self.routing.node_configs.written(key, outcome),
            // Nothing writes these.
            Kind::Pod
            | Kind::Namespace
            | Kind::Node
            | Kind::EndpointSlice
            | Kind::CidrGroup
            | Kind::PodPool
            | Kind::KubernetesNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::BgpAdvertisement
            | Kind::BgpNodeConfigOverride
            | Kind::Secret => {}
        }
    }

    /// What is to be written now. `now` is in seconds since the epoch. Touches only what changed since the last call.
    pub fn plan(&mut self, now: i64) -> Output {
        if !self.synced {
            return Output::default();
        }
        // Nodes before pods, which take addresses from their prefixes; pods before policies, which nodes need for them.
        self.restore_numbers();
        self.follow_identities(now);
        self.follow_nodes();
        self.restore();
        self.follow_pod_pools();
        self.follow_pods(now);
        self.follow_blocks();
        self.follow_services();
        self.follow_redirects();
        self.load_balancers.follow();
        self.follow_announcements();
        self.follow_routing();
        self.follow_references();
        self.follow_api_server();
        self.follow_prefixes();
        self.forget_recorded_numbers();
        self.follow_policies();
        let node_states = self.write_node_states();
        self.release_delayed(now);
        self.release_delayed_announcements(now);
        let output = Output {
            node_states,
            slices: self.write_slices(),
            identities: self.write_identities(now),
            load_balancers: self.write_load_balancers(now),
            events: std::mem::take(&mut self.events),
            report_due: self.is_report_due(),
            wake: self.next_wake(),
        };
        #[cfg(any(test, debug_assertions))]
        self.assert_invariants();
        output
    }

    /// What people look at, as of the last plan: call it a little after [`Output::report_due`], so that several changes make
    /// one write.
    pub fn report(&mut self, now: i64) -> Report {
        if !self.synced || self.records.is_some() {
            return Report::default();
        }
        self.write_reports(now)
    }

    fn next_wake(&self) -> Option<i64> {
        let releases = [self.next_release(), self.next_announcement_release()];
        self.next_sweep().into_iter().chain(releases.into_iter().flatten()).min()
    }

    /// How often the policy of an identity was compiled for nodes, since the start.
    pub fn compilations(&self) -> u64 {
        self.policies.compilations
    }

    /// Addresses of load balancers and who asks for them, as of the last plan; `None` if somebody else gives them.
    pub fn load_balancer_numbers(&self) -> Option<cilium_lbipam::Numbers> {
        self.load_balancers.numbers()
    }

    fn put_pod(&mut self, name: PodName, pod: Option<Pod>) {
        let before = self.pods.get(&name);
        if before == pod.as_ref() {
            return;
        }
        // Whether it is ready does not matter to its endpoint.
        if !before.zip(pod.as_ref()).is_some_and(|(before, pod)| before.has_same_endpoint(pod)) {
            self.endpoints.dirty.insert(name.clone());
        }
        self.touch_redirects_of(&name);
        match pod {
            Some(pod) => drop(self.pods.insert(name, pod)),
            None => drop(self.pods.remove(&name)),
        }
    }

    fn put_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        self.dirty_namespace(&name);
        match labels {
            Some(labels) => drop(self.namespaces.insert(name, labels)),
            None => drop(self.namespaces.remove(&name)),
        }
    }

    /// Makes parts follow the Services that changed.
    fn follow_services(&mut self) {
        for service in self.services.take_changed() {
            if service == ApiServer::service() {
                self.api_server.set_addresses(self.services.backend_addresses(&service));
            }
            if self.config.local_redirects {
                self.redirects.set_face(&service, self.services.face(&service));
            }
            let part = self.services.part(&service);
            self.follow_unserved(&service, part.as_ref());
            self.announcements.set_served(&service, part.as_ref());
            self.routing.set_served(&service, part.as_ref());
            let part = part.map(cilium_api::parts::Part::Service);
            let key = cilium_api::parts::PartKey::service(&service.namespace, &service.name);
            self.shared.set(&key, part.as_ref());
        }
    }
}

fn pod_name(namespace: Option<&str>, name: Option<&str>) -> PodName {
    PodName::new(namespace.unwrap_or_default(), name.unwrap_or_default())
}
