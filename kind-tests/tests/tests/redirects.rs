//! Clients that are led to a pod of their own node: from an address, from a Service, and to a name server beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::nodes::SYSTEM;
use cluster_tests::pods::mk_pod;
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, exec, holds_for, kubectl, nodes};

const ADDRESS: &str = "169.254.169.254";

/// The guide's example, word for word.
const GUIDE: &str = include_str!("../../../docs/guides/local-redirect.md");

/// A policy for the pods `app: web`.
fn mk_policy(frontend: &str, skip: bool) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumLocalRedirectPolicy, metadata: {{name: nearby}}, spec: {{skipRedirectFromBackend: {skip}, redirectFrontend: {{{frontend}}}, redirectBackend: {{localEndpointSelector: {{matchLabels: {{app: web}}}}, toPorts: [{{port: '7000', protocol: TCP, name: tcp}}]}}}}}}"
    )
}

/// Names of the pods that answer 16 connections of a pod; empty when one of them fails.
fn answers(ns: &Namespace, pod: &str, address: &str) -> anyhow::Result<BTreeSet<String>> {
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do curl -sf --max-time 3 http://{address}/hostname || exit 1; echo; done"
    );
    let ran = exec(&ns.name, pod, &["sh", "-c", &script])?;
    Ok(if ran.ok() { ran.out.split_whitespace().map(str::to_owned).collect() } else { BTreeSet::new() })
}

fn are_answered_by(ns: &Namespace, pod: &str, address: &str, expected: &[&str]) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let outcome = eventually(&format!("{address} leads {pod} to {expected:?}"), || {
        seen = answers(ns, pod, address)?;
        Ok(seen == expected)
    });
    outcome.with_context(|| format!("the last answers came from {seen:?}"))
}

fn takes_effect(ns: &Namespace) -> anyhow::Result<()> {
    ns.kubectl(&["wait", "--for=condition=Effective", "--timeout=60s", "clrp/nearby"]).map(drop)
}

#[test]
fn an_address_leads_to_the_pod_of_the_node() -> anyhow::Result<()> {
    let (ns, nodes) = backends("redirect-address")?;
    ns.apply(&mk_pod("other", Some(&nodes[1]), &[], false))?;
    ns.ready(&["other"])?;
    let matcher = format!("addressMatcher: {{ip: {ADDRESS}, toPorts: [{{port: '80', protocol: TCP}}]}}");
    ns.apply(&mk_policy(&matcher, false))?;
    takes_effect(&ns)?;
    are_answered_by(&ns, "client", ADDRESS, &["near"])?;
    are_answered_by(&ns, "other", ADDRESS, &["far"])?;

    let near = ns.kubectl(&["get", "pod", "near", "-o", "jsonpath={.status.podIP}"])?;
    let services = nodes::dbg(&nodes[0], &["service", "list"])?;
    let line = services.lines().find(|line| line.contains(ADDRESS)).context("it is not listed")?;
    ensure!(line.contains("LocalRedirect") && line.contains(&near), "{line}");
    let policies = nodes::dbg(&nodes[0], &["lrp", "list"])?;
    let shown = format!("{ADDRESS}:80/TCP -> {near}:7000({}/near)", ns.name);
    ensure!(policies.contains("IP + port") && policies.contains(&shown), "{policies}");

    // Without a pod on the node there is no such address there, and elsewhere there is.
    ns.kubectl(&["delete", "pod", "near"])?;
    eventually("nobody answers on the node", || Ok(answers(&ns, "client", ADDRESS)?.is_empty()))?;
    let policies = nodes::dbg(&nodes[0], &["lrp", "list"])?;
    ensure!(!policies.contains(ADDRESS), "{policies}");
    are_answered_by(&ns, "other", ADDRESS, &["far"])
}

#[test]
fn a_service_leads_to_the_pod_of_the_node_and_without_one_to_its_own() -> anyhow::Result<()> {
    let (ns, _) = backends("redirect-service")?;
    let address = serve(&ns, "type: ClusterIP")?;
    are_answered_by(&ns, "client", &address, &["far", "near"])?;
    let matcher = format!("serviceMatcher: {{namespace: {}, serviceName: web}}", ns.name);
    ns.apply(&mk_policy(&matcher, true))?;
    takes_effect(&ns)?;
    are_answered_by(&ns, "client", &address, &["near"])?;
    // The pods themselves are exempt.
    are_answered_by(&ns, "near", &address, &["far", "near"])?;
    ns.kubectl(&["delete", "pod", "near"])?;
    are_answered_by(&ns, "client", &address, &["far"])
}

#[test]
fn what_cannot_work_is_refused_or_said() -> anyhow::Result<()> {
    let (ns, _) = backends("redirect-refused")?;
    let address = serve(&ns, "type: ClusterIP")?;
    let refused = |matcher: &str, field: &str| {
        let error = ns.apply(&mk_policy(matcher, false)).err().context("it was let in")?;
        ensure!(format!("{error:#}").contains(field), "{error:#}");
        Ok(())
    };
    refused("serviceMatcher: {namespace: default, serviceName: web}", "serviceMatcher.namespace")?;
    refused(
        "addressMatcher: {ip: 10.0.0.1, toPorts: [{port: '80', protocol: UDP}]}",
        "spec.redirectBackend.toPorts",
    )?;
    let of_service = format!("addressMatcher: {{ip: {address}, toPorts: [{{port: '81', protocol: TCP}}]}}");
    ns.apply(&mk_policy(&of_service, false))?;
    ns.kubectl(&["wait", "--for=condition=Valid=False", "--timeout=60s", "clrp/nearby"])?;
    let reason = "jsonpath={.status.conditions[?(@.type=='Valid')].message}";
    let reason = ns.kubectl(&["get", "clrp", "nearby", "-o", reason])?;
    ensure!(reason.contains(&format!("belongs to Service {}/web", ns.name)), "{reason}");
    eventually("an Event says so, too", || {
        let events = ["get", "events", "--field-selector", "involvedObject.name=nearby", "-o", "name"];
        Ok(!ns.kubectl(&events)?.trim().is_empty())
    })
}

/// The node-local name servers of the guide, which go with the test.
struct NameServers(String);

impl NameServers {
    /// The example's YAML. Its server also knows a name that no other does.
    fn start() -> anyhow::Result<Self> {
        let (_, rest) = GUIDE.split_once("```yaml\n").context("the guide has no example")?;
        let (example, _) = rest.split_once("```").context("the example has no end")?;
        let hosts = "        hosts {\n            192.0.2.53 cached.test\n            fallthrough\n        }\n        forward";
        let servers = Self(example.replace("        forward", hosts));
        ensure!(servers.0.contains("cached.test"), "{example}");
        cluster_tests::apply(SYSTEM, &servers.0)?;
        servers.rolled_out()?;
        Ok(servers)
    }

    fn rolled_out(&self) -> anyhow::Result<()> {
        kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/node-local-dns", "--timeout=120s"]).map(drop)
    }

    /// Lets them run on nodes with this label only.
    fn select(&self, label: &str) -> anyhow::Result<()> {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{{label}}}}}}}}}}}"#);
        kubectl(&["-n", SYSTEM, "patch", "daemonset", "node-local-dns", "-p", &patch]).map(drop)
    }
}

impl Drop for NameServers {
    fn drop(&mut self) {
        let deleted =
            cluster_tests::kubectl::feed(&["delete", "-n", SYSTEM, "--wait=false", "-f", "-"], &self.0);
        if let Err(error) = deleted {
            eprintln!("the node-local name servers stay: {error:#}");
        }
    }
}

#[test]
fn names_are_answered_by_the_server_beside_the_pod() -> anyhow::Result<()> {
    let ns = Namespace::new("redirect-dns")?;
    let nodes = nodes::names()?;
    ns.apply(&mk_pod("client", Some(&nodes[0]), &[], false))?;
    ns.ready(&["client"])?;
    let knows = |name: &str| Ok(exec(&ns.name, "client", &["getent", "ahostsv4", name])?.ok());
    let cluster = "kubernetes.default.svc.cluster.local";
    eventually("the cluster's own server answers", || knows(cluster))?;
    ensure!(!knows("cached.test")?, "nobody knows that name yet");

    let servers = NameServers::start()?;
    eventually("the server of the node answers", || knows("cached.test"))?;
    // It asks the Service that leads to itself, and gets the Service's own pods.
    ensure!(knows(cluster)?, "what it does not know itself");
    let services = nodes::dbg(&nodes[0], &["service", "list"])?;
    ensure!(services.contains("nodelocaldns:local-redirect"), "{services}");

    let selector = format!("spec.nodeName={}", nodes[0]);
    let of_node = ["-n", SYSTEM, "delete", "pods", "-l", "k8s-app=node-local-dns", "--wait=false"];
    kubectl(&[&of_node[..], &["--field-selector", &selector]].concat())?;
    holds_for("names resolve while it restarts", Duration::from_secs(8), || knows(cluster))?;
    servers.rolled_out()?;
    eventually("the new one answers", || knows("cached.test"))?;

    servers.select(r#""nobody":"has-it""#)?;
    eventually("the cluster's own server answers again", || Ok(!knows("cached.test")? && knows(cluster)?))?;
    servers.select(r#""nobody":null"#)?;
    eventually("the one of the node is back", || knows("cached.test"))
}
