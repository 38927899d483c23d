//! What happens to one address when one thing happens.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cilium_announcer::Standing;

use crate::sim::{MS, World, name_of};

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn plan(owners: &[&[usize]]) -> BTreeMap<IpAddr, Vec<usize>> {
    let numbered = owners.iter().zip(1..);
    numbered.map(|(owners, last)| (address(last), owners.to_vec())).collect()
}

/// Three nodes, of which each is the first owner of one address, and all is settled.
fn mk_world() -> World {
    let mut world = World::new(3, &plan(&[&[0, 1, 2], &[1, 2, 0], &[2, 0, 1]]));
    world.run(3000);
    for node in 0..3 {
        assert_eq!(who(&world, u8::try_from(node).unwrap() + 1), [node]);
    }
    world
}

/// Who answers, on a network that is whole.
fn who(world: &World, last: u8) -> Vec<usize> {
    world.answering(address(last)).into_values().flatten().collect()
}

/// Milliseconds until somebody else than `before` answers; at no time do two.
fn until_moved(world: &mut World, last: u8, before: usize) -> u64 {
    let begin = world.now;
    let mut moved = None;
    world.run_watched(3000, |world| {
        let now = who(world, last);
        assert!(now.len() < 2, "{now:?} at {}", (world.now - begin) / MS);
        if moved.is_none() && !now.is_empty() && now != [before] {
            moved = Some((world.now - begin) / MS);
        }
    });
    moved.expect("it moves")
}

#[test]
fn a_dead_owner_is_followed_by_the_next_within_700_ms() {
    for phase in 0..20 {
        let mut world = mk_world();
        world.run(phase * 7);
        world.power_off(0);
        assert!(until_moved(&mut world, 1, 0) <= 700);
        assert_eq!(who(&world, 1), [1], "the next in order");
        assert_eq!((who(&world, 2), who(&world, 3)), (vec![1], vec![2]), "others stay where they are");
    }
}

#[test]
fn an_owner_that_comes_back_has_its_addresses_again_and_never_are_there_two() {
    let mut world = mk_world();
    world.power_off(0);
    world.run(3000);
    world.power_on(0);
    assert!(until_moved(&mut world, 1, 1) >= 250);
    assert_eq!(who(&world, 1), [0]);
}

#[test]
fn the_last_of_all_has_everything() {
    let mut world = mk_world();
    world.power_off(0);
    world.run(3000);
    world.power_off(1);
    let moved = until_moved(&mut world, 1, 1);
    assert!(moved <= 800, "{moved}");
    assert_eq!([1, 2, 3].map(|last| who(&world, last)), [[2], [2], [2]]);
    world.power_on(1);
    let mut gap = 0;
    world.run_watched(3000, |world| {
        assert!(who(world, 3).len() < 2);
        gap += u64::from(who(world, 3).is_empty());
    });
    assert_eq!(gap, 0, "who comes back answers for nothing yet, so nobody has to stop");
    assert_eq!([1, 2, 3].map(|last| who(&world, last)), [[1], [1], [2]]);
}

#[test]
fn a_network_that_was_gone_as_a_whole_is_served_at_once_when_it_is_back() {
    let mut world = mk_world();
    (1..3).for_each(|node| world.move_to(node, u32::try_from(node).unwrap()));
    world.run(10_000);
    assert_eq!(who(&world, 1), [0; 0], "each takes itself for cut off");
    (1..3).for_each(|node| world.move_to(node, 0));
    world.run(400);
    assert_eq!([1, 2, 3].map(|last| who(&world, last)), [[0], [1], [2]]);
}

#[test]
fn agents_that_restart_change_nothing() {
    let mut world = mk_world();
    world.stop_agent(0);
    let mut check = |world: &World| {
        assert_eq!([1, 2, 3].map(|last| who(world, last)), [[0], [1], [2]]);
    };
    world.run_watched(20_000, &mut check);
    world.start_agent(0);
    world.run_watched(3000, &mut check);
    (0..3).for_each(|node| world.stop_agent(node));
    world.run_watched(60_000, &mut check);
    (0..3).for_each(|node| world.start_agent(node));
    world.run_watched(3000, check);
}

#[test]
fn a_node_whose_agent_does_not_come_back_gives_its_addresses_away() {
    let mut world = mk_world();
    world.stop_agent(0);
    world.run(29_000);
    assert_eq!(who(&world, 1), [0]);
    assert!(until_moved(&mut world, 1, 0) > 1000);
    assert_eq!(who(&world, 1), [1]);
    world.start_agent(0);
    assert!(until_moved(&mut world, 1, 1) >= 250);
    assert_eq!(who(&world, 1), [0]);
}

#[test]
fn a_node_that_is_cut_off_stops_before_the_next_one_starts() {
    let mut world = mk_world();
    world.move_to(0, 1);
    let begin = world.now;
    let mut stopped = None;
    let mut started = None;
    world.run_watched(3000, |world| {
        let ms = (world.now - begin) / MS;
        let answering = world.answering(address(1));
        if !answering.contains_key(&1) {
            stopped.get_or_insert(ms);
        }
        if answering.contains_key(&0) {
            started.get_or_insert(ms);
        }
    });
    let (stopped, started) = (stopped.unwrap(), started.unwrap());
    assert!(stopped < started, "{stopped} {started}");
    assert_eq!(world.answering(address(1)), [(0, vec![1])].into(), "who lost all at once is silent");
    world.run(30_000);
    assert_eq!(world.answering(address(1)), [(0, vec![1]), (1, vec![0])].into(), "but not for ever");
}

#[test]
fn after_a_cut_the_same_owner_has_the_address_again() {
    let mut world = mk_world();
    world.move_to(0, 1);
    world.run(3000);
    world.move_to(0, 0);
    let begin = world.now;
    world.run_watched(4000, |world| {
        let (ms, now) = ((world.now - begin) / MS, who(world, 1));
        assert!(now.len() < 2 || ms < 220, "{now:?} after {ms}");
    });
    assert_eq!([1, 2, 3].map(|last| who(&world, last)), [[0], [1], [2]]);
}

#[test]
fn an_agent_that_was_held_up_does_not_take_the_others_for_dead() {
    let mut world = mk_world();
    let mut check = |world: &World| {
        assert_eq!([1, 2, 3].map(|last| who(world, last)), [[0], [1], [2]]);
    };
    for node in 0..3 {
        world.stall(node, 900);
        world.run_watched(2000, &mut check);
    }
    world.stall(1, 700);
    world.stall(2, 900);
    world.run_watched(3000, check);
}

#[test]
fn a_plan_with_another_order_moves_an_address_without_two_that_answer() {
    let mut world = mk_world();
    let changed = plan(&[&[1, 0, 2], &[1, 2, 0], &[2, 0, 1]]);
    world.plan(1, &changed);
    world.run_watched(400, |world| assert_eq!(who(world, 1), [0], "the other does not know yet"));
    world.plan(0, &changed);
    world.plan(2, &changed);
    let moved = until_moved(&mut world, 1, 0);
    assert!(moved < 200, "{moved}");
}

#[test]
fn an_address_with_one_owner_needs_nobody() {
    let mut world = World::new(2, &plan(&[&[0]]));
    world.run(300);
    assert_eq!(who(&world, 1), [0]);
    assert_eq!(world.agent(1).addresses().count(), 0);
    assert!(world.is_willing(0));
}

#[test]
fn an_address_that_a_stranger_has_is_left_alone_until_it_is_free() {
    let mut world = World::new(1, &plan(&[&[0]]));
    for _ in 0..100 {
        world.claim_as_stranger(0, address(1));
        world.run_watched(50, |world| assert!(who(world, 1).is_empty()));
    }
    let state = world.agent(0).state(address(1)).unwrap();
    assert_eq!((state.standing, state.claimant), (Standing::Probing, Some([2, 9, 9, 9, 9, 9])));
    world.run(1500);
    assert_eq!(who(&world, 1), [0]);
    let state = world.agent(0).state(address(1)).unwrap();
    assert_eq!((state.standing, state.claimant), (Standing::Answering, None));
}

#[test]
fn a_takeover_is_announced_three_times() {
    let mut world = mk_world();
    world.power_off(0);
    world.announced.clear();
    world.run(3000);
    let times: Vec<u64> = world.announced.iter().map(|(at, ..)| at / MS).collect();
    assert_eq!(times.iter().map(|at| at - times[0]).collect::<Vec<_>>(), [0, 200, 1000]);
    assert!(world.announced.iter().all(|(_, node, it)| (*node, *it) == (1, address(1))));
    assert_eq!(world.agent(1).silent().collect::<Vec<_>>(), [name_of(0)]);
}

#[test]
fn an_owner_whose_peers_are_all_replaced_goes_on() {
    let mut world = World::new(3, &plan(&[&[0, 1]]));
    world.run(3000);
    let changed = plan(&[&[0, 2]]);
    (0..3).for_each(|node| world.plan(node, &changed));
    world.run_watched(3000, |world| assert_eq!(who(world, 1), [0]));
}

#[test]
fn an_owner_that_gets_its_first_peer_goes_on_whether_that_one_lives_or_not() {
    for lives in [true, false] {
        let mut world = World::new(2, &plan(&[&[0]]));
        world.run(3000);
        if !lives {
            world.power_off(1);
        }
        let changed = plan(&[&[0, 1]]);
        (0..2).for_each(|node| world.plan(node, &changed));
        world.run_watched(3000, |world| assert_eq!(who(world, 1), [0], "{lives}"));
    }
}

#[test]
fn an_owner_takes_no_address_from_a_stranger_when_another_dies() {
    let mut world = mk_world();
    world.power_off(0);
    for _ in 0..40 {
        world.claim_as_stranger(1, address(1));
        world.run_watched(25, |world| assert!(!who(world, 1).contains(&1)));
    }
}

#[test]
fn of_two_that_never_hear_each_other_and_start_at_once_one_yields() {
    let mut world = World::new(2, &plan(&[&[0, 1]]));
    world.deafen();
    world.run(700);
    assert_eq!(who(&world, 1), [0, 1], "each takes itself for the last one");
    world.run(2500);
    assert_eq!(who(&world, 1).len(), 1);
    world.run_watched(5000, |world| assert_eq!(who(world, 1).len(), 1));
}

#[test]
fn an_owner_that_is_heard_again_tells_everybody_that_it_has_its_addresses() {
    let mut world = mk_world();
    world.stop_agent(0);
    world.power_off(1);
    world.run(3000);
    world.power_on(1);
    world.start_agent(0);
    world.announced.clear();
    world.run(3000);
    let of_first = world.announced.iter().filter(|(_, node, it)| (*node, *it) == (0, address(1)));
    assert_eq!(of_first.count(), 4, "once by the new agent, and three times when the other one is back");
}

/// Milliseconds for which nobody answers for an address while nodes take a new key, one every `apart` milliseconds; at no time do two.
fn gaps_of_a_new_key(nodes: usize, apart: u64) -> Vec<u64> {
    let owners: Vec<Vec<usize>> =
        (0..nodes).map(|first| (0..nodes).map(|at| (first + at) % nodes).collect()).collect();
    let owners: Vec<&[usize]> = owners.iter().map(Vec::as_slice).collect();
    let mut world = World::new(nodes, &plan(&owners));
    world.run(3000);
    let mut gaps = vec![0; nodes];
    let mut watch = |world: &World| {
        for (at, gap) in gaps.iter_mut().enumerate() {
            let now = who(world, u8::try_from(at).unwrap() + 1);
            assert!(now.len() < 2, "{now:?} at {}", world.now / MS);
            *gap += u64::from(now.is_empty());
        }
    };
    for node in 0..nodes {
        world.set_key(node, 1);
        world.run_watched(apart, &mut watch);
    }
    world.run_watched(36_000, &mut watch);
    for node in 0..nodes {
        assert_eq!(who(&world, u8::try_from(node).unwrap() + 1), [node], "all is as before");
    }
    gaps
}

#[test]
fn a_new_key_that_nodes_take_one_after_the_other_never_makes_two_answer() {
    for (nodes, apart) in [(2, 0), (2, 300), (2, 1000), (2, 20_000), (3, 300), (3, 20_000), (4, 0), (4, 1000)]
    {
        let gaps = gaps_of_a_new_key(nodes, apart);
        assert!(gaps.iter().all(|gap| *gap < 400), "{nodes} nodes, {apart} ms: {gaps:?}");
    }
}

#[test]
fn a_plan_that_moves_an_address_from_a_node_without_an_agent_waits_until_that_node_is_silent() {
    let mut world = mk_world();
    world.stop_agent(0);
    world.run(1000);
    let moved = plan(&[&[1, 2, 0], &[1, 2, 0], &[2, 0, 1]]);
    (0..3).for_each(|node| world.plan(node, &moved));
    let mut gap = 0;
    world.run_watched(40_000, |world| {
        let now = who(world, 1);
        assert!(now.len() < 2, "{now:?} at {}", world.now / MS);
        gap += u64::from(now.is_empty());
    });
    assert_eq!(who(&world, 1), [1]);
    assert!(gap < 1500, "{gap}");
}

#[test]
fn of_two_of_which_one_does_not_hear_the_other_the_deaf_one_answers_and_the_other_one_after_its_death() {
    let mut world = World::new(2, &plan(&[&[0, 1], &[1, 0]]));
    world.run(3000);
    world.block(0, 1, true);
    world.run(5000);
    world.run_watched(5000, |world| {
        assert_eq!([who(world, 1), who(world, 2)], [[1], [1]], "{}", world.now / MS);
    });
    world.power_off(1);
    world.run(5000);
    assert_eq!([who(&world, 1), who(&world, 2)], [[0], [0]]);
    world.power_on(1);
    world.block(0, 1, false);
    world.run(5000);
    assert_eq!([who(&world, 1), who(&world, 2)], [[0], [1]]);
}
