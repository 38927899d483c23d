//! What the kernel shall hold: from parts of desired state and facts of this node to entries of maps and routes.
//!
//! [`Dataplane`] keeps the desired entries up to date part by part, and brings a [`Kernel`] in line with them. It is pure:
//! the kernel is a trait, time is an input.
//!
//! # Guarantees
//! - What is desired depends only on the present parts and facts, never on how they came about.
//! - Content that is looked up through a generation (policies, backends and their tables) is written under a new generation, read back, and
//!   then put in force by one write. There is no moment with half of it, and none with nothing. The entries of the old
//!   generation go only after [`GRACE`], when no program can be in the middle of a look-up any more.
//! - What does not fit or fails leaves the old content in force and is named by [`Dataplane::failures`].
//! - A generation of policy is never used twice while the connection table lives: the next number is kept in the kernel too.
//!   Every identity has its own, also when no policy selects it: a pod that gets another identity is judged anew.
//! - Addresses that stand for somebody else now are named by [`Dataplane::take_reassigned`]: what the connection table
//!   has of them was allowed to another.
//! - When a prefix outside of the cluster gets, loses or changes its identity, all policies that restrict anything get a new
//!   generation: connections of addresses inside are judged anew, and none is forgotten.
//! - An address with names that policies ask for has an identity for them before its first packet is judged by it, and policies allow
//!   that identity what they allow the address without names. So nothing that was allowed is judged anew.
//! - A restarted agent that calls [`Dataplane::adopt`] first finds slots and generations again and writes nothing that is
//!   there already.
//! - A pod's addresses are in the endpoint map only while it is both planned and linked, under the same UID.
//!
//! # Assumptions
//! Nobody else writes the maps while a method runs; what others changed before is found by [`Dataplane::check`].

mod block;
mod compile;
mod config;
mod dataplane;
mod decide;
mod displaced;
mod endpoints;
mod ipcache;
mod kernel;
pub mod maglev;
mod named;
mod nodes;
mod pieces;
mod policies;
mod redirects;
mod services;
mod switched;

pub use block::InvalidRange;
pub use compile::{AddressBlock, Compiled, Rule, compile, cookie, logs_of, origins_of};
pub use config::{Balancing, Config, Devices, Link, Mac, Mode, Neighbour, Route};
pub use dataplane::{Dataplane, Unready};
pub use displaced::Displaced;
pub use endpoints::Planned;
pub use kernel::{Behind, BehindKey, Kernel, Lookup, Parts, Piece, PieceKey, SlotIndex};
pub use nodes::{router_address, routers};

/// How long entries of a generation stay after the switch away from it, in milliseconds. A program runs for microseconds; the
/// margin is for one that was preempted in the middle of a look-up.
pub const GRACE: u64 = 100;
