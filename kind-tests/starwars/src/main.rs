//! The space station of the demo: a small HTTP server that answers like the well-known original.
//!
//! It listens on port 80 (or the port given as first argument), on IPv6 and IPv4.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

const API: [&str; 6] = [
    "GET   /v1",
    "GET   /v1/healthz",
    "POST  /v1/request-landing",
    "PUT   /v1/cargobay",
    "GET   /v1/hyper-matter-reactor/status",
    "PUT   /v1/exhaust-port",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(port) => {
            port.parse().with_context(|| format!("{port:?} is not a port; usage: starwars [PORT]"))?
        }
        None => 80,
    };
    let listener = TcpListener::bind(SocketAddr::from(([0u16; 8], port)))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    let mut term = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => serve(accepted?.0),
            _ = term.recv() => return Ok(()),
        }
    }
}

fn serve(stream: TcpStream) {
    tokio::spawn(async move {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(
            TokioIo::new(stream),
            service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) }),
        );
        if let Err(error) = connection.await {
            eprintln!("connection ended: {error}");
        }
    });
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = route(request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

fn route(method: &Method, path: &str) -> (StatusCode, String) {
    match (method.as_str(), path.trim_end_matches('/')) {
        ("GET", "/v1") => (StatusCode::OK, about()),
        ("GET", "/v1/healthz" | "/v1/hyper-matter-reactor/status") => (StatusCode::OK, "OK\n".to_owned()),
        ("POST", "/v1/request-landing") => (StatusCode::OK, "Ship landed\n".to_owned()),
        ("PUT", "/v1/cargobay") => (StatusCode::OK, "Cargo stored\n".to_owned()),
        ("PUT", "/v1/exhaust-port") => {
            (StatusCode::SERVICE_UNAVAILABLE, "Panic: deathstar exploded\n".to_owned())
        }
        (_, path) => {
            (StatusCode::NOT_FOUND, format!("no {method} {path} here; GET /v1 lists what there is\n"))
        }
    }
}

fn about() -> String {
    let station = serde_json::json!({
        "name": "Death Star",
        "hostname": std::env::var("HOSTNAME").unwrap_or_default(),
        "model": "DS-1 Orbital Battle Station",
        "starship_class": "Deep Space Mobile Battlestation",
        "api": API,
    });
    format!("{station:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_what_the_guide_shows() {
        assert_eq!(route(&Method::POST, "/v1/request-landing"), (StatusCode::OK, "Ship landed\n".into()));
        assert_eq!(route(&Method::PUT, "/v1/exhaust-port").0, StatusCode::SERVICE_UNAVAILABLE);
        assert!(route(&Method::GET, "/v1").1.contains("\"name\": \"Death Star\""));
        assert_eq!(route(&Method::GET, "/v1/request-landing").0, StatusCode::NOT_FOUND);
    }
}
