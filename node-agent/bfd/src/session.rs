//! One session (RFC 5880, 6.8), as a function of time, of the packets that come, and of random numbers.
//!
//! Time is what has passed since some moment that its owner chooses, and never goes back. A session says when it wants to be called
//! next ([`Session::deadline`]); who calls it earlier or later does no harm, but for what that means to the neighbour.
//!
//! Intervals change by a poll sequence (6.8.3): new ones are said at once, in packets that poll; what could make the neighbour miss
//! packets, or us, waits for its answer. While a session is not up, nobody sends more than a packet in a second.

use std::cmp;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use crate::packet::{Diagnostic, Packet, State};

/// At least this is between packets until a session is up (6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);

/// At least this is between packets ever: who asks for less gets this.
pub const FAST: Duration = Duration::from_millis(10);

/// What the node wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Between packets that it sends. Here and below at least [`FAST`], and at most [`u32::MAX`] microseconds, which is more than an hour.
    pub transmit: Duration,
    /// Between packets that it can take.
    pub receive: Duration,
    /// Packets that may be missing until the neighbour takes the node for gone.
    pub multiplier: NonZeroU8,
}

/// Intervals, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intervals {
    transmit: u32,
    receive: u32,
}

/// What is known of the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote {
    discriminator: u32,
    state: State,
    demand: bool,
    multiplier: u8,
    transmit: u32,
    receive: u32,
}

/// A neighbour that was never heard.
const UNKNOWN: Remote =
    Remote { discriminator: 0, state: State::Down, demand: false, multiplier: 0, transmit: 0, receive: 1 };

/// A session with one neighbour.
#[derive(Clone, Debug)]
pub struct Session {
    discriminator: NonZeroU32,
    parameters: Parameters,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// What both sides go by.
    in_force: Intervals,
    /// What the neighbour is being asked to go by.
    polled: Option<Intervals>,
    heard: Option<Duration>,
    /// When the last packet was sent, and how much of the interval may pass until the next, in thousandths.
    sent: Option<(Duration, u32)>,
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Session {
    /// A session that is down. Its discriminator is that of no other session of the node.
    pub fn new(discriminator: NonZeroU32, parameters: Parameters) -> Self {
        let mut session = Self {
            discriminator,
            parameters,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: UNKNOWN,
            in_force: Intervals { transmit: 0, receive: 0 },
            polled: None,
            heard: None,
            sent: None,
        };
        session.settle();
        session
    }

    /// Number of the session in packets to the node.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The neighbour's state, as it said last; `Down` where it is silent.
    pub fn remote_state(&self) -> State {
        self.remote.state
    }

    /// Why it changed last.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Wants something else from now on. A session that is up stays up.
    pub fn configure(&mut self, parameters: Parameters) {
        self.parameters = parameters;
        self.settle();
    }

    /// Takes the session down for good. The packet that it returns says so to the neighbour; others go on.
    pub fn disable(&mut self, now: Duration, random: u32) -> Packet {
        self.turn(State::AdminDown, Diagnostic::AdminDown);
        self.settle();
        self.send(now, random)
    }

    /// How long packets may be missing: the neighbour's multiplier times the slower of what we take and what it sends (6.8.4).
    pub fn detection_time(&self) -> Duration {
        // A smaller interval than before is the neighbour's as soon as it has answered.
        let receive = cmp::max(self.in_force.receive, self.offered().receive);
        let interval = cmp::max(receive, self.remote.transmit);
        Duration::from_micros(u64::from(interval)) * u32::from(self.remote.multiplier)
    }

    /// Between packets that are sent, before jitter.
    pub fn transmit_interval(&self) -> Duration {
        // A larger interval than before is ours as soon as the neighbour has answered.
        let transmit = cmp::min(self.in_force.transmit, self.offered().transmit);
        Duration::from_micros(u64::from(cmp::max(transmit, self.remote.receive)))
    }

    /// When [`Self::advance`] has something to do; `None`: not before a packet comes.
    pub fn deadline(&self) -> Option<Duration> {
        [self.expiry(), self.next_packet()].into_iter().flatten().min()
    }

    /// Takes a packet that came for the session, with its TTL checked. What it returns is sent at once.
    pub fn receive(&mut self, packet: &Packet, now: Duration, random: u32) -> Option<Packet> {
        let before = self.state;
        self.remote = Remote {
            discriminator: packet.mine.get(),
            state: packet.state,
            demand: packet.demand,
            multiplier: packet.multiplier.get(),
            transmit: packet.transmit,
            receive: packet.receive,
        };
        self.heard = Some(now);
        if packet.is_final
            && let Some(agreed) = self.polled.take()
        {
            self.in_force = agreed;
        }
        if self.state == State::AdminDown {
            return None;
        }
        self.follow(packet.state);
        self.settle();
        if packet.poll {
            return Some(Packet { poll: false, is_final: true, ..self.packet() });
        }
        (self.state != before).then(|| self.send(now, random))
    }

    /// Does what time asks for: gives a silent neighbour up, and says what is to be sent now.
    pub fn advance(&mut self, now: Duration, random: u32) -> Option<Packet> {
        let before = self.state;
        if self.expiry().is_some_and(|expiry| expiry <= now) {
            self.heard = None;
            self.remote = UNKNOWN;
            if matches!(self.state, State::Init | State::Up) {
                self.turn(State::Down, Diagnostic::TimeExpired);
            }
            self.settle();
        }
        let is_due = self.next_packet().is_some_and(|next| next <= now);
        (is_due || self.state != before).then(|| self.send(now, random))
    }

    /// The state machine of 6.2 and 6.8.6.
    fn follow(&mut self, remote: State) {
        match (self.state, remote) {
            (State::AdminDown, _) => {}
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.turn(State::Down, Diagnostic::NeighborDown);
            }
            (State::Down, State::Down) => self.turn(State::Init, self.diagnostic),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.turn(State::Up, Diagnostic::None);
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => {}
        }
    }

    fn turn(&mut self, state: State, diagnostic: Diagnostic) {
        self.state = state;
        self.diagnostic = diagnostic;
    }

    /// Intervals that the session should have: in force at once while it is not up, by a poll sequence otherwise.
    fn settle(&mut self) {
        let is_up = self.state == State::Up;
        let least = if is_up { FAST } else { SLOW };
        let wanted = Intervals {
            transmit: micros(self.parameters.transmit.max(least)),
            receive: micros(self.parameters.receive.max(FAST)),
        };
        if !is_up {
            self.polled = None;
            self.in_force = wanted;
        } else if self.polled.is_none() && self.in_force != wanted {
            self.polled = Some(wanted);
        }
    }

    /// What packets say.
    fn offered(&self) -> Intervals {
        self.polled.unwrap_or(self.in_force)
    }

    fn expiry(&self) -> Option<Duration> {
        Some(self.heard? + self.detection_time())
    }

    fn next_packet(&self) -> Option<Duration> {
        let is_up = self.state == State::Up && self.remote.state == State::Up;
        // A neighbour that takes none, or none while it knows that all is well (6.8.7).
        if self.remote.receive == 0 || (self.remote.demand && is_up && self.polled.is_none()) {
            return None;
        }
        let Some((sent, share)) = self.sent else { return Some(Duration::ZERO) };
        Some(sent + self.transmit_interval() * share / 1000)
    }

    fn send(&mut self, now: Duration, random: u32) -> Packet {
        // Up to a quarter less than the interval, and at least a tenth if no packet may be missing (6.8.7).
        let highest = if self.parameters.multiplier.get() == 1 { 900 } else { 1000 };
        self.sent = Some((now, 750 + random % (highest - 750 + 1)));
        self.packet()
    }

    fn packet(&self) -> Packet {
        let Intervals { transmit, receive } = self.offered();
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polled.is_some(),
            is_final: false,
            // The speaker and this end together.
            control_plane_independent: false,
            demand: false,
            multiplier: self.parameters.multiplier,
            mine: self.discriminator,
            yours: self.remote.discriminator,
            transmit,
            receive,
            echo: 0,
        }
    }
}

#[cfg(test)]
mod tests;
