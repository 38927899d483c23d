//! Who decides for a device: heartbeats of other owners, or Leases.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_announcer::{Action, Announcer, Leased, Signs, State, Timings};
use cilium_api::parts::Announcement;
use cilium_bpf::layout::{ANNOUNCEMENT_ANSWERED, ANNOUNCER_KEY, LINK_LEASED, LinkEntry, LinkSigns};
use cilium_delta::Table as _;
use cilium_drivers::maps::{self, AnnouncementMaps};
use cilium_drivers::netlink::Link;

use super::Key;

const SECOND: u64 = 1_000_000_000;
/// Without an agent for longer than this, other nodes take a node's addresses (`AGENT_AWAY_AT_MOST` of the programs), if there are
/// some that ask for it (`ASKED_WITHIN`).
const AWAY_AT_MOST: u64 = 30 * SECOND;
const ASKED_WITHIN: u64 = SECOND;

/// What nodes agree by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Means {
    /// Heartbeats with this key.
    Heartbeats(Key),
    /// Leases.
    Leases(Timings),
}

/// Decides about addresses of one device.
pub(super) enum Decider {
    /// With the key of requests.
    Heartbeats(Announcer, Key),
    Leases(Leased),
}

impl Decider {
    /// Goes on where an agent before stopped, if it decided in the same way. `last` is when that one was there.
    pub(super) fn open(
        maps: &mut AnnouncementMaps,
        node: &str,
        device: &Link,
        means: Means,
        last: u64,
        now: u64,
    ) -> Result<Self, maps::Error> {
        match means {
            Means::Heartbeats(key) => {
                let announcer = adopt(maps, node, device, last, now)?;
                for (element, half) in ANNOUNCER_KEY.iter().zip(key.as_chunks::<8>().0) {
                    maps.announcer.set(element, &u64::from_le_bytes(*half))?;
                }
                Ok(Self::Heartbeats(announcer, key))
            }
            Means::Leases(timings) => Ok(Self::Leases(inherit(maps, device, timings, last, now)?)),
        }
    }

    pub(super) fn set(&mut self, plan: &BTreeMap<IpAddr, Announcement>, now: u64) {
        match self {
            Self::Heartbeats(announcer, _) => {
                let owners = plan.iter().map(|(address, it)| (*address, it.owners.clone())).collect();
                announcer.set(&owners, now);
            }
            Self::Leases(leased) => {
                leased.set(plan.iter().map(|(address, it)| (*address, &*it.services)));
            }
        }
    }

    pub(super) fn tick(&mut self, now: u64, signs: &Signs) -> Vec<Action> {
        match self {
            Self::Heartbeats(announcer, _) => announcer.tick(now, signs),
            Self::Leases(leased) => leased.tick(now),
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        match self {
            Self::Heartbeats(announcer, _) => announcer.deadline(),
            Self::Leases(leased) => leased.deadline(),
        }
    }

    pub(super) fn state(&self, address: IpAddr) -> Option<State> {
        match self {
            Self::Heartbeats(announcer, _) => announcer.state(address),
            Self::Leases(leased) => leased.state(address),
        }
    }

    /// Addresses of the plan.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Heartbeats(announcer, _) => announcer.addresses().collect(),
            Self::Leases(leased) => leased.addresses().collect(),
        }
    }

    fn announcer(&self) -> Option<&Announcer> {
        match self {
            Self::Heartbeats(announcer, _) => Some(announcer),
            Self::Leases(_) => None,
        }
    }

    /// Numbers of other owners that are watched.
    pub(super) fn peers(&self) -> impl Iterator<Item = u64> {
        self.announcer().into_iter().flat_map(Announcer::peers)
    }

    /// Addresses of which it is to be known who else has them.
    pub(super) fn asked_for(&self, now: u64) -> impl Iterator<Item = IpAddr> {
        self.announcer().into_iter().flat_map(move |it| it.asked_for(now))
    }

    /// Addresses that somebody has who is no owner.
    pub(super) fn claimed(&self) -> impl Iterator<Item = (IpAddr, [u8; 6])> {
        self.announcer().into_iter().flat_map(Announcer::claimed)
    }

    /// Other owners that are not heard.
    pub(super) fn silent(&self) -> impl Iterator<Item = &str> {
        self.announcer().into_iter().flat_map(Announcer::silent)
    }
}

/// What programs answer for is answered for further, unless others may have taken it by now.
fn adopt(
    maps: &mut AnnouncementMaps,
    node: &str,
    device: &Link,
    last: u64,
    now: u64,
) -> Result<Announcer, maps::Error> {
    let mut announcer = Announcer::new(node, device.mac.0, now);
    let signs = maps.link_signs.get(&device.index)?.unwrap_or_default();
    let is_outdated =
        now.saturating_sub(last) > AWAY_AT_MOST && now.saturating_sub(signs.asked) < ASKED_WITHIN;
    let link = known_link(maps, device, false)?.filter(|_| !is_outdated);
    let Some(link) = link else {
        clear(maps, device)?;
        return Ok(announcer);
    };
    announcer.adopt(link, answered(maps, device)?, now);
    // Until the first answers come: nobody may have asked while no agent was there.
    maps.link_signs.set(&device.index, &LinkSigns { heard: now, ..signs })?;
    Ok(announcer)
}

/// What programs answer for stays while Leases are read, as long as it would without an agent.
fn inherit(
    maps: &mut AnnouncementMaps,
    device: &Link,
    timings: Timings,
    last: u64,
    now: u64,
) -> Result<Leased, maps::Error> {
    let mut leased = Leased::new(device.mac.0, timings);
    let link = known_link(maps, device, true)?.filter(|link| now < last.saturating_add(link.bound));
    match link {
        Some(link) => leased.inherit(answered(maps, device)?, last.saturating_add(link.bound)),
        None => clear(maps, device)?,
    }
    Ok(leased)
}

/// The device's entry, if it is from an agent that had the same device, and decided by Leases or not.
fn known_link(
    maps: &AnnouncementMaps,
    device: &Link,
    by_leases: bool,
) -> Result<Option<LinkEntry>, maps::Error> {
    let link = maps.links.get(&device.index)?;
    Ok(link.filter(|link| link.mac == device.mac.0 && (link.flags & LINK_LEASED != 0) == by_leases))
}

fn answered(maps: &AnnouncementMaps, device: &Link) -> Result<Vec<IpAddr>, maps::Error> {
    let entries = maps.announcements.entries()?.into_iter();
    let of_device = entries
        .filter(|(key, entry)| key.ifindex == device.index && entry.state == ANNOUNCEMENT_ANSWERED)
        .filter_map(|(key, _)| key.address.ip());
    Ok(of_device.collect())
}

/// On this device nothing is answered for, and no heartbeat.
pub(super) fn clear(maps: &mut AnnouncementMaps, device: &Link) -> Result<(), maps::Error> {
    forget(maps, |ifindex| ifindex == device.index)?;
    maps.link_signs.set(&device.index, &LinkSigns::default())
}

/// The same on devices by their numbers, of which nothing is known afterwards.
pub(super) fn forget(maps: &mut AnnouncementMaps, pick: impl Fn(u32) -> bool) -> Result<(), maps::Error> {
    for key in maps.announcements.keys(|key| pick(key.ifindex))? {
        maps.announcements.delete(&key)?;
    }
    for ifindex in maps.links.keys(|ifindex| pick(*ifindex))? {
        maps.links.delete(&ifindex)?;
    }
    for ifindex in maps.link_signs.keys(|ifindex| pick(*ifindex))? {
        maps.link_signs.delete(&ifindex)?;
    }
    for key in maps.peers.keys(|key| pick(key.ifindex))? {
        maps.peers.delete(&key)?;
    }
    Ok(())
}
