//! Connections in a second through a Service, in pairs with the same without one, or with kube-proxy.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::exec;
use cluster_tests::pods::socket;
use serde_json::Value;

use crate::floors::ip;
use crate::peers::{self, Mode, Peers};
use crate::services::{Scene, connect};
use crate::table::{Goal, Row, median};

/// How long a Service may take until it is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// The client's processor; the server has the other one.
const CLIENT: [&str; 4] = ["--seconds", "2", "--cpu", "1"];

/// Through a cluster address, against the same pod without a Service. Both are measured in the client's pod.
pub(crate) async fn cluster_ip(scene: &Scene, pairs: usize) -> anyhow::Result<Row> {
    let made = scene.make("rate").await?;
    scene.lead("rate", &scene.backend).await?;
    let ways = [socket(&scene.backend, 7000), socket(&made.cluster_ip, 80)];
    served(&format!("{}:{}", scene.entry, made.node_port))?;
    let in_pod = |to: &String| {
        let ran =
            exec(&scene.ns.name, "client", &[&["probe", "connect", to.as_str()], &CLIENT[..]].concat())?;
        ensure!(ran.ok(), "{ran:?}");
        read(&ran.out)
    };
    let what = "connections/s through a ClusterIP, to a pod elsewhere, against direct ones";
    row(what, pairs, || in_pod(&ways[0]), || in_pod(&ways[1]), Goal::RatioAtLeast(0.98))
}

/// Of a client outside through a port of one node to a backend on another one, against kube-proxy in the mode nftables.
pub(crate) async fn node_port(scene: &Scene, pairs: usize) -> anyhow::Result<Row> {
    let ours = scene.make("rate-ours").await?;
    let theirs = scene.make("rate-theirs").await?;
    let _peers = Peers::new(Mode::Nftables, &scene.ns, "server")?.everywhere()?;
    scene.lead("rate-ours", &scene.backend).await?;
    scene.lead("rate-theirs", peers::BACKEND).await?;
    let ways =
        [format!("{}:{}", peers::ENTRY, theirs.node_port), format!("{}:{}", scene.entry, ours.node_port)];
    ways.iter().try_for_each(|way| served(way))?;
    let what = "connections/s from outside through a NodePort to another node, against kube-proxy nftables";
    row(what, pairs, || outside(&ways[0]), || outside(&ways[1]), Goal::RatioAtLeast(1.5))
}

/// The same against connections to the pod itself, which the node just forwards, and whose answers even take the short way: what there
/// is to be had at all.
pub(crate) async fn forwarding(scene: &Scene, pairs: usize) -> anyhow::Result<Row> {
    let made = scene.make("rate-forwarded").await?;
    scene.lead("rate-forwarded", &scene.backend).await?;
    let _route = Route::new(&scene.backend, &scene.entry.to_string())?;
    let ways = [socket(&scene.backend, 7000), format!("{}:{}", scene.entry, made.node_port)];
    ways.iter().try_for_each(|way| served(way))?;
    let what = "connections/s from outside through a NodePort to another node, against plain forwarding";
    row(what, pairs, || outside(&ways[0]), || outside(&ways[1]), Goal::Beside)
}

/// A route of the client outside, for as long as the value lives.
struct Route(String);

impl Route {
    fn new(to: &str, via: &str) -> anyhow::Result<Self> {
        ip(&format!("route replace {to} via {via}"))?;
        Ok(Self(to.to_owned()))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("route del {}", self.0)) {
            eprintln!("the route to {} stays: {error:#}", self.0);
        }
    }
}

/// The two take turns, and each of them begins as often as the other.
fn row(
    what: &str,
    pairs: usize,
    floor: impl Fn() -> anyhow::Result<f64>,
    ours: impl Fn() -> anyhow::Result<f64>,
    goal: Goal,
) -> anyhow::Result<Row> {
    let (mut floors, mut values) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        if pair % 2 == 0 {
            floors.push(floor()?);
        }
        values.push(ours().with_context(|| what.to_owned())?);
        if pair % 2 == 1 {
            floors.push(floor()?);
        }
    }
    eprintln!("  floor {floors:.0?}, ours {values:.0?}");
    Ok(Row {
        what: what.to_owned(),
        unit: "1/s",
        floor: Some(median(&mut floors)),
        value: median(&mut values),
        goal,
    })
}

fn served(at: &str) -> anyhow::Result<()> {
    let at: SocketAddr = at.parse()?;
    connect(at, PATIENCE).map(drop).with_context(|| format!("{at} is not served"))
}

/// The probe in this process's namespace; it was built beside this program.
fn outside(to: &str) -> anyhow::Result<f64> {
    let probe = std::env::current_exe().context("this program has no path")?.with_file_name("probe");
    let ran = Command::new(&probe).args(["connect", to]).args(CLIENT).output();
    let ran = ran.with_context(|| format!("cannot run {}: run through `just bench`", probe.display()))?;
    ensure!(ran.status.success(), "the probe failed: {}", String::from_utf8_lossy(&ran.stderr));
    read(&String::from_utf8_lossy(&ran.stdout))
}

/// A rate with failures among its connections is none.
fn read(answer: &str) -> anyhow::Result<f64> {
    let answer: Value = serde_json::from_str(answer).with_context(|| format!("the probe said {answer:?}"))?;
    ensure!(answer["failed"] == 0, "connections failed: {answer}");
    answer["per_second"].as_f64().with_context(|| format!("no rate in {answer}"))
}
