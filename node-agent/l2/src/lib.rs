//! Which addresses a node answers for on its links (CiliumL2AnnouncementPolicy): decided together with the other owners of the
//! addresses and nobody else, so that the API server may be away, or by Leases, as upstream does it.
//!
//! The plan says for each address which nodes may have it, in order: the first that lives answers. Owners watch each other with
//! heartbeats on the device itself. Requests come from agents, answers from eBPF programs (`bpf/include/heartbeat.h`), so that a
//! node lives on for the others while its agent restarts; so do its answers for addresses (`bpf/include/announce.h`).
//!
//! | module | what |
//! |---|---|
//! | [`announcer`] | one device: what to do about addresses and peers, as a function of time and of what programs saw |
//! | [`frame`] | the frames that are sent |
//! | [`election`] | a Lease: whether this node takes, renews or gives it back, as a function of time and of the Lease as it was seen |
//! | [`leased`] | one device where Leases decide: what to do about addresses |
//!
//! # What never happens twice at once
//! A node answers only while a peer heard it within 300 ms: the program itself looks, whatever the agent does. Whoever wants to start
//! asks for the address first, and waits until nobody has answered for 90 ms: the next owner 500 ms after it heard the last sign of the
//! one before, and likewise one that comes back, or that a new plan names.
//!
//! A node that hears nobody cannot know whether the others are dead or it is cut off. It stops like everybody. If it lost several at
//! once, it takes itself for cut off, and is silent for 30 s, if it does not hear one of them before. Then, or at once if it lost one,
//! it asks for its addresses, and goes on with those for which nobody answers. When it hears somebody who answers, too, it stops at once, and has its
//! addresses back when the others have heard for a moment that it is there.
//!
//! What stays: for a moment after two networks became one, until one hears the other (200 ms); and a node that is cut off while its agent
//! is away, until either is over.
//!
//! # Assumptions
//! Owners of an address hear each other, or are cut off from each other as a whole. If two of three do not hear each other, and the third
//! hears both, both may answer.

pub mod announcer;
pub mod election;
pub mod frame;
pub mod leased;
mod peer;
mod telling;

pub use announcer::{Action, Announcer, Claim, Signs, Standing, State};
pub use election::{Election, Tenure, Timings};
pub use frame::{ANYBODY, Mac, node_number};
pub use leased::Leased;
