//! From the last object of a new Service to the first connection of a client outside.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster_tests::pods::{addresses, mk_pod};
use cluster_tests::{Namespace, kubectl, nodes};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::floors::SERVER_CPU;
use crate::hops::Hops;
use crate::peers::{self, Mode, Peers};
use crate::table::{Goal, Row, median};

/// How long a Service may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A proxy that has just started writes the rules of all Services first.
const LONG_PATIENCE: Duration = Duration::from_secs(900);
/// Rounds of a peer: each takes a second or more, and they differ by little of that.
const PEER_ROUNDS: usize = 10;

/// A client and a server on another node; this process, which is on the nodes' network, is a client outside.
pub(crate) struct Scene {
    pub(crate) ns: Namespace,
    pub(crate) nodes: Vec<String>,
    /// Address of the first node, which clients outside connect to.
    pub(crate) entry: String,
    /// Address of the server, on the second node.
    pub(crate) backend: String,
    services: Api<DynamicObject>,
    slices: Api<DynamicObject>,
    hops: Hops,
}

/// A Service with one backend, as the API server has it.
pub(crate) struct Made {
    pub(crate) cluster_ip: String,
    pub(crate) node_port: u16,
}

impl Scene {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let ns = Namespace::new("new-service")?;
        let nodes = nodes::names()?;
        let accept = ["probe", "accept", "7000", "--cpu", SERVER_CPU];
        ns.apply(
            &[
                mk_pod("client", Some(&nodes[0]), &[], false),
                mk_pod("server", Some(&nodes[1]), &accept, false),
            ]
            .concat(),
        )?;
        ns.ready(&["client", "server"])?;
        let [backend, _] = addresses(&ns, "server")?;
        let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let entry = kubectl(&["get", "node", &nodes[0], "-o", path])?;
        let entry = entry.split_whitespace().next().context("the node has no address")?.to_owned();
        let (services, slices) = apis(&ns).await?;
        let hops = Hops::start(&ns).await?;
        Ok(Self { ns, nodes, entry, backend, services, slices, hops })
    }

    /// What the product takes. The floor is what the API server alone needs for two changes of small objects ([`Hops`]).
    pub(crate) async fn ours(&mut self, label: &str, goal: f64, rounds: usize) -> anyhow::Result<Row> {
        let (entry, backend) = (self.entry.clone(), self.backend.clone());
        self.round(&entry, &backend, PATIENCE).await?;
        let (mut took, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            took.push(self.round(&entry, &backend, PATIENCE).await?);
            floors.push(self.hops.create().await?);
            self.hops.delete().await?;
        }
        Ok(Row {
            what: format!("new Service: last API request to first connection, {label}"),
            unit: "ms",
            floor: Some(median(&mut floors)),
            value: median(&mut took),
            goal: Goal::AtMost(goal),
        })
    }

    /// What kube-proxy takes for the same, on a machine of its own.
    pub(crate) async fn peer(&mut self, mode: Mode, label: &str, rounds: usize) -> anyhow::Result<Row> {
        let mut peer = Peers::new(mode, &self.ns, "server")?;
        let begin = Instant::now();
        let first = self.round(peers::ENTRY, peers::BACKEND, LONG_PATIENCE).await;
        peer.check()?;
        first.with_context(|| peer.complaint())?;
        eprintln!("  kube-proxy {mode} serves after {:.0} s", begin.elapsed().as_secs_f64());
        let mut took = Vec::new();
        for _ in 0..rounds.min(PEER_ROUNDS) {
            took.push(self.round(peers::ENTRY, peers::BACKEND, LONG_PATIENCE).await?);
        }
        Ok(Row {
            what: format!("the same by kube-proxy {mode}, {label}"),
            unit: "ms",
            floor: None,
            value: median(&mut took),
            goal: Goal::Beside,
        })
    }

    /// Creates a Service with a port of nodes, then its EndpointSlice, while a client tries to connect; milliseconds from the slice to
    /// the connection. Both are gone afterwards.
    async fn round(&mut self, entry: &str, backend: &str, patience: Duration) -> anyhow::Result<f64> {
        let made = self.make("web").await?;
        let at: SocketAddr = format!("{entry}:{}", made.node_port).parse()?;
        let start = Instant::now();
        let connected = thread::spawn(move || connect(at, patience));
        self.lead("web", backend).await?;
        let end = connected.join().ok().flatten();
        self.unmake("web").await?;
        let end = end.with_context(|| format!("{at} was not served in {patience:?}"))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(end.duration_since(start).as_secs_f64() * 1e3)
    }

    /// A Service without backends.
    pub(crate) async fn make(&self, name: &str) -> anyhow::Result<Made> {
        let made =
            self.services.create(&PostParams::default(), &serde_json::from_value(service(name))?).await;
        let made = made.context("cannot create the Service")?;
        let spec = &made.data["spec"];
        let port = spec["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok(Made {
            cluster_ip: spec["clusterIP"].as_str().context("the Service has no address")?.to_owned(),
            node_port: port.context("the Service has no port of nodes")?,
        })
    }

    /// Gives a Service its backend.
    pub(crate) async fn lead(&self, name: &str, backend: &str) -> anyhow::Result<()> {
        let slice = serde_json::from_value(slice(name, backend))?;
        self.slices
            .create(&PostParams::default(), &slice)
            .await
            .context("cannot create the EndpointSlice")?;
        Ok(())
    }

    async fn unmake(&self, name: &str) -> anyhow::Result<()> {
        let now = DeleteParams::default();
        self.slices.delete(name, &now).await.context("cannot delete the EndpointSlice")?;
        self.services.delete(name, &now).await.context("cannot delete the Service")?;
        Ok(())
    }
}

/// When the first connection was there. Without backends the node refuses at once.
pub(crate) fn connect(at: SocketAddr, patience: Duration) -> Option<Instant> {
    let begin = Instant::now();
    while begin.elapsed() < patience {
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

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"name": "tcp", "port": 80, "targetPort": 7000}]},
    })
}

fn slice(name: &str, backend: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "tcp", "port": 7000, "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend]}],
    })
}
