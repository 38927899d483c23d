//! What tests on a real cluster share: kubectl, namespaces that go away, waiting, and killing processes.
//!
//! Nothing here knows which cluster it is: `KUBECONFIG` says where the API server is, pods do the rest.

pub mod announced;
pub mod cli;
pub mod kubectl;
pub mod nodes;
pub mod outside;
pub mod pods;
pub mod routed;
pub mod router;
pub mod scenes;
pub mod wait;
pub mod watches;

pub use kubectl::{Namespace, apply, feed, kubectl, kubectl_json};
pub use pods::{Ran, exec};
pub use wait::{eventually, holds_for};
