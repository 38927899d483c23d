//! The packing of random histories against the rule in its simplest form.

use std::collections::BTreeMap;

use cilium_api::digest::{decode, digest, encode};
use cilium_api::parts::{Address, Identity, Part, PartKey, Parts};
use proptest::prelude::*;

use super::path::{Path, hash};
use super::{MAX_BYTES, MAX_PARTS, Slices, Tree, text};

/// Slices by the text of the rule: split while too large.
fn mk_slices(parts: &Parts, path: Path, into: &mut BTreeMap<Path, String>) {
    let data = encode(parts).unwrap();
    if parts.len() <= 1 || (parts.len() <= MAX_PARTS && data.len() <= MAX_BYTES) {
        if !parts.is_empty() {
            into.insert(path, data);
        }
        return;
    }
    for bit in [0, 1] {
        let half = parts.iter().filter(|(key, _)| path.branch(hash(&key.0)) == bit);
        mk_slices(&half.map(|(k, p)| (k.clone(), p.clone())).collect(), path.child(bit), into);
    }
}

fn mk_address(identity: u32) -> Part {
    Part::Address(Address { identity, node: None })
}

/// A part with a body of about so many bytes.
fn mk_large(bytes: usize) -> Part {
    Part::Identity(Identity { labels: vec!["x".repeat(bytes)] })
}

fn set(tree: &mut Tree, key: &PartKey, part: Option<&Part>) -> bool {
    tree.set(key, part.map(|part| text::encode(key, part)))
}

fn check(tree: &Tree, parts: &Parts) {
    let mut expected = BTreeMap::new();
    mk_slices(parts, Path::ROOT, &mut expected);
    let leaves: BTreeMap<Path, String> =
        tree.leaves().into_iter().map(|path| (path, tree.leaf(path).unwrap().1)).collect();
    assert_eq!(leaves, expected);
    assert_eq!(tree.union(), encode(parts).unwrap());
    assert_eq!(tree.encoded_len(), tree.union().len());
    let mut keys = tree.keys();
    keys.sort();
    assert!(keys.into_iter().eq(parts.keys()));
}

proptest! {
    #[test]
    fn slices_depend_on_the_present_set_only(
        steps in prop::collection::vec((0..400u32, prop::option::weighted(0.7, (0..9u32, 0..20usize))), 1..800),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut tree, mut parts) = (Tree::default(), Parts::new());
        let (mut slices, mut seen) = (Slices::new("cluster".into(), false), BTreeMap::new());
        for (number, (step, part)) in steps.iter().enumerate() {
            let key = PartKey::identity(*step);
            let part = part.map(|(identity, size)| if size > 17 { mk_large(size * 150) } else { mk_address(identity) });
            let changed = set(&mut tree, &key, part.as_ref());
            let before = match part {
                Some(part) => parts.insert(key.clone(), part),
                None => parts.remove(&key),
            };
            prop_assert_eq!(changed, before.as_ref() != parts.get(&key));
            prop_assert_eq!(tree.is_touched(), changed || tree.is_touched());
            if number == cut.index(steps.len()) || number + 1 == steps.len() {
                check(&tree, &parts);
                for name in slices.follow(&mut tree) {
                    match slices.find(&name) {
                        Some((path, it)) => seen.insert(name, (it.to_owned(), tree.leaf(path).unwrap().1)),
                        None => seen.remove(&name),
                    };
                }
                // What was announced, and nothing else, is what there is.
                let all: Vec<_> = seen.iter().map(|(name, (it, _))| (name.clone(), it.clone())).collect();
                let refs: Vec<_> = slices.refs().map(|r| (r.name.to_string(), r.digest.to_string())).collect();
                prop_assert_eq!(all, refs);
                prop_assert!(seen.values().all(|(it, data)| *it == digest(data.as_bytes())));
                let union: Parts = seen.values().flat_map(|(_, data)| decode(data).unwrap()).collect();
                prop_assert_eq!(&union, &parts);
            }
        }
    }
}

#[test]
fn one_changed_part_changes_one_slice() {
    let (mut tree, mut slices) = (Tree::default(), Slices::new("cluster".into(), false));
    for number in 0..2000 {
        set(&mut tree, &PartKey::identity(number), Some(&mk_address(number)));
    }
    assert!(slices.follow(&mut tree).len() > 20);
    set(&mut tree, &PartKey::identity(77), Some(&mk_address(1)));
    assert_eq!(slices.follow(&mut tree).len(), 1);
    set(&mut tree, &PartKey::identity(77), Some(&mk_address(1)));
    assert!(!tree.is_touched());
}

#[test]
fn a_single_part_is_never_split_and_small_sets_stay_inline() {
    let (mut tree, mut slices) = (Tree::default(), Slices::new("node.a".into(), true));
    set(&mut tree, &PartKey::identity(1), Some(&mk_address(1)));
    assert!(slices.follow(&mut tree).is_empty() && slices.refs().next().is_none());
    set(&mut tree, &PartKey::identity(1), Some(&mk_large(9000)));
    assert!(slices.follow(&mut tree).iter().eq(["node.a.r"]));
    set(&mut tree, &PartKey::identity(2), Some(&mk_large(9000)));
    assert_eq!(slices.follow(&mut tree).len(), 3, "the root goes, two come");
    for number in [1, 2] {
        set(&mut tree, &PartKey::identity(number), None);
    }
    assert_eq!(slices.follow(&mut tree).len(), 2);
    assert_eq!((slices.refs().next(), tree.union()), (None, "{}".into()));
}
