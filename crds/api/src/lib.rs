//! Types of the custom resources, and of what travels in them. Pure: no client, no runtime, no clock.

pub mod digest;
pub mod node_slice;
pub mod node_state;
pub mod parts;
pub mod slim;
