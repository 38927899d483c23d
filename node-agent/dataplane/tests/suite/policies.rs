//! How policies are put in force.

use cilium_api::parts::{Direction, Entry, Part, PartKey, Parts, Policy};
use cilium_bpf::layout::Slot;
use cilium_dataplane::{Dataplane, GRACE, compile, cookie, origins_of};

use crate::build::*;
use crate::kernel::Fake;

fn mk_connected(id: u16, identity: u32) -> (Dataplane, Fake, Parts) {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_endpoint(id, identity)]);
    dataplane.link(id, Some(mk_link(id)));
    feed(&mut dataplane, &mut kernel, &parts);
    (dataplane, kernel, parts)
}

fn slot(kernel: &Fake) -> Slot {
    let index = kernel.endpoints.values().next().expect("an endpoint").slot;
    kernel.slots[&index]
}

#[test]
fn without_policy_a_slot_is_open_and_enforces_nothing() {
    let (_, kernel, _) = mk_connected(5, 300);
    assert_eq!(slot(&kernel), Slot { generation: 1, open: true, ..Slot::default() });
    assert!(kernel.policy.is_empty());
}

#[test]
fn a_pod_that_gets_another_identity_is_judged_anew() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    let before = slot(&kernel);
    parts.extend([mk_endpoint(5, 301)]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_ne!(slot(&kernel).generation, before.generation, "no policy selects either of them");
    assert_eq!(kernel.slots.values().filter(|slot| slot.open).count(), 1);
}

#[test]
fn every_change_is_a_new_generation_and_the_old_one_goes_later() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let first = slot(&kernel);
    assert!(first.ingress_enforced && !first.egress_enforced && first.generation > 1);
    parts.extend([mk_policy(300, vec![mk_allow(302, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let second = slot(&kernel);
    assert!(second.generation > first.generation);
    assert_eq!(kernel.policy.len(), 2);
    assert!(dataplane.has_retired());
    dataplane.sweep(&mut kernel, GRACE);
    assert_eq!(
        kernel.entries().map(|key| (key.generation, key.peer)).collect::<Vec<_>>(),
        [(second.generation, 302)]
    );
    parts.remove(&PartKey::policy(300));
    dataplane.update([&PartKey::policy(300)], &parts);
    dataplane.apply(&mut kernel, GRACE);
    dataplane.sweep(&mut kernel, 2 * GRACE);
    let third = slot(&kernel);
    assert!(third.generation > second.generation && kernel.policy.is_empty());
    parts.extend([mk_policy(300, vec![])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert!(slot(&kernel).generation > third.generation, "numbers are not used twice");
}

/// Two pods of two identities, of which each has a policy.
fn mk_two(policies: [(PartKey, Part); 2]) -> (Dataplane, Fake, Parts) {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let mut parts = Parts::from([mk_endpoint(5, 300), mk_endpoint(6, 301)]);
    parts.extend(policies);
    for id in [5, 6] {
        dataplane.link(id, Some(mk_link(id)));
    }
    feed(&mut dataplane, &mut kernel, &parts);
    (dataplane, kernel, parts)
}

/// The generations of all open slots.
fn generations(kernel: &Fake) -> Vec<u32> {
    let mut all: Vec<u32> = kernel.slots.values().filter(|it| it.open).map(|it| it.generation).collect();
    all.sort_unstable();
    all
}

#[test]
fn identities_of_equal_policy_share_one_generation() {
    let web = || vec![mk_allow(302, 6, 80, 80)];
    let (mut dataplane, mut kernel, mut parts) = mk_two([mk_policy(300, web()), mk_policy(301, web())]);
    let shared = generations(&kernel);
    assert_eq!((shared[0], shared.len(), kernel.policy.len()), (shared[1], 2, 1));
    assert_eq!(dataplane.identities_of(shared[0]), [300, 301]);

    parts.extend([mk_policy(301, vec![mk_allow(303, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.sweep(&mut kernel, GRACE);
    assert_eq!(
        (generations(&kernel)[0], kernel.policy.len()),
        (shared[0], 2),
        "the other one keeps what it had"
    );

    parts.extend([mk_policy(301, web())]);
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.sweep(&mut kernel, GRACE);
    assert_eq!((generations(&kernel), kernel.policy.len()), (shared.clone(), 1), "and may be joined again");

    let mut restarted = Dataplane::new(mk_config(false));
    restarted.adopt(&mut kernel, GRACE).expect("lists");
    for id in [5, 6] {
        restarted.link(id, Some(mk_link(id)));
    }
    feed(&mut restarted, &mut kernel, &parts);
    restarted.sweep(&mut kernel, 3 * GRACE);
    assert_eq!((generations(&kernel), kernel.policy.len()), (shared.clone(), 1), "a restart changes nothing");

    let gone = [PartKey::endpoint("default", "pod-5"), PartKey::policy(300)];
    gone.iter().for_each(|key| drop(parts.remove(key)));
    restarted.update(&gone, &parts);
    restarted.apply(&mut kernel, 3 * GRACE);
    restarted.sweep(&mut kernel, 5 * GRACE);
    assert_eq!(
        (generations(&kernel), kernel.policy.len()),
        (vec![shared[0]], 1),
        "the last one keeps the entries"
    );
}

#[test]
fn a_pod_that_changes_to_an_identity_of_equal_policy_is_judged_anew() {
    let web = || vec![mk_allow(302, 6, 80, 80)];
    let (mut dataplane, mut kernel, mut parts) = mk_two([mk_policy(300, web()), mk_policy(301, web())]);
    let before = generations(&kernel);
    parts.extend([mk_endpoint(5, 301)]);
    feed(&mut dataplane, &mut kernel, &parts);
    let after = generations(&kernel);
    assert!(after.len() == 1 && after[0] > before[1], "{before:?} {after:?}");
}

#[test]
fn what_all_share_is_renewed_for_all() {
    let web = || vec![mk_allow(9, 6, 80, 80)];
    let (mut dataplane, mut kernel, mut parts) = mk_two([mk_policy(300, web()), mk_policy(301, web())]);
    let before = generations(&kernel);
    parts.extend([mk_prefix("10.1.0.0/16", (1 << 24) + 1)]);
    feed(&mut dataplane, &mut kernel, &parts);
    dataplane.sweep(&mut kernel, GRACE);
    let after = generations(&kernel);
    assert!(after[0] == after[1] && after[0] > before[0], "{before:?} {after:?}");
    assert_eq!(kernel.policy.len(), 1);
}

#[test]
fn an_equal_policy_changes_nothing() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let writes = kernel.writes;
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(kernel.writes, writes);
}

#[test]
fn a_policy_that_does_not_fit_leaves_the_old_one_and_is_named() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let before = (slot(&kernel), kernel.policy.clone());
    kernel.room = Some(2);
    parts.extend([mk_policy(300, vec![mk_allow(302, 6, 80, 80), mk_allow(303, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!((slot(&kernel), kernel.policy.clone()), before);
    let failures = dataplane.failures();
    assert_eq!(failures[0].object, "policy/300");
    assert_eq!(
        failures[0].message,
        "its 2 entries cannot all be written; what was in force before stays: no room left in policy"
    );
    kernel.room = None;
    dataplane.apply(&mut kernel, 0);
    assert!(!dataplane.failures().is_empty(), "tried again only by the check, not with every change");
    assert_eq!(dataplane.check(&mut kernel, 0), Ok(0));
    assert!(dataplane.failures().is_empty());
    assert!(slot(&kernel).generation > before.0.generation);
}

#[test]
fn a_new_identity_whose_policy_does_not_fit_stays_closed() {
    let (mut dataplane, mut kernel) =
        (Dataplane::new(mk_config(false)), Fake { room: Some(0), ..Fake::default() });
    dataplane.link(5, Some(mk_link(5)));
    let parts = Parts::from([mk_endpoint(5, 300), mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let index = kernel.endpoints.values().next().expect("an endpoint").slot;
    assert!(!kernel.slots.get(&index).copied().unwrap_or_default().open);
    assert_eq!(dataplane.ready(5), Err(cilium_dataplane::Unready::Policy));
}

#[test]
fn entries_that_do_not_read_back_are_not_put_in_force() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    kernel.forgetful = true;
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(slot(&kernel).generation, 1);
    assert!(dataplane.failures()[0].message.starts_with("an entry reads back differently"));
}

#[test]
fn an_emptied_map_is_repaired_in_place() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    parts.extend([
        mk_policy(300, vec![mk_allow(301, 6, 80, 80), mk_allow(302, 0, 0, 0)]),
        mk_service("s", 1, &[("10.244.1.5", 80)]),
        mk_address("10.244.2.7", 301, Some("n2")),
    ]);
    feed(&mut dataplane, &mut kernel, &parts);
    let (good, seen) = (slot(&kernel), kernel.seen());
    kernel.sabotaged = true;
    kernel.policy.clear();
    kernel.behind.clear();
    assert_eq!(dataplane.check(&mut kernel, 0), Ok(3));
    assert_eq!((slot(&kernel), kernel.seen()), (good, seen));
    kernel.slots.insert(good.generation as u16 + 77, Slot { generation: 9, open: true, ..Slot::default() });
    for slot in kernel.slots.values_mut() {
        slot.ingress_enforced = false;
    }
    kernel.ipcache.clear();
    kernel.endpoints.clear();
    assert_eq!(dataplane.check(&mut kernel, 0), Ok(5));
    assert_eq!(slot(&kernel), good);
    assert_eq!(dataplane.check(&mut kernel, 0), Ok(0));
}

#[test]
fn rules_have_the_length_of_what_they_say() {
    // By another policy: of the same one, the entries for any peer say all.
    let of_other = |entry| Entry { origins: vec![1], ..entry };
    let narrow = [mk_allow(7, 17, 0, 0), mk_allow(7, 6, 8080, 8083), mk_allow(7, 6, 80, 80)].map(of_other);
    let allow = [mk_allow(0, 0, 0, 0)].into_iter().chain(narrow).collect();
    let (_, Part::Policy(policy)) = mk_policy(300, allow) else { panic!("a policy") };
    let keys: Vec<_> = compile(&policy)
        .expect("compiles")
        .rules
        .iter()
        .map(|(rule, _)| rule.key(5))
        .map(|key| (key.peer, key.protocol, key.port.0, key.prefix_len))
        .collect();
    let of_peer = [(7, 6, 80, 96), (7, 6, 8080, 94), (7, 17, 0, 80)];
    // What is said of any peer is said of each aggregate, too.
    let of_any = [0, 11, 13, 14].map(|peer| (peer, 0, 0, 72));
    assert_eq!(keys, [&of_any[..1], &of_peer, &of_any[1..]].concat());
}

#[test]
fn a_cookie_leads_back_to_the_policies() {
    let mut twice = mk_allow(7, 6, 80, 80);
    twice.origins = vec![1];
    let allow = vec![mk_allow(7, 6, 80, 80), twice, mk_allow(8, 0, 0, 0)];
    let ingress = Direction { enforced: true, allow, ..Direction::default() };
    let origins = vec!["ccnp/all".to_owned(), "cnp/default/rule1".to_owned()];
    let policy = Policy { ingress, origins, ..Policy::default() };
    let cookies: Vec<u32> = compile(&policy).expect("compiles").rules.iter().map(|(_, e)| e.cookie).collect();
    assert_eq!(origins_of(&policy, cookies[0]), ["ccnp/all", "cnp/default/rule1"]);
    assert_eq!(origins_of(&policy, cookies[1]), ["ccnp/all"]);
    assert_eq!(origins_of(&policy, 1), Vec::<&str>::new());
    assert_ne!(cookie(std::iter::empty()), 0);
}

#[test]
fn an_invalid_range_is_refused_and_the_old_policy_stays() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let before = slot(&kernel);
    parts.extend([mk_policy(300, vec![mk_allow(301, 6, 90, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(slot(&kernel), before);
    assert!(dataplane.failures()[0].message.starts_with("ports 90 to 80 are no range"));
}

#[test]
fn another_identity_of_a_prefix_makes_new_generations() {
    let (mut dataplane, mut kernel, mut parts) = mk_connected(5, 300);
    let open = slot(&kernel);
    let change = |dataplane: &mut Dataplane, kernel: &mut Fake, parts: &Parts, key: &str| {
        dataplane.update([&PartKey::prefix(key)], parts);
        dataplane.apply(kernel, 0);
        slot(kernel)
    };
    parts.extend([mk_prefix("10.0.0.0/8", 1 << 24)]);
    assert_eq!(change(&mut dataplane, &mut kernel, &parts, "10.0.0.0/8"), open, "nothing was judged");

    parts.extend([mk_policy(300, vec![mk_allow(9, 6, 80, 80)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let mut last = slot(&kernel).generation;
    let mut is_newer = |slot: Slot| std::mem::replace(&mut last, slot.generation) < slot.generation;
    for prefix in ["10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "2001:db8::1/128"] {
        parts.extend([mk_prefix(prefix, (1 << 24) + 1)]);
        assert!(is_newer(change(&mut dataplane, &mut kernel, &parts, prefix)), "{prefix} came");
        assert!(!is_newer(change(&mut dataplane, &mut kernel, &parts, prefix)), "{prefix} stays");
        parts.extend([mk_prefix(prefix, (1 << 24) + 2)]);
        assert!(
            is_newer(change(&mut dataplane, &mut kernel, &parts, prefix)),
            "{prefix} has another identity"
        );
        parts.remove(&PartKey::prefix(prefix));
        assert!(is_newer(change(&mut dataplane, &mut kernel, &parts, prefix)), "{prefix} is gone");
    }
    assert!(dataplane.take_reassigned().is_empty(), "no connection has to be forgotten for that");
    let before = last;
    kernel.ipcache.clear();
    let mut restarted = Dataplane::new(mk_config(false));
    restarted.adopt(&mut kernel, 0).expect("lists");
    restarted.link(5, Some(mk_link(5)));
    feed(&mut restarted, &mut kernel, &parts);
    assert!(slot(&kernel).generation > before, "what changed while no agent ran");
}
