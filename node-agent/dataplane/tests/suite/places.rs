//! Generations of which only one may exist at a time, as their aggregates share a place.

use cilium_api::parts::{Part, PartKey, Parts};
use cilium_bpf::layout::{Addr, PolicyPeer, PolicyRules, Slot};
use cilium_dataplane::{Dataplane, GRACE, Piece, PieceKey};

use crate::build::*;
use crate::kernel::Fake;

fn mk_running(next: u32) -> (Dataplane, Fake, Parts) {
    let mut kernel = Fake::default();
    kernel.slots.insert(0, Slot { generation: next, ..Slot::default() });
    let mut dataplane = Dataplane::new(mk_config(false));
    dataplane.adopt(&mut kernel, 0).expect("lists");
    let parts = Parts::from([mk_endpoint(5, 300), mk_web(300, 80)]);
    dataplane.link(5, Some(mk_link(5)));
    feed(&mut dataplane, &mut kernel, &parts);
    (dataplane, kernel, parts)
}

fn mk_web(identity: u32, port: u16) -> (PartKey, Part) {
    mk_policy(identity, vec![mk_allow(301, 6, port, port)])
}

fn generation(kernel: &Fake, address: &str) -> u32 {
    let endpoint = kernel.endpoints[&Addr::from(ip(address))];
    kernel.slots[&endpoint.slot].generation
}

/// A process that finds what is in force, and its next number at another one.
fn restart_at(next: u32, kernel: &mut Fake, parts: &Parts) -> Dataplane {
    kernel.slots.insert(0, Slot { generation: next, ..Slot::default() });
    let mut dataplane = Dataplane::new(mk_config(false));
    dataplane.adopt(kernel, 0).expect("lists");
    dataplane.link(5, Some(mk_link(5)));
    dataplane.link(6, Some(mk_link(6)));
    feed(&mut dataplane, kernel, parts);
    dataplane
}

#[test]
fn a_number_whose_place_is_taken_is_passed_over() {
    let (_, mut kernel, mut parts) = mk_running(100);
    assert_eq!(generation(&kernel, "10.244.1.5"), 100);
    parts.extend([mk_endpoint(6, 302), mk_web(302, 81)]);
    let mut dataplane = restart_at(100 + 2 * 8192, &mut kernel, &parts);
    assert_eq!(generation(&kernel, "10.244.1.5"), 100);
    assert_eq!(generation(&kernel, "10.244.1.6"), 101 + 2 * 8192);

    // The place is free again when what stood there is gone, and not when it is not in force any more.
    parts.extend([mk_web(300, 82)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(generation(&kernel, "10.244.1.5"), 102 + 2 * 8192);
    parts.extend([mk_web(300, 83)]);
    let mut dataplane = restart_at(100 + 3 * 8192, &mut kernel, &parts);
    assert_eq!(generation(&kernel, "10.244.1.5"), 101 + 3 * 8192 + 2, "three places are not free");
    dataplane.sweep(&mut kernel, GRACE);
    parts.extend([mk_web(300, 84)]);
    restart_at(100 + 4 * 8192, &mut kernel, &parts);
    assert_eq!(generation(&kernel, "10.244.1.5"), 100 + 4 * 8192);
}

#[test]
fn without_a_free_place_the_policy_in_force_stays_and_is_named() {
    let (_, mut kernel, mut parts) = mk_running(100);
    kernel.sabotaged = true;
    for left in 101..8192 + 100 {
        let peer = PolicyPeer { generation: left, peer: 301, direction: 1 };
        kernel.policy.insert(PieceKey::Peer(peer), Piece::Peer(PolicyRules::in_ports()));
    }
    parts.extend([mk_web(300, 81)]);
    let mut dataplane = restart_at(9000, &mut kernel, &parts);
    assert_eq!(generation(&kernel, "10.244.1.5"), 100);
    let failures = dataplane.failures();
    assert_eq!((failures.len(), failures[0].object.as_str()), (1, "policy/300"));
    assert_eq!(
        failures[0].message,
        "all 8192 generations that may exist at a time do; what was in force before stays"
    );
    dataplane.sweep(&mut kernel, GRACE);
    assert_eq!(dataplane.check(&mut kernel, GRACE), Ok(0));
    assert!(dataplane.failures().is_empty());
    assert_eq!(generation(&kernel, "10.244.1.5"), 9000);
}
