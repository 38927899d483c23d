//! What `bpf/include/heartbeat.h` and `announce.h` do, and a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_announcer::{ANYBODY, Action, Announcer, Claim, Mac, Signs, node_number};
use cilium_bpf::layout::{
    HEARTBEAT_HEARS_YOU, LINK_ALONE, LINK_ANSWERING, LINK_SOLO, LINK_WILLING, LinkEntry, LinkSigns, PeerEntry,
};

pub(crate) const MS: u64 = 1_000_000;
/// Milliseconds from one node to another.
const LATENCY: u64 = 2;
const HEARD_WITHIN: u64 = 300 * MS;
const AGENT_ALIVE_WITHIN: u64 = 200 * MS;
const AGENT_AWAY_AT_MOST: u64 = 30_000 * MS;
const ASKED_WITHIN: u64 = 1000 * MS;

#[derive(Clone, Copy, Debug)]
enum Frame {
    Request { to: u64, sent: u64, flags: u8, key: u32 },
    Answer { to: u64, sent: u64, flags: u8, agent_age: u64, key: u32 },
    Probe(IpAddr),
    Claim(IpAddr),
}

/// What stays when the agent ends.
#[derive(Clone, Debug, Default)]
struct Programs {
    link: LinkEntry,
    signs: LinkSigns,
    peers: BTreeMap<u64, PeerEntry>,
    answered: BTreeMap<IpAddr, bool>,
    claims: BTreeMap<IpAddr, Claim>,
    agent: u64,
}

impl Programs {
    fn may_answer(&self, address: IpAddr, now: u64) -> bool {
        let age = now - self.agent;
        if !self.answered.get(&address).copied().unwrap_or_default() {
            return false;
        }
        if self.link.flags & LINK_ALONE != 0 {
            return true;
        }
        if self.link.flags & LINK_SOLO != 0 {
            return self.signs.met < self.link.bound;
        }
        if age > AGENT_AWAY_AT_MOST && now - self.signs.asked < ASKED_WITHIN {
            return false;
        }
        now - self.signs.heard < HEARD_WITHIN || self.agent < self.signs.heard + AGENT_ALIVE_WITHIN
    }

    fn note(&mut self, peer: u64, flags: u8, agent_age: u64, now: u64) -> Option<&mut PeerEntry> {
        let entry = self.peers.get_mut(&peer)?;
        (entry.flags, entry.agent_age) = (flags.into(), agent_age);
        if u32::from(flags) & LINK_ANSWERING != 0 {
            self.signs.met = now;
        }
        Some(entry)
    }
}

struct Node {
    name: String,
    mac: Mac,
    programs: Programs,
    agent: Option<Announcer>,
    plan: BTreeMap<IpAddr, Vec<String>>,
    is_on: bool,
    /// Nodes with the same number hear each other.
    segment: u32,
    /// Of the key of heartbeats.
    key: u32,
    stalled_until: u64,
}

pub(crate) struct World {
    pub(crate) now: u64,
    nodes: Vec<Node>,
    /// No heartbeat is heard, but all else.
    is_deaf: bool,
    /// From the first node to the second, no frame arrives.
    blocked: BTreeSet<(usize, usize)>,
    frames: BTreeMap<u64, Vec<(usize, Option<Mac>, Frame)>>,
    /// Every announcement: when, by whom, of what.
    pub(crate) announced: Vec<(u64, usize, IpAddr)>,
}

fn mac_of(node: usize) -> Mac {
    [2, 0, 0, 0, 0, u8::try_from(node).unwrap() + 1]
}

pub(crate) fn name_of(node: usize) -> String {
    format!("node-{node}")
}

impl World {
    /// Nodes that are on, with agents that have just started.
    pub(crate) fn new(nodes: usize, plan: &BTreeMap<IpAddr, Vec<usize>>) -> Self {
        let nodes = (0..nodes).map(|at| Node {
            name: name_of(at),
            mac: mac_of(at),
            programs: Programs::default(),
            agent: None,
            plan: BTreeMap::new(),
            is_on: false,
            segment: 0,
            key: 0,
            stalled_until: 0,
        });
        let mut world = Self {
            now: 10_000 * MS,
            nodes: nodes.collect(),
            is_deaf: false,
            blocked: BTreeSet::new(),
            frames: BTreeMap::new(),
            announced: Vec::new(),
        };
        for node in 0..world.nodes.len() {
            world.plan(node, plan);
            world.power_on(node);
        }
        world
    }

    pub(crate) fn power_on(&mut self, node: usize) {
        if !self.nodes[node].is_on {
            self.nodes[node].is_on = true;
            self.nodes[node].programs = Programs::default();
            self.start_agent(node);
        }
    }

    pub(crate) fn power_off(&mut self, node: usize) {
        self.nodes[node].is_on = false;
        self.nodes[node].agent = None;
    }

    pub(crate) fn stop_agent(&mut self, node: usize) {
        self.nodes[node].agent = None;
    }

    pub(crate) fn start_agent(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if !it.is_on || it.agent.is_some() {
            return;
        }
        let mut agent = Announcer::new(&it.name, it.mac, now);
        let programs = &mut it.programs;
        let is_outdated =
            now - programs.agent > AGENT_AWAY_AT_MOST && now - programs.signs.asked < ASKED_WITHIN;
        if is_outdated {
            programs.answered.values_mut().for_each(|answered| *answered = false);
        } else {
            let answered = programs.answered.iter().filter(|(_, it)| **it).map(|(address, _)| *address);
            agent.adopt(programs.link, answered, now);
            programs.signs.heard = now;
        }
        it.agent = Some(agent);
        self.follow_plan(node);
    }

    /// The agent does nothing for a while.
    pub(crate) fn stall(&mut self, node: usize, milliseconds: u64) {
        self.nodes[node].stalled_until = self.now + milliseconds * MS;
    }

    pub(crate) fn move_to(&mut self, node: usize, segment: u32) {
        self.nodes[node].segment = segment;
    }

    /// Lets a node hear another one, or no longer.
    pub(crate) fn block(&mut self, from: usize, to: usize, is_blocked: bool) {
        if is_blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    /// The agent takes another key: it begins anew, as it does when it is restarted.
    pub(crate) fn set_key(&mut self, node: usize, key: u32) {
        self.nodes[node].key = key;
        self.stop_agent(node);
        self.start_agent(node);
    }

    /// Gives a node a plan; its agent takes it if there is one.
    pub(crate) fn plan(&mut self, node: usize, plan: &BTreeMap<IpAddr, Vec<usize>>) {
        let mine = plan.iter().filter(|(_, owners)| owners.contains(&node));
        let named = mine.map(|(address, owners)| (*address, owners.iter().copied().map(name_of).collect()));
        self.nodes[node].plan = named.collect();
        self.follow_plan(node);
    }

    fn follow_plan(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(agent) = &mut it.agent else { return };
        agent.set(&it.plan, self.now);
        let peers: BTreeSet<u64> = agent.peers().collect();
        it.programs.peers.retain(|peer, _| peers.contains(peer));
        for peer in peers {
            it.programs.peers.entry(peer).or_default();
        }
        it.programs.answered.retain(|address, _| it.plan.contains_key(address));
        for address in it.plan.keys() {
            it.programs.answered.entry(*address).or_default();
        }
    }

    /// Heartbeats are lost from now on.
    pub(crate) fn deafen(&mut self) {
        self.is_deaf = true;
    }

    /// Who answers for an address, by segment.
    pub(crate) fn answering(&self, address: IpAddr) -> BTreeMap<u32, Vec<usize>> {
        let mut answering: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if node.is_on && node.programs.may_answer(address, self.now) {
                answering.entry(node.segment).or_default().push(at);
            }
        }
        answering
    }

    pub(crate) fn agent(&self, node: usize) -> &Announcer {
        self.nodes[node].agent.as_ref().unwrap()
    }

    /// Claims an address as somebody who is no node.
    pub(crate) fn claim_as_stranger(&mut self, node: usize, address: IpAddr) {
        let claim = Claim { at: self.now, mac: [2, 9, 9, 9, 9, 9] };
        self.nodes[node].programs.claims.insert(address, claim);
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        self.run_watched(milliseconds, |_| {});
    }

    pub(crate) fn run_watched(&mut self, milliseconds: u64, mut watch: impl FnMut(&Self)) {
        for _ in 0..milliseconds {
            self.now += MS;
            for (from, to, frame) in self.frames.remove(&self.now).unwrap_or_default() {
                self.deliver(from, to, frame);
            }
            for node in 0..self.nodes.len() {
                self.tick(node);
            }
            watch(self);
        }
    }

    fn tick(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let Some(agent) = it.agent.as_mut().filter(|_| it.is_on && it.stalled_until <= now) else { return };
        it.programs.agent = now;
        let signs = Signs {
            link: it.programs.signs,
            peers: it.programs.peers.clone(),
            claims: it.programs.claims.clone(),
            has_carrier: true,
        };
        if agent.deadline() > now {
            return;
        }
        for action in agent.tick(now, &signs) {
            self.act(node, &action);
        }
    }

    fn act(&mut self, node: usize, action: &Action) {
        let Node { programs, key, .. } = &mut self.nodes[node];
        let key = *key;
        match *action {
            Action::Ask { to, destination, flags } => {
                let flags = flags | u8::try_from(programs.link.flags).unwrap();
                let destination = Some(destination).filter(|mac| *mac != [0xff; 6]);
                self.send(node, destination, Frame::Request { to, sent: self.now, flags, key });
            }
            Action::Answer(address, answers) => drop(programs.answered.insert(address, answers)),
            Action::SetLink(link) => programs.link = link,
            Action::Probe(address) => self.send(node, None, Frame::Probe(address)),
            Action::Announce(address) => {
                self.announced.push((self.now, node, address));
                self.send(node, None, Frame::Claim(address));
            }
        }
    }

    fn send(&mut self, from: usize, to: Option<Mac>, frame: Frame) {
        self.frames.entry(self.now + LATENCY * MS).or_default().push((from, to, frame));
    }

    fn deliver(&mut self, from: usize, to: Option<Mac>, frame: Frame) {
        let (is_on, segment) = (self.nodes[from].is_on, self.nodes[from].segment);
        for at in 0..self.nodes.len() {
            let it = &self.nodes[at];
            let is_open = it.segment == segment && !self.blocked.contains(&(from, at));
            let is_reached = is_open && to.is_none_or(|mac| mac == it.mac);
            if at != from && is_on && it.is_on && is_reached {
                self.receive(at, from, frame);
            }
        }
    }

    fn receive(&mut self, at: usize, from: usize, frame: Frame) {
        let now = self.now;
        if let Frame::Request { key, .. } | Frame::Answer { key, .. } = frame
            && (self.is_deaf || key != self.nodes[at].key)
        {
            return;
        }
        let (peer, mac) = (node_number(&name_of(from)), mac_of(from));
        let me = node_number(&name_of(at));
        let programs = &mut self.nodes[at].programs;
        if let Some(entry) = programs.peers.get_mut(&peer)
            && matches!(frame, Frame::Request { to, .. } | Frame::Answer { to, .. } if to == me || to == ANYBODY)
        {
            entry.mac = mac;
        }
        match frame {
            Frame::Request { to, sent, flags, key } if to == me || to == ANYBODY => {
                if let Some(entry) = programs.note(peer, flags, 0, now) {
                    entry.stamp = sent;
                    let hears = flags & HEARTBEAT_HEARS_YOU != 0;
                    if hears {
                        entry.asked = now;
                        programs.signs.heard = now;
                    }
                    programs.signs.asked = now;
                }
                let agent_age = (now - programs.agent) / MS;
                let flags = u8::try_from(programs.link.flags).unwrap();
                self.send(at, Some(mac), Frame::Answer { to: peer, sent, flags, agent_age, key });
            }
            Frame::Answer { to, sent, flags, agent_age, .. } if to == me => {
                if let Some(entry) = programs.note(peer, flags, agent_age, now) {
                    entry.answered = entry.answered.max(sent);
                    programs.signs.heard = programs.signs.heard.max(sent);
                }
            }
            Frame::Probe(address) => {
                if programs.may_answer(address, now) {
                    self.send(at, Some(mac), Frame::Claim(address));
                }
            }
            Frame::Claim(address) => drop(programs.claims.insert(address, Claim { at: now, mac })),
            Frame::Request { .. } | Frame::Answer { .. } => {}
        }
    }

    pub(crate) fn is_willing(&self, node: usize) -> bool {
        self.nodes[node].programs.link.flags & LINK_WILLING != 0
    }
}
