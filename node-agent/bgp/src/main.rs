//! `cilium-bgp`: the BGP speaker of a node, see the library.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cilium_bgp::{MAX_PREFIXES, Speaker, serve};
use cilium_rest::bgp;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Holds BGP sessions with the routers of this node, and tells them its prefixes.
#[derive(Parser)]
#[command(name = "cilium-bgp", version)]
struct Arguments {
    /// Socket on which it is told what to be; only root may connect.
    #[arg(long, value_name = "PATH", default_value = bgp::SOCKET)]
    socket: PathBuf,
    /// Socket on which GoBGP's clients may look at it; only root may connect. By default, `gobgp.sock` beside the other one.
    #[arg(long, value_name = "PATH")]
    gobgp_socket: Option<PathBuf>,
    /// Folder that keeps configuration and prefixes over a restart.
    #[arg(long, value_name = "DIR", default_value = "/var/run/cilium/bgp")]
    state_dir: PathBuf,
    /// Prefixes of both families that a peer may make known: a session with more ends.
    #[arg(long, value_name = "COUNT", default_value_t = MAX_PREFIXES)]
    max_prefixes: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let speaker = Speaker::start(&arguments.state_dir)
        .with_context(|| format!("cannot keep anything in {}", arguments.state_dir.display()))?;
    speaker.set_max_prefixes(arguments.max_prefixes);
    let bind =
        |path: &Path| serve::bind(path).with_context(|| format!("cannot listen on {}", path.display()));
    let socket = bind(&arguments.socket)?;
    let beside = || arguments.socket.with_file_name(cilium_gobgp::SOCKET_NAME);
    let gobgp = bind(&arguments.gobgp_socket.unwrap_or_else(beside))?;
    tracing::info!(socket = %arguments.socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let api = serve::routes(speaker.clone());
    tokio::select! {
        result = async { axum::serve(socket, api).await } => result.context("the API ended")?,
        result = cilium_gobgp::serve(gobgp, speaker.clone()) => result.context("GoBGP's API ended")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending all sessions");
    speaker.shut_down().await;
    Ok(())
}
