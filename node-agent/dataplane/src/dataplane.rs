use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use cilium_api::frontends::Frontend;
use cilium_api::node_state::Failure;
use cilium_api::parts::{DnsRule, Part, PartKey, Policy, Service};
use cilium_bpf::layout::{Addr, BackendEntry, Endpoint, ExemptKey, IpcacheKey, ServiceKey};
use cilium_delta::{Change, Drift, Report, Tracker};
use ipnet::IpNet;

use crate::compile::Compiled;
use crate::endpoints::{Endpoints, Planned};
use crate::ipcache::{Ipcache, address_of, prefix_of};
use crate::kernel::{Kernel, Parts, SlotIndex, chain};
use crate::named::Named;
use crate::policies::Policies;
use crate::redirects::Exemptions;
use crate::services::Services;
use crate::{Config, Link, Neighbour, Route};

/// Desired and actual entries of everything. See the crate documentation for guarantees.
pub struct Dataplane {
    config: Config,
    policies: Policies,
    services: Services,
    exemptions: Exemptions,
    ipcache: Ipcache,
    named: Named,
    endpoints: Endpoints,
    routes: Tracker<IpNet, Route>,
    /// What failed in the last [`Dataplane::apply`], by table.
    failed: BTreeMap<&'static str, Vec<Failure>>,
    slotless: HashSet<PartKey>,
    /// The ipcache was read, and not compared with what is desired.
    adopted: bool,
}

/// Why an endpoint does not work yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The operator has not planned it.
    #[error("it is not planned")]
    Plan,
    /// CNI has not linked it.
    #[error("it has no network device")]
    Link,
    /// Its policy is not in force.
    #[error("its policy is not in force")]
    Policy,
    /// Its entries could not be written.
    #[error("its entries could not be written")]
    Entries,
}

impl Dataplane {
    /// Nothing desired, nothing known.
    pub fn new(config: Config) -> Self {
        Self {
            policies: Policies::new(config.host_firewall),
            services: Services::new(config.node.clone(), config.balancing),
            exemptions: Exemptions::default(),
            config,
            ipcache: Ipcache::new(),
            named: Named::default(),
            endpoints: Endpoints::new(),
            routes: Tracker::new(),
            failed: BTreeMap::new(),
            slotless: HashSet::new(),
            adopted: false,
        }
    }

    /// Learns what the kernel holds. To be called once, before anything else; `now` in milliseconds of any steady clock.
    ///
    /// # Errors
    /// A table could not be listed.
    pub fn adopt<K: Kernel>(&mut self, kernel: &mut K, now: u64) -> Result<(), K::Fault>
    where
        K::Fault: 'static,
    {
        let endpoints: Vec<(Addr, Endpoint)> = kernel.list()?;
        self.policies.adopt_slots(endpoints.iter().map(|(_, entry)| (entry.identity, SlotIndex(entry.slot))));
        self.endpoints.tracker.observe(endpoints);
        let (slots, rules) = (kernel.list()?, kernel.list()?);
        self.policies.switched.adopt(slots, rules, now);
        let (services, backends) = (kernel.list()?, kernel.list()?);
        self.services.switched.adopt(services, backends, now);
        self.exemptions.tracker.refresh(kernel)?;
        self.ipcache.tracker.refresh(kernel)?;
        self.adopted = true;
        self.routes.refresh(kernel)?;
        self.endpoints.neighbours.refresh(kernel)?;
        Ok(())
    }

    /// Takes changed parts.
    pub fn update<'a>(&mut self, keys: impl IntoIterator<Item = &'a PartKey>, parts: &dyn Parts) {
        for key in keys {
            self.update_one(key, parts);
        }
        self.settle_names(parts);
    }

    /// Takes names of addresses, as DNS answers told them: lower case, with a dot at the end. An empty set: it has none any more.
    pub fn set_names(
        &mut self,
        names: impl IntoIterator<Item = (IpAddr, BTreeSet<String>)>,
        parts: &dyn Parts,
    ) {
        for (address, names) in names {
            self.named.set_names(address, names);
        }
        self.settle_names(parts);
    }

    fn settle_names(&mut self, parts: &dyn Parts) {
        for address in self.named.take_dirty() {
            let base = self.ipcache.base_of(&self.config, address, parts);
            let identity = self.named.settle(address, base);
            self.ipcache.set_named(&self.config, address, identity, parts);
        }
        if self.named.take_moved() {
            for identity in self.policies.restricted() {
                if let Some(Part::Policy(policy)) = parts.get(&PartKey::policy(identity)) {
                    self.policies.set(identity, Some(&self.named.expand(policy)));
                }
            }
        }
    }

    /// A policy as it is in force: with entries for identities of named addresses in place of names.
    #[must_use]
    pub fn expand(&self, policy: &Policy) -> Policy {
        self.named.expand(policy)
    }

    /// Base identity and patterns of every identity that stands for named addresses.
    pub fn named_identities(&self) -> impl Iterator<Item = (u32, u32, &BTreeSet<String>)> {
        self.named.meanings().map(|(number, meaning)| (number, meaning.base, &meaning.patterns))
    }

    /// A Service as this node has it: one entry for each of its addresses and ports that are not another's.
    pub fn frontends<'a>(
        &'a self,
        part: &'a PartKey,
        service: &'a Service,
    ) -> impl Iterator<Item = Frontend<'a>> {
        self.services.frontends(part, service)
    }

    /// Ports of the node that lead to its pods (`hostPort`), one entry for each address of the node: the part of the pod, the frontend as
    /// sockets find it, and the pod's address and port.
    pub fn host_ports(&self) -> impl Iterator<Item = (&PartKey, &ServiceKey, &BackendEntry)> {
        self.services.host_ports()
    }

    /// Rules about DNS questions, by identity of who asks.
    pub fn dns_rules(&self) -> &BTreeMap<u32, Vec<DnsRule>> {
        self.policies.dns_rules()
    }

    fn update_one(&mut self, key: &PartKey, parts: &dyn Parts) {
        let rest = key.0.split_once('/').map_or("", |(_, rest)| rest);
        match (key.kind(), parts.get(key)) {
            ("endpoint", None) => self.set_endpoint(key, None),
            ("endpoint", Some(Part::Endpoint(part))) => self.set_endpoint(key, Some(part)),
            ("policy", part) => {
                let policy = part
                    .and_then(|part| if let Part::Policy(policy) = part { Some(&**policy) } else { None });
                if let Ok(identity) = rest.parse() {
                    self.named.set_policy(identity, policy);
                    let expanded = policy.map(|policy| self.named.expand(policy));
                    self.policies.set(identity, expanded.as_ref());
                }
            }
            ("address", part) => {
                let part =
                    part.and_then(|part| if let Part::Address(part) = part { Some(part) } else { None });
                if let Some(address) = address_of(key) {
                    self.ipcache.set_address(&self.config, address, part);
                    self.named.rebase(&IpNet::from(address));
                }
            }
            ("prefix", part) => {
                let part =
                    part.and_then(|part| if let Part::Prefix(part) = part { Some(part) } else { None });
                if let Some(prefix) = prefix_of(key) {
                    self.ipcache.set_prefix(&self.config, prefix, part, parts);
                    self.named.rebase(&prefix);
                }
            }
            ("node", part) => {
                let node = part.and_then(|part| if let Part::Node(node) = part { Some(node) } else { None });
                self.ipcache.set_node(&self.config, rest, node, parts);
                self.named.rebase_all();
                self.reroute();
                if rest == self.config.node {
                    let addresses = self.node_addresses();
                    for key in self.services.move_to(node.map_or("", |node| &node.zone), &addresses) {
                        self.update_one(&key, parts);
                    }
                    let pods: Vec<PartKey> = self.endpoints.with_host_ports().cloned().collect();
                    pods.iter().for_each(|key| self.open_host_ports(key));
                }
            }
            ("service", part) => {
                let part =
                    part.and_then(|part| if let Part::Service(part) = part { Some(part) } else { None });
                self.services.set(key, part);
            }
            ("redirect", part) => {
                let part =
                    part.and_then(|part| if let Part::Redirect(part) = part { Some(part) } else { None });
                self.services.set_redirect(key, part);
                self.exemptions.set(key, part);
                self.exemptions.follow(&self.endpoints);
            }
            _ => {}
        }
    }

    fn set_endpoint(&mut self, key: &PartKey, part: Option<&cilium_api::parts::Endpoint>) {
        let old = self.endpoints.plan(key, part);
        let had_slot = !self.slotless.remove(key);
        if let Some(part) = part
            && self.policies.acquire(part.identity).is_none()
        {
            self.slotless.insert(key.clone());
        }
        if let Some(old) = old {
            if let Some(part) = part.filter(|part| part.identity != old.identity) {
                self.policies.joined(part.identity);
            }
            self.disconnect(&old);
            if had_slot {
                self.policies.release(old.identity);
            }
        }
        self.open_host_ports(key);
        self.connect(key);
        self.follow_exemptions();
    }

    fn follow_exemptions(&mut self) {
        if !self.exemptions.is_empty() {
            self.exemptions.follow(&self.endpoints);
        }
    }

    fn open_host_ports(&mut self, key: &PartKey) {
        let own = self.node_addresses();
        let (ports, addresses) = self
            .endpoints
            .planned(key)
            .map_or((&[][..], &[][..]), |planned| (&planned.host_ports, &planned.addresses));
        self.services.set_host_ports(key, ports, addresses, &own);
    }

    fn disconnect(&mut self, planned: &Planned) {
        for address in self.endpoints.clear(planned) {
            self.routes.remove(&IpNet::from(address));
        }
    }

    fn connect(&mut self, key: &PartKey) {
        let Some(planned) = self.endpoints.planned(key).cloned() else { return };
        let Some(slot) = self.policies.slot(planned.identity) else { return };
        let Some(device) = self.endpoints.fill(&planned, slot) else { return };
        for address in planned.addresses {
            let source = self.router(address.is_ipv4());
            self.routes.set(IpNet::from(address), Route { device, via: None, source, mtu: None });
        }
    }

    /// Addresses of pods and nodes that stand for another identity, or for nobody, since the last call. Established connections are not judged
    /// again for that: whoever owns the connection table has to forget those of these addresses. After
    /// [`Dataplane::adopt`], the first call also names what changed while no agent ran; it must come after the update.
    pub fn take_reassigned(&mut self) -> Vec<Addr> {
        if std::mem::take(&mut self.adopted) {
            self.ipcache.compare_adopted();
        }
        std::mem::take(&mut self.ipcache.reassigned).into_iter().collect()
    }

    /// Whether an address stands for no pod and no node.
    pub fn is_nobodys(&self, address: &Addr) -> bool {
        self.ipcache.is_nobodys(address)
    }

    /// Takes how an endpoint is linked, or that it is not any more.
    pub fn link(&mut self, id: u16, link: Option<Link>) {
        let planned = self.endpoints.by_id(id).map(|(key, planned)| (key.clone(), planned.clone()));
        if let Some((_, planned)) = &planned {
            self.disconnect(planned);
        }
        self.endpoints.link(id, link);
        if let Some((key, _)) = planned {
            self.connect(&key);
        }
        self.follow_exemptions();
    }

    /// A node changed: routes to other nodes, and those to pods when our own router address is another.
    fn reroute(&mut self) {
        let mut desired = self.ipcache.routes(&self.config);
        for (address, entry) in self.endpoints.tracker.desired() {
            if let Some(address) = address.ip() {
                let source = self.router(address.is_ipv4());
                let route = Route { device: entry.ifindex, via: None, source, mtu: None };
                desired.push((IpNet::from(address), route));
            }
        }
        self.routes.replace_desired(desired);
    }

    /// The node's own router address of a family.
    pub fn router(&self, v4: bool) -> Option<IpAddr> {
        self.ipcache.node(&self.config.node)?.router(v4)
    }

    /// Prefixes from which the node's pods have their addresses.
    pub fn pod_prefixes(&self) -> Vec<IpNet> {
        self.ipcache.node(&self.config.node).map(|facts| facts.prefixes.clone()).unwrap_or_default()
    }

    /// The node's own addresses, as the operator knows them.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        self.ipcache.node(&self.config.node).map(|facts| facts.addresses.clone()).unwrap_or_default()
    }

    /// The plan of a pod.
    pub fn planned(&self, namespace: &str, pod: &str) -> Option<&Planned> {
        self.endpoints.planned(&PartKey::endpoint(namespace, pod))
    }

    /// The plan with this number, and the key of its part.
    pub fn planned_by_id(&self, id: u16) -> Option<(&PartKey, &Planned)> {
        self.endpoints.by_id(id)
    }

    /// Pods that are planned and linked.
    pub fn connected(&self) -> usize {
        self.endpoints.connected()
    }

    /// Generation and content of the policy in force for an identity with endpoints.
    pub fn policy(&self, identity: u32) -> Option<(u32, &Compiled)> {
        self.policies.switched.in_force(self.policies.slot(identity)?)
    }

    /// The identity whose policy is in force under a generation.
    pub fn identities_of(&self, generation: u32) -> Vec<u32> {
        self.policies.identities_of(generation)
    }

    /// Whether an endpoint works.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self, id: u16) -> Result<(), Unready> {
        let (_, planned) = self.endpoints.by_id(id).ok_or(Unready::Plan)?;
        self.endpoints.link_of(planned).ok_or(Unready::Link)?;
        let slot = self.policies.slot(planned.identity).ok_or(Unready::Policy)?;
        self.policies.switched.in_force(slot).ok_or(Unready::Policy)?;
        let mut pending = self.endpoints.tracker.pending();
        let waits = |change: Change<'_, Addr, Endpoint>| match change {
            Change::Set(address, _) | Change::Delete(address) => {
                address.ip().is_some_and(|address| planned.addresses.contains(&address))
            }
        };
        if pending.any(waits) { Err(Unready::Entries) } else { Ok(()) }
    }

    /// Brings the kernel in line with what is desired; `now` in milliseconds.
    ///
    /// The order: backends and identities of peers first, then policies, then the endpoints that use them; what became
    /// superfluous goes last. Without changes nothing is called.
    ///
    /// Policies that would be too open to an address whose entry of the ipcache cannot be written are closed to what it is taken for.
    ///
    /// When prefixes outside of the cluster get other identities, every policy that restricts anything gets a new generation
    /// afterwards: connections to addresses inside were judged for another identity, and are judged again so.
    pub fn apply<K: Kernel>(&mut self, kernel: &mut K, now: u64)
    where
        K::Fault: 'static,
    {
        self.services.switched.switch(kernel, now);
        // Whoever is exempt needs what is kept for it.
        let report = self.exemptions.tracker.apply(kernel);
        let owners = report
            .failures
            .iter()
            .filter_map(|(key, _)| Some((*key, self.exemptions.owner(key)?.0.to_string())));
        let owners: HashMap<ExemptKey, String> = owners.collect();
        self.note("exemptions", &report, |key| owners.get(key).cloned().unwrap_or_default());
        // What names stand for is allowed before the address stands for it; what is left of a name goes the other way round.
        if std::mem::take(&mut self.named.grown) {
            self.policies.switched.switch(kernel, now);
        }
        let moving = self.ipcache.moving_prefixes(&self.named);
        let report = self.ipcache.tracker.apply(kernel);
        self.note("ipcache", &report, ipcache_name);
        if moving.iter().any(|key| report.failures.iter().all(|(failed, _)| failed != key)) {
            self.policies.renew();
        }
        if report.is_complete() {
            self.named.forget_gone();
        }
        self.policies.set_displaced(self.ipcache.displaced(&self.config));
        self.policies.switched.switch(kernel, now);
        let report = self.endpoints.tracker.apply(kernel);
        let names: BTreeMap<Addr, String> = self.names(report.failures.iter().map(|(key, _)| *key));
        self.note("endpoints", &report, |key| names.get(key).cloned().unwrap_or_default());
        self.apply_links(kernel);
        self.drop_unwanted(kernel, now);
    }

    fn names(&self, addresses: impl Iterator<Item = Addr>) -> BTreeMap<Addr, String> {
        let name = |address: IpAddr| {
            self.endpoints.by_address(address).map_or_else(|| address.to_string(), |key| key.0.to_string())
        };
        addresses.filter_map(|addr| Some((addr, name(addr.ip()?)))).collect()
    }

    fn apply_links<K: Kernel>(&mut self, kernel: &mut K) {
        let report = self.endpoints.neighbours.apply(kernel);
        self.note("neighbours", &report, |key: &Neighbour| format!("neighbour {}", key.address));
        let report = self.routes.apply(kernel);
        self.note("routes", &report, |key: &IpNet| format!("route {key}"));
    }

    fn drop_unwanted<K: Kernel>(&mut self, kernel: &mut K, now: u64)
    where
        K::Fault: 'static,
    {
        if !self.policies.switched.is_settled() {
            // What pods still use; the node's own slot goes when it has no policy of its own any more.
            let used: HashSet<u16> = self.endpoints.tracker.actual().map(|(_, entry)| entry.slot).collect();
            self.policies.switched.drop_unwanted(kernel, now, |slot| !used.contains(&slot.0));
        }
        self.services.switched.drop_unwanted(kernel, now, |_| true);
    }

    fn note<T, E: std::error::Error>(
        &mut self,
        table: &'static str,
        report: &Report<T, E>,
        name: impl Fn(&T) -> String,
    ) {
        if report.is_complete() {
            self.failed.remove(table);
            return;
        }
        let failures = report.failures.iter();
        let failures = failures.map(|(key, error)| Failure { object: name(key), message: chain(error) });
        self.failed.insert(table, failures.collect());
    }

    /// Removes what [`Dataplane::apply`] put out of force at least [`crate::GRACE`] before `now`. Returns whether something is
    /// left to be removed later.
    pub fn sweep<K: Kernel>(&mut self, kernel: &mut K, now: u64) -> bool {
        self.policies.switched.sweep(kernel, now);
        self.services.switched.sweep(kernel, now);
        self.has_retired()
    }

    /// Something waits for [`Dataplane::sweep`].
    pub fn has_retired(&self) -> bool {
        self.policies.switched.has_retired() || self.services.switched.has_retired()
    }

    /// Reads everything back, repairs what somebody else changed, and tries again what failed. Returns how many entries
    /// were not as believed.
    ///
    /// # Errors
    /// A table could not be listed or repaired; the others were.
    pub fn check<K: Kernel>(&mut self, kernel: &mut K, now: u64) -> Result<usize, K::Fault>
    where
        K::Fault: 'static,
    {
        let drifts = [
            self.endpoints.tracker.refresh(kernel).map(Drift::total),
            self.ipcache.tracker.refresh(kernel).map(Drift::total),
            self.exemptions.tracker.refresh(kernel).map(Drift::total),
            self.refresh_wires(kernel),
            self.policies.switched.repair(kernel),
            self.services.switched.repair(kernel),
        ];
        self.policies.switched.retry();
        self.services.switched.retry();
        self.apply(kernel, now);
        drifts.into_iter().try_fold(0, |sum, drift| Ok(sum + drift?))
    }

    fn refresh_wires<K: Kernel>(&mut self, kernel: &mut K) -> Result<usize, K::Fault> {
        if !kernel.is_settled() {
            return Ok(0);
        }
        let drift = self.routes.refresh(kernel)?.total() + self.endpoints.neighbours.refresh(kernel)?.total();
        Ok(drift.saturating_sub(kernel.refused()))
    }

    /// The part of [`Dataplane::check`] that concerns the node's own pods and policies: what an acknowledgement of a revision
    /// speaks of.
    ///
    /// # Errors
    /// A table could not be listed or repaired.
    pub fn check_pods<K: Kernel>(&mut self, kernel: &mut K, now: u64) -> Result<usize, K::Fault>
    where
        K::Fault: 'static,
    {
        let drift =
            self.endpoints.tracker.refresh(kernel)?.total() + self.policies.switched.repair(kernel)?;
        self.apply(kernel, now);
        Ok(drift)
    }

    /// Objects that are not in force.
    pub fn failures(&self) -> Vec<Failure> {
        let policies = self.policies.failures().into_iter();
        let slotless = self.slotless.iter().map(|key| (key.clone(), "all policy slots are taken".to_owned()));
        let services = self.services.failures().into_iter().chain(self.exemptions.failures(&self.endpoints));
        let named = policies.chain(services).chain(self.ipcache.failures()).chain(slotless);
        let mut failures: Vec<Failure> =
            named.map(|(key, message)| Failure { object: key.0.to_string(), message }).collect();
        failures.extend(self.failed.values().flatten().cloned());
        failures.sort_unstable_by(|a, b| (&a.object, &a.message).cmp(&(&b.object, &b.message)));
        failures.dedup();
        failures
    }

    /// Sizes of the tables as desired: endpoints, ipcache entries, routes.
    pub fn sizes(&self) -> [usize; 3] {
        [
            self.endpoints.tracker.desired().count(),
            self.ipcache.tracker.desired().count(),
            self.routes.desired().count(),
        ]
    }
}

/// What an entry of the ipcache is called in failures.
fn ipcache_name(key: &IpcacheKey) -> String {
    let Some(address) = Addr(key.address).ip() else { return String::new() };
    let length = key.prefix_len.saturating_sub(if address.is_ipv4() { 96 } else { 0 });
    match (address, length) {
        (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => PartKey::address(address).0.to_string(),
        _ => PartKey::prefix(format_args!("{address}/{length}")).0.to_string(),
    }
}
