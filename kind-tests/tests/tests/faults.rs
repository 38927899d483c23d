//! What happens when parts die: nothing that users notice, and everything converges afterwards.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cluster_tests::pods::{addresses, mk_pod, mk_server, socket};
use cluster_tests::{Namespace, eventually, exec, kubectl, kubectl_json, nodes};
use serde_json::Value;

/// The longest time that the network may hold a datagram, beyond what the machine itself held one on the loopback device
/// during the same minute.
const LONGEST_GAP_MS: f64 = 10.0;

/// The longest row of datagrams, a millisecond apart, of which the machine may keep us from knowing how long they were on their way: a
/// longer one could hide what the network held.
const LONGEST_ROW: u64 = 10;

/// How often a part may be killed until the machine was quiet meanwhile: what the network holds, it holds each time.
const ATTEMPTS: u32 = 3;

/// The loopback of the client's pod, where nothing of ours is in the way.
const CONTROL: &str = "127.0.0.1:7001";

/// A client and two servers, one of them behind a policy that lets nobody in, on the given nodes.
struct Stage {
    ns: Namespace,
    nodes: Vec<String>,
    server: [String; 2],
}

const CLOSED: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: closed}, spec: {endpointSelector: {matchLabels: {app: closed}}, ingress: [{}]}}";

fn set_up(prefix: &str) -> anyhow::Result<Stage> {
    let ns = Namespace::new(prefix)?;
    let nodes = nodes::names()?;
    let manifests = mk_pod("client", Some(&nodes[0]), &[], false)
        + &mk_server("server", Some(&nodes[1]))
        + &mk_server("closed", Some(&nodes[1]));
    ns.apply(&manifests)?;
    ns.apply(CLOSED)?;
    ns.ready(&["client", "server", "closed"])?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", "cnp/closed"])?;
    let server = addresses(&ns, "server")?;
    Ok(Stage { ns, nodes, server })
}

/// Kills a part in the middle of streams of datagrams: none is lost, none is held for long, policy stays, and everything converges.
fn is_not_noticed(stage: &Stage, seconds: u64, kill: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    in_client(stage, "probe serve 7001 > /tmp/server 2>&1 & echo started")?;
    let mut held = Vec::new();
    for attempt in 0..ATTEMPTS {
        let before = left_lying(stage)?;
        start_streams(stage, attempt, seconds)?;
        sleep(Duration::from_secs(2));
        kill()?;
        still_closed(stage)?;
        let longer = held_longer(stage, attempt, before)?;
        converges(stage)?;
        if longer <= LONGEST_GAP_MS {
            return Ok(());
        }
        held.push(longer);
    }
    bail!("datagrams were held each time, by so many ms longer than where nothing is in the way: {held:?}")
}

fn in_client(stage: &Stage, script: &str) -> anyhow::Result<()> {
    let ran = exec(&stage.ns.name, "client", &["sh", "-c", script])?;
    ensure!(ran.ok(), "{ran:?}");
    Ok(())
}

/// Starts the streams inside the pod, so that they live on while the API server is down.
fn start_streams(stage: &Stage, attempt: u32, seconds: u64) -> anyhow::Result<()> {
    let [v4, v6] = stage.server.each_ref().map(|address| socket(address, 7000));
    let control = format!("{CONTROL} --wait-for-path");
    for (name, to) in [("control", &control), ("v4", &v4), ("v6", &v6)] {
        let to_file = format!("--seconds {seconds} > /tmp/{name}-{attempt} 2>&1 & echo started");
        in_client(stage, &format!("probe stream {to} {to_file}"))?;
    }
    Ok(())
}

/// Waits for the end of the streams, checks that nothing was lost on the way, and returns by how many milliseconds the longest gap
/// was longer than the one of the loopback device: infinitely when the machine let too few in a row be measured.
///
/// What arrived at a socket whose program had no processor to fetch it was not lost on the way, but was not measured either.
fn held_longer(stage: &Stage, attempt: u32, left_before: [u64; 2]) -> anyhow::Result<f64> {
    let gap = |result: &Value| result["max_gap_ms"].as_f64().context("no gap measured");
    let count =
        |result: &Value, what: &str| result[what].as_u64().with_context(|| format!("{what}: {result}"));
    let own = gap(&result(stage, &format!("control-{attempt}"))?)?;
    let results = [result(stage, &format!("v4-{attempt}"))?, result(stage, &format!("v6-{attempt}"))?];
    let left_after = left_lying(stage)?;
    let mut longest = f64::MIN;
    for (family, result) in results.iter().enumerate() {
        let (sent, lost) = (count(result, "sent")?, count(result, "lost")?);
        ensure!(sent > 10_000, "{result}");
        if lost > left_after[family] - left_before[family] {
            bail!("datagrams were lost: {result}\n{}", counters(stage));
        }
        let enough = count(result, "measured")? >= sent / 10 * 9;
        let longer =
            if enough && count(result, "blind")? <= LONGEST_ROW { gap(result)? - own } else { f64::INFINITY };
        longest = longest.max(longer);
    }
    Ok(longest)
}

/// Datagrams, of IPv4 and of IPv6, that reached a socket of the client or of the server and found no room in it, so far
/// (`RcvbufErrors`).
fn left_lying(stage: &Stage) -> anyhow::Result<[u64; 2]> {
    let mut counts = [0, 0];
    for pod in ["client", "server"] {
        let ran = exec(&stage.ns.name, pod, &["sh", "-c", "cat /proc/net/snmp /proc/net/snmp6"])?;
        ensure!(ran.ok(), "{ran:?}");
        counts[0] += named_in_columns(&ran.out, "Udp:", "RcvbufErrors")?;
        counts[1] += named_in_lines(&ran.out, "Udp6RcvbufErrors")?;
    }
    Ok(counts)
}

/// A figure of `/proc/net/snmp`: a line of names and a line of values, both of which begin with `protocol`.
fn named_in_columns(text: &str, protocol: &str, name: &str) -> anyhow::Result<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (names, values) = (lines.next().into_iter().flatten(), lines.next().into_iter().flatten());
    let value = names.zip(values).find(|(of, _)| *of == name).map(|(_, value)| value);
    Ok(value.with_context(|| format!("no {name} of {protocol} in {text}"))?.parse()?)
}

/// A figure of `/proc/net/snmp6`: a name and a value in each line.
fn named_in_lines(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.with_context(|| format!("no {name} in {text}"))?.trim().parse()?)
}

/// What was counted on the way of the streams, for whoever has to find out where datagrams went.
fn counters(stage: &Stage) -> String {
    let of_pods = ["client", "server"].map(|pod| {
        let command = ["sh", "-c", "grep Udp: /proc/net/snmp; grep Udp6 /proc/net/snmp6"];
        format!("{pod}: {:?}", exec(&stage.ns.name, pod, &command))
    });
    let echoes = stage.ns.kubectl(&["logs", "server"]);
    let of_nodes = stage.nodes.iter().map(|node| {
        let metrics = nodes::dbg(node, &["bpf", "metrics", "list"]);
        format!("{node}: {metrics:?}")
    });
    let lines = of_pods.into_iter().chain([format!("the server's words: {echoes:?}")]).chain(of_nodes);
    lines.collect::<Vec<_>>().join("\n")
}

fn result(stage: &Stage, stream: &str) -> anyhow::Result<Value> {
    let mut text = String::new();
    eventually("the stream has ended", || {
        text = exec(&stage.ns.name, "client", &["cat", &format!("/tmp/{stream}")])?.out;
        Ok(text.contains('}'))
    })?;
    println!("{stream}: {}", text.trim());
    serde_json::from_str(&text).with_context(|| format!("the stream said {text:?}"))
}

fn still_closed(stage: &Stage) -> anyhow::Result<()> {
    for address in addresses(&stage.ns, "closed")? {
        let ran = exec(&stage.ns.name, "client", &["nc", "-z", "-w", "1", &address, "7000"])?;
        ensure!(!ran.ok(), "the closed server answers on {address}");
    }
    Ok(())
}

/// A policy that is applied now comes into force: the whole pipeline works.
fn converges(stage: &Stage) -> anyhow::Result<()> {
    stage.ns.apply(&CLOSED.replace("name: closed", "name: later").replace("app: closed", "app: server"))?;
    let nc = |address: &str| exec(&stage.ns.name, "client", &["nc", "-z", "-w", "1", address, "7000"]);
    eventually("a new policy closes the server", || Ok(!nc(&stage.server[0])?.ok()))?;
    stage.ns.kubectl(&["delete", "cnp", "later"])?;
    eventually("its removal opens it", || Ok(nc(&stage.server[0])?.ok()))
}

/// Names of the operators that are ready, and their nodes.
fn ready_operators() -> anyhow::Result<Vec<[String; 2]>> {
    let pods = kubectl_json(&["get", "pods", "-n", nodes::SYSTEM, "-l", "io.cilium/app=operator"])?;
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let ready = pods["items"].as_array().into_iter().flatten().filter(is_ready);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(ready.map(|pod| [text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])]).collect())
}

/// Kills every operator that works: one of them may just be waiting for its restart.
fn kill_operators() -> anyhow::Result<()> {
    let mut ready = Vec::new();
    eventually("an operator is ready", || {
        ready = ready_operators()?;
        Ok(!ready.is_empty())
    })?;
    ready.iter().try_for_each(|[name, node]| nodes::kill_in_pod(node, name, "cilium-operator"))
}

#[test]
fn the_operator_is_killed() -> anyhow::Result<()> {
    is_not_noticed(&set_up("kill-operator")?, 20, kill_operators)
}

#[test]
fn both_agents_are_killed() -> anyhow::Result<()> {
    let stage = set_up("kill-agent")?;
    is_not_noticed(&stage, 20, || {
        for node in stage.nodes.iter().take(2) {
            nodes::kill_in_pod(node, &nodes::agent(node)?, "cilium-agent")?;
        }
        Ok(())
    })
}

#[test]
fn the_api_server_is_killed() -> anyhow::Result<()> {
    is_not_noticed(&set_up("kill-api")?, 25, || {
        nodes::control_plane(&["stop", "apiserver"])?;
        sleep(Duration::from_secs(8));
        nodes::control_plane(&["start", "apiserver"])?;
        eventually("the API server answers", || kubectl(&["get", "--raw", "/readyz"]).map(|_| true))
    })
}

/// Entries of the policy map of a node that a policy grants.
fn policy_entries(node: &str, policy: &str) -> anyhow::Result<usize> {
    let list: Value = serde_json::from_str(&nodes::dbg(node, &["bpf", "policy", "list", "-o", "json"])?)?;
    let granted = |entry: &&Value| {
        entry["origins"].as_array().is_some_and(|origins| origins.iter().any(|origin| origin == policy))
    };
    Ok(list.as_array().into_iter().flatten().filter(granted).count())
}

#[test]
fn an_emptied_policy_map_is_filled_again() -> anyhow::Result<()> {
    let stage = set_up("empty-map")?;
    let node = &stage.nodes[1];
    // Something must be in the map: who may reach the closed server on another port.
    stage.ns.apply("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: some}, spec: {endpointSelector: {matchLabels: {app: closed}}, ingress: [{fromEndpoints: [{matchLabels: {app: client}}], toPorts: [{ports: [{port: '7001'}]}]}]}}")?;
    stage.ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", "cnp/some"])?;
    let policy = format!("cnp/{}/some", stage.ns.name);
    let before = policy_entries(node, &policy)?;
    ensure!(before > 0, "the policy map has no entry of {policy}");
    let ran = nodes::in_agent(node, &["cilium-dbg", "bpf", "policy", "flush", "--yes"])?;
    ensure!(ran.ok(), "{ran:?}");
    eventually("the entries are back (within 30 s)", || Ok(policy_entries(node, &policy)? == before))?;
    let repairs = kubectl(&["get", "cns", node, "-o", "jsonpath={.status.applied.repairs}"])?;
    ensure!(repairs.parse::<u64>().is_ok_and(|n| n > 0), "repairs: {repairs:?}");
    still_closed(&stage)
}

#[test]
fn a_state_with_a_wrong_digest_is_refused() -> anyhow::Result<()> {
    let stage = set_up("digest")?;
    let node = &stage.nodes[1];
    let state = kubectl_json(&["get", "cns", node])?;
    let revision = state["status"]["desired"]["revision"].as_i64().context("no revision")?;
    // Somebody with all rights writes rubbish; the agent must not fall for it, and the operator mends it.
    let patch = format!(
        r#"{{"status":{{"desired":{{"revision":{},"digest":"00","inline":"{{}}","slices":null}}}}}}"#,
        revision + 1
    );
    kubectl(&["patch", "cns", node, "--subresource=status", "--type=merge", "-p", &patch])?;
    still_closed(&stage)?;
    converges(&stage)
}
