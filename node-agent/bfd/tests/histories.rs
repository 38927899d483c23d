//! Two sessions and a network between them that loses and delays packets.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use cilium_bfd::{Diagnostic, Packet, Parameters, Session, State};
use proptest::prelude::*;

/// What a network does to one packet after the other, from the beginning again when all is used.
#[derive(Clone, Debug)]
struct Way {
    /// `None`: it is lost.
    delays: Vec<Option<Duration>>,
    used: usize,
}

impl Way {
    fn new(delays: Vec<Option<u64>>) -> Self {
        let delays = delays.into_iter().map(|delay| delay.map(Duration::from_micros)).collect();
        Self { delays, used: 0 }
    }

    fn next(&mut self) -> Option<Duration> {
        self.used += 1;
        self.delays[self.used % self.delays.len()]
    }
}

/// A state that was reached.
type Turn = (Duration, usize, State, Diagnostic);

/// Both ends, and what is on the way.
struct World {
    now: Duration,
    ends: [Session; 2],
    /// From an end to the other one.
    ways: [Way; 2],
    /// By arrival; the number tells packets apart that arrive together.
    on_the_way: BTreeMap<(Duration, u64), (usize, Packet)>,
    /// When an end heard something last.
    heard: [Option<Duration>; 2],
    sent: u64,
    random: u32,
    turns: Vec<Turn>,
}

impl World {
    fn new(parameters: [Parameters; 2], ways: [Way; 2], random: u32) -> Self {
        let session = |number, parameters| Session::new(NonZeroU32::new(number).expect("not 0"), parameters);
        let ends = [session(1, parameters[0]), session(2, parameters[1])];
        let (now, on_the_way) = (Duration::ZERO, BTreeMap::new());
        Self { now, ends, ways, on_the_way, heard: [None; 2], sent: 0, random, turns: Vec::new() }
    }

    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random >> 8
    }

    fn carry(&mut self, from: usize, packet: Option<Packet>) {
        let Some(packet) = packet else { return };
        assert_eq!(Packet::read(&packet.bytes()), Ok(packet), "what is sent can be read");
        self.sent += 1;
        if let Some(delay) = self.ways[from].next() {
            self.on_the_way.insert((self.now + delay, self.sent), (1 - from, packet));
        }
    }

    fn note(&mut self, end: usize, before: State) {
        let session = &self.ends[end];
        if session.state() != before {
            self.turns.push((self.now, end, session.state(), session.diagnostic()));
        }
    }

    /// Lets time pass.
    fn run(&mut self, until: Duration) {
        loop {
            let arrival = self.on_the_way.keys().next().map(|(at, _)| *at);
            let deadlines = self.ends.iter().map(Session::deadline);
            let next = deadlines.chain([arrival]).flatten().min().filter(|next| *next <= until);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let ((..), (to, packet)) = self.on_the_way.pop_first().expect("it was there");
                let (random, before) = (self.random(), self.ends[to].state());
                let answer = self.ends[to].receive(&packet, self.now, random);
                self.heard[to] = Some(self.now);
                self.note(to, before);
                self.carry(to, answer);
                continue;
            }
            for end in [0, 1] {
                let (random, before) = (self.random(), self.ends[end].state());
                let packet = self.ends[end].advance(self.now, random);
                self.note(end, before);
                self.carry(end, packet);
            }
        }
        self.now = until;
    }

    fn run_for(&mut self, milliseconds: u64) {
        self.run(self.now + Duration::from_millis(milliseconds));
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

fn any_parameters() -> impl Strategy<Value = Parameters> {
    (10_u64..600, 10_u64..600, 2_u8..6).prop_map(|(transmit, receive, multiplier)| Parameters {
        transmit: Duration::from_millis(transmit),
        receive: Duration::from_millis(receive),
        multiplier: NonZeroU8::new(multiplier).expect("not 0"),
    })
}

/// Loses some, and has the others overtake each other.
fn any_way() -> impl Strategy<Value = Way> {
    let delay = prop_oneof![1 => Just(None), 2 => (0_u64..3_000_000).prop_map(Some)];
    prop::collection::vec(delay, 1..40).prop_map(Way::new)
}

/// Delays less than a millisecond, in order.
fn mk_good() -> [Way; 2] {
    [Way::new(vec![Some(500)]), Way::new(vec![Some(700)])]
}

const BOTH_UP: [State; 2] = [State::Up, State::Up];

proptest! {
    #[test]
    fn they_come_up_whatever_was_before(
        parameters in [any_parameters(), any_parameters()],
        ways in [any_way(), any_way()],
        random: u32,
        before in 0_u64..20_000,
    ) {
        let mut world = World::new(parameters, ways, random);
        world.run_for(before);
        world.ways = mk_good();
        // Late packets arrive, either side gives up once, and has two slow packets to come up; then a poll is answered.
        world.run_for(3_000 + 5 * 1_000 + 4_000);
        prop_assert_eq!(world.states(), BOTH_UP);
        for (end, session) in world.ends.iter().enumerate() {
            let other = parameters[1 - end];
            prop_assert_eq!(session.transmit_interval(), parameters[end].transmit.max(other.receive));
            let interval = parameters[end].receive.max(other.transmit);
            prop_assert_eq!(session.detection_time(), interval * u32::from(other.multiplier.get()));
        }
    }

    #[test]
    fn they_stay_up_while_packets_come_and_parameters_change(
        parameters in prop::collection::vec((0_usize..2, any_parameters(), 0_u64..3_000), 0..12),
        random: u32,
    ) {
        let first = Parameters {
            transmit: Duration::from_millis(100),
            receive: Duration::from_millis(100),
            multiplier: NonZeroU8::new(3).unwrap(),
        };
        let mut world = World::new([first; 2], mk_good(), random);
        world.run_for(5_000);
        prop_assert_eq!(world.states(), BOTH_UP);
        world.turns.clear();
        for (end, parameters, pause) in parameters {
            world.ends[end].configure(parameters);
            world.run_for(pause);
        }
        world.run_for(10_000);
        prop_assert_eq!(&world.turns, &[]);
    }

    #[test]
    fn silence_is_noticed_in_time_and_not_before(
        parameters in [any_parameters(), any_parameters()],
        random: u32,
        cut in 0_u64..2_000,
    ) {
        let mut world = World::new(parameters, mk_good(), random);
        world.run_for(8_000 + cut);
        prop_assert_eq!(world.states(), BOTH_UP);
        world.turns.clear();
        let detection = world.ends[1].detection_time();
        world.ways[0] = Way::new(vec![None]);
        world.run_for(20_000);
        let (at, end, state, diagnostic) = world.turns[0];
        prop_assert_eq!((end, state, diagnostic), (1, State::Down, Diagnostic::TimeExpired));
        prop_assert_eq!(at, world.heard[1].unwrap() + detection);
        // The other one hears of it with the packet that says so.
        let (later, end, state, diagnostic) = world.turns[1];
        prop_assert_eq!((end, state, diagnostic), (0, State::Down, Diagnostic::NeighborDown));
        prop_assert_eq!(later - at, Duration::from_micros(700));
        prop_assert!(!world.turns[2..].iter().any(|turn| turn.2 == State::Up), "{:?}", world.turns);
    }
}
