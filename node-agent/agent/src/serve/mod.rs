//! What the agent serves: REST over the unix socket, health and metrics over the loopback.

mod maglev;
mod maps;
mod metrics;
mod rest;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use rustix::fs::Mode;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Settings;
use crate::run::Handle;

/// Takes the socket over from an earlier process. Only root may connect.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let failed = || format!("cannot listen on {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener.with_context(failed)
}

/// Starts all servers.
pub(crate) async fn start(settings: &Settings, socket: UnixListener, handle: &Handle) -> anyhow::Result<()> {
    let api = rest::routes(settings.bpffs.clone(), handle.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(socket, api).await {
            tracing::error!(%error, "the API ended");
        }
    });
    let health = Router::new().route("/healthz", get(healthz)).with_state(handle.clone());
    let loopbacks: [(bool, IpAddr); 2] =
        [(true, Ipv4Addr::LOCALHOST.into()), (settings.ipv6, Ipv6Addr::LOCALHOST.into())];
    for (_, address) in loopbacks.into_iter().filter(|(wanted, _)| *wanted) {
        serve(SocketAddr::new(address, settings.health_port), health.clone()).await?;
    }
    if let Some(address) = settings.prometheus {
        serve(address, metrics::routes(settings.bpffs.clone(), handle.clone())).await?;
    }
    Ok(())
}

async fn serve(address: SocketAddr, routes: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%address, %error, "a server ended");
        }
    });
    Ok(())
}

/// Ready when pods can be connected. Who does not ask for the API server (`require-k8s-connectivity: false`, the liveness
/// probe) is answered as soon as the loop does: a node that waits for its first state is not to be restarted.
async fn healthz(State(handle): State<Handle>, headers: HeaderMap) -> StatusCode {
    let only_alive =
        headers.get("require-k8s-connectivity").is_some_and(|value| value.as_bytes() == b"false");
    match handle.ask(|brain| brain.is_running()).await {
        Ok(running) if running || only_alive => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
