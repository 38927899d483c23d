//! The BGP speaker of a node: sessions with routers, over which they learn the node's prefixes.
//!
//! It is a process of its own: agents come and go, sessions stay. It is told what to be over HTTP on a unix socket
//! ([`cilium_rest::bgp`]), keeps that on disk, and starts with what it kept.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | what a configuration must be; what of it makes a session (pure) |
//! | [`export`] | from prefixes and advertisements to what a peer is told (pure) |
//! | [`session`] | one connection from OPEN to its end: bytes and time in, bytes and events out (pure) |
//! | [`rib`] | what a peer made known, and what of it is best (pure) |
//! | [`retention`] | how long routes stay without a session: graceful restart (pure) |
//! | `peer` | a neighbour's task: connections, collisions, what it was told |
//! | `connect` | TCP sockets and their options |
//! | [`speaker`] | all of them behind one handle |
//! | [`kept`] | what is on disk |
//! | [`serve`] | the unix socket |
//! | `gobgp` | the same for GoBGP's clients, on a second one |
//!
//! # Who is told what
//! Prefixes and configuration become one sorted table for each group of peers that are told the same. A peer's task compares the table
//! that it said last with the one that it shall say, as soon as the peer has taken all that was said before: a slow peer is told less
//! often, and costs no memory. The bytes that lead from one table to the next are made once, and sent to all that go the same way.

mod common;
pub mod config;
mod connect;
pub mod export;
mod gobgp;
pub mod kept;
mod peer;
pub mod retention;
pub mod rib;
pub mod serve;
pub mod session;
pub mod speaker;

pub use common::MAX_PREFIXES;
pub use speaker::Speaker;
