//! Parts that belong to no single node, in slices.

use cilium_api::parts::{Part, PartKey};

use crate::pack::{self, Slices, Text, Tree};

/// The parts of one owner, packed.
#[derive(Debug)]
pub(crate) struct Packed {
    tree: Tree,
    pub(crate) slices: Slices,
}

impl Packed {
    /// Nothing yet; `owner` stands in the names of the slices.
    pub(crate) fn new(owner: &str) -> Self {
        Self { tree: Tree::default(), slices: Slices::new(owner.to_owned(), false) }
    }

    /// Puts, replaces or removes a part.
    pub(crate) fn set(&mut self, key: &PartKey, part: Option<&Part>) {
        self.set_text(key, part.map(|part| pack::encode(key, part)));
    }

    /// The same with text that is encoded already.
    pub(crate) fn set_text(&mut self, key: &PartKey, text: Option<Text>) {
        self.tree.set(key, text);
    }

    /// Makes the slices follow the parts. Gives the names of slices that changed, came or went.
    pub(crate) fn pack(&mut self) -> Vec<String> {
        self.slices.follow(&mut self.tree)
    }

    /// Whether [`Packed::pack`] has something to do.
    pub(crate) fn is_touched(&self) -> bool {
        self.tree.is_touched()
    }

    /// The parts.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}
