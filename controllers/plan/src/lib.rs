//! The planner: Kubernetes objects in, desired node state out.
//!
//! Pure and synchronous: the caller watches, writes and tells the time. [`Planner`] says how; `docs/design/node-state.md`
//! says what the output means.
//!
//! | module | holds |
//! |---|---|
//! | [`Planner`] | the order of a plan |
//! | `pod`, `node`, `policies`, ... | objects, reduced to what can change a plan |
//! | `endpoints`, `identities`, `enforcement`, `prefixes`, `groups`, `references`, `api_server`, `redirects`, `announcements`, `routing` | what follows from them |
//! | `pack` | parts in slices |
//! | `load_balancers` | addresses for Services |
//! | `ledger`, `slices`, `node::State` | what stands in the API, and what has to be written |
//! | `public_*`, `status`, `reports` | what people look at |
//! | `effect` | what of policies has no effect |
//! | `view` | questions of people about the plan |
//! | `restore`, `last_valid` | what a start takes over |
//! | `check` | what must hold after every plan |

mod announcements;
mod api_server;
#[cfg(any(test, debug_assertions))]
mod check;
mod compiled;
mod config;
mod delayed;
mod effect;
mod endpoints;
mod enforcement;
mod groups;
mod identities;
mod last_valid;
mod ledger;
mod load_balancers;
mod names;
mod node;
mod nodes;
mod object;
mod output;
mod pack;
mod packed;
mod planner;
mod pod;
mod pod_pools;
mod policies;
mod prefixes;
mod public_endpoint;
mod public_node;
mod redirects;
mod references;
mod reports;
mod restore;
mod routing;
mod slices;
mod status;
mod totals;
mod troubled;
mod view;

pub use config::{Config, ServiceConfig};
pub use last_valid::OWNER_LABEL as POLICY_OWNER;
pub use object::{Kind, Object, ObjectKey, UnreadablePolicy};
pub use output::{
    Action, Event, NodeDesired, NodeRest, Outcome, Output, Precondition, Report, ServiceStatus, Write,
};
pub use planner::Planner;
pub use totals::Totals;
pub use view::{Access, End, Explained};
