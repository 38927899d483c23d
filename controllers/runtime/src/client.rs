//! Connections to the API server.
//!
//! The client speaks HTTP/1.1: a connection carries one request at a time, so what is written at the same time needs
//! as many connections, and one that has to be opened first pays for TCP and TLS: 1.5 ms for one write, 5 ms for three at once
//! (two cores, server and client). [`keep_warm`] keeps a few open. HTTP/2 was measured beside it, one to eight
//! writes of 1 and 4 KiB at once: no difference to warm connections.

use std::time::Duration;

use axum::http::Request;
use axum::http::header::{HeaderValue, USER_AGENT};
use futures::future::join_all;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

use crate::root_cause;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle time after which TCP asks the other side whether it is there: a watch on a dead server would be silent otherwise.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Unacknowledged data breaks a connection after this time.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// The API server closes a connection that was idle for 90 s.
const WARM_INTERVAL: Duration = Duration::from_secs(40);

/// What can go wrong before the first request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates or keys of the configuration are unusable.
    #[error(
        "cannot set up TLS for the API server: check the CA and the client certificate of the configuration"
    )]
    Tls(#[source] kube::Error),
    /// Token or other credentials of the configuration are unusable.
    #[error("cannot use the credentials for the API server: check the token or the kubeconfig")]
    Credentials(#[source] kube::Error),
}

/// A client for `config` that calls itself `agent`: no delay of small segments, dead peers are noticed, and nothing is
/// retried behind the back of the caller.
///
/// # Errors
/// Certificates or credentials in `config` are unusable. The server need not be there.
pub fn connect(mut config: Config, agent: &'static str) -> Result<Client, Error> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
    let tls = config.rustls_https_connector_with_connector(tcp_connector()).map_err(Error::Tls)?;
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(2 * WARM_INTERVAL)
        .pool_timer(TokioTimer::new())
        .build::<_, Body>(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(Error::Credentials)?)
        .layer(config.extra_headers_layer().map_err(Error::Credentials)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

fn tcp_connector() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    tcp
}

/// Keeps `connections` of `client` open while nothing is written. Never returns.
pub async fn keep_warm(client: Client, connections: usize) {
    loop {
        join_all((0..connections).map(|_| touch(&client))).await;
        tokio::time::sleep(WARM_INTERVAL).await;
    }
}

/// One small request that every authenticated client may make; whether it succeeds is of no interest.
async fn touch(client: &Client) {
    if let Ok(request) = Request::get("/version").body(Vec::new())
        && let Err(error) = client.request_text(request).await
    {
        tracing::debug!(error = root_cause(&error).to_string(), "could not keep a connection warm");
    }
}
