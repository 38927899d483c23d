//! Nodes as peers by their labels, and as subjects. For a cluster with `nodeSelectorLabels=true,hostFirewall.enabled=true`.

use anyhow::ensure;
use cluster_tests::pods::{addresses, mk_pod, mk_server};
use cluster_tests::{Namespace, eventually, exec, nodes};

fn mk_cnp(zone: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: nodes}}, spec: {{endpointSelector: {{matchLabels: {{app: server}}}}, ingress: [{{fromNodes: [{{matchLabels: {{kubernetes.io/hostname: {zone}}}}}]}}]}}}}"
    )
}

#[test]
fn a_node_is_a_peer_by_its_labels() -> anyhow::Result<()> {
    let names = nodes::names()?;
    let (here, there) = (&names[0], &names[1]);
    let ns = Namespace::new("nodes")?;
    ns.apply(&[mk_server("server", Some(here)), mk_pod("client", Some(there), &[], true)].concat())?;
    ns.ready(&["server", "client"])?;
    let server = addresses(&ns, "server")?;
    let connects = || -> anyhow::Result<Vec<bool>> {
        let ran = server.iter().map(|ip| exec(&ns.name, "client", &["nc", "-z", "-w", "2", ip, "7000"]));
        ran.map(|ran| ran.map(|ran| ran.ok())).collect()
    };
    ensure!(connects()? == [true, true], "without a policy");
    ns.apply(&mk_cnp(here))?;
    ns.kubectl(&["wait", "--for=condition=Enforced", "--timeout=30s", "cnp/nodes"])?;
    eventually("another node is not meant", || Ok(connects()? == [false, false]))?;
    ns.apply(&mk_cnp(there))?;
    eventually("this node is meant", || Ok(connects()? == [true, true]))
}

/// Goes with the test, also when it fails: a closed node is no use to the next test.
struct HostPolicy(String);

impl Drop for HostPolicy {
    fn drop(&mut self) {
        let _ = cluster_tests::kubectl(&["delete", "ccnp", &self.0, "--ignore-not-found"]);
    }
}

#[test]
fn a_node_has_a_policy_of_its_own() -> anyhow::Result<()> {
    let names = nodes::names()?;
    let (here, there) = (&names[0], &names[1]);
    let ns = Namespace::new("host-policy")?;
    let pods = [
        mk_pod("server", Some(here), &["probe", "serve", "7999"], true),
        mk_pod("client", Some(there), &[], false),
    ];
    ns.apply(&pods.concat())?;
    ns.ready(&["server", "client"])?;
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let of_node = cluster_tests::kubectl(&["get", "node", here, "-o", path])?;
    let address = of_node.split(' ').find(|ip| !ip.contains(':')).unwrap_or_default().to_owned();
    let connects = || Ok(exec(&ns.name, "client", &["nc", "-z", "-w", "2", &address, "7999"])?.ok());
    ensure!(connects()?, "without a policy");
    let policy = HostPolicy(ns.name.clone());
    // Only the one port is denied: a node that is closed altogether could not tell.
    let spec = |field: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: {}}}, spec: {{nodeSelector: {{}}, {field}}}}}",
            policy.0
        )
    };
    let deny = "enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEntities: [all], toPorts: [{ports: [{port: '7999', protocol: TCP}]}]}]";
    ns.apply(&spec(deny))?;
    eventually("the port is denied", || Ok(!connects()?))?;
    ns.apply(&spec("ingress: [{fromEntities: [cluster, world]}]"))?;
    eventually("the cluster is allowed", connects)?;
    eventually("the policy is in force on every node", || {
        let object = cluster_tests::kubectl_json(&["get", "ccnp", &policy.0])?;
        Ok(object["status"]["enforced"] == format!("{0}/{0}", names.len()))
    })
}
