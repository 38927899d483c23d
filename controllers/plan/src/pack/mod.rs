//! Parts, packed into slices (`docs/design/node-state.md`, "Packing").

mod path;

mod slices;
#[cfg(test)]
mod tests;
mod text;
mod tree;

pub(crate) use path::Path;
pub(crate) use slices::Slices;
pub(crate) use text::{Text, encode};
pub(crate) use tree::Tree;

/// Most parts of a slice.
pub(crate) const MAX_PARTS: usize = 100;
/// Most bytes of an encoded slice, and of node parts that stand inline.
pub(crate) const MAX_BYTES: usize = 4096;
