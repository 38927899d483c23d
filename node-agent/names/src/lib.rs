//! What DNS tells a node: which addresses a name has, for how long, and what a DNS message is about.
//!
//! Pure: time is an input, in seconds since 1970, so that what was learned survives a restart.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | [`Question`], [`Answer`]: the few things about a message that matter; the message itself is never changed |
//! | [`table`] | [`Table`]: names and their addresses, as long as they live or are in use |

pub mod message;
pub mod table;

pub use message::{Answer, Malformed, Question, Rcode};
pub use table::{Limits, Saved, Table};
