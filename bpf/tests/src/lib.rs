//! A stage for the eBPF programs: a node with two pods in a network namespace of its own, on which single packets are run
//! through single programs (`BPF_PROG_TEST_RUN`), and what came out is compared.
//!
//! | module | what |
//! |---|---|
//! | [`stage`] | the node: programs, maps, devices |
//! | [`packet`] | packets as they stand on the wire |
//! | [`seen`] | what stands in a packet, and whether its checksums are right |
//! | [`services`] | what packets from outside may be for |
//! | [`cluster`] | two nodes with real packets between them |
//! | [`btf`] | the structs that an object describes |

pub mod btf;
pub mod cluster;
pub mod packet;
pub mod seen;
pub mod services;
pub mod stage;

pub use packet::{Echo, Family, Tcp};
pub use seen::Seen;
pub use stage::{Action, Mode, Outcome, Place, Rule, Stage};
