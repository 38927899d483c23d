//! Nodes, the agents on them, and processes that are killed there.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::kubectl::{kubectl, kubectl_json};
use crate::pods::{Ran, exec};

/// Namespace of the product.
pub const SYSTEM: &str = "kube-system";

/// Names of the nodes, sorted.
///
/// # Errors
/// As [`kubectl`]; or there are fewer than two.
pub fn names() -> anyhow::Result<Vec<String>> {
    let list = kubectl_json(&["get", "nodes"])?;
    let mut names: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    ensure!(names.len() >= 2, "the tests need two nodes, the cluster has {names:?}");
    Ok(names)
}

/// Name of the running agent pod of a node.
///
/// # Errors
/// There is none.
pub fn agent(node: &str) -> anyhow::Result<String> {
    let selector = format!("spec.nodeName={node},status.phase=Running");
    let list =
        kubectl_json(&["get", "pods", "-n", SYSTEM, "-l", "k8s-app=cilium", "--field-selector", &selector])?;
    list["items"][0]["metadata"]["name"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no agent runs on {node}"))
}

/// `cilium-dbg` in the agent of a node.
///
/// # Errors
/// It failed.
pub fn dbg(node: &str, args: &[&str]) -> anyhow::Result<String> {
    let ran = exec(SYSTEM, &agent(node)?, &[&["cilium-dbg"], args].concat())?;
    ensure!(ran.ok(), "cilium-dbg {} on {node}: {}{}", args.join(" "), ran.out, ran.err);
    Ok(ran.out)
}

/// Kills (SIGKILL) the processes called `process` of a pod, from a privileged pod beside it; returns how many.
///
/// The pod's UID stands in the cgroup path of its processes, so that no other cluster on the machine is touched.
///
/// # Errors
/// Nothing was killed.
pub fn kill_in_pod(node: &str, pod: &str, process: &str) -> anyhow::Result<()> {
    let uid = kubectl(&["get", "pod", pod, "-n", SYSTEM, "-o", "jsonpath={.metadata.uid}"])?;
    let script = format!(
        "n=0; for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {process} ] && grep -q {uid} $p/cgroup && kill -9 ${{p#/proc/}} && n=$((n+1)); done; echo $n"
    );
    let ran = exec(SYSTEM, &killer(node)?, &["sh", "-c", &script])?;
    ensure!(ran.out.trim() != "0" && ran.ok(), "no process {process} of {pod} was killed: {ran:?}");
    Ok(())
}

/// A privileged pod in the host's PID namespace, kept for the whole run.
fn killer(node: &str) -> anyhow::Result<String> {
    let name = format!("test-killer-{node}");
    crate::apply(
        SYSTEM,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: {node}, hostPID: true, hostNetwork: true, terminationGracePeriodSeconds: 0, tolerations: [{{operator: Exists}}], containers: [{{name: main, image: 'localhost/client:dev', imagePullPolicy: IfNotPresent, securityContext: {{privileged: true}}}}]}}}}"
        ),
    )?;
    kubectl(&["wait", "-n", SYSTEM, "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")])?;
    Ok(name)
}

/// The hook of the cluster under test, which does what `kubectl` cannot.
///
/// # Errors
/// This kind of cluster has none (`CLUSTER_CONTROL` is not set).
pub fn hook(args: &[&str]) -> anyhow::Result<Command> {
    let hook = std::env::var("CLUSTER_CONTROL")
        .context("CLUSTER_CONTROL is not set: run through `just test-e2e`")?;
    let mut command = Command::new(hook);
    command.args(args);
    Ok(command)
}

/// What the hook prints.
///
/// # Errors
/// As [`hook`]; or it failed.
pub fn control(args: &[&str]) -> anyhow::Result<String> {
    let output = hook(args)?.output().context("cannot run the hook")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", args.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// Stops (`["stop", "apiserver"]`) or starts a part of the control plane.
///
/// # Errors
/// As [`control`].
pub fn control_plane(action: &[&str]) -> anyhow::Result<()> {
    let status = hook(action)?.status().context("cannot run the hook")?;
    ensure!(status.success(), "{} failed", action.join(" "));
    Ok(())
}

/// Runs a command in the agent of a node.
///
/// # Errors
/// As [`exec`].
pub fn in_agent(node: &str, command: &[&str]) -> anyhow::Result<Ran> {
    exec(SYSTEM, &agent(node)?, command)
}
