//! Announced addresses: who asks for them gets the device's MAC address, if it is this node's turn; and heartbeats, on which
//! that depends.

use std::net::IpAddr;

use bpf_tests::stage::{Action, Outcome, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_announcer::frame::{BROADCAST, Request, announcement, probe, tag};
use cilium_announcer::{ANYBODY, Mac, node_number};
use cilium_bpf::layout::*;
use cilium_delta::Table as _;
use cilium_drivers::maps::AnnouncementMaps;

const CLIENT: Mac = [2, 0, 0, 0, 7, 7];
const PEER: Mac = [2, 0, 0, 0, 8, 8];
const KEY: [u8; 16] = *b"sixteen of bytes";
const MS: u64 = 1_000_000;
const ETHERNET: usize = 14;

/// A node that announces an address of each family on its device.
struct Announcing {
    stage: Stage,
    maps: AnnouncementMaps,
    ifindex: u32,
    mac: Mac,
}

fn address(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "192.0.2.50" } else { "2001:db8::50:50" })
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Announcing {
    /// It is heard, and its agent is alive, just now.
    fn new() -> Self {
        let stage = Stage::with_config(Mode::Native, |config| config.flags |= CONFIG_ANNOUNCE);
        let mut maps = AnnouncementMaps::open(stage.bpffs()).unwrap();
        let (ifindex, mac) = (stage.uplink.index, stage.uplink.mac.0);
        maps.announcer.set(&ANNOUNCER_NODE, &node_number("here")).unwrap();
        for (element, half) in ANNOUNCER_KEY.into_iter().zip(KEY.chunks(8)) {
            maps.announcer.set(&element, &u64::from_le_bytes(half.try_into().unwrap())).unwrap();
        }
        let peer = PeerKey { node: node_number("there"), ifindex };
        maps.peers.set(&peer, &PeerEntry::default()).unwrap();
        let mut it = Self { stage, maps, ifindex, mac };
        it.link(LINK_WILLING, 0);
        it.signs(0, 0, 0);
        it.agent(0);
        for family in Family::ALL {
            it.state(family, ANNOUNCEMENT_ANSWERED);
        }
        it
    }

    fn link(&mut self, flags: u32, solo_age: u64) {
        self.link_bound(flags, now() - solo_age * MS);
    }

    fn link_bound(&mut self, flags: u32, bound: u64) {
        let link = LinkEntry { bound, flags, mac: self.mac };
        self.maps.links.set(&self.ifindex, &link).unwrap();
    }

    /// Milliseconds since each of them.
    fn signs(&mut self, heard: u64, asked: u64, met: u64) {
        let at = |age: u64| now() - age * MS;
        let signs = LinkSigns { heard: at(heard), asked: at(asked), met: at(met) };
        self.maps.link_signs.set(&self.ifindex, &signs).unwrap();
    }

    fn agent(&mut self, age: u64) {
        self.maps.announcer.set(&ANNOUNCER_AGENT, &(now() - age * MS)).unwrap();
    }

    fn key(&self, family: Family) -> AnnouncementKey {
        AnnouncementKey { address: address(family).into(), ifindex: self.ifindex }
    }

    fn state(&mut self, family: Family, state: u8) {
        let entry = AnnouncementEntry { state, ..AnnouncementEntry::default() };
        self.maps.announcements.set(&self.key(family), &entry).unwrap();
    }

    fn entry(&self, family: Family) -> AnnouncementEntry {
        self.maps.announcements.get(&self.key(family)).unwrap().unwrap()
    }

    fn peer(&self) -> PeerEntry {
        let key = PeerKey { node: node_number("there"), ifindex: self.ifindex };
        self.maps.peers.get(&key).unwrap().unwrap()
    }

    /// A client asks.
    fn ask(&self, family: Family) -> Outcome {
        self.stage.receive(&probe(CLIENT, address(family)))
    }

    fn answers(&self) -> bool {
        let both = Family::ALL.map(|family| self.ask(family).action);
        assert_eq!(both[0], both[1], "both families are alike");
        both[0] == Action::Redirect
    }

    fn request(&self, change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request {
            source: PEER,
            destination: self.mac,
            to: node_number("here"),
            from: node_number("there"),
            flags: 0,
            sent: 77,
            stamp: 1000,
        };
        change(&mut request);
        request
    }

    fn hear(&self, request: Request) -> Outcome {
        self.stage.receive(&request.to_frame(&KEY))
    }

    /// What the peer answers to a request that was sent so many milliseconds ago.
    fn answer(&self, sent: u64, flags: u32) -> Vec<u8> {
        let mut beat = Heartbeat {
            magic: HEARTBEAT_MAGIC.to_be(),
            kind: HEARTBEAT_ANSWER,
            flags: flags as u8,
            to: node_number("here"),
            from: node_number("there"),
            sent: now() - sent * MS,
            stamp: 0,
            agent_age: 40_u64.to_be(),
            mac: PEER,
            ..Heartbeat::default()
        };
        beat.tag = tag(&beat, &KEY);
        [&self.mac[..], &PEER, &HEARTBEAT_ETHERTYPE.to_be_bytes(), &beat.to_bytes()].concat()
    }

    fn link_signs(&self) -> LinkSigns {
        self.maps.link_signs.get(&self.ifindex).unwrap().unwrap()
    }
}

#[test]
fn who_asks_by_arp_is_answered_with_the_mac_address_of_the_device() {
    let it = Announcing::new();
    let mut question = probe(CLIENT, address(Family::V4));
    question[28..32].copy_from_slice(&[192, 0, 2, 77]);
    let outcome = it.stage.receive(&question);
    assert_eq!(outcome.action, Action::Redirect);
    let expected = [
        &CLIENT[..],
        &it.mac,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &it.mac,
        &[192, 0, 2, 50],
        &CLIENT,
        &[192, 0, 2, 77],
    ];
    assert_eq!(outcome.packet, expected.concat());
    assert_eq!(it.entry(Family::V4).replies, 1);
}

/// From the address 2001:db8::77, with the option that tells where it is.
fn mk_solicitation(to: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = to else { panic!("neighbour discovery is IPv6's") };
    let source = "2001:db8::77".parse::<std::net::Ipv6Addr>().unwrap();
    let group = cilium_announcer::frame::solicited_node(target);
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2(CLIENT, cilium_announcer::frame::group_mac(group))
        .ipv6(source.octets(), group.octets(), 255)
        .icmpv6(etherparse::Icmpv6Type::NeighborSolicitation)
        .write(&mut packet, &[&target.octets()[..], &[1, 1], &CLIENT].concat())
        .unwrap();
    packet
}

#[test]
fn who_asks_by_neighbour_discovery_is_answered_too() {
    let it = Announcing::new();
    let outcome = it.stage.receive(&mk_solicitation(address(Family::V6)));
    assert_eq!(outcome.action, Action::Redirect);
    let target: std::net::Ipv6Addr = "2001:db8::50:50".parse().unwrap();
    let mut expected = Vec::new();
    let flags =
        etherparse::icmpv6::NeighborAdvertisementHeader { router: false, solicited: true, r#override: true };
    let client: std::net::Ipv6Addr = "2001:db8::77".parse().unwrap();
    etherparse::PacketBuilder::ethernet2(it.mac, CLIENT)
        .ipv6(target.octets(), client.octets(), 255)
        .icmpv6(etherparse::Icmpv6Type::NeighborAdvertisement(flags))
        .write(&mut expected, &[&target.octets()[..], &[2, 1], &it.mac].concat())
        .unwrap();
    assert_eq!(outcome.packet, expected);
    assert_eq!(it.entry(Family::V6).replies, 1);
}

#[test]
fn who_has_no_address_yet_is_answered_with_all_the_others() {
    let it = Announcing::new();
    let packet = it.ask(Family::V6).packet;
    assert_eq!(packet[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(packet[38..54], "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(packet[58] & 0x60, 0x20, "nobody solicited it, and it overrides");
}

#[test]
fn nothing_else_is_answered() {
    let mut it = Announcing::new();
    let others = [probe(CLIENT, ip("192.0.2.51")), probe(CLIENT, ip("2001:db8::50:51"))];
    for other in others {
        assert_eq!(it.stage.receive(&other).action, Action::Pass);
    }
    let mut routed = mk_solicitation(address(Family::V6));
    routed[21] = 254;
    assert_eq!(it.stage.receive(&routed).action, Action::Pass, "it has come over a router");
    let mut for_others = probe(CLIENT, address(Family::V4));
    for_others[..6].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    assert_eq!(it.stage.receive(&for_others).action, Action::Pass);
    it.state(Family::V4, ANNOUNCEMENT_SILENT);
    assert_eq!(it.ask(Family::V4).action, Action::Pass);
    let off = Stage::with_config(Mode::Native, |_| ());
    assert_eq!(off.receive(&probe(CLIENT, address(Family::V4))).action, Action::Pass);
}

#[test]
fn short_and_broken_questions_are_left_to_the_stack() {
    let it = Announcing::new();
    for whole in [probe(CLIENT, address(Family::V4)), mk_solicitation(address(Family::V6))] {
        for length in ETHERNET..whole.len() - 8 {
            let Some(outcome) = it.stage.try_run(
                cilium_drivers::datapath::DeviceProgram::FromNetdev,
                &it.stage.uplink,
                &whole[..length],
            ) else {
                continue;
            };
            assert!(matches!(outcome.action, Action::Pass | Action::Drop(_)), "{length}");
        }
    }
    assert_eq!((it.entry(Family::V4).replies, it.entry(Family::V6).replies), (0, 0));
}

#[test]
fn a_node_that_nobody_hears_stops_as_long_as_its_agent_is_there_to_know() {
    let mut it = Announcing::new();
    assert!(it.answers());
    it.signs(290, 290, 290);
    assert!(it.answers());
    it.signs(310, 310, 310);
    assert!(!it.answers());
    it.agent(200);
    assert!(it.answers(), "it was heard when its agent was last alive");
    it.signs(40_000, 40_000, 40_000);
    it.agent(40_000);
    assert!(it.answers(), "nobody has an agent");
    it.signs(10, 900, 10);
    assert!(!it.answers(), "another one has, and takes over");
    it.agent(29_000);
    assert!(it.answers(), "not yet");
}

#[test]
fn a_node_alone_answers_whatever_it_hears_and_one_without_peers_until_it_meets_one() {
    let mut it = Announcing::new();
    it.signs(5000, 5000, 5000);
    it.link(LINK_ALONE, 0);
    assert!(it.answers());
    it.link(LINK_SOLO, 1000);
    assert!(it.answers());
    it.signs(5000, 5000, 900);
    assert!(!it.answers());
}

#[test]
fn a_node_with_leases_answers_as_long_as_its_agent_may_be_away() {
    let mut it = Announcing::new();
    it.link_bound(LINK_LEASED, 15_000 * MS);
    it.signs(60_000, 10, 10);
    assert!(it.answers(), "it needs nobody who hears it");
    it.agent(14_000);
    assert!(it.answers());
    it.agent(15_500);
    assert!(!it.answers(), "another node has the Lease by now");
    it.maps.announcer.set(&ANNOUNCER_AGENT, &0).unwrap();
    assert!(!it.answers(), "no agent was ever there");
    it.agent(0);
    assert!(it.answers());
    it.state(Family::V4, ANNOUNCEMENT_SILENT);
    assert_eq!(it.ask(Family::V4).action, Action::Pass);
}

#[test]
fn a_node_with_leases_tells_nobody_that_it_lives() {
    let mut it = Announcing::new();
    it.link_bound(LINK_LEASED | LINK_ANSWERING, 15_000 * MS);
    let (signs, peer) = (it.link_signs(), it.peer());
    assert_eq!(it.hear(it.request(|_| ())).action, Action::Consume);
    assert_eq!((it.link_signs(), it.peer()), (signs, peer));
}

#[test]
fn whoever_else_has_the_address_is_noted() {
    for family in Family::ALL {
        let mut it = Announcing::new();
        it.state(family, ANNOUNCEMENT_SILENT);
        assert_eq!(it.stage.receive(&probe(PEER, address(family))).action, Action::Pass);
        assert_eq!(it.entry(family).claimed, 0, "who asks has not got it");
        assert_eq!(it.stage.receive(&announcement(it.mac, address(family))).action, Action::Pass);
        assert_eq!(it.entry(family).claimed, 0, "that was this node itself");
        let before = now();
        assert_eq!(it.stage.receive(&announcement(PEER, address(family))).action, Action::Pass);
        let entry = it.entry(family);
        assert!(entry.claimed > before && entry.claimant == PEER, "{entry:?}");
    }
}

#[test]
fn a_request_is_answered_in_the_name_of_the_node() {
    let mut it = Announcing::new();
    it.link(LINK_WILLING | LINK_ANSWERING, 0);
    it.agent(1500);
    let outcome = it.hear(it.request(|_| ()));
    assert_eq!(outcome.action, Action::Redirect);
    assert_eq!(outcome.packet[..ETHERNET], [&PEER[..], &it.mac, &[0x88, 0xb5]].concat());
    let beat = Heartbeat::read(&outcome.packet[ETHERNET..]);
    let age = u64::from_be(beat.agent_age);
    let expected = Heartbeat {
        magic: HEARTBEAT_MAGIC.to_be(),
        kind: HEARTBEAT_ANSWER,
        flags: (LINK_WILLING | LINK_ANSWERING) as u8,
        to: node_number("there"),
        from: node_number("here"),
        sent: 77,
        stamp: 1000_u64.to_be(),
        agent_age: beat.agent_age,
        mac: it.mac,
        ..Heartbeat::default()
    };
    assert_eq!(beat, Heartbeat { tag: tag(&expected, &KEY), ..expected });
    assert!((1500..2500).contains(&age), "{age}");
    let anybody = it.hear(it.request(|request| {
        (request.to, request.destination) = (ANYBODY, BROADCAST);
    }));
    assert_eq!(anybody.action, Action::Redirect);
}

#[test]
fn a_request_says_that_the_peer_lives_once_and_only_if_it_hears_this_node() {
    let mut it = Announcing::new();
    it.signs(400, 400, 400);
    let before = now();
    it.hear(it.request(|request| request.flags = LINK_ANSWERING as u8));
    let (peer, signs) = (it.peer(), it.link_signs());
    assert_eq!((peer.asked, peer.stamp, peer.flags, peer.mac), (0, 1000, LINK_ANSWERING, PEER));
    assert!(signs.asked > before && signs.met > before && signs.heard < before);
    it.hear(it.request(|request| (request.flags, request.stamp) = (HEARTBEAT_HEARS_YOU, 1001)));
    let (peer, signs) = (it.peer(), it.link_signs());
    assert!(peer.asked > before && signs.heard > before);
    it.signs(400, 400, 400);
    it.hear(it.request(|request| (request.flags, request.stamp) = (HEARTBEAT_HEARS_YOU, 1001)));
    assert!(it.link_signs().heard < before, "somebody has repeated it");
}

#[test]
fn an_answer_counts_from_when_it_was_asked_for() {
    let mut it = Announcing::new();
    it.signs(400, 400, 400);
    let before = now();
    assert_eq!(it.stage.receive(&it.answer(100, LINK_WILLING)).action, Action::Consume);
    let (peer, signs) = (it.peer(), it.link_signs());
    assert!(peer.answered < before && peer.answered > before - 200 * MS);
    assert_eq!((peer.answered, peer.agent_age, peer.flags), (signs.heard, 40, LINK_WILLING));
    it.stage.receive(&it.answer(300, LINK_ANSWERING));
    assert_eq!(it.peer(), peer, "it has answered later ones");
}

#[test]
fn forged_and_misdirected_heartbeats_change_nothing() {
    let it = Announcing::new();
    let known = it.peer();
    let forged = it.request(|_| ()).to_frame(b"sixteen of bytez");
    let misdirected = it.request(|request| request.to = node_number("elsewhere")).to_frame(&KEY);
    let mut changed = it.request(|_| ()).to_frame(&KEY);
    changed[ETHERNET + 5] ^= 1;
    let mut answer_to_anybody = it.answer(10, 0);
    answer_to_anybody[ETHERNET + 8..ETHERNET + 16].fill(0);
    let mut from_elsewhere = it.request(|_| ()).to_frame(&KEY);
    from_elsewhere[6..12].copy_from_slice(&CLIENT);
    for frame in [forged, misdirected, changed, answer_to_anybody, from_elsewhere] {
        assert_eq!(it.stage.receive(&frame).action, Action::Consume);
    }
    let short = it.request(|_| ()).to_frame(&KEY)[..60].to_vec();
    let mut others = it.request(|_| ()).to_frame(&KEY);
    others[ETHERNET] = 0;
    for frame in [short, others] {
        assert_eq!(it.stage.receive(&frame).action, Action::Pass, "it is somebody else's");
    }
    assert_eq!(it.peer(), known);
    let stranger = it.hear(it.request(|request| request.from = node_number("stranger")));
    assert_eq!(stranger.action, Action::Redirect, "it has the key, and may have another plan");
    assert_eq!(it.maps.peers.count().unwrap(), 1);
}
