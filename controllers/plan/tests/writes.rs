//! Writes: how few, in which order, and what happens when they fail.
#![allow(clippy::unwrap_used, reason = "a test that lacks what it looks at has failed")]

mod common;

use std::collections::BTreeMap;

use cilium_api::node_slice::OWNER_LABEL;
use cilium_api::parts::{PartKey, Parts};
use cilium_plan::{Action, Config, Kind, Object, ObjectKey, Outcome};
use common::*;
use serde_json::json;

fn mk_world(pods: usize) -> World {
    let mut world = World::new(Config::default());
    world.apply(mk_namespace("default", &[]));
    world.apply(mk_node("a", 1));
    for number in 0..pods {
        add_pod(&mut world, number);
    }
    world.settle();
    world
}

fn add_pod(world: &mut World, number: usize) {
    world.apply(mk_pod("default", &format!("pod-{number}"), "a", &[&format!("app=a{}", number % 7)]));
}

fn remove_pod(world: &mut World, number: usize) {
    world.delete(&ObjectKey::namespaced(Kind::Pod, "default", &format!("pod-{number}")));
}

#[test]
fn nothing_is_planned_before_everything_was_listed() {
    let mut planner = cilium_plan::Planner::new(Config::default());
    planner.observe(mk_node("a", 1).into());
    assert_eq!(count_output(&planner.plan(START)), 0);
    planner.synced();
    let output = planner.plan(START);
    assert_eq!((output.node_states.len(), output.slices.len()), (1, 1));
}

#[test]
fn one_pod_in_a_large_cluster_costs_a_header_and_few_slices() {
    let mut world = mk_world(200);
    assert!(world.store.keys(Kind::Slice).len() > 10, "both the node and the cluster have slices");
    add_pod(&mut world, 1000);
    world.deliver();
    let output = world.plan();
    assert_eq!(output.node_states.len(), 1);
    // One slice of the node, and one for the address of each family, unless one of them splits.
    assert!((3..=6).contains(&output.slices.len()), "{}", output.slices.len());
}

/// Parts that are in both.
fn common_parts(before: &Parts, after: &Parts) -> Parts {
    before
        .iter()
        .filter(|(key, part)| after.get(*key) == Some(*part))
        .map(|(k, p)| (k.clone(), p.clone()))
        .collect()
}

/// Applies the writes of a plan one by one, in an order that hides a part if any order can, and looks after each.
fn check_no_gap(world: &mut World) {
    let before = Agent(&world.store).shared_parts();
    let mut seen = Vec::new();
    for _ in 0..10 {
        world.deliver();
        let output = world.planner.plan(world.now);
        let mut writes: Vec<_> = output.slices.into_iter().map(Some).collect();
        writes.sort_by_key(|write| !matches!(write.as_ref().unwrap().action, Action::Delete(_)));
        for write in writes {
            let one = cilium_plan::Output { slices: write.into_iter().collect(), ..Default::default() };
            world.write_output(&one, &mut |_| Fate::Succeeds);
            seen.push(Agent(&world.store).shared_parts());
        }
        let rest = cilium_plan::Output {
            node_states: output.node_states,
            identities: output.identities,
            ..Default::default()
        };
        world.write_output(&rest, &mut |_| Fate::Succeeds);
    }
    let after = Agent(&world.store).shared_parts();
    let stable = common_parts(&before, &after);
    for (step, parts) in seen.iter().enumerate() {
        assert_eq!(common_parts(&stable, parts), stable, "parts are missing after write {step}");
    }
}

#[test]
fn no_part_is_missing_while_slices_split_and_merge() {
    let mut world = mk_world(10);
    assert_eq!(world.store.keys(Kind::Slice).len(), 1);
    (10..60).for_each(|number| add_pod(&mut world, number));
    check_no_gap(&mut world);
    assert!(world.store.keys(Kind::Slice).len() > 2);
    (5..60).for_each(|number| remove_pod(&mut world, number));
    check_no_gap(&mut world);
    world.settle();
    assert_eq!(world.store.keys(Kind::Slice).len(), 1);
}

#[test]
fn slices_of_a_node_go_after_its_header() {
    let mut world = mk_world(60);
    (3..60).for_each(|number| remove_pod(&mut world, number));
    world.deliver();
    let is_node_slice = |key: &ObjectKey| key.name.starts_with("node.");
    let first = world.planner.plan(world.now);
    assert!(first.slices.iter().all(|write| !is_node_slice(&write.key)), "the header is not written yet");
    let mut fates = |key: &ObjectKey| if key.kind == Kind::NodeState { Fate::Fails } else { Fate::Succeeds };
    world.write_output(&first, &mut fates);
    let second = world.planner.plan(world.now);
    assert!(second.slices.iter().all(|write| !is_node_slice(&write.key)), "the header was not written");
    assert_eq!(second.node_states.len(), 1, "it is repeated");
    world.write_output(&second, &mut |_| Fate::Succeeds);
    let third = world.planner.plan(world.now);
    assert!(third.slices.iter().any(|write| is_node_slice(&write.key)));
    assert!(third.slices.iter().all(|write| matches!(write.action, Action::Delete(_))));
}

#[test]
fn an_object_has_one_write_out_at_a_time() {
    let mut world = mk_world(1);
    add_pod(&mut world, 1);
    world.deliver();
    let first = world.planner.plan(world.now);
    add_pod(&mut world, 2);
    world.deliver();
    let second = world.planner.plan(world.now);
    assert_eq!((first.node_states.len(), first.slices.len()), (1, 1));
    assert_eq!((second.node_states.len(), second.slices.len()), (0, 0));
    world.write_output(&first, &mut |_| Fate::Succeeds);
    world.settle();
    assert!(world.planned("a", "default", "pod-2").is_some());
}

#[test]
fn a_lost_answer_is_found_out() {
    let mut world = mk_world(1);
    add_pod(&mut world, 1);
    world.deliver();
    let output = world.planner.plan(world.now);
    world.write_output(&output, &mut |_| Fate::Vanishes);
    world.settle();
    assert!(world.planned("a", "default", "pod-1").is_some());
    assert_eq!(world.planner.totals().unwritten, 0);
}

#[test]
fn another_writer_is_noticed_and_overruled() {
    let mut world = mk_world(2);
    let key = ObjectKey::cluster(Kind::NodeState, "a");
    let Some(Object::NodeState(state)) = world.store.get(&key) else { panic!("no node state") };
    let mut state = (**state).clone();
    let desired = state.status.as_mut().unwrap().desired.as_mut().unwrap();
    desired.inline = Some("{}".into());
    desired.digest = cilium_api::digest::digest(b"{}");
    desired.revision += 5;
    let edited = desired.revision;
    world.apply(state);
    world.settle();
    let Some(Object::NodeState(state)) = world.store.get(&key) else { panic!("no node state") };
    assert_eq!(state.status.as_ref().unwrap().desired.as_ref().unwrap().revision, edited + 1);
    assert!(world.planned("a", "default", "pod-0").is_some());
}

#[test]
fn edited_deleted_and_mislabelled_slices_are_repaired() {
    let mut world = mk_world(60);
    let before: BTreeMap<_, _> = slices(&world);
    for (number, key) in world.store.keys(Kind::Slice).into_iter().enumerate() {
        let Some(Object::Slice(slice)) = world.store.get(&key) else { panic!("no slice") };
        let mut slice = (**slice).clone();
        match number % 3 {
            0 => slice.spec.data = "{}".into(),
            1 => slice.metadata.labels = None,
            _ => {
                world.delete(&key);
                continue;
            }
        }
        world.apply(slice);
    }
    world.settle();
    assert_eq!(slices(&world), before);
}

fn slices(world: &World) -> BTreeMap<String, (String, String)> {
    let slices = world.store.objects().filter_map(|object| match object {
        Object::Slice(slice) => Some(slice),
        _ => None,
    });
    let content = slices.map(|slice| {
        let owner = slice.metadata.labels.as_ref().and_then(|labels| labels.get(OWNER_LABEL)).cloned();
        (slice.metadata.name.clone().unwrap(), (owner.unwrap_or_default(), slice.spec.data.clone()))
    });
    content.collect()
}

#[test]
fn node_slices_belong_to_their_node() {
    let world = mk_world(60);
    let mut checked = 0;
    for object in world.store.objects() {
        let Object::Slice(slice) = object else { continue };
        let (meta, owners) = (&slice.metadata, slice.metadata.owner_references.as_ref());
        if meta.name.as_ref().unwrap().starts_with("node.a.") {
            assert_eq!(meta.labels.as_ref().unwrap()[OWNER_LABEL], "a");
            assert_eq!(owners.unwrap()[0].uid, "node-a-1");
            checked += 1;
        } else {
            assert_eq!((&*meta.labels.as_ref().unwrap()[OWNER_LABEL], owners), ("CLUSTER", None));
        }
    }
    assert!(checked > 1);
}

#[test]
fn left_over_slices_are_removed() {
    let mut world = mk_world(1);
    for name in ["cluster.0101", "node.gone.r", "policy.0123"] {
        world.apply(mk::<cilium_api::node_slice::CiliumNodeStateSlice>(json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumNodeStateSlice",
            "metadata": {"name": name, "labels": {"cilium.io/state-of": "CLUSTER"}},
            "spec": {"format": 1, "count": 0, "digest": cilium_api::digest::digest(b"{}"), "data": "{}"},
        })));
    }
    world.restart();
    world.settle();
    assert_eq!(world.store.keys(Kind::Slice).len(), 1);
}

#[test]
fn services_reach_the_nodes_and_go() {
    let mut world = mk_world(1);
    world.apply(mk_service("default", "web", "10.96.0.9", 80));
    world.apply(mk_endpoint_slice("default", "web", &["10.1.0.2"], 8080));
    world.settle();
    let key = PartKey::service("default", "web");
    assert!(Agent(&world.store).shared_parts().contains_key(&key));
    world.delete(&ObjectKey::namespaced(Kind::Service, "default", "web"));
    world.settle();
    assert!(!Agent(&world.store).shared_parts().contains_key(&key));
}

#[test]
fn a_conflict_is_resolved_by_what_is_there() {
    let mut world = mk_world(1);
    add_pod(&mut world, 1);
    world.deliver();
    let output = world.planner.plan(world.now);
    let key = output.node_states[0].key.clone();
    let slice = output.slices[0].key.clone();
    // Another operator has written first.
    world.planner.observe(world.store.get(&key).unwrap().clone());
    world.planner.written(&key, Outcome::Conflict);
    world.planner.forget(&slice);
    world.planner.written(&slice, Outcome::Conflict);
    let again = world.planner.plan(world.now);
    assert_eq!(again.node_states.len(), 1);
    assert!(matches!(again.slices[0].action, Action::Create(_)));
}
