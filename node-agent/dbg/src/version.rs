//! Versions of this program and of the agent.

use cilium_rest::Client;
use cilium_rest::model::Status;
use serde::Serialize;

use cilium_print::output::{DataOutput, encode, print};

#[derive(Debug, Serialize)]
struct Versions {
    client: String,
    daemon: String,
}

/// Prints both; an agent that does not answer is told in its place.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(client: &Client, output: &DataOutput) -> anyhow::Result<()> {
    let versions = Versions { client: own(), daemon: daemon(client) };
    let text = match output.output {
        Some(format) => encode(&versions, format)?,
        None => format!("Client: {}\nDaemon: {}\n", versions.client, versions.daemon),
    };
    Ok(print(&text)?)
}

fn own() -> String {
    format!("{} {}/{}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

/// The agent says its version where all is well with it.
fn daemon(client: &Client) -> String {
    match client.get::<Status>("/v1/healthz") {
        Ok(status) if status.cilium.state == "Ok" => status.cilium.msg,
        Ok(status) => format!("unknown ({}: {})", status.cilium.state, status.cilium.msg),
        Err(error) => format!("unknown ({})", error.chain()),
    }
}
