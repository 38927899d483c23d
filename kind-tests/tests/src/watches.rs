//! How many watches an agent holds, counted by the API server.

use anyhow::ensure;

use crate::kubectl::{kubectl, kubectl_json};
use crate::nodes::SYSTEM;
use crate::wait::eventually;

/// Keeps the DaemonSet off every node.
const AWAY: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"cilium.io/measured":"away"}}}}}"#;
/// Lets it come back.
const BACK: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"cilium.io/measured":null}}}}}"#;

/// Watches of one agent: the API server's count with the agents less its count without them, over the number of agents.
///
/// The agents are taken off the nodes meanwhile (traffic and policy go on) and are back when this returns. Watches on
/// ConfigMaps and Secrets are not counted: the kubelet holds those for every pod that it runs.
///
/// # Errors
/// The agents do not go, or do not come back.
pub fn per_agent() -> anyhow::Result<f64> {
    let agents = pods()?;
    ensure!(agents > 0, "no agent runs");
    let with = count()?;
    kubectl(&["patch", "daemonset", "cilium", "-n", SYSTEM, "-p", AWAY])?;
    let gone = eventually("the agents are gone", || Ok(pods()? == 0));
    // A watch ends a moment after its connection.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let without = count();
    kubectl(&["patch", "daemonset", "cilium", "-n", SYSTEM, "-p", BACK])?;
    gone?;
    kubectl(&["rollout", "status", "daemonset/cilium", "-n", SYSTEM, "--timeout=120s"])?;
    Ok((with - without?) / agents as f64)
}

fn pods() -> anyhow::Result<usize> {
    let list = kubectl_json(&["get", "pods", "-n", SYSTEM, "-l", "k8s-app=cilium"])?;
    Ok(list["items"].as_array().map_or(0, Vec::len))
}

fn count() -> anyhow::Result<f64> {
    let metrics = kubectl(&["get", "--raw", "/metrics"])?;
    Ok(metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_longrunning_requests{") && line.contains("verb=\"WATCH\""))
        .filter(|line| !line.contains("resource=\"configmaps\"") && !line.contains("resource=\"secrets\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}
