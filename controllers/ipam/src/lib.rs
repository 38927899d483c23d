//! Addresses and endpoint numbers for pods, out of the pod prefixes of their nodes, or out of pools.
//!
//! Pure: it remembers what is given, and nothing else. The record that outlives a restart is with the caller, who
//! gives it back through [`Ipam::restore`] before the first [`Ipam::allocate`].
//!
//! # Guarantees
//! - No address is held twice, in the whole cluster, and no endpoint number twice on a node.
//! - What [`Ipam::allocate`] gives lies in a prefix of the node, and is neither the first address of it (the network), nor
//!   the second (the router, see [`Ipam::router`]), nor the last one of an IPv4 prefix (broadcast).
//! - With pools ([`Ipam::with_pools`]), what [`Ipam::allocate_from`] gives lies in a block that the node has of the pool, and no
//!   block is on two nodes. A node keeps one free block of a pool, until another node needs it.
//! - The search starts after what was given last, so a freed address or number is the last to be used again.
//! - The same calls in the same order give the same answers.

mod blocks;
mod choice;
mod error;
mod ipam;
mod numbers;
mod pool;
mod range;

pub use choice::{Asker, Choice, Request};
pub use error::Error;
pub use ipam::{Ipam, Lease, Record, Router};
pub use numbers::{FIRST_ID, LAST_ID};
pub use pool::{Invalid, Pool};
