//! From the last object of a new Service to the first connection of a client outside.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster_tests::pods::{addresses, mk_server};
use cluster_tests::{Namespace, kubectl, nodes};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::hops::Hops;
use crate::table::{Goal, Row, median};

/// How long a Service may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// `rounds` times a Service with a port of nodes is created, then its EndpointSlice, while this process, which is on the nodes' network,
/// tries to connect; the backend is on another node than the one that is asked. The floor is what the API server alone needs for
/// two changes of small objects ([`Hops`]).
pub(crate) async fn measure(label: &str, goal: f64, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let ns = Namespace::new("new-service")?;
    let nodes = nodes::names()?;
    ns.apply(&mk_server("server", Some(&nodes[1])))?;
    ns.ready(&["server"])?;
    let [backend, _] = addresses(&ns, "server")?;
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let node = kubectl(&["get", "node", &nodes[0], "-o", path])?;
    let node = node.split_whitespace().next().context("the node has no address")?.to_owned();
    let (services, slices) = apis(&ns).await?;
    let mut hops = Hops::start(&ns).await?;
    let (mut took, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let made = services.create(&PostParams::default(), &serde_json::from_value(service())?).await;
        let made = made.context("cannot create the Service")?;
        let port =
            made.data["spec"]["ports"][0]["nodePort"].as_u64().context("the Service has no port of nodes")?;
        let at: SocketAddr = format!("{node}:{port}").parse()?;
        let slice = serde_json::from_value(slice(&backend))?;
        let start = Instant::now();
        let connected = thread::spawn(move || connect(at));
        slices.create(&PostParams::default(), &slice).await.context("cannot create the EndpointSlice")?;
        let end = connected
            .join()
            .ok()
            .flatten()
            .with_context(|| format!("{at} was not served in {PATIENCE:?}"))?;
        took.push(end.duration_since(start).as_secs_f64() * 1e3);
        slices.delete("web", &DeleteParams::default()).await.context("cannot delete the EndpointSlice")?;
        services.delete("web", &DeleteParams::default()).await.context("cannot delete the Service")?;
        floors.push(hops.create().await?);
        hops.delete().await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(vec![Row {
        what: format!("new Service: last API request to first connection, {label}"),
        unit: "ms",
        floor: Some(median(&mut floors)),
        value: median(&mut took),
        goal: Goal::AtMost(goal),
    }])
}

/// When the first connection was there. Without backends the node refuses at once.
fn connect(at: SocketAddr) -> Option<Instant> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if TcpStream::connect_timeout(&at, Duration::from_millis(200)).is_ok() {
            return Some(Instant::now());
        }
        thread::sleep(Duration::from_micros(200));
    }
    None
}

async fn apis(ns: &Namespace) -> anyhow::Result<(Api<DynamicObject>, Api<DynamicObject>)> {
    let client = kube::Client::try_default().await.context("no client: run through `just bench`")?;
    let api = |group, kind, plural| {
        let kind = GroupVersionKind::gvk(group, "v1", kind);
        Api::namespaced_with(client.clone(), &ns.name, &ApiResource::from_gvk_with_plural(&kind, plural))
    };
    Ok((api("", "Service", "services"), api("discovery.k8s.io", "EndpointSlice", "endpointslices")))
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"name": "tcp", "port": 80, "targetPort": 7000}]},
    })
}

fn slice(backend: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "tcp", "port": 7000, "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend]}],
    })
}
