use std::collections::{BTreeMap, BTreeSet};

use cilium_api::digest::digest;
use cilium_api::node_state::SliceRef;

use super::{MAX_BYTES, Path, Tree};

/// The slices that an owner has now, by their digests. Their content stays in the tree.
#[derive(Debug)]
pub(crate) struct Slices {
    /// `cluster`, or `node.<name>`.
    owner: String,
    all: BTreeMap<Path, SliceRef>,
    /// Small sets need no slice, their content stands elsewhere.
    inline: bool,
}

impl Slices {
    /// An owner that has no slices yet. With `inline`, sets of at most [`MAX_BYTES`] stay without.
    pub(crate) fn new(owner: String, inline: bool) -> Self {
        Self { owner, all: BTreeMap::new(), inline }
    }

    /// Follows the tree. Gives the names of slices whose content changed, came or went, in order.
    pub(crate) fn follow(&mut self, tree: &mut Tree) -> Vec<String> {
        let touched = tree.take_touched();
        let sliced = !self.inline || tree.encoded_len() > MAX_BYTES;
        let paths: BTreeSet<Path> = match (sliced, self.all.is_empty()) {
            (true, false) => touched,
            (true, true) => tree.leaves().into_iter().collect(),
            (false, _) => self.all.keys().copied().collect(),
        };
        let changed = paths.into_iter().filter_map(|path| {
            let now = tree.leaf(path).filter(|_| sliced).map(|(_, data)| digest(data.as_bytes()));
            self.set(path, now)
        });
        changed.collect()
    }

    /// Sets the digest at a path. Gives the name of the slice if that changed anything.
    fn set(&mut self, path: Path, digest: Option<String>) -> Option<String> {
        let Some(digest) = digest else { return self.all.remove(&path).map(|gone| gone.name.to_string()) };
        let owner = &self.owner;
        let new = || SliceRef { name: format!("{owner}.{path}").into(), digest: "".into() };
        let slice = self.all.entry(path).or_insert_with(new);
        let is_changed = *slice.digest != *digest;
        if is_changed {
            slice.digest = digest.into();
        }
        is_changed.then(|| slice.name.to_string())
    }

    /// The slice of this name.
    pub(crate) fn find(&self, name: &str) -> Option<(Path, &str)> {
        let bits = name.strip_prefix(self.owner.as_str())?.strip_prefix('.')?;
        let path = Path::parse(bits)?;
        self.all.get(&path).map(|slice| (path, &*slice.digest))
    }

    /// All of them, in the order of their names.
    pub(crate) fn refs(&self) -> impl Iterator<Item = &SliceRef> {
        self.all.values()
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.all.values().map(|slice| slice.name.to_string())
    }
}
