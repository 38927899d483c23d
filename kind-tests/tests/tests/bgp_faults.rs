//! What routers and clients see of it when agents, speakers, the API server or nodes are gone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster_tests::nodes::{self, SYSTEM, control, control_plane, kill_in_pod};
use cluster_tests::pods::socket;
use cluster_tests::routed::{GRACEFUL, GRACEFUL_BFD, Outside, Stage};
use cluster_tests::router::Router;
use cluster_tests::{eventually, kubectl, kubectl_json};
use serde_json::Value;

/// How long traffic may be away when a node dies, in seconds, where BFD asks every 100 ms.
const GOAL: f64 = 1.0;

/// A stream of 1,000 requests in a second to both addresses, and everything that becomes of routes in the router's kernel meanwhile.
struct Watched<'a> {
    stage: &'a Stage,
    monitor: Outside,
    streams: Vec<Outside>,
}

impl<'a> Watched<'a> {
    fn start(stage: &'a Stage, seconds: u64) -> anyhow::Result<Self> {
        let monitor = Outside::start(&["ip", "monitor", "route"])?;
        let seconds = seconds.to_string();
        let to = stage.addresses.iter().map(|address| socket(address, 7000));
        let streams = to.map(|to| {
            Outside::probe(&[
                "stream",
                &to,
                "--seconds",
                &seconds,
                "--interval-us",
                "1000",
                "--wait-for-path",
            ])
        });
        Ok(Self { stage, monitor, streams: streams.collect::<Result<_, _>>()? })
    }

    /// Nothing was lost, and no route of the Service or of pods was touched.
    fn end_untouched(self) -> anyhow::Result<()> {
        for stream in self.streams {
            let lines = stream.lines()?;
            let result: Value = serde_json::from_str(lines.last().context("the stream says nothing")?)?;
            println!("{result}");
            ensure!(result["sent"].as_u64().is_some_and(|sent| sent > 10_000), "{result}");
            ensure!(result["lost"] == 0, "requests were lost: {result}");
        }
        let touched = self.monitor.stop()?;
        let ours =
            |line: &&String| self.stage.addresses.iter().any(|address| line.contains(address.as_str()));
        let touched: Vec<&String> = touched.iter().filter(ours).collect();
        ensure!(touched.is_empty(), "routes were touched: {touched:?}");
        Ok(())
    }
}

fn set_up(prefix: &str) -> anyhow::Result<(Stage, Router)> {
    let nodes = nodes::names()?;
    let stage = Stage::new(prefix, &[&nodes[0], &nodes[1]], GRACEFUL)?;
    let router = stage.router(&[])?;
    stage.spread(&router, nodes.len())?;
    Ok((stage, router))
}

#[test]
fn no_route_goes_while_agents_and_api_server_are_away() -> anyhow::Result<()> {
    let (stage, router) = set_up("away")?;
    let established = router.established("ipv4")?.len();
    let watched = Watched::start(&stage, 30)?;
    sleep(Duration::from_secs(1));
    for node in nodes::names()? {
        kill_in_pod(&node, &nodes::agent(&node)?, "cilium-agent")?;
    }
    // The operator can do nothing without it either.
    control_plane(&["stop", "apiserver"])?;
    // Longer than the hold time of 9 s.
    sleep(Duration::from_secs(12));
    let during = router.established("ipv4");
    control_plane(&["start", "apiserver"])?;
    eventually("the API server answers", || kubectl(&["get", "--raw", "/readyz"]).map(|_| true))?;
    ensure!(during?.len() == established, "sessions ended");
    watched.end_untouched()
}

#[test]
fn no_route_goes_while_agents_are_upgraded() -> anyhow::Result<()> {
    let (stage, router) = set_up("upgrade")?;
    let speakers = || kubectl(&["get", "pods", "-n", SYSTEM, "-l", "k8s-app=cilium-bgp", "-o", "name"]);
    let before = speakers()?;
    let watched = Watched::start(&stage, 30)?;
    kubectl(&["rollout", "restart", "daemonset/cilium", "-n", SYSTEM])?;
    kubectl(&["rollout", "status", "daemonset/cilium", "-n", SYSTEM, "--timeout=120s"])?;
    watched.end_untouched()?;
    ensure!(speakers()? == before, "speakers were restarted, too");
    stage.spread(&router, nodes::names()?.len())
}

#[test]
fn a_killed_speaker_comes_back_and_its_routes_stay() -> anyhow::Result<()> {
    let (stage, router) = set_up("killed")?;
    let node = &nodes::names()?[2];
    let watched = Watched::start(&stage, 20)?;
    sleep(Duration::from_secs(1));
    let pods = kubectl_json(&[
        "get",
        "pods",
        "-n",
        SYSTEM,
        "-l",
        "k8s-app=cilium-bgp",
        "--field-selector",
        &format!("spec.nodeName={node}"),
    ])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("a speaker runs there")?;
    let count = router.established("ipv4")?.len();
    kill_in_pod(node, pod, "cilium-bgp")?;
    eventually("the session ends", || Ok(router.established("ipv4")?.len() < count))?;
    eventually("and comes back", || Ok(router.established("ipv4")?.len() == count))?;
    watched.end_untouched()?;
    stage.spread(&router, nodes::names()?.len())
}

/// What becomes of the last node.
#[derive(PartialEq)]
enum Fate {
    /// All of its processes and its link are gone.
    Dead,
    /// Its link is.
    Unplugged,
}

/// Lets it happen, and returns for how many seconds the worst of many clients was away.
fn misses(fate: &Fate, prefix: &str, peer: &str, router_lines: &[&str]) -> anyhow::Result<f64> {
    let nodes = nodes::names()?;
    let victim = nodes.last().context("there are nodes")?;
    let stage = Stage::new(prefix, &[&nodes[0]], peer)?;
    let router = stage.router(router_lines)?;
    stage.spread(&router, nodes.len())?;
    let to = socket(&stage.addresses[0], 7000);
    // So many clients that some go by way of the victim: two of three miss it with a chance of 1 in 10,000 for 24 of them.
    let seconds = if *fate == Fate::Dead { "10" } else { "20" };
    let watch = || {
        Outside::probe(&["watch", &to, "--interval-us", "5000", "--silence-ms", "50", "--seconds", seconds])
    };
    let clients = (0..24).map(|_| watch()).collect::<Result<Vec<_>, _>>()?;
    sleep(Duration::from_secs(3));
    let begin = Instant::now();
    control(&["link", victim, "down"])?;
    if *fate == Fate::Dead {
        control(&["stop", victim])?;
    }
    let mut longest: f64 = 0.0;
    let mut cut = 0;
    for client in clients {
        let away = longest_silence(&client.lines()?)?;
        cut += usize::from(away > 0.0);
        longest = longest.max(away);
    }
    println!(
        "{cut} of 24 clients were cut off, the longest for {longest:.3} s; seen for {:?}",
        begin.elapsed()
    );
    control(&["link", victim, "up"])?;
    if *fate == Fate::Dead {
        control(&["start", victim])?;
    }
    kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("node/{victim}")])?;
    stage.spread(&router, nodes.len())?;
    ensure!(cut > 0, "no client went by way of the node");
    Ok(longest)
}

/// Seconds between an echo and the next, where they are apart; a client that is still cut off counts as away for ever.
fn longest_silence(lines: &[String]) -> anyhow::Result<f64> {
    let mut longest: f64 = 0.0;
    let mut closed: Option<u64> = None;
    for line in lines.iter().skip(1) {
        let event: Value = serde_json::from_str(line)?;
        let at = event["at"].as_u64().context("a time")?;
        match (event["up"] == true, closed) {
            (false, _) => closed = Some(at),
            (true, Some(since)) => {
                longest = longest.max(at.saturating_sub(since) as f64 / 1e9);
                closed = None;
            }
            (true, None) => {}
        }
    }
    Ok(if closed.is_some() { f64::INFINITY } else { longest })
}

#[test]
fn a_dead_node_is_missed_within_a_second_with_bfd() -> anyhow::Result<()> {
    let away = misses(&Fate::Dead, "bfd", GRACEFUL_BFD, &["bfd", "bfd profile fast"])?;
    ensure!(away <= GOAL, "a client was away for {away:.3} s");
    Ok(())
}

#[test]
fn a_node_without_a_link_is_missed_at_hold_time_without_bfd() -> anyhow::Result<()> {
    // Without graceful restart: the router would keep the routes for that time otherwise.
    let away = misses(&Fate::Unplugged, "hold", "gracefulRestart: {enabled: false}", &[])?;
    ensure!((5.0..=13.0).contains(&away), "a client was away for {away:.3} s, and the hold time is 9 s");
    Ok(())
}
