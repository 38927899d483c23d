//! What one packet costs in each program, and what asking a policy adds: `just bench-packets` (as root).

use std::process::ExitCode;

use bpf_tests::packet::{self, HOPS, Tcp};
use bpf_tests::seen::Seen;
use bpf_tests::services::Frontend;
use bpf_tests::stage::{Action, Place::*, Stage, ip};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{
    DIRECTION_EGRESS, NetPort, POLICY_ALLOW, POLICY_RULES, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules,
    Slot,
};
use cilium_core::reserved::AGGREGATE_CLUSTER;
use cilium_delta::Table as _;
use cilium_drivers::datapath::DeviceProgram;
use cilium_drivers::netlink::Link;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SAMPLES: usize = 400;

/// Median of the nanoseconds for one run. Every run takes a hop from the packet, so a sample has fewer runs than hops.
fn cost(stage: &Stage, program: DeviceProgram, device: &Link, packet: &[u8], samples: usize) -> u32 {
    let run = |_| stage.time(program, device, packet, u32::from(HOPS) - 4);
    let mut samples: Vec<u32> = (0..samples).map(run).collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn local(stage: &Stage, family: Family) -> [(&'static str, u32); 2] {
    let (a, b) = (PodA.at(family, 1000), PodB.at(family, 80));
    stage.leave(PodA, &packet::tcp(MAC, a, b, Tcp::Syn));
    stage.leave(PodB, &packet::tcp(MAC, b, a, Tcp::SynAck));
    let forth = packet::tcp(MAC, a, b, Tcp::Ack);
    let back = packet::tcp(MAC, b, a, Tcp::Ack);
    [
        ("local, established", cost(stage, DeviceProgram::FromContainer, stage.link(PodA), &forth, SAMPLES)),
        ("local, reply", cost(stage, DeviceProgram::FromContainer, stage.link(PodB), &back, SAMPLES)),
    ]
}

fn remote(stage: &Stage, family: Family) -> [(&'static str, u32); 2] {
    let (a, c) = (PodA.at(family, 1001), RemotePod.at(family, 80));
    let mac = stage.uplink.mac.0;
    stage.leave(PodA, &packet::tcp(MAC, a, c, Tcp::Syn));
    stage.receive(&packet::tcp(mac, c, a, Tcp::SynAck));
    let forth = packet::tcp(MAC, a, c, Tcp::Ack);
    let back = packet::tcp(mac, c, a, Tcp::Ack);
    [
        ("to another node", cost(stage, DeviceProgram::FromContainer, stage.link(PodA), &forth, SAMPLES)),
        ("from another node", cost(stage, DeviceProgram::FromNetdev, &stage.uplink, &back, SAMPLES)),
    ]
}

/// Median of the nanoseconds of a run by itself: what these programs do to a packet makes another one of it. The clock is part of it.
fn cost_alone(stage: &Stage, packet: &[u8]) -> u32 {
    let run = |_| stage.time(DeviceProgram::FromNetdev, &stage.uplink, packet, 1);
    let mut samples: Vec<u32> = (0..10 * SAMPLES).map(run).collect();
    samples.sort_unstable();
    samples[5 * SAMPLES]
}

/// As [`cost_alone`], for the program before the stack; of a packet that it leaves alone, that is what it adds.
fn early_alone(stage: &Stage, packet: &[u8]) -> u32 {
    let mut samples: Vec<u32> = (0..10 * SAMPLES).map(|_| stage.run_early(packet, 1).nanoseconds).collect();
    samples.sort_unstable();
    samples[5 * SAMPLES]
}

/// As [`cost_alone`], before the stack; `None` for a packet that is left to the long way.
fn cost_early(stage: &Stage, packet: &[u8]) -> Option<u32> {
    if !stage.receive_early(packet).0 {
        return None;
    }
    Some(early_alone(stage, packet))
}

/// Packets of a known connection from a client outside, by a port of the node, beside what passes by.
fn outside(stage: &mut Stage, family: Family) -> Vec<(&'static str, u32)> {
    let mac = stage.uplink.mac.0;
    let (client, service) = (World.at(family, 4000), Host.at(family, 30_080));
    let any = if family == Family::V4 { "0.0.0.0" } else { "::" };
    let mut rows = vec![(
        "alone: for the node itself",
        cost_alone(stage, &packet::tcp(mac, client, Host.at(family, 22), Tcp::Ack)),
    )];
    rows.push((
        "alone: that, passed on before the stack",
        early_alone(stage, &packet::tcp(mac, client, Host.at(family, 22), Tcp::Ack)),
    ));
    for (generation, what, backend) in
        [(1, "alone: client to a backend here", PodA), (2, "alone: client to a backend elsewhere", RemotePod)]
    {
        let service_outside =
            Frontend { generation: 10 * generation + family as u32, protocol: TCP, ..Frontend::default() };
        service_outside.serve(&mut stage.maps, (ip(any), 30_080).into(), &[backend.at(family, 80)]);
        let sent = stage.receive(&packet::tcp(mac, client, service, Tcp::Syn));
        assert_eq!(sent.action, Action::Redirect);
        let forth = packet::tcp(mac, client, service, Tcp::Ack);
        rows.push((what, cost_alone(stage, &forth)));
        if backend == RemotePod {
            stage.meet(RemoteNode.ip(family), MAC);
            rows.extend(cost_early(stage, &forth).map(|cost| ("alone: the same, before the stack", cost)));
            let port = Seen::read(&sent.packet).source_port;
            let answer = packet::tcp(mac, backend.at(family, 80), Host.at(family, port), Tcp::Ack);
            assert_eq!(stage.receive(&answer).action, Action::Redirect);
            rows.push(("alone: its answer to the client", cost_alone(stage, &answer)));
            rows.extend(cost_early(stage, &answer).map(|cost| ("alone: that, before the stack", cost)));
        }
        // The next backend is for a client of its own.
        let known: Vec<_> = stage.maps.snat.entries().expect("the map can be read");
        known.iter().for_each(|(key, _)| stage.maps.snat.delete(key).expect("entries can be removed"));
    }
    rows
}

/// A rule that lets the measured packet through.
struct Case {
    what: &'static str,
    peer: u32,
    protocol: u8,
    port: u16,
    /// Bits of the port that count.
    bits: u32,
    /// Other ports of the same peer.
    beside: u16,
}

const CASE: Case = Case { what: "peer and port", peer: 1006, protocol: TCP, port: 80, bits: 16, beside: 0 };

const CASES: [Case; 8] = [
    CASE,
    Case { what: "peer and port range", port: 64, bits: 10, ..CASE },
    Case { what: "peer", protocol: 0, port: 0, bits: 0, ..CASE },
    Case { what: "peer, behind six of its ports", protocol: 0, port: 0, bits: 0, beside: 6, ..CASE },
    Case { what: "peer, with twenty of its ports", protocol: 0, port: 0, bits: 0, beside: 20, ..CASE },
    // Entries for any peer are repeated for each aggregate; it is the second look-up.
    Case { what: "port of any peer", peer: AGGREGATE_CLUSTER, ..CASE },
    Case {
        what: "any peer, behind six ports",
        peer: AGGREGATE_CLUSTER,
        protocol: 0,
        port: 0,
        bits: 0,
        beside: 6,
    },
    Case {
        what: "any peer, with twenty ports",
        peer: AGGREGATE_CLUSTER,
        protocol: 0,
        port: 0,
        bits: 0,
        beside: 20,
    },
];
const TCP: u8 = 6;
const SIZES: [u32; 4] = [10, 100, 1000, 10_000];
/// What policy may add to a packet, in nanoseconds.
const GOAL: i64 = 60;
/// How much of that may be for the number of entries.
const FLAT: i64 = 10;
const ROUNDS: usize = 31;
const PAIRS: usize = 25;
const PAIRED_SAMPLES: usize = 9;

fn rule(generation: u32, peer: u32, protocol: u8, port: u16, bits: u32) -> PolicyKey {
    let prefix_len = if protocol == 0 { PolicyKey::ANY_PROTOCOL } else { PolicyKey::ANY_PORT + bits };
    PolicyKey { prefix_len, generation, peer, direction: DIRECTION_EGRESS, protocol, port: NetPort(port) }
}

/// Fills a generation with rules about others, of all kinds, and those about the peer of which one lets the packet through.
fn fill(stage: &mut Stage, generation: u32, size: u32, case: &Case) {
    let others = (0..size - 1).map(|number| match number % 4 {
        0 => vec![rule(generation, 20_000 + number, 0, 0, 0)],
        1 => vec![rule(generation, 20_000 + number, TCP, 64, 10)],
        _ => vec![rule(generation, 20_000 + number, TCP, 80, 16)],
    });
    let beside = (0..case.beside).map(|port| rule(generation, case.peer, TCP, 1000 + port, 16));
    let own = beside.chain([rule(generation, case.peer, case.protocol, case.port, case.bits)]);
    let allow = PolicyEntry { cookie: 1, verdict: POLICY_ALLOW };
    for rules in others.chain([own.collect()]) {
        let said = PolicyRules::pack(rules.iter().map(|key| (key, &allow))).unwrap_or_else(|| {
            rules.iter().for_each(|key| stage.maps.policy.ports.set(key, &allow).expect("it fits"));
            PolicyRules::in_ports()
        });
        stage.maps.policy.peers.set(&PolicyPeer::of(&rules[0]), &said).expect("it fits");
    }
}

/// What the first packet of a connection costs without policy, and what it adds that the sender's is asked. Both in turn, as the machine
/// is slower at some times than at others.
fn added(stage: &mut Stage, generation: u32) -> (i64, i64) {
    let packet = packet::tcp(MAC, PodA.at(Family::V4, 1002), PodB.at(Family::V4, 80), Tcp::Syn);
    let mut pair = |_| {
        let [without, with] = [false, true].map(|enforced| {
            let slot = Slot { generation, egress_enforced: enforced, open: true, ..Slot::default() };
            stage.set_slot(PodA, slot);
            assert_eq!(stage.leave(PodA, &packet).action, Action::Redirect);
            i64::from(cost(stage, DeviceProgram::FromContainer, stage.link(PodA), &packet, PAIRED_SAMPLES))
        });
        (without, with - without)
    };
    let pairs: Vec<(i64, i64)> = (0..PAIRS).map(&mut pair).collect();
    (median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1)))
}

fn median(values: impl Iterator<Item = i64>) -> i64 {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// All sizes in turn, round by round: the machine's own slow and fast times are then those of every size.
fn rounds(stage: &mut Stage, generation: &mut u32, case: &Case) -> Vec<[(i64, i64); SIZES.len()]> {
    let mut round = |_| {
        SIZES.map(|size| {
            *generation += 1;
            fill(stage, *generation, size, case);
            let costs = added(stage, *generation);
            stage.maps.policy.retain_generations(|_| false).expect("entries can be removed");
            costs
        })
    };
    (0..ROUNDS).map(&mut round).collect()
}

/// A table of what policy adds, and whether all of it is within the goal.
fn policies() -> bool {
    let mut stage = Stage::new(Mode::Native);
    let (mut generation, mut met) = (100, true);
    println!(
        "\n| first packet, its rule is by | peers | without policy | policy adds | more than with {} |",
        SIZES[0]
    );
    println!("|---|---|---|---|---|");
    for case in CASES {
        let rounds = rounds(&mut stage, &mut generation, &case);
        for (at, size) in SIZES.into_iter().enumerate() {
            let without = median(rounds.iter().map(|round| round[at].0));
            let added = median(rounds.iter().map(|round| round[at].1));
            let more = median(rounds.iter().map(|round| round[at].1 - round[0].1));
            // Of what does not fit into a peer's entry, only that it is flat is demanded.
            let fits = usize::from(case.beside) < POLICY_RULES;
            let is_met = (added <= GOAL || !fits) && more <= FLAT;
            met &= is_met;
            let missed = if is_met { "" } else { " MISSED" };
            println!("| {} | {size} | {without} ns | {added} ns | {more} ns{missed} |", case.what);
        }
    }
    println!(
        "\nGoal: at most {GOAL} ns for up to {POLICY_RULES} rules about a peer, and at most {FLAT} ns for the number of peers."
    );
    met
}

fn main() -> ExitCode {
    for mode in [Mode::Native, Mode::Tunnel] {
        let mut stage = Stage::new(mode);
        for family in Family::ALL {
            let rows = local(&stage, family).into_iter().chain(remote(&stage, family));
            for (what, nanoseconds) in rows.chain(outside(&mut stage, family)) {
                println!("{mode:?} {family:?} {what}: {nanoseconds} ns");
            }
        }
        let stranger = packet::udp(stage.uplink.mac.0, World.at(Family::V4, 1), Host.at(Family::V4, 22), b"");
        let host = cost(&stage, DeviceProgram::FromNetdev, &stage.uplink, &stranger, SAMPLES);
        println!("{mode:?} for the node itself: {host} ns");
    }
    if policies() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
