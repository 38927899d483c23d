//! Services for packets of pods whose sockets were not translated.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bpf_tests::packet::{self, Tcp};
use bpf_tests::seen::{Seen, Told, check_checksums, subject, told};
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Outcome, Place, Place::*, Rule, Stage, ip, pod_mac};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{
    CONFIG_REDIRECTS, CONFIG_SET_RETVAL, ExemptEntry, ExemptKey, NetPort, SCOPE_INTERNAL,
    SERVICE_AT_OWN_NODE, ServiceKey,
};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table as _;

use crate::nodeport::{mk_packet, sent_on};
use crate::{ANY_MAC, DENIED, SCTP, TCP, UDP};

const CLIENT: u16 = 40_000;
const PORT: u16 = 30_080;

/// A cluster address.
fn cluster(family: Family) -> SocketAddr {
    (ip(if family == Family::V4 { "10.96.0.10" } else { "fd00:96::10" }), 443).into()
}

fn any(family: Family) -> SocketAddr {
    (ip(if family == Family::V4 { "0.0.0.0" } else { "::" }), PORT).into()
}

/// A service under the cluster address and the port of nodes, by both protocols and in both families.
fn serve(stage: &mut Stage, generation: u32, backends: &[Place]) {
    for (number, family) in (0..).zip(Family::ALL) {
        for (other, protocol) in [(0, TCP), (2, UDP)] {
            let generation = 10 * generation + number + other;
            let service = Frontend { inside: true, generation, protocol, ..Frontend::default() };
            let backends: Vec<_> = backends.iter().map(|place| place.at(family, 80)).collect();
            service.serve(&mut stage.maps, cluster(family), &backends);
            service.serve(&mut stage.maps, any(family), &backends);
        }
    }
}

fn stage(mode: Mode, backends: &[Place]) -> Stage {
    let mut stage = Stage::new(mode);
    serve(&mut stage, 1, backends);
    stage
}

/// Source and destination of a packet that was let through, with sums that are right.
fn passed(outcome: &Outcome, action: Action) -> (SocketAddr, SocketAddr) {
    assert_eq!(outcome.action, action);
    check_checksums(&outcome.packet);
    let seen = Seen::read(&outcome.packet);
    ((seen.source, seen.source_port).into(), (seen.destination, seen.destination_port).into())
}

/// What comes from `place` to [`PodA`].
fn answer(
    stage: &Stage,
    place: Place,
    protocol: u8,
    from: SocketAddr,
    to: SocketAddr,
    flags: Tcp,
) -> Outcome {
    match place {
        PodA | PodB => stage.leave(place, &mk_packet(protocol, ANY_MAC, from, to, flags)),
        Host => stage.enter(PodA, &mk_packet(protocol, ANY_MAC, from, to, flags)),
        _ => stage.receive(&mk_packet(protocol, stage.uplink.mac.0, from, to, flags)),
    }
}

#[test]
fn a_pod_talks_to_a_backend_and_hears_the_service() {
    for (mode, backend) in [
        (Mode::Native, PodB),
        (Mode::Tunnel, PodB),
        (Mode::Native, RemotePod),
        (Mode::Native, Host),
        (Mode::Native, Kept),
    ] {
        let stage = stage(mode, &[backend]);
        let way = if backend == Host { Action::Pass } else { Action::Redirect };
        for family in Family::ALL {
            for protocol in [TCP, UDP] {
                for (service, port) in [(cluster(family), CLIENT), (Host.at(family, PORT), CLIENT + 1)] {
                    let (pod, to) = (PodA.at(family, port), backend.at(family, 80));
                    for flags in [Tcp::Syn, Tcp::Ack, Tcp::Ack] {
                        let forth = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, service, flags));
                        assert_eq!(passed(&forth, way), (pod, to), "{mode:?} {backend:?} {protocol}");
                        let flags = if flags == Tcp::Syn { Tcp::SynAck } else { Tcp::Ack };
                        let back = answer(&stage, backend, protocol, to, pod, flags);
                        let expected = (service, pod);
                        assert_eq!(passed(&back, way), expected, "{mode:?} {backend:?} {protocol}");
                    }
                }
            }
        }
    }
}

/// A service that is a redirect; pod A meets what is kept for it in its place.
#[test]
fn packets_of_a_pod_that_is_exempt_meet_what_is_there_otherwise() {
    for flags in [CONFIG_SET_RETVAL | CONFIG_REDIRECTS, CONFIG_SET_RETVAL] {
        let mut stage = Stage::with_config(Mode::Native, |config| config.flags = flags);
        serve(&mut stage, 1, &[PodB]);
        let is_exempt = flags & CONFIG_REDIRECTS != 0;
        for family in Family::ALL {
            let service = cluster(family);
            let (address, port) = (service.ip().into(), NetPort(service.port()));
            let key = ServiceKey { address, port, protocol: UDP, scope: SCOPE_INTERNAL };
            let (from, packet) =
                (PodA.at(family, CLIENT), |mac, from| packet::udp(mac, from, service, b"data"));
            let exempt = ExemptKey { client: from.ip().into(), service: key };
            stage.maps.exempt.set(&exempt, &ExemptEntry { exempt: 1 }).unwrap();
            // Without anything in its place, the address is what it is: one of the world.
            let seen = stage.leave(PodA, &packet(ANY_MAC, from));
            let of_service = Seen::read(&seen.packet).destination;
            assert_eq!(of_service == service.ip(), is_exempt, "{family:?}");
            // With the Service there, that is met.
            let kept = Frontend { exempt: true, generation: 90, protocol: UDP, ..Frontend::default() };
            kept.serve(&mut stage.maps, service, &[Kept.at(family, 80)]);
            let backend = if is_exempt { Kept } else { PodB };
            let from = PodA.at(family, CLIENT + 1);
            assert_eq!(sent_on(&stage.leave(PodA, &packet(ANY_MAC, from))), (from, backend.at(family, 80)));
        }
    }
}

#[test]
fn through_the_tunnel_goes_the_backends_address() {
    let stage = stage(Mode::Tunnel, &[RemotePod]);
    for family in Family::ALL {
        let (pod, to) = (PodA.at(family, CLIENT), RemotePod.at(family, 80));
        let forth = stage.leave(PodA, &packet::tcp(ANY_MAC, pod, cluster(family), Tcp::Syn));
        assert_eq!(sent_on(&forth), (pod, to));
    }
}

#[test]
fn policy_of_both_sides_judges_the_backend() {
    let mut stage = stage(Mode::Native, &[PodB]);
    let syn = |stage: &Stage, family| {
        let packet = packet::tcp(ANY_MAC, PodA.at(family, CLIENT), cluster(family), Tcp::Syn);
        stage.leave(PodA, &packet).action
    };
    for family in Family::ALL {
        stage.enforce(PodB, 10, Some(&[Rule(1005, TCP, Some(80))]), None);
        assert_eq!(syn(&stage, family), Action::Redirect);
        stage.enforce(PodB, 11, Some(&[Rule(1005, TCP, Some(443))]), None);
        assert_eq!(syn(&stage, family), DENIED);
        stage.open(PodB);
        stage.enforce(PodA, 12, None, Some(&[Rule(1006, TCP, Some(443))]));
        assert_eq!(syn(&stage, family), DENIED);
        stage.enforce(PodA, 13, None, Some(&[Rule(1006, TCP, Some(80))]));
        assert_eq!(syn(&stage, family), Action::Redirect);
        stage.open(PodA);
    }
}

#[test]
fn a_pod_reaches_itself_as_somebody_else() {
    let mut stage = stage(Mode::Native, &[PodA]);
    // A pod may always talk to itself.
    stage.enforce(PodA, 10, Some(&[]), Some(&[]));
    for (family, loopback) in [(Family::V4, "169.254.42.1"), (Family::V6, "100::a9fe:2a01")] {
        for protocol in [TCP, UDP] {
            let (pod, own) = (PodA.at(family, CLIENT), PodA.at(family, 80));
            let stranger = SocketAddr::new(ip(loopback), CLIENT);
            for flags in [Tcp::Syn, Tcp::Ack, Tcp::Ack] {
                let forth = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, cluster(family), flags));
                assert_eq!(sent_on(&forth), (stranger, own));
                assert_eq!(Seen::read(&forth.packet).mac_destination, pod_mac(PodA));
                let flags = if flags == Tcp::Syn { Tcp::SynAck } else { Tcp::Ack };
                let back = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, own, stranger, flags));
                assert_eq!(sent_on(&back), (cluster(family), pod));
                assert_eq!(Seen::read(&back.packet).mac_destination, pod_mac(PodA));
            }
        }
        let about = packet::udp(ANY_MAC, (ip(loopback), CLIENT).into(), PodA.at(family, 80), b"data");
        let error = packet::unreachable(ANY_MAC, PodA.ip(family), ip(loopback), &about);
        let outcome = stage.leave(PodA, &error);
        let quoted = sent_on_error(&outcome, PodA.ip(family));
        assert_eq!(quoted, (PodA.at(family, CLIENT), cluster(family)));
    }
}

#[test]
fn without_backends_a_pod_is_told_so() {
    let stage = stage(Mode::Tunnel, &[]);
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            for service in [cluster(family), Host.at(family, PORT)] {
                let pod = PodA.at(family, CLIENT);
                let outcome = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, service, Tcp::Syn));
                assert_eq!(outcome.action, Action::Answer(DropReason::NoService));
                assert_eq!(told(&outcome.packet), (service.ip(), pod.ip(), Told::NoPort));
                assert_eq!(subject(&outcome.packet), (pod, service));
            }
        }
    }
}

#[test]
fn sctp_keeps_its_ports_or_is_not_served() {
    for (target, expected) in
        [(9899, Action::Redirect), (9900, Action::Drop(DropReason::NatUnsupportedProtocol))]
    {
        let mut stage = Stage::new(Mode::Native);
        for (generation, family) in (1..).zip(Family::ALL) {
            let service = Frontend { inside: true, generation, protocol: SCTP, ..Frontend::default() };
            let at = SocketAddr::new(cluster(family).ip(), 9899);
            service.serve(&mut stage.maps, at, &[PodB.at(family, target)]);
            let (pod, to) = (PodA.at(family, CLIENT), PodB.at(family, target));
            let sent = packet::sctp(ANY_MAC, pod, at);
            let forth = stage.leave(PodA, &sent);
            assert_eq!(forth.action, expected);
            if expected == Action::Redirect {
                let seen = Seen::read(&forth.packet);
                assert_eq!((seen.source, seen.destination, seen.destination_port), (pod.ip(), to.ip(), 9899));
                assert_eq!(
                    forth.packet[seen.transport..],
                    sent[seen.transport..],
                    "nothing behind the IP header"
                );
                let back = stage.leave(PodB, &packet::sctp(ANY_MAC, to, pod));
                assert_eq!((back.action, Seen::read(&back.packet).source), (Action::Redirect, at.ip()));
            }
        }
    }
}

/// What an error that was sent on is about.
fn sent_on_error(outcome: &Outcome, to: IpAddr) -> (SocketAddr, SocketAddr) {
    assert_eq!(outcome.action, Action::Redirect);
    check_checksums(&outcome.packet);
    assert_eq!(Seen::read(&outcome.packet).destination, to);
    subject(&outcome.packet)
}

#[test]
fn a_masqueraded_pod_hears_the_service_too() {
    let stage = stage(Mode::Native, &[World]);
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            let (pod, world) = (PodA.at(family, CLIENT), World.at(family, 80));
            let forth = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, cluster(family), Tcp::Syn));
            let (node, to) = sent_on(&forth);
            assert_eq!((node.ip(), to), (Host.ip(family), world));
            let back = answer(&stage, World, protocol, world, node, Tcp::SynAck);
            assert_eq!(sent_on(&back), (cluster(family), pod));
        }
    }
}

#[test]
fn errors_speak_of_the_service_to_the_pod_and_of_the_backend_to_the_backend() {
    for backend in [PodB, RemotePod] {
        let stage = stage(Mode::Native, &[backend]);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let (pod, to) = (PodA.at(family, CLIENT), backend.at(family, 80));
            let forth = packet::udp(ANY_MAC, pod, cluster(family), b"data");
            assert_eq!(sent_on(&stage.leave(PodA, &forth)), (pod, to));
            let about = packet::udp(mac, pod, to, b"data");
            let error = packet::unreachable(mac, to.ip(), pod.ip(), &about);
            let outcome = if backend == PodB { stage.leave(PodB, &error) } else { stage.receive(&error) };
            assert_eq!(sent_on_error(&outcome, pod.ip()), (pod, cluster(family)), "{backend:?}");
            assert_eq!(Seen::read(&outcome.packet).source, cluster(family).ip());

            let back = packet::udp(ANY_MAC, cluster(family), pod, b"answer");
            let error = packet::unreachable(ANY_MAC, pod.ip(), cluster(family).ip(), &back);
            let outcome = stage.leave(PodA, &error);
            assert_eq!(sent_on_error(&outcome, to.ip()), (to, pod), "{backend:?}");
        }
    }
}

#[test]
fn fragments_go_to_one_backend_and_come_from_the_service() {
    let mut stage = Stage::new(Mode::Native);
    let many: Vec<_> = [PodB, RemotePod].into_iter().cycle().take(20).collect();
    serve(&mut stage, 1, &many);
    for family in Family::ALL {
        for id in 0..10 {
            let pod = PodA.at(family, CLIENT + id);
            let whole = packet::udp(ANY_MAC, pod, cluster(family), &[7; 64]);
            let to = packet::fragments(&whole, 24, id).map(|piece| {
                let outcome = stage.leave(PodA, &piece);
                assert_eq!(outcome.action, Action::Redirect);
                Seen::read(&outcome.packet).destination
            });
            assert_eq!(to[0], to[1]);
        }
        let pod = PodA.at(family, CLIENT + 100);
        let (_, to) = sent_on(&stage.leave(PodA, &packet::udp(ANY_MAC, pod, cluster(family), b"")));
        let place = if to.ip() == PodB.ip(family) { PodB } else { RemotePod };
        let whole = packet::udp(stage.uplink.mac.0, to, pod, &[7; 64]);
        for piece in packet::fragments(&whole, 24, 300) {
            let outcome = if place == PodB { stage.leave(PodB, &piece) } else { stage.receive(&piece) };
            assert_eq!(outcome.action, Action::Redirect);
            assert_eq!(Seen::read(&outcome.packet).source, cluster(family).ip());
        }
    }
}

#[test]
fn connections_straight_to_the_backend_stay_what_they_are() {
    let stage = stage(Mode::Native, &[PodB]);
    for family in Family::ALL {
        let (pod, to) = (PodA.at(family, CLIENT), PodB.at(family, 80));
        stage.leave(PodA, &packet::udp(ANY_MAC, pod, cluster(family), b""));
        assert_eq!(sent_on(&answer(&stage, PodB, UDP, to, pod, Tcp::Ack)), (cluster(family), pod));
        // The same socket without the service: what was sent last counts.
        stage.leave(PodA, &packet::udp(ANY_MAC, pod, to, b""));
        assert_eq!(sent_on(&answer(&stage, PodB, UDP, to, pod, Tcp::Ack)), (to, pod));
    }
}

#[test]
fn datagrams_leave_a_backend_that_is_gone_and_connections_end_with_it() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.flags |= CONFIG_SET_RETVAL);
    serve(&mut stage, 1, &[PodB]);
    let to = |stage: &Stage, family, protocol, flags| {
        let packet = mk_packet(protocol, ANY_MAC, PodA.at(family, CLIENT), cluster(family), flags);
        sent_on(&stage.leave(PodA, &packet)).1.ip()
    };
    for family in Family::ALL {
        assert_eq!(to(&stage, family, TCP, Tcp::Syn), PodB.ip(family));
        assert_eq!(to(&stage, family, UDP, Tcp::Syn), PodB.ip(family));
    }
    serve(&mut stage, 2, &[RemotePod]);
    for family in Family::ALL {
        assert_eq!(to(&stage, family, TCP, Tcp::Ack), PodB.ip(family));
        assert_eq!(to(&stage, family, UDP, Tcp::Syn), RemotePod.ip(family));
        assert_eq!(to(&stage, family, TCP, Tcp::Syn), RemotePod.ip(family));
    }
}

#[test]
fn ports_of_other_nodes_are_served_here_unless_those_decide_by_themselves() {
    let mut stage = stage(Mode::Native, &[PodB]);
    for (number, family) in (0..).zip(Family::ALL) {
        let syn = packet::tcp(ANY_MAC, PodA.at(family, CLIENT), RemoteNode.at(family, PORT), Tcp::Syn);
        assert_eq!(sent_on(&stage.leave(PodA, &syn)).1, PodB.at(family, 80));
        let own = Frontend {
            inside: true,
            generation: 100 + number,
            protocol: TCP,
            flags: SERVICE_AT_OWN_NODE,
            ..Frontend::default()
        };
        own.serve(&mut stage.maps, any(family), &[PodB.at(family, 80)]);
        let syn = packet::tcp(ANY_MAC, PodA.at(family, CLIENT + 1), RemoteNode.at(family, PORT), Tcp::Syn);
        assert_eq!(sent_on(&stage.leave(PodA, &syn)).1, RemoteNode.at(family, PORT));
    }
}

#[test]
fn packets_of_a_pod_spread_over_the_backends() {
    let stage = stage(Mode::Native, &[PodB, RemotePod]);
    let targets: BTreeSet<SocketAddr> = (0..60)
        .map(|i| packet::tcp(ANY_MAC, PodA.at(Family::V4, CLIENT + i), cluster(Family::V4), Tcp::Syn))
        .map(|packet| sent_on(&stage.leave(PodA, &packet)).1)
        .collect();
    assert_eq!(targets.len(), 2);
}

#[test]
fn an_answer_in_pieces_from_outside_comes_as_the_service_and_keeps_its_content() {
    let stage = stage(Mode::Native, &[World]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let pod = PodA.at(family, CLIENT);
        let asked = stage.leave(PodA, &packet::udp(ANY_MAC, pod, cluster(family), b"question"));
        let (node, backend) = passed(&asked, Action::Redirect);
        assert_eq!((node.ip(), backend), (Host.ip(family), World.at(family, 80)), "masqueraded");
        let content: Vec<u8> = (0..64).collect();
        let [first, later] = packet::fragments(&packet::udp(mac, backend, node, &content), 24, 900);
        let read = |piece: &[u8]| {
            let outcome = stage.receive(piece);
            assert_eq!(outcome.action, Action::Redirect);
            outcome.packet
        };
        let seen = Seen::read(&read(&first));
        assert_eq!((seen.source, seen.source_port), (cluster(family).ip(), cluster(family).port()));
        assert_eq!((seen.destination, seen.destination_port), (pod.ip(), pod.port()));
        let later = read(&later);
        // The first piece has 24 bytes, 8 of which are the header of UDP.
        assert!(later.ends_with(&content[16..]), "{later:?}");
        let seen = Seen::read(&later);
        assert_eq!((seen.source, seen.destination), (cluster(family).ip(), pod.ip()));
    }
}
