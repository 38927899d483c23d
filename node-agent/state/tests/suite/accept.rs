//! What is taken, what is refused, and what is said of it.

use std::collections::BTreeMap;

use crate::build::*;
use cilium_api::parts::{FORMAT_VERSION, PartKey, Parts};
use cilium_state::{Event, Owner, Save, Slice, State};

fn accepted(state: &State) -> Option<i64> {
    state.accepted().map(|accepted| accepted.revision)
}

#[test]
fn an_inline_revision_is_taken_and_named_by_its_keys() {
    let mut state = State::new();
    let change =
        state.apply(Event::Header(Some(mk_inline(3, &Parts::from([mk_endpoint(1), mk_policy(300)])))));
    assert_eq!(
        change.keys.iter().map(|key| &*key.0).collect::<Vec<_>>(),
        ["endpoint/default/pod-1", "policy/300"]
    );
    assert_eq!(accepted(&state), Some(3));
    assert!(state.failures().is_empty());
    assert!(!state.is_complete(), "shared slices were not listed yet");
}

#[test]
fn a_wrong_digest_changes_nothing_and_is_named() {
    let mut state = State::new();
    state.apply(Event::Header(Some(mk_inline(3, &Parts::from([mk_endpoint(1)])))));
    let before = parts_of(&state);
    let mut bad = mk_inline(4, &Parts::from([mk_endpoint(2)]));
    bad.digest = mk_inline(4, &Parts::new()).digest;
    let change = state.apply(Event::Header(Some(bad)));
    assert!(change.keys.is_empty() && change.saves.is_empty());
    assert_eq!((parts_of(&state), accepted(&state)), (before, Some(3)));
    let failures = state.failures();
    assert_eq!(failures[0].object, "revision/4");
    assert!(failures[0].message.starts_with("the inline state has digest "), "{}", failures[0].message);
    assert_eq!(state.seen_revision(), Some(4));
    state.apply(Event::Header(Some(mk_inline(5, &Parts::from([mk_endpoint(2)])))));
    assert!(state.failures().is_empty());
    assert_eq!(accepted(&state), Some(5));
}

#[test]
fn an_unknown_format_or_part_is_refused_by_name() {
    let mut state = State::new();
    let mut newer = mk_inline(1, &Parts::new());
    newer.format = FORMAT_VERSION + 1;
    state.apply(Event::Header(Some(newer)));
    let expected = format!(
        "format {} is not known, this agent knows {FORMAT_VERSION}: upgrade the agent",
        FORMAT_VERSION + 1
    );
    assert_eq!(state.failures()[0].message, expected);

    let data = r#"{"teleport/1":{"teleport":{}}}"#.to_owned();
    let mut strange = mk_inline(2, &Parts::new());
    strange.digest = cilium_api::digest::digest(data.as_bytes());
    strange.inline = Some(data);
    state.apply(Event::Header(Some(strange)));
    let message = &state.failures()[0].message;
    assert!(message.contains("does not understand") && message.contains("teleport"), "{message}");
    assert_eq!(accepted(&state), None);
}

#[test]
fn a_part_of_the_wrong_scope_is_refused() {
    let mut state = State::new();
    state.apply(Event::Header(Some(mk_inline(1, &Parts::from([mk_identity(300, "k8s:a=b")])))));
    assert!(state.failures()[0].message.contains("holds part identity/300"));
    state.apply(mk_slice("cluster.r", Owner::Shared, &Parts::from([mk_endpoint(1)])));
    assert_eq!(state.failures()[1].object, "slice/cluster.r");
    assert_eq!(parts_of(&state), Parts::new());
}

#[test]
fn a_sliced_revision_waits_for_every_slice_in_the_listed_version() {
    let low = Parts::from([mk_endpoint(1)]);
    let high = Parts::from([mk_endpoint(2)]);
    let slices =
        BTreeMap::from([("node.a.0".to_owned(), low.clone()), ("node.a.1".to_owned(), high.clone())]);
    let mut state = State::new();
    state.apply(Event::Header(Some(mk_header(7, &slices))));
    assert_eq!(state.failures()[0].message, "waits for 2 of 2 slices, first node.a.0");
    state.apply(mk_slice("node.a.0", Owner::Node, &low));
    state.apply(mk_slice("node.a.1", Owner::Node, &Parts::from([mk_endpoint(9)])));
    assert_eq!(state.failures()[0].message, "waits for 1 of 2 slices, first node.a.1");
    assert!(parts_of(&state).is_empty());
    let change = state.apply(mk_slice("node.a.1", Owner::Node, &high));
    assert_eq!(change.keys.len(), 2);
    assert!(matches!(&change.saves[..], [Save::Revision { slices, .. }] if slices.len() == 2));
    assert_eq!(accepted(&state), Some(7));
}

#[test]
fn slices_seen_before_their_header_count_only_with_it() {
    let old = BTreeMap::from([("node.a.r".to_owned(), Parts::from([mk_endpoint(1)]))]);
    let new = BTreeMap::from([("node.a.r".to_owned(), Parts::from([mk_endpoint(2)]))]);
    let mut state = State::new();
    state.apply(mk_slice("node.a.r", Owner::Node, &old["node.a.r"]));
    state.apply(Event::Header(Some(mk_header(1, &old))));
    state.apply(mk_slice("node.a.r", Owner::Node, &new["node.a.r"]));
    assert_eq!(parts_of(&state), old["node.a.r"]);
    state.apply(Event::Header(Some(mk_header(2, &new))));
    assert_eq!(parts_of(&state), new["node.a.r"]);
}

#[test]
fn a_slice_that_lies_about_its_digest_is_refused() {
    let parts = Parts::from([mk_endpoint(1)]);
    let slices = BTreeMap::from([("node.a.r".to_owned(), parts.clone())]);
    let mut spec = mk_spec(&parts);
    spec.data.push(' ');
    let mut state = State::new();
    state.apply(Event::Slice(Slice { name: "node.a.r".into(), owner: Owner::Node, spec }));
    state.apply(Event::Header(Some(mk_header(1, &slices))));
    assert!(state.failures()[0].message.starts_with("slice node.a.r has digest "));
    assert_eq!(accepted(&state), None);
    state.apply(mk_slice("node.a.r", Owner::Node, &parts));
    assert_eq!(accepted(&state), Some(1));
}

#[test]
fn a_list_of_slices_that_is_not_the_one_meant_is_refused() {
    let slices = BTreeMap::from([
        ("node.a.0".to_owned(), Parts::from([mk_endpoint(1)])),
        ("node.a.1".to_owned(), Parts::from([mk_endpoint(2)])),
    ]);
    let mut state = State::new();
    slices.iter().for_each(|(name, parts)| _ = state.apply(mk_slice(name, Owner::Node, parts)));
    let mut cut = mk_header(1, &slices);
    cut.slices.pop();
    state.apply(Event::Header(Some(cut)));
    assert!(state.failures()[0].message.starts_with("the revision has digest "));
    assert_eq!(accepted(&state), None);
    state.apply(Event::Header(Some(mk_header(2, &slices))));
    assert_eq!((accepted(&state), parts_of(&state).len()), (Some(2), 2));
}

#[test]
fn while_a_slice_is_split_the_more_specific_one_counts() {
    let old = Parts::from([mk_identity(300, "k8s:v=old"), mk_identity(301, "k8s:v=old")]);
    let new = Parts::from([mk_identity(300, "k8s:v=new")]);
    let mut state = State::new();
    state.apply(mk_slice("cluster.0", Owner::Shared, &new));
    state.apply(mk_slice("cluster.r", Owner::Shared, &old));
    let mut expected = old;
    expected.extend(new.clone());
    assert_eq!(parts_of(&state), expected);
    let change = state.apply(Event::SliceGone("cluster.r".into()));
    assert_eq!(change.keys.into_iter().collect::<Vec<_>>(), [PartKey::identity(301)]);
    assert_eq!(parts_of(&state), new);
}

#[test]
fn a_relist_removes_what_it_does_not_name() {
    let mut state = State::new();
    state.apply(Event::RelistStarted);
    state.apply(mk_slice("cluster.0", Owner::Shared, &Parts::from([mk_identity(300, "k8s:a=b")])));
    state.apply(mk_slice("cluster.1", Owner::Shared, &Parts::from([mk_identity(301, "k8s:a=b")])));
    let first = state.apply(Event::RelistDone);
    assert!(matches!(&first.saves[..], [Save::Listed]));
    state.apply(Event::RelistStarted);
    state.apply(mk_slice("cluster.1", Owner::Shared, &Parts::from([mk_identity(301, "k8s:a=b")])));
    let change = state.apply(Event::RelistDone);
    assert_eq!(change.keys.into_iter().collect::<Vec<_>>(), [PartKey::identity(300)]);
    assert!(matches!(&change.saves[..], [Save::SharedGone { name }] if name == "cluster.0"));
}

#[test]
fn a_deleted_node_state_keeps_what_is_in_force() {
    let mut state = State::new();
    state.apply(Event::Header(Some(mk_inline(3, &Parts::from([mk_endpoint(1)])))));
    state.apply(Event::Header(None));
    assert_eq!((accepted(&state), parts_of(&state).len()), (Some(3), 1));
}
