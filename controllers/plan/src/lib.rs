//! The planner: Kubernetes objects in, desired node state out.
//!
//! Pure and synchronous. The caller watches and writes; see [`Planner`].

mod config;
mod object;
mod output;
mod planner;

pub use config::Config;
pub use object::{Kind, Object, ObjectKey, UnreadablePolicy};
pub use output::{Action, Event, NodeDesired, Outcome, Output, Precondition, Report, Write};
pub use planner::Planner;
