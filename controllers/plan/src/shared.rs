//! Parts that are the same for all nodes.

use std::collections::BTreeSet;

use cilium_api::parts::{Part, PartKey};

use crate::pack::{self, Slices, Tree};

/// Owner of shared slices, in their names.
pub(crate) const OWNER: &str = "cluster";

/// All cluster parts, packed.
#[derive(Debug)]
pub(crate) struct Shared {
    tree: Tree,
    pub(crate) slices: Slices,
}

impl Default for Shared {
    fn default() -> Self {
        Self { tree: Tree::default(), slices: Slices::new(OWNER.to_owned(), false) }
    }
}

impl Shared {
    /// Puts, replaces or removes a part.
    pub(crate) fn set(&mut self, key: &PartKey, part: Option<&Part>) {
        self.tree.set(key, part.map(|part| pack::encode(key, part)));
    }

    /// Makes the slices follow the parts. Gives the names of slices that changed, came or went.
    pub(crate) fn pack(&mut self) -> BTreeSet<String> {
        self.slices.follow(&mut self.tree)
    }

    /// The parts.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}
