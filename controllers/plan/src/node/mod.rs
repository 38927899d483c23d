//! Nodes: what Kubernetes says of them, and what they are to do.

mod object;
mod state;

pub(crate) use object::Node;
pub(crate) use state::{Seen, State, Token};
