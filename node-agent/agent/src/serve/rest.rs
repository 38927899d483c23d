//! `/v1`, see `docs/design/agent-api.md`.

use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cilium_rest::model;
use tokio::sync::{mpsc, oneshot};

use super::maps;
use crate::brain::Brain;
use crate::host;
use crate::run::{Gone, Handle};

/// Names of attachments begin so.
const ATTACHMENT: &str = "cni-attachment-id:";

/// Lines that wait for a slow listener.
const BACKLOG: usize = 1024;

#[derive(Clone)]
struct Api {
    bpffs: PathBuf,
    handle: Handle,
}

/// An answer that is not a success.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(model::Refusal { message: self.1 })).into_response()
    }
}

impl From<Gone> for Refused {
    fn from(gone: Gone) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())
    }
}

type Answer<T> = Result<Json<T>, Refused>;

pub(super) fn routes(bpffs: PathBuf, handle: Handle) -> Router {
    Router::new()
        .route("/v1/healthz", get(status))
        .route("/v1/config", get(config))
        .route("/v1/ipam", post(ipam))
        .route("/v1/endpoint", get(endpoints))
        .route("/v1/endpoint/{id}", get(endpoint).put(connect).delete(disconnect))
        .route("/v1/identity", get(identities))
        .route("/v1/policy", get(policies))
        .route("/v1/service", get(services))
        .route("/v1/lrp", get(redirects))
        .route("/v1/l2-announcement", get(announcements))
        .route("/v1/ip", get(ips))
        .route("/v1/cluster/nodes", get(nodes))
        .route("/v1/fqdn/cache", get(names).delete(forget_names))
        .route("/v1/map/{name}", get(map))
        .route("/v1/monitor", get(monitor))
        .fallback(async |uri: Uri| {
            Refused(
                StatusCode::NOT_FOUND,
                format!("there is no {}, see docs/design/agent-api.md", uri.path()),
            )
        })
        .with_state(Api { bpffs, handle })
}

async fn status(State(api): State<Api>) -> Answer<model::Status> {
    let mut status = api.handle.ask(|brain| brain.status()).await?;
    status.node_monitor = maps::monitor(&api.bpffs).await;
    Ok(Json(status))
}

async fn config(State(api): State<Api>) -> Answer<model::Config> {
    Ok(Json(api.handle.ask(|brain| brain.config()).await?))
}

async fn ipam(State(api): State<Api>, uri: Uri) -> Answer<model::IpamAnswer> {
    let query = |wanted: &str| {
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.replace("%2F", "/"))
    };
    let owner = query("owner").unwrap_or_default();
    let Some((namespace, pod)) = owner.split_once('/') else {
        let message = format!("owner is {owner:?}, expected is namespace/pod");
        return Err(Refused(StatusCode::BAD_REQUEST, message));
    };
    let (namespace, pod, uid) = (namespace.to_owned(), pod.to_owned(), query("uid").unwrap_or_default());
    let (sender, receiver) = oneshot::channel();
    api.handle.ask(move |brain| brain.ipam(namespace, pod, uid, sender)).await?;
    match receiver.await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(waits_for)) => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, waits_for)),
        Err(_) => Err(Gone.into()),
    }
}

async fn endpoints(State(api): State<Api>) -> Answer<Vec<model::Endpoint>> {
    Ok(Json(api.handle.ask(|brain| brain.endpoints()).await?))
}

async fn names(State(api): State<Api>) -> Answer<Vec<model::NameEntry>> {
    Ok(Json(api.handle.ask(|brain| brain.name_entries()).await?))
}

/// `?name=` names one; without it, all go.
async fn forget_names(State(api): State<Api>, uri: Uri) -> Answer<()> {
    let name = uri.query().and_then(|query| query.strip_prefix("name=")).map(str::to_owned);
    api.handle.ask(move |brain| brain.forget_names(name.as_deref())).await?;
    Ok(Json(()))
}

async fn endpoint(State(api): State<Api>, Path(id): Path<String>) -> Answer<model::Endpoint> {
    let wanted = id.clone();
    let all = api.handle.ask(|brain| brain.endpoints()).await?;
    let found = all.into_iter().find(|endpoint| is_called(endpoint, &wanted));
    found.map(Json).ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("there is no endpoint {id}")))
}

/// Upstream's names of endpoints: the number, or a prefix and a name.
fn is_called(endpoint: &model::Endpoint, name: &str) -> bool {
    let names = &endpoint.status.external_identifiers;
    match name.split_once(':') {
        None => name == endpoint.id.to_string(),
        Some(("cilium-local", number)) => number == endpoint.id.to_string(),
        Some(("cni-attachment-id", attachment)) => names.cni_attachment_id == attachment,
        Some(("pod-name" | "cep-name", pod)) => names.pod_name == pod,
        Some(("container-id", container)) => names.container_id == container,
        Some(("ipv4" | "ipv6", _)) => {
            let address = name.split_once(':').map_or("", |(_, address)| address);
            endpoint
                .status
                .networking
                .addressing
                .iter()
                .any(|pair| pair.ipv4 == address || pair.ipv6 == address)
        }
        Some(_) => false,
    }
}

async fn connect(
    State(api): State<Api>,
    Path(id): Path<String>,
    Json(change): Json<model::EndpointChange>,
) -> Answer<model::EndpointChange> {
    let bad = || Refused(StatusCode::BAD_REQUEST, format!("{id:?} is no number of an endpoint"));
    let number: u16 = id.parse().map_err(|_| bad())?;
    let conflict = |message| Refused(StatusCode::CONFLICT, message);
    let admitted = api.handle.ask(move |brain| brain.admit(number, change)).await?;
    let (datapath, change) = admitted.map_err(conflict)?;
    let change = apart(move || host::attach_new_pod(&datapath, &change).map(|()| change)).await?;
    let connected = api.handle.ask(move |brain| brain.connect(number, change)).await?;
    connected.map(Json).map_err(conflict)
}

async fn disconnect(State(api): State<Api>, Path(id): Path<String>) -> Answer<()> {
    let Some(attachment) = id.strip_prefix(ATTACHMENT).map(str::to_owned) else {
        return Err(Refused(
            StatusCode::BAD_REQUEST,
            format!("{id:?} is not {ATTACHMENT}<container>:<interface>"),
        ));
    };
    let done = api.handle.ask(move |brain| brain.disconnect(&attachment)).await?;
    done.map(Json).map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))
}

async fn identities(State(api): State<Api>) -> Answer<Vec<model::Identity>> {
    Ok(Json(api.handle.ask(|brain| brain.identities()).await?))
}

async fn policies(State(api): State<Api>) -> Answer<model::Policy> {
    Ok(Json(api.handle.ask(|brain| brain.policies()).await?))
}

async fn services(State(api): State<Api>) -> Answer<Vec<model::Service>> {
    Ok(Json(api.handle.ask(|brain| brain.services()).await?))
}

async fn redirects(State(api): State<Api>) -> Answer<Vec<model::Redirect>> {
    Ok(Json(api.handle.ask(|brain| brain.redirects()).await?))
}

/// None where the feature is off.
async fn announcements(State(api): State<Api>) -> Answer<Vec<model::Announcement>> {
    let list = api.handle.ask(|brain| brain.announcements()).await?;
    Ok(Json(list.await.unwrap_or_default()))
}

async fn nodes(State(api): State<Api>) -> Answer<model::ClusterNodes> {
    Ok(Json(api.handle.ask(|brain| brain.nodes()).await?))
}

async fn ips(State(api): State<Api>) -> Answer<Vec<model::IpEntry>> {
    apart(move || maps::ips(&api.bpffs)).await.map(Json)
}

async fn map(State(api): State<Api>, Path(name): Path<String>) -> Answer<serde_json::Value> {
    let generations = api.handle.ask(|brain: &mut Brain| brain.generations()).await?;
    if !maps::NAMES.contains(&name.as_str()) {
        let message = format!("there is no map {name}, there are {}", maps::NAMES.join(", "));
        return Err(Refused(StatusCode::NOT_FOUND, message));
    }
    apart(move || maps::list(&api.bpffs, &name, &generations)).await.map(Json)
}

/// Does what may take a while, as to read a large map, on a thread of its own: not on the one that puts policies in force.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let failed = |message: String| Refused(StatusCode::INTERNAL_SERVER_ERROR, message);
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| failed(format!("{error:#}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn monitor(State(api): State<Api>) -> Result<Response, Refused> {
    if !api.handle.ask(|brain| brain.is_running()).await? {
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "the node does not work yet".to_owned()));
    }
    let (sender, receiver) = mpsc::channel::<Bytes>(BACKLOG);
    api.handle.listeners.send(sender).await.map_err(|_| Refused::from(Gone))?;
    let lines = futures::stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), receiver))
    });
    Ok(Body::from_stream(lines).into_response())
}
