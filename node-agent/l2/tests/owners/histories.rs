//! Random faults and changes of the plan: at no time do two nodes of one network answer, and in the end the right one does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use crate::sim::{MS, World};

const NODES: usize = 4;
const ADDRESSES: usize = 4;
/// Milliseconds after two networks became one in which both of their owners may answer: until one hears the other.
const MEETING: u64 = 220;

#[derive(Clone, Debug)]
enum Event {
    PowerOff(usize),
    PowerOn(usize),
    Cut(usize),
    Heal(usize),
    StopAgent(usize),
    StartAgent(usize),
    Stall(usize, u64),
    /// Owners of the address with this index; none: the Service is gone.
    Plan(usize, Vec<usize>),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        1 => node().prop_map(Event::PowerOff),
        1 => node().prop_map(Event::PowerOn),
        1 => node().prop_map(Event::Cut),
        1 => node().prop_map(Event::Heal),
        1 => node().prop_map(Event::StopAgent),
        1 => node().prop_map(Event::StartAgent),
        1 => (node(), 50..900_u64).prop_map(|(node, ms)| Event::Stall(node, ms)),
        1 => (0..ADDRESSES, owners()).prop_map(|(index, owners)| Event::Plan(index, owners)),
        3 => (10..1500_u64).prop_map(Event::Wait),
    ]
}

/// Some nodes, in any order; or nobody.
fn owners() -> impl Strategy<Value = Vec<usize>> {
    let some = (Just((0..NODES).collect::<Vec<_>>()).prop_shuffle(), 0..=NODES);
    some.prop_map(|(mut owners, many)| {
        owners.truncate(many);
        owners
    })
}

fn address(index: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(index).unwrap() + 1])
}

fn addresses() -> BTreeMap<IpAddr, Vec<usize>> {
    let lists = [vec![0, 1, 2, 3], vec![3, 2, 1, 0], vec![1, 3], vec![2, 0, 3]];
    lists.into_iter().enumerate().map(|(index, owners)| (address(index), owners)).collect()
}

struct History {
    world: World,
    plan: BTreeMap<IpAddr, Vec<usize>>,
    on: [bool; NODES],
    segments: [u32; NODES],
    /// When two networks last became one, and all agents were awake.
    met: u64,
    /// When the last one wakes up.
    stalled: u64,
}

impl History {
    fn new() -> Self {
        let plan = addresses();
        let mut world = World::new(NODES, &plan);
        world.run(3000);
        Self { met: 0, stalled: 0, world, plan, on: [true; NODES], segments: [0; NODES] }
    }

    fn run(&mut self, milliseconds: u64) {
        let (plan, met) = (&self.plan, self.met);
        self.world.run_watched(milliseconds, |world| {
            for address in plan.keys() {
                for (segment, nodes) in world.answering(*address) {
                    let is_meeting = world.now < met + MEETING * MS;
                    assert!(nodes.len() < 2 || is_meeting, "{nodes:?} answer for {address} on {segment}");
                }
            }
        });
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::PowerOff(node) => {
                self.on[node] = false;
                self.world.power_off(node);
            }
            Event::PowerOn(node) => {
                self.on[node] = true;
                self.world.power_on(node);
            }
            Event::Cut(node) => {
                self.segments[node] = u32::try_from(node).unwrap() + 1;
                self.world.move_to(node, self.segments[node]);
            }
            Event::Heal(node) => {
                // Nobody who has no agent can know that there is another one.
                (0..NODES).for_each(|node| self.world.start_agent(node));
                if self.segments[node] != 0 {
                    self.met = self.world.now.max(self.stalled);
                }
                self.segments[node] = 0;
                self.world.move_to(node, 0);
            }
            Event::StopAgent(node) => {
                if self.world.now >= self.met + MEETING * MS {
                    self.world.stop_agent(node);
                }
            }
            Event::StartAgent(node) => self.world.start_agent(node),
            Event::Stall(node, ms) => {
                self.stalled = self.stalled.max(self.world.now + ms * MS);
                if self.world.now < self.met + MEETING * MS {
                    self.met = self.stalled;
                }
                self.world.stall(node, ms);
            }
            Event::Plan(index, ref owners) => {
                self.plan.remove(&address(index));
                if !owners.is_empty() {
                    self.plan.insert(address(index), owners.clone());
                }
                (0..NODES).for_each(|node| self.world.plan(node, &self.plan));
            }
            Event::Wait(ms) => self.run(ms),
        }
    }

    fn settle(&mut self) {
        for node in 0..NODES {
            self.world.start_agent(node);
        }
        self.run(36_000);
        for (address, owners) in &self.plan {
            let mut expected: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for owner in owners.iter().filter(|owner| self.on[**owner]) {
                expected.entry(self.segments[*owner]).or_insert_with(|| vec![*owner]);
            }
            assert_eq!(self.world.answering(*address), expected, "{address}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn one_node_answers_whatever_fails(events in prop::collection::vec(event(), 0..40)) {
        let mut history = History::new();
        events.iter().for_each(|event| history.step(event));
        history.settle();
    }
}
