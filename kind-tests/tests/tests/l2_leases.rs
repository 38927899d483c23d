//! Announcements by Leases (`l2announcements.mode: lease`): the holder answers, alone, until it gives the Lease back or it expires.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::announced::{Policy, Watcher, macs, nodes_by_mac, now, order, settled};
use cluster_tests::nodes::{self, SYSTEM, control};
use cluster_tests::outside::node_address;
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, kubectl, kubectl_json};

/// Seconds for which nobody else may answer once a node is dead: the Lease lasts 15, and was renewed every 2.
const EARLIEST: f64 = 12.0;
/// After these somebody has to, with two retry periods and a slow machine.
const LATEST: f64 = 25.0;

struct Stage {
    policy: Policy,
    ns: Namespace,
    address: String,
    lease: String,
}

fn set_up() -> anyhow::Result<Stage> {
    let (ns, nodes) = backends("leases")?;
    let node = node_address(&nodes[0], "IPv4")?.context("nodes have IPv4 addresses")?.to_string();
    let address = format!("{}.240", node.rsplit_once('.').context("is one")?.0);
    serve(&ns, &format!("externalIPs: [{address}]"))?;
    let selector = format!("matchLabels: {{io.kubernetes.service.namespace: {}}}", ns.name);
    let policy = Policy::new(&ns.name, &format!("externalIPs: true, serviceSelector: {{{selector}}}"))?;
    settled(1)?;
    let lease = format!("cilium-l2announce-{}-web", ns.name);
    Ok(Stage { policy, ns, address, lease })
}

impl Stage {
    fn holder(&self) -> anyhow::Result<String> {
        let lease = kubectl_json(&["get", "lease", &self.lease, "-n", SYSTEM])?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    }

    /// The holder, which is the one that answers, and its MAC address.
    fn answering(&self) -> anyhow::Result<(String, String)> {
        let holder = self.holder()?;
        let by_mac = nodes_by_mac()?;
        let found = macs(&self.address, 3)?;
        let nodes: Vec<Option<&String>> = found.iter().map(|mac| by_mac.get(mac)).collect();
        ensure!(
            !found.is_empty() && nodes.iter().all(|node| *node == Some(&holder)),
            "{holder} holds it, {nodes:?} answer"
        );
        Ok((holder, found[0].clone()))
    }

    /// Waits until another node holds the Lease and answers. Returns who answered meanwhile, and when the other one began.
    fn passes_on(
        &self,
        from: &str,
        event: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Vec<String>, f64)> {
        let watcher = Watcher::start(&self.address)?;
        sleep(Duration::from_millis(500));
        event()?;
        eventually("another node holds the Lease", || {
            let holder = self.holder()?;
            Ok(!holder.is_empty() && holder != from)
        })?;
        sleep(Duration::from_secs(1));
        let answers = watcher.stop()?;
        let first = answers.first().context("somebody answered")?.mac.clone();
        let next = answers.iter().find(|answer| answer.mac != first).context("somebody else answers")?.time;
        Ok((order(&answers).into_iter().map(str::to_owned).collect(), next))
    }
}

#[test]
fn the_holder_answers_until_its_lease_expires_or_is_given_back() -> anyhow::Result<()> {
    let stage = set_up()?;
    let (holder, mac) = stage.answering()?;

    let begin = now()?;
    let died = stage.passes_on(&holder, || {
        control(&["link", &holder, "down"])?;
        control(&["stop", &holder]).map(drop)
    });
    // However that ended, the next test finds all nodes.
    control(&["link", &holder, "up"])?;
    control(&["start", &holder])?;
    kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("node/{holder}")])?;
    let (order, next) = died?;
    ensure!(order.len() == 2 && order[0] == mac, "who answered, one after the other: {order:?}");
    println!("a dead holder is followed after {:.1} s", next - begin);
    ensure!((EARLIEST..=LATEST).contains(&(next - begin)), "after {:.1} s", next - begin);

    let (heir, heirs_mac) = stage.answering()?;
    ensure!(heir != holder, "{holder} holds it again, though {heir} lives");
    let begin = now()?;
    let (order, next) = stage.passes_on(&heir, || {
        kubectl(&["delete", "pod", "-n", SYSTEM, &nodes::agent(&heir)?, "--wait=false"]).map(drop)
    })?;
    ensure!(order.len() == 2 && order[0] == heirs_mac, "who answered, one after the other: {order:?}");
    println!("a Lease that an agent gives back is taken after {:.1} s", next - begin);
    kubectl(&["rollout", "status", "daemonset/cilium", "-n", SYSTEM, "--timeout=120s"])?;

    let Stage { policy, ns, lease, .. } = stage;
    drop(policy);
    settled(0)?;
    eventually("the Lease has no holder, or is gone", || {
        let leases = kubectl_json(&["get", "lease", "-n", SYSTEM])?;
        let mut found = leases["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| it["metadata"]["name"] == lease.as_str());
        Ok(found.all(|it| it["spec"]["holderIdentity"].as_str().unwrap_or_default().is_empty()))
    })?;
    drop(ns);
    Ok(())
}
