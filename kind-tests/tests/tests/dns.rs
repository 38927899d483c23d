//! Names: what pods may ask for, and what they reach by it, with a name server of the test.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::pods::{addresses, mk_pod};
use cluster_tests::{Namespace, eventually, exec, holds_for, nodes};

/// A name server that knows `api.test` and `other.test` as the host outside, and a client that asks it.
fn mk_name_server(host: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: ConfigMap
metadata: {{name: corefile}}
data:
  Corefile: |
    .:53 {{
        errors
        hosts {{
            {host} api.test other.test
            ttl 60
        }}
    }}
---
apiVersion: v1
kind: Pod
metadata:
  name: names
  labels: {{app: names}}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
    - name: main
      image: registry.k8s.io/coredns/coredns:v1.14.7
      imagePullPolicy: IfNotPresent
      args: [-conf, /etc/coredns/Corefile]
      volumeMounts: [{{name: corefile, mountPath: /etc/coredns}}]
  volumes:
    - name: corefile
      configMap: {{name: corefile}}
---
"
    )
}

/// The client asks this name server, and nobody else.
fn mk_client(name_server: &str) -> String {
    let resolver = format!(
        "  dnsPolicy: None\n  dnsConfig:\n    nameservers: [{name_server:?}]\n    options: [{{name: timeout, value: '2'}}]\n  containers:\n"
    );
    mk_pod("client", None, &[], false).replace("  containers:\n", &resolver)
}

const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
    - toEndpoints: [{matchLabels: {app: names}}]
      toPorts:
        - ports: [{port: '53', protocol: ANY}]
          rules: {dns: [{matchPattern: 'a*.test'}]}
    - toFQDNs: [{matchName: api.test}]
";

#[test]
fn a_pod_reaches_what_it_may_ask_for() -> anyhow::Result<()> {
    let outside = std::env::var("CLUSTER_OUTSIDE")
        .context("CLUSTER_OUTSIDE is not set: run through `just test-e2e`")?;
    let (host, port) = outside.split_once(':').context("CLUSTER_OUTSIDE is not address:port")?;
    let ns = Namespace::new("names")?;
    ns.apply(&mk_name_server(host))?;
    ns.ready(&["names"])?;
    ns.apply(&mk_client(&addresses(&ns, "names")?[0]))?;
    ns.ready(&["client"])?;
    let reaches = |name: &str| {
        let url = format!("http://{name}:{port}/clientip");
        // Less than the time after which TCP tries again: the first packet has to get through.
        let curl = ["curl", "-s", "--connect-timeout", "5", "--max-time", "8", &url];
        Ok::<bool, anyhow::Error>(exec(&ns.name, "client", &curl)?.ok())
    };
    ensure!(reaches("api.test")? && reaches("other.test")?, "the host outside does not answer");

    ns.apply(POLICY)?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=30s", "cnp/names"])?;
    ensure!(!reaches(host)?, "nobody has asked for a name of {host} through the proxy");
    ensure!(reaches("api.test")?, "the name that is allowed");
    ensure!(reaches(host)?, "the address behind the name");
    ensure!(!reaches("other.test")?, "a name that may not be asked for");
    let refused = exec(&ns.name, "client", &["getent", "hosts", "other.test"])?;
    ensure!(!refused.ok(), "it has no address: {refused:?}");

    let node = ns.kubectl(&["get", "pod", "client", "-o", "jsonpath={.spec.nodeName}"])?;
    let learned = nodes::dbg(&node, &["fqdn", "cache", "list"])?;
    ensure!(learned.contains("api.test.") && learned.contains(host), "not learned: {learned}");

    // A new agent pod, with a new proxy, knows the names: not one connection in between is refused for good.
    let agent = nodes::agent(&node)?;
    cluster_tests::kubectl(&["delete", "pod", "-n", "kube-system", &agent, "--wait=false"])?;
    holds_for("the address stays open", Duration::from_secs(10), || reaches(host))?;
    eventually("names are answered again", || reaches("api.test"))
}
