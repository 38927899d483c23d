//! `cilium-agent`: brings one node in line with what the operator planned for it.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | settings from the mounted ConfigMap and the environment |
//! | [`watch`], [`ack`] | the two watches on the API server, and the one write to it |
//! | [`brain`] | the single owner of state and dataplane: everything is decided and applied there, by one loop |
//! | [`host`], [`kernel`], [`links`], [`flows`] | devices and programs of the node, tables, how pods are linked, connections |
//! | [`sockets`] | sockets whose backend is gone are told |
//! | [`serve`] | REST over the unix socket, health, metrics |
//! | [`pressure`] | how full the tables are that traffic fills |
//! | [`kube_proxy`] | whether kube-proxy's rules are on the node, too |
//! | [`health`] | ports where load balancers ask whether a Service has backends here |
//! | [`announce`] | addresses that the node makes known on its links |
//! | [`bgp`] | what the BGP speaker is told, and says |
//! | [`dns`] | what the DNS proxy is told and tells |
//! | [`monitor`] | drops and verdicts for those who listen |
//! | [`conflist`], [`install`] | CNI configuration and plugin on the node |

mod acceleration;
mod ack;
mod announce;
mod backoff;
mod balancing;
mod bgp;
mod brain;
mod clock;
mod config;
mod conflist;
mod describe;
mod dns;
mod flows;
mod health;
mod host;
mod install;
mod kernel;
mod kube_proxy;
mod links;
mod monitor;
mod pressure;
mod rbac;
mod run;
mod serve;
mod sizes;
mod sockets;
mod watch;
mod wires;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Brings this node in line with its CiliumNodeState: pods, policies, services and routes in the kernel.
#[derive(Parser)]
#[command(name = "cilium-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Directory with one file for each setting, as a mounted ConfigMap has it.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Name of this node.
    #[arg(long, env = "K8S_NODE_NAME", value_name = "NAME", default_value = "")]
    node_name: String,
    /// Namespace in which the agent runs, and finds its Secrets.
    #[arg(long, env = "CILIUM_K8S_NAMESPACE", value_name = "NAMESPACE", default_value = "kube-system")]
    namespace: String,
}

#[derive(Subcommand)]
enum Command {
    /// Copy the CNI plugins to the node: ours always, others only where they are missing. Each appears whole or not at all.
    InstallCni {
        /// Directory that the plugins are taken from.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The node's plugin directory.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Print the rules of the ClusterRole that the agent needs.
    Rbac,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::InstallCni { from, to }) => install::install(&from, &to),
        Some(Command::Rbac) => {
            print!("{}", rbac::RULES);
            Ok(())
        }
        None => start(arguments.config_dir.as_deref(), &arguments.node_name, arguments.namespace),
    }
}

fn start(config_dir: Option<&std::path::Path>, node: &str, namespace: String) -> anyhow::Result<()> {
    // The client logs each failed attempt as an error; what matters of that we say ourselves.
    let default = || EnvFilter::new("info,kube_client=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Pods wait for it while others keep all processors busy with starting them.
    if let Err(error) = cilium_drivers::turns::shorten() {
        tracing::debug!(%error, "no short turns");
    }
    let settings = config::Settings::load(config_dir, node).context("the configuration cannot be used")?;
    // One thread: all work is short, and a second would cost memory on every node.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
    runtime.block_on(run::run(settings, namespace))
}
