//! The same paths without the product: bare veth pairs and the kernel's own routing between the same two pods, so that the
//! programs at both ends, their control groups and their processors are the same.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use cluster_tests::{Namespace, kubectl};

/// Where the servers of figures run.
pub(crate) const SERVER_CPU: &str = "0";

/// A path from one pod to another; what was made for it goes when the value is dropped.
pub(crate) struct Floor {
    namespaces: Vec<String>,
    /// Device of the path in the first namespace.
    device: &'static str,
    /// What the second pod is called on this path.
    pub(crate) address: &'static str,
}

impl Floor {
    /// One veth pair: the shortest path that two pods could have.
    pub(crate) fn veth_pair(ns: &Namespace, client: &str, server: &str) -> anyhow::Result<Self> {
        let namespaces = names(&["pair-a", "pair-b"]);
        let [a, b] = [&namespaces[0], &namespaces[1]];
        let steps = vec![
            attach(ns, a, client)?,
            attach(ns, b, server)?,
            format!("-n {a} link add f0 type veth peer name f0 netns {b}"),
            format!("-n {a} addr add 10.9.0.1/24 dev f0"),
            format!("-n {b} addr add 10.9.0.2/24 dev f0"),
            format!("-n {a} link set f0 up"),
            format!("-n {b} link set f0 up"),
        ];
        Self::build(namespaces, "f0", "10.9.0.2", &steps)
    }

    /// Pod, node, bridge, node, pod: what the cluster in a box has, routed by the kernel.
    pub(crate) fn two_nodes(ns: &Namespace, client: &str, server: &str) -> anyhow::Result<Self> {
        let namespaces = names(&["pa", "pb", "na", "nb", "fab"]);
        let [pa, pb, na, nb, fab] = [0, 1, 2, 3, 4].map(|index: usize| namespaces[index].clone());
        let mut steps = vec![attach(ns, &pa, client)?, attach(ns, &pb, server)?];
        steps.extend([&na, &nb, &fab].map(|name| format!("netns add {name}")));
        steps.extend([format!("-n {fab} link add br0 type bridge"), format!("-n {fab} link set br0 up")]);
        for (pod, node, n) in [(&pa, &na, 1), (&pb, &nb, 2)] {
            let other = 3 - n;
            steps.extend([
                format!("link add e0 netns {node} type veth peer name p{n} netns {fab}"),
                format!("-n {fab} link set p{n} master br0 up"),
                format!("-n {node} addr add 10.9.9.{n}/24 dev e0"),
                format!("-n {node} link set e0 up"),
                format!("-n {pod} link add f1 type veth peer name l0 netns {node}"),
                format!("-n {pod} addr add 10.9.{n}.2/24 dev f1"),
                format!("-n {pod} link set f1 up"),
                format!("-n {node} addr add 10.9.{n}.1/24 dev l0"),
                format!("-n {node} link set l0 up"),
                format!("-n {pod} route add 10.9.{other}.0/24 via 10.9.{n}.1"),
                format!("-n {node} route add 10.9.{other}.0/24 via 10.9.9.{other}"),
                format!("netns exec {node} sysctl -qw net.ipv4.ip_forward=1"),
            ]);
        }
        Self::build(namespaces, "f1", "10.9.2.2", &steps)
    }

    fn build(
        namespaces: Vec<String>,
        device: &'static str,
        address: &'static str,
        steps: &[String],
    ) -> anyhow::Result<Self> {
        let floor = Self { namespaces, device, address };
        steps.iter().try_for_each(|step| ip(step))?;
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let device = format!("-n {} link del {}", self.namespaces[0], self.device);
        let names = self.namespaces.iter().map(|name| format!("netns del {name}"));
        for step in std::iter::once(device).chain(names) {
            if let Err(error) = ip(&step) {
                eprintln!("a part of a floor is left behind: {error}");
            }
        }
    }
}

fn names(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| format!("bench-{}-{part}", std::process::id())).collect()
}

/// Gives the network namespace of a pod a name.
pub(crate) fn attach(ns: &Namespace, name: &str, pod: &str) -> anyhow::Result<String> {
    let uid = kubectl(&["get", "pod", pod, "-n", &ns.name, "-o", "jsonpath={.metadata.uid}"])?;
    let process = process_of(&uid)?.with_context(|| format!("no process of pod {pod} is on this machine"))?;
    Ok(format!("netns attach {name} {process}"))
}

/// A process whose control groups carry the UID of a pod.
fn process_of(uid: &str) -> anyhow::Result<Option<String>> {
    for entry in fs::read_dir("/proc").context("cannot list processes")? {
        let path = entry.context("cannot list processes")?.path();
        // A process may end meanwhile, and not every entry is one.
        if fs::read_to_string(path.join("cgroup")).is_ok_and(|groups| groups.contains(uid)) {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

pub(crate) fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
