//! Pods and policies that several suites begin with.

use anyhow::{Context as _, ensure};

use crate::kubectl::Namespace;
use crate::nodes;
use crate::pods::{addresses, exec, mk_pod, mk_server};

/// A namespace with a pod `server` that listens on 7000, and the pods `client` and `other`.
///
/// # Errors
/// They do not become ready.
pub fn trio(prefix: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::new(prefix)?;
    let pods =
        [mk_server("server", None), mk_pod("client", None, &[], false), mk_pod("other", None, &[], false)];
    ns.apply(&pods.concat())?;
    ns.ready(&["server", "client", "other"])?;
    Ok(ns)
}

/// A CiliumNetworkPolicy; `spec` is the inside of a YAML mapping in one line.
pub fn mk_cnp(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

/// Waits until a CiliumNetworkPolicy is in force on every node that needs it.
///
/// # Errors
/// It is not after half a minute.
pub fn in_force(ns: &Namespace, policy: &str) -> anyhow::Result<()> {
    let wait = ["wait", "--for=condition=Enforced", "--timeout=30s", &format!("cnp/{policy}")];
    ns.kubectl(&wait).map(drop)
}

/// IPv4 address and port of an HTTP server outside of the cluster, which answers `/clientip` with the address that it sees.
///
/// # Errors
/// Nobody said where it is.
pub fn outside() -> anyhow::Result<(String, String)> {
    let outside = std::env::var("CLUSTER_OUTSIDE")
        .context("CLUSTER_OUTSIDE is not set: run through `just test-e2e`")?;
    let (host, port) = outside.split_once(':').context("CLUSTER_OUTSIDE is not address:port")?;
    Ok((host.to_owned(), port.to_owned()))
}

/// A name server `names`, labelled as the cluster's own, that knows `api.test` and `other.test` as one address.
fn mk_name_server(address: &str) -> String {
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
            {address} api.test other.test
            ttl 60
        }}
    }}
---
apiVersion: v1
kind: Pod
metadata:
  name: names
  labels: {{k8s-app: kube-dns}}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
    - name: main
      image: registry.k8s.io/coredns/coredns:v1.14.7
      imagePullPolicy: IfNotPresent
      args: [-conf, /etc/coredns/Corefile]
      ports: [{{name: dns, containerPort: 53, protocol: UDP}}, {{name: dns-tcp, containerPort: 53, protocol: TCP}}]
      volumeMounts: [{{name: corefile, mountPath: /etc/coredns}}]
  volumes:
    - name: corefile
      configMap: {{name: corefile}}
---
"
    )
}

/// A pod `client` that asks this name server, and nobody else.
fn mk_asking_client(name_server: &str) -> String {
    let resolver = format!(
        "  dnsPolicy: None\n  dnsConfig:\n    nameservers: [{name_server:?}]\n    options: [{{name: timeout, value: '2'}}]\n  containers:\n"
    );
    mk_pod("client", None, &[], false).replace("  containers:\n", &resolver)
}

/// A namespace with the pod `client`, which asks a name server `names` there about a host outside.
///
/// # Errors
/// They do not become ready.
pub fn asking(prefix: &str, host: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::new(prefix)?;
    ns.apply(&mk_name_server(host))?;
    ns.ready(&["names"])?;
    ns.apply(&mk_asking_client(&addresses(&ns, "names")?[0]))?;
    ns.ready(&["client"])?;
    Ok(ns)
}

/// Whether the pod `client` is answered by the server outside under a name or address, with the first packet that it sends.
///
/// # Errors
/// kubectl could not be run.
pub fn is_answered(ns: &Namespace, name: &str, port: &str) -> anyhow::Result<bool> {
    let url = format!("http://{name}:{port}/clientip");
    // Less than the time after which TCP tries again.
    let curl = ["curl", "-s", "--connect-timeout", "5", "--max-time", "8", &url];
    Ok(exec(&ns.name, "client", &curl)?.ok())
}

/// A client and a backend `near` on the first node, and a backend `far` on the second. Also the names of the nodes.
///
/// # Errors
/// As [`Namespace::ready`].
pub fn backends(prefix: &str) -> anyhow::Result<(Namespace, Vec<String>)> {
    let ns = Namespace::new(prefix)?;
    let nodes = nodes::names()?;
    ensure!(nodes.len() >= 2, "two nodes are needed, there are {nodes:?}");
    let web = |name: &str, node: &str| {
        mk_pod(name, Some(node), &["/agnhost", "netexec", "--http-port=7000", "--udp-port=7000"], false)
            .replace(&format!("app: {name}"), "app: web")
            .replace("localhost/client:dev", "registry.k8s.io/e2e-test-images/agnhost:2.63.0")
    };
    ns.apply(
        &[mk_pod("client", Some(&nodes[0]), &[], false), web("near", &nodes[0]), web("far", &nodes[1])]
            .concat(),
    )?;
    ns.ready(&["client", "near", "far"])?;
    Ok((ns, nodes))
}

/// The Service `web` with these backends; `spec` is the inside of a YAML mapping in one line. Returns its cluster address.
///
/// # Errors
/// As [`crate::kubectl()`].
pub fn serve(ns: &Namespace, spec: &str) -> anyhow::Result<String> {
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{app: web}}, ports: [{{name: tcp, port: 80, targetPort: 7000}}, {{name: udp, protocol: UDP, port: 80, targetPort: 7000}}], {spec}}}}}"
    ))?;
    ns.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])
}
