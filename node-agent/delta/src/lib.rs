//! Desired, actual, pending: the one generic by which the agent brings kernel state in line with a plan.
//!
//! A [`Tracker`] remembers what should be (*desired*) and what was last seen to be (*actual*). What differs is
//! *pending*, and [`Tracker::apply`] carries out exactly that on a [`Table`]: a BPF map, the route table, the neighbours
//! of a device. An operation that fails stays pending and is tried again by the next `apply`.
//!
//! # Guarantees
//! - `apply` calls [`Table::set`] only where actual differs from desired and [`Table::delete`] only for what is actual and
//!   not desired. Nothing is touched while nothing is pending.
//! - After an `apply` without failures on a table that nobody else edits, the table holds exactly the desired entries.
//! - Any sequence of changes leads to the same table as setting the last desired state at once.
//!
//! # Assumptions
//! A new tracker knows nothing of the table: [`Tracker::refresh`] (or [`Tracker::observe`]) before the first `apply`,
//! otherwise entries of an earlier process are never removed. A tracker owns *every* entry that its table lists;
//! a table that is shared with others must list only what is ours.
//!
//! # Cost
//! An entry that is in sync is stored once; `apply` costs as much as there are pending entries, not as many as exist.

mod table;
mod tracker;

pub use table::{MemoryTable, Table};
pub use tracker::{Change, Drift, Order, Report, Tracker};
