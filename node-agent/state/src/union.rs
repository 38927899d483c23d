//! Parts of several slices, joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cilium_api::parts::{Part, PartKey, Parts};

/// Slices and the parts that they hold together.
///
/// While the operator splits or merges slices, a part stands in two of them for a moment. Then the copy in the more
/// specific slice counts (the one with more hash bits in its name); between equals the greater name, so that the outcome
/// never depends on the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Union {
    slices: BTreeMap<Arc<str>, Held>,
    /// Copies of each part, the one that counts last. Never empty.
    parts: BTreeMap<PartKey, Vec<Copy>>,
}

#[derive(Debug)]
struct Held {
    digest: String,
    keys: Vec<PartKey>,
}

#[derive(Debug)]
struct Copy {
    slice: Arc<str>,
    part: Part,
}

/// Number of hash bits in the name (`<owner>.<bits>`, `<owner>.r` for none), then the name.
fn rank(slice: &str) -> (usize, &str) {
    let bits = slice.rsplit('.').next().unwrap_or_default();
    (if bits == "r" { 0 } else { bits.len() }, slice)
}

impl Union {
    /// Digest of the held version of a slice.
    pub(crate) fn digest(&self, slice: &str) -> Option<&str> {
        self.slices.get(slice).map(|held| held.digest.as_str())
    }

    /// Names of all slices.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.slices.keys().map(AsRef::as_ref)
    }

    /// All parts of a slice, whether they count or not.
    pub(crate) fn parts(&self, slice: &str) -> Parts {
        let copy = |key: &PartKey| {
            let copies = self.parts.get(key)?;
            Some((key.clone(), copies.iter().find(|copy| &*copy.slice == slice)?.part.clone()))
        };
        self.slices.get(slice).into_iter().flat_map(|held| &held.keys).filter_map(copy).collect()
    }

    /// The part that counts.
    pub(crate) fn get(&self, key: &PartKey) -> Option<&Part> {
        self.parts.get(key)?.last().map(|copy| &copy.part)
    }

    /// All parts that count, in order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PartKey, &Part)> {
        self.parts.iter().filter_map(|(key, copies)| Some((key, &copies.last()?.part)))
    }

    /// Takes a version of a slice in place of the one before. Returns the keys whose part changed.
    pub(crate) fn insert(&mut self, slice: &str, digest: String, parts: Parts) -> BTreeSet<PartKey> {
        let mut changed = BTreeSet::new();
        let name: Arc<str> = slice.into();
        let keys: Vec<PartKey> = parts.keys().cloned().collect();
        let before = self.slices.insert(name.clone(), Held { digest, keys });
        for key in before.into_iter().flat_map(|held| held.keys) {
            if !parts.contains_key(&key) {
                self.drop_copy(&name, key, &mut changed);
            }
        }
        for (key, part) in parts {
            self.put_copy(&name, key, part, &mut changed);
        }
        changed
    }

    /// Forgets a slice. Returns the keys whose part changed.
    pub(crate) fn remove(&mut self, slice: &str) -> BTreeSet<PartKey> {
        let mut changed = BTreeSet::new();
        if let Some((name, held)) = self.slices.remove_entry(slice) {
            for key in held.keys {
                self.drop_copy(&name, key, &mut changed);
            }
        }
        changed
    }

    fn put_copy(&mut self, slice: &Arc<str>, key: PartKey, part: Part, changed: &mut BTreeSet<PartKey>) {
        let copies = self.parts.entry(key.clone()).or_default();
        let old = copies.iter().position(|copy| copy.slice == *slice);
        if old.is_some_and(|at| copies[at].part == part) {
            return;
        }
        if let Some(at) = old {
            copies[at].part = part;
        } else {
            let at = copies.partition_point(|copy| rank(&copy.slice) < rank(slice));
            copies.reserve_exact(1);
            copies.insert(at, Copy { slice: slice.clone(), part });
        }
        if copies.last().is_some_and(|copy| copy.slice == *slice) {
            changed.insert(key);
        }
    }

    fn drop_copy(&mut self, slice: &Arc<str>, key: PartKey, changed: &mut BTreeSet<PartKey>) {
        let Some(copies) = self.parts.get_mut(&key) else { return };
        let counted = copies.last().is_some_and(|copy| copy.slice == *slice);
        copies.retain(|copy| copy.slice != *slice);
        if copies.is_empty() {
            self.parts.remove(&key);
        }
        if counted {
            changed.insert(key);
        }
    }
}
