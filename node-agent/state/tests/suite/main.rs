//! Desired state as watches deliver it, verified, joined and kept.

mod accept;
mod build;
mod histories;
mod store;
