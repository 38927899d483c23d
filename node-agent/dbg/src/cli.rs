use clap::{Parser, Subcommand};

/// Looks into the agent of this node.
#[derive(Debug, Parser)]
#[command(name = "cilium-dbg", version)]
pub(crate) struct Cli {
    /// Socket of the agent's API
    #[arg(short = 'H', long, global = true, env = cilium_rest::SOCKET_VARIABLE, value_name = "SOCKET")]
    pub(crate) host: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pods of this node
    Endpoint {
        #[command(subcommand)]
        command: EndpointCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// All of them
    List,
}
