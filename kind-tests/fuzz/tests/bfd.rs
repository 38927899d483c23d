//! Packets of BFD, from whoever is on the link.

use std::num::{NonZeroU8, NonZeroU32};
use std::sync::LazyLock;
use std::time::Duration;

use cilium_bfd::packet::LENGTH;
use cilium_bfd::session::{FAST, SLOW};
use cilium_bfd::{Packet, Parameters, Session, State};
use fuzz::Input;

/// From session 2 to session 1: down, init, up with a poll, up with its answer, held down.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let packet = |first: u8, second: u8, yours: u8| {
        let numbers = [0, 0, 0, 2, 0, 0, 0, yours, 0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0];
        [first, second, 3, 24].into_iter().chain(numbers).collect()
    };
    vec![
        packet(0x20, 0x40, 0),
        packet(0x20, 0x80, 1),
        packet(0x20, 0xe0, 1),
        packet(0x20, 0xd0, 1),
        packet(0x27, 0x00, 1),
    ]
});

fn mk_session() -> Session {
    let parameters = Parameters {
        transmit: Duration::from_millis(100),
        receive: Duration::from_millis(100),
        multiplier: NonZeroU8::MIN,
    };
    Session::new(NonZeroU32::MIN, parameters)
}

/// Whatever comes, time goes on, and nobody is sent more than was agreed on.
fn check_history(bytes: &[u8]) {
    let mut session = mk_session();
    let mut now = Duration::ZERO;
    for (place, chunk) in bytes.chunks(LENGTH).enumerate() {
        let Ok(packet) = Packet::read(chunk) else { continue };
        assert_eq!(Packet::read(&packet.bytes()), Ok(packet), "another packet is written than was read");
        now += Duration::from_millis(u64::from(chunk[0]));
        let random = u32::try_from(place).unwrap_or_default();
        let answer = session.receive(&packet, now, random);
        assert!(!packet.poll || session.state() == State::AdminDown || answer.is_some_and(|it| it.is_final));
        session.advance(now, random);
        let least = if session.state() == State::Up { FAST } else { SLOW };
        assert!(session.transmit_interval() >= least);
        assert!(session.deadline().is_none_or(|deadline| deadline > now), "the session does not rest");
    }
}

#[test]
fn samples_bring_a_session_up_and_down() {
    let mut session = mk_session();
    let states: Vec<State> = SAMPLES
        .iter()
        .map(|sample| {
            session.receive(&Packet::read(sample).expect("a packet"), Duration::ZERO, 0);
            session.state()
        })
        .collect();
    assert_eq!(states, [State::Init, State::Up, State::Up, State::Up, State::Down]);
}

#[test]
fn any_packet() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check_history(bytes);
        let all: Vec<Vec<u8>> = vec![SAMPLES.concat()];
        if let Some(packets) = Input(bytes).altered(&all) {
            check_history(&packets);
        }
    });
}
