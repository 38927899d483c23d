//! What policies mean to real pods, beyond the guide: denials, prefixes outside of the cluster, ICMP.

use std::time::Duration;

use anyhow::ensure;
use cluster_tests::pods::{addresses, mk_pod, socket};
use cluster_tests::scenes::{in_force, mk_cnp, outside, trio};
use cluster_tests::{Namespace, eventually, exec, holds_for, nodes};

/// Whether a pod gets a TCP connection to every address.
fn connects(ns: &Namespace, from: &str, to: &[String], port: &str) -> anyhow::Result<bool> {
    for address in to {
        if !exec(&ns.name, from, &["nc", "-z", "-w", "2", address, port])?.ok() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a pod gets a TCP connection to any of the addresses.
fn connects_to_any(ns: &Namespace, from: &str, to: &[String], port: &str) -> anyhow::Result<bool> {
    for address in to {
        if exec(&ns.name, from, &["nc", "-z", "-w", "2", address, port])?.ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The node of a pod.
fn node_of(ns: &Namespace, pod: &str) -> anyhow::Result<String> {
    ns.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
}

#[test]
fn a_denial_wins_and_leaves_the_rest_as_it_was() -> anyhow::Result<()> {
    let ns = trio("deny")?;
    let server = addresses(&ns, "server")?;
    let subject = "endpointSelector: {matchLabels: {app: server}}";
    let client = "{fromEndpoints: [{matchLabels: {app: client}}], toPorts: [{ports: [{port: '7000', protocol: TCP}]}]}";
    ns.apply(&mk_cnp("allow", &format!("{subject}, ingress: [{{fromEntities: [all]}}]")))?;
    in_force(&ns, "allow")?;
    ensure!(connects(&ns, "client", &server, "7000")?, "everybody is allowed");

    ns.apply(&mk_cnp("deny", &format!("{subject}, ingressDeny: [{client}]")))?;
    in_force(&ns, "deny")?;
    eventually("the client is denied", || Ok(!connects_to_any(&ns, "client", &server, "7000")?))?;
    ensure!(connects(&ns, "other", &server, "7000")?, "the other client is not denied");
    let datagrams = exec(&ns.name, "client", &["probe", "rr", &socket(&server[0], 7000), "--count", "5"])?;
    ensure!(datagrams.ok(), "only TCP is denied: {datagrams:?}");
    let node = node_of(&ns, "server")?;
    let origin = format!("cnp/{}/deny", ns.name);
    let entries = nodes::dbg(&node, &["bpf", "policy", "list"])?;
    ensure!(
        entries.lines().any(|line| line.contains("Deny") && line.contains(&origin)),
        "no entry of {origin}: {entries}"
    );

    // Alone, it closes the direction, and with enableDefaultDeny it does not.
    ns.kubectl(&["delete", "cnp", "allow"])?;
    eventually("a denial alone closes the direction", || {
        Ok(!connects_to_any(&ns, "other", &server, "7000")?)
    })?;
    let open = format!("{subject}, enableDefaultDeny: {{ingress: false}}, ingressDeny: [{client}]");
    ns.apply(&mk_cnp("deny", &open))?;
    eventually("the rest is open again", || connects(&ns, "other", &server, "7000"))?;
    holds_for("the client stays denied", Duration::from_secs(2), || {
        Ok(!connects_to_any(&ns, "client", &server, "7000")?)
    })?;
    ns.kubectl(&["delete", "cnp", "deny"])?;
    eventually("everything is open", || connects(&ns, "client", &server, "7000"))
}

#[test]
fn prefixes_are_outside_of_the_cluster() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let wide = host.rsplitn(3, '.').last().map(|start| format!("{start}.0.0/16")).unwrap_or_default();
    let ns = Namespace::new("cidr")?;
    ns.apply(&mk_pod("client", None, &[], false))?;
    ns.ready(&["client"])?;
    let node = node_of(&ns, "client")?;
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let of_node = cluster_tests::kubectl(&["get", "node", &node, "-o", path])?;
    let kubelet: Vec<String> = of_node.split(' ').filter(|ip| !ip.contains(':')).map(str::to_owned).collect();
    let reaches = || {
        let url = format!("http://{host}:{port}/clientip");
        Ok(exec(&ns.name, "client", &["curl", "-s", "--max-time", "2", &url])?.ok())
    };
    ensure!(reaches()?, "the server outside does not answer");
    ensure!(connects(&ns, "client", &kubelet, "10250")?, "the kubelet does not answer at {kubelet:?}");

    let subject = "endpointSelector: {matchLabels: {app: client}}";
    let allow = |cidr: &str| mk_cnp("cidr", &format!("{subject}, egress: [{{toCIDRSet: [{cidr}]}}]"));
    ns.apply(&allow(&format!("{{cidr: {wide}}}")))?;
    in_force(&ns, "cidr")?;
    eventually("the prefix is allowed", &reaches)?;
    eventually("a node is in no prefix", || Ok(!connects_to_any(&ns, "client", &kubelet, "10250")?))?;
    let known = nodes::dbg(&node, &["bpf", "ipcache", "list"])?;
    ensure!(known.contains(&wide), "{wide} is not in the ipcache: {known}");

    ns.apply(&allow(&format!("{{cidr: {wide}, except: [{host}/32]}}")))?;
    eventually("what is left out is not allowed", || Ok(!reaches()?))?;
    let deny = "enableDefaultDeny: {egress: false}, egressDeny: [{toCIDR: [";
    ns.apply(&mk_cnp("cidr", &format!("{subject}, {deny}198.51.100.0/24]}}]")))?;
    eventually("another prefix is denied", &reaches)?;
    ns.apply(&mk_cnp("cidr", &format!("{subject}, {deny}{host}/32]}}]")))?;
    eventually("the prefix is denied", || Ok(!reaches()?))?;
    ensure!(connects(&ns, "client", &kubelet, "10250")?, "the rest is not denied");
    ns.kubectl(&["delete", "cnp", "cidr"])?;
    eventually("everything is open again", &reaches)
}

/// Whether a pod answers pings of one request.
fn pings(ns: &Namespace, from: &str, address: &str) -> anyhow::Result<bool> {
    Ok(exec(&ns.name, from, &["ping", "-c", "1", "-W", "1", address])?.ok())
}

#[test]
fn pings_are_allowed_and_denied_by_type() -> anyhow::Result<()> {
    let ns = trio("icmp")?;
    let server = addresses(&ns, "server")?;
    let [v4, v6] = &server;
    let subject = "endpointSelector: {matchLabels: {app: server}}";
    let both = "icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: 128}]}]";
    ensure!(pings(&ns, "client", v4)? && pings(&ns, "client", v6)?, "without a policy");

    ns.apply(&mk_cnp("icmp", &format!("{subject}, ingress: [{{{both}}}]")))?;
    in_force(&ns, "icmp")?;
    eventually("only pings are allowed", || Ok(!connects_to_any(&ns, "client", &server, "7000")?))?;
    ensure!(pings(&ns, "client", v4)? && pings(&ns, "client", v6)?, "pings are allowed");
    ns.apply(&mk_cnp("icmp", &format!("{subject}, ingress: [{{icmps: [{{fields: [{{type: 8}}]}}]}}]")))?;
    eventually("pings of IPv6 are not allowed any more", || Ok(!pings(&ns, "client", v6)?))?;
    ensure!(pings(&ns, "client", v4)?, "those of IPv4 are");

    let deny = format!("{subject}, enableDefaultDeny: {{ingress: false}}, ingressDeny: [{{{both}}}]");
    ns.apply(&mk_cnp("icmp", &deny))?;
    eventually("pings are denied", || Ok(!pings(&ns, "client", v4)? && !pings(&ns, "client", v6)?))?;
    eventually("the rest is open", || connects(&ns, "client", &server, "7000"))?;
    ns.kubectl(&["delete", "cnp", "icmp"])?;
    eventually("everything is open again", || Ok(pings(&ns, "client", v4)? && pings(&ns, "client", v6)?))
}
