//! Which nodes announce which addresses of Services on their links, as CiliumL2AnnouncementPolicies say.
//!
//! Pure. [`L2`] is fed with policies, Services and nodes as they are; [`L2::plan`] decides, [`L2::announcement`] gives the part of a node.
//!
//! | module | what |
//! |---|---|
//! | `policy` | a policy, reduced; what is malformed in it |
//! | `service` | a Service, reduced: its labels, its addresses, nodes with backends |
//! | `order` | the order of an address's owners |
//! | `l2` | who announces what |
//! | `reach` | what became of a policy, and which node answers |
//! | `check` | what must hold after every plan |
//!
//! # Guarantees
//! - The outcome depends on the present objects only.
//! - The order of the owners of an address depends on their names and the address alone: a node that goes hands on what it had and nothing
//!   else moves, one that comes takes its share and nothing else moves.
//! - A change touches only addresses that it can reach.

mod check;
mod l2;
mod order;
mod policy;
mod reach;
mod service;

pub use l2::{Changes, L2};
pub use policy::{Fault, Field, Policy};
pub use reach::Reach;
pub use service::{Claim, Served};
