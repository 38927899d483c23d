//! Twenty pods at once on one node: how long the runtime waits in CNI ADD.

use anyhow::{Context as _, ensure};
use cluster_tests::pods::mk_pod;
use cluster_tests::{Namespace, nodes};
use serde_json::Value;

use crate::table::{Goal, Row, median};

const PODS: usize = 20;

/// Where the plugin writes one JSON object for every command, on the node and in the agent.
const LOG: &str = "/var/run/cilium/cilium-cni.log";

/// Starts the pods together and reads the plugin's own log of how long each ADD took, from start to answer.
pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let ns = Namespace::new("cni")?;
    let node = nodes::names()?.remove(0);
    let before = additions(&node)?.len();
    let names: Vec<String> = (0..PODS).map(|index| format!("pod-{index}")).collect();
    ns.apply(&names.iter().map(|name| mk_pod(name, Some(&node), &[], false)).collect::<String>())?;
    ns.ready(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut times = additions(&node)?.split_off(before);
    ensure!(times.len() == PODS, "{} pods were added, not {PODS}", times.len());
    let longest = times.iter().copied().fold(0.0, f64::max);
    let row = |what: &str, value, goal| Row {
        what: format!("{PODS} pods at once: time in CNI ADD, {what}"),
        unit: "ms",
        floor: None,
        value,
        goal: Goal::AtMost(goal),
    };
    Ok(vec![row("median", median(&mut times), 30.0), row("max", longest, 100.0)])
}

/// Milliseconds of every ADD in the log, oldest first.
fn additions(node: &str) -> anyhow::Result<Vec<f64>> {
    let text = nodes::in_agent(node, &["cat", LOG])?.out;
    let mut times = Vec::new();
    for line in text.lines() {
        let entry: Value =
            serde_json::from_str(line).with_context(|| format!("{LOG} on {node} has a line {line:?}"))?;
        if entry["command"] == "ADD" {
            times.push(entry["milliseconds"].as_f64().with_context(|| format!("no time in {line:?}"))?);
        }
    }
    Ok(times)
}
