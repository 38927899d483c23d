//! Who speaks BGP with whom about what: single decisions, and random histories.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]

mod attributes;
mod conditions;
mod history;
mod router_ids;
mod routes;
mod sessions;
mod world;
