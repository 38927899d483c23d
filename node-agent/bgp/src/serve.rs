//! HTTP on the unix socket, as `cilium_rest::bgp` describes it.

use std::fs;
use std::io;
use std::path::Path;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use cilium_rest::bgp::{Config, Peers, RouteChanges, Routes};
use rustix::fs::Mode;
use serde::Serialize;
use tokio::net::UnixListener;

use crate::speaker::{NoRoutes, Speaker};

/// Bytes of a body: a million prefixes with two advertisements each.
const LONGEST_BODY: usize = 128 << 20;

type Refusal = (StatusCode, String);

/// Takes the socket over from an earlier process. Only root may connect.
///
/// # Errors
/// The file cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

/// What is served.
pub fn routes(speaker: Speaker) -> Router {
    Router::new()
        .route("/v1/config", put(set_config))
        .route("/v1/routes", get(list_routes).put(set_routes).patch(change_routes))
        .route("/v1/peers", get(peers))
        .route("/v1/import", get(import))
        .route("/v1/policies", get(policies))
        .fallback(async |uri: Uri| (StatusCode::NOT_FOUND, format!("there is no {}", uri.path())))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(speaker)
}

fn body<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    body.map(|Json(value)| value).map_err(|error| (error.status(), error.body_text()))
}

async fn set_config(
    State(speaker): State<Speaker>,
    config: Result<Json<Config>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let refused = |error: crate::config::Error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    speaker.set_config(body(config)?).map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_routes(
    State(speaker): State<Speaker>,
    routes: Result<Json<Routes>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    speaker.set_routes(body(routes)?);
    Ok(StatusCode::NO_CONTENT)
}

async fn change_routes(
    State(speaker): State<Speaker>,
    changes: Result<Json<RouteChanges>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let refused = |error: NoRoutes| (StatusCode::CONFLICT, error.to_string());
    speaker.change_routes(body(changes)?).map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn peers(State(speaker): State<Speaker>, uri: Uri) -> Result<Json<Peers>, Refusal> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(Json(speaker.peers())) };
    match query.strip_prefix("after=").and_then(|number| number.parse().ok()) {
        Some(after) => Ok(Json(speaker.peers_after(after).await)),
        None => Err((StatusCode::BAD_REQUEST, format!("{query:?} is not after=GENERATION"))),
    }
}

async fn list_routes(State(speaker): State<Speaker>) -> Result<Response, Refusal> {
    listed(move || speaker.routes()).await
}

async fn import(State(speaker): State<Speaker>) -> Result<Response, Refusal> {
    listed(move || speaker.import()).await
}

async fn policies(State(speaker): State<Speaker>) -> Result<Response, Refusal> {
    listed(move || speaker.policies()).await
}

/// A list that may be long is made in another thread than the one that sessions have.
async fn listed<T: Serialize>(list: impl FnOnce() -> T + Send + 'static) -> Result<Response, Refusal> {
    let answer = tokio::task::spawn_blocking(move || Json(list()).into_response()).await;
    answer
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("the list could not be made: {error}")))
}
