use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use cilium_api::parts::PartKey;

use super::path::{Path, hash};
use super::text::{Text, join, joined_len};
use super::{MAX_BYTES, MAX_PARTS};

/// The parts of one owner, in the binary tree that says which slice each belongs to.
///
/// # Guarantees
/// The leaves depend on nothing but the present set of parts. A changed part changes one leaf, or splits or merges one.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Branch,
    /// Places where a leaf changed, came or went since the last [`Tree::take_touched`].
    touched: BTreeSet<Path>,
}

#[derive(Debug)]
enum Branch {
    Leaf(Leaf),
    Fork(Weight, Box<[Branch; 2]>),
}

#[derive(Debug, Default)]
struct Leaf {
    weight: Weight,
    texts: BTreeMap<PartKey, Text>,
}

/// How much is in a subtree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    parts: usize,
    /// Sum over the texts, without what stands between them.
    bytes: usize,
}

impl Weight {
    fn is_leaf(self, path: Path) -> bool {
        let fits = self.parts <= MAX_PARTS && self.encoded() <= MAX_BYTES;
        fits || self.parts <= 1 || path.is_full()
    }
    fn encoded(self) -> usize {
        joined_len(self.parts, self.bytes)
    }
    fn add(&mut self, text: &Text) {
        self.parts += 1;
        self.bytes += text.len();
    }
    fn plus(self, other: Self) -> Self {
        Self { parts: self.parts + other.parts, bytes: self.bytes + other.bytes }
    }
}

impl Default for Branch {
    fn default() -> Self {
        Self::Leaf(Leaf::default())
    }
}

impl Tree {
    /// Puts, replaces or removes a part. Says whether that changed anything.
    pub(crate) fn set(&mut self, key: &PartKey, text: Option<Text>) -> bool {
        if self.get(key) == text.as_ref() {
            return false;
        }
        self.root.set(Path::ROOT, hash(&key.0), key, text, &mut self.touched);
        true
    }

    /// The text of a part.
    pub(crate) fn get(&self, key: &PartKey) -> Option<&Text> {
        let (mut branch, mut path, hash) = (&self.root, Path::ROOT, hash(&key.0));
        loop {
            match branch {
                Branch::Leaf(leaf) => return leaf.texts.get(key),
                Branch::Fork(_, children) => {
                    let bit = path.branch(hash);
                    (branch, path) = (&children[bit], path.child(bit));
                }
            }
        }
    }

    /// Number of bytes of [`Tree::union`].
    pub(crate) fn encoded_len(&self) -> usize {
        self.root.weight().encoded()
    }

    /// All parts, encoded as one object.
    pub(crate) fn union(&self) -> String {
        join(self.sorted().into_iter(), self.encoded_len())
    }

    /// All texts in the order of their keys.
    fn sorted(&self) -> Vec<&Text> {
        let mut all = Vec::with_capacity(self.root.weight().parts);
        self.root.each_leaf(Path::ROOT, &mut |_, leaf| all.extend(&leaf.texts));
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, text)| text).collect()
    }

    /// Whether there are no parts.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.weight().parts == 0
    }

    /// All keys, in no useful order.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn keys(&self) -> Vec<&PartKey> {
        let mut keys = Vec::with_capacity(self.root.weight().parts);
        self.root.each_leaf(Path::ROOT, &mut |_, leaf| keys.extend(leaf.texts.keys()));
        keys
    }

    /// Number of parts and encoded content of the leaf at a path; `None` if there is no leaf, or nothing in it.
    pub(crate) fn leaf(&self, path: Path) -> Option<(usize, String)> {
        let mut branch = &self.root;
        for level in 0..path.len() {
            let Branch::Fork(_, children) = branch else { return None };
            branch = &children[path.bit(level)];
        }
        match branch {
            Branch::Leaf(leaf) if leaf.weight.parts > 0 => {
                Some((leaf.weight.parts, join(leaf.texts.values(), leaf.weight.encoded())))
            }
            _ => None,
        }
    }

    /// Paths of all leaves that hold something.
    pub(crate) fn leaves(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.root.each_leaf(Path::ROOT, &mut |path, leaf| {
            if leaf.weight.parts > 0 {
                paths.push(path);
            }
        });
        paths
    }

    /// Places to look at again.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<Path> {
        mem::take(&mut self.touched)
    }

    /// Whether [`Tree::take_touched`] would give any.
    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }
}

impl Branch {
    fn weight(&self) -> Weight {
        match self {
            Self::Leaf(leaf) => leaf.weight,
            Self::Fork(weight, _) => *weight,
        }
    }

    fn set(
        &mut self,
        path: Path,
        hash: u64,
        key: &PartKey,
        text: Option<Text>,
        touched: &mut BTreeSet<Path>,
    ) {
        match self {
            Self::Leaf(leaf) => {
                leaf.set(key, text);
                touched.insert(path);
                if !leaf.weight.is_leaf(path) {
                    *self = mem::take(leaf).split(path, touched);
                }
            }
            Self::Fork(weight, children) => {
                let bit = path.branch(hash);
                children[bit].set(path.child(bit), hash, key, text, touched);
                *weight = children[0].weight().plus(children[1].weight());
                if weight.is_leaf(path) {
                    let merged = self.merge(path, touched);
                    *self = Self::Leaf(merged);
                }
            }
        }
    }

    /// Takes everything below together.
    fn merge(&mut self, path: Path, touched: &mut BTreeSet<Path>) -> Leaf {
        touched.insert(path);
        match self {
            Self::Leaf(leaf) => mem::take(leaf),
            Self::Fork(weight, children) => {
                let [low, high] = children.as_mut();
                let mut texts = low.merge(path.child(0), touched).texts;
                texts.append(&mut high.merge(path.child(1), touched).texts);
                Leaf { weight: *weight, texts }
            }
        }
    }

    fn each_leaf<'a>(&'a self, path: Path, visit: &mut impl FnMut(Path, &'a Leaf)) {
        match self {
            Self::Leaf(leaf) => visit(path, leaf),
            Self::Fork(_, children) => {
                for (bit, child) in children.iter().enumerate() {
                    child.each_leaf(path.child(bit), visit);
                }
            }
        }
    }
}

impl Leaf {
    fn set(&mut self, key: &PartKey, text: Option<Text>) {
        let old = match text {
            Some(text) => {
                self.weight.add(&text);
                self.texts.insert(key.clone(), text)
            }
            None => self.texts.remove(key),
        };
        if let Some(old) = old {
            self.weight.parts -= 1;
            self.weight.bytes -= old.len();
        }
    }

    /// Deals the parts out below `path`, as deep as needed.
    fn split(self, path: Path, touched: &mut BTreeSet<Path>) -> Branch {
        touched.insert(path);
        if self.weight.is_leaf(path) {
            return Branch::Leaf(self);
        }
        let mut halves = [Self::default(), Self::default()];
        for (key, text) in self.texts {
            let half = &mut halves[path.branch(hash(&key.0))];
            half.weight.add(&text);
            half.texts.insert(key, text);
        }
        let [low, high] = halves;
        let children = [low.split(path.child(0), touched), high.split(path.child(1), touched)];
        Branch::Fork(self.weight, Box::new(children))
    }
}
