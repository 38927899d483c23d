//! The speaker: all routers of the node, behind one handle.

mod listening;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::num::NonZeroU8;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cilium_bfd::{Bfd, Change, Key, Parameters, State as BfdMachine};
use cilium_rest::bgp::{BfdState, Config, Family, Instance, Peer, RouteChanges, Routes};
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use self::listening::Listening;
use crate::common::Common;
use crate::config::{self, Soft, Spec};
use crate::export::{Table, export};
use crate::kept::Kept;
use crate::peer::{Message, Orders, Status, Task, quiet, unix_time};
use crate::session::Cease;

/// A session that changes is connected anew after this: the peer shall have heard of the end of the old one.
const PAUSE: Duration = Duration::from_millis(500);

/// Instance and name of a peer.
type Name = (String, String);

/// A peer and its task.
#[derive(Debug)]
struct Neighbour {
    spec: Spec,
    soft: Soft,
    orders: watch::Sender<Arc<Orders>>,
    messages: mpsc::UnboundedSender<Message>,
    status: Arc<Status>,
    task: JoinHandle<()>,
}

/// Which prefixes, for whom: instance, family, advertisements, and whether the peer is in our AS.
type Audience = (String, Family, Vec<String>, bool);

#[derive(Debug, Default)]
struct State {
    config: Config,
    /// `None`: nobody told them yet.
    routes: Option<Arc<Routes>>,
    /// When each came, in seconds since 1970.
    since: HashMap<IpNet, u32>,
    neighbours: BTreeMap<Name, Neighbour>,
    tables: HashMap<Audience, Arc<Table>>,
    listening: BTreeMap<String, Listening>,
    bfd: Option<Bfd>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    common: Arc<Common>,
    kept: Kept,
    /// Prefixes changed since they were kept.
    unkept: Notify,
}

/// Changes of prefixes are not taken before there are prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no prefixes were told yet: PUT all of them first")]
pub struct NoRoutes;

/// Handle to the speaker; copies are the same one.
#[derive(Clone, Debug)]
pub struct Speaker(Arc<Shared>);

impl Speaker {
    /// Starts with what `directory` keeps, and keeps things there. To be called in a runtime.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let kept = Kept::open(directory)?;
        let config = kept.config().filter(|config| {
            let result = config::check(config);
            result.inspect_err(|error| tracing::warn!(%error, "the kept configuration is not taken")).is_ok()
        });
        let routes = kept.routes();
        let common = Arc::new(Common::new(config.is_some()));
        let shared = Shared { state: Mutex::default(), common, kept, unkept: Notify::new() };
        let speaker = Self(Arc::new(shared));
        if let Some(routes) = routes {
            speaker.replace_routes(routes);
        }
        if let Some(config) = config {
            tracing::info!(instances = config.instances.len(), "starting with what was kept");
            speaker.apply(config);
        }
        tokio::spawn(speaker.clone().keep());
        Ok(speaker)
    }

    /// Ends sessions whose peers make more prefixes known than this, of both families together ([`crate::MAX_PREFIXES`] without it).
    pub fn set_max_prefixes(&self, most: u64) {
        self.0.common.set_max_prefixes(most);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is what the configuration says from now on. Sessions that it does not change stay.
    ///
    /// # Errors
    /// The configuration cannot be; nothing changes then.
    pub fn set_config(&self, config: Config) -> Result<(), config::Error> {
        config::check(&config)?;
        if let Err(error) = self.0.kept.keep_config(&config) {
            tracing::error!(%error, "the configuration is not kept: a restarted speaker will have to wait for the agent");
        }
        self.apply(config);
        Ok(())
    }

    /// Has these prefixes from now on, and no others.
    pub fn set_routes(&self, routes: Routes) {
        self.replace_routes(routes);
        self.0.unkept.notify_one();
    }

    /// Changes some prefixes.
    ///
    /// # Errors
    /// None were told yet: what is said to peers would not be all of them.
    pub fn change_routes(&self, changes: RouteChanges) -> Result<(), NoRoutes> {
        {
            let mut state = self.state();
            let mut routes = state.routes.take().ok_or(NoRoutes)?;
            let now = unix_time() as u32;
            let all = Arc::make_mut(&mut routes);
            for prefix in changes.removed {
                all.remove(&prefix);
                state.since.remove(&prefix);
            }
            for (prefix, names) in changes.set {
                all.insert(prefix, names);
                state.since.entry(prefix).or_insert(now);
            }
            state.routes = Some(routes);
            state.tables.clear();
            self.order(&mut state);
        }
        self.0.unkept.notify_one();
        Ok(())
    }

    fn replace_routes(&self, routes: Routes) {
        let mut state = self.state();
        let now = unix_time() as u32;
        state.since.retain(|prefix, _| routes.contains_key(prefix));
        for prefix in routes.keys() {
            state.since.entry(*prefix).or_insert(now);
        }
        state.routes = Some(Arc::new(routes));
        state.tables.clear();
        self.order(&mut state);
    }

    fn apply(&self, config: Config) {
        let mut state = self.state();
        let wanted = specs(&config);
        let gone: Vec<Name> =
            state.neighbours.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        let mut left = BTreeSet::new();
        for name in gone {
            if let Some(neighbour) = state.neighbours.remove(&name) {
                left.insert(neighbour.spec.address);
                // The task ends by itself.
                drop(neighbour.messages.send(Message::Stop(Cease::Deconfigured)));
            }
        }
        state.config = config;
        state.tables.clear();
        for (name, (spec, soft)) in wanted {
            match state.neighbours.get_mut(&name) {
                Some(neighbour) if neighbour.spec == spec => neighbour.soft = soft,
                _ => {
                    let pause = if left.contains(&spec.address) { PAUSE } else { Duration::ZERO };
                    self.replace(&mut state, name, (spec, soft), pause);
                }
            }
        }
        self.order(&mut state);
        self.listen(&mut state);
        self.watch(&mut state);
        self.0.common.changed();
    }

    /// Starts the task of a peer, in the place of an earlier one.
    fn replace(&self, state: &mut State, name: Name, (spec, soft): (Spec, Soft), mut pause: Duration) {
        let (mut count, mut bfd, mut bfd_problem) = (0, None, None);
        if let Some(before) = state.neighbours.remove(&name) {
            drop(before.messages.send(Message::Stop(Cease::ConfigurationChange)));
            (count, bfd, bfd_problem) =
                before.status.change(|it| (it.established_count, it.bfd, it.bfd_problem.take()));
            // A session of BFD that goes on has no news to tell.
            let way = |spec: &Spec| (spec.local_address, spec.address, spec.device.clone());
            if way(&before.spec) != way(&spec) {
                (bfd, bfd_problem) = (None, None);
            }
            pause = PAUSE;
        }
        let (orders, ordered) = watch::channel(Arc::new(Orders::default()));
        let (messages, received) = mpsc::unbounded_channel();
        let status = Arc::new(Status::new(unix_time(), count));
        status.change(|it| (it.bfd, it.bfd_problem) = (bfd, bfd_problem));
        let common = self.0.common.clone();
        let task = Task::new(common, spec.clone(), status.clone(), ordered, received, pause);
        let task = tokio::spawn(task.run());
        state.neighbours.insert(name, Neighbour { spec, soft, orders, messages, status, task });
    }

    /// Tells every peer's task what it has to say.
    fn order(&self, state: &mut State) {
        let State { config, routes, neighbours, tables, .. } = state;
        let is_known = routes.is_some();
        let routes = routes.clone().unwrap_or_default();
        for (instance, peer) in peers(config) {
            let Some(neighbour) = neighbours.get(&name(instance, peer)) else { continue };
            let mut of_peer = BTreeMap::new();
            let kinds: &[bool] = match peer.asn {
                0 => &[false, true],
                asn if asn == instance.asn => &[true],
                _ => &[false],
            };
            for (family, advertisements) in &peer.families {
                for is_internal in kinds {
                    let audience = (instance.name.clone(), *family, advertisements.clone(), *is_internal);
                    let table = tables.entry(audience).or_insert_with(|| {
                        let known = &instance.advertisements;
                        Arc::new(export(&routes, known, advertisements, *family, *is_internal))
                    });
                    of_peer.insert((*family, *is_internal), table.clone());
                }
            }
            let orders = Orders { soft: neighbour.soft.clone(), tables: of_peer, is_known };
            neighbour.orders.send_replace(Arc::new(orders));
        }
    }

    /// Has the BFD sessions that the configuration names.
    fn watch(&self, state: &mut State) {
        let now = self.0.common.now();
        let wanted: BTreeMap<Key, Parameters> = state
            .config
            .instances
            .iter()
            .flat_map(|instance| &instance.peers)
            .filter(|peer| peer.bfd.is_some_and(|bfd| quiet(bfd) <= now))
            .filter_map(|peer| Some((bfd_key(peer), bfd_parameters(peer)?)))
            .collect();
        let times = state.neighbours.values().filter_map(|it| it.soft.bfd).map(quiet);
        if let Some(next) = times.filter(|at| *at > now).min() {
            let speaker = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(speaker.0.common.instant(Some(next))).await;
                speaker.watch(&mut speaker.state());
            });
        }
        for neighbour in state.neighbours.values() {
            let has_bfd = neighbour.soft.bfd.is_some();
            neighbour.status.change(|it| {
                it.bfd = has_bfd.then(|| it.bfd.unwrap_or_default());
                it.bfd_problem = it.bfd_problem.take().filter(|_| has_bfd);
            });
        }
        if state.bfd.is_none() && !wanted.is_empty() {
            self.start_bfd(state);
        }
        if let Some(bfd) = &state.bfd {
            bfd.set(wanted);
        }
    }

    fn start_bfd(&self, state: &mut State) {
        let problem = match Bfd::start() {
            Ok((bfd, changes)) => {
                tokio::spawn(self.clone().follow(changes));
                state.bfd = Some(bfd);
                None
            }
            Err(error) => {
                tracing::error!(%error, "there is no BFD");
                Some(format!("its thread cannot be started: {error}"))
            }
        };
        for neighbour in state.neighbours.values().filter(|it| it.soft.bfd.is_some()) {
            neighbour.status.change(|it| it.bfd_problem.clone_from(&problem));
        }
    }

    async fn follow(self, mut changes: mpsc::UnboundedReceiver<Change>) {
        while let Some(change) = changes.recv().await {
            if let Some(problem) = &change.problem {
                tracing::warn!(peer = %change.key.peer, problem, "BFD does not work");
            }
            self.bfd_changed(&change);
        }
    }

    fn bfd_changed(&self, change: &Change) {
        let now = match change.state {
            BfdMachine::AdminDown => BfdState::AdminDown,
            BfdMachine::Down => BfdState::Down,
            BfdMachine::Init => BfdState::Init,
            BfdMachine::Up => BfdState::Up,
        };
        let state = self.state();
        for (instance, peer) in peers(&state.config) {
            if peer.bfd.is_none() || bfd_key(peer) != change.key {
                continue;
            }
            let Some(neighbour) = state.neighbours.get(&name(instance, peer)) else { continue };
            let before = neighbour.status.change(|it| {
                it.bfd_problem.clone_from(&change.problem);
                it.bfd.replace(now)
            });
            // AdminDown, on either side, says nothing of the way to the peer (RFC 5882, 3.2).
            let is_lost = now == BfdState::Down && change.remote != BfdMachine::AdminDown;
            if before == Some(BfdState::Up) && is_lost {
                drop(neighbour.messages.send(Message::BfdDown));
            }
        }
        self.0.common.changed();
    }

    /// Writes prefixes to disk, not more often than it takes.
    async fn keep(self) {
        loop {
            self.0.unkept.notified().await;
            let speaker = self.clone();
            let result = tokio::task::spawn_blocking(move || speaker.keep_routes()).await;
            if result.is_err() {
                return;
            }
        }
    }

    fn keep_routes(&self) {
        let Some(routes) = self.state().routes.clone() else { return };
        if let Err(error) = self.0.kept.keep_routes(&routes) {
            tracing::error!(%error, "prefixes are not kept: a restarted speaker will have to wait for the agent");
        }
    }

    /// Ends all sessions: without a word where the peer keeps routes for a restart, and else with a NOTIFICATION.
    pub async fn shut_down(&self) {
        let neighbours = {
            let mut state = self.state();
            state.listening.clear();
            std::mem::take(&mut state.neighbours)
        };
        for neighbour in neighbours.values() {
            drop(neighbour.messages.send(Message::Shutdown));
        }
        for neighbour in neighbours.into_values() {
            if let Err(error) = neighbour.task.await {
                tracing::error!(%error, "the task of a peer failed");
            }
        }
        self.keep_routes();
    }
}

fn name(instance: &Instance, peer: &Peer) -> Name {
    (instance.name.clone(), peer.name.clone())
}

fn peers(config: &Config) -> impl Iterator<Item = (&Instance, &Peer)> {
    config.instances.iter().flat_map(|instance| instance.peers.iter().map(move |peer| (instance, peer)))
}

fn specs(config: &Config) -> BTreeMap<Name, (Spec, Soft)> {
    let both =
        |(instance, peer)| (name(instance, peer), (Spec::new(instance, peer), Soft::new(instance, peer)));
    peers(config).map(both).collect()
}

fn bfd_key(peer: &Peer) -> Key {
    Key { local: peer.local_address, peer: peer.address, device: peer.device.clone() }
}

fn bfd_parameters(peer: &Peer) -> Option<Parameters> {
    let bfd = peer.bfd?;
    Some(Parameters {
        transmit: Duration::from_millis(bfd.transmit.into()),
        receive: Duration::from_millis(bfd.receive.into()),
        multiplier: NonZeroU8::new(bfd.multiplier)?,
    })
}
