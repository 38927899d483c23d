//! The programs decide as the oracle does: random policies, compiled as the agent compiles them, against random flows.

use std::collections::BTreeMap;

use bpf_tests::packet::{self, Echo, Tcp};
use bpf_tests::stage::{Action, Place, Place::*, Stage};
use bpf_tests::{Family, Mode};
use cilium_api::parts::{Direction, Entry, Policy};
use cilium_bpf::layout::{DIRECTION_EGRESS, DIRECTION_INGRESS};
use cilium_delta::Table;
use cilium_policy::verdict::{Flow, Judgement, Side, verdict};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::{ANY_MAC, DENIED, DENIED_BY_RULE, TCP, UDP};

const PORTS: [u16; 6] = [1, 53, 80, 443, 8080, 65_535];

fn any_entry() -> impl Strategy<Value = Entry> {
    let peer = select(vec![0, 1, 6, 9, 10, 11, 13, 14, 1005, 1006, 1007, 77]);
    (peer, select(vec![0u8, 1, 6, 17, 58]), select(PORTS.to_vec()), select(PORTS.to_vec()), any::<bool>())
        .prop_map(|(peer, protocol, one, other, any_port)| {
            let (first, last) = match protocol {
                0 => (0, 0),
                _ if any_port => (0, 0),
                // Echo requests, and something else.
                1 if one < 100 => (8, 8),
                58 if one < 100 => (128, 128),
                1 | 58 => (3, 3),
                _ => (one.min(other), one.max(other)),
            };
            Entry { peer, protocol, first, last, origins: Vec::new() }
        })
}

fn any_direction() -> impl Strategy<Value = Direction> {
    let lists = (prop::collection::vec(any_entry(), 0..6), prop::collection::vec(any_entry(), 0..3));
    (any::<bool>(), lists).prop_map(|(enforced, (allow, deny))| Direction {
        enforced,
        allow: if enforced { allow } else { Vec::new() },
        deny,
        ..Direction::default()
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any_direction(), any_direction()).prop_map(|(ingress, egress)| Policy {
        ingress,
        egress,
        origins: Vec::new(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    from: Place,
    to: Place,
    family: Family,
    protocol: u8,
    port: u16,
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let outside = select(vec![Host, RemotePod, RemoteNode, World]);
    let ends = prop_oneof![
        Just((PodA, PodB)),
        Just((PodB, PodA)),
        outside.clone().prop_map(|place| (PodA, place)),
        outside.prop_map(|place| (place, PodA)),
    ];
    (ends, select(Family::ALL.to_vec()), select(vec![TCP, UDP, 0]), select(PORTS.to_vec())).prop_map(
        |((from, to), family, protocol, port)| {
            let protocol = if protocol == 0 { family.icmp() } else { protocol };
            Attempt { from, to, family, protocol, port }
        },
    )
}

impl Attempt {
    fn flow(&self) -> Flow {
        Flow {
            source: self.from.identity(self.family),
            destination: self.to.identity(self.family),
            protocol: self.protocol,
            destination_port: if [TCP, UDP].contains(&self.protocol) {
                self.port
            } else {
                self.family.echo_request()
            },
        }
    }

    fn packet(&self, mac: [u8; 6], number: u16) -> Vec<u8> {
        let (from, to) = (self.from.at(self.family, number), self.to.at(self.family, self.port));
        match self.protocol {
            TCP => packet::tcp(mac, from, to, Tcp::Syn),
            UDP => packet::udp(mac, from, to, b""),
            _ => packet::echo(mac, from.ip(), to.ip(), Echo::Request, number),
        }
    }

    /// Runs the program that sees the flow first; the side that denies it, and why, if one does.
    fn judged(&self, stage: &Stage, number: u16) -> Option<(Side, Why)> {
        let outcome = match self.from {
            PodA | PodB => stage.leave(self.from, &self.packet(ANY_MAC, number)),
            Host => stage.enter(self.to, &self.packet(ANY_MAC, number)),
            _ => stage.receive(&self.packet(stage.uplink.mac.0, number)),
        };
        match (outcome.action, outcome.direction) {
            (DENIED, DIRECTION_EGRESS) => Some((Side::Egress, Why::Default)),
            (DENIED, DIRECTION_INGRESS) => Some((Side::Ingress, Why::Default)),
            (DENIED_BY_RULE, DIRECTION_EGRESS) => Some((Side::Egress, Why::Rule)),
            (DENIED_BY_RULE, DIRECTION_INGRESS) => Some((Side::Ingress, Why::Rule)),
            (Action::Pass | Action::Redirect, _) => None,
            other => panic!("{self:?}: {other:?}"),
        }
    }
}

/// What denied a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Default,
    Rule,
}

/// What the oracle says.
fn expected(policies: &BTreeMap<u32, Policy>, flow: &Flow) -> Option<(Side, Why)> {
    let verdict = verdict(policies, flow);
    let side = verdict.denied_by()?;
    let judgement = if side == Side::Egress { verdict.egress } else { verdict.ingress };
    Some((side, if matches!(judgement, Judgement::DefaultDeny(_)) { Why::Default } else { Why::Rule }))
}

fn install(stage: &mut Stage, pod: Place, generation: u32, policy: &Policy) {
    let compiled = cilium_dataplane::compile(policy).unwrap();
    for (rule, entry) in &compiled.rules {
        stage.maps.policy.set(&rule.key(generation), entry).unwrap();
    }
    stage.set_slot(pod, compiled.slot(generation));
}

#[test]
fn programs_and_oracle_agree() {
    let mut stage = Stage::new(Mode::Native);
    let (mut generation, mut number) = (100, 20_000);
    let mut denied = [0, 0];
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let strategy = (any_policy(), any_policy(), prop::collection::vec(any_attempt(), 1..20));
    // The runner wants a closure that changes nothing; the stage is no part of what it shrinks.
    let state = std::cell::RefCell::new((&mut stage, &mut generation, &mut number, &mut denied));
    let result = runner.run(&strategy, |(a, b, attempts)| {
        let (stage, generation, number, denied) = &mut *state.borrow_mut();
        **generation += 2;
        install(stage, PodA, **generation, &a);
        install(stage, PodB, **generation + 1, &b);
        let policies = BTreeMap::from([(1005, a), (1006, b)]);
        for attempt in attempts {
            **number = if **number == 60_000 { 20_000 } else { **number + 1 };
            let judged = attempt.judged(stage, **number);
            prop_assert_eq!(judged, expected(&policies, &attempt.flow()), "{:?}", attempt);
            denied[usize::from(judged.is_some())] += 1;
        }
        Ok(())
    });
    result.unwrap();
    assert!(denied.iter().all(|count| *count > 100), "passed and denied: {denied:?}");
}
