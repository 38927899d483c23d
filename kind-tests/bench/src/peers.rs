//! kube-proxy, for figures beside ours: two more machines on the network of the nodes, with kube-proxy where nodes have the product.
//!
//! ```text
//!                      ┌ n1 ─ fabric ─ n2 ┐
//! a client ─ fabric ─ <                    > the server's pod
//!                      └ .201 ─ fabric ─ .202 ┘
//! ```
//! Client, server, fabric and API server are the same on both ways. The way of the peer has routes of the kernel and nothing else that a
//! CNI would add: no policy, no encapsulation. Its kube-proxy has its own defaults, so that it writes its rules at most once a second.

use std::env;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, ensure};
use cluster_tests::{Namespace, nodes};

use crate::floors::{attach, ip};

/// How kube-proxy gives its rules to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Nftables,
    Iptables,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// Where clients come in.
pub(crate) const ENTRY: &str = "172.30.0.201";
/// The machine of the server's second network device.
const FAR: &str = "172.30.0.202";
/// What the server is called there.
pub(crate) const BACKEND: &str = "10.8.0.2";

/// The two machines, and kube-proxy where it was started; all of it goes when the value is dropped.
pub(crate) struct Peers {
    mode: Mode,
    pod: String,
    machines: [String; 2],
    running: Vec<Child>,
}

impl Peers {
    /// Puts the machines beside the nodes, and gives the pod `server` a device on the second of them.
    pub(crate) fn new(mode: Mode, ns: &Namespace, server: &str) -> anyhow::Result<Self> {
        let name = |part: &str| format!("bench-{}-{mode}-{part}", std::process::id());
        let mut peers =
            Self { mode, pod: name("pod"), machines: [name("entry"), name("far")], running: Vec::new() };
        let cluster =
            env::var("CLUSTER_NAME").context("CLUSTER_NAME is not set: run through `just bench`")?;
        let steps = peers.steps(&format!("{cluster}-fab"), attach(ns, &peers.pod, server)?);
        steps.iter().try_for_each(|step| ip(step))?;
        let entry = peers.machines[0].clone();
        peers.start(&entry, ENTRY)?;
        Ok(peers)
    }

    /// kube-proxy on the second machine as well, as every node of a cluster has it; what passes there is then tracked twice.
    pub(crate) fn everywhere(mut self) -> anyhow::Result<Self> {
        let far = self.machines[1].clone();
        self.start(&far, FAR)?;
        Ok(self)
    }

    fn steps(&self, fabric: &str, attach: String) -> Vec<String> {
        let (pod, [entry, far]) = (&self.pod, &self.machines);
        let mut steps = vec![attach];
        // The same hardware addresses each time: neighbours would look for those of the peer before.
        for (machine, port, mac, address) in
            [(entry, "p-k1", "02:00:00:00:c9:01", ENTRY), (far, "p-k2", "02:00:00:00:c9:02", FAR)]
        {
            steps.extend([
                format!("netns add {machine}"),
                format!(
                    "netns exec {machine} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0"
                ),
                format!("link add e0 address {mac} netns {machine} type veth peer name {port} netns {fabric}"),
                format!("-n {fabric} link set {port} master br0 up"),
                format!("netns exec {fabric} bridge link set dev {port} flood off"),
                format!("-n {machine} addr add {address}/24 dev e0"),
                format!("-n {machine} link set lo up"),
                format!("-n {machine} link set e0 up"),
            ]);
        }
        steps.extend([
            format!("-n {pod} link add k0 type veth peer name l0 netns {far}"),
            format!("-n {pod} addr add {BACKEND}/24 dev k0"),
            format!("-n {pod} link set k0 up"),
            format!("-n {far} addr add 10.8.0.1/24 dev l0"),
            format!("-n {far} link set l0 up"),
            format!("-n {entry} route add 10.8.0.0/24 via {FAR}"),
            format!("-n {pod} route add {ENTRY}/32 via 10.8.0.1"),
        ]);
        steps
    }

    /// It knows itself as the first node, whose object it reads, but with an address of its own.
    fn start(&mut self, machine: &str, address: &str) -> anyhow::Result<()> {
        let log = log_file(machine);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let kubeconfig = env::var("KUBECONFIG").context("KUBECONFIG is not set: run through `just bench`")?;
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{machine}"))
            .args(["kube-proxy", "--proxy-mode", &self.mode.to_string(), "--kubeconfig", &kubeconfig])
            .args(["--hostname-override", &nodes::names()?[0], "--bind-address", address])
            .args(["--nodeport-addresses", "172.30.0.0/24", "--conntrack-max-per-core", "0"])
            .stdout(file.try_clone().context("cannot share a log")?)
            .stderr(file)
            .spawn()
            .context("cannot run nsenter")?;
        self.running.push(child);
        Ok(())
    }

    /// What kube-proxy said last; for whoever has to find out why it does not work.
    pub(crate) fn complaint(&self) -> String {
        let log = std::fs::read_to_string(log_file(&self.machines[0])).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Fails when a kube-proxy has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.running {
            let ended = child.try_wait().context("cannot look after kube-proxy")?;
            ensure!(ended.is_none(), "kube-proxy ended: {}", self.machines.join(", "));
        }
        Ok(())
    }
}

fn log_file(machine: &str) -> PathBuf {
    Path::new("/tmp").join(format!("{machine}.log"))
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.running {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("kube-proxy goes on: {error}");
            }
        }
        // A namespace goes some time after its name; the next peer has devices of the same names.
        let devices = self.machines.iter().map(|name| format!("-n {name} link del e0"));
        let names = self.machines.iter().chain([&self.pod]).map(|name| format!("netns del {name}"));
        for step in [format!("-n {} link del k0", self.pod)].into_iter().chain(devices).chain(names) {
            if let Err(error) = ip(&step) {
                eprintln!("a part of a peer is left behind: {error}");
            }
        }
        for machine in &self.machines {
            // Whatever it said is of no use any more.
            drop(std::fs::remove_file(log_file(machine)));
        }
    }
}
