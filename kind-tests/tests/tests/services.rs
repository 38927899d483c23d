//! Which backends of a Service a pod comes to: those of its node, of its zone, the one it had before, and under which addresses; and
//! what it hears when they are gone.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use cluster_tests::pods::{mk_pod, mk_server};
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, Ran, eventually, exec, kubectl, nodes};

/// The backends that answer 24 connections one after the other; empty when one has no answer. All go to one of two by chance in one
/// of eight million runs.
fn answers(ns: &Namespace, address: &str) -> anyhow::Result<BTreeSet<String>> {
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do curl -sf --max-time 3 http://{address}/hostname || exit 1; echo; done"
    );
    let ran = exec(&ns.name, "client", &["sh", "-c", &script])?;
    Ok(if ran.ok() { ran.out.split_whitespace().map(str::to_owned).collect() } else { BTreeSet::new() })
}

fn are_answered_by(ns: &Namespace, address: &str, expected: &[&str]) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let outcome = eventually(&format!("{address} leads to {expected:?}"), || {
        seen = answers(ns, address)?;
        Ok(seen == expected)
    });
    outcome.with_context(|| format!("the last answers came from {seen:?}"))
}

#[test]
fn a_node_uses_its_own_backends_only() -> anyhow::Result<()> {
    let (ns, nodes) = backends("internal-local")?;
    let address = serve(&ns, "internalTrafficPolicy: Local")?;
    are_answered_by(&ns, &address, &["near"])?;
    let listed = nodes::dbg(&nodes[1], &["service", "list"])?;
    let far = ns.kubectl(&["get", "pod", "far", "-o", "jsonpath={.status.podIP}"])?;
    let near = ns.kubectl(&["get", "pod", "near", "-o", "jsonpath={.status.podIP}"])?;
    ensure!(listed.contains(&far) && !listed.contains(&near), "{listed}");
    ns.kubectl(&["delete", "pod", "near"])?;
    eventually("without a backend on the node, connections are refused", || {
        let curl = ["curl", "-s", "--max-time", "3", &format!("http://{address}/hostname")];
        Ok(exec(&ns.name, "client", &curl)?.code == 7)
    })
}

#[test]
fn backends_of_the_same_node_are_preferred() -> anyhow::Result<()> {
    let (ns, _) = backends("same-node")?;
    let address = serve(&ns, "trafficDistribution: PreferSameNode")?;
    are_answered_by(&ns, &address, &["near"])?;
    ns.kubectl(&["delete", "pod", "near"])?;
    are_answered_by(&ns, &address, &["far"])
}

/// Labels of zones, which go with the test.
struct Zones<'a>(&'a [String]);

const ZONE: &str = "topology.kubernetes.io/zone";

impl Zones<'_> {
    fn set(&self) -> anyhow::Result<()> {
        for (number, node) in self.0.iter().enumerate() {
            kubectl(&["label", "node", node, "--overwrite", &format!("{ZONE}=zone-{number}")])?;
        }
        Ok(())
    }
}

impl Drop for Zones<'_> {
    fn drop(&mut self) {
        for node in self.0 {
            if let Err(error) = kubectl(&["label", "node", node, &format!("{ZONE}-")]) {
                eprintln!("the label {ZONE} stays on {node}: {error:#}");
            }
        }
    }
}

#[test]
fn backends_of_the_same_zone_are_preferred() -> anyhow::Result<()> {
    let (ns, nodes) = backends("same-zone")?;
    let address = serve(&ns, "trafficDistribution: PreferSameZone")?;
    are_answered_by(&ns, &address, &["far", "near"])?;
    let zones = Zones(&nodes);
    zones.set()?;
    let mut round = 0;
    eventually("the backends have hints", || {
        // A label of a node has nobody write slices again; a change of the Service does.
        round += 1;
        ns.kubectl(&["annotate", "service", "web", "--overwrite", &format!("round={round}")])?;
        let hints = "jsonpath={.items[*].endpoints[*].hints.forZones[*].name}";
        let selector = "kubernetes.io/service-name=web";
        let hints = ns.kubectl(&["get", "endpointslices", "-l", selector, "-o", hints])?;
        Ok(hints.contains("zone-0") && hints.contains("zone-1"))
    })?;
    are_answered_by(&ns, &address, &["near"])?;
    drop(zones);
    are_answered_by(&ns, &address, &["far", "near"])
}

#[test]
fn a_client_keeps_its_backend() -> anyhow::Result<()> {
    let (ns, _) = backends("affinity")?;
    let address = serve(&ns, "sessionAffinity: ClientIP")?;
    let mut first = BTreeSet::new();
    eventually("all connections come to one backend", || {
        first = answers(&ns, &address)?;
        Ok(first.len() == 1)
    })?;
    let kept = first.first().context("nobody answered")?;
    ns.kubectl(&["delete", "pod", kept])?;
    are_answered_by(&ns, &address, &[if kept == "near" { "far" } else { "near" }])
}

#[test]
fn pods_reach_the_address_of_a_load_balancer() -> anyhow::Result<()> {
    let (ns, _) = backends("load-balancer")?;
    serve(&ns, "type: LoadBalancer, allocateLoadBalancerNodePorts: false, internalTrafficPolicy: Local")?;
    let address = "192.0.2.77";
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
    ns.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &status])?;
    are_answered_by(&ns, address, &["far", "near"])
}

/// A backend that takes connections and datagrams and says nothing. It does not heed SIGTERM, so it lives on for a while when its pod
/// is deleted, and no connection is closed by it.
fn mk_silent(name: &str, node: &str) -> String {
    mk_server(name, Some(node))
        .replace(&format!("app: {name}"), "app: web")
        .replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 60")
}

/// Programs of the pod `client` that wait on a TCP connection and on a connected UDP socket, each for half a minute at most.
fn wait_for_an_answer(ns: &str, address: &str) -> anyhow::Result<Ran> {
    let script = format!(
        "timeout 30 nc -u -d {address} 80 & udp=$!; curl -sS --max-time 30 http://{address}/; echo tcp $?; wait $udp; echo udp $?"
    );
    exec(ns, "client", &["sh", "-c", &script])
}

/// Both are connected to port 7000 of a backend.
fn are_connected(ns: &str) -> anyhow::Result<bool> {
    let script = "grep -q ':1B58 01' /proc/net/tcp && grep -q ':1B58 01' /proc/net/udp";
    Ok(exec(ns, "client", &["sh", "-c", script])?.ok())
}

#[test]
fn programs_are_told_that_their_backend_is_gone() -> anyhow::Result<()> {
    let ns = Namespace::new("told")?;
    let nodes = nodes::names()?;
    ns.apply(&mk_pod("client", Some(&nodes[0]), &[], false))?;
    ns.ready(&["client"])?;
    let address = serve(&ns, "type: ClusterIP")?;
    for (number, node) in nodes.iter().take(2).enumerate() {
        let server = format!("server-{number}");
        ns.apply(&mk_silent(&server, node))?;
        ns.ready(&[&server])?;
        eventually("the Service leads to it", || {
            Ok(exec(&ns.name, "client", &["nc", "-z", "-w", "3", &address, "80"])?.ok())
        })?;
        thread::scope(|scope| {
            let programs = scope.spawn(|| wait_for_an_answer(&ns.name, &address));
            eventually("both are connected", || are_connected(&ns.name))?;
            ns.kubectl(&["delete", "pod", &server, "--force", "--grace-period=0", "--wait=false"])?;
            let begin = Instant::now();
            let ran = programs.join().map_err(|_| anyhow!("a thread panicked"))??;
            let took = begin.elapsed();
            ensure!(ran.out.contains("tcp 56") && ran.out.contains("udp 0"), "{ran:?}");
            ensure!(ran.err.contains("connection abort"), "{ran:?}");
            ensure!(took < Duration::from_secs(5), "on {node} it took {took:?}");
            Ok(())
        })?;
    }
    Ok(())
}
