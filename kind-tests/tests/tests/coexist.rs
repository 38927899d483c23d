//! kube-proxy beside the product, as on a cluster that moves from one to the other: nothing that is served stops being served when it
//! comes, while it is there, when the agent starts beside it, and when it goes. The cluster in a box starts it on the nodes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::nodes::{self, control_plane, dbg};
use cluster_tests::outside::{are_answered_by, ask, keep_asking, node_address, node_port};
use cluster_tests::pods::mk_pod;
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, exec, kubectl};

/// Ports of nodes, one for each test: kubelet keeps that of a pod that is still leaving.
const HOST_PORTS: [u16; 2] = [8127, 8128];

/// A Service with backends on two nodes, and a pod that a port of the first node leads to.
struct Stage {
    ns: Namespace,
    nodes: Vec<String>,
    cluster_ip: String,
    /// The port of nodes, at each of them.
    at: Vec<SocketAddr>,
    host_port: SocketAddr,
}

impl Stage {
    fn new(prefix: &str, host_port: u16) -> anyhow::Result<Self> {
        let (ns, nodes) = backends(prefix)?;
        let cluster_ip = serve(&ns, "type: NodePort")?;
        let agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
        let hosted = mk_pod("hosted", Some(&nodes[0]), &["/agnhost", "netexec", "--http-port=7000"], false)
            .replace("localhost/client:dev", agnhost)
            .replace(
                "      resources:",
                &format!("      ports: [{{containerPort: 7000, hostPort: {host_port}}}]\n      resources:"),
            );
        ns.apply(&(hosted + &mk_pod("own", Some(&nodes[0]), &[], true)))?;
        ns.ready(&["hosted", "own"])?;
        let port = node_port(&ns, "tcp")?;
        let at = |node: &String, port| -> anyhow::Result<SocketAddr> {
            Ok((node_address(node, "IPv4")?.context("no IPv4 address")?, port).into())
        };
        let host_port = at(&nodes[0], host_port)?;
        let at = nodes.iter().map(|node| at(node, port)).collect::<anyhow::Result<_>>()?;
        Ok(Self { ns, nodes, cluster_ip, at, host_port })
    }

    /// All that a Service does, for clients in a pod, on a node and outside.
    fn works(&self) -> anyhow::Result<()> {
        for at in &self.at {
            are_answered_by(*at, &["far", "near"])?;
        }
        are_answered_by(self.host_port, &["hosted"])?;
        let url = format!("http://{}/hostname?[1-24]", self.cluster_ip);
        for client in ["client", "own"] {
            eventually(&format!("the cluster address serves the pod {client}"), || {
                let curl = ["curl", "-s", "--max-time", "3", "-w", "\n", "-H", "Connection: close", &url];
                let said = exec(&self.ns.name, client, &curl)?;
                Ok(said.ok() && ["far", "near"].iter().all(|name| said.out.lines().any(|line| line == *name)))
            })?;
        }
        Ok(())
    }

    fn kube_proxy(&self, mode: &str) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(|node| control_plane(&["kube-proxy", node, mode]))
    }

    /// Every node's status says which rules of kube-proxy there are; `None` is none.
    fn is_told(&self, mode: Option<&str>) -> anyhow::Result<()> {
        for node in &self.nodes {
            eventually(&format!("{node} tells of kube-proxy in the mode {mode:?}"), || {
                let status = dbg(node, &["status"])?;
                let line = status.lines().find(|line| line.starts_with("kube-proxy:"));
                let replaced = status
                    .lines()
                    .any(|line| line.starts_with("KubeProxyReplacement:") && line.contains("True"));
                ensure!(replaced, "{status}");
                Ok(match mode {
                    None => line.is_none(),
                    Some(mode) => line.is_some_and(|line| {
                        line.contains(&format!("has rules on this node ({mode})"))
                            && line.contains("not used")
                    }),
                })
            })?;
        }
        Ok(())
    }

    fn log_says(&self, text: &str) -> anyhow::Result<()> {
        for node in &self.nodes {
            let log = kubectl(&["logs", "-n", nodes::SYSTEM, &nodes::agent(node)?, "-c", "cilium-agent"])?;
            ensure!(log.contains(text), "the agent of {node} does not say {text:?}:\n{log}");
        }
        Ok(())
    }

    /// kube-proxy comes, the agents start beside it, a Service changes, and kube-proxy goes.
    fn comes_and_goes(&self, mode: &str) -> anyhow::Result<()> {
        self.kube_proxy(mode)?;
        self.works()?;
        self.is_told(Some(mode))?;
        self.log_says("kube-proxy's rules are on this node")?;
        for node in &self.nodes {
            nodes::kill_in_pod(node, &nodes::agent(node)?, "cilium-agent")?;
        }
        self.works()?;
        self.is_told(Some(mode))?;
        self.ns.kubectl(&["label", "pod", "near", "app=retired", "--overwrite"])?;
        self.at.iter().try_for_each(|at| are_answered_by(*at, &["far"]))?;
        self.kube_proxy("off")?;
        self.is_told(None)?;
        self.log_says("kube-proxy's rules are gone")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.kube_proxy("off") {
            eprintln!("kube-proxy stays: {error}");
        }
    }
}

/// Asks at both nodes and at the port of the pod all the time; no question may remain without an answer.
fn goes_on(stage: &Stage, change: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    let pause = Duration::from_millis(20);
    std::thread::scope(|scope| {
        let stop = &stop;
        let targets = stage.at.iter().chain([&stage.host_port]);
        let clients: Vec<_> =
            targets.map(|at| (*at, scope.spawn(move || keep_asking(*at, pause, stop)))).collect();
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        for (at, client) in clients {
            let (asked, failed) =
                client.join().map_err(|_| anyhow::anyhow!("the client of {at} was lost"))?;
            println!("{at} was asked {asked} times, {} failed", failed.len());
            ensure!(asked > 100 && failed.is_empty(), "{at}: of {asked} questions failed {failed:?}");
        }
        changed
    })
}

fn beside(mode: &str, host_port: u16) -> anyhow::Result<()> {
    let stage = Stage::new(&format!("coexist-{mode}"), host_port)?;
    stage.works()?;
    stage.is_told(None)?;
    goes_on(&stage, || stage.comes_and_goes(mode))?;
    are_answered_by(stage.at[0], &["far"])?;
    ensure!(ask(stage.host_port, "/hostname")?.1 == "hosted", "somebody else answers at {}", stage.host_port);
    Ok(())
}

#[test]
fn services_go_on_while_kube_proxy_comes_and_goes_in_mode_nftables() -> anyhow::Result<()> {
    beside("nftables", HOST_PORTS[0])
}

#[test]
fn services_go_on_while_kube_proxy_comes_and_goes_in_mode_iptables() -> anyhow::Result<()> {
    beside("iptables", HOST_PORTS[1])
}
