use super::*;

/// Takes all of an interval until the next packet.
const NO_JITTER: u32 = 250;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn mk_parameters(transmit: u64, receive: u64, multiplier: u8) -> Parameters {
    let multiplier = NonZeroU8::new(multiplier).unwrap();
    Parameters { transmit: ms(transmit), receive: ms(receive), multiplier }
}

fn mk_session() -> Session {
    Session::new(NonZeroU32::new(7).unwrap(), mk_parameters(100, 200, 3))
}

/// From a neighbour whose session is 9: 50 ms, 300 ms, multiplier 4.
fn from(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(4).unwrap(),
        mine: NonZeroU32::new(9).unwrap(),
        yours: 7,
        transmit: 50_000,
        receive: 300_000,
        echo: 0,
    }
}

/// A session that came up at 0, and whose poll sequence is over.
fn mk_up() -> Session {
    let mut session = mk_session();
    session.receive(&from(State::Init), ms(0), NO_JITTER);
    session.receive(&Packet { is_final: true, ..from(State::Up) }, ms(0), NO_JITTER);
    assert_eq!((session.state(), session.polled), (State::Up, None));
    session
}

#[test]
fn states_follow_the_neighbour_as_the_rfc_draws_it() {
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (Down, [(AdminDown, Down), (Down, Init), (Init, Up), (Up, Down)]),
        (Init, [(AdminDown, Down), (Down, Init), (Init, Up), (Up, Up)]),
        (Up, [(AdminDown, Down), (Down, Down), (Init, Up), (Up, Up)]),
        (AdminDown, [(AdminDown, AdminDown), (Down, AdminDown), (Init, AdminDown), (Up, AdminDown)]),
    ];
    for (state, row) in table {
        for (heard, expected) in row {
            let mut session = Session { state, ..mk_session() };
            session.receive(&from(heard), ms(0), NO_JITTER);
            assert_eq!(session.state(), expected, "{state} hears {heard}");
        }
    }
}

#[test]
fn a_session_says_first_what_it_will_be() {
    let mut session = mk_session();
    assert_eq!(session.deadline(), Some(ms(0)));
    let packet = session.advance(ms(0), NO_JITTER).unwrap();
    let expected = Packet {
        diagnostic: Diagnostic::None,
        state: State::Down,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(3).unwrap(),
        mine: NonZeroU32::new(7).unwrap(),
        yours: 0,
        transmit: 1_000_000,
        receive: 200_000,
        echo: 0,
    };
    assert_eq!(packet, expected);
    assert_eq!(session.deadline(), Some(ms(1000)));
    assert_eq!(session.advance(ms(999), NO_JITTER), None);
    assert_eq!(session.advance(ms(1000), NO_JITTER), Some(expected));
}

#[test]
fn it_is_up_when_both_hear_each_other_and_fast_when_the_neighbour_has_agreed() {
    let mut session = mk_session();
    session.advance(ms(0), NO_JITTER);
    let packet = session.receive(&Packet { yours: 0, ..from(State::Down) }, ms(10), NO_JITTER).unwrap();
    assert_eq!((packet.state, packet.yours, packet.transmit), (State::Init, 9, 1_000_000));

    let packet = session.receive(&from(State::Up), ms(20), NO_JITTER).unwrap();
    assert_eq!((packet.state, packet.poll, packet.transmit), (State::Up, true, 100_000));
    // What is faster than before needs no answer; the neighbour takes a packet in 300 ms.
    assert_eq!(session.deadline(), Some(ms(320)));

    assert_eq!(session.receive(&Packet { is_final: true, ..from(State::Up) }, ms(30), NO_JITTER), None);
    let packet = session.advance(ms(320), NO_JITTER).unwrap();
    assert_eq!((packet.poll, packet.transmit), (false, 100_000));
}

#[test]
fn a_poll_is_answered_at_once_and_does_not_delay_packets() {
    let mut session = mk_up();
    let before = session.next_packet();
    let answer = session.receive(&Packet { poll: true, ..from(State::Up) }, ms(200), NO_JITTER).unwrap();
    assert_eq!((answer.poll, answer.is_final, answer.state), (false, true, State::Up));
    assert_eq!(session.next_packet(), before);
}

#[test]
fn silence_is_noticed_after_the_neighbours_multiple_of_the_slower_interval() {
    let mut session = mk_up();
    session.receive(&from(State::Up), ms(100), NO_JITTER);
    // 4 × max(200, 50).
    assert_eq!(session.detection_time(), ms(800));
    session.advance(ms(899), NO_JITTER);
    assert_eq!(session.state(), State::Up);
    let packet = session.advance(ms(900), NO_JITTER).unwrap();
    assert_eq!((packet.state, packet.diagnostic), (State::Down, Diagnostic::TimeExpired));
    assert_eq!((packet.yours, packet.transmit), (0, 1_000_000));

    let mut session = mk_up();
    session.receive(&Packet { transmit: 500_000, ..from(State::Up) }, ms(100), NO_JITTER);
    assert_eq!(session.detection_time(), ms(2000));
}

#[test]
fn a_neighbour_that_never_spoke_is_waited_for() {
    let mut session = mk_session();
    session.advance(ms(0), NO_JITTER);
    session.advance(ms(100_000), NO_JITTER);
    assert_eq!((session.state(), session.diagnostic()), (State::Down, Diagnostic::None));
}

#[test]
fn a_neighbour_that_says_down_is_believed() {
    let mut session = mk_up();
    let packet = session.receive(&from(State::Down), ms(10), NO_JITTER).unwrap();
    assert_eq!((packet.state, packet.diagnostic), (State::Down, Diagnostic::NeighborDown));
    assert_eq!(packet.transmit, 1_000_000);
}

#[test]
fn slower_intervals_wait_for_the_neighbour_and_faster_ones_do_not() {
    let mut session = mk_up();
    session.receive(&Packet { receive: 10_000, ..from(State::Up) }, ms(0), NO_JITTER);
    session.configure(mk_parameters(400, 20, 3));
    let packet = session.advance(ms(300), NO_JITTER).unwrap();
    assert_eq!((packet.poll, packet.transmit, packet.receive), (true, 400_000, 20_000));
    assert_eq!(session.transmit_interval(), ms(100));
    assert_eq!(session.detection_time(), ms(800));
    session.receive(&Packet { is_final: true, receive: 10_000, ..from(State::Up) }, ms(310), NO_JITTER);
    assert_eq!(session.transmit_interval(), ms(400));
    assert_eq!(session.detection_time(), ms(200));

    session.configure(mk_parameters(50, 1000, 3));
    assert_eq!(session.transmit_interval(), ms(50));
    assert_eq!(session.detection_time(), ms(4000));
}

#[test]
fn a_change_while_polling_is_polled_for_afterwards() {
    let mut session = mk_up();
    session.configure(mk_parameters(400, 200, 3));
    session.configure(mk_parameters(500, 200, 3));
    assert_eq!(session.packet().transmit, 400_000);
    session.receive(&Packet { is_final: true, ..from(State::Up) }, ms(10), NO_JITTER);
    assert_eq!((session.packet().transmit, session.packet().poll), (500_000, true));
    session.receive(&Packet { is_final: true, ..from(State::Up) }, ms(20), NO_JITTER);
    assert_eq!((session.packet().transmit, session.packet().poll), (500_000, false));
}

#[test]
fn packets_come_up_to_a_quarter_early() {
    let after = |multiplier, random| {
        let mut session = Session::new(NonZeroU32::MIN, mk_parameters(100, 100, multiplier));
        session.advance(ms(0), random);
        session.deadline().unwrap()
    };
    assert_eq!((after(3, 0), after(3, 250), after(3, 251)), (ms(750), ms(1000), ms(750)));
    assert_eq!((after(1, 0), after(1, 150), after(1, 151)), (ms(750), ms(900), ms(750)));
}

#[test]
fn who_wants_no_packets_gets_none() {
    let mut session = mk_up();
    session.receive(&Packet { receive: 0, ..from(State::Up) }, ms(0), NO_JITTER);
    assert_eq!(session.next_packet(), None);
    session.receive(&Packet { demand: true, ..from(State::Up) }, ms(0), NO_JITTER);
    assert_eq!(session.next_packet(), None);
    session.configure(mk_parameters(400, 200, 3));
    assert!(session.next_packet().is_some(), "a poll sequence goes on");
    // One that is gone may want them when it comes back.
    session.receive(&Packet { receive: 0, ..from(State::Up) }, ms(0), NO_JITTER);
    session.advance(ms(10_000), NO_JITTER);
    assert!(session.next_packet().is_some());
}

#[test]
fn a_session_that_is_taken_down_says_so_and_stays_down() {
    let mut session = mk_up();
    let packet = session.disable(ms(10), NO_JITTER);
    assert_eq!((packet.state, packet.diagnostic), (State::AdminDown, Diagnostic::AdminDown));
    assert_eq!(session.receive(&from(State::Down), ms(20), NO_JITTER), None);
    assert_eq!(session.advance(ms(1010), NO_JITTER).unwrap().state, State::AdminDown);
}

#[test]
fn nobody_gets_packets_without_a_pause() {
    let mut session = Session::new(NonZeroU32::MIN, mk_parameters(0, 0, 3));
    session.receive(&Packet { receive: 1, ..from(State::Init) }, ms(0), NO_JITTER);
    assert_eq!(session.transmit_interval(), FAST);
    assert_eq!(session.packet().receive, 10_000);
}
