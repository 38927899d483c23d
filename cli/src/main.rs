//! `cilium`: questions about a cluster, for people and scripts.
//!
//! It lists objects through the API server and plans them with the same code as the operator, so what it says is what the operator
//! does. It writes nothing. What nodes know of themselves, it asks their pods. What other products' objects are here, it says without a cluster.

mod args;
mod bgp;
mod cluster;
mod diff;
mod explain;
mod files;
mod manifests;
mod migrate;
mod name;
#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]
mod testing;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command, MigrateCommand, PolicyCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(&cli) {
        Ok(code) => code,
        Err(error) if cilium_print::output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(run(cli))
}

async fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Policy(PolicyCommand::Explain(args)) => {
            explain::run(cli, args).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Policy(PolicyCommand::Diff(args)) => diff::run(cli, args).await,
        Command::Bgp(command) => bgp::run(cli, command).await,
        Command::Migrate(MigrateCommand::Metallb(args)) => migrate::run(cli, args),
    }
}
