//! The same paths without the product: namespaces, veth pairs and the kernel's own routing.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Where servers run, of floors and of the product.
pub(crate) const SERVER_CPU: &str = "0";

/// A server in a bare namespace, a client in another; both go when the value is dropped.
pub(crate) struct Floor {
    namespaces: Vec<String>,
    server: Child,
    client: String,
    address: IpAddr,
}

impl Floor {
    /// Two namespaces and one veth pair: the shortest path that two pods could have.
    pub(crate) fn veth_pair() -> anyhow::Result<Self> {
        let namespaces = names(&["a", "b"]);
        let [a, b] = [&namespaces[0], &namespaces[1]];
        build(
            &namespaces,
            &[
                format!("link add e0 netns {a} type veth peer name e0 netns {b}"),
                format!("-n {a} addr add 10.9.0.1/24 dev e0"),
                format!("-n {b} addr add 10.9.0.2/24 dev e0"),
                format!("-n {a} link set e0 up"),
                format!("-n {b} link set e0 up"),
            ],
        )?;
        Self::serve(namespaces.clone(), &namespaces[0], &namespaces[1], Ipv4Addr::new(10, 9, 0, 2).into())
    }

    /// Pod, node, bridge, node, pod: what the cluster in a box has, routed by the kernel.
    pub(crate) fn two_nodes() -> anyhow::Result<Self> {
        let namespaces = names(&["pa", "na", "fab", "nb", "pb"]);
        let [pa, na, fab, nb, pb] = [0, 1, 2, 3, 4].map(|index: usize| namespaces[index].clone());
        let mut steps =
            vec![format!("-n {fab} link add br0 type bridge"), format!("-n {fab} link set br0 up")];
        for (pod, node, n) in [(&pa, &na, 1), (&pb, &nb, 2)] {
            let other = 3 - n;
            steps.extend([
                format!("link add e0 netns {node} type veth peer name p{n} netns {fab}"),
                format!("-n {fab} link set p{n} master br0 up"),
                format!("-n {node} addr add 10.9.9.{n}/24 dev e0"),
                format!("-n {node} link set e0 up"),
                format!("link add e0 netns {pod} type veth peer name l0 netns {node}"),
                format!("-n {pod} addr add 10.9.{n}.2/24 dev e0"),
                format!("-n {pod} link set e0 up"),
                format!("-n {node} addr add 10.9.{n}.1/24 dev l0"),
                format!("-n {node} link set l0 up"),
                format!("-n {pod} route add default via 10.9.{n}.1"),
                format!("-n {node} route add 10.9.{other}.0/24 via 10.9.9.{other}"),
                format!("netns exec {node} sysctl -qw net.ipv4.ip_forward=1"),
            ]);
        }
        build(&namespaces, &steps)?;
        Self::serve(namespaces, &pa, &pb, Ipv4Addr::new(10, 9, 2, 2).into())
    }

    fn serve(namespaces: Vec<String>, client: &str, server: &str, address: IpAddr) -> anyhow::Result<Self> {
        let child = Command::new("ip")
            .args(["netns", "exec", server])
            .arg(probe()?)
            .args(["serve", "7000", "--cpu", SERVER_CPU])
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the server of a floor")?;
        sleep(Duration::from_millis(300));
        Ok(Self { namespaces, server: child, client: client.to_owned(), address })
    }

    /// Runs the probe from client to server and returns its JSON.
    pub(crate) fn run(&self, command: &str, more: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.client])
            .arg(probe()?)
            .args([command, &format!("{}:7000", self.address)])
            .args(more)
            .output()
            .context("cannot run the probe")?;
        ensure!(output.status.success(), "the floor failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if self.server.kill().and_then(|()| self.server.wait()).is_err() {
            eprintln!("the server of a floor had ended before");
        }
        remove(&self.namespaces);
    }
}

fn probe() -> anyhow::Result<String> {
    std::env::var("BENCH_PROBE").context("BENCH_PROBE is not set: run through `just bench`")
}

fn names(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| format!("bench-{}-{part}", std::process::id())).collect()
}

fn build(namespaces: &[String], steps: &[String]) -> anyhow::Result<()> {
    let made = namespaces.iter().map(|name| format!("netns add {name}")).collect::<Vec<_>>();
    let outcome = made.iter().chain(steps).try_for_each(|step| ip(step));
    if outcome.is_err() {
        remove(namespaces);
    }
    outcome
}

fn remove(namespaces: &[String]) {
    for name in namespaces {
        if let Err(error) = ip(&format!("netns del {name}")) {
            eprintln!("namespace {name} is left behind: {error}");
        }
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
