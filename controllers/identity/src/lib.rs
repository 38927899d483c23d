//! Numbers for label sets: allocation by one writer, references, garbage collection.
//!
//! The store is the set of CiliumIdentity objects; [`object`] reads and builds them. [`Allocator`] holds what is known of
//! them and who uses them. Pure: the caller watches, writes and passes the time, in seconds since 1970.

mod allocator;
mod garbage;
mod local;
pub mod object;

pub use allocator::{Allocation, Allocator, Duplicate, Error, Observed};
pub use garbage::{Action, HEARTBEAT_TIMEOUT, MAX_DELETIONS};
pub use local::Local;
