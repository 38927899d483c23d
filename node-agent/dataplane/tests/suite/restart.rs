//! A new process finds what the old one left.

use cilium_api::parts::{PartKey, Parts};
use cilium_bpf::layout::{BlockKey, PolicyPeer, Slot};
use cilium_dataplane::{Dataplane, GRACE, Piece, PieceKey};

use crate::build::*;
use crate::kernel::Fake;

fn mk_parts() -> Parts {
    Parts::from([
        mk_node("n1", 1),
        mk_node("n2", 2),
        mk_endpoint(5, 300),
        mk_endpoint(6, 301),
        mk_endpoint(7, 300),
        mk_policy(300, vec![mk_allow(301, 6, 80, 80), mk_allow(0, 17, 53, 60)]),
        mk_address("10.244.2.7", 301, Some("n2")),
        mk_service("s", 1, &[("10.244.1.5", 80), ("fd00::5", 80)]),
        mk_service("empty", 2, &[]),
    ])
}

fn mk_running(parts: &Parts) -> Fake {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(true)), Fake::default());
    for id in [5, 6, 7] {
        dataplane.link(id, Some(mk_link(id)));
    }
    feed(&mut dataplane, &mut kernel, parts);
    dataplane.sweep(&mut kernel, GRACE);
    kernel
}

fn restart(kernel: &mut Fake) -> Dataplane {
    let mut dataplane = Dataplane::new(mk_config(true));
    dataplane.adopt(kernel, 0).expect("lists");
    for id in [5, 6, 7] {
        dataplane.link(id, Some(mk_link(id)));
    }
    dataplane
}

#[test]
fn equal_state_writes_nothing() {
    let parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let before = kernel.clone();
    let mut dataplane = restart(&mut kernel);
    feed(&mut dataplane, &mut kernel, &parts);
    assert!(!dataplane.sweep(&mut kernel, GRACE));
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(0));
    assert_eq!(kernel, before);
}

#[test]
fn what_changed_meanwhile_is_changed_and_nothing_else() {
    let mut parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let mut dataplane = restart(&mut kernel);
    parts.remove(&PartKey::endpoint("default", "pod-6"));
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 81, 81)])]);
    let highest = kernel.slots.values().map(|slot| slot.generation).max().expect("slots");
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.sweep(&mut kernel, GRACE);
    let mut fresh = Dataplane::new(mk_config(true));
    let mut other = Fake::default();
    for id in [5, 7] {
        fresh.link(id, Some(mk_link(id)));
    }
    feed(&mut fresh, &mut other, &parts);
    assert_eq!(kernel.seen(), other.seen());
    assert!(kernel.slots.values().any(|slot| slot.open && slot.generation >= highest));
}

#[test]
fn the_next_generation_survives_the_policy_it_was_used_for() {
    let mut parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let mut dataplane = restart(&mut kernel);
    let used = kernel.entries().map(|key| key.generation).max().expect("rules");
    parts.remove(&PartKey::policy(300));
    dataplane.update([&PartKey::policy(300)], &parts);
    dataplane.apply(&mut kernel, 0);
    dataplane.sweep(&mut kernel, GRACE);
    assert!(kernel.policy.is_empty());
    let mut dataplane = restart(&mut kernel);
    parts.extend([mk_policy(300, vec![mk_allow(9, 0, 0, 0)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert!(kernel.entries().all(|key| key.generation > used));
}

#[test]
fn maps_of_another_layout_are_filled_before_anything_else() {
    let parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let clean = kernel.seen();
    let enforced = |kernel: &Fake| {
        let slots = kernel.slots.values().filter(|slot| slot.ingress_enforced || slot.egress_enforced);
        slots.map(|slot| slot.generation).collect::<Vec<_>>()
    };
    let before = enforced(&kernel);
    assert!(!before.is_empty());
    // The loader has put empty ones in their place.
    kernel.policy.clear();
    let mut dataplane = restart(&mut kernel);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(kernel.seen(), clean);
    let after = enforced(&kernel);
    assert!(after.iter().all(|generation| before.iter().all(|old| old < generation)), "{before:?} {after:?}");
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(0));
}

#[test]
fn leftovers_of_a_process_killed_in_the_middle_go() {
    let parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let clean = kernel.seen();
    let mut half = kernel.entries().next().expect("rules");
    half.generation += 40;
    kernel.policy.insert(PieceKey::Port(half), Piece::Port(Default::default()));
    kernel.policy.insert(PieceKey::Peer(PolicyPeer::of(&half)), Piece::Peer(Default::default()));
    let block = BlockKey::new(half.generation + 1, half.direction, ip("10.0.0.0"), 8);
    kernel.policy.insert(PieceKey::Block(block), Piece::Block(Default::default()));
    kernel.slots.insert(99, Slot { generation: 1, open: true, ..Slot::default() });
    kernel.endpoints.insert(ip("10.244.1.99").into(), Default::default());
    let mut dataplane = restart(&mut kernel);
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.sweep(&mut kernel, GRACE);
    assert_eq!(kernel.seen(), clean);
}

#[test]
fn a_route_that_cannot_be_written_is_no_repair() {
    let parts = mk_parts();
    let mut kernel = mk_running(&parts);
    let mut dataplane = restart(&mut kernel);
    feed(&mut dataplane, &mut kernel, &parts);
    let route = *kernel.routes.keys().next().expect("there are routes");
    kernel.routes.remove(&route);
    kernel.refused = 1;
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(0));
    // It is tried again all the same.
    assert!(kernel.routes.contains_key(&route));
    kernel.refused = 0;
    kernel.routes.remove(&route);
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(1));
}
