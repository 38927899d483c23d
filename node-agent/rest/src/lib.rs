//! What the agent's REST API says ([`model`]), and a client for it ([`Client`]); what agent and DNS proxy say to each other
//! ([`dns`]), and agent and BGP speaker ([`bgp`]).
//!
//! Paths and fields follow upstream's `/v1` API where it has them; see `docs/design/agent-api.md`. The client is
//! blocking: the programs that use it (CNI plugin, `cilium-dbg`) make one request after the other and must start fast.

pub mod bgp;
mod client;
pub mod dns;
pub mod model;

pub use client::{Client, Error, Lines};

/// Where the agent listens unless told otherwise.
pub const SOCKET: &str = "/var/run/cilium/cilium.sock";

/// Environment variable that names another socket, with or without `unix://`.
pub const SOCKET_VARIABLE: &str = "CILIUM_SOCK";

/// The socket to use: `explicit`, else [`SOCKET_VARIABLE`], else [`SOCKET`].
pub fn socket_path(explicit: Option<&str>) -> std::path::PathBuf {
    let variable = std::env::var(SOCKET_VARIABLE).ok();
    let name = explicit.or(variable.as_deref()).unwrap_or(SOCKET);
    name.strip_prefix("unix://").unwrap_or(name).into()
}
