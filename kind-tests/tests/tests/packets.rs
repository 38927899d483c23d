//! Services for pods whose sockets are left alone (`socketLB.hostNamespaceOnly`): their packets find a backend one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::nodes::dbg;
use cluster_tests::scenes::{backends, in_force, mk_cnp, serve};
use cluster_tests::{Namespace, eventually, exec, holds_for};

/// As it stands in a URL.
fn literal(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// What a pod hears at an address: the answer's body, and the address that curl believes to talk to. The first is empty without an answer.
fn ask(ns: &Namespace, pod: &str, url: &str) -> anyhow::Result<(String, String)> {
    let curl = ["curl", "-s", "--max-time", "3", "-w", "\n%{remote_ip}", url];
    let ran = exec(&ns.name, pod, &curl)?;
    let (body, address) = ran.out.rsplit_once('\n').context("curl said nothing of the address")?;
    Ok((body.to_owned(), address.to_owned()))
}

/// Many connections have an answer, and all from the Service's own address. Returns who answered.
fn answers(ns: &Namespace, pod: &str, address: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for _ in 0..24 {
        let (name, from) = ask(ns, pod, &format!("http://{}/hostname", literal(address)))?;
        ensure!(from == address, "curl talks to {from}, and not to {address}");
        names.insert(name);
    }
    Ok(names)
}

fn cluster_addresses(ns: &Namespace) -> anyhow::Result<Vec<String>> {
    let all = ns.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"])?;
    Ok(all.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn a_pod_sees_the_service_and_reaches_backends_of_both_nodes() -> anyhow::Result<()> {
    let (ns, nodes) = backends("packets")?;
    for node in &nodes {
        let status = dbg(node, &["status", "--verbose"])?;
        ensure!(status.contains("Coverage: Hostns-only"), "{status}");
    }
    serve(&ns, "type: NodePort, ipFamilyPolicy: RequireDualStack")?;
    let both = BTreeSet::from(["far".to_owned(), "near".to_owned()]);
    let addresses = cluster_addresses(&ns)?;
    ensure!(addresses.len() == 2, "{addresses:?}");
    for address in &addresses {
        eventually(&format!("both answer at {address}"), || Ok(answers(&ns, "client", address)? == both))?;
        // UDP, by port 80 too.
        let script = format!("echo hostname | nc -u -w 1 {address} 80");
        eventually(&format!("datagrams to {address} are answered"), || {
            let ran = exec(&ns.name, "client", &["sh", "-c", &script])?;
            Ok(both.contains(ran.out.trim()))
        })?;
    }
    ns.kubectl(&["delete", "pod", "near", "far"])?;
    for address in &addresses {
        eventually(&format!("{address} refuses without backends"), || {
            let curl = ["curl", "-s", "--max-time", "3", &format!("http://{}/hostname", literal(address))];
            Ok(exec(&ns.name, "client", &curl)?.code == 7)
        })?;
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_by_its_service() -> anyhow::Result<()> {
    let (ns, _) = backends("itself")?;
    serve(&ns, "ipFamilyPolicy: RequireDualStack")?;
    ns.kubectl(&["delete", "pod", "far"])?;
    for address in cluster_addresses(&ns)? {
        eventually(&format!("near reaches itself at {address}"), || {
            Ok(answers(&ns, "near", &address)? == BTreeSet::from(["near".to_owned()]))
        })?;
    }
    // Also where nobody is let in, and it may reach nobody.
    ns.apply(&mk_cnp("shut", "endpointSelector: {}, ingress: [{}], egress: [{}]"))?;
    in_force(&ns, "shut")?;
    for address in cluster_addresses(&ns)? {
        ensure!(answers(&ns, "near", &address)? == BTreeSet::from(["near".to_owned()]), "{address}");
        let (body, _) = ask(&ns, "client", &format!("http://{}/hostname", literal(&address)))?;
        ensure!(body.is_empty(), "the client is let in at {address}");
    }
    Ok(())
}

#[test]
fn policy_speaks_of_backends() -> anyhow::Result<()> {
    let (ns, _) = backends("spoken")?;
    let address = serve(&ns, "type: ClusterIP")?;
    let only_near = "endpointSelector: {matchLabels: {app: client}}, egress: [{toEndpoints: [{matchLabels: {name: near}}]}]";
    ns.kubectl(&["label", "pod", "near", "name=near"])?;
    ns.kubectl(&["label", "pod", "client", "app=client", "--overwrite"])?;
    ns.apply(&mk_cnp("only-near", only_near))?;
    in_force(&ns, "only-near")?;
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        seen.insert(ask(&ns, "client", &format!("http://{address}/hostname"))?.0);
        if seen.len() == 2 {
            break;
        }
    }
    ensure!(seen == BTreeSet::from([String::new(), "near".to_owned()]), "{seen:?}");
    holds_for("far is not reached", Duration::from_secs(1), || {
        Ok(ask(&ns, "client", &format!("http://{address}/hostname"))?.0 != "far")
    })
}
