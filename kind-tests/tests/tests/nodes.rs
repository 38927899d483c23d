//! Nodes as peers by their labels. For a cluster with `nodeSelectorLabels=true`.

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
