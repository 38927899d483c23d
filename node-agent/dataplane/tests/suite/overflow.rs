//! An ipcache without room: nobody may more than before.

use cilium_api::parts::{Direction, Part, PartKey, Parts, Policy};
use cilium_bpf::layout::{Addr, DIRECTION_INGRESS, POLICY_ALLOW, POLICY_DENY};
use cilium_dataplane::Dataplane;

use crate::build::*;
use crate::kernel::Fake;

const WORLD: u32 = 9;
const WIDE: u32 = 1 << 24;
const NARROW: u32 = (1 << 24) + 1;

/// Verdicts on a peer by the policy in force, whatever the ports.
fn verdicts(kernel: &Fake, peer: u32) -> Vec<u8> {
    let endpoint = kernel.endpoints[&Addr::from(ip("10.244.1.5"))];
    let generation = kernel.slots[&endpoint.slot].generation;
    let entries = kernel.rules().into_iter();
    let about = |(key, _): &(cilium_bpf::layout::PolicyKey, _)| {
        (key.generation, key.direction, key.peer) == (generation, DIRECTION_INGRESS, peer)
    };
    entries.filter(about).map(|(_, entry)| entry.verdict).collect()
}

fn mk_running(policy: (PartKey, Part)) -> (Dataplane, Fake, Parts) {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_node("n1", 1), mk_endpoint(5, 300), policy]);
    dataplane.link(5, Some(mk_link(5)));
    feed(&mut dataplane, &mut kernel, &parts);
    (dataplane, kernel, parts)
}

#[test]
fn a_prefix_is_closed_while_what_is_left_out_of_it_does_not_fit() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_policy(300, vec![mk_allow(WIDE, 6, 80, 80)]));
    parts.extend([mk_prefix("10.0.0.0/8", WIDE)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(verdicts(&kernel, WIDE), [POLICY_ALLOW]);

    kernel.ipcache_room = Some(kernel.ipcache.len());
    parts.extend([mk_prefix("10.1.0.0/16", NARROW)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(verdicts(&kernel, WIDE), [POLICY_DENY], "10.1.0.0/16 would be allowed with it");
    let failing: Vec<String> = dataplane.failures().into_iter().map(|failure| failure.object).collect();
    assert_eq!(failing, ["policy/300", "prefix/10.1.0.0/16"]);

    kernel.ipcache_room = None;
    assert_eq!(dataplane.check(&mut kernel, 0), Ok(0));
    assert_eq!(verdicts(&kernel, WIDE), [POLICY_ALLOW]);
    assert!(dataplane.failures().is_empty());
}

#[test]
fn the_order_in_which_they_come_does_not_matter() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_policy(300, vec![mk_allow(WIDE, 6, 80, 80)]));
    kernel.ipcache_room = Some(kernel.ipcache.len() + 1);
    parts.extend([mk_prefix("10.0.0.0/8", WIDE), mk_prefix("10.1.0.0/16", NARROW)]);
    feed(&mut dataplane, &mut kernel, &parts);
    let has_wide = kernel.ipcache.values().any(|entry| entry.identity == WIDE);
    assert_eq!(verdicts(&kernel, WIDE), [if has_wide { POLICY_DENY } else { POLICY_ALLOW }]);
}

#[test]
fn the_world_is_closed_while_a_denied_prefix_does_not_fit() {
    let mut policy = mk_policy(300, vec![mk_allow(WORLD, 0, 0, 0), mk_allow(13, 0, 0, 0)]);
    if let Part::Policy(policy) = &mut policy.1 {
        policy.ingress.deny = vec![mk_allow(NARROW, 6, 22, 22)];
    }
    let (mut dataplane, mut kernel, mut parts) = mk_running(policy);
    // Another policy does not tell the two apart, and stays as it is.
    parts
        .extend([mk_endpoint(6, 301), mk_policy(301, vec![mk_allow(WORLD, 0, 0, 0), mk_allow(13, 0, 0, 0)])]);
    dataplane.link(6, Some(mk_link(6)));
    feed(&mut dataplane, &mut kernel, &parts);
    let before = kernel.slots.clone();
    kernel.ipcache_room = Some(kernel.ipcache.len());
    parts.extend([mk_prefix("10.1.0.0/16", NARROW)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(verdicts(&kernel, WORLD), [POLICY_DENY]);
    let changed = kernel.slots.iter().filter(|(at, slot)| **at != 0 && before.get(at) != Some(slot)).count();
    assert_eq!(changed, 1);
    parts.remove(&PartKey::prefix("10.1.0.0/16"));
    dataplane.update([&PartKey::prefix("10.1.0.0/16")], &parts);
    dataplane.apply(&mut kernel, 0);
    assert_eq!(verdicts(&kernel, WORLD), [POLICY_ALLOW]);
}

#[test]
fn what_is_less_open_by_itself_needs_nothing() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_policy(
        300,
        vec![mk_allow(NARROW, 6, 80, 80), mk_allow(WORLD, 6, 443, 443), mk_allow(NARROW, 6, 443, 443)],
    ));
    let before = kernel.slots.clone();
    kernel.ipcache_room = Some(kernel.ipcache.len());
    parts.extend([mk_prefix("10.1.0.0/16", NARROW)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!((verdicts(&kernel, WORLD), &kernel.slots), (vec![POLICY_ALLOW], &before));
}

#[test]
fn a_policy_that_comes_later_is_closed_from_the_start() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_policy(300, vec![]));
    kernel.ipcache_room = Some(kernel.ipcache.len());
    parts.extend([mk_prefix("10.1.0.0/16", NARROW)]);
    feed(&mut dataplane, &mut kernel, &parts);
    let deny = vec![mk_allow(NARROW, 0, 0, 0)];
    let ingress = Direction { deny, ..Direction::default() };
    let policy = Policy { ingress, origins: vec!["cnp/default/rule1".into()], ..Policy::default() };
    parts.extend([(PartKey::policy(300), Part::Policy(Box::new(policy)))]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(verdicts(&kernel, WORLD), [POLICY_DENY], "although nothing else is denied");
}
