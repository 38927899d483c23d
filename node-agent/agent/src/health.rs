//! Where load balancers ask whether a Service has backends on this node (Kubernetes API, `ServiceSpec.healthCheckNodePort`).
//!
//! These are the only ports of the agent that others than the node reach without TLS or a name: the Kubernetes API wants them so, and
//! load balancers know nothing else. So they tell a number, take nothing, and can cost no more than they have.
//!
//! # Guarantees
//! - A request reads what was planned last. It reaches neither the brain nor the API server, and is answered while either is busy or gone.
//! - There is a bound on connections of all ports together, and on the time of each. A new one takes the place of the oldest: who keeps
//!   connections open keeps nobody else out.
//! - A port that cannot be had is told, and tried again until it can.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use axum::Json;
use axum::http::header::{HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

/// Which share of connections a load balancer may give to this node (as kube-proxy writes it).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The largest head of a request; less is not possible.
const MAX_HEAD: usize = 8192;

/// Connections that the kernel holds for a port until they are accepted.
const BACKLOG: u32 = 64;

/// What a port tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Ready backends on this node.
    pub(crate) local: usize,
}

/// What is told, by port.
pub(crate) type Checks = BTreeMap<u16, Check>;

/// Where nobody listens who should, and why.
pub(crate) type Failures = BTreeMap<SocketAddr, String>;

/// What all ports may cost together.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// As many are accepted in one go at most (tokio's budget of a task), so each has its turn before it can be the oldest.
    connections: usize,
    /// For a connection from its beginning to its end.
    patience: Duration,
    /// Between two attempts to have a port.
    again: Duration,
}

const LIMITS: Limits =
    Limits { connections: 128, patience: Duration::from_secs(5), again: Duration::from_secs(1) };

/// Serves on all addresses of these families, by a thread of its own: answers do not wait for the loop, and the loop does not wait
/// for those who ask. There is none before there is something to tell. It ends with the sender of checks.
pub(crate) async fn start(
    addresses: Vec<IpAddr>,
    mut checks: watch::Receiver<Checks>,
    failures: watch::Sender<Failures>,
) {
    if checks.wait_for(|checks| !checks.is_empty()).await.is_err() {
        return;
    }
    thread::spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(&addresses, LIMITS, checks, &failures)),
        Err(error) => {
            let all = wanted(&addresses, &checks.borrow());
            failures.send_replace(all.into_iter().map(|address| (address, error.to_string())).collect());
        }
    });
}

/// Keeps a listener for each address and port.
async fn run(
    addresses: &[IpAddr],
    limits: Limits,
    mut checks: watch::Receiver<Checks>,
    failures: &watch::Sender<Failures>,
) {
    let room = Arc::new(Room { limits, connections: Mutex::default() });
    let mut listeners: BTreeMap<SocketAddr, JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted = wanted(addresses, &checks.borrow_and_update());
        close_others(&mut listeners, &wanted).await;
        let mut failed = Failures::new();
        for address in wanted {
            if listeners.contains_key(&address) {
                continue;
            }
            match bind(address) {
                Ok(listener) => {
                    let accepting = accept(listener, address.port(), checks.clone(), room.clone());
                    listeners.insert(address, tokio::spawn(accepting));
                }
                Err(error) => drop(failed.insert(address, error.to_string())),
            }
        }
        let is_failing = !failed.is_empty();
        tell(failures, failed);
        tokio::select! {
            changed = checks.changed() => if changed.is_err() {
                return close_others(&mut listeners, &BTreeSet::new()).await;
            },
            () = sleep(limits.again), if is_failing => {}
        }
    }
}

fn wanted(addresses: &[IpAddr], checks: &Checks) -> BTreeSet<SocketAddr> {
    let of_port =
        |port: &u16| addresses.iter().map(|address| SocketAddr::new(*address, *port)).collect::<Vec<_>>();
    checks.keys().flat_map(of_port).collect()
}

/// When it returns, their ports are free: somebody else may wait for them.
async fn close_others(listeners: &mut BTreeMap<SocketAddr, JoinHandle<()>>, wanted: &BTreeSet<SocketAddr>) {
    let others = listeners.extract_if(.., |address, _| !wanted.contains(address));
    for (address, listener) in others.collect::<Vec<_>>() {
        listener.abort();
        // It says no more than that it was ended.
        let _ = listener.await;
        tracing::info!(%address, "the health check port is closed");
    }
}

/// Each family has a socket of its own, whatever the kernel's setting for IPv6 sockets is.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    tracing::info!(%address, "the health check port is open");
    Ok(listener)
}

fn tell(failures: &watch::Sender<Failures>, now: Failures) {
    failures.send_if_modified(|known| {
        let is_news = *known != now;
        for (address, error) in now.iter().filter(|(address, error)| known.get(address) != Some(error)) {
            tracing::error!(%address, error, "cannot listen on a health check port; trying until I can");
        }
        *known = now;
        is_news
    });
}

/// Connections of all ports.
struct Room {
    limits: Limits,
    /// The oldest first.
    connections: Mutex<VecDeque<AbortHandle>>,
}

impl Room {
    fn admit(&self, connection: AbortHandle) {
        let mut all = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| !it.is_finished());
        if all.len() >= self.limits.connections
            && let Some(oldest) = all.pop_front()
        {
            oldest.abort();
        }
        all.push_back(connection);
    }
}

async fn accept(listener: TcpListener, port: u16, checks: watch::Receiver<Checks>, room: Arc<Room>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve(stream, port, checks.clone());
                let connection = tokio::spawn(timeout(room.limits.patience, connection));
                room.admit(connection.abort_handle());
            }
            Err(error) => {
                tracing::debug!(port, %error, "a connection for a health check was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one request, whatever its method and path.
async fn serve(stream: TcpStream, port: u16, checks: watch::Receiver<Checks>) {
    let answer = service_fn(move |_: Request<Incoming>| {
        let response = answer(checks.borrow().get(&port));
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).title_case_headers(true).max_buf_size(MAX_HEAD);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(port, %error, "a health check was not answered");
    }
}

/// The body, in the form that kube-proxy gave it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    /// Packets are forwarded whether the agent runs or not.
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// Of a port that is about to be closed, only that it has nothing.
fn answer(check: Option<&Check>) -> Response {
    let Some(Check { namespace, name, local }) = check else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let status = if *local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()), (WEIGHT, local.to_string())];
    let service = Name { namespace, name };
    let body = Answer { service, local_endpoints: *local, service_proxy_healthy: true };
    (status, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
