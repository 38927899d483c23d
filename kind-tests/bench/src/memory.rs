//! Resident memory of agents and operators.

use std::fs;

use anyhow::{Context as _, ensure};
use cluster_tests::{kubectl_json, nodes};

use crate::table::{Goal, Row};

/// Nothing but the product and CoreDNS on the cluster.
pub(crate) fn idle() -> anyhow::Result<Vec<Row>> {
    let mut rows = resident("idle", 25.0, 40.0)?;
    rows.push(Row {
        what: "watches of one agent".into(),
        unit: "",
        floor: None,
        value: cluster_tests::watches::per_agent()?,
        goal: Goal::AtMost(2.0),
    });
    Ok(rows)
}

/// With the load of [`crate::load`].
pub(crate) fn loaded() -> anyhow::Result<Vec<Row>> {
    resident("1,000 CNPs and 2,000 services", 40.0, 80.0)
}

/// Of the largest agent, in MiB.
pub(crate) fn agent() -> anyhow::Result<f64> {
    largest("k8s-app=cilium", "cilium-agent")
}

fn resident(label: &str, agent_goal: f64, operator_goal: f64) -> anyhow::Result<Vec<Row>> {
    let row = |what: &str, value, goal| Row {
        what: format!("{what} memory (RSS, largest), {label}"),
        unit: "MiB",
        floor: None,
        value,
        goal: Goal::AtMost(goal),
    };
    Ok(vec![
        row("agent", agent()?, agent_goal),
        row("operator", largest("io.cilium/app=operator", "cilium-operator")?, operator_goal),
    ])
}

/// The largest resident set among the processes called `process` of the pods with a label, in MiB.
fn largest(selector: &str, process: &str) -> anyhow::Result<f64> {
    let pods = kubectl_json(&["get", "pods", "-n", nodes::SYSTEM, "-l", selector])?;
    let uids: Vec<String> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned))
        .collect();
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list processes")?.flatten() {
        let path = entry.path();
        let is_it = fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == process);
        if is_it
            && fs::read_to_string(path.join("cgroup"))
                .is_ok_and(|groups| uids.iter().any(|uid| groups.contains(uid)))
        {
            sizes.push(rss(&fs::read_to_string(path.join("status"))?)?);
        }
    }
    ensure!(!sizes.is_empty(), "no process {process} of the pods {selector} is on this machine");
    Ok(sizes.into_iter().fold(0.0, f64::max))
}

fn rss(status: &str) -> anyhow::Result<f64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a process without VmRSS")?;
    let kib =
        line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).context("VmRSS is no number")?;
    Ok(kib / 1024.0)
}
