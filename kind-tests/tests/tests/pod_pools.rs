//! Pods with addresses out of pools, on a cluster that was installed with `ipam.mode=multi-pool` and BGP, and has a pool `default`.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use cluster_tests::pods::{addresses, mk_pod, mk_server, socket};
use cluster_tests::routed::{GRACEFUL, Stage};
use cluster_tests::{Namespace, eventually, exec, feed, kubectl, kubectl_json, nodes};
use ipnet::IpNet;

const IPV4: &str = "10.199.0.0/24";
const IPV6: &str = "fd00:199::/112";

/// A pool for one namespace; it goes with the test.
struct Pool(String);

impl Pool {
    fn new(ns: &Namespace) -> anyhow::Result<Self> {
        let pool = Self(format!("pool-{}", ns.name));
        let selector = format!("{{matchLabels: {{kubernetes.io/metadata.name: {}}}}}", ns.name);
        let families =
            format!("ipv4: {{cidrs: [{IPV4}], maskSize: 30}}, ipv6: {{cidrs: ['{IPV6}'], maskSize: 126}}");
        let object = format!(
            "{{apiVersion: cilium.io/v2alpha1, kind: CiliumPodIPPool, metadata: {{name: {}}}, spec: {{{families}, namespaceSelector: {selector}}}}}",
            pool.0
        );
        feed(&["apply", "-f", "-"], &object)?;
        Ok(pool)
    }
}

/// Blocks of a pool that the node has.
fn blocks(pool: &str, node: &str) -> anyhow::Result<Vec<IpNet>> {
    let object = kubectl_json(&["get", "ciliumnode", node])?;
    let all = object["spec"]["ipam"]["pools"]["allocated"].as_array().cloned().unwrap_or_default();
    let own = all.into_iter().filter(|it| it["pool"] == pool);
    let cidrs = own.flat_map(|it| it["cidrs"].as_array().cloned().unwrap_or_default());
    cidrs.map(|cidr| Ok(cidr.as_str().context("a prefix is text")?.parse()?)).collect()
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = kubectl(&["delete", "cpip", &self.0, "--ignore-not-found"]) {
            eprintln!("the pool {} stays: {error:#}", self.0);
        }
    }
}

/// Two servers on the first node and one on the second.
fn servers(ns: &Namespace, nodes: &[String]) -> anyhow::Result<()> {
    let all = [("near", 0), ("next", 0), ("far", 1)];
    let texts: Vec<String> =
        all.iter().map(|(name, at)| mk_server(name, nodes.get(*at).map(String::as_str))).collect();
    ns.apply(&texts.concat())?;
    ns.ready(&["near", "next", "far"])
}

fn reaches(ns: &Namespace, from: &str, to: &Namespace, server: &str) -> anyhow::Result<()> {
    for address in addresses(to, server)? {
        let ran = exec(&ns.name, from, &["probe", "rr", &socket(&address, 7000), "--count", "20"])?;
        ensure!(ran.ok(), "{from} -> {server} at {address}: {ran:?}");
    }
    Ok(())
}

#[test]
fn pods_of_two_pools_reach_each_other_and_nodes_list_their_blocks() -> anyhow::Result<()> {
    let (ns, other, nodes) = (Namespace::new("pooled")?, Namespace::new("plain")?, nodes::names()?);
    let pool = Pool::new(&ns)?;
    servers(&ns, &nodes)?;
    other.apply(
        &[
            mk_server("server", nodes.get(1).map(String::as_str)),
            mk_pod("client", nodes.first().map(String::as_str), &[], false),
        ]
        .concat(),
    )?;
    other.ready(&["server", "client"])?;
    let whole: [IpNet; 2] = [IPV4.parse()?, IPV6.parse()?];
    for (server, node) in [("near", &nodes[0]), ("next", &nodes[0]), ("far", &nodes[1])] {
        for address in addresses(&ns, server)? {
            let address: IpAddr = address.parse()?;
            ensure!(whole.iter().any(|it| it.contains(&address)), "{server} has {address}");
            eventually(&format!("{node} lists the block of {address}"), || {
                Ok(blocks(&pool.0, node)?.iter().any(|block| block.contains(&address)))
            })?;
        }
        reaches(&other, "client", &ns, server)?;
    }
    for address in addresses(&other, "server")? {
        let address: IpAddr = address.parse()?;
        ensure!(!whole.iter().any(|it| it.contains(&address)), "server has {address}");
    }
    for from in ["near", "far"] {
        reaches(&ns, from, &other, "server")?;
        reaches(&ns, from, &ns, "next")?;
    }
    Ok(())
}

#[test]
fn a_pod_that_asks_for_a_pool_that_is_not_there_says_so() -> anyhow::Result<()> {
    let ns = Namespace::new("poolless")?;
    ns.kubectl(&["annotate", "namespace", &ns.name, "ipam.cilium.io/ip-pool=not-there"])?;
    ns.apply(&mk_pod("client", None, &[], false))?;
    eventually("an event names the pool", || {
        let events = kubectl_json(&["-n", &ns.name, "get", "events"])?;
        let all = events["items"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().any(|it| {
            it["message"].as_str().is_some_and(|text| text.contains("no CiliumPodIPPool not-there"))
        }))
    })
}

#[test]
fn a_router_learns_blocks_of_the_pool_that_an_advertisement_selects() -> anyhow::Result<()> {
    let nodes = nodes::names()?;
    let stage = Stage::new("blocks", &[&nodes[0], &nodes[1]], GRACEFUL)?;
    let selector = "{matchLabels: {io.cilium.podippool.name: default}}";
    stage.bgp.set(
        "CiliumBGPAdvertisement",
        &format!("{}-pools", stage.ns.name),
        &format!("advertisements: [{{advertisementType: CiliumPodIPPool, selector: {selector}}}]"),
    )?;
    let router = stage.router(&[])?;
    stage.spread(&router, nodes.len())?;
    for node in &nodes {
        let blocks = blocks("default", node)?;
        ensure!(blocks.len() >= 2, "{node} has {blocks:?}");
        for block in blocks {
            eventually(&format!("the router reaches {block} by {node}"), || {
                Ok(router.next_hops(&block.to_string())?.len() == 1)
            })?;
        }
    }
    Ok(())
}
