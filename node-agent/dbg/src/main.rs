//! `cilium-dbg`: what the agent of this node knows and does, for people and scripts.
//!
//! It asks the agent, and about BGP the speaker, over its unix socket (`docs/design/agent-api.md`) and prints tables, or the data itself with `-o`.
//! The exit status is 1 when the agent does not answer; `status` also tells by it whether the agent is well.

mod bgp;
mod cli;
mod cluster;
mod endpoint;
mod flush;
mod kernel;
mod list;
mod monitor;
mod status;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use cilium_rest::Client;
use cilium_rest::model::{
    Announcement, BackendEntry, CtEntry, Endpoint, EndpointEntry, Identity, IpEntry, IpcacheEntry,
    MaglevEntry, MetricEntry, NameEntry, NatEntry, PolicyEntry, Redirect, Service, ServiceEntry,
};
use clap::Parser as _;

use crate::cli::{
    AnnouncementCommand, BpfCommand, BpfEndpointCommand, BpfPolicyCommand, Cli, Command, CtCommand,
    EndpointCommand, FqdnCacheCommand, FqdnCommand, IdentityCommand, IpCommand, IpcacheCommand, LbCommand,
    MaglevCommand, MetricsCommand, NatCommand, NodeCommand, PolicyCommand, RedirectCommand, ServiceCommand,
};
use crate::list::list;

/// How long the agent may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) if cilium_print::output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let patience = if let Command::Status(args) = &cli.command { args.timeout } else { PATIENCE };
    let client = Client::new(&cilium_rest::socket_path(cli.host.as_deref()), Some(patience));
    match &cli.command {
        Command::Status(args) => return status::run(&client, args),
        Command::Endpoint(EndpointCommand::List(output)) => list::<Endpoint>(&client, output),
        Command::Endpoint(EndpointCommand::Get { id, output }) => endpoint::get(&client, id, output),
        Command::Policy(PolicyCommand::Get(output)) => cluster::policy(&client, output),
        Command::Identity(IdentityCommand::List(output)) => list::<Identity>(&client, output),
        Command::Identity(IdentityCommand::Get { id, output }) => cluster::identity(&client, *id, output),
        Command::Service(ServiceCommand::List(output)) => list::<Service>(&client, output),
        Command::Lrp(RedirectCommand::List(output)) => list::<Redirect>(&client, output),
        Command::Bgp(command) => bgp::run(command),
        Command::L2Announce(AnnouncementCommand::List(output)) => list::<Announcement>(&client, output),
        Command::Ip(IpCommand::List(output)) => list::<IpEntry>(&client, output),
        Command::Fqdn(FqdnCommand::Cache(FqdnCacheCommand::List(output))) => {
            list::<NameEntry>(&client, output)
        }
        Command::Node(NodeCommand::List(output)) => cluster::nodes(&client, output),
        Command::Bpf(command) => bpf(&client, command),
        Command::Monitor(args) => monitor::run(&client, args),
        Command::Version(output) => version::run(&client, output),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn bpf(client: &Client, command: &BpfCommand) -> anyhow::Result<()> {
    match command {
        BpfCommand::Endpoint(BpfEndpointCommand::List(output)) => list::<EndpointEntry>(client, output),
        BpfCommand::Ipcache(IpcacheCommand::List(output)) => list::<IpcacheEntry>(client, output),
        BpfCommand::Policy(BpfPolicyCommand::List(output)) => list::<PolicyEntry>(client, output),
        BpfCommand::Policy(BpfPolicyCommand::Get { id, output }) => kernel::policy(client, id, output),
        BpfCommand::Policy(BpfPolicyCommand::Flush(args)) => flush::policy(args),
        BpfCommand::Ct(CtCommand::List(output)) => list::<CtEntry>(client, output),
        BpfCommand::Nat(NatCommand::List(output)) => list::<NatEntry>(client, output),
        BpfCommand::Lb(LbCommand::List { backends: false, output }) => list::<ServiceEntry>(client, output),
        BpfCommand::Lb(LbCommand::List { backends: true, output }) => list::<BackendEntry>(client, output),
        BpfCommand::Lb(LbCommand::Maglev(MaglevCommand::List(output))) => list::<MaglevEntry>(client, output),
        BpfCommand::Metrics(MetricsCommand::List(output)) => list::<MetricEntry>(client, output),
    }
}
