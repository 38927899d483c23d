//! Pools and Services in, addresses and conditions out.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]
#![expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]

mod assignment;
mod history;
mod ownership;
mod pools;
mod reasons;
mod sharing;
mod world;
