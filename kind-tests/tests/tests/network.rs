//! Who reaches whom, in the routing mode that is installed: pods on one node and on two, services, DNS, the node
//! itself, and the world outside; IPv4 and IPv6.

use std::sync::OnceLock;

use anyhow::ensure;
use cluster_tests::pods::{addresses, mk_pod, mk_server, socket};
use cluster_tests::scenes::outside;
use cluster_tests::{Namespace, eventually, exec, nodes};
use serde_json::Value;

/// One client and one server on each of the first two nodes, shared by all tests here.
struct Stage {
    ns: Namespace,
    nodes: Vec<String>,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| set_up().expect("the pods of the test must start"))
}

fn set_up() -> anyhow::Result<Stage> {
    let ns = Namespace::new("network")?;
    let nodes = nodes::names()?;
    let mut manifests = String::new();
    for (index, node) in nodes.iter().take(2).enumerate() {
        manifests += &mk_pod(&format!("client-{index}"), Some(node), &[], false);
        manifests += &mk_server(&format!("server-{index}"), Some(node));
        manifests += &mk_pod(&format!("host-{index}"), Some(node), &[], true);
    }
    ns.apply(&manifests)?;
    ns.ready(&["client-0", "client-1", "server-0", "server-1", "host-0", "host-1"])?;
    Ok(Stage { ns, nodes })
}

/// Datagram round trips and a TCP stream from a pod to `address:7000`.
fn reaches(from: &str, address: &str) -> anyhow::Result<()> {
    let to = socket(address, 7000);
    let ns = &stage().ns.name;
    let ran = exec(ns, from, &["probe", "rr", &to, "--count", "50"])?;
    ensure!(ran.ok(), "datagrams {from} -> {to}: {ran:?}");
    let ran = exec(ns, from, &["probe", "tcp", &to, "--seconds", "1"])?;
    ensure!(ran.ok(), "stream {from} -> {to}: {ran:?}");
    let bytes = serde_json::from_str::<Value>(&ran.out)?["bytes"].as_u64().unwrap_or(0);
    ensure!(bytes > 1_000_000, "only {bytes} bytes {from} -> {to}");
    Ok(())
}

#[test]
fn pods_reach_pods_on_one_node_and_across() -> anyhow::Result<()> {
    for from in ["client-0", "client-1"] {
        for server in ["server-0", "server-1"] {
            for address in addresses(&stage().ns, server)? {
                reaches(from, &address)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_node_reaches_pods_of_its_own_and_of_others() -> anyhow::Result<()> {
    for server in ["server-0", "server-1"] {
        for address in addresses(&stage().ns, server)? {
            reaches("host-0", &address)?;
        }
    }
    Ok(())
}

#[test]
fn pods_answer_pings_also_large_ones() -> anyhow::Result<()> {
    for server in ["server-0", "server-1"] {
        for address in addresses(&stage().ns, server)? {
            // 4000 bytes travel in fragments, there and back.
            for size in ["56", "4000"] {
                let ran = exec(
                    &stage().ns.name,
                    "client-0",
                    &["ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, &address],
                )?;
                ensure!(ran.ok(), "ping -s {size} {address}: {ran:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn services_and_their_names_work() -> anyhow::Result<()> {
    let ns = &stage().ns;
    ns.apply(&service("echo", &["server-0", "server-1"]))?;
    let name = format!("echo.{}.svc.cluster.local", ns.name);
    for flag in ["-4", "-6"] {
        eventually(&format!("a client reaches {name} with {flag}"), || {
            let script = format!("echo hello | nc {flag} -u -w 1 {name} 7000");
            let ran = exec(&ns.name, "client-0", &["sh", "-c", &script])?;
            Ok(ran.out.contains("hello"))
        })?;
    }
    let cluster_ip = ns.kubectl(&["get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"])?;
    // Unconnected and connected sockets, from pods and from the host's own namespace.
    for from in ["client-0", "client-1", "host-0"] {
        reaches(from, &cluster_ip)?;
    }
    let listed = nodes::dbg(&stage().nodes[0], &["service", "list"])?;
    ensure!(listed.contains(&cluster_ip), "{listed}");
    Ok(())
}

/// A dual-stack Service over pods by `app` label: the pods get a second label first.
fn service(name: &str, pods: &[&str]) -> String {
    for pod in pods {
        let labelled = stage().ns.kubectl(&["label", "pod", pod, "--overwrite", &format!("in-{name}=yes")]);
        labelled.expect("pods can be labelled");
    }
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ipFamilyPolicy: PreferDualStack, selector: {{in-{name}: 'yes'}}, ports: [{{name: u, port: 7000, protocol: UDP}}, {{name: t, port: 7000, protocol: TCP}}]}}}}"
    )
}

#[test]
fn a_service_without_backends_refuses_at_once() -> anyhow::Result<()> {
    let ns = &stage().ns;
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: empty}, spec: {selector: {nobody: here}, ports: [{port: 7000}]}}")?;
    let cluster_ip = ns.kubectl(&["get", "service", "empty", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually("a connection to a service without backends is refused, not lost", || {
        let ran = exec(
            &ns.name,
            "client-0",
            &["curl", "-s", "--max-time", "5", &format!("http://{cluster_ip}:7000/")],
        )?;
        Ok(ran.code == 7)
    })
}

#[test]
fn traffic_that_leaves_the_cluster_has_the_address_of_the_node() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let node_address = |index: usize| {
        let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        cluster_tests::kubectl(&["get", "node", &stage().nodes[index], "-o", path])
    };
    for index in 0..2 {
        let ran = exec(
            &stage().ns.name,
            &format!("client-{index}"),
            &["curl", "-s", "--max-time", "5", &format!("http://{host}:{port}/clientip")],
        )?;
        let seen = ran.out.rsplit_once(':').map(|(ip, _)| ip.to_owned()).unwrap_or_default();
        let expected = node_address(index)?;
        ensure!(
            !seen.is_empty() && expected.split(' ').any(|ip| ip == seen),
            "the server saw {seen:?}, not one of {expected}: {ran:?}"
        );
    }
    Ok(())
}

#[test]
fn addresses_come_from_the_pod_cidrs_of_the_node() -> anyhow::Result<()> {
    let endpoints = nodes::dbg(&stage().nodes[0], &["endpoint", "list", "-o", "json"])?;
    for address in addresses(&stage().ns, "client-0")? {
        ensure!(
            endpoints.contains(&format!("\"{address}\"")),
            "{address} is no endpoint of {}",
            stage().nodes[0]
        );
    }
    Ok(())
}

#[test]
fn zz_leave_nothing_behind() -> anyhow::Result<()> {
    // A static is never dropped: the namespace goes here, after the other tests (one thread, names in order).
    let ns = &stage().ns.name;
    cluster_tests::kubectl(&["delete", "namespace", ns, "--timeout=120s"])?;
    for node in &stage().nodes {
        eventually("the endpoints are gone from the node", || {
            Ok(!nodes::dbg(node, &["endpoint", "list"])?.contains(ns))
        })?;
    }
    Ok(())
}
