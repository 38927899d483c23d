//! The crate from outside: objects in, compiled policies and verdicts out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]

mod by_name;
mod clusternetpols;
mod dns;
mod explain;
mod history;
mod index;
mod kubernetes;
mod meaning;
mod netpols;
mod notes;
mod reference;
mod starwars;
mod support;
mod tiers;
mod validity;
