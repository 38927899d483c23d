//! Services for clients outside: ports of nodes and addresses of load balancers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bpf_tests::packet::{self, Echo, Tcp};
use bpf_tests::seen::{Seen, Told, check_checksums, subject, told};
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Outcome, Place, Place::*, Rule, Stage, ip, net, pod_mac};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{
    CONFIG_NODEPORT_PREFIXES, CONFIG_SET_RETVAL, IpcacheKey, NAT_SERVICE, Prefix, SERVICE_ONLY_OWN,
    SERVICE_RANGES_DENY,
};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table as _;

use crate::{ANY_MAC, DENIED, TCP, UDP};

pub(crate) const PORT: u16 = 30_080;
pub(crate) const CLIENT: u16 = 40_000;

/// Every address of a node.
pub(crate) fn any(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "0.0.0.0" } else { "::" })
}

/// An address of a load balancer, which no device has.
fn balancer(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "203.0.113.7" } else { "2001:db8:7::7" })
}

/// A stage with one service on a port of nodes, by both protocols and in both families.
fn stage(mode: Mode, backends: &[Place]) -> Stage {
    let mut stage = Stage::new(mode);
    serve(&mut stage, 1, backends);
    stage
}

fn serve(stage: &mut Stage, generation: u32, backends: &[Place]) {
    for (number, family) in (0..).zip(Family::ALL) {
        for (other, protocol) in [(0, TCP), (2, UDP)] {
            let service =
                Frontend { generation: 10 * generation + number + other, protocol, ..Frontend::default() };
            let backends: Vec<_> = backends.iter().map(|place| place.at(family, 80)).collect();
            service.serve(&mut stage.maps, (any(family), PORT).into(), &backends);
        }
    }
}

pub(crate) fn mk_packet(protocol: u8, mac: [u8; 6], from: SocketAddr, to: SocketAddr, flags: Tcp) -> Vec<u8> {
    if protocol == TCP { packet::tcp(mac, from, to, flags) } else { packet::udp(mac, from, to, b"data") }
}

/// Source and destination of a packet that was sent on, with sums that are right.
pub(crate) fn sent_on(outcome: &Outcome) -> (SocketAddr, SocketAddr) {
    assert_eq!(outcome.action, Action::Redirect);
    check_checksums(&outcome.packet);
    let seen = Seen::read(&outcome.packet);
    ((seen.source, seen.source_port).into(), (seen.destination, seen.destination_port).into())
}

#[test]
fn a_backend_of_this_node_sees_the_client_and_answers_as_the_service() {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = stage(mode, &[PodA]);
        stage.enforce(PodA, 10, Some(&[Rule(9, 0, Some(80)), Rule(10, 0, Some(80))]), Some(&[]));
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            for protocol in [TCP, UDP] {
                let (client, pod) = (World.at(family, CLIENT), PodA.at(family, 80));
                let service = Host.at(family, PORT);
                for flags in [Tcp::Syn, Tcp::Ack, Tcp::Ack] {
                    let forth = stage.receive(&mk_packet(protocol, mac, client, service, flags));
                    assert_eq!(sent_on(&forth), (client, pod), "{mode:?} {protocol}");
                    assert_eq!(Seen::read(&forth.packet).mac_destination, pod_mac(PodA));
                    let flags = if flags == Tcp::Syn { Tcp::SynAck } else { Tcp::Ack };
                    let back = stage.leave(PodA, &mk_packet(protocol, ANY_MAC, pod, client, flags));
                    assert_eq!(sent_on(&back), (service, client), "{mode:?} {protocol}");
                }
            }
        }
    }
}

#[test]
fn policy_judges_the_client_and_the_port_of_the_backend() {
    let mut stage = stage(Mode::Native, &[PodA]);
    stage.enforce(PodA, 10, Some(&[Rule(0, TCP, Some(81))]), None);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let packet = packet::tcp(mac, World.at(family, CLIENT), Host.at(family, PORT), Tcp::Syn);
        assert_eq!(stage.receive(&packet).action, DENIED);
    }
}

#[test]
fn a_backend_elsewhere_sees_the_node_and_its_answers_go_to_the_client() {
    let stage = stage(Mode::Native, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            let (client, pod) = (World.at(family, CLIENT), RemotePod.at(family, 80));
            let service = Host.at(family, PORT);
            let mut ports = BTreeSet::new();
            for flags in [Tcp::Syn, Tcp::Ack, Tcp::Ack] {
                let forth = stage.receive(&mk_packet(protocol, mac, client, service, flags));
                let (node, to) = sent_on(&forth);
                assert_eq!((node.ip(), to), (Host.ip(family), pod));
                assert_eq!(Seen::read(&forth.packet).hops, packet::HOPS - 1);
                ports.insert(node.port());
                let flags = if flags == Tcp::Syn { Tcp::SynAck } else { Tcp::Ack };
                let back = stage.receive(&mk_packet(protocol, mac, pod, node, flags));
                assert_eq!(sent_on(&back), (service, client));
            }
            assert_eq!(ports.len(), 1, "a connection keeps its port");
            assert!(ports.iter().all(|port| *port >= 61_000));
        }
    }
}

#[test]
fn in_tunnel_mode_it_goes_through_the_tunnel() {
    let stage = stage(Mode::Tunnel, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
        let (node, to) = sent_on(&stage.receive(&packet::udp(mac, client, service, b"")));
        assert_eq!((node.ip(), to), (Host.ip(family), RemotePod.at(family, 80)));
    }
}

#[test]
fn a_backend_outside_is_reached_by_the_routes() {
    let stage = stage(Mode::Tunnel, &[Kept]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
        let (node, to) = sent_on(&stage.receive(&packet::tcp(mac, client, service, Tcp::Syn)));
        assert_eq!((node.ip(), to), (Host.ip(family), Kept.at(family, 80)));
        let back = stage.receive(&packet::tcp(mac, to, node, Tcp::SynAck));
        assert_eq!(sent_on(&back), (service, client));
    }
}

#[test]
fn a_process_of_the_node_can_be_the_backend() {
    let stage = stage(Mode::Native, &[Host]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        for protocol in [TCP, UDP] {
            let (client, service, own) =
                (World.at(family, CLIENT), Host.at(family, PORT), Host.at(family, 80));
            let forth = stage.receive(&mk_packet(protocol, mac, client, service, Tcp::Syn));
            assert_eq!(forth.action, Action::Pass);
            check_checksums(&forth.packet);
            let seen = Seen::read(&forth.packet);
            assert_eq!((seen.source, seen.destination, seen.destination_port), (client.ip(), own.ip(), 80));
            let back = stage.send_out(&mk_packet(protocol, mac, own, client, Tcp::SynAck), 0);
            assert_eq!(back.action, Action::Pass);
            check_checksums(&back.packet);
            let seen = Seen::read(&back.packet);
            assert_eq!((seen.source, seen.source_port), (service.ip(), service.port()));
        }
        // The same client comes straight to the process, with the same port: the answer is the process's own.
        let (client, own) = (World.at(family, CLIENT), Host.at(family, 80));
        stage.receive(&packet::tcp(mac, client, own, Tcp::Syn));
        let answer = packet::tcp(mac, own, client, Tcp::SynAck);
        assert_eq!(stage.send_out(&answer, 0).packet, answer);
    }
}

#[test]
fn an_address_of_a_load_balancer_is_served_as_it_is() {
    for backend in [PodA, RemotePod] {
        let mut stage = Stage::new(Mode::Native);
        let mac = stage.uplink.mac.0;
        for (generation, family) in (1..).zip(Family::ALL) {
            let service = Frontend { generation, protocol: TCP, ..Frontend::default() };
            let (at, client) = (SocketAddr::new(balancer(family), 443), World.at(family, CLIENT));
            service.serve(&mut stage.maps, at, &[backend.at(family, 8443)]);
            let (from, to) = sent_on(&stage.receive(&packet::tcp(mac, client, at, Tcp::Syn)));
            assert_eq!(to, backend.at(family, 8443));
            let answer = packet::tcp(mac, to, from, Tcp::SynAck);
            let back = if backend == PodA { stage.leave(PodA, &answer) } else { stage.receive(&answer) };
            assert_eq!(sent_on(&back), (at, client));

            let other = packet::tcp(mac, client, (balancer(family), 444).into(), Tcp::Syn);
            let outcome = stage.receive(&other);
            assert_eq!((outcome.action, &outcome.packet), (Action::Pass, &other), "no port of the service");
        }
    }
}

/// What the agent writes for the ports of a load balancer's address that no Service has.
fn close_other_ports(stage: &mut Stage, address: IpAddr) {
    let service = Frontend { generation: 90, protocol: 0, flags: SERVICE_ONLY_OWN, ..Frontend::default() };
    service.serve(&mut stage.maps, (address, 0).into(), &[]);
}

#[test]
fn what_no_service_has_at_an_address_of_a_load_balancer_does_not_go_round_in_circles() {
    let mut stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let client = World.at(family, CLIENT);
        close_other_ports(&mut stage, balancer(family));
        for protocol in [TCP, UDP] {
            let stray = mk_packet(protocol, mac, client, (balancer(family), 444).into(), Tcp::Syn);
            assert_eq!(stage.receive(&stray).action, Action::Drop(DropReason::NoService));
        }
        let ping = packet::echo(mac, client.ip(), balancer(family), Echo::Request, 7);
        assert_eq!(stage.receive(&ping).action, Action::Pass, "a ping is for no port");
        // Somebody else's address, and one that is the node's own as well.
        for other in
            [ip("203.0.113.8"), ip("2001:db8:7::8")].into_iter().filter(|it| it.is_ipv4() == client.is_ipv4())
        {
            let through = packet::tcp(mac, client, (other, 444).into(), Tcp::Syn);
            assert_eq!(stage.receive(&through).action, Action::Pass);
        }
        close_other_ports(&mut stage, Host.ip(family));
        let own = packet::tcp(mac, client, Host.at(family, 444), Tcp::Syn);
        assert_eq!(stage.receive(&own).action, Action::Pass);
    }
}

#[test]
fn an_address_of_a_load_balancer_that_the_node_has_keeps_the_other_ports_of_the_node() {
    let mut stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        stage.add_own_address(balancer(family));
        close_other_ports(&mut stage, balancer(family));
        let other = packet::tcp(mac, World.at(family, CLIENT), (balancer(family), 22).into(), Tcp::Syn);
        assert_eq!(stage.receive(&other).action, Action::Pass);
    }
}

#[test]
fn ports_of_nodes_are_served_at_the_addresses_that_the_settings_name() {
    let lists = [
        (vec![net("192.0.2.0/24")], [true, false]),
        (vec![net("192.0.2.2/32"), net("::/0")], [false, true]),
        (vec![net("0.0.0.0/0"), net("2001:db8::1/128")], [true, true]),
        (vec![net("::/0")], [false, true]),
    ];
    for (prefixes, expected) in lists {
        let mut stage = Stage::with_config(Mode::Native, |config| {
            config.flags |= CONFIG_NODEPORT_PREFIXES;
            for (slot, prefix) in config.nodeport_prefixes.iter_mut().zip(prefixes.iter().cycle()) {
                *slot = Prefix::new(prefix.addr(), prefix.prefix_len());
            }
        });
        serve(&mut stage, 1, &[PodA]);
        let mac = stage.uplink.mac.0;
        for (family, is_served) in Family::ALL.into_iter().zip(expected) {
            let packet = packet::tcp(mac, World.at(family, CLIENT), Host.at(family, PORT), Tcp::Syn);
            let outcome = stage.receive(&packet);
            assert_eq!(outcome.action == Action::Redirect, is_served, "{family:?} {prefixes:?}");
            assert_eq!(outcome.packet == packet, !is_served);
        }
    }
}

#[test]
fn without_backends_clients_are_refused_and_a_policy_of_local_drops() {
    let reason = DropReason::NoService;
    for (flags, expected) in [(0, Action::Answer(reason)), (SERVICE_ONLY_OWN, Action::Drop(reason))] {
        let mut stage = Stage::new(Mode::Native);
        let mac = stage.uplink.mac.0;
        for (generation, family) in (1..).zip(Family::ALL) {
            for (protocol, other) in [(TCP, 0), (UDP, 10)] {
                let service =
                    Frontend { generation: generation + other, protocol, flags, ..Frontend::default() };
                service.serve(&mut stage.maps, (any(family), PORT).into(), &[]);
                service.serve(&mut stage.maps, (balancer(family), 80).into(), &[]);
                for at in [Host.at(family, PORT), (balancer(family), 80).into()] {
                    let client = World.at(family, CLIENT);
                    let outcome = stage.receive(&mk_packet(protocol, mac, client, at, Tcp::Syn));
                    assert_eq!(outcome.action, expected);
                    if flags == 0 {
                        assert_eq!(told(&outcome.packet), (at.ip(), client.ip(), Told::NoPort));
                        assert_eq!(subject(&outcome.packet), (client, at));
                    }
                }
            }
        }
    }
}

#[test]
fn only_clients_in_a_source_range_are_served() {
    let mut stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for (number, family) in (0..).zip(Family::ALL) {
        let [inside, elsewhere] = if family == Family::V4 {
            ["198.51.100.0/25", "198.51.100.128/25"]
        } else {
            ["2001:db8:ffff::/48", "2001:db8:fffe::/48"]
        };
        let at = SocketAddr::new(balancer(family), 80);
        for (generation, ranges, flags, served) in [
            (1, Some(vec![net(inside)]), 0, true),
            (2, Some(vec![net(elsewhere)]), 0, false),
            (3, Some(vec![net(elsewhere), net(inside)]), 0, true),
            (4, Some(vec![]), 0, false),
            (5, None, 0, true),
            (6, Some(vec![net(inside)]), SERVICE_RANGES_DENY, false),
            (7, Some(vec![net(elsewhere)]), SERVICE_RANGES_DENY, true),
        ] {
            let generation = 10 * generation + number;
            let service = Frontend { generation, protocol: TCP, ranges, flags, ..Frontend::default() };
            service.serve(&mut stage.maps, at, &[PodA.at(family, 80)]);
            // Each by a connection of its own: known ones go on.
            let client = World.at(family, CLIENT + generation as u16);
            let action = stage.receive(&packet::tcp(mac, client, at, Tcp::Syn)).action;
            let refused = Action::Drop(DropReason::NotInSourceRange);
            assert_eq!(action, if served { Action::Redirect } else { refused }, "generation {generation}");
        }
    }
}

#[test]
fn a_known_client_is_cut_off_when_the_source_ranges_leave_it_out() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.flags |= CONFIG_SET_RETVAL);
    let mac = stage.uplink.mac.0;
    let (client, at) = (World.at(Family::V4, CLIENT), SocketAddr::new(balancer(Family::V4), 80));
    for (number, protocol) in (0u32..).zip([TCP, UDP]) {
        let mut serve = |generation: u32, range: Option<&str>| {
            let ranges = range.map(|range| vec![net(range)]);
            let generation = 10 * generation + number;
            let service = Frontend { generation, protocol, ranges, ..Frontend::default() };
            service.serve(&mut stage.maps, at, &[PodA.at(Family::V4, 80)]);
            [Tcp::Syn, Tcp::Ack]
                .map(|flags| stage.receive(&mk_packet(protocol, mac, client, at, flags)).action)
        };
        let refused = Action::Drop(DropReason::NotInSourceRange);
        assert_eq!(serve(1, None), [Action::Redirect; 2]);
        assert_eq!(serve(2, Some("198.51.100.128/25")), [refused; 2], "protocol {protocol}");
        assert_eq!(serve(3, Some("198.51.100.0/25")), [Action::Redirect; 2]);
    }
}

#[test]
fn a_connection_stays_with_its_backend_for_as_long_as_it_is_there() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.flags |= CONFIG_SET_RETVAL);
    serve(&mut stage, 1, &[PodA]);
    let mac = stage.uplink.mac.0;
    let to = |stage: &Stage, family, protocol, flags| {
        let packet = mk_packet(protocol, mac, World.at(family, CLIENT), Host.at(family, PORT), flags);
        sent_on(&stage.receive(&packet)).1.ip()
    };
    for family in Family::ALL {
        assert_eq!(to(&stage, family, TCP, Tcp::Syn), PodA.ip(family));
        assert_eq!(to(&stage, family, UDP, Tcp::Syn), PodA.ip(family));
    }
    // Nineteen others come: a choice at random would be seen.
    let mut many = vec![PodB; 19];
    many.push(PodA);
    serve(&mut stage, 2, &many);
    for family in Family::ALL {
        assert_eq!(to(&stage, family, TCP, Tcp::Syn), PodA.ip(family), "the SYN is sent once more");
        assert_eq!(to(&stage, family, UDP, Tcp::Syn), PodA.ip(family));
    }
    serve(&mut stage, 3, &[PodB]);
    for family in Family::ALL {
        assert_eq!(to(&stage, family, TCP, Tcp::Ack), PodA.ip(family), "it may finish");
        assert_eq!(to(&stage, family, UDP, Tcp::Syn), PodB.ip(family), "datagrams go elsewhere");
        assert_eq!(to(&stage, family, TCP, Tcp::Syn), PodB.ip(family), "and so do new connections");
    }
}

#[test]
fn a_connection_whose_backend_is_gone_hears_of_it_from_another() {
    for backend in [PodA, RemotePod] {
        let mut stage = Stage::with_config(Mode::Native, |config| config.flags |= CONFIG_SET_RETVAL);
        serve(&mut stage, 1, &[backend]);
        let mac = stage.uplink.mac.0;
        let to = |stage: &Stage, family, flags| {
            let packet = packet::tcp(mac, World.at(family, CLIENT), Host.at(family, PORT), flags);
            sent_on(&stage.receive(&packet)).1.ip()
        };
        for family in Family::ALL {
            assert_eq!(to(&stage, family, Tcp::Syn), backend.ip(family));
        }
        serve(&mut stage, 2, &[PodB]);
        for family in Family::ALL {
            assert_eq!(
                to(&stage, family, Tcp::Ack),
                backend.ip(family),
                "it may finish while the pod is there"
            );
            stage.maps.endpoints.delete(&backend.ip(family).into()).unwrap();
            let length = if family == Family::V4 { 32 } else { 128 };
            stage.maps.ipcache.delete(&IpcacheKey::new(backend.ip(family), length)).unwrap();
            assert_eq!(to(&stage, family, Tcp::Ack), PodB.ip(family), "which resets it");
        }
    }
}

#[test]
fn only_ports_of_the_node_are_given_back_before_an_answer_may_come() {
    for (backend, seconds) in [(PodA, 60), (RemotePod, 10)] {
        let stage = stage(Mode::Native, &[backend]);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let packet = packet::udp(mac, World.at(family, CLIENT), Host.at(family, PORT), b"");
            assert_eq!(stage.receive(&packet).action, Action::Redirect);
        }
        let entries = stage.maps.snat.entries().unwrap();
        assert_eq!(entries.len(), 4, "there and back, by both families");
        for (key, entry) in entries {
            let left = entry.expires - stage_seconds();
            assert!((seconds - 5..=seconds).contains(&left), "{left} s for {key:?}");
        }
    }
}

#[test]
fn after_its_end_a_connection_is_a_new_one() {
    for (backend, other) in [(PodA, PodB), (RemotePod, PodB)] {
        let mut stage = stage(Mode::Native, &[backend]);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
            let (from, to) = sent_on(&stage.receive(&packet::tcp(mac, client, service, Tcp::Syn)));
            stage.receive(&packet::tcp(mac, client, service, Tcp::Fin));
            let fin = packet::tcp(mac, to, from, Tcp::Fin);
            let _ = if backend == PodA { stage.leave(PodA, &fin) } else { stage.receive(&fin) };
            let entries = stage.maps.snat.entries().unwrap();
            let is_it = |direction: u8, address: IpAddr| direction == NAT_SERVICE && address == service.ip();
            let (_, entry) =
                entries.iter().find(|(key, _)| is_it(key.direction, key.local.ip().unwrap())).unwrap();
            assert!(entry.expires < stage_seconds() + 60, "the end is noticed");
        }
        serve(&mut stage, 2, &[backend, other]);
        let targets: BTreeSet<IpAddr> = (0..200)
            .map(|_| {
                let packet =
                    packet::tcp(mac, World.at(Family::V4, CLIENT), Host.at(Family::V4, PORT), Tcp::Syn);
                let to = sent_on(&stage.receive(&packet)).1.ip();
                stage.receive(&packet::tcp(
                    mac,
                    World.at(Family::V4, CLIENT),
                    Host.at(Family::V4, PORT),
                    Tcp::Rst,
                ));
                to
            })
            .collect();
        assert_eq!(targets.len(), 2, "both are chosen");
    }
}

/// Now, as the programs count.
fn stage_seconds() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u32
}

#[test]
fn clients_get_different_ports_towards_one_backend() {
    let stage = stage(Mode::Native, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    let ports: BTreeSet<u16> = (0..300)
        .map(|i| packet::udp(mac, World.at(Family::V4, CLIENT + i), Host.at(Family::V4, PORT), b""))
        .map(|packet| sent_on(&stage.receive(&packet)).0.port())
        .collect();
    assert_eq!(ports.len(), 300);
}

#[test]
fn when_all_ports_are_taken_new_connections_fail_for_that_reason() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.nat_last = 61_003);
    serve(&mut stage, 1, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    let open = |port| {
        let packet = packet::tcp(mac, World.at(Family::V4, port), Host.at(Family::V4, PORT), Tcp::Syn);
        stage.receive(&packet).action
    };
    for port in 1..=4 {
        assert_eq!(open(port), Action::Redirect);
    }
    assert_eq!(open(5), Action::Drop(DropReason::NatNoMapping));
    assert_eq!(open(1), Action::Redirect, "known ones go on");
}

#[test]
fn a_port_is_free_again_a_second_after_the_connection_has_ended() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.nat_last = 61_001);
    serve(&mut stage, 1, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    let service = Host.at(Family::V4, PORT);
    let send = |port, flags| stage.receive(&packet::tcp(mac, World.at(Family::V4, port), service, flags));
    for port in [1, 2] {
        let (node, pod) = sent_on(&send(port, Tcp::Syn));
        assert_eq!(send(port, Tcp::Fin).action, Action::Redirect);
        assert_eq!(stage.receive(&packet::tcp(mac, pod, node, Tcp::Fin)).action, Action::Redirect);
    }
    // Within the second there is none, unless it is over just now.
    let refused = Action::Drop(DropReason::NatNoMapping);
    let first = send(3, Tcp::Syn).action;
    assert!([refused, Action::Redirect].contains(&first), "{first:?}");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(send(3, Tcp::Syn).action, Action::Redirect);
    assert_eq!(send(4, Tcp::Syn).action, Action::Redirect);
    assert_eq!(send(5, Tcp::Syn).action, refused, "those two are not over");
}

#[test]
fn a_port_whose_server_may_still_wait_is_taken_last() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.nat_last = 61_003);
    serve(&mut stage, 1, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    let service = Host.at(Family::V4, PORT);
    let send = |port, flags| stage.receive(&packet::tcp(mac, World.at(Family::V4, port), service, flags));
    let (rests, pod) = sent_on(&send(1, Tcp::Syn));
    send(1, Tcp::Fin);
    stage.receive(&packet::tcp(mac, pod, rests, Tcp::Fin));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let ports = [2, 3, 4, 5].map(|port| sent_on(&send(port, Tcp::Syn)).0);
    assert_eq!(ports.iter().position(|port| *port == rests), Some(3), "{ports:?}");
}

#[test]
fn a_port_is_free_again_at_once_after_a_reset() {
    for by_client in [true, false] {
        let mut stage = Stage::with_config(Mode::Native, |config| config.nat_last = 61_000);
        serve(&mut stage, 1, &[RemotePod]);
        let mac = stage.uplink.mac.0;
        let service = Host.at(Family::V4, PORT);
        let send = |port, flags| stage.receive(&packet::tcp(mac, World.at(Family::V4, port), service, flags));
        for port in 1..=40 {
            let (node, pod) = sent_on(&send(port, Tcp::Syn));
            let reset = if by_client {
                send(port, Tcp::Rst)
            } else {
                stage.receive(&packet::tcp(mac, pod, node, Tcp::Rst))
            };
            assert_eq!(reset.action, Action::Redirect, "a reset is sent on");
        }
        assert_eq!(send(41, Tcp::Syn).action, Action::Redirect);
        assert_eq!(send(42, Tcp::Syn).action, Action::Drop(DropReason::NatNoMapping), "that one lives");
    }
}

#[test]
fn one_client_and_backend_by_two_services_are_not_mixed_up() {
    let mut stage = stage(Mode::Native, &[PodA]);
    let mac = stage.uplink.mac.0;
    let service = Frontend { generation: 99, protocol: TCP, ..Frontend::default() };
    let at = SocketAddr::new(balancer(Family::V4), 80);
    service.serve(&mut stage.maps, at, &[PodA.at(Family::V4, 80)]);
    let client = World.at(Family::V4, CLIENT);
    let syn = |to| packet::tcp(mac, client, to, Tcp::Syn);
    assert_eq!(stage.receive(&syn(Host.at(Family::V4, PORT))).action, Action::Redirect);
    assert_eq!(stage.receive(&syn(at)).action, Action::Drop(DropReason::NatNoMapping));
    let answer = packet::tcp(ANY_MAC, PodA.at(Family::V4, 80), client, Tcp::SynAck);
    assert_eq!(sent_on(&stage.leave(PodA, &answer)), (Host.at(Family::V4, PORT), client));
}

#[test]
fn a_client_with_affinity_keeps_its_backend_over_connections() {
    let mut stage = Stage::new(Mode::Native);
    let mac = stage.uplink.mac.0;
    for (generation, family) in (1..).zip(Family::ALL) {
        let service = Frontend { generation, protocol: TCP, affinity: 3600, ..Frontend::default() };
        let backends = [PodA, PodB, RemotePod].map(|place| place.at(family, 80));
        service.serve(&mut stage.maps, (any(family), PORT).into(), &backends);
        let targets: BTreeSet<SocketAddr> = (0..40)
            .map(|i| packet::tcp(mac, World.at(family, CLIENT + i), Host.at(family, PORT), Tcp::Syn))
            .map(|packet| sent_on(&stage.receive(&packet)).1)
            .collect();
        assert_eq!(targets.len(), 1);
        let others: BTreeSet<SocketAddr> = (0..40)
            .map(|i| {
                let from: IpAddr = match family {
                    Family::V4 => [198, 51, 100, 100 + i as u8].into(),
                    Family::V6 => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 1, i].into(),
                };
                packet::tcp(mac, (from, CLIENT).into(), Host.at(family, PORT), Tcp::Syn)
            })
            .map(|packet| sent_on(&stage.receive(&packet)).1)
            .collect();
        assert_eq!(others.len(), 3, "others get others");
    }
}

#[test]
fn errors_about_what_was_sent_on_reach_the_client() {
    let stage = stage(Mode::Native, &[RemotePod]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
        let sent = stage.receive(&packet::udp(mac, client, service, b"")).packet;
        let error = packet::unreachable(mac, RemotePod.ip(family), Host.ip(family), &sent);
        let outcome = stage.receive(&error);
        assert_eq!(outcome.action, Action::Redirect);
        check_checksums(&outcome.packet);
        assert_eq!(Seen::read(&outcome.packet).destination, client.ip());
        let quoted = Seen::quoted(&outcome.packet);
        assert_eq!((quoted.source, quoted.source_port), (client.ip(), client.port()));
        assert_eq!((quoted.destination, quoted.destination_port), (service.ip(), service.port()));
    }
}

#[test]
fn errors_about_answers_reach_the_backend() {
    for backend in [PodA, RemotePod] {
        let stage = stage(Mode::Native, &[backend]);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
            let (from, to) = sent_on(&stage.receive(&packet::udp(mac, client, service, b"")));
            let answer = packet::udp(mac, to, from, b"");
            let answer = if backend == PodA { stage.leave(PodA, &answer) } else { stage.receive(&answer) };
            let error = packet::unreachable(mac, Kept.ip(family), service.ip(), &answer.packet);
            let outcome = stage.receive(&error);
            assert_eq!(outcome.action, Action::Redirect, "{backend:?}");
            check_checksums(&outcome.packet);
            assert_eq!(Seen::read(&outcome.packet).destination, backend.ip(family));
            let quoted = Seen::quoted(&outcome.packet);
            assert_eq!((quoted.source, quoted.source_port), (to.ip(), to.port()));
            assert_eq!((quoted.destination, quoted.destination_port), (from.ip(), from.port()));
        }
    }
}

#[test]
fn errors_of_a_backend_of_this_node_are_about_what_the_client_sent() {
    let stage = stage(Mode::Native, &[PodA]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        let (client, service) = (World.at(family, CLIENT), Host.at(family, PORT));
        let got = stage.receive(&packet::udp(mac, client, service, b"")).packet;
        let error = packet::unreachable(ANY_MAC, PodA.ip(family), client.ip(), &got);
        let outcome = stage.leave(PodA, &error);
        assert_eq!(outcome.action, Action::Redirect);
        check_checksums(&outcome.packet);
        assert_eq!(Seen::read(&outcome.packet).source, service.ip());
        let quoted = Seen::quoted(&outcome.packet);
        assert_eq!((quoted.destination, quoted.destination_port), (service.ip(), service.port()));
        assert_eq!((quoted.source, quoted.source_port), (client.ip(), client.port()));
    }
}

#[test]
fn fragments_go_to_one_backend() {
    for backend in [PodA, RemotePod] {
        let stage = stage(Mode::Native, &[backend]);
        let mac = stage.uplink.mac.0;
        for family in Family::ALL {
            let whole = packet::udp(mac, World.at(family, CLIENT), Host.at(family, PORT), &[1; 64]);
            for fragment in packet::fragments(&whole, 24, 900) {
                let outcome = stage.receive(&fragment);
                assert_eq!(outcome.action, Action::Redirect);
                assert_eq!(Seen::read(&outcome.packet).destination, backend.ip(family));
            }
        }
    }
}

#[test]
fn other_ports_of_the_node_are_its_own() {
    let stage = stage(Mode::Native, &[PodA]);
    let mac = stage.uplink.mac.0;
    for family in Family::ALL {
        for (at, protocol) in [
            (Host.at(family, PORT + 1), TCP),
            (Host.at(family, 22), TCP),
            (Host.at(family, 53), UDP),
            (RemoteNode.at(family, PORT), TCP),
        ] {
            let packet = mk_packet(protocol, mac, World.at(family, CLIENT), at, Tcp::Syn);
            let outcome = stage.receive(&packet);
            assert_eq!((outcome.action, &outcome.packet), (Action::Pass, &packet), "{at}");
        }
    }
    assert_eq!(stage.maps.snat.count().unwrap(), 0);
}
