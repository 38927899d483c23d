//! The table and the reader of messages, from outside.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod messages;
mod tables;
