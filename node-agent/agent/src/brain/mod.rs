//! The single owner of desired state, dataplane and tables. Everything here is synchronous and short; the loop in
//! [`crate::run`] calls it with what arrives, one thing after the other.

mod endpoints;
mod health;
mod names;
mod redirects;
mod report;
mod services;
mod sockets;
mod start;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cilium_api::node_state::{AppliedState, Failure};
use cilium_api::parts::{Part, PartKey};
use cilium_bpf::layout::Addr;
use cilium_dataplane::{Dataplane, GRACE, Parts};
use cilium_drivers::netlink::KubeProxyMode;
use cilium_drivers::probe;
use cilium_rest::model;
use cilium_state::{State, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ack::Told;
use crate::announce::Announcements;
use crate::bgp::Routing;
use crate::clock::Clock;
use crate::config::Settings;
use crate::conflist::Conflist;
use crate::flows;
use crate::host;
use crate::host::{Facts, Host};
use crate::kernel::Tables;
use crate::links::Links;
use crate::pressure;
use crate::pressure::Pressure;
use crate::sockets::Teller;
use crate::watch::Seen;

pub(crate) use endpoints::Waiter;
pub(crate) use health::Health;
pub(crate) use names::DnsNumbers;
use names::Names;
pub(crate) use report::{Numbers, Timing};
pub(crate) use views::Generations;

/// Milliseconds between two times that everything is read back.
const CHECK_EVERY: u64 = 10_000;

/// Milliseconds in which changes are collected before the operator is told of them.
const ACK_AFTER: u64 = 20;

/// Milliseconds between two times that the operator is told: entries are read back each time, which takes a processor from new
/// pods while many come at once.
const ACK_EVERY: u64 = 200;

/// Milliseconds in which addresses that stand for somebody else are collected before their connections are forgotten, and sockets
/// are told: one pass over a table serves them all.
const FORGET_AFTER: u64 = 200;

/// Milliseconds without a new pod before programs of pods' devices are settled.
const SETTLE_AFTER: u64 = 2_000;

/// The API server takes so many failures by name; all are counted.
const NAMED_FAILURES: usize = 10;

/// The parts in force, as the dataplane asks for them.
struct Desired<'a>(&'a State);

impl Parts for Desired<'_> {
    fn get(&self, key: &PartKey) -> Option<&Part> {
        self.0.get(key)
    }
    fn all(&self) -> Box<dyn Iterator<Item = (&PartKey, &Part)> + '_> {
        Box::new(self.0.iter())
    }
}

/// A node that works: its devices and programs, its tables, and what they shall hold.
struct Running {
    host: Host,
    tables: Tables,
    dataplane: Dataplane,
}

/// When something has to be done, in milliseconds of the clock.
#[derive(Default)]
struct Due {
    check: u64,
    sweep: Option<u64>,
    ack: Option<u64>,
    next_ack: u64,
    forget: Option<u64>,
    tell: Option<u64>,
    settle: Option<u64>,
    /// A set-up that failed is not tried again before.
    start: u64,
}

/// What goes on beside the loop, and tells it.
pub(crate) struct Outside {
    pub(crate) health: Health,
    pub(crate) announcements: Announcements,
    pub(crate) routing: Routing,
    pub(crate) pressures: watch::Receiver<Vec<Pressure>>,
    /// Modes of kube-proxy of which there are rules on the node.
    pub(crate) kube_proxy: watch::Receiver<Vec<KubeProxyMode>>,
}

pub(crate) struct Brain {
    settings: Settings,
    clock: Clock,
    state: State,
    store: Store,
    links: Links,
    names: Names,
    outside: Outside,
    conflist: Conflist,
    running: Option<Running>,
    /// Why the node does not work yet.
    obstacle: String,
    /// The last set-up failed.
    set_up_failure: Option<Failure>,
    /// Parts that changed since the dataplane was told.
    changed: BTreeSet<PartKey>,
    waiters: Vec<Waiter>,
    /// Addresses whose connections were allowed to somebody else.
    reassigned: HashSet<Addr>,
    teller: Teller,
    due: Due,
    told: watch::Sender<Option<Told>>,
    connections: BTreeMap<&'static str, Result<(), String>>,
    server_version: String,
    store_failure: Option<Failure>,
    repairs: i64,
    timing: Timing,
    settling: Option<JoinHandle<()>>,
    /// Programs of pods that somebody else took away, found by that task.
    missing_programs: Arc<AtomicUsize>,
    features: Vec<model::Feature>,
}

impl Brain {
    /// Starts from what is on disk. The dataplane is set up at once when that is complete.
    pub(crate) fn new(
        settings: Settings,
        told: watch::Sender<Option<Told>>,
        rules: watch::Sender<cilium_rest::dns::Rules>,
        outside: Outside,
    ) -> anyhow::Result<Self> {
        let store = Store::open(&settings.desired_dir())?;
        let links = Links::open(&settings.links_dir())?;
        let names = Names::open(settings.names_file(), settings.names, rules);
        let conflist = Conflist::new(&settings);
        let clock = Clock::start();
        let mut brain = Self {
            clock,
            state: State::new(),
            store,
            links,
            names,
            outside,
            conflist,
            running: None,
            obstacle: "the node's state has not been read yet".to_owned(),
            set_up_failure: None,
            changed: BTreeSet::new(),
            waiters: Vec::new(),
            reassigned: HashSet::new(),
            teller: Teller::default(),
            due: Due { check: clock.now() + CHECK_EVERY, ..Due::default() },
            told,
            connections: BTreeMap::new(),
            server_version: String::new(),
            store_failure: None,
            repairs: 0,
            timing: Timing::default(),
            settling: None,
            missing_programs: Arc::default(),
            features: report::features(&probe::probe(&settings.cgroup)),
            settings,
        };
        brain.load();
        Ok(brain)
    }

    fn load(&mut self) {
        let loaded = self.store.load();
        for error in loaded.unreadable {
            tracing::warn!(error = crate::watch::chain(&error), "part of the saved state is left out");
        }
        for event in loaded.events {
            self.changed.append(&mut self.state.apply(event).keys);
        }
        self.drain_queue();
        self.settle();
    }

    /// Takes what a watch saw; [`Brain::settle`] puts it in force.
    pub(crate) fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Connection(kind, outcome) => self.see_connection(kind, outcome),
            Seen::Event(event) => {
                let mut change = self.state.apply(event);
                self.save(&change.saves);
                self.changed.append(&mut change.keys);
                self.ack_soon();
            }
        }
    }

    fn see_connection(&mut self, kind: &'static str, outcome: Result<(), String>) {
        let before = self.connections.insert(kind, outcome.clone());
        match outcome {
            Ok(()) => tracing::info!(kind, "watching"),
            Err(error) if !matches!(before, Some(Err(_))) => {
                tracing::warn!(kind, error, "the watch broke; going on with what is known");
            }
            Err(error) => tracing::debug!(kind, error, "the watch does not work yet"),
        }
    }

    /// State that cannot be kept is in force all the same: a full disk must not hold up policies. The operator is told.
    fn save(&mut self, saves: &[cilium_state::Save]) {
        if saves.is_empty() {
            return;
        }
        self.store_failure = self.store.save(saves).err().map(|error| {
            let message = format!(
                "{}: a restart without API server would find older state",
                crate::watch::chain(&error)
            );
            tracing::error!(error = message, "the state is not kept on disk");
            Failure { object: "disk".to_owned(), message }
        });
    }

    /// Puts in force what was seen.
    pub(crate) fn settle(&mut self) {
        let begin = Instant::now();
        let changed = std::mem::take(&mut self.changed);
        self.outside.health.update(&changed, &Desired(&self.state), &self.settings.node);
        self.outside.announcements.update(&changed, &Desired(&self.state));
        self.outside.routing.update(&changed, &Desired(&self.state), self.state.is_complete());
        if self.running.is_none() || self.host_changed(&changed) {
            self.start();
        } else if let Some(running) = &mut self.running
            && !changed.is_empty()
        {
            running.dataplane.update(&changed, &Desired(&self.state));
            let reassigned = running.dataplane.take_reassigned();
            self.note_reassigned(&reassigned);
            // The proxy shall know them when the first packet is redirected to it.
            self.tell_rules();
            self.apply();
            self.timing.add(begin.elapsed());
            tracing::debug!(parts = changed.len(), micros = begin.elapsed().as_micros(), "applied");
        }
        self.after_change();
    }

    /// The node has other addresses or prefixes than its programs were loaded with.
    fn host_changed(&self, changed: &BTreeSet<PartKey>) -> bool {
        let key = PartKey::node(&self.settings.node);
        let facts = self.own_facts();
        let running = self.running.as_ref().map(|running| &running.host.facts);
        changed.contains(&key) && facts.is_some() && facts.as_ref() != running
    }

    fn own_facts(&self) -> Option<Facts> {
        match self.state.get(&PartKey::node(&self.settings.node)) {
            Some(Part::Node(node)) => Some(Facts::new(node)),
            _ => None,
        }
    }

    fn after_change(&mut self) {
        let waits = self.running.as_ref().is_some_and(|running| running.dataplane.has_retired());
        if waits && self.due.sweep.is_none() {
            self.due.sweep = Some(self.clock.now() + GRACE);
        }
        self.forget_soon();
        self.tell_soon();
        self.ack_soon();
        self.answer_waiters();
    }

    fn apply(&mut self) {
        if let Some(running) = &mut self.running {
            running.dataplane.apply(&mut running.tables, self.clock.now());
        }
    }

    fn forget_soon(&mut self) {
        if !self.reassigned.is_empty() && self.due.forget.is_none() {
            self.due.forget = Some(self.clock.now() + FORGET_AFTER);
        }
    }

    /// What the operator is told may have changed.
    pub(crate) fn ack_soon(&mut self) {
        if self.due.ack.is_none() {
            self.due.ack = Some((self.clock.now() + ACK_AFTER).max(self.due.next_ack));
        }
    }

    /// When [`Brain::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline);
        let Due { check, sweep, ack, forget, tell, settle, .. } = self.due;
        let due = [Some(check), sweep, ack, forget, tell, settle, self.names.save];
        let next = due.into_iter().flatten().chain(waiters).min().unwrap_or(self.due.check);
        self.clock.instant(next)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        let now = self.clock.now();
        if self.due.sweep.is_some_and(|due| due <= now) {
            self.sweep(now);
        }
        if self.due.forget.is_some_and(|due| due <= now) {
            self.due.forget = None;
            self.forget_flows();
        }
        if self.due.tell.is_some_and(|due| due <= now) {
            self.due.tell = None;
            self.tell_sockets();
        }
        if self.due.settle.is_some_and(|due| due <= now) {
            self.due.settle = None;
            self.settle_programs();
        }
        self.save_names(now);
        if self.due.check <= now {
            self.due.check = now + CHECK_EVERY;
            self.check();
            self.forget_expired_names();
        }
        if self.due.ack.is_some_and(|due| due <= now) && !self.is_wiring() {
            self.due.ack = None;
            self.due.next_ack = now + ACK_EVERY;
            self.ack();
        }
        self.answer_waiters();
    }

    /// Routes or neighbours are on their way. What is in force is told when they are there; the next look is soon.
    fn is_wiring(&mut self) -> bool {
        let is_wiring = self.running.as_ref().is_some_and(|running| !running.tables.wires.is_settled());
        if is_wiring {
            self.due.ack = Some(self.clock.now() + ACK_AFTER);
        }
        is_wiring
    }

    fn sweep(&mut self, now: u64) {
        self.due.sweep = None;
        if let Some(running) = &mut self.running
            && running.dataplane.sweep(&mut running.tables, now)
        {
            self.due.sweep = Some(now + GRACE);
        }
    }

    /// Starts to forget connections that were allowed to somebody else.
    fn forget_flows(&mut self) {
        let addresses = std::mem::take(&mut self.reassigned);
        let bpffs = self.settings.bpffs.clone();
        tokio::task::spawn_blocking(move || match flows::forget(&bpffs, &addresses) {
            Ok(forgotten) => tracing::debug!(forgotten, addresses = addresses.len(), "forgot connections"),
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "connections of reassigned addresses stay allowed"
                );
            }
        });
    }

    /// Pods' programs stand in for links until no more pods come.
    fn settle_soon(&mut self) {
        self.due.settle = Some(self.clock.now() + SETTLE_AFTER);
    }

    /// Starts to look after the programs of pods' devices, unless the task before is still at it.
    fn settle_programs(&mut self) {
        let Some(running) = &self.running else { return };
        if self.settling.as_ref().is_some_and(|task| !task.is_finished()) {
            return self.settle_soon();
        }
        let datapath = running.host.datapath.clone();
        let devices: Vec<String> = self.links.iter().map(|(_, link)| link.interface_name.clone()).collect();
        let missing = self.missing_programs.clone();
        self.settling = Some(tokio::task::spawn_blocking(move || match host::settle(&datapath, &devices) {
            Ok(found) => drop(missing.fetch_add(found, Ordering::Relaxed)),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "programs of pods' devices are not settled");
            }
        }));
    }

    /// Reads everything back and repairs it.
    fn check(&mut self) {
        self.drain_queue();
        if !self.devices_are_there() {
            tracing::warn!("a device of the node is gone or another; setting the node up again");
            self.repairs += 1;
            self.running = None;
        } else if self
            .running
            .as_ref()
            .is_some_and(|running| !running.host.has_same_addresses(&self.settings))
        {
            tracing::info!("other devices of the node have other addresses; setting the node up again");
            self.running = None;
        }
        self.forget_lost_devices();
        let Some(running) = &mut self.running else { return self.settle() };
        let began = self.clock.now();
        let drift = running.dataplane.check(&mut running.tables, began);
        tracing::debug!(ms = self.clock.now() - began, "read the kernel back");
        match drift {
            Ok(drift) => self.note_repairs(drift, "kernel entries"),
            Err(error) => {
                tracing::error!(error = crate::watch::chain(&error), "reading the kernel back failed");
            }
        }
        let attached = self.attach_host() + self.missing_programs.swap(0, Ordering::Relaxed);
        self.note_repairs(attached, "attached programs");
        // While pods are coming, their turn comes soon anyway.
        if self.due.settle.is_none() {
            self.settle_programs();
        }
        self.conflist.ensure();
        self.after_change();
    }

    fn note_repairs(&mut self, count: usize, what: &str) {
        if count > 0 {
            tracing::warn!(count, what, "found changed by somebody else, and repaired");
            self.repairs += i64::try_from(count).unwrap_or(i64::MAX);
        }
    }

    /// Tells the operator what is in force, if that is news.
    fn ack(&mut self) {
        if let Some(running) = &mut self.running {
            match running.dataplane.check_pods(&mut running.tables, self.clock.now()) {
                Ok(drift) => self.note_repairs(drift, "kernel entries"),
                Err(error) => {
                    tracing::error!(error = crate::watch::chain(&error), "reading the kernel back failed");
                    self.due.ack = Some(self.clock.now() + CHECK_EVERY);
                    return;
                }
            }
        }
        let Some(applied) = self.applied_state() else { return };
        let told = Told { applied, condition: pressure::condition(&self.outside.pressures.borrow()) };
        self.told.send_if_modified(|sent| {
            let news = sent.as_ref() != Some(&told);
            *sent = Some(told);
            news
        });
    }

    /// Of a node whose set-up failed, only that is said: revision 0 is none.
    fn applied_state(&self) -> Option<AppliedState> {
        let (revision, digest, connected) = match (&self.running, &self.set_up_failure) {
            (Some(running), _) => {
                let accepted = self.state.accepted()?;
                (accepted.revision, accepted.digest, running.dataplane.connected())
            }
            (None, Some(_)) => (0, "", 0),
            (None, None) => return None,
        };
        let failures = self.failures();
        Some(AppliedState {
            revision,
            digest: digest.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoints: i64::try_from(connected).unwrap_or(i64::MAX),
            failure_count: i64::try_from(failures.len()).unwrap_or(i64::MAX),
            failures: failures.into_iter().take(NAMED_FAILURES).collect(),
            repairs: self.repairs,
            devices: self.outside.announcements.devices(),
            silent: self.outside.announcements.silent(),
        })
    }

    /// Everything that is not in force.
    fn failures(&self) -> Vec<Failure> {
        let mut failures = self.state.failures();
        failures.extend(self.store_failure.iter().chain(&self.set_up_failure).cloned());
        failures.extend(self.outside.health.failures());
        failures.extend(self.outside.announcements.failures());
        failures.extend(self.outside.routing.failures());
        if let Some(running) = &self.running {
            failures.extend(running.dataplane.failures());
            failures.extend(running.tables.wires.failures());
        }
        failures
    }

    /// The node works: pods can be connected.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The API server said which version it has.
    pub(crate) fn set_server_version(&mut self, version: String) {
        self.server_version = version;
    }
}
