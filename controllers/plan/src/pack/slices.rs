use std::collections::{BTreeMap, BTreeSet};

use cilium_api::digest::digest;
use cilium_api::node_state::SliceRef;

use super::{MAX_BYTES, Path, Tree};

/// The slices that an owner has now, by their digests. Their content stays in the tree.
#[derive(Debug)]
pub(crate) struct Slices {
    /// `cluster`, or `node.<name>`.
    owner: String,
    digests: BTreeMap<Path, String>,
    /// Small sets need no slice, their content stands elsewhere.
    inline: bool,
}

impl Slices {
    /// An owner that has no slices yet. With `inline`, sets of at most [`MAX_BYTES`] stay without.
    pub(crate) fn new(owner: String, inline: bool) -> Self {
        Self { owner, digests: BTreeMap::new(), inline }
    }

    /// Follows the tree. Gives the names of slices whose content changed, came or went.
    pub(crate) fn follow(&mut self, tree: &mut Tree) -> BTreeSet<String> {
        let touched = tree.take_touched();
        let sliced = !self.inline || tree.encoded_len() > MAX_BYTES;
        let paths: BTreeSet<Path> = match (sliced, self.digests.is_empty()) {
            (true, false) => touched,
            (true, true) => tree.leaves().into_iter().collect(),
            (false, _) => self.digests.keys().copied().collect(),
        };
        let changed = paths.into_iter().filter(|path| {
            let now = tree.leaf(*path).filter(|_| sliced).map(|(_, data)| digest(data.as_bytes()));
            let before = match now.clone() {
                Some(now) => self.digests.insert(*path, now),
                None => self.digests.remove(path),
            };
            before != now
        });
        let changed: Vec<Path> = changed.collect();
        changed.into_iter().map(|path| self.name(path)).collect()
    }

    /// Name of the slice at a path.
    pub(crate) fn name(&self, path: Path) -> String {
        format!("{}.{path}", self.owner)
    }

    /// The slice of this name.
    pub(crate) fn find(&self, name: &str) -> Option<(Path, &str)> {
        let bits = name.strip_prefix(self.owner.as_str())?.strip_prefix('.')?;
        let path = Path::parse(bits)?;
        self.digests.get(&path).map(|digest| (path, digest.as_str()))
    }

    /// All of them, in the order of their names.
    pub(crate) fn refs(&self) -> Vec<SliceRef> {
        let one =
            |(path, digest): (&Path, &String)| SliceRef { name: self.name(*path), digest: digest.clone() };
        self.digests.iter().map(one).collect()
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.digests.keys().map(|path| self.name(*path))
    }
}
