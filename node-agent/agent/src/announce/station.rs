//! One device: what programs know of it, and who decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cilium_announcer::election::lease_name;
use cilium_announcer::frame::{Request, announcement, group_mac, probe, solicited_node};
use cilium_announcer::{Action, Claim, Signs, Standing, Tenure, node_number};
use cilium_api::parts::{Announcement, PartKey};
use cilium_bpf::layout::{
    ANNOUNCEMENT_ANSWERED, ANNOUNCEMENT_SILENT, ANNOUNCER_AGENT, ANNOUNCER_NODE, AnnouncementEntry,
    AnnouncementKey, PeerEntry, PeerKey,
};
use cilium_delta::Table as _;
use cilium_drivers::frames::FrameSender;
use cilium_drivers::maps::{self, AnnouncementMaps};
use cilium_drivers::netlink::{Link, Mac};
use cilium_rest::model;
use regex::Regex;

use super::LeaseFailures;
use super::decider::{Decider, Means};
use super::groups::Members;
use crate::watch::chain;

const SECOND: u64 = 1_000_000_000;
/// Before that, nobody is called silent: there was no time to answer.
const PATIENCE: u64 = 2 * SECOND;

/// A device with announcements.
pub(super) struct Station {
    device: Link,
    node: u64,
    maps: AnnouncementMaps,
    frames: FrameSender,
    members: Members,
    decider: Decider,
    plan: BTreeMap<IpAddr, Announcement>,
    began: u64,
    /// The device's bits, as requests tell them.
    flags: u8,
    last_stamp: u64,
    failures: BTreeMap<String, String>,
}

impl Station {
    /// Goes on where an agent before stopped, that was last there at `last`.
    pub(super) fn open(
        node: &str,
        bpffs: &Path,
        device: &Link,
        means: Means,
        last: u64,
        now: u64,
    ) -> anyhow::Result<Self> {
        let mut maps = AnnouncementMaps::open(bpffs)?;
        let decider = Decider::open(&mut maps, node, device, means, last, now)?;
        maps.announcer.set(&ANNOUNCER_NODE, &node_number(node))?;
        Ok(Self {
            node: node_number(node),
            maps,
            frames: FrameSender::open(device)?,
            members: Members::new(device)?,
            decider,
            plan: BTreeMap::new(),
            device: device.clone(),
            began: now,
            flags: 0,
            last_stamp: 0,
            failures: BTreeMap::new(),
        })
    }

    /// Answers for nothing any more.
    pub(super) fn close(mut self) {
        self.set(&BTreeMap::new(), self.began);
        if let Err(error) = self.maps.links.delete(&self.device.index) {
            tracing::error!(error = chain(&error), "the device's entry stays");
        }
    }

    /// Takes the plan, as far as it is about this device.
    pub(super) fn set(&mut self, plan: &BTreeMap<IpAddr, Announcement>, now: u64) {
        self.failures.clear();
        let mut expressions = BTreeMap::new();
        self.plan = plan.clone();
        self.plan.retain(|_, it| is_on(&self.device.name, it, &mut expressions));
        for (expression, error) in
            expressions.into_iter().filter_map(|(it, outcome)| Some((it, outcome.err()?)))
        {
            self.failures.insert(format!("expression {expression}"), error);
        }
        self.decider.set(&self.plan, now);
        if let Err(error) = self.reconcile() {
            self.failures.insert("announcements".to_owned(), chain(&error));
        }
        let groups = self.plan.keys().filter_map(|address| match address {
            IpAddr::V6(address) => Some(solicited_node(*address)).map(|group| (group, group_mac(group))),
            IpAddr::V4(_) => None,
        });
        self.members.set(groups.collect());
    }

    /// Entries for every address and peer, and no others.
    fn reconcile(&mut self) -> Result<(), maps::Error> {
        let wanted: BTreeSet<AnnouncementKey> =
            self.decider.addresses().into_iter().map(|address| self.address_key(address)).collect();
        let ifindex = self.device.index;
        let is_gone = |key: &AnnouncementKey| key.ifindex == ifindex && !wanted.contains(key);
        for gone in self.maps.announcements.keys(is_gone)? {
            self.maps.announcements.delete(&gone)?;
        }
        let peers: BTreeSet<PeerKey> = self.decider.peers().map(|node| PeerKey { node, ifindex }).collect();
        for gone in self.maps.peers.keys(|key| key.ifindex == ifindex && !peers.contains(key))? {
            self.maps.peers.delete(&gone)?;
        }
        for key in peers {
            if self.maps.peers.get(&key)?.is_none() {
                self.maps.peers.set(&key, &PeerEntry::default())?;
            }
        }
        for key in wanted {
            if self.maps.announcements.get(&key)?.is_none()
                && let Err(error) = self.maps.announcements.set(&key, &AnnouncementEntry::default())
            {
                self.failures.insert(format!("announcement/{}", key.address), chain(&error));
            }
        }
        Ok(())
    }

    fn address_key(&self, address: IpAddr) -> AnnouncementKey {
        AnnouncementKey { address: address.into(), ifindex: self.device.index }
    }

    /// Time until [`Station::turn`] has something to do.
    pub(super) fn wait(&self, now: u64) -> Duration {
        Duration::from_nanos(self.decider.deadline().saturating_sub(now))
    }

    /// Does what is due. `realtime` goes on over restarts of the machine.
    ///
    /// # Errors
    /// A map cannot be written. What programs do may then differ from what was decided: open the station anew.
    pub(super) fn turn(&mut self, now: u64, realtime: u64) -> Result<(), maps::Error> {
        if matches!(self.decider, Decider::Heartbeats(..)) {
            self.maps.announcer.set(&ANNOUNCER_AGENT, &now)?;
        }
        if self.decider.deadline() <= now {
            let signs = self.signs(now)?;
            for action in self.decider.tick(now, &signs) {
                self.act(&action, now, realtime)?;
            }
        }
        Ok(())
    }

    /// Whether all that this node has lost meanwhile is silent.
    pub(super) fn is_sure(&self) -> bool {
        match &self.decider {
            Decider::Heartbeats(..) => true,
            Decider::Leases(leased) => leased.is_sure(),
        }
    }

    /// Programs hear that the agent is there.
    pub(super) fn stamp(&mut self, now: u64) -> Result<(), maps::Error> {
        self.maps.announcer.set(&ANNOUNCER_AGENT, &now)
    }

    /// Takes news of a Lease.
    pub(super) fn learn(&mut self, lease: &str, tenure: Tenure) {
        if let Decider::Leases(leased) = &mut self.decider {
            leased.learn(lease, tenure);
        }
    }

    /// Names of the Leases that this node wants; none where it agrees with others by heartbeats.
    pub(super) fn leases(&self) -> BTreeSet<String> {
        match &self.decider {
            Decider::Heartbeats(..) => BTreeSet::new(),
            Decider::Leases(leased) => leased.leases().cloned().collect(),
        }
    }

    fn signs(&self, now: u64) -> Result<Signs, maps::Error> {
        let ifindex = self.device.index;
        let mut signs = Signs {
            link: self.maps.link_signs.get(&ifindex)?.unwrap_or_default(),
            has_carrier: self.frames.has_carrier(),
            ..Signs::default()
        };
        for node in self.decider.peers() {
            if let Some(entry) = self.maps.peers.get(&PeerKey { node, ifindex })? {
                signs.peers.insert(node, entry);
            }
        }
        for address in self.decider.asked_for(now) {
            if let Some(entry) = self.maps.announcements.get(&self.address_key(address))? {
                signs.claims.insert(address, Claim { at: entry.claimed, mac: entry.claimant });
            }
        }
        Ok(signs)
    }

    fn act(&mut self, action: &Action, now: u64, realtime: u64) -> Result<(), maps::Error> {
        match *action {
            Action::Ask { to, destination, flags } => {
                self.last_stamp = realtime.max(self.last_stamp + 1);
                let request = Request {
                    source: self.device.mac.0,
                    destination,
                    to,
                    from: self.node,
                    flags: flags | self.flags,
                    sent: now,
                    stamp: self.last_stamp,
                };
                if let Decider::Heartbeats(_, key) = &self.decider {
                    self.send(&request.to_frame(key));
                }
            }
            Action::Answer(address, answers) => {
                let key = self.address_key(address);
                let entry = self.maps.announcements.get(&key)?.unwrap_or_default();
                let state = if answers { ANNOUNCEMENT_ANSWERED } else { ANNOUNCEMENT_SILENT };
                self.maps.announcements.set(&key, &AnnouncementEntry { state, ..entry })?;
                let services = self.plan.get(&address).map(|it| it.services.join(", "));
                tracing::info!(%address, services, device = self.device.name, answers, "an address has moved");
            }
            Action::SetLink(link) => {
                self.flags = u8::try_from(link.flags).unwrap_or(0);
                self.maps.links.set(&self.device.index, &link)?;
            }
            Action::Probe(address) => self.send(&probe(self.device.mac.0, address)),
            Action::Announce(address) => self.send(&announcement(self.device.mac.0, address)),
        }
        Ok(())
    }

    /// A frame that cannot be sent is one that got lost: the next follows soon.
    fn send(&self, frame: &[u8]) {
        if let Err(error) = self.frames.send(frame) {
            tracing::debug!(device = self.device.name, %error, "a frame was not sent");
        }
    }

    /// Other owners that are not heard here.
    pub(super) fn silent(&self, now: u64) -> BTreeSet<&str> {
        if now < self.began + PATIENCE {
            return BTreeSet::new();
        }
        self.decider.silent().collect()
    }

    /// Owners of addresses of this device.
    pub(super) fn owners(&self) -> BTreeSet<&str> {
        self.plan.values().flat_map(|part| &part.owners).map(String::as_str).collect()
    }

    /// What is not in force, and addresses that somebody has who is no owner.
    pub(super) fn failures(&self, leases: &LeaseFailures) -> BTreeMap<String, String> {
        let mut failures = self.failures.clone();
        if !leases.is_empty() {
            failures.extend(self.without_lease(leases));
        }
        failures.extend(self.members.failure().map(|error| ("groups".to_owned(), error)));
        for (address, mac) in self.decider.claimed() {
            let message = format!(
                "{} has the address on {} and should not: take the address from that one, or from the Service; if it is a node, see that its agent runs and hears this one",
                Mac(mac),
                self.device.name
            );
            failures.insert(PartKey::announcement(address).0.to_string(), message);
        }
        failures
    }

    /// Addresses that this node cannot answer for, as their Leases are out of reach.
    fn without_lease(&self, failures: &LeaseFailures) -> impl Iterator<Item = (String, String)> {
        let is_answering =
            |address| self.decider.state(address).is_some_and(|state| state.standing == Standing::Answering);
        self.plan.iter().filter(move |(address, _)| !is_answering(**address)).filter_map(|(address, part)| {
            let of_lease = part.services.iter().find_map(|service| failures.get(&lease_name(service)));
            let error = of_lease.or_else(|| failures.get(""))?;
            Some((PartKey::announcement(*address).0.to_string(), error.clone()))
        })
    }

    /// All addresses of this device.
    pub(super) fn list(&self) -> Vec<model::Announcement> {
        self.plan.iter().map(|(address, part)| self.row(*address, part)).collect()
    }

    fn row(&self, address: IpAddr, part: &Announcement) -> model::Announcement {
        let state = self.decider.state(address);
        let entry = self.maps.announcements.get(&self.address_key(address)).ok().flatten();
        let standing = match state.as_ref().map(|state| state.standing) {
            Some(Standing::Answering) => "answering",
            Some(Standing::Probing) => "probing",
            Some(Standing::Standby) | None => "standby",
        };
        model::Announcement {
            address: address.to_string(),
            interface: self.device.name.clone(),
            state: standing.to_owned(),
            node: state.as_ref().and_then(|state| state.owner.clone()).unwrap_or_default(),
            owners: part.owners.clone(),
            services: part.services.clone(),
            replies: entry.map_or(0, |entry| entry.replies),
            claimed_by: state.and_then(|state| state.claimant).map(|mac| Mac(mac).to_string()),
        }
    }
}

/// Whether an address is announced on a device. Expressions are compiled once.
fn is_on(device: &str, it: &Announcement, known: &mut BTreeMap<String, Result<Regex, String>>) -> bool {
    let mut matches = |expression: &String| {
        let compile = || Regex::new(expression).map_err(|error| error.to_string());
        let compiled = known.entry(expression.clone()).or_insert_with(compile);
        compiled.as_ref().is_ok_and(|expression| expression.is_match(device))
    };
    it.interfaces.is_empty() || it.interfaces.iter().any(&mut matches)
}
