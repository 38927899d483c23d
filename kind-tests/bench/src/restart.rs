//! An agent that comes back while there are many services: how long it takes, and what traffic notices of it.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use cluster_tests::{eventually, exec, kubectl, nodes};
use serde_json::Value;

use crate::services::Scene;
use crate::table::{Goal, Row};

/// Longer than an agent is away.
const SECONDS: &str = "40";
const TRAFFIC: [&str; 4] = ["--seconds", SECONDS, "--pause-us", "1000"];

/// What an agent knows of services: the state that it saved, and the tables in the kernel. The programs that are in force keep the
/// tables that they have.
const FORGET: &str = "rm -rf /var/run/cilium/state/desired && rm /sys/fs/bpf/cilium/maps/cilium_services /sys/fs/bpf/cilium/maps/cilium_backends";

/// Kills the first node's agent twice: once as it is, once after it has lost all that it knew of services. New connections go on all the
/// time, from a pod to a cluster address and from outside to a port of that node.
pub(crate) async fn measure(scene: &Scene, services: usize) -> anyhow::Result<Vec<Row>> {
    let made = scene.make("kept").await?;
    scene.lead("kept", &scene.backend).await?;
    let mut rows = Vec::new();
    for (what, forget) in [("with what it had", None), ("from nothing", Some(FORGET))] {
        let traffic = Traffic::start(scene, &made.cluster_ip, made.node_port)?;
        let took = restart(&scene.nodes[0], forget, services)?;
        let [inside, outside] = traffic.end(scene)?;
        eprintln!("  {what}: {took:.0} ms; inside {inside}; outside {outside}");
        let failed = |answer: &Value| answer["failed"].as_f64().unwrap_or(f64::NAN);
        rows.push(Row {
            what: format!("agent restart {what}: start to {services} services in force"),
            unit: "ms",
            floor: None,
            value: took,
            goal: Goal::AtMost(2000.0),
        });
        rows.push(Row {
            what: format!("agent restart {what}: failed connections, of one each millisecond"),
            unit: "",
            floor: None,
            value: failed(&inside) + failed(&outside),
            goal: Goal::AtMost(0.0),
        });
    }
    Ok(rows)
}

/// New connections, in a pod and outside.
struct Traffic {
    outside: Child,
}

impl Traffic {
    fn start(scene: &Scene, cluster_ip: &str, node_port: u16) -> anyhow::Result<Self> {
        let inside =
            format!("probe connect {cluster_ip}:80 {} > /tmp/inside 2>&1 & echo started", TRAFFIC.join(" "));
        let ran = exec(&scene.ns.name, "client", &["sh", "-c", &inside])?;
        ensure!(ran.ok(), "{ran:?}");
        let probe = std::env::current_exe().context("this program has no path")?.with_file_name("probe");
        let outside = Command::new(&probe)
            .args(["connect", &format!("{}:{node_port}", scene.entry)])
            .args(TRAFFIC)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}: run through `just bench`", probe.display()))?;
        Ok(Self { outside })
    }

    /// What the two saw.
    fn end(self, scene: &Scene) -> anyhow::Result<[Value; 2]> {
        let output = self.outside.wait_with_output().context("the client outside was lost")?;
        let mut inside = String::new();
        eventually("the client in the pod has ended", || {
            inside = exec(&scene.ns.name, "client", &["cat", "/tmp/inside"])?.out;
            Ok(inside.contains('}'))
        })?;
        Ok([serde_json::from_str(&inside)?, serde_json::from_slice(&output.stdout)?])
    }
}

/// Kills the agent, and waits until it says that its node works. Milliseconds from its first word to that.
fn restart(node: &str, forget: Option<&str>, services: usize) -> anyhow::Result<f64> {
    let agent = nodes::agent(node)?;
    let before = restarts(&agent)?;
    if let Some(forget) = forget {
        let ran = nodes::in_agent(node, &["sh", "-c", forget])?;
        ensure!(ran.ok(), "{ran:?}");
    }
    nodes::kill_in_pod(node, &agent, "cilium-agent")?;
    let mut took = None;
    eventually("the agent is back", || {
        if restarts(&agent)? == before {
            return Ok(false);
        }
        let log = kubectl(&["logs", "-n", nodes::SYSTEM, &agent, "-c", "cilium-agent"])?;
        took = from_start(&log);
        Ok(took.is_some())
    })?;
    let listed: Value = serde_json::from_str(&nodes::dbg(node, &["bpf", "lb", "list", "-o", "json"])?)?;
    let listed = listed.as_array().map_or(0, Vec::len);
    ensure!(listed >= services, "only {listed} of {services} services are in the kernel");
    took.context("the agent said nothing")
}

fn restarts(agent: &str) -> anyhow::Result<String> {
    let path = "jsonpath={.status.containerStatuses[?(@.name=='cilium-agent')].restartCount}";
    kubectl(&["get", "pod", agent, "-n", nodes::SYSTEM, "-o", path])
}

/// Milliseconds between two lines of the agent's log.
fn from_start(log: &str) -> Option<f64> {
    let at = |said: &str| seconds(log.lines().find(|line| line.contains(said))?);
    let took = at("the node works")? - at("starting")?;
    Some(took.rem_euclid(86_400.0) * 1e3)
}

/// Of the day, from a line that begins with a time (RFC 3339).
fn seconds(line: &str) -> Option<f64> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_from_the_log() {
        let log = "2026-05-01T23:59:59.750000Z  INFO cilium_agent::run: starting version=\"0.1.0\"\n\
                   2026-05-01T23:59:59.900000Z  INFO cilium_agent::brain: watching\n\
                   2026-05-02T00:00:01.000000Z  INFO cilium_agent::brain::start: the node works revision=7\n";
        assert_eq!(from_start(log), Some(1250.0));
        assert_eq!(from_start(log.lines().next().unwrap_or_default()), None);
    }
}
