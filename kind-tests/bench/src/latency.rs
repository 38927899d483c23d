//! From the API request for a policy to the first packet that passes, and from its deletion to the last.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_tests::pods::{addresses, mk_pod, mk_server, socket};
use cluster_tests::{Namespace, nodes};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::hops::Hops;
use crate::table::{Goal, Row, median};

/// The server is closed but for what `probe` opens; it can be told from the silence of the path.
const CLOSED: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: closed}, spec: {endpointSelector: {matchLabels: {app: server}}, ingress: [{}]}}";

/// Client and server on different nodes; `rounds` times a policy that opens the path is created and deleted. The floor is what
/// the API server alone needs for two such changes ([`Hops`]).
pub(crate) async fn measure(
    label: &str,
    apply_goal: f64,
    delete_goal: f64,
    rounds: usize,
) -> anyhow::Result<Vec<Row>> {
    let ns = Namespace::new("latency")?;
    let nodes = nodes::names()?;
    ns.apply(&(mk_pod("client", Some(&nodes[0]), &[], false) + &mk_server("server", Some(&nodes[1]))))?;
    ns.apply(CLOSED)?;
    ns.ready(&["client", "server"])?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", "cnp/closed"])?;
    let [v4, _] = addresses(&ns, "server")?;
    let mut watch = Watch::start(&ns, &socket(&v4, 7000))?;
    watch.expect(false)?;
    let policies = policies(&ns).await?;
    let mut hops = Hops::start(&ns).await?;
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    let (mut create_floor, mut delete_floor) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = monotonic();
        policies.create(&PostParams::default(), &policy(&ns)?).await.context("cannot create the policy")?;
        opened.push(watch.expect(true)?.saturating_sub(start) as f64 / 1e6);
        let start = monotonic();
        policies.delete("open", &DeleteParams::default()).await.context("cannot delete the policy")?;
        closed.push(watch.expect(false)?.saturating_sub(start) as f64 / 1e6);
        create_floor.push(hops.create().await?);
        delete_floor.push(hops.delete().await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let row = |what: &str, floors: &mut [f64], values: &mut [f64], goal| Row {
        what: format!("{what}, {label}"),
        unit: "ms",
        floor: Some(median(floors)),
        value: median(values),
        goal: Goal::AtMost(goal),
    };
    Ok(vec![
        row("CNP apply: API request to first packet", &mut create_floor, &mut opened, apply_goal),
        row("CNP delete: API request to last packet", &mut delete_floor, &mut closed, delete_goal),
    ])
}

async fn policies(ns: &Namespace) -> anyhow::Result<Api<DynamicObject>> {
    let client = kube::Client::try_default().await.context("no client: run through `just bench`")?;
    let kind = GroupVersionKind::gvk("cilium.io", "v2", "CiliumNetworkPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "ciliumnetworkpolicies");
    Ok(Api::namespaced_with(client, &ns.name, &resource))
}

fn policy(ns: &Namespace) -> anyhow::Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "open", "namespace": ns.name},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"app": "client"}}],
                "toPorts": [{"ports": [{"port": "7000", "protocol": "UDP"}]}],
            }],
        },
    }))?)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of the probe, which runs on the same machine.
fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `probe watch` in the client pod.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(ns: &Namespace, to: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("kubectl")
            .args(["exec", "-n", &ns.name, "client", "--", "probe", "watch", to, "--silence-ms", "40"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run kubectl")?;
        let output = child.stdout.take().context("kubectl has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Time of the next change to `up`; earlier changes are passed over.
    fn expect(&mut self, up: bool) -> anyhow::Result<u64> {
        loop {
            let line = match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the path did not become {} in 30 s", if up { "open" } else { "closed" })
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the probe ended"),
            };
            let change: Value =
                serde_json::from_str(&line).with_context(|| format!("the probe said {line:?}"))?;
            if change["up"] == up {
                return change["at"].as_u64().context("a change without time");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The pod goes with its namespace; only the local kubectl is ended here.
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("kubectl exec had ended before");
        }
    }
}
