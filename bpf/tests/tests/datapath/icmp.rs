//! Echo, errors, and what pods send to find their neighbours.

use bpf_tests::packet::{self, Echo};
use bpf_tests::stage::{Action, Place::*, Rule, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::DIRECTION_INGRESS;
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, UDP};

#[test]
fn echo_passes_by_type_and_its_reply_by_id() {
    let mut stage = Stage::new(Mode::Native);
    for (family, generation) in [(Family::V4, 10), (Family::V6, 20)] {
        let (a, b) = (PodA.ip(family), PodB.ip(family));
        let ask =
            |stage: &Stage, id| stage.leave(PodA, &packet::echo(ANY_MAC, a, b, Echo::Request, id)).action;
        let answer =
            |stage: &Stage, id| stage.leave(PodB, &packet::echo(ANY_MAC, b, a, Echo::Reply, id)).action;
        stage.enforce(PodA, generation, Some(&[]), None);
        stage.enforce(PodB, generation + 1, Some(&[]), None);
        assert_eq!(ask(&stage, 1), DENIED);
        let only_requests = [Rule(1005, family.icmp(), Some(family.echo_request()))];
        stage.enforce(PodB, generation + 2, Some(&only_requests), None);
        assert_eq!(ask(&stage, 1), Action::Redirect);
        assert_eq!(answer(&stage, 1), Action::Redirect);
        assert_eq!(answer(&stage, 2), DENIED, "nobody asked");
        let backwards = packet::echo(ANY_MAC, b, a, Echo::Request, 1);
        assert_eq!(stage.leave(PodB, &backwards).action, DENIED, "a request is not a reply");
    }
}

/// Description, what the entry says of type and protocol, whether it denies, and what becomes of echo requests and of replies that
/// nobody asked for.
type Case = (&'static str, fn(Family) -> Rule, bool, [Action; 2]);

const PASSES: Action = Action::Redirect;

fn reply(family: Family) -> u16 {
    if family == Family::V4 { 0 } else { 129 }
}

fn other(family: Family) -> u8 {
    if family == Family::V4 { Family::V6.icmp() } else { Family::V4.icmp() }
}

const TYPES: [Case; 8] = [
    ("requests", |f| Rule(1005, f.icmp(), Some(f.echo_request())), false, [PASSES, DENIED]),
    ("replies", |f| Rule(1005, f.icmp(), Some(reply(f))), false, [DENIED, PASSES]),
    ("every type", |f| Rule(1005, f.icmp(), None), false, [PASSES, PASSES]),
    ("the other family", |f| Rule(1005, other(f), None), false, [DENIED, DENIED]),
    ("a port of that number", |f| Rule(1005, UDP, Some(f.echo_request())), false, [DENIED, DENIED]),
    ("requests denied", |f| Rule(1005, f.icmp(), Some(f.echo_request())), true, [DENIED_BY_RULE, PASSES]),
    ("every type denied", |f| Rule(0, f.icmp(), None), true, [DENIED_BY_RULE, DENIED_BY_RULE]),
    ("the other family denied", |f| Rule(0, other(f), None), true, [PASSES, PASSES]),
];

#[test]
fn types_are_what_ports_are_elsewhere() {
    let mut stage = Stage::new(Mode::Native);
    let mut generation = 1000;
    for (what, rule, denies, expected) in TYPES {
        for family in Family::ALL {
            generation += 1;
            let (rule, all) = ([rule(family)], [Rule(0, 0, None)]);
            if denies {
                stage.deny(generation, DIRECTION_INGRESS, &rule);
            }
            stage.enforce(PodB, generation, Some(if denies { &all } else { &rule }), None);
            let found = [Echo::Request, Echo::Reply].map(|kind| {
                let packet = packet::echo(ANY_MAC, PodA.ip(family), PodB.ip(family), kind, generation as u16);
                let action = stage.leave(PodA, &packet).action;
                // The next is no part of this connection.
                let keys: Vec<_> = stage.maps.ct.list().unwrap().into_iter().map(|(key, _)| key).collect();
                keys.iter().for_each(|key| stage.maps.ct.delete(key).unwrap());
                action
            });
            assert_eq!(found, expected, "{what}, {family:?}");
        }
    }
}

#[test]
fn an_error_passes_when_it_is_about_a_known_connection() {
    let mut stage = Stage::new(Mode::Native);
    for (family, generation) in [(Family::V4, 30), (Family::V6, 40)] {
        stage.enforce(PodA, generation, Some(&[]), None);
        let (a, b) = (PodA.at(family, 9000), PodB.at(family, 53));
        let question = packet::udp(ANY_MAC, a, b, b"");
        let error = packet::unreachable(ANY_MAC, b.ip(), a.ip(), &question);
        assert_eq!(stage.leave(PodB, &error).action, DENIED, "before there was a connection");
        stage.leave(PodA, &question);
        assert_eq!(stage.leave(PodB, &error).action, Action::Redirect);
        let forged = packet::udp(ANY_MAC, PodA.at(family, 9001), b, b"");
        let error = packet::unreachable(ANY_MAC, b.ip(), a.ip(), &forged);
        assert_eq!(stage.leave(PodB, &error).action, DENIED, "about something that was never sent");
        let theirs = packet::udp(ANY_MAC, RemotePod.at(family, 9000), b, b"");
        let error = packet::unreachable(ANY_MAC, b.ip(), a.ip(), &theirs);
        assert_eq!(stage.leave(PodB, &error).action, DENIED, "not about the receiver's packet");
    }
}

#[test]
fn errors_from_routers_and_the_host_reach_the_pod() {
    let mut stage = Stage::new(Mode::Native);
    for (family, generation) in [(Family::V4, 50), (Family::V6, 60)] {
        stage.enforce(PodA, generation, Some(&[]), None);
        let (a, remote) = (PodA.at(family, 9002), RemotePod.at(family, 53));
        let question = packet::udp(ANY_MAC, a, remote, b"");
        stage.leave(PodA, &question);
        let error = packet::unreachable(stage.uplink.mac.0, RemoteNode.ip(family), a.ip(), &question);
        assert_eq!(stage.receive(&error).action, Action::Redirect);
        let error = packet::unreachable(ANY_MAC, Host.ip(family), a.ip(), &question);
        assert_eq!(stage.enter(PodA, &error).action, Action::Pass);
        let unrelated = packet::udp(ANY_MAC, a, World.at(family, 1), b"");
        let error = packet::unreachable(stage.uplink.mac.0, RemoteNode.ip(family), a.ip(), &unrelated);
        assert_eq!(stage.receive(&error).action, DENIED);
    }
}

#[test]
fn an_error_leaves_no_connection_behind() {
    let stage = Stage::new(Mode::Native);
    for family in Family::ALL {
        let never_sent = packet::udp(ANY_MAC, PodA.at(family, 1), PodB.at(family, 2), b"");
        let error = packet::unreachable(ANY_MAC, PodB.ip(family), PodA.ip(family), &never_sent);
        assert_eq!(stage.leave(PodB, &error).action, Action::Redirect, "no policy forbids it");
    }
    assert_eq!(stage.maps.ct.count().unwrap(), 0);
}

#[test]
fn errors_about_udp_of_a_denied_peer_are_judged() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodB, 70, None, Some(&[Rule(1005, UDP, None)]));
    let never_sent = packet::udp(ANY_MAC, PodA.at(Family::V4, 1), PodB.at(Family::V4, 2), b"");
    let error = packet::unreachable(ANY_MAC, PodB.ip(Family::V4), PodA.ip(Family::V4), &never_sent);
    assert_eq!(stage.leave(PodB, &error).action, DENIED);
}

#[test]
fn neighbours_are_found_but_not_by_way_of_the_host() {
    let stage = Stage::new(Mode::Native);
    let (pod, link_local, all_nodes) = (PodA.ip(Family::V6), ip("fe80::5"), ip("ff02::1"));
    let host = Host.ip(Family::V6);
    let invalid = Action::Drop(DropReason::InvalidSourceIp);
    let table = [
        ("advertisement to the host", link_local, host, 136, 255, Action::Pass),
        ("advertisement to the link", pod, all_nodes, 136, 255, Action::Pass),
        ("solicitation without address", ip("::"), ip("ff02::1:ff00:5"), 135, 255, Action::Pass),
        ("forwarded advertisement", link_local, host, 136, 254, invalid),
        ("advertisement to another pod", link_local, PodB.ip(Family::V6), 136, 255, invalid),
        ("advertisement to the world", link_local, World.ip(Family::V6), 136, 255, invalid),
        (
            "router solicitation",
            link_local,
            ip("ff02::2"),
            133,
            255,
            Action::Drop(DropReason::ForbiddenIcmp6),
        ),
        ("router advertisement", link_local, all_nodes, 134, 255, Action::Drop(DropReason::ForbiddenIcmp6)),
        ("listener report", link_local, ip("ff02::16"), 143, 1, Action::Drop(DropReason::ForbiddenIcmp6)),
        ("redirect", link_local, pod, 137, 255, Action::Drop(DropReason::ForbiddenIcmp6)),
    ];
    for (what, from, to, kind, hops, expected) in table {
        let packet = packet::icmp6(ANY_MAC, from, to, kind, hops);
        assert_eq!(stage.leave(PodA, &packet).action, expected, "{what}");
    }
    let from_host = packet::icmp6(ANY_MAC, ip("fe80::1"), ip("ff02::1:ff00:5"), 135, 255);
    assert_eq!(stage.enter(PodA, &from_host).action, Action::Pass);
}
