//! `cilium-dbg`: what the agent of this node knows and does, for people.

mod cli;

use std::process::ExitCode;
use std::time::Duration;

use cilium_rest::Client;
use cilium_rest::model::Endpoint;
use clap::Parser as _;

use cli::{Cli, Command, EndpointCommand};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let socket = cilium_rest::socket_path(cli.host.as_deref());
    let client = Client::new(&socket, Some(Duration::from_secs(30)));
    match &cli.command {
        Command::Endpoint { command: EndpointCommand::List } => {
            let endpoints: Vec<Endpoint> = client.get("/v1/endpoint")?;
            println!("{}", serde_json::to_string_pretty(&endpoints)?);
        }
    }
    Ok(())
}
