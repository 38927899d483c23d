//! The parts of `cilium-operator`: watches the cluster, plans what every node has to do, and writes it.
//!
//! Of several operators one leads; the others wait for its Lease. Everything runs on one thread: the planner is the only
//! consumer of time worth mentioning, and it is synchronous.
//!
//! ```text
//! watches ──news──► brain (planner, nodes to open) ──jobs──► writer ──► API server
//!                     ▲                                        │
//!                     └───────────────reports──────────────────┘
//! ```

pub mod bootstrap;
pub mod brain;
pub mod feed;
pub mod heartbeat;
pub mod jobs;
pub mod kinds;
pub mod metrics;
pub mod options;
pub mod rbac;
pub mod run;
pub mod webhook;
