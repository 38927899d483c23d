//! A second network of the nodes: what is announced there, and ports of nodes at their addresses on it.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use cluster_tests::announced::{Policy, outside, settled};
use cluster_tests::nodes::{self, control};
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually};

/// The devices of nodes on the second network, which `devices` of the installation names.
const DEVICE: &str = "second0";
/// The machine outside has this device on it.
const BRIDGE: &str = "second";
const OUTSIDE: &str = "172.31.0.250";
/// An external IP of a Service.
const ADDRESS: &str = "172.31.0.100";

/// A network that all nodes and the machine outside are on; it goes with the test.
struct SecondNetwork {
    nodes: Vec<String>,
}

impl SecondNetwork {
    fn create() -> anyhow::Result<Self> {
        let network = Self { nodes: nodes::names()? };
        let cluster = std::env::var("CLUSTER_NAME").unwrap_or_else(|_| "box".to_owned());
        let ip = |args: &[&str]| control(&[&["outside", "ip"], args].concat());
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", &format!("{OUTSIDE}/24"), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        for (at, node) in network.nodes.iter().enumerate() {
            let (port, netns) = (format!("{BRIDGE}-{at}"), format!("{cluster}-{node}"));
            ip(&["link", "add", &port, "type", "veth", "peer", "name", DEVICE, "netns", &netns])?;
            ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
            control(&["node", node, "ip", "address", "add", &network.address(at, 24), "dev", DEVICE])?;
            control(&["node", node, "ip", "link", "set", DEVICE, "up"])?;
        }
        Ok(network)
    }

    fn address(&self, at: usize, length: u8) -> String {
        format!("172.31.0.{}/{length}", 11 + at)
    }

    /// The node whose device has a MAC address.
    fn node_of(&self, mac: &str) -> anyhow::Result<String> {
        for node in &self.nodes {
            // A device that a test took away has none.
            let found = control(&[
                "node",
                node,
                "sh",
                "-c",
                &format!("cat /sys/class/net/{DEVICE}/address || true"),
            ])?;
            if found.trim() == mac {
                return Ok(node.clone());
            }
        }
        anyhow::bail!("no node has the MAC address {mac}")
    }
}

impl Drop for SecondNetwork {
    fn drop(&mut self) {
        for at in 0..self.nodes.len() {
            // The other end goes with it; a test may have taken it away already.
            drop(control(&["outside", "ip", "link", "delete", &format!("{BRIDGE}-{at}")]));
        }
        if let Err(error) = control(&["outside", "ip", "link", "delete", BRIDGE]) {
            eprintln!("the second network stays: {error:#}");
        }
    }
}

/// The MAC addresses that answer for the address on a device of the machine outside.
fn macs(device: &str) -> anyhow::Result<Vec<String>> {
    let text = outside(&["arping", "-r", "-c", "3", "-W", "0.02", "-w", "3", "-i", device, ADDRESS])?;
    let found: BTreeSet<String> = text.lines().map(str::to_lowercase).collect();
    Ok(found.into_iter().collect())
}

fn get(url: &str) -> anyhow::Result<String> {
    outside(&["curl", "-s", "--max-time", "2", url])
}

#[test]
fn a_second_network_has_its_own_answers() -> anyhow::Result<()> {
    let network = SecondNetwork::create()?;
    let (ns, _) = backends("second")?;
    serve(&ns, &format!("type: NodePort, externalIPs: [{ADDRESS}]"))?;
    let selector =
        format!("serviceSelector: {{matchLabels: {{io.kubernetes.service.namespace: {}}}}}", ns.name);
    let _policy =
        Policy::new(&ns.name, &format!("externalIPs: true, interfaces: ['^{DEVICE}$'], {selector}"))?;
    let by_node = settled(1)?;
    let owner = by_node.iter().find(|(_, addresses)| !addresses.is_empty()).context("somebody answers")?.0;
    let found = macs(BRIDGE)?;
    ensure!(
        found.len() == 1 && network.node_of(&found[0])? == *owner,
        "{owner} answers, says it; {found:?} does"
    );
    ensure!(macs("e0")?.is_empty(), "it is announced on the nodes' own network, too");

    let url = format!("http://{ADDRESS}/hostname");
    let answers: BTreeSet<String> = (0..20).map(|_| get(&url)).collect::<anyhow::Result<_>>()?;
    ensure!(answers == ["near".to_owned(), "far".to_owned()].into(), "backends of two nodes: {answers:?}");
    ports_of_nodes(&ns, &network)?;

    let place = network.nodes.iter().position(|node| node == owner).context("is a node")?;
    control(&["outside", "ip", "link", "delete", &format!("{BRIDGE}-{place}")])?;
    eventually("another node has the address", || Ok(macs(BRIDGE)?.len() == 1))?;
    let next = network.node_of(&macs(BRIDGE)?[0])?;
    ensure!(next != *owner, "{owner} has no device there any more");
    ensure!(["near", "far"].contains(&get(&url)?.as_str()), "it serves the address");
    Ok(())
}

/// The port of the Service is served at the nodes' addresses of this network.
fn ports_of_nodes(ns: &Namespace, network: &SecondNetwork) -> anyhow::Result<()> {
    let service = cluster_tests::kubectl_json(&["-n", &ns.name, "get", "service", "web"])?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("has a port of nodes")?;
    for (at, node) in network.nodes.iter().enumerate() {
        let address = network.address(at, 32);
        let url = format!("http://{}:{port}/hostname", address.trim_end_matches("/32"));
        // Agents look for addresses of the node every ten seconds.
        eventually(&format!("{node} serves {url}"), || Ok(!get(&url)?.is_empty()))?;
        let answers: BTreeSet<String> = (0..20).map(|_| get(&url)).collect::<anyhow::Result<_>>()?;
        ensure!(answers == ["near".to_owned(), "far".to_owned()].into(), "{node} at {url}: {answers:?}");
    }
    Ok(())
}
