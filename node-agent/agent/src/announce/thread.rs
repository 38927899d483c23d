//! The loop of the thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;
use cilium_announcer::{Tenure, Timings};
use cilium_api::parts::Announcement;
use cilium_bpf::layout::ANNOUNCER_AGENT;
use cilium_drivers::maps::{self, AnnouncementMaps};
use cilium_drivers::netlink::Link;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use super::decider::{Means, forget};
use super::station::Station;
use super::{Key, LeaseFailures, Message, Told};
use crate::watch::chain;

/// Programs hear at least so often that the agent is alive (less than `AGENT_ALIVE_WITHIN`).
const ALIVE_EVERY: Duration = Duration::from_millis(100);
/// A device that cannot be used is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(1);

/// Where and by what the thread works.
pub(super) struct Place {
    /// Name of the node.
    pub(super) node: String,
    pub(super) bpffs: PathBuf,
    /// `None`: by heartbeats.
    pub(super) timings: Option<Timings>,
    pub(super) told: watch::Sender<Told>,
    /// Names of the Leases that are wanted.
    pub(super) wanted: watch::Sender<BTreeSet<String>>,
}

/// The operator is told of so many silent owners.
const NAMED_SILENT: usize = 32;

/// Everything that is known, and what is done with it.
struct Stations<'a> {
    place: &'a Place,
    plan: BTreeMap<IpAddr, Announcement>,
    devices: Vec<Link>,
    key: Option<Key>,
    leases: BTreeMap<String, Tenure>,
    lease_failures: LeaseFailures,
    /// By the numbers of their devices.
    open: BTreeMap<u32, Station>,
    /// Devices that this process has announced on before.
    known: BTreeSet<u32>,
    /// When the process before was last there.
    before: Option<u64>,
    is_over: bool,
}

/// Runs until the sender is gone: what programs answer for stays. Or until it is told to stop: nothing does then.
pub(super) fn run(place: &Place, messages: &Receiver<Message>) {
    let mut stations = Stations::new(place);
    loop {
        match messages.recv_timeout(stations.wait()) {
            Ok(message) => stations.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(message) = messages.try_recv() {
            stations.take(message);
        }
        if stations.is_over {
            return;
        }
        let mut failures = stations.open_missing();
        failures.extend(stations.turn());
        failures.extend(stations.failures());
        let wanted = stations.wanted();
        place.wanted.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        tell(&place.told, Told { silent: stations.silent(), failures });
    }
}

impl<'a> Stations<'a> {
    fn new(place: &'a Place) -> Self {
        Self {
            place,
            plan: BTreeMap::new(),
            devices: Vec::new(),
            key: None,
            leases: BTreeMap::new(),
            lease_failures: LeaseFailures::new(),
            open: BTreeMap::new(),
            known: BTreeSet::new(),
            before: None,
            is_over: false,
        }
    }

    fn wait(&self) -> Duration {
        let now = now();
        let turns = self.open.values().map(|station| station.wait(now).min(ALIVE_EVERY));
        let is_missing = !self.plan.is_empty() && self.open.len() < self.devices.len();
        turns.chain(is_missing.then_some(OPEN_EVERY)).min().unwrap_or(Duration::MAX)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Plan(plan) => self.set_plan(plan),
            Message::Devices(devices) => self.set_devices(devices),
            Message::Key(key) => {
                if self.key != Some(key) {
                    self.open.clear();
                }
                self.key = Some(key);
            }
            Message::Lease(name, tenure) => {
                let news = tenure.clone().unwrap_or_default();
                self.open.values_mut().for_each(|station| station.learn(&name, news.clone()));
                match tenure {
                    Some(tenure) => drop(self.leases.insert(name, tenure)),
                    None => drop(self.leases.remove(&name)),
                }
            }
            Message::LeaseFailures(failures) => self.lease_failures = failures,
            Message::Stop => {
                self.close_all();
                self.is_over = true;
            }
            Message::List(sender) => {
                // Who asked may be gone.
                drop(sender.send(self.open.values().flat_map(Station::list).collect()));
            }
        }
    }

    fn set_plan(&mut self, plan: BTreeMap<IpAddr, Announcement>) {
        self.plan = plan;
        if self.plan.is_empty() {
            self.close_all();
        }
        for station in self.open.values_mut() {
            station.set(&self.plan, now());
        }
    }

    fn close_all(&mut self) {
        std::mem::take(&mut self.open).into_values().for_each(Station::close);
    }

    fn set_devices(&mut self, devices: Vec<Link>) {
        let is_kept = |before: &&Link| devices.iter().any(|device| is_same(before, device));
        let changed: Vec<u32> =
            self.devices.iter().filter(|before| !is_kept(before)).map(|it| it.index).collect();
        for index in changed {
            self.open.remove(&index);
        }
        let answering: &[Link] = if self.plan.is_empty() { &[] } else { &devices };
        forget_all_but(&self.place.bpffs, answering);
        self.devices = devices;
    }

    /// Returns what stands in the way.
    fn open_missing(&mut self) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        if self.plan.is_empty() {
            return failures;
        }
        let missing: Vec<Link> =
            self.devices.iter().filter(|device| !self.open.contains_key(&device.index)).cloned().collect();
        for device in missing {
            match self.open_one(&device) {
                Ok(station) => {
                    tracing::info!(device = device.name, "announcing addresses of Services");
                    self.known.insert(device.index);
                    self.open.insert(device.index, station);
                }
                Err(error) => drop(failures.insert("announcements".to_owned(), format!("{error:#}"))),
            }
        }
        failures
    }

    fn open_one(&mut self, device: &Link) -> anyhow::Result<Station> {
        let Place { node, bpffs, timings, .. } = self.place;
        let means = timings.map(Means::Leases).or_else(|| self.key.map(Means::Heartbeats));
        let means = means.context("the key of heartbeats is not known yet")?;
        let last = last_alive(bpffs)?;
        // A device that is late is not to be taken for one whose agent was there all the time.
        let before = *self.before.get_or_insert(last);
        let last = if self.known.contains(&device.index) { last } else { before };
        let mut station = Station::open(node, bpffs, device, means, last, now())?;
        station.set(&self.plan, now());
        self.leases.iter().for_each(|(name, tenure)| station.learn(name, tenure.clone()));
        Ok(station)
    }

    /// Does what is due. A station that fails goes: the next one reads what programs do, and goes on from there.
    fn turn(&mut self) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        self.open.retain(|_, station| {
            let failed = station.turn(now(), realtime()).err();
            failures.extend(failed.iter().map(|error| ("announcements".to_owned(), chain(error))));
            failed.is_none()
        });
        // After a pause, what is not held any more must be silent before programs answer again.
        if self.place.timings.is_some() && self.open.values().all(Station::is_sure) {
            let stamped = self.open.values_mut().next().map(|station| station.stamp(now()));
            let failed = stamped.and_then(Result::err);
            failures.extend(failed.map(|error| ("announcements".to_owned(), chain(&error))));
        }
        failures
    }

    fn failures(&self) -> BTreeMap<String, String> {
        self.open.values().flat_map(|station| station.failures(&self.lease_failures)).collect()
    }

    fn wanted(&self) -> BTreeSet<String> {
        self.open.values().flat_map(Station::leases).collect()
    }

    /// Owners that are heard on none of the devices that have their addresses.
    fn silent(&self) -> Vec<String> {
        let now = now();
        let mut silent = BTreeSet::new();
        let mut heard = BTreeSet::new();
        for station in self.open.values() {
            let silent_here = station.silent(now);
            heard.extend(station.owners().difference(&silent_here).map(|name| (*name).to_owned()));
            silent.extend(silent_here.into_iter().map(str::to_owned));
        }
        silent.difference(&heard).take(NAMED_SILENT).cloned().collect()
    }
}

fn is_same(one: &Link, other: &Link) -> bool {
    (one.index, one.mac, &one.name) == (other.index, other.mac, &other.name)
}

/// When an agent was last there.
fn last_alive(bpffs: &Path) -> Result<u64, maps::Error> {
    Ok(AnnouncementMaps::open(bpffs)?.announcer.get(&ANNOUNCER_AGENT)?.unwrap_or(0))
}

/// What programs answer for on other devices is from before: devices that went, or a plan that has nothing for this node any more.
pub(super) fn forget_all_but(bpffs: &Path, devices: &[Link]) {
    let is_other = |ifindex| devices.iter().all(|device| device.index != ifindex);
    let cleared = AnnouncementMaps::open(bpffs).and_then(|mut maps| forget(&mut maps, is_other));
    if let Err(error) = cleared {
        tracing::error!(error = chain(&error), "addresses from before may still be answered for");
    }
}

fn tell(told: &watch::Sender<Told>, now: Told) {
    told.send_if_modified(|known| {
        let is_news = *known != now;
        for (object, error) in now.failures.iter().filter(|(object, _)| !known.failures.contains_key(*object))
        {
            tracing::error!(object, error, "an address is not announced as it should be");
        }
        *known = now;
        is_news
    });
}

/// Nanoseconds of the clock that programs have.
pub(super) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds of the clock that goes on when the machine starts anew.
fn realtime() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0))
}
