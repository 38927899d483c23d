//! What user space is told.

use bpf_tests::packet::{self, Tcp};
use bpf_tests::stage::{Place::*, Rule, Stage};
use bpf_tests::{Family, Mode};
use cilium_bpf::layout::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, EVENT_DROP, EVENT_MASK_DROP, EVENT_MASK_VERDICT, EVENT_VERDICT,
    Event, METRIC_EVENT_SUPPRESSED, NetPort, metric_index,
};
use cilium_bpf::reason::DropReason;
use cilium_delta::Table;
use cilium_drivers::events::Events;

use crate::{ANY_MAC, TCP};

/// Lets programs send, does something, and gives what they sent.
fn told(stage: &mut Stage, mask: u32, act: impl FnOnce(&mut Stage)) -> Vec<Event> {
    stage.maps.event_mask.set(&0, &mask).unwrap();
    act(stage);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let mut events = Events::open(stage.bpffs()).unwrap();
    std::iter::from_fn(|| events.take()).collect()
}

fn syn(family: Family, port: u16) -> Vec<u8> {
    packet::tcp(ANY_MAC, PodA.at(family, 40_000), PodB.at(family, port), Tcp::Syn)
}

#[test]
fn a_denied_connection_is_a_verdict_and_a_drop() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodA, 9, None, Some(&[Rule(1006, TCP, None)]));
    stage.enforce(PodB, 10, Some(&[]), None);
    for family in Family::ALL {
        let packet = syn(family, 80);
        let events = told(&mut stage, EVENT_MASK_DROP | EVENT_MASK_VERDICT, |stage| {
            stage.leave(PodA, &packet);
        });
        let expected = |kind, reason, direction, endpoint, cookie| Event {
            time: 0,
            source: PodA.ip(family).into(),
            destination: PodB.ip(family).into(),
            source_port: NetPort(40_000),
            destination_port: NetPort(80),
            source_identity: 1005,
            destination_identity: 1006,
            ifindex: stage.link(PodA).index,
            length: packet.len() as u32,
            cookie,
            endpoint,
            kind,
            reason,
            direction,
            protocol: TCP,
            tcp_flags: 2,
        };
        let denied = DropReason::PolicyDenied.number();
        let wanted = [
            expected(EVENT_VERDICT, 0, DIRECTION_EGRESS, 5, 1007),
            expected(EVENT_VERDICT, denied, DIRECTION_INGRESS, 6, 0),
            expected(EVENT_DROP, denied, DIRECTION_INGRESS, 6, 0),
        ];
        assert!(events.is_sorted_by_key(|event| event.time) && events.iter().all(|event| event.time > 0));
        let timeless: Vec<Event> = events.into_iter().map(|event| Event { time: 0, ..event }).collect();
        assert_eq!(timeless, wanted);
    }
}

#[test]
fn a_drop_names_the_rule_that_denies() {
    let mut stage = Stage::new(Mode::Native);
    stage.deny(9, DIRECTION_INGRESS, &[Rule(1005, TCP, None)]);
    stage.enforce(PodB, 9, Some(&[Rule(0, 17, None)]), None);
    for family in Family::ALL {
        let events = told(&mut stage, EVENT_MASK_DROP | EVENT_MASK_VERDICT, |stage| {
            stage.leave(PodA, &syn(family, 80));
        });
        let denied = DropReason::PolicyDeny.number();
        let found: Vec<_> =
            events.iter().map(|it| (it.kind, it.reason, it.direction, it.endpoint, it.cookie)).collect();
        let wanted = [EVENT_VERDICT, EVENT_DROP].map(|kind| (kind, denied, DIRECTION_INGRESS, 6, 1006));
        assert_eq!(found, wanted);
    }
}

#[test]
fn established_packets_and_open_directions_tell_nothing() {
    let mut stage = Stage::new(Mode::Native);
    let events = told(&mut stage, EVENT_MASK_DROP | EVENT_MASK_VERDICT, |stage| {
        stage.leave(PodA, &syn(Family::V4, 80));
    });
    assert_eq!(events, [], "no policy, no verdict");
    stage.enforce(PodB, 10, Some(&[Rule(0, TCP, None)]), None);
    let events = told(&mut stage, EVENT_MASK_VERDICT, |stage| {
        for _ in 0..5 {
            let ack = packet::tcp(ANY_MAC, PodA.at(Family::V4, 40_000), PodB.at(Family::V4, 80), Tcp::Ack);
            stage.leave(PodA, &ack);
        }
    });
    assert_eq!(events.len(), 1, "judged once: {events:?}");
}

#[test]
fn nothing_is_sent_that_nobody_asked_for() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodB, 10, Some(&[]), None);
    for (mask, expected) in [(0, 0), (EVENT_MASK_DROP, 1), (EVENT_MASK_VERDICT, 1)] {
        let events = told(&mut stage, mask, |stage| {
            stage.leave(PodA, &syn(Family::V4, 80));
        });
        assert_eq!(events.len(), expected, "mask {mask}");
    }
}

#[test]
fn a_flood_is_cut_off_and_counted() {
    const PACKETS: u64 = 200;
    let mut stage = Stage::with_config(Mode::Native, |config| config.event_rate = 3);
    stage.enforce(PodB, 10, Some(&[]), None);
    let events = told(&mut stage, EVENT_MASK_DROP, |stage| {
        for _ in 0..PACKETS {
            stage.leave(PodA, &syn(Family::V4, 80));
        }
    });
    let index = metric_index(Some(DropReason::PolicyDenied), METRIC_EVENT_SUPPRESSED);
    let suppressed = stage.maps.metrics.totals().unwrap()[&index].packets;
    assert_eq!(events.len() as u64 + suppressed, PACKETS);
    assert!(events.len() >= 3);
}

#[test]
fn a_full_ring_loses_events_but_counts_them() {
    let mut stage = Stage::with_config(Mode::Native, |config| config.event_rate = u32::MAX);
    stage.enforce(PodB, 10, Some(&[]), None);
    let denied = syn(Family::V4, 80);
    let events = told(&mut stage, EVENT_MASK_DROP, |stage| {
        let program = cilium_drivers::datapath::DeviceProgram::FromContainer;
        stage.run(program, stage.link(PodA), &denied, 20_000);
    });
    let index = metric_index(Some(DropReason::PolicyDenied), cilium_bpf::layout::METRIC_EVENT_LOST);
    let lost = stage.maps.metrics.totals().unwrap()[&index].packets;
    assert!(lost > 0);
    assert_eq!(events.len() as u64 + lost, 20_000);
}

#[test]
fn icmp_is_told_by_type_and_id() {
    let mut stage = Stage::new(Mode::Native);
    stage.enforce(PodB, 10, Some(&[]), None);
    for family in Family::ALL {
        let ping = packet::echo(ANY_MAC, PodA.ip(family), PodB.ip(family), packet::Echo::Request, 77);
        let events = told(&mut stage, EVENT_MASK_DROP, |stage| {
            stage.leave(PodA, &ping);
        });
        let [event] = events[..] else { panic!("one event: {events:?}") };
        assert_eq!(
            (event.source_port, event.destination_port),
            (NetPort(77), NetPort(family.echo_request()))
        );
    }
}
