//! One device of this node: addresses, peers, and what to do next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_bpf::layout::{
    LINK_ALONE, LINK_ANSWERING, LINK_SOLO, LINK_WILLING, LinkEntry, LinkSigns, PeerEntry,
};

use crate::frame::{ANYBODY, BROADCAST, Mac};
use crate::peer::{DEAD_AFTER, Peer};
use crate::telling::Telling;

/// Times are in nanoseconds of `CLOCK_MONOTONIC`, as programs have them.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// So long an owner that comes back is heard before it has its addresses again.
const SETTLE: u64 = 250 * MILLISECOND;
/// So long nobody must answer for an address before this node does.
const QUIET: u64 = 90 * MILLISECOND;
/// Between two questions who has it.
const PROBE_EVERY: u64 = 30 * MILLISECOND;
/// The same when somebody has it who is no owner.
const PROBE_FOREIGN_EVERY: u64 = 1000 * MILLISECOND;
/// Who has an address for so long, and is not known, is no owner.
const FOREIGN_AFTER: u64 = 1000 * MILLISECOND;
/// Another owner that answers for so long although it is not its turn is told of: its agent is away, or does not hear this node. It is
/// waited for all the same: its clients are served.
const PATIENCE: u64 = 5000 * MILLISECOND;
/// A node that hears nobody is silent while one that does not hear it answers, and for so long after that one was heard last.
const YIELD: u64 = 2000 * MILLISECOND;
/// Between two requests to everybody on the link, while a peer is not heard.
const SEEK_EVERY: u64 = 1000 * MILLISECOND;
/// The same while no peer is heard.
const SEEK_ALL_EVERY: u64 = 200 * MILLISECOND;
/// For an answer to come.
const LOOK_AFTER: u64 = 10 * MILLISECOND;
/// Peers that were all heard within this time and then all at once not any more have not all died, most likely.
const AT_ONCE: u64 = 2500 * MILLISECOND;
/// So long a node is silent that seems to be cut off from several others.
const CUT_OFF: u64 = 30_000 * MILLISECOND;
/// Between two looks who else has an address that this node answers for.
const CHECK_EVERY: u64 = 1000 * MILLISECOND;
/// So long somebody else that had an address counts.
const CLAIM_COUNTS: u64 = 10_000 * MILLISECOND;
/// So long another owner may go on when this one begins.
const GRACE: u64 = 200 * MILLISECOND;
/// Nothing is due.
pub(crate) const NEVER: u64 = u64::MAX;

/// Somebody who was seen to have an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// When; 0: never.
    pub at: u64,
    /// Its MAC address.
    pub mac: Mac,
}

/// What programs saw.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// On the device.
    pub link: LinkSigns,
    /// Of peers, by number.
    pub peers: BTreeMap<u64, PeerEntry>,
    /// Of those addresses that [`Announcer::asked_for`] names.
    pub claims: BTreeMap<IpAddr, Claim>,
    /// The device has a link.
    pub has_carrier: bool,
}

/// Something to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a request.
    Ask {
        /// Number of a peer, or [`ANYBODY`](crate::ANYBODY).
        to: u64,
        /// Its MAC address, or everybody's.
        destination: Mac,
        /// `HEARTBEAT_HEARS_YOU` or nothing; the device's bits belong to it, too.
        flags: u8,
    },
    /// Answer for an address, or no longer.
    Answer(IpAddr, bool),
    /// Write the device's entry.
    SetLink(LinkEntry),
    /// Ask who has an address.
    Probe(IpAddr),
    /// Tell everybody where an address is.
    Announce(IpAddr),
}

/// What an address is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Another owner has it, or nobody yet.
    Standby,
    /// This node will have it when nobody else answers.
    Probing,
    /// This node answers.
    Answering,
}

/// How an address stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What it is to this node.
    pub standing: Standing,
    /// The owner whose turn it is, or who holds the Lease, as far as this node knows; `None`: not known yet.
    pub owner: Option<String>,
    /// Who has it who should not: no owner, or one whose turn it is not.
    pub claimant: Option<Mac>,
}

#[derive(Clone, Debug)]
struct Probing {
    /// Nobody has answered since.
    quiet_since: u64,
    began: u64,
    next: u64,
    /// Questions since then.
    sent: u32,
}

impl Probing {
    fn new(now: u64) -> Self {
        Self { quiet_since: now, began: now, next: now, sent: 0 }
    }
}

#[derive(Clone, Debug)]
enum Phase {
    Standby,
    Probing(Probing),
    Answering(Telling),
}

#[derive(Clone, Debug)]
struct Address {
    owners: Vec<String>,
    phase: Phase,
    leader: Option<String>,
    claimant: Option<Mac>,
}

impl Address {
    fn new(owners: Vec<String>, phase: Phase) -> Self {
        Self { owners, phase, leader: None, claimant: None }
    }

    fn deadline(&self) -> u64 {
        match &self.phase {
            Phase::Standby => NEVER,
            Phase::Probing(probing) => probing.next,
            Phase::Answering(telling) => telling.deadline(),
        }
    }
}

/// What this node is to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// There are none.
    Alone,
    /// It hears some, and waits until they know that it is there.
    Settling { since: u64 },
    /// It is an owner like the others.
    Settled,
    /// It hears nobody, and answers for nothing before `until`.
    Isolated { since: u64, until: u64 },
}

/// Decides for one device.
///
/// # Expected flow
/// [`Announcer::adopt`] once, with what stands in the maps; [`Announcer::set`] whenever the plan changes; [`Announcer::tick`]
/// at [`Announcer::deadline`] and after each change. Actions are carried out in their order.
#[derive(Debug)]
pub struct Announcer {
    me: String,
    mac: Mac,
    mode: Mode,
    addresses: BTreeMap<IpAddr, Address>,
    peers: BTreeMap<String, Peer>,
    /// When the first of them was named, or this began: they have some time to answer.
    began: u64,
    link: Option<LinkEntry>,
    /// The plan has changed.
    is_changed: bool,
    next_seek: u64,
    /// When it is looked next who else has the addresses that this node answers for.
    next_check: u64,
    last_tick: u64,
    /// When an answer may be there of one that was not heard before.
    look: u64,
}

impl Announcer {
    /// A device of this node, on which nothing is announced yet.
    pub fn new(me: &str, mac: Mac, now: u64) -> Self {
        Self {
            me: me.to_owned(),
            mac,
            mode: Mode::Settling { since: now },
            addresses: BTreeMap::new(),
            peers: BTreeMap::new(),
            began: now,
            link: None,
            is_changed: false,
            next_seek: now,
            next_check: now,
            last_tick: 0,
            look: NEVER,
        }
    }

    /// Goes on where another agent stopped: `link` is the device's entry, `answered` the addresses that programs answer for. Addresses
    /// that the plan does not name any more are left out by the next [`Announcer::set`].
    pub fn adopt(&mut self, link: LinkEntry, answered: impl IntoIterator<Item = IpAddr>, now: u64) {
        if link.flags & LINK_SOLO != 0 {
            let is_silent = link.flags & LINK_ANSWERING == 0;
            let until = if is_silent { link.bound + CUT_OFF } else { now };
            self.mode = Mode::Isolated { since: link.bound, until };
        } else if link.flags & LINK_WILLING != 0 {
            self.mode = Mode::Settled;
        } else {
            return;
        }
        // Others may have had them meanwhile, so they are announced again.
        let answering = || Phase::Answering(Telling::new(now));
        self.addresses
            .extend(answered.into_iter().map(|address| (address, Address::new(Vec::new(), answering()))));
        self.link = Some(link);
    }

    /// Takes what the plan says: owners of each address, of which this node is one.
    pub fn set(&mut self, wanted: &BTreeMap<IpAddr, Vec<String>>, now: u64) {
        self.addresses.retain(|address, _| wanted.contains_key(address));
        for (address, owners) in wanted {
            let entry =
                self.addresses.entry(*address).or_insert_with(|| Address::new(Vec::new(), Phase::Standby));
            entry.owners.clone_from(owners);
        }
        let others: BTreeSet<&String> =
            wanted.values().flatten().filter(|owner| **owner != self.me).collect();
        self.is_changed = true;
        self.peers.retain(|name, _| others.contains(name));
        if self.peers.is_empty() {
            self.began = now;
        }
        for name in others {
            if !self.peers.contains_key(name) {
                self.peers.insert(name.clone(), Peer::new(name, now));
            }
        }
    }

    /// Numbers of the peers: programs note what they hear of these.
    pub fn peers(&self) -> impl Iterator<Item = u64> {
        self.peers.values().map(Peer::number)
    }

    /// Addresses of the plan.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// Addresses of which [`Announcer::tick`] wants to know who was seen to have them.
    pub fn asked_for(&self, now: u64) -> impl Iterator<Item = IpAddr> {
        let is_asked = move |address: &Address| match address.phase {
            Phase::Probing(_) => true,
            Phase::Answering(_) => self.next_check <= now,
            Phase::Standby => false,
        };
        self.addresses.iter().filter(move |(_, it)| is_asked(it)).map(|(address, _)| *address)
    }

    /// Addresses that somebody has who is no owner, with the MAC address of that one.
    pub fn claimed(&self) -> impl Iterator<Item = (IpAddr, Mac)> {
        self.addresses.iter().filter_map(|(address, it)| Some((*address, it.claimant?)))
    }

    /// When [`Announcer::tick`] has something to do, if nothing happens before; never later than this.
    pub fn deadline(&self) -> u64 {
        let peers = self.peers.values().map(Peer::deadline);
        let addresses = self.addresses.values().map(Address::deadline);
        let mode = match self.mode {
            Mode::Settling { since } => since + SETTLE,
            Mode::Isolated { until, .. } if self.last_tick < until => until,
            Mode::Alone if !self.peers.is_empty() => self.began + DEAD_AFTER,
            _ => NEVER,
        };
        let changed = if self.is_changed { 0 } else { NEVER };
        let check = if self.is_answering() { self.next_check } else { NEVER };
        let seek = if self.is_seeking() { self.next_seek } else { NEVER };
        peers.chain(addresses).chain([mode, changed, check, seek, self.look]).min().unwrap_or(NEVER)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64, signs: &Signs) -> Vec<Action> {
        let mut actions = Vec::new();
        self.is_changed = false;
        self.last_tick = now;
        let mut back = BTreeSet::new();
        for (name, peer) in &mut self.peers {
            let was_alive = peer.is_alive();
            if let Some(seen) = signs.peers.get(&peer.number()) {
                peer.follow(*seen, now);
            }
            if peer.is_alive() && !was_alive {
                back.insert(name.clone());
            }
        }
        self.follow_mode(now, signs.link.met, &mut actions);
        self.follow_addresses(now, signs, &back, &mut actions);
        if self.next_check <= now {
            self.next_check = now + CHECK_EVERY;
        }
        self.follow_link(now, &mut actions);
        let heard = self.peers.values().filter(|peer| peer.is_alive()).count();
        let asked: Vec<Action> = self.peers.values_mut().filter_map(|peer| peer.ask(now)).collect();
        let sought = self.seek(now);
        if heard < self.peers.len() && (sought.is_some() || !asked.is_empty()) {
            self.look = now + LOOK_AFTER;
        } else if self.look <= now {
            self.look = NEVER;
        }
        actions.extend(asked.into_iter().chain(sought));
        actions
    }

    fn is_answering(&self) -> bool {
        self.addresses.values().any(|it| matches!(it.phase, Phase::Answering(_)))
    }

    fn is_seeking(&self) -> bool {
        self.peers.values().any(|peer| !peer.is_alive())
    }

    /// Nobody knows where a peer is, or whether it still is there.
    fn seek(&mut self, now: u64) -> Option<Action> {
        if !self.is_seeking() || now < self.next_seek {
            return None;
        }
        let is_heard = self.peers.values().any(Peer::is_alive);
        self.next_seek = now + if is_heard { SEEK_EVERY } else { SEEK_ALL_EVERY };
        Some(Action::Ask { to: ANYBODY, destination: BROADCAST, flags: 0 })
    }

    /// Names of peers that are not heard.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.is_alive()).map(|(name, _)| name.as_str())
    }

    /// How an address stands.
    pub fn state(&self, address: IpAddr) -> Option<State> {
        let it = self.addresses.get(&address)?;
        let standing = match it.phase {
            Phase::Standby => Standing::Standby,
            Phase::Probing(_) => Standing::Probing,
            Phase::Answering(_) => Standing::Answering,
        };
        Some(State { standing, owner: it.leader.clone(), claimant: it.claimant })
    }

    /// `met` is when a node that answers was last heard, be it that it hears this one or not.
    fn follow_mode(&mut self, now: u64, met: u64, actions: &mut Vec<Action>) {
        if self.peers.is_empty() {
            self.mode = Mode::Alone;
            return;
        }
        let is_connected = self.peers.values().any(Peer::is_alive);
        let is_cut_off = !is_connected && now.saturating_sub(self.began) >= DEAD_AFTER;
        match self.mode {
            // Programs answer on: nobody had a part in these addresses so far.
            Mode::Alone if is_connected => self.mode = Mode::Settled,
            Mode::Alone if is_cut_off => self.mode = Mode::Isolated { since: now, until: now },
            Mode::Settling { .. } | Mode::Settled if is_cut_off => {
                self.stop_all(actions);
                let lost =
                    self.peers.values().filter(|peer| peer.was_heard_after(now.saturating_sub(AT_ONCE)));
                let until = if lost.count() > 1 { now + CUT_OFF } else { now };
                self.mode = Mode::Isolated { since: now, until };
            }
            Mode::Settling { since } if now.saturating_sub(since) >= SETTLE => self.mode = Mode::Settled,
            Mode::Isolated { .. } if is_connected => {
                let is_contested = self.peers.values().any(Peer::is_answering);
                if is_contested {
                    self.stop_all(actions);
                    self.mode = Mode::Settling { since: now };
                } else {
                    self.mode = Mode::Settled;
                }
            }
            // Programs have been silent since they met it, and it is gone.
            Mode::Isolated { since, until } if met >= since && now >= met + YIELD => {
                self.stop_all(actions);
                self.mode = Mode::Isolated { since: now, until };
            }
            Mode::Alone | Mode::Settling { .. } | Mode::Settled | Mode::Isolated { .. } => {}
        }
    }

    fn stop_all(&mut self, actions: &mut Vec<Action>) {
        for (address, it) in &mut self.addresses {
            if matches!(it.phase, Phase::Answering(_)) {
                actions.push(Action::Answer(*address, false));
            }
            it.phase = Phase::Standby;
            it.leader = None;
        }
    }

    /// The first of the owners that has the address if all is as far as this node can see.
    fn leader<'a>(&self, owners: &'a [String], now: u64) -> Option<&'a str> {
        let is_ready = match self.mode {
            Mode::Settling { .. } => false,
            Mode::Isolated { until, .. } => now >= until,
            Mode::Alone | Mode::Settled => true,
        };
        let may_have = |name: &&String| match self.peers.get(*name) {
            Some(peer) => peer.is_willing(),
            None => **name == self.me && is_ready,
        };
        owners.iter().find(may_have).map(String::as_str)
    }

    /// `back` are peers that are heard again.
    fn follow_addresses(
        &mut self,
        now: u64,
        signs: &Signs,
        back: &BTreeSet<String>,
        actions: &mut Vec<Action>,
    ) {
        let mut addresses = std::mem::take(&mut self.addresses);
        for (address, it) in &mut addresses {
            let leader = self.leader(&it.owners, now).map(str::to_owned);
            let is_mine = leader.as_deref() == Some(&self.me);
            it.leader = leader;
            if !is_mine {
                if matches!(it.phase, Phase::Answering(_)) {
                    actions.push(Action::Answer(*address, false));
                }
                it.phase = Phase::Standby;
                it.claimant = None;
                continue;
            }
            if matches!(it.phase, Phase::Standby) {
                it.phase = Phase::Probing(Probing::new(now));
            }
            match &mut it.phase {
                Phase::Probing(_) => self.probe(*address, it, now, signs, actions),
                Phase::Answering(telling) => {
                    // One that is heard again may have answered meanwhile, and clients know it as the owner.
                    if it.owners.iter().any(|owner| back.contains(owner)) {
                        *telling = Telling::new(now);
                    }
                    self.go_on(*address, it, now, signs, actions);
                }
                Phase::Standby => {}
            }
        }
        self.addresses = addresses;
    }

    /// Answers on, unless somebody else does, too: of two that do not hear each other, one yields.
    fn go_on(&self, address: IpAddr, it: &mut Address, now: u64, signs: &Signs, actions: &mut Vec<Action>) {
        let Phase::Answering(telling) = &mut it.phase else { return };
        if let Some(claim) = signs.claims.get(&address) {
            let counts = telling.since() + GRACE < claim.at && now < claim.at + CLAIM_COUNTS;
            it.claimant = Some(claim.mac).filter(|mac| counts && !self.is_of_peer(*mac));
            if counts && matches!(self.mode, Mode::Isolated { .. }) && claim.mac < self.mac {
                actions.push(Action::Answer(address, false));
                it.phase = Phase::Probing(Probing::new(now));
                return;
            }
        }
        telling.follow(address, now, actions);
    }

    fn is_of_peer(&self, mac: Mac) -> bool {
        self.peers.values().any(|peer| peer.is_at(mac))
    }

    /// Waits until nobody answers.
    fn probe(&self, address: IpAddr, it: &mut Address, now: u64, signs: &Signs, actions: &mut Vec<Action>) {
        let Phase::Probing(probing) = &mut it.phase else { return };
        if !signs.has_carrier {
            *probing = Probing { next: now + PROBE_EVERY, ..Probing::new(now) };
            return;
        }
        let claim = signs.claims.get(&address).filter(|claim| claim.at > probing.quiet_since);
        let mut is_foreign = false;
        if let Some(claim) = claim {
            probing.quiet_since = claim.at;
            probing.sent = 0;
            // A peer may be about to be heard for the first time.
            is_foreign = now.saturating_sub(probing.began) >= FOREIGN_AFTER && !self.is_of_peer(claim.mac);
            let is_overdue = now.saturating_sub(probing.began) >= PATIENCE;
            it.claimant = Some(claim.mac).filter(|_| is_foreign || is_overdue);
        }
        let is_quiet = probing.sent > 1 && now.saturating_sub(probing.quiet_since) >= QUIET;
        if is_quiet {
            it.claimant = None;
            it.phase = Phase::Answering(Telling::start(address, now, actions));
            return;
        }
        if now >= probing.next {
            probing.sent += 1;
            probing.next = now + if is_foreign { PROBE_FOREIGN_EVERY } else { PROBE_EVERY };
            actions.push(Action::Probe(address));
        }
    }

    fn follow_link(&mut self, now: u64, actions: &mut Vec<Action>) {
        let answers = self.is_answering();
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let (mode, bound) = match self.mode {
            Mode::Alone => (LINK_ALONE | LINK_WILLING, 0),
            Mode::Settled => (LINK_WILLING, 0),
            Mode::Settling { .. } => (0, 0),
            Mode::Isolated { since, .. } => (LINK_SOLO, since),
        };
        let link = LinkEntry { bound, flags: mode | flag(answers, LINK_ANSWERING), mac: self.mac };
        if self.link != Some(link) {
            self.link = Some(link);
            actions.push(Action::SetLink(link));
            // Two that come back at the same time must know it of each other before one of them answers.
            self.peers.values_mut().for_each(|peer| peer.ask_at(now));
        }
    }
}
