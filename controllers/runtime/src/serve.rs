//! Health and metrics over HTTP.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What can go wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is wrong or in use.
    #[error("cannot listen on {address}: give another address, or stop what uses it")]
    Bind {
        /// Address as it was given.
        address: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The server ended.
    #[error("the server stopped")]
    Serve(#[source] io::Error),
}

/// Listens on `address`: `host:port`, or `:port` for all addresses of the host.
///
/// # Errors
/// The address cannot be parsed, resolved or bound.
pub async fn bind(address: &str) -> Result<TcpListener, Error> {
    let bound = match address.strip_prefix(':') {
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            // A kernel without IPv6.
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
            bound => bound,
        },
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|source| Error::Bind { address: address.to_owned(), source })
}

/// Answers `GET /healthz` (and `/v1/healthz`) with 200 while the process runs its event loop.
///
/// An API server that is away does not make the process unhealthy: a restart would not bring it back.
pub fn health() -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/v1/healthz", get(|| async { "ok" }))
}

/// Answers `GET /metrics` in the OpenMetrics text format.
pub fn metrics(registry: Arc<Registry>) -> Router {
    Router::new().route("/metrics", get(move || std::future::ready(render(&registry))))
}

fn render(registry: &Registry) -> impl IntoResponse + use<> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            "the metrics could not be encoded\n".to_owned(),
        ),
    }
}

/// Serves `router` until the process ends.
///
/// # Errors
/// Accepting connections failed for good.
pub async fn run(listener: TcpListener, router: Router) -> Result<(), Error> {
    axum::serve(listener, router).await.map_err(Error::Serve)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(router: Router, path: &str) -> String {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(run(listener, router));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn health_says_ok() {
        assert!(fetch(health(), "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(health(), "/nothing").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn metrics_carry_the_registered_values() {
        let mut registry = Registry::with_prefix("cilium_operator");
        let metrics = crate::metrics::Metrics::register(&mut registry);
        metrics.leader.set(1);
        let answer = fetch(super::metrics(Arc::new(registry)), "/metrics").await;
        assert!(answer.contains("cilium_operator_leader 1"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[tokio::test]
    async fn a_port_alone_means_all_addresses() {
        assert!(bind(":0").await.unwrap().local_addr().unwrap().ip().is_unspecified());
    }
}
