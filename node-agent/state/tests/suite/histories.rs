//! Whatever the order, repetition and grouping of events: the same last versions give the same parts.

use crate::build::*;
use std::collections::{BTreeMap, VecDeque};

use cilium_api::node_state::DesiredState;
use cilium_api::parts::{Part, PartKey, Parts};
use cilium_state::{Event, Owner, State};
use proptest::prelude::*;

/// What exists on the API server at one time.
#[derive(Clone, Debug, Default)]
struct World {
    node: BTreeMap<String, Parts>,
    shared: BTreeMap<String, Parts>,
}

/// Versions of each object, in order; `None` is a deletion.
type Histories = BTreeMap<String, VecDeque<Event>>;

fn mk_world((pods, identities, split_node, split_shared): (Vec<u16>, Vec<(u32, u8)>, bool, bool)) -> World {
    let endpoints: Parts = pods.into_iter().map(|n| mk_endpoint(1 + n)).collect();
    let labels: Parts =
        identities.into_iter().map(|(n, label)| mk_identity(300 + n, &format!("k8s:l={label}"))).collect();
    World { node: pack("node.a", endpoints, split_node), shared: pack("cluster", labels, split_shared) }
}

fn pack(owner: &str, parts: Parts, split: bool) -> BTreeMap<String, Parts> {
    if !split {
        return BTreeMap::from([(format!("{owner}.r"), parts)]);
    }
    let odd = |(key, _): &(PartKey, Part)| key.0.bytes().map(usize::from).sum::<usize>() % 2 == 1;
    let (high, low): (Vec<_>, Vec<_>) = parts.into_iter().partition(odd);
    BTreeMap::from([
        (format!("{owner}.0"), low.into_iter().collect()),
        (format!("{owner}.1"), high.into_iter().collect()),
    ])
}

fn header(revision: usize, world: &World) -> DesiredState {
    mk_header(i64::try_from(revision).expect("small"), &world.node)
}

/// What a watch of each object delivers while the worlds follow one another.
fn histories(worlds: &[World]) -> Histories {
    let mut all = Histories::new();
    let mut before = World::default();
    for (revision, world) in worlds.iter().enumerate() {
        for (old, new, owner) in
            [(&before.shared, &world.shared, Owner::Shared), (&before.node, &world.node, Owner::Node)]
        {
            for (name, parts) in new {
                all.entry(name.clone()).or_default().push_back(mk_slice(name, owner, parts));
            }
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                all.entry(name.clone()).or_default().push_back(Event::SliceGone(name.clone()));
            }
        }
        let header = Event::Header(Some(header(revision, world)));
        all.entry("HEADER".to_owned()).or_default().push_back(header);
        before = world.clone();
    }
    all
}

fn relist(state: &mut State, world: &World) {
    state.apply(Event::RelistStarted);
    for (slices, owner) in [(&world.node, Owner::Node), (&world.shared, Owner::Shared)] {
        for (name, parts) in slices {
            state.apply(mk_slice(name, owner, parts));
        }
    }
    state.apply(Event::RelistDone);
}

fn expected(world: &World) -> Parts {
    world.node.values().chain(world.shared.values()).flat_map(Clone::clone).collect()
}

fn world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(0u16..12, 0..6),
        prop::collection::vec((0u32..12, 0u8..3), 0..8),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(mk_world)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_interleaving_ends_in_the_last_world(
        worlds in prop::collection::vec(world(), 1..5),
        picks in prop::collection::vec((0usize..64, any::<bool>()), 0..120),
    ) {
        let last = worlds.last().expect("at least one");
        let mut all = histories(&worlds);
        let mut state = State::new();
        let mut keys = std::collections::BTreeSet::new();
        let mut picks = picks.into_iter().chain(std::iter::repeat((0, false)));
        while !all.is_empty() {
            let (pick, twice) = picks.next().expect("endless");
            let name = all.keys().nth(pick % all.len()).expect("in range").clone();
            let queue = all.get_mut(&name).expect("is a key");
            let event = queue.pop_front().expect("never empty");
            if queue.is_empty() {
                all.remove(&name);
            }
            if twice {
                keys.append(&mut state.apply(event.clone()).keys);
            }
            keys.append(&mut state.apply(event).keys);
        }
        prop_assert_eq!(parts_of(&state), expected(last));
        prop_assert!(state.failures().is_empty());
        for key in expected(last).keys() {
            prop_assert!(keys.contains(key), "{} was never announced", key);
        }
    }

    #[test]
    fn a_relist_after_missed_events_ends_in_the_last_world(first in world(), last in world()) {
        let mut state = State::new();
        relist(&mut state, &first);
        state.apply(Event::Header(Some(header(1, &first))));
        let mut mirror = parts_of(&state);
        prop_assert_eq!(&mirror, &expected(&first));
        let mut apply = |state: &mut State, event| {
            for key in state.apply(event).keys {
                match state.get(&key) {
                    Some(part) => mirror.insert(key, part.clone()),
                    None => mirror.remove(&key),
                };
            }
        };
        apply(&mut state, Event::RelistStarted);
        for (slices, owner) in [(&last.node, Owner::Node), (&last.shared, Owner::Shared)] {
            for (name, parts) in slices {
                apply(&mut state, mk_slice(name, owner, parts));
            }
        }
        apply(&mut state, Event::RelistDone);
        apply(&mut state, Event::Header(Some(header(2, &last))));
        prop_assert_eq!(parts_of(&state), expected(&last));
        prop_assert_eq!(mirror, expected(&last), "what was announced adds up");
        prop_assert!(state.is_complete());
    }

    #[test]
    fn damage_never_changes_what_is_in_force(first in world(), second in world(), at in any::<prop::sample::Index>()) {
        let mut state = State::new();
        relist(&mut state, &first);
        state.apply(Event::Header(Some(header(1, &first))));
        let before = parts_of(&state);
        for (slices, owner) in [(&second.node, Owner::Node), (&second.shared, Owner::Shared)] {
            for (name, parts) in slices {
                let mut spec = mk_spec(parts);
                let byte = at.index(spec.data.len());
                spec.data.replace_range(byte..=byte, "\u{1}");
                let known = mk_spec(first.node.get(name).or(first.shared.get(name)).unwrap_or(&Parts::new())).digest;
                if spec.digest != known {
                    state.apply(Event::Slice(cilium_state::Slice { name: name.clone(), owner, spec }));
                }
            }
        }
        let mut bad = header(2, &second);
        bad.digest = mk_spec(&Parts::from([mk_endpoint(4000)])).digest;
        let change = state.apply(Event::Header(Some(bad)));
        prop_assert!(change.keys.is_empty() && change.saves.is_empty());
        prop_assert_eq!(parts_of(&state), before);
        prop_assert_eq!(state.accepted().map(|a| a.revision), Some(1));
        prop_assert!(state.failures().iter().any(|failure| failure.object == "revision/2"));
    }
}
