//! Which desired state holds on this node: what the watches saw, verified, joined, and kept on disk.
//!
//! [`State`] takes [`Event`]s (objects as watches deliver them) and answers each with a [`Change`]: the keys of parts
//! that may have changed, and what has to go to disk before they are applied. [`Store`] is that disk.
//!
//! # Guarantees
//! - A revision of the node's own state is taken whole or not at all: every listed slice is held, every digest matches,
//!   every part is understood. Otherwise the previous revision stays in force and [`State::failures`] says why.
//! - A shared slice that is damaged or not understood changes nothing; the version before it stays.
//! - The parts in force depend only on the last version of every object, not on the order, repetition or grouping of
//!   events of different objects.
//! - After a relist, whatever was not listed is gone.
//! - A deleted node state changes nothing: existence of traffic does not hang on existence of the control plane.
//!
//! # Assumptions
//! Events of one object arrive in the order of its versions, as a Kubernetes watch delivers them.
//!
//! The crate is pure, except [`Store`], which uses `std::fs` and nothing else.

mod cluster;
mod error;
mod event;
mod node;
mod state;
mod store;
mod union;

pub use error::Error;
pub use event::{Event, Owner, Slice};
pub use state::{Accepted, Change, Save, State};
pub use store::{Loaded, Store, StoreError};
