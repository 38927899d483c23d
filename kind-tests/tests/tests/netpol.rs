//! What Kubernetes' own NetworkPolicy means to real pods, in both address families. Such policies have no status, so tests wait for what
//! pods notice of them.

use std::time::Duration;

use anyhow::ensure;
use cluster_tests::pods::{addresses, mk_pod, mk_server};
use cluster_tests::scenes::trio;
use cluster_tests::{Namespace, eventually, exec, holds_for, kubectl};

const PORT: &str = "7000";

/// To which of the addresses a pod gets a TCP connection.
fn connects(ns: &Namespace, from: &str, to: &[String], port: &str) -> anyhow::Result<Vec<bool>> {
    let once = |address: &String| Ok(exec(&ns.name, from, &["nc", "-z", "-w", "2", address, port])?.ok());
    to.iter().map(once).collect()
}

/// Waits until a pod reaches all of the addresses.
fn opens(what: &str, ns: &Namespace, from: &str, to: &[String], port: &str) -> anyhow::Result<()> {
    eventually(what, || Ok(connects(ns, from, to, port)?.iter().all(|connected| *connected)))
}

/// Waits until a pod reaches none of the addresses, and checks that it stays so.
fn closes(what: &str, ns: &Namespace, from: &str, to: &[String], port: &str) -> anyhow::Result<()> {
    let is_closed = || Ok(!connects(ns, from, to, port)?.contains(&true));
    eventually(what, is_closed)?;
    holds_for(what, Duration::from_secs(2), is_closed)
}

fn mk_netpol(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

/// A pod that serves at a port and calls it `web`.
fn mk_web(name: &str, port: &str) -> String {
    let ports =
        format!("      ports: [{{name: web, containerPort: {port}, protocol: TCP}}]\n      resources:");
    mk_pod(name, None, &["probe", "serve", port], false).replacen("      resources:", &ports, 1)
}

/// Blocks of single addresses, as items of a list.
fn hosts(addresses: &[String]) -> Vec<String> {
    let length = |address: &String| if address.contains(':') { 128 } else { 32 };
    addresses.iter().map(|address| format!("'{address}/{}'", length(address))).collect()
}

#[test]
fn a_policy_closes_and_opens_by_labels_of_pods() -> anyhow::Result<()> {
    let ns = trio("netpol")?;
    let server = addresses(&ns, "server")?;
    opens("without a policy", &ns, "client", &server, PORT)?;
    ns.apply(&mk_netpol("closed", "podSelector: {}, policyTypes: [Ingress]"))?;
    closes("nothing comes in", &ns, "client", &server, PORT)?;
    let clients = "podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 7000}]}]";
    ns.apply(&mk_netpol("clients", clients))?;
    opens("the client is allowed", &ns, "client", &server, PORT)?;
    closes("the other one is not", &ns, "other", &server, PORT)?;
    ns.kubectl(&["delete", "networkpolicy", "--all"])?;
    opens("everything is open again", &ns, "other", &server, PORT)
}

#[test]
fn peers_by_labels_of_namespaces() -> anyhow::Result<()> {
    let ns = trio("netpol-ns")?;
    let server = addresses(&ns, "server")?;
    let away = Namespace::new("netpol-away")?;
    away.apply(&mk_pod("client", None, &[], false))?;
    away.ready(&["client"])?;
    let subject = "podSelector: {matchLabels: {app: server}}";
    let from = "{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}";
    ns.apply(&mk_netpol("team", &format!("{subject}, ingress: [{{from: [{from}]}}]")))?;
    closes("the namespace has no such label", &away, "client", &server, PORT)?;
    closes("nor has the own namespace", &ns, "client", &server, PORT)?;
    kubectl(&["label", "namespace", &away.name, "team=blue"])?;
    opens("now it has", &away, "client", &server, PORT)?;
    closes("the own namespace has not", &ns, "client", &server, PORT)?;
    kubectl(&["label", "namespace", &away.name, "team-"])?;
    closes("the label is gone", &away, "client", &server, PORT)?;
    ns.apply(&mk_netpol("team", &format!("{subject}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]")))?;
    opens("pods of all namespaces", &away, "client", &server, PORT)
}

#[test]
fn blocks_mean_pods_too() -> anyhow::Result<()> {
    let ns = trio("netpol-block")?;
    ns.apply(&mk_server("second", None))?;
    ns.ready(&["second"])?;
    let (first, second) = (addresses(&ns, "server")?, addresses(&ns, "second")?);
    let subject = "podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]";
    let blocks: Vec<String> =
        hosts(&first).iter().map(|host| format!("{{ipBlock: {{cidr: {host}}}}}")).collect();
    let egress =
        |to: &[String]| mk_netpol("block", &format!("{subject}, egress: [{{to: [{}]}}]", to.join(", ")));
    ns.apply(&egress(&blocks))?;
    closes("the second is in no block", &ns, "client", &second, PORT)?;
    opens("the first is", &ns, "client", &first, PORT)?;
    // One family only.
    ns.apply(&egress(&blocks[..1]))?;
    closes("a block of IPv4 says nothing of IPv6", &ns, "client", &first[1..], PORT)?;
    opens("but of IPv4", &ns, "client", &first[..1], PORT)?;
    // Everything but the first.
    let all = ["0.0.0.0/0", "'::/0'"].iter().zip(hosts(&first));
    let but: Vec<String> =
        all.map(|(all, host)| format!("{{ipBlock: {{cidr: {all}, except: [{host}]}}}}")).collect();
    ns.apply(&egress(&but))?;
    closes("the first is left out", &ns, "client", &first, PORT)?;
    opens("the second is not", &ns, "client", &second, PORT)?;
    // What one rule leaves out, another may allow.
    ns.apply(&egress(&[but, blocks].concat()))?;
    opens("the first is allowed by itself", &ns, "client", &first, PORT)?;
    opens("and the second as before", &ns, "client", &second, PORT)?;
    ns.kubectl(&["delete", "networkpolicy", "block"])?;

    // The same for what comes in.
    let clients = hosts(&addresses(&ns, "client")?);
    let from: Vec<String> = clients.iter().map(|host| format!("{{ipBlock: {{cidr: {host}}}}}")).collect();
    let spec =
        format!("podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{}]}}]", from.join(", "));
    ns.apply(&mk_netpol("from", &spec))?;
    closes("the other client is in no block", &ns, "other", &first, PORT)?;
    opens("the client is", &ns, "client", &first, PORT)
}

#[test]
fn ranges_and_names_of_ports() -> anyhow::Result<()> {
    let ns = Namespace::new("netpol-port")?;
    let pods = [mk_web("one", "7000"), mk_web("two", "7001"), mk_pod("client", None, &[], false)];
    ns.apply(&pods.concat())?;
    ns.ready(&["one", "two", "client"])?;
    let (one, two) = (addresses(&ns, "one")?, addresses(&ns, "two")?);
    let ingress =
        |ports: &str| mk_netpol("port", &format!("podSelector: {{}}, ingress: [{{ports: [{ports}]}}]"));
    ns.apply(&ingress("{port: 7001, endPort: 7010}"))?;
    closes("7000 is not in the range", &ns, "client", &one, "7000")?;
    opens("7001 is", &ns, "client", &two, "7001")?;
    ns.apply(&ingress("{port: 6990, endPort: 7000}"))?;
    closes("7001 is not in the range", &ns, "client", &two, "7001")?;
    opens("7000 is", &ns, "client", &one, "7000")?;
    ns.apply(&ingress("{port: web}"))?;
    opens("`web` is 7000 in one pod", &ns, "client", &one, "7000")?;
    opens("and 7001 in another", &ns, "client", &two, "7001")?;
    ns.apply(&ingress("{port: web, protocol: UDP}"))?;
    closes("nobody calls a port of UDP so", &ns, "client", &one, "7000")?;
    ns.kubectl(&["delete", "networkpolicy", "port"])?;

    let egress =
        "podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]";
    ns.apply(&mk_netpol("out", egress))?;
    eventually("`web` of both pods, and nothing else, is allowed", || {
        let open = [connects(&ns, "client", &one, "7000")?, connects(&ns, "client", &two, "7001")?].concat();
        Ok(!open.contains(&false) && !connects(&ns, "client", &one, "7001")?.contains(&true))
    })
}

#[test]
fn policies_of_both_kinds_are_one_set() -> anyhow::Result<()> {
    let ns = trio("netpol-both")?;
    let server = addresses(&ns, "server")?;
    let own = |app: &str| {
        format!(
            "podSelector: {{matchLabels: {{app: server}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]"
        )
    };
    ns.apply(&mk_netpol("client", &own("client")))?;
    closes("only the client is allowed", &ns, "other", &server, PORT)?;
    let cnp = |name: &str, section: &str, app: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}}}, spec: {{endpointSelector: {{matchLabels: {{app: server}}}}, {section}: [{{fromEndpoints: [{{matchLabels: {{app: {app}}}}}]}}]}}}}"
        )
    };
    ns.apply(&cnp("other", "ingress", "other"))?;
    opens("the other one is allowed by the other kind", &ns, "other", &server, PORT)?;
    opens("and the client as before", &ns, "client", &server, PORT)?;
    ns.apply(&cnp("deny", "ingressDeny", "client"))?;
    closes("a denial wins over both kinds", &ns, "client", &server, PORT)?;
    let entries = cluster_tests::nodes::names()?
        .iter()
        .map(|node| cluster_tests::nodes::dbg(node, &["bpf", "policy", "list"]))
        .collect::<anyhow::Result<Vec<_>>>()?
        .concat();
    let origin = format!("cnp/{}/other", ns.name);
    ensure!(entries.contains(&origin), "no entry of {origin}: {entries}");
    Ok(())
}
