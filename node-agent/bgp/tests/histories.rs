//! After any history of prefixes, what a peer was told is what it would be told from scratch.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use cilium_bgp::export::{Changes, Offer, Table, export};
use cilium_bgp::session::{Event, NextHop, Parameters, Session, Voice};
use cilium_rest::bgp::{Attributes, Family, Routes};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const NAMES: [&str; 3] = ["a", "b", "not for the peer"];

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Set(u16, Vec<String>),
    Remove(u16),
    Replace(Vec<(u16, Vec<String>)>),
    /// The peer took what it was told before, and is told what is new.
    Tell,
    /// The peer asked for everything again.
    Refresh,
    /// The next hop is another one.
    Move(u8),
}

fn prefix(index: u16, family: Family) -> IpNet {
    let text = match family {
        Family::Ipv4 => format!("10.{}.{}.0/{}", index / 256, index % 256, 24 + index % 3),
        Family::Ipv6 => format!("fd00:{index:x}::/{}", 32 + index % 40),
    };
    text.parse::<IpNet>().expect("a prefix").trunc()
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(&NAMES[..], 0..=3)
        .prop_map(|all| all.into_iter().map(str::to_owned).collect())
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..40u16;
    prop_oneof![
        6 => (index.clone(), names()).prop_map(|(index, names)| Step::Set(index, names)),
        3 => index.clone().prop_map(Step::Remove),
        1 => vec((index, names()), 0..40).prop_map(Step::Replace),
        3 => Just(Step::Tell),
        1 => Just(Step::Refresh),
        1 => (1..4u8).prop_map(Step::Move),
    ]
}

fn known() -> BTreeMap<String, Attributes> {
    let with =
        |communities: &[u32]| Attributes { communities: communities.to_vec(), ..Attributes::default() };
    BTreeMap::from([("a".to_owned(), with(&[1, 2])), ("b".to_owned(), with(&[2, 3]))])
}

fn table(routes: &Routes, family: Family) -> Table {
    export(routes, &known(), &["a".to_owned(), "b".to_owned()], family, false)
}

fn voice(family: Family, number: u8) -> Voice {
    let next_hop = match family {
        Family::Ipv4 => NextHop::V4(Ipv4Addr::new(192, 0, 2, number)),
        Family::Ipv6 => NextHop::V6(format!("2001:db8::{number}").parse().expect("an address"), None),
    };
    Voice { family, asn: Some(65001), four_octet_as: true, next_hop }
}

/// A peer that remembers.
struct Peer {
    session: Session,
    routes: BTreeMap<IpNet, (Vec<u32>, String)>,
}

impl Peer {
    fn new() -> Self {
        let parameters = |asn, id, other| Parameters {
            local_asn: asn,
            router_id: Ipv4Addr::new(192, 0, 2, id),
            peer_asn: other,
            peer: Ipv4Addr::new(192, 0, 2, 9).into(),
            hold_time: 90,
            keepalive: 30,
            families: vec![Family::Ipv4, Family::Ipv6],
            restart_time: None,
            stale_time: None,
            is_restarting: false,
            is_forwarding: false,
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut speaker = Session::new(parameters(65001, 1, 65002), NOW, &mut ours);
        let mut session = Session::new(parameters(65002, 2, 65001), NOW, &mut theirs);
        while !ours.is_empty() || !theirs.is_empty() {
            pass(&mut ours, &mut session, &mut theirs);
            pass(&mut theirs, &mut speaker, &mut ours);
        }
        Self { session, routes: BTreeMap::new() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut events = Vec::new();
        self.session.receive(bytes, NOW, &mut events);
        for event in events {
            let Event::Update(update) = event else { panic!("{event:?}") };
            assert_eq!(update.flaw, None);
            for prefix in update.withdrawn {
                assert!(self.routes.remove(&prefix).is_some(), "{prefix} was not there");
            }
            for (path, prefixes) in update.announced {
                let route = (path.communities.to_vec(), path.next_hop.to_string());
                self.routes.extend(prefixes.into_iter().map(|prefix| (prefix, route.clone())));
            }
        }
    }
}

fn pass(events: &mut Vec<Event>, to: &mut Session, said: &mut Vec<Event>) {
    for event in events.drain(..) {
        if let Event::Send(bytes) = event {
            to.receive(&bytes, NOW, said);
        }
    }
}

fn check(steps: Vec<Step>, family: Family) {
    let (mut peer, mut routes, mut number) = (Peer::new(), Routes::new(), 1);
    let (mut sent, mut sent_voice) = (Table::new(), voice(family, number));
    for step in steps.into_iter().chain([Step::Tell]) {
        match step {
            Step::Set(index, names) => drop(routes.insert(prefix(index, family), names)),
            Step::Remove(index) => drop(routes.remove(&prefix(index, family))),
            Step::Replace(all) => {
                routes = all.into_iter().map(|(index, names)| (prefix(index, family), names)).collect();
            }
            Step::Move(to) => number = to,
            Step::Tell | Step::Refresh => {
                let (next, voice) = (table(&routes, family), voice(family, number));
                let is_anew = matches!(step, Step::Refresh) || voice != sent_voice;
                peer.hear(&voice.say(&Changes::between(&sent, &next, is_anew)));
                (sent, sent_voice) = (next, voice);
            }
        }
    }
    let next_hop = voice(family, number).next_hop.address().to_string();
    let row = |(prefix, offer): (IpNet, std::sync::Arc<Offer>)| {
        (prefix, (offer.communities.clone(), next_hop.clone()))
    };
    let expected: BTreeMap<_, _> = table(&routes, family).into_iter().map(row).collect();
    assert_eq!(peer.routes, expected);
}

proptest! {
    #[test]
    fn a_peer_knows_what_it_would_be_told_from_scratch(steps in vec(step(), 0..60), is_four in any::<bool>()) {
        check(steps, if is_four { Family::Ipv4 } else { Family::Ipv6 });
    }
}
