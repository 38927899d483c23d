//! The loop of the thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use cilium_announcer::{Tenure, Timings};
use cilium_api::parts::Announcement;
use cilium_drivers::maps::AnnouncementMaps;
use cilium_drivers::netlink::Link;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use super::decider::{Means, clear};
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

/// Everything that is known beside the device itself.
#[derive(Default)]
struct Known {
    plan: BTreeMap<IpAddr, Announcement>,
    device: Option<Link>,
    key: Option<Key>,
    leases: BTreeMap<String, Tenure>,
    lease_failures: LeaseFailures,
    is_over: bool,
}

/// Runs until the sender is gone: what programs answer for stays. Or until it is told to stop: nothing does then.
pub(super) fn run(place: &Place, messages: &Receiver<Message>) {
    let mut known = Known::default();
    let mut station: Option<Station> = None;
    loop {
        let wait = match &station {
            Some(station) => station.wait(now()).min(ALIVE_EVERY),
            None if known.plan.is_empty() => Duration::MAX,
            None => OPEN_EVERY,
        };
        match messages.recv_timeout(wait) {
            Ok(message) => take(message, place, &mut known, &mut station),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(message) = messages.try_recv() {
            take(message, place, &mut known, &mut station);
        }
        if known.is_over {
            return;
        }
        let mut failures = BTreeMap::new();
        if station.is_none() && !known.plan.is_empty() {
            station = open(place, &known, &mut failures);
        }
        let failed = station.as_mut().and_then(|station| station.turn(now(), realtime()).err());
        if let Some(error) = failed {
            // The next one reads what programs do, and goes on from there.
            station = None;
            failures.insert("announcements".to_owned(), chain(&error));
        }
        if let Some(station) = &station {
            failures = station.failures(&known.lease_failures);
        }
        let silent = station.as_ref().map(|station| station.silent(now())).unwrap_or_default();
        let wanted = station.as_ref().map(Station::leases).unwrap_or_default();
        place.wanted.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        tell(&place.told, Told { silent, failures });
    }
}

fn take(message: Message, place: &Place, known: &mut Known, station: &mut Option<Station>) {
    match message {
        Message::Plan(plan) => {
            known.plan = plan;
            if known.plan.is_empty() {
                station.take().into_iter().for_each(Station::close);
            } else if let Some(station) = station {
                station.set(&known.plan, now());
            }
        }
        Message::Device(device) => {
            let is_same =
                |it: &Link| (it.index, it.mac, &it.name) == (device.index, device.mac, &device.name);
            if !known.device.as_ref().is_some_and(is_same) {
                station.take();
            }
            if known.plan.is_empty() {
                forget(&place.bpffs, &device);
            }
            known.device = Some(device);
        }
        Message::Key(key) => {
            if known.key != Some(key) {
                station.take();
            }
            known.key = Some(key);
        }
        Message::Lease(name, tenure) => {
            if let Some(station) = station {
                station.learn(&name, tenure.clone().unwrap_or_default());
            }
            match tenure {
                Some(tenure) => drop(known.leases.insert(name, tenure)),
                None => drop(known.leases.remove(&name)),
            }
        }
        Message::LeaseFailures(failures) => known.lease_failures = failures,
        Message::Stop => {
            station.take().into_iter().for_each(Station::close);
            known.is_over = true;
        }
        Message::List(sender) => {
            // Who asked may be gone.
            drop(sender.send(station.as_ref().map(Station::list).unwrap_or_default()));
        }
    }
}

/// The plan had nothing for this node when its agent started: what programs still answer for is from before.
pub(super) fn forget(bpffs: &Path, device: &Link) {
    let cleared = AnnouncementMaps::open(bpffs).and_then(|mut maps| clear(&mut maps, device));
    if let Err(error) = cleared {
        tracing::error!(error = chain(&error), "addresses from before may still be answered for");
    }
}

fn open(place: &Place, known: &Known, failures: &mut BTreeMap<String, String>) -> Option<Station> {
    let device = known.device.as_ref()?;
    let means = place.timings.map(Means::Leases).or_else(|| known.key.map(Means::Heartbeats));
    let Some(means) = means else {
        failures.insert("announcements".to_owned(), "the key of heartbeats is not known yet".to_owned());
        return None;
    };
    match Station::open(&place.node, &place.bpffs, device, means, now()) {
        Ok(mut station) => {
            tracing::info!(device = device.name, "announcing addresses of Services");
            station.set(&known.plan, now());
            known.leases.iter().for_each(|(name, tenure)| station.learn(name, tenure.clone()));
            Some(station)
        }
        Err(error) => {
            failures.insert("announcements".to_owned(), format!("{error:#}"));
            None
        }
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
