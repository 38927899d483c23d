//! Throughput and round trips between pods, in pairs with the bare floors.

use anyhow::{Context as _, ensure};
use cluster_tests::pods::{addresses, mk_pod, socket};
use cluster_tests::{Namespace, exec, nodes};
use serde_json::Value;

use crate::floors::{Floor, SERVER_CPU};
use crate::table::{Goal, Row, median};

/// Everything passes, but only because a policy says so.
const POLICY: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: measured}, spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: client}}], toPorts: [{ports: [{port: '7000', protocol: ANY}]}]}]}}";

/// Both ends of a figure stay where they are, or each run would measure another placement.
const SERVER: [&str; 5] = ["probe", "serve", "7000", "--cpu", SERVER_CPU];

/// One client, a server beside it and a server on another node.
pub(crate) fn measure(pairs: usize) -> anyhow::Result<Vec<Row>> {
    let ns = Namespace::new("paths")?;
    let nodes = nodes::names()?;
    let manifests = mk_pod("client", Some(&nodes[0]), &[], false)
        + &mk_pod("near", Some(&nodes[0]), &SERVER, false)
        + &mk_pod("far", Some(&nodes[1]), &SERVER, false);
    ns.apply(&manifests)?;
    ns.apply(POLICY)?;
    ns.ready(&["client", "near", "far"])?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=60s", "cnp/measured"])?;
    let [near, _] = addresses(&ns, "near")?;
    let [far, _] = addresses(&ns, "far")?;
    let pair = Floor::veth_pair(&ns, "client", "near")?;
    let routed = Floor::two_nodes(&ns, "client", "far")?;
    Ok(vec![
        figure(
            "TCP between pods on one node, with policy",
            &pair,
            &ns,
            &near,
            pairs,
            &TCP,
            Goal::RatioAtLeast(0.95),
        )?,
        figure(
            "UDP round trip p50 on one node, with policy",
            &pair,
            &ns,
            &near,
            pairs,
            &UDP,
            Goal::RatioAtMost(1.05),
        )?,
        figure(
            "TCP between nodes, native routing",
            &routed,
            &ns,
            &far,
            pairs,
            &TCP,
            Goal::RatioAtLeast(0.85),
        )?,
        figure("UDP round trip p50 between nodes", &routed, &ns, &far, pairs, &UDP, Goal::RatioAtMost(1.15))?,
    ])
}

/// What the probe does, and what is taken from its answer.
struct Kind {
    command: &'static str,
    more: &'static [&'static str],
    field: &'static str,
    scale: f64,
    unit: &'static str,
}

const TCP: Kind = Kind {
    command: "tcp",
    more: &["--seconds", "2", "--cpu", "1"],
    field: "gbit_s",
    scale: 1.0,
    unit: "Gbit/s",
};
const UDP: Kind = Kind {
    command: "rr",
    more: &["--count", "20000", "--cpu", SERVER_CPU],
    field: "p50_ns",
    scale: 1e-3,
    unit: "us",
};

/// Floor and product take turns, so that a slow minute of the machine hits both.
fn figure(
    what: &str,
    floor: &Floor,
    ns: &Namespace,
    to: &str,
    pairs: usize,
    kind: &Kind,
    goal: Goal,
) -> anyhow::Result<Row> {
    let (mut floors, mut values) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        floors.push(probe(ns, floor.address, kind).with_context(|| format!("{what}: the floor"))?);
        values.push(probe(ns, to, kind).with_context(|| what.to_owned())?);
    }
    let what = format!("{what} ({})", kind.unit);
    Ok(Row { what, unit: kind.unit, floor: Some(median(&mut floors)), value: median(&mut values), goal })
}

/// Runs the probe in the client's pod.
fn probe(ns: &Namespace, to: &str, kind: &Kind) -> anyhow::Result<f64> {
    let target = socket(to, 7000);
    let ran = exec(&ns.name, "client", &[&["probe", kind.command, &target], kind.more].concat())?;
    ensure!(ran.ok(), "{ran:?}");
    let answer: Value = serde_json::from_str(&ran.out)?;
    answer[kind.field]
        .as_f64()
        .map(|n| n * kind.scale)
        .with_context(|| format!("the probe answered {answer}"))
}
