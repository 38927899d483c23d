use std::collections::BTreeMap;

use cilium_rest::bgp::{Attributes, Routes};
use ipnet::IpNet;

use super::*;
use crate::export::{Changes, export};

const START: Duration = Duration::from_secs(1000);

fn mk_parameters(local_asn: u32, peer_asn: u32, id: u8) -> Parameters {
    Parameters {
        local_asn,
        router_id: Ipv4Addr::new(192, 0, 2, id),
        peer_asn,
        peer: Ipv4Addr::new(192, 0, 2, 3 - id).into(),
        hold_time: 90,
        keepalive: 30,
        families: vec![Family::Ipv4, Family::Ipv6],
        restart_time: None,
        stale_time: None,
        is_restarting: false,
        is_forwarding: false,
    }
}

/// Two sessions that hear each other.
struct Pair {
    ends: [Session; 2],
    /// What each said that was no bytes.
    events: [Vec<Event>; 2],
}

impl Pair {
    fn new(one: Parameters, other: Parameters) -> Self {
        let mut said = [Vec::new(), Vec::new()];
        let ends = [Session::new(one, START, &mut said[0]), Session::new(other, START, &mut said[1])];
        let mut pair = Self { ends, events: [Vec::new(), Vec::new()] };
        pair.pass(said);
        pair
    }

    fn pass(&mut self, mut said: [Vec<Event>; 2]) {
        while said.iter().any(|events| !events.is_empty()) {
            for from in [0, 1] {
                for event in std::mem::take(&mut said[from]) {
                    match event {
                        Event::Send(bytes) => self.ends[1 - from].receive(&bytes, START, &mut said[1 - from]),
                        other => self.events[from].push(other),
                    }
                }
            }
        }
    }

    /// Bytes of the first end arrive.
    fn send(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut said = [Vec::new(), Vec::new()];
        self.ends[1].receive(bytes, START, &mut said[1]);
        self.events[1].clear();
        self.pass(said);
        std::mem::take(&mut self.events[1])
    }

    fn reasons(&self) -> [Option<String>; 2] {
        let reason = |events: &Vec<Event>| {
            events.iter().find_map(|event| match event {
                Event::Closed(end) => Some(end.reason.clone()),
                _ => None,
            })
        };
        [reason(&self.events[0]), reason(&self.events[1])]
    }
}

fn mk_pair() -> Pair {
    Pair::new(mk_parameters(65001, 65002, 1), mk_parameters(65002, 0, 2))
}

fn mk_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xFF; 16], length.to_be_bytes().as_slice(), &[kind], body].concat()
}

/// An UPDATE with these attributes for 10.1.2.0/24, and without them for what goes.
fn mk_update(attributes: &[u8], prefixes: &[u8]) -> Vec<u8> {
    let length = (attributes.len() as u16).to_be_bytes();
    mk_message(2, &[&[0, 0], length.as_slice(), attributes, prefixes].concat())
}

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const AS_PATH: [u8; 9] = [0x40, 2, 6, 2, 1, 0, 0, 0xFD, 0xE9];
const NEXT_HOP: [u8; 7] = [0x40, 3, 4, 192, 0, 2, 1];
const PREFIX: [u8; 4] = [24, 10, 1, 2];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn two_sessions_agree() {
    let mut other = mk_parameters(65002, 65001, 2);
    other.hold_time = 9;
    other.keepalive = 9;
    other.families = vec![Family::Ipv6];
    let pair = Pair::new(mk_parameters(65001, 0, 1), other);
    assert_eq!([pair.ends[0].state(), pair.ends[1].state()], [SessionState::Established; 2]);
    let first = pair.ends[0].negotiated().unwrap();
    assert_eq!((first.peer_asn, first.peer_id), (65002, Some(Ipv4Addr::new(192, 0, 2, 2))));
    assert_eq!((first.hold_time, first.keepalive), (9, 3));
    assert_eq!(first.families, [Family::Ipv6]);
    assert_eq!(first.capabilities, ["extended-message", "four-octet-as", "route-refresh"]);
    let missing = "the peer does not name IPv4 unicast: such prefixes are not exchanged";
    assert_eq!(first.missing(&[Family::Ipv4, Family::Ipv6]).unwrap(), missing);
    assert_eq!(pair.ends[1].negotiated().unwrap().keepalive, 9);
}

#[test]
fn graceful_restart_is_agreed_on() {
    let mut parameters = [mk_parameters(65001, 0, 1), mk_parameters(65002, 0, 2)];
    for it in &mut parameters {
        it.restart_time = Some(120);
        it.stale_time = Some(600);
    }
    parameters[1].is_restarting = true;
    parameters[1].is_forwarding = true;
    let [one, other] = parameters;
    let pair = Pair::new(one, other);
    let first = pair.ends[0].negotiated().unwrap();
    let expected = PeerRestart {
        is_restarting: true,
        time: 120,
        families: vec![(Family::Ipv4, true), (Family::Ipv6, true)],
        long_lived: vec![(Family::Ipv4, 600, true), (Family::Ipv6, 600, true)],
    };
    assert_eq!(first.restart.as_ref(), Some(&expected));
    let names = [
        "extended-message",
        "four-octet-as",
        "graceful-restart",
        "long-lived-graceful-restart",
        "route-refresh",
    ];
    assert_eq!(first.capabilities, names);
    assert!(!pair.ends[1].negotiated().unwrap().restart.as_ref().unwrap().is_restarting);
}

#[test]
fn another_as_is_refused() {
    let pair = Pair::new(mk_parameters(65001, 65009, 1), mk_parameters(65002, 65001, 2));
    let ours = "the peer's OPEN was refused: Bad Peer AS (2/2); it says AS 65002, configured is AS 65009";
    let theirs = "the peer ended the session: Bad Peer AS (2/2)";
    assert_eq!(pair.reasons(), [Some(ours.to_owned()), Some(theirs.to_owned())]);
}

#[test]
fn no_common_family_is_refused() {
    let mut one = mk_parameters(65001, 0, 1);
    one.families = vec![Family::Ipv6];
    let mut other = mk_parameters(65002, 0, 2);
    other.families = vec![Family::Ipv4];
    let reason = Pair::new(one, other).reasons()[0].clone().unwrap();
    let expected = "the peer's OPEN was refused: Unsupported Capability (2/7); it carries none of the families IPv6 unicast";
    assert_eq!(reason, expected);
}

#[test]
fn silence_ends_the_session() {
    let mut pair = mk_pair();
    let mut events = Vec::new();
    pair.ends[0].advance(START + Duration::from_secs(89), &mut events);
    assert!(matches!(events.as_slice(), [Event::Send(_)]), "a KEEPALIVE: {events:?}");
    events.clear();
    pair.ends[0].advance(START + Duration::from_secs(90), &mut events);
    let Some(Event::Closed(end)) = events.last() else { panic!("{events:?}") };
    assert_eq!(end.reason, "the hold timer expired: nothing was heard from the peer for 90 s");
    assert!(!end.is_silent);
}

#[test]
fn who_hangs_up_may_come_back() {
    let mut pair = mk_pair();
    let mut events = Vec::new();
    pair.ends[0].lost("gone".to_owned(), START, &mut events);
    assert_eq!(events, [Event::Closed(End { reason: "gone".to_owned(), is_silent: true })]);
    pair.ends[0].receive(&mk_message(4, &[]), START, &mut events);
    assert_eq!(events.len(), 1, "nothing comes after the end");
}

fn mk_table(count: u32, family: Family) -> crate::export::Table {
    let prefix = |index: u32| match family {
        Family::Ipv4 => format!("10.{}.{}.0/24", index / 256, index % 256),
        Family::Ipv6 => format!("fd00:0:0:{index:x}::/64"),
    };
    let routes: Routes = (0..count).map(|index| (net(&prefix(index)), vec!["a".to_owned()])).collect();
    let attributes =
        Attributes { communities: vec![1, 2], large_communities: vec![(1, 2, 3)], local_preference: Some(7) };
    let known = BTreeMap::from([("a".to_owned(), attributes)]);
    export(&routes, &known, &["a".to_owned()], family, true)
}

fn mk_voice(family: Family, next_hop: NextHop) -> Voice {
    Voice { family, asn: None, four_octet_as: true, next_hop }
}

fn lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        lengths.push(length);
        bytes = &bytes[length..];
    }
    lengths
}

fn check_round_trip(mut pair: Pair, family: Family, next_hop: NextHop, messages: usize) {
    let table = mk_table(2000, family);
    let voice = mk_voice(family, next_hop);
    let bytes = voice.say(&Changes::between(&Vec::new(), &table, false));
    let lengths = lengths(&bytes);
    assert_eq!(lengths.len(), messages, "{lengths:?}");
    assert!(lengths.iter().all(|length| *length <= LONGEST), "{lengths:?}");
    let mut prefixes = Vec::new();
    for event in pair.send(&bytes) {
        let Event::Update(Update { withdrawn, announced, end_of: None, flaw: None }) = event else {
            panic!("{event:?}")
        };
        assert!(withdrawn.is_empty());
        for (path, some) in announced {
            assert_eq!((path.next_hop, path.origin), (next_hop.address(), Origin::Igp));
            assert_eq!((path.communities.to_vec(), path.local_preference), (vec![1, 2], Some(7)));
            assert_eq!(path.large_communities.to_vec(), [(1, 2, 3)]);
            prefixes.extend(some);
        }
    }
    assert!(prefixes.iter().eq(table.iter().map(|(prefix, _)| prefix)), "{} prefixes", prefixes.len());
    let back = voice.say(&Changes::between(&table, &Vec::new(), false));
    let gone = pair.send(&back).into_iter().flat_map(|event| match event {
        Event::Update(update) => update.withdrawn,
        other => panic!("{other:?}"),
    });
    assert!(gone.eq(table.iter().map(|(prefix, _)| *prefix)));
}

fn mk_internal(peer: Option<IpAddr>) -> Pair {
    let mut both = [mk_parameters(65001, 65001, 1), mk_parameters(65001, 65001, 2)];
    if let Some(peer) = peer {
        both.iter_mut().for_each(|it| it.peer = peer);
    }
    let [one, other] = both;
    Pair::new(one, other)
}

#[test]
fn few_messages_carry_many_prefixes() {
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let v6 = NextHop::V6("2001:db8::1".parse().unwrap(), Some("fe80::1".parse().unwrap()));
    // 2,000 prefixes of 4 bytes, and of 9.
    check_round_trip(mk_internal(None), Family::Ipv4, v4, 3);
    check_round_trip(mk_internal(None), Family::Ipv6, v6, 5);
}

#[test]
fn ipv4_has_ipv6_next_hops_over_ipv6() {
    let pair = mk_internal(Some("2001:db8::9".parse().unwrap()));
    assert!(pair.ends[0].negotiated().unwrap().extended_next_hop);
    assert!(!mk_internal(None).ends[0].negotiated().unwrap().extended_next_hop);
    let next_hop = NextHop::V6("2001:db8::1".parse().unwrap(), None);
    check_round_trip(pair, Family::Ipv4, next_hop, 3);
}

#[test]
fn the_end_of_a_family_is_heard() {
    let mut pair = mk_pair();
    for family in [Family::Ipv4, Family::Ipv6] {
        let events = pair.send(&end_of_rib(family));
        assert_eq!(events, [Event::Update(Update { end_of: Some(family), ..Update::default() })]);
    }
}

#[test]
fn a_family_is_asked_for_again() {
    let mut pair = mk_pair();
    assert_eq!(pair.send(&mk_message(5, &[0, 2, 0, 1])), [Event::Refresh(Family::Ipv6)]);
    assert!(pair.send(&mk_message(5, &[0, 25, 0, 70])).is_empty());
}

#[test]
fn an_update_is_read() {
    let mut pair = mk_pair();
    let bytes = mk_update(&[&ORIGIN[..], &AS_PATH, &NEXT_HOP].concat(), &PREFIX);
    let events = pair.send(&bytes);
    let [Event::Update(update)] = events.as_slice() else { panic!("{events:?}") };
    let [(path, prefixes)] = update.announced.as_slice() else { panic!("{update:?}") };
    assert_eq!((path.hops(), path.length(), path.neighbour()), (vec!["65001".to_owned()], 1, Some(65001)));
    assert_eq!(prefixes, &[net("10.1.2.0/24")]);
    // In pieces, too.
    let mut events = Vec::new();
    for byte in bytes {
        pair.ends[1].receive(&[byte], START, &mut events);
    }
    assert_eq!(events.len(), 1);
}

/// An UPDATE with more communities than fit into 4,096 bytes.
fn mk_long_update() -> Vec<u8> {
    let mut communities = vec![0xD0, 8, 0x27, 0x10];
    communities.resize(4 + 10_000, 7);
    mk_update(&[&ORIGIN[..], &AS_PATH, &NEXT_HOP, &communities].concat(), &PREFIX)
}

#[test]
fn a_message_may_be_long_if_both_sides_say_so() {
    let mut pair = mk_pair();
    let events = pair.send(&mk_long_update());
    let Some(Event::Update(update)) = events.first() else { panic!("{events:?}") };
    assert_eq!(update.announced[0].1, [net("10.1.2.0/24")]);
    assert_eq!(update.announced[0].0.communities.len(), 2500);
}

#[test]
fn a_message_may_not_be_long_before_an_open() {
    let mut events = Vec::new();
    let mut session = Session::new(mk_parameters(65001, 65002, 1), START, &mut events);
    events.clear();
    session.receive(&mk_long_update(), START, &mut events);
    let [Event::Send(notification), Event::Closed(_)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(notification[18..21], [3, 1, 2], "Message Header Error, Bad Message Length");
}

#[test]
fn a_next_hop_may_be_on_the_link_only() {
    // RFC 4760, 3 and RFC 2545, 3: IPv6 unicast, next hops `::` and fe80::1, 2001:db8:f::/48.
    let hops = [&[0; 16][..], &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
    let reach = [&[0x80, 14, 44, 0, 2, 1, 32][..], &hops, &[0, 48, 0x20, 1, 0x0d, 0xb8, 0, 0x0f]].concat();
    let update = mk_update(&[&ORIGIN[..], &AS_PATH, &reach].concat(), &[]);
    let mut parameters = [mk_parameters(65001, 0, 1), mk_parameters(65002, 0, 2)];
    parameters.iter_mut().for_each(|it| it.peer = "fe80::1".parse().unwrap());
    let [one, other] = parameters;
    let events = Pair::new(one, other).send(&update);
    let [(path, _)] = flaw(&events).announced.as_slice() else { panic!("{events:?}") };
    assert_eq!(path.next_hop, "fe80::1".parse::<IpAddr>().unwrap());
    let events = mk_pair().send(&update);
    assert_eq!(flaw(&events).withdrawn, [net("2001:db8:f::/48")]);
}

fn flaw(events: &[Event]) -> &Update {
    match events {
        [Event::Update(update)] => update,
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_attributes_take_their_prefixes_along() {
    // RFC 7606, 7.1: an ORIGIN that is not there; 3 (d): no ORIGIN; 7.3: a NEXT_HOP of three bytes.
    let broken: [&[&[u8]]; 3] = [
        &[&[0x40, 1, 1, 9], &AS_PATH, &NEXT_HOP],
        &[&AS_PATH, &NEXT_HOP],
        &[&ORIGIN, &AS_PATH, &[0x40, 3, 3, 192, 0, 2]],
    ];
    for attributes in broken {
        let mut pair = mk_pair();
        let events = pair.send(&mk_update(&attributes.concat(), &PREFIX));
        let update = flaw(&events);
        assert_eq!(update.withdrawn, [net("10.1.2.0/24")], "{attributes:?}");
        assert!(update.announced.is_empty(), "{attributes:?}");
        assert!(update.flaw.as_ref().unwrap().ends_with("; its prefixes count as withdrawn"), "{update:?}");
        assert_eq!(pair.ends[1].state(), SessionState::Established);
    }
}

#[test]
fn a_malformed_attribute_that_does_not_matter_is_dropped() {
    let mut pair = mk_pair();
    // RFC 7606, 7.7: an AGGREGATOR of one byte.
    let attributes = [&ORIGIN[..], &AS_PATH, &NEXT_HOP, &[0xC0, 7, 1, 0]].concat();
    let events = pair.send(&mk_update(&attributes, &PREFIX));
    let update = flaw(&events);
    assert_eq!(update.announced[0].1, [net("10.1.2.0/24")]);
    assert!(update.flaw.as_ref().unwrap().starts_with("attribute 7: "), "{update:?}");
}

#[test]
fn what_cannot_be_mended_ends_the_session() {
    let mut pair = mk_pair();
    // RFC 7606, 3 (a): more withdrawn routes than bytes.
    let events = pair.send(&mk_message(2, &[0, 9, 0, 0]));
    assert!(matches!(events.as_slice(), [Event::Closed(_)]), "{events:?}");
    let reason = pair.reasons()[0].clone().unwrap();
    assert_eq!(reason, "the peer ended the session: Malformed Attribute List (3/1)");
    let mut pair = mk_pair();
    assert!(matches!(pair.send(&[0; 19]).as_slice(), [Event::Closed(_)]));
    let reason = pair.reasons()[0].clone().unwrap();
    assert_eq!(reason, "the peer ended the session: Connection Not Synchronized (1/1)");
}

#[test]
fn a_reason_of_the_peer_is_shown() {
    let mut pair = mk_pair();
    let text = b"maintenance";
    let mut body = vec![6, 2, text.len() as u8];
    body.extend(text);
    let events = pair.send(&mk_message(3, &body));
    let [Event::Closed(end)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(end.reason, "the peer ended the session: Administrative Shutdown (6/2): maintenance");
}
