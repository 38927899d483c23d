//! HTTPS, and questions to the planner.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use cilium_plan::{Config, Object};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::review::{Ruling, decide};

/// Largest review: the object and the one before it, at etcd's limit of 1.5 MiB, and what is around them.
const MAX_BODY: usize = 4 << 20;

/// Connections at a time; an API server keeps few.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to set up TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long the planner may take before an answer goes without its warnings.
const PATIENCE: Duration = Duration::from_millis(800);

/// What the planner is asked: what of the object would have no effect now.
#[derive(Debug)]
pub struct Question {
    /// The object.
    pub object: Object,
    /// Warnings for its author.
    pub answer: oneshot::Sender<Vec<String>>,
}

/// What reviews are answered with.
#[derive(Clone, Debug)]
pub struct Judge {
    config: Arc<Config>,
    planner: mpsc::Sender<Question>,
}

impl Judge {
    /// `config` is what the planner was told; questions go to `planner`.
    pub fn new(config: Config, planner: mpsc::Sender<Question>) -> Self {
        Self { config: Arc::new(config), planner }
    }

    async fn answer(&self, review: AdmissionReview<DynamicObject>) -> AdmissionReview<DynamicObject> {
        let request = match review.try_into() {
            Ok(request) => request,
            Err(error) => {
                return AdmissionResponse::invalid(format!("this is no review: {error}")).into_review();
            }
        };
        let mut response = AdmissionResponse::from(&request);
        match decide(&request, self.config.settings()) {
            Ruling::Refused(reason) => response.deny(reason),
            Ruling::Accepted { mut warnings, ask } => {
                if let Some(object) = ask {
                    warnings.extend(self.ask(object).await);
                }
                response.warnings = (!warnings.is_empty()).then_some(warnings);
                response
            }
        }
        .into_review()
    }

    /// Warnings of the planner; none when it is busy or does not know everything yet.
    async fn ask(&self, object: Object) -> Vec<String> {
        let (answer, waiting) = oneshot::channel();
        if self.planner.try_send(Question { object, answer }).is_err() {
            return Vec::new();
        }
        timeout(PATIENCE, waiting).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Answers reviews that are posted to [`crate::PATH`].
pub fn router(judge: Judge) -> Router {
    let review = |State(judge): State<Judge>, Json(review): Json<AdmissionReview<DynamicObject>>| async move {
        Json(judge.answer(review).await)
    };
    Router::new().route(crate::PATH, post(review)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(judge)
}

/// Serves over TLS with the certificate that `config` holds at the time. Never returns.
pub async fn run(listener: TcpListener, config: watch::Receiver<Arc<ServerConfig>>, router: Router) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let acceptor = TlsAcceptor::from(config.borrow().clone());
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, peer, &acceptor, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: &TlsAcceptor, router: Router) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => TokioIo::new(stream),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS with a client of the webhook"),
        Err(_) => return tracing::debug!(%peer, "a client of the webhook is silent"),
    };
    let served = auto::Builder::new(TokioExecutor::new())
        .http1_only()
        .serve_connection(stream, TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, error, "a connection to the webhook ended");
    }
}
