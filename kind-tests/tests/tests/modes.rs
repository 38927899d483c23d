//! Modes of enforcement, which are for the whole cluster: no other test runs beside these. And policies that are lists of rules.

use anyhow::{Context as _, ensure};
use cluster_tests::nodes::SYSTEM;
use cluster_tests::pods::{addresses, mk_pod, mk_server};
use cluster_tests::{Namespace, eventually, exec, kubectl, kubectl_json};

const CONFIG: &str = "cilium-config";
const KEY: &str = "enable-policy";

/// Puts the mode back that was there, also when the test fails.
struct Mode(String);

impl Mode {
    fn remember() -> anyhow::Result<Self> {
        let config = kubectl_json(&["-n", SYSTEM, "get", "configmap", CONFIG])?;
        Ok(Self(config["data"][KEY].as_str().unwrap_or("default").to_owned()))
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        if let Err(error) = set_mode(&self.0) {
            eprintln!("the mode of enforcement is not {} again: {error:#}", self.0);
        }
    }
}

fn set_mode(mode: &str) -> anyhow::Result<()> {
    let patch = serde_json::json!({"data": {KEY: mode}}).to_string();
    kubectl(&["-n", SYSTEM, "patch", "configmap", CONFIG, "--type=merge", "-p", &patch])?;
    kubectl(&["-n", SYSTEM, "rollout", "restart", "deploy/cilium-operator"])?;
    kubectl(&["-n", SYSTEM, "rollout", "status", "deploy/cilium-operator", "--timeout=120s"])?;
    Ok(())
}

fn trio(prefix: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::new(prefix)?;
    let pods = [mk_server("server", None), mk_server("second", None), mk_pod("client", None, &[], false)];
    ns.apply(&pods.concat())?;
    ns.ready(&["server", "second", "client"])?;
    Ok(ns)
}

/// Whether the client gets a connection to both addresses of a pod; half is neither.
fn connects(ns: &Namespace, to: &str, expected: bool) -> anyhow::Result<bool> {
    for address in addresses(ns, to)? {
        if exec(&ns.name, "client", &["nc", "-z", "-w", "2", &address, "7000"])?.ok() != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn modes_decide_which_pods_are_closed() -> anyhow::Result<()> {
    let ns = trio("modes")?;
    let mode = Mode::remember()?;
    ensure!(mode.0 == "default", "this test is for a cluster in mode default, not {}", mode.0);
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: closed}, spec: {endpointSelector: {matchLabels: {app: server}}, ingress: [{}]}}")?;
    eventually("what a policy selects is closed", || connects(&ns, "server", false))?;
    ensure!(connects(&ns, "second", true)?, "nothing else is");

    set_mode("always")?;
    eventually("everything is closed", || connects(&ns, "second", false))?;
    // What policies allow passes: out of the client, and into one of the two.
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: out}, spec: {endpointSelector: {matchLabels: {app: client}}, egress: [{toEndpoints: [{}]}]}}")?;
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: in}, spec: {endpointSelector: {matchLabels: {app: second}}, ingress: [{fromEndpoints: [{}]}]}}")?;
    eventually("what is allowed passes", || connects(&ns, "second", true))?;
    ensure!(connects(&ns, "server", false)?, "and nothing more");

    set_mode("never")?;
    eventually(
        "everything is open",
        || Ok(connects(&ns, "server", true)? && connects(&ns, "second", true)?),
    )?;
    eventually("the policy says so", || {
        let object = kubectl_json(&["get", "cnp", "closed", "-n", &ns.name])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let enforced =
            conditions.iter().find(|it| it["type"] == "Enforced").context("no condition Enforced")?;
        Ok(enforced["status"] == "False" && enforced["reason"] == "EnforcementDisabled")
    })?;

    drop(mode);
    eventually("what a policy selects is closed again", || connects(&ns, "server", false))
}

#[test]
fn every_rule_of_a_list_stands_for_itself() -> anyhow::Result<()> {
    let ns = trio("specs")?;
    ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: list}, specs: [{endpointSelector: {matchLabels: {app: server}}, ingress: [{}]}, {endpointSelector: {matchLabels: {app: second}}, ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]}]}")?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=30s", "cnp/list"])?;
    eventually("the first rule closes one", || connects(&ns, "server", false))?;
    ensure!(connects(&ns, "second", true)?, "the second rule allows the client");
    let status = kubectl_json(&["get", "cnp", "list", "-n", &ns.name])?["status"].clone();
    ensure!(status["selectedEndpoints"] == 2, "{status}");
    let taken = status["largestEndpointEntries"].as_u64().context("no count of entries")?;
    let limit = status["entriesLimit"].as_u64().context("no limit")?;
    ensure!((1..limit).contains(&taken), "{status}");
    ns.kubectl(&["delete", "cnp", "list"])?;
    eventually("everything is open", || connects(&ns, "server", true))
}
