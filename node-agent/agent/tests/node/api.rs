//! A Kubernetes API server, as far as an agent talks to one: lists, watches, the patch of a status, and Leases.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, put};
use axum::{Json, Router};
use cilium_api::node_slice::{CiliumNodeStateSliceSpec, OWNER_LABEL};
use cilium_api::node_state::DesiredState;
use cilium_drivers::netns::Netns;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::stage::eventually;

const STATES: &str = "ciliumnodestates";
const SLICES: &str = "ciliumnodestateslices";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// What exists. It outlives servers.
#[derive(Default)]
pub(crate) struct World {
    objects: BTreeMap<(&'static str, String), Value>,
    version: u64,
    watchers: Vec<(&'static str, UnboundedSender<Result<Bytes, Infallible>>)>,
    /// The key of heartbeats, in base64.
    pub(crate) heartbeat_key: Option<String>,
    /// Bodies of status patches, in order.
    pub(crate) acks: Vec<Value>,
    leases: BTreeMap<String, Value>,
    /// Agents have no right to Leases.
    pub(crate) forbids_leases: bool,
}

pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().expect("no test thread panicked with the lock")
}

impl World {
    /// Writes the desired state of a node.
    pub(crate) fn put_state(&mut self, node: &str, desired: &DesiredState) {
        let object = json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumNodeState",
            "metadata": {"name": node}, "spec": {}, "status": {"desired": desired},
        });
        self.put(STATES, node, object);
    }

    /// Writes a slice.
    pub(crate) fn put_slice(&mut self, name: &str, owner: &str, spec: &CiliumNodeStateSliceSpec) {
        let mut object = json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumNodeStateSlice",
            "metadata": {"name": name, "labels": {}}, "spec": spec,
        });
        object["metadata"]["labels"][OWNER_LABEL] = owner.into();
        self.put(SLICES, name, object);
    }

    /// Writes a Lease, whatever version it has.
    pub(crate) fn put_lease(&mut self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec,
        });
        self.store_lease(name, object);
    }

    /// What is in a Lease; null if there is none.
    pub(crate) fn lease(&self, name: &str) -> Value {
        self.leases.get(name).map(|lease| lease["spec"].clone()).unwrap_or_default()
    }

    fn store_lease(&mut self, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.leases.insert(name.to_owned(), object.clone());
        object
    }

    fn put(&mut self, kind: &'static str, name: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let known = self.objects.insert((kind, name.to_owned()), object.clone());
        let event = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        let line = Bytes::from(line);
        self.watchers
            .retain(|(watched, sender)| *watched != kind || sender.unbounded_send(Ok(line.clone())).is_ok());
    }

    pub(crate) fn watches(&mut self) -> usize {
        self.watchers.retain(|(_, sender)| !sender.is_closed());
        self.watchers.len()
    }
}

/// A server on port 6443 of a namespace's loopback. Dropping it kills it, connections and all.
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    world: Shared,
}

impl Server {
    pub(crate) fn start(netns: &Netns, world: &Shared) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 6443));
        let mut bound = None;
        // A process that another test is about to start may still have the socket of the server before.
        eventually("the port is free", || {
            bound = netns.run(|| TcpListener::bind(address)).expect("enters").ok();
            bound.is_some()
        });
        let listener = bound.expect("is bound");
        listener.set_nonblocking(true).expect("is a socket");
        let (stop, stopped) = oneshot::channel();
        let routes = routes(world.clone());
        let thread = thread::spawn(move || serve(listener, routes, stopped));
        Self { stop: Some(stop), thread: Some(thread), world: world.clone() }
    }
}

fn serve(listener: TcpListener, routes: Router, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("is a listener");
        tokio::select! {
            served = axum::serve(listener, routes) => served.expect("serves"),
            _ = stopped => {}
        }
    });
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
        lock(&self.world).watchers.clear();
    }
}

fn routes(world: Shared) -> Router {
    let base = "/apis/cilium.io/v2alpha1";
    Router::new()
        .route(&format!("{base}/{STATES}"), get(async |State(world), uri: Uri| read(&world, STATES, &uri)))
        .route(&format!("{base}/{SLICES}"), get(async |State(world), uri: Uri| read(&world, SLICES, &uri)))
        .route(&format!("{base}/{STATES}/{{name}}/status"), patch(acknowledge))
        .route("/api/v1/namespaces/kube-system/secrets/cilium-l2-heartbeat", get(secret))
        .route(LEASES, get(list_leases).post(create_lease))
        .route(&format!("{LEASES}/{{name}}"), put(replace_lease))
        .route(
            "/version",
            get(async || {
                Json(json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0",
            "platform": "linux/amd64", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": ""}))
            }),
        )
        .with_state(world)
}

fn read(world: &Shared, kind: &'static str, uri: &Uri) -> Response {
    let mut world = lock(world);
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        let (sender, receiver) = unbounded();
        world.watchers.push((kind, sender));
        return Body::from_stream(receiver).into_response();
    }
    let of_kind = world.objects.iter().filter(|((found, _), _)| *found == kind);
    let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
    let version = world.version.to_string();
    Json(json!({"apiVersion": "cilium.io/v2alpha1", "kind": "List",
        "metadata": {"resourceVersion": version}, "items": items}))
    .into_response()
}

async fn secret(State(world): State<Shared>) -> Response {
    match &lock(&world).heartbeat_key {
        Some(key) => Json(json!({"kind": "Secret", "data": {"key": key}})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn list_leases(State(world): State<Shared>) -> Response {
    let world = lock(&world);
    if world.forbids_leases {
        return refused(StatusCode::FORBIDDEN, "Forbidden");
    }
    let items: Vec<&Value> = world.leases.values().collect();
    let version = world.version.to_string();
    Json(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
        "metadata": {"resourceVersion": version}, "items": items}))
    .into_response()
}

async fn create_lease(State(world): State<Shared>, Json(lease): Json<Value>) -> Response {
    let mut world = lock(&world);
    let name = lease["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if world.leases.contains_key(&name) {
        return refused(StatusCode::CONFLICT, "AlreadyExists");
    }
    Json(world.store_lease(&name, lease)).into_response()
}

/// Only the version that was read may be replaced.
async fn replace_lease(
    State(world): State<Shared>,
    Path(name): Path<String>,
    Json(lease): Json<Value>,
) -> Response {
    let mut world = lock(&world);
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    match world.leases.get(&name) {
        None => refused(StatusCode::NOT_FOUND, "NotFound"),
        Some(known) if version(known) != version(&lease) => refused(StatusCode::CONFLICT, "Conflict"),
        Some(_) => Json(world.store_lease(&name, lease)).into_response(),
    }
}

fn refused(code: StatusCode, reason: &str) -> Response {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16()});
    (code, Json(status)).into_response()
}

async fn acknowledge(State(world): State<Shared>, Json(body): Json<Value>) -> Response {
    let mut world = lock(&world);
    world.acks.push(body["status"]["applied"].clone());
    let state = world.objects.iter().find(|((kind, _), _)| *kind == STATES);
    let state = state.map(|(_, object)| object.clone()).unwrap_or_default();
    Json(state).into_response()
}
