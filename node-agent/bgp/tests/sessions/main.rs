//! Speakers that talk to each other, in a network namespace of their own.

mod connections;
mod exchange;
mod node;
