//! What routers send to the BGP speaker, and what it is told to be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use cilium_bgp::config;
use cilium_bgp::export::{Changes, export};
use cilium_bgp::rib::{AdjIn, From, Paths, best};
use cilium_bgp::session::{Event, NextHop, Parameters, Session, Update, Voice, end_of_rib};
use cilium_rest::bgp::{Attributes, Config, Family, Routes, SessionState};
use fuzz::Input;
use serde_json::{Value, json};

const NOW: Duration = Duration::ZERO;

fn mk_session(id: u8, events: &mut Vec<Event>) -> Session {
    let parameters = Parameters {
        local_asn: 65000 + u32::from(id),
        router_id: Ipv4Addr::new(192, 0, 2, id),
        peer_asn: 0,
        peer: "2001:db8::9".parse().expect("an address"),
        hold_time: 90,
        keepalive: 30,
        families: vec![Family::Ipv4, Family::Ipv6],
        restart_time: Some(120),
        stale_time: Some(600),
        is_restarting: true,
        is_forwarding: true,
    };
    Session::new(parameters, NOW, events)
}

fn sent(events: &[Event]) -> Vec<u8> {
    let bytes = events.iter().filter_map(|event| match event {
        Event::Send(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.flatten().collect()
}

fn update(family: Family, next_hop: NextHop, prefixes: &[&str]) -> Vec<u8> {
    let attributes =
        Attributes { communities: vec![1, 2], large_communities: vec![(1, 2, 3)], local_preference: None };
    let known = BTreeMap::from([("a".to_owned(), attributes)]);
    let routes: Routes =
        prefixes.iter().map(|it| (it.parse().expect("a prefix"), vec!["a".to_owned()])).collect();
    let table = export(&routes, &known, &["a".to_owned()], family, false);
    let voice = Voice { family, asn: Some(65002), four_octet_as: true, next_hop };
    let both =
        [Changes::between(&Vec::new(), &table, false), Changes::between(&table, &table[..1].to_vec(), false)];
    both.iter().flat_map(|changes| voice.say(changes)).collect()
}

/// OPEN and KEEPALIVE of a peer.
static GREETING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    mk_session(1, &mut ours);
    let mut peer = mk_session(2, &mut theirs);
    peer.receive(&sent(&ours), NOW, &mut theirs);
    sent(&theirs)
});

/// OPEN, updates of both families and both next hops, the ends of their first sets, a refresh, a NOTIFICATION.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 2));
    let v6 =
        NextHop::V6("2001:db8::2".parse().expect("an address"), Some("fe80::2".parse().expect("an address")));
    let message = |kind: u8, body: &[u8]| {
        let length = [0, 19 + u8::try_from(body.len()).expect("a short body")];
        [&[0xFF; 16], length.as_slice(), &[kind], body].concat()
    };
    vec![
        GREETING.clone(),
        update(Family::Ipv4, v4, &["10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0"]),
        update(Family::Ipv6, v6, &["fd00::/64", "::/0"]),
        update(Family::Ipv4, v6, &["10.0.0.0/24", "10.0.1.0/24"]),
        end_of_rib(Family::Ipv4).to_vec(),
        end_of_rib(Family::Ipv6).to_vec(),
        message(5, &[0, 1, 0, 1]),
        message(3, b"\x06\x02\x04soon"),
        // Attributes that nobody here sends: MED, AGGREGATOR, ORIGINATOR_ID, and one that is unknown.
        message(
            2,
            b"\x00\x00\x00\x3a\x40\x01\x01\x00\x40\x02\x0e\x02\x03\x00\x00\xfd\xea\x00\x00\x00\x01\x00\x00\x00\x02\
            \x40\x03\x04\xc0\x00\x02\x02\x80\x04\x04\x00\x00\x00\x05\xc0\x07\x08\x00\x00\xfd\xea\x0a\x00\x00\x01\
            \x80\x09\x04\x0a\x00\x00\x01\xc0\xfa\x02\x00\x01\x18\x0a\x01\x02",
        ),
    ]
});

/// What a session makes of bytes, in pieces of `size`. Nothing comes after its end.
fn run(greeting: &[u8], bytes: &[u8], size: usize) -> (SessionState, Vec<Update>) {
    let mut events = Vec::new();
    let mut session = mk_session(1, &mut events);
    session.receive(greeting, NOW, &mut events);
    for piece in bytes.chunks(size.max(1)) {
        session.receive(piece, NOW, &mut events);
    }
    let closed = events.iter().position(|event| matches!(event, Event::Closed(_)));
    if let Some(at) = closed {
        assert_eq!(at + 1, events.len(), "something comes after the end: {events:?}");
        assert_eq!(session.state(), SessionState::Idle);
    }
    let updates = events.into_iter().filter_map(|event| match event {
        Event::Update(update) => Some(update),
        _ => None,
    });
    (session.state(), updates.collect())
}

fn check(bytes: &[u8]) {
    run(&[], bytes, bytes.len());
    let (state, updates) = run(&GREETING, bytes, bytes.len());
    assert_eq!((state, updates.clone()), run(&GREETING, bytes, 7), "pieces make a difference");
    let (mut table, mut paths) = (AdjIn::default(), Paths::default());
    let mut count = 0;
    for update in updates {
        count += update.withdrawn.len() + update.announced.iter().map(|(_, it)| it.len()).sum::<usize>();
        table.apply(update, 0, &mut paths);
    }
    assert!(count <= bytes.len(), "more prefixes than bytes");
    let known: usize = [Family::Ipv4, Family::Ipv6].iter().map(|it| table.count(*it) as usize).sum();
    assert_eq!(known, table.iter().count());
    let from = From { local: (65001, Ipv4Addr::new(192, 0, 2, 1)), is_internal: false };
    let routes = table.iter().map(|(prefix, route)| (from, *prefix, route.clone()));
    assert!(best(routes.collect()).len() <= known);
}

#[test]
fn samples_are_read() {
    assert_eq!(run(&GREETING, &[], 1).0, SessionState::Established);
    let prefixes: Vec<usize> = SAMPLES
        .iter()
        .map(|it| {
            run(&GREETING, it, it.len()).1.iter().flat_map(|it| &it.announced).map(|(_, it)| it.len()).sum()
        })
        .collect();
    assert_eq!(prefixes, [0, 3, 2, 2, 0, 0, 0, 0, 1]);
    assert_eq!(run(&GREETING, &SAMPLES[7], 1).0, SessionState::Idle);
}

#[test]
fn any_bytes_of_a_router() {
    bolero::check!().for_each(|bytes: &[u8]| {
        check(bytes);
        if let Some(message) = Input(bytes).altered(&SAMPLES) {
            check(&message);
        }
    });
}

static CONFIGS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let peer = json!({"name": "p", "address": "192.0.2.2", "asn": 65002, "port": 179, "connectRetry": 120, "holdTime": 90,
        "keepalive": 30, "hops": 1, "password": "x", "restartTime": 120, "staleTime": 600, "localAddress": "192.0.2.1",
        "bfd": {"transmit": 300, "receive": 300, "multiplier": 3}, "families": {"ipv4": ["a"], "ipv6": []}});
    vec![json!({"instances": [{"name": "i", "asn": 65001, "routerId": "192.0.2.1", "port": 179,
        "advertisements": {"a": {"communities": [1], "localPreference": 5}}, "peers": [peer]}]})]
});

#[test]
fn any_configuration() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some(config) = Input(bytes).changed(&CONFIGS) else { return };
        let Ok(config) = serde_json::from_value::<Config>(config) else { return };
        if config::check(&config).is_err() {
            return;
        }
        for peer in config.instances.iter().flat_map(|instance| &instance.peers) {
            assert!(peer.hold_time >= 3 && peer.keepalive <= peer.hold_time && peer.hops > 0, "{peer:?}");
        }
    });
}
