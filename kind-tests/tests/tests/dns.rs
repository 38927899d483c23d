//! Names: what pods may ask for, and what they reach by it, with a name server of the test.

use std::time::Duration;

use anyhow::ensure;
use cluster_tests::scenes::{asking, in_force, is_answered, outside};
use cluster_tests::{eventually, exec, holds_for, nodes};

const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
    - toEndpoints: [{matchLabels: {k8s-app: kube-dns}}]
      toPorts:
        - ports: [{port: '53', protocol: ANY}]
          rules: {dns: [{matchPattern: 'a*.test'}]}
    - toFQDNs: [{matchName: api.test}]
";

#[test]
fn a_pod_reaches_what_it_may_ask_for() -> anyhow::Result<()> {
    let (host, port) = outside()?;
    let host = host.as_str();
    let ns = asking("names", host)?;
    let reaches = |name: &str| is_answered(&ns, name, &port);
    ensure!(reaches("api.test")? && reaches("other.test")?, "the host outside does not answer");

    ns.apply(POLICY)?;
    in_force(&ns, "names")?;
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
