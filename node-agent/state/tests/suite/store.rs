//! What is saved comes back, also after being cut off in the middle.

use std::collections::BTreeMap;
use std::fs;

use crate::build::*;
use cilium_api::parts::Parts;
use cilium_state::{Event, Owner, State, Store, StoreError};

fn feed(state: &mut State, store: &mut Store, events: impl IntoIterator<Item = Event>) {
    for event in events {
        let change = state.apply(event);
        store.save(&change.saves).expect("saves");
    }
}

fn reload(store: &Store) -> (State, Vec<StoreError>) {
    let loaded = store.load();
    let mut state = State::new();
    for event in loaded.events {
        state.apply(event);
    }
    (state, loaded.unreadable)
}

fn mk_events() -> (BTreeMap<String, Parts>, Vec<Event>) {
    let slices = BTreeMap::from([
        ("node.a.0".to_owned(), Parts::from([mk_endpoint(1)])),
        ("node.a.1".to_owned(), Parts::from([mk_endpoint(2), mk_policy(300)])),
    ]);
    let shared = Parts::from([mk_identity(300, "k8s:a=b")]);
    let mut events = vec![Event::RelistStarted, mk_slice("cluster.r", Owner::Shared, &shared)];
    events.extend(slices.iter().map(|(name, parts)| mk_slice(name, Owner::Node, parts)));
    events.extend([Event::RelistDone, Event::Header(Some(mk_header(5, &slices)))]);
    (slices, events)
}

#[test]
fn a_restart_finds_what_was_in_force() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Store::open(dir.path()).expect("opens");
    let mut state = State::new();
    let (mut slices, events) = mk_events();
    feed(&mut state, &mut store, events);
    let (again, unreadable) = reload(&store);
    assert!(unreadable.is_empty() && again.is_complete());
    assert_eq!(parts_of(&again), parts_of(&state));
    assert_eq!(again.accepted(), state.accepted());

    slices.insert("node.a.1".to_owned(), Parts::from([mk_endpoint(3)]));
    let changed = mk_slice("node.a.1", Owner::Node, &slices["node.a.1"]);
    feed(&mut state, &mut store, [changed, Event::Header(Some(mk_header(6, &slices)))]);
    feed(&mut state, &mut store, [Event::SliceGone("cluster.r".into())]);
    let (again, _) = reload(&store);
    assert_eq!((parts_of(&again), again.accepted()), (parts_of(&state), state.accepted()));
    assert_eq!(fs::read_dir(dir.path().join("node")).expect("lists").count(), 2, "old slices are removed");
    assert_eq!(fs::read_dir(dir.path().join("shared")).expect("lists").count(), 0);
}

#[test]
fn a_list_that_was_cut_off_is_not_complete() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Store::open(dir.path()).expect("opens");
    let (_, mut events) = mk_events();
    events.retain(|event| !matches!(event, Event::RelistDone));
    feed(&mut State::new(), &mut store, events);
    let (again, _) = reload(&store);
    assert!(again.accepted().is_some() && !again.is_complete());
}

#[test]
fn damaged_files_are_named_and_left_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Store::open(dir.path()).expect("opens");
    let (_, events) = mk_events();
    feed(&mut State::new(), &mut store, events);
    let file =
        fs::read_dir(dir.path().join("shared")).expect("lists").next().expect("one").expect("reads").path();
    fs::write(file, "{").expect("writes");
    fs::write(dir.path().join("shared/half.9.json.new"), "{").expect("writes");
    let (again, unreadable) = reload(&Store::open(dir.path()).expect("opens"));
    assert_eq!(unreadable.len(), 1);
    assert!(
        unreadable[0].to_string().contains("is damaged") && unreadable[0].to_string().contains("cluster.r.")
    );
    assert_eq!(again.accepted().map(|accepted| accepted.revision), Some(5));
}

#[test]
fn a_name_that_leaves_the_directory_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Store::open(dir.path()).expect("opens");
    let change =
        State::new().apply(mk_slice("../evil", Owner::Shared, &Parts::from([mk_identity(300, "k8s:a=b")])));
    assert!(matches!(store.save(&change.saves), Err(StoreError::Name { .. })));
}

#[test]
fn of_two_versions_the_higher_counts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = Store::open(dir.path()).expect("opens");
    let mut state = State::new();
    feed(&mut state, &mut store, mk_events().1);
    let header =
        fs::read_dir(dir.path().join("header")).expect("lists").next().expect("one").expect("reads").path();
    let old = fs::read(&header).expect("reads");
    let slices = BTreeMap::from([("node.a.0".to_owned(), Parts::from([mk_endpoint(1)]))]);
    feed(&mut state, &mut store, [Event::Header(Some(mk_header(6, &slices)))]);
    fs::write(&header, old).expect("the process was killed before it removed the old one");
    let (again, _) = reload(&Store::open(dir.path()).expect("opens"));
    assert_eq!(again.accepted().map(|accepted| accepted.revision), Some(6));
    assert!(!header.exists());
}
