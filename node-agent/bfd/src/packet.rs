//! The control packet (RFC 5880, 4.1).

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};

use thiserror::Error;

/// Bytes of a packet without authentication.
pub const LENGTH: usize = 24;

/// The only version there is.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Why bytes are no packet for us. Whoever receives them does nothing (RFC 5880, 6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Fewer bytes than a packet has, or than it says.
    #[error("it is too short")]
    Short,
    /// Another version.
    #[error("its version is {0}, not 1")]
    Version(u8),
    /// The length that it names is that of no packet.
    #[error("its length is {0}")]
    Length(u8),
    /// Its multiplier is 0.
    #[error("its detection multiplier is 0")]
    Multiplier,
    /// It is of RFC 8562.
    #[error("it is for many receivers")]
    Multipoint,
    /// Its discriminator is 0.
    #[error("its sender's discriminator is 0")]
    Discriminator,
    /// It names no session, and its sender says that there is one.
    #[error("it names no session, and its state is {0}")]
    NoSession(State),
    /// It is authenticated, and sessions are not.
    #[error("it is authenticated, which is not supported")]
    Authenticated,
}

/// State of a session (RFC 5880, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by an administrator.
    AdminDown,
    /// Nothing is heard.
    #[default]
    Down,
    /// Heard, but the other side does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Why a session changed its state last (RFC 5880, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// Nothing happened.
    #[default]
    None,
    /// No packet came within the detection time.
    TimeExpired,
    /// An echo failed.
    EchoFailed,
    /// The neighbour says that the session is down.
    NeighborDown,
    /// The forwarding plane was reset.
    ForwardingReset,
    /// A path is down that the session depends on.
    PathDown,
    /// A path behind is down.
    ConcatenatedPathDown,
    /// An administrator took it down.
    AdminDown,
    /// A path behind is down, seen from the other side.
    ReverseConcatenatedPathDown,
    /// One that has no name; below 32.
    Other(u8),
}

impl Diagnostic {
    fn from_bits(bits: u8) -> Self {
        match bits & 0x1f {
            0 => Self::None,
            1 => Self::TimeExpired,
            2 => Self::EchoFailed,
            3 => Self::NeighborDown,
            4 => Self::ForwardingReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdminDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::TimeExpired => 1,
            Self::EchoFailed => 2,
            Self::NeighborDown => 3,
            Self::ForwardingReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdminDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(bits) => bits & 0x1f,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no diagnostic",
            Self::TimeExpired => "no packet came within the detection time",
            Self::EchoFailed => "an echo failed",
            Self::NeighborDown => "the neighbour says that the session is down",
            Self::ForwardingReset => "the forwarding plane was reset",
            Self::PathDown => "the path is down",
            Self::ConcatenatedPathDown => "a path behind the neighbour is down",
            Self::AdminDown => "an administrator took the session down",
            Self::ReverseConcatenatedPathDown => "a path behind is down in the other direction",
            Self::Other(bits) => return write!(f, "diagnostic {bits}"),
        })
    }
}

/// A control packet. Intervals are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's state changed last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// The sender wants an answer to what it says about intervals.
    pub poll: bool,
    /// The answer.
    pub is_final: bool,
    /// The sender's BFD goes on without its control plane.
    pub control_plane_independent: bool,
    /// The sender wants no packets while both are up.
    pub demand: bool,
    /// How many packets of the sender may be missing.
    pub multiplier: NonZeroU8,
    /// The session at the sender.
    pub mine: NonZeroU32,
    /// The session at the receiver; 0 while the sender does not know.
    pub yours: u32,
    /// At least this is between packets that the sender wants to send.
    pub transmit: u32,
    /// At least this must be between packets that it receives; 0 means that it wants none.
    pub receive: u32,
    /// The same for echoes; 0 means that it takes none.
    pub echo: u32,
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Packet {
    /// Reads a datagram. What is behind the packet does not count.
    ///
    /// # Errors
    /// One of [`enum@Error`], in the order of RFC 5880, 6.8.6.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let &[first, second, multiplier, length, ..] = bytes else { return Err(Error::Short) };
        if first >> 5 != VERSION {
            return Err(Error::Version(first >> 5));
        }
        if usize::from(length) < LENGTH {
            return Err(Error::Length(length));
        }
        if usize::from(length) > bytes.len() {
            return Err(Error::Short);
        }
        let word = |at| number(bytes, at).ok_or(Error::Short);
        let packet = Self {
            diagnostic: Diagnostic::from_bits(first),
            state: State::from_bits(second >> 6),
            poll: second & POLL != 0,
            is_final: second & FINAL != 0,
            control_plane_independent: second & CONTROL_PLANE_INDEPENDENT != 0,
            demand: second & DEMAND != 0,
            multiplier: NonZeroU8::new(multiplier).ok_or(Error::Multiplier)?,
            mine: NonZeroU32::new(word(4)?).ok_or(Error::Discriminator)?,
            yours: word(8)?,
            transmit: word(12)?,
            receive: word(16)?,
            echo: word(20)?,
        };
        match packet.state {
            _ if second & MULTIPOINT != 0 => Err(Error::Multipoint),
            state @ (State::Init | State::Up) if packet.yours == 0 => Err(Error::NoSession(state)),
            _ if second & AUTHENTICATED != 0 => Err(Error::Authenticated),
            _ => Ok(packet),
        }
    }

    /// The packet as it is sent.
    pub fn bytes(&self) -> [u8; LENGTH] {
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.bits();
        bytes[1] = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        bytes[2] = self.multiplier.get();
        bytes[3] = LENGTH as u8;
        let words = [self.mine.get(), self.yours, self.transmit, self.receive, self.echo];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up, polls, multiplier 3, 100 ms and 200 ms.
    const BYTES: [u8; LENGTH] =
        [0x21, 0xe0, 3, 24, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0x01, 0x86, 0xa0, 0, 0x03, 0x0d, 0x40, 0, 0, 0, 0];

    fn mk_packet() -> Packet {
        Packet {
            diagnostic: Diagnostic::TimeExpired,
            state: State::Up,
            poll: true,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            multiplier: NonZeroU8::new(3).unwrap(),
            mine: NonZeroU32::new(7).unwrap(),
            yours: 256,
            transmit: 100_000,
            receive: 200_000,
            echo: 0,
        }
    }

    fn with(at: usize, byte: u8) -> Result<Packet, Error> {
        let mut bytes = BYTES;
        bytes[at] = byte;
        Packet::read(&bytes)
    }

    #[test]
    fn a_packet_is_what_the_rfc_draws() {
        assert_eq!(Packet::read(&BYTES), Ok(mk_packet()));
        assert_eq!(mk_packet().bytes(), BYTES);
        let longer: Vec<u8> = BYTES.iter().copied().chain([1, 2, 3]).collect();
        assert_eq!(Packet::read(&longer), Ok(mk_packet()));
    }

    #[test]
    fn flags_states_and_diagnostics_have_their_bits() {
        let flags =
            |packet: Packet| (packet.poll, packet.is_final, packet.control_plane_independent, packet.demand);
        assert_eq!(flags(with(1, 0x50).unwrap()), (false, true, false, false));
        assert_eq!(flags(with(1, 0x4a).unwrap()), (false, false, true, true));
        let states: Vec<State> =
            [0x00, 0x40, 0x80, 0xc0].iter().map(|bits| with(1, *bits).unwrap().state).collect();
        assert_eq!(states, [State::AdminDown, State::Down, State::Init, State::Up]);
        for bits in 0..32 {
            let packet = with(0, 0x20 | bits).unwrap();
            assert_eq!(packet.bytes()[0], 0x20 | bits, "{packet:?}");
        }
    }

    #[test]
    fn what_must_be_discarded_is_no_packet() {
        assert_eq!(Packet::read(&[]), Err(Error::Short));
        assert_eq!(Packet::read(&BYTES[..23]), Err(Error::Short));
        assert_eq!(with(0, 0x01), Err(Error::Version(0)));
        assert_eq!(with(0, 0x41), Err(Error::Version(2)));
        assert_eq!(with(3, 23), Err(Error::Length(23)));
        assert_eq!(with(3, 25), Err(Error::Short));
        assert_eq!(with(2, 0), Err(Error::Multiplier));
        assert_eq!(with(1, 0xc1), Err(Error::Multipoint));
        assert_eq!(with(7, 0), Err(Error::Discriminator));
        assert_eq!(with(10, 0), Err(Error::NoSession(State::Up)));
        assert_eq!(with(1, 0xc4), Err(Error::Authenticated));
    }
}
