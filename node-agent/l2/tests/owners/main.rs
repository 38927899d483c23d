//! Several nodes, their programs and the network between them, with a clock that the test turns.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod histories;
mod sim;
mod stories;
