//! BGP with a router of somebody else's make (FRR) on a machine that is no part of the cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster_tests::announced::outside;
use cluster_tests::cli::cilium;
use cluster_tests::nodes::{self, SYSTEM, control, in_agent};
use cluster_tests::routed::{GRACEFUL, Stage, peer_status};
use cluster_tests::router::{BEHIND, NODE_ASN, ROUTER_ASN};
use cluster_tests::{eventually, kubectl, kubectl_json};

/// Its objects are those of the guide, word for word.
const GUIDE: &str = include_str!("../../../docs/guides/bgp.md");

#[test]
fn a_router_learns_prefixes_of_pods_and_services() -> anyhow::Result<()> {
    let nodes = nodes::names()?;
    let stage = Stage::new("learns", &[&nodes[0], &nodes[1]], GRACEFUL)?;
    let router = stage.router(&[])?;
    stage.spread(&router, nodes.len())?;
    for node in &nodes {
        let cilium_node = kubectl_json(&["get", "ciliumnode", node])?;
        let cidrs = cilium_node["spec"]["ipam"]["podCIDRs"].as_array().cloned().unwrap_or_default();
        ensure!(cidrs.len() == 2, "{node} has {cidrs:?}");
        for cidr in cidrs.iter().filter_map(|cidr| cidr.as_str()) {
            let hops = router.next_hops(cidr)?;
            ensure!(hops.len() == 1, "{cidr} of {node} goes to {hops:?}");
        }
    }
    let path = router.ask(&format!("show bgp ipv4 unicast {} json", stage.prefixes()[0]))?;
    let path = &path["paths"][0];
    ensure!(path["aspath"]["string"] == format!("{NODE_ASN}"), "{path}");
    ensure!(path["community"]["string"] == "64512:80 no-export", "{path}");
    for address in &stage.addresses {
        let to = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        let said =
            outside(&["curl", "-sv", "--max-time", "2", &format!("telnet://{to}:7000"), "--stderr", "-"])?;
        ensure!(said.contains("Connected to"), "{address}: {said}");
    }
    is_told(&nodes)
}

/// Status, tables and metrics say how the sessions stand.
fn is_told(nodes: &[String]) -> anyhow::Result<()> {
    for node in nodes {
        eventually("the status says that the session is established, and what it carries", || {
            let peer = peer_status(node, "v4")?;
            let count = &peer["routeCount"][0];
            Ok(peer["peeringState"] == "established"
                && peer["peerASN"] == ROUTER_ASN
                && peer["timers"]["appliedHoldTimeSeconds"] == 9
                && peer["establishedTime"].is_string()
                && count["afi"] == "ipv4"
                && count["advertised"].as_u64().is_some_and(|count| count >= 2))
        })?;
        let condition =
            kubectl_json(&["get", "ciliumbgpnodeconfig", node])?["status"]["conditions"][0].clone();
        ensure!(
            condition["type"] == "cilium.io/BGPReconcileError" && condition["status"] == "False",
            "{condition}"
        );
    }
    let (code, table, error) = cilium(&["bgp", "peers"])?;
    ensure!(code == 0 && table.matches("established").count() == 2 * nodes.len(), "{table}{error}");
    let (_, routes, error) =
        cilium(&["bgp", "routes", "advertised", "ipv6", "unicast", "--node", &nodes[1]])?;
    ensure!(routes.contains(&nodes[1]) && routes.contains("2001:db8:100::"), "{routes}{error}");
    let table = nodes::dbg(&nodes[0], &["bgp", "peers"])?;
    ensure!(table.matches("established").count() == 2, "{table}");
    let routes = nodes::dbg(&nodes[0], &["bgp", "routes", "advertised", "ipv4", "unicast"])?;
    ensure!(routes.contains("198.51.100.") && routes.contains("64512:80"), "{routes}");
    let policies = nodes::dbg(&nodes[0], &["bgp", "route-policies"])?;
    ensure!(policies.contains("198.51.100."), "{policies}");
    let speakers = kubectl_json(&["get", "pods", "-n", SYSTEM, "-l", "k8s-app=cilium-bgp"])?;
    let mounted = &speakers["items"][0]["spec"]["containers"][0];
    ensure!(mounted["securityContext"]["capabilities"]["add"].to_string() == r#"["NET_BIND_SERVICE"]"#);
    let mode = in_agent(&nodes[0], &["stat", "-c", "%a", "/var/run/cilium/bgp/speaker.sock"])?;
    ensure!(mode.out.trim() == "600", "{mode:?}");
    Ok(())
}

#[test]
fn a_local_service_is_known_where_its_backends_are() -> anyhow::Result<()> {
    let nodes = nodes::names()?;
    let stage = Stage::new("local", &[&nodes[0], &nodes[1]], GRACEFUL)?;
    stage.serve("externalTrafficPolicy: Local")?;
    let router = stage.router(&[])?;
    stage.spread(&router, 2)?;
    stage.ns.kubectl(&["delete", "pod", "server-0"])?;
    let begin = Instant::now();
    stage.spread(&router, 1)?;
    println!("withdrawn {:.3} s after the last backend of the node was gone", begin.elapsed().as_secs_f64());
    stage.ns.kubectl(&["delete", "service", "server"])?;
    let begin = Instant::now();
    eventually("the router knows no way", || {
        Ok(stage.prefixes().iter().all(|prefix| router.next_hops(prefix).is_ok_and(|hops| hops.is_empty())))
    })?;
    println!("withdrawn {:.3} s after the Service was gone", begin.elapsed().as_secs_f64());
    Ok(())
}

#[test]
fn what_is_wrong_is_said() -> anyhow::Result<()> {
    let nodes = nodes::names()?;
    let stage = Stage::new("wrong", &[], GRACEFUL)?;
    let router = stage.router(&[])?;
    eventually("the sessions are established", || Ok(router.established("ipv4")?.len() == nodes.len()))?;
    stage.peer(ROUTER_ASN + 1)?;
    eventually("the status says that the AS number is another one", || {
        let peer = peer_status(&nodes[0], "v4")?;
        let reason = peer["reason"].as_str().unwrap_or_default();
        Ok(peer["peeringState"] != "established" && reason.contains("AS"))
    })?;
    println!("wrong AS: {}", peer_status(&nodes[0], "v4")?);
    let missing = format!(
        "bgpInstances: [{{name: rack, localASN: {NODE_ASN}, peers: [{{name: v4, peerAddress: {}, peerASN: {ROUTER_ASN}, peerConfigRef: {{name: nobody}}}}]}}]",
        stage.network.router[0]
    );
    stage.bgp.set("CiliumBGPClusterConfig", &stage.ns.name, &missing)?;
    let waits = |condition: &str, object: &str| {
        kubectl(&["wait", &format!("--for=condition={condition}"), "--timeout=30s", object]).map(drop)
    };
    waits("cilium.io/MissingPeerConfigs", &format!("ciliumbgpclusterconfig/{}", stage.ns.name))?;
    eventually("the sessions end", || Ok(router.established("ipv4")?.is_empty()))
}

#[test]
fn what_a_router_makes_known_is_only_taken_where_its_configuration_says_so() -> anyhow::Result<()> {
    let node = &nodes::names()?[0];
    let stage = Stage::new("import", &[], GRACEFUL)?;
    let router = stage.router(&[])?;
    eventually("the router's prefix is heard", || {
        Ok(nodes::dbg(node, &["bgp", "routes", "received", "ipv4", "unicast"])?.contains(BEHIND))
    })?;
    let learned = || control(&["node", node, "ip", "route", "show", "proto", "88"]);
    ensure!(learned()?.trim().is_empty(), "it is in the node's table: {}", learned()?);
    let name = format!("{}-v4", stage.ns.name);
    let set = |import: bool| {
        let patch = format!(r#"{{"spec": {{"importRoutes": {import}}}}}"#);
        kubectl(&["patch", "ciliumbgppeerconfig", &name, "--type=merge", "-p", &patch])
    };
    set(true)?;
    let way = format!("{BEHIND} via {}", stage.network.router[0]);
    eventually("it is in the node's table", || Ok(learned()?.contains(&way)))?;
    // What the nodes made known themselves comes back by way of the router, and is nobody's way.
    ensure!(learned()?.lines().count() == 1, "{}", learned()?);
    set(false)?;
    eventually("it is gone", || Ok(learned()?.trim().is_empty()))?;
    ensure!(router.established("ipv4")?.len() == nodes::names()?.len(), "sessions ended");
    Ok(())
}

#[test]
fn a_password_keeps_others_out() -> anyhow::Result<()> {
    let nodes = nodes::names()?;
    let stage = Stage::new("password", &[], GRACEFUL)?;
    let secret = stage.ns.name.clone();
    for family in ["v4", "v6"] {
        let name = format!("{secret}-{family}");
        let patch = format!(r#"{{"spec": {{"authSecretRef": "{secret}"}}}}"#);
        kubectl(&["patch", "ciliumbgppeerconfig", &name, "--type=merge", "-p", &patch])?;
    }
    let router = stage.router(&["password s3cret"])?;
    let peer_config = format!("ciliumbgppeerconfig/{secret}-v4");
    kubectl(&["wait", "--for=condition=cilium.io/MissingAuthSecret", "--timeout=30s", &peer_config])?;
    let outcome = with_passwords(&secret, &router, &nodes);
    kubectl(&["delete", "secret", "-n", SYSTEM, &secret, "--ignore-not-found"])?;
    outcome
}

fn with_passwords(
    secret: &str,
    router: &cluster_tests::router::Router,
    nodes: &[String],
) -> anyhow::Result<()> {
    let set = |password: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {secret}}}, stringData: {{password: {password}}}}}"
        );
        cluster_tests::apply(SYSTEM, &text).map(drop)
    };
    set("wrong")?;
    eventually("the status says why there is no session", || {
        let peer = peer_status(&nodes[0], "v4")?;
        Ok(peer["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
    })?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(router.established("ipv4")?.is_empty(), "a wrong password is taken");
    println!("wrong password: {}", peer_status(&nodes[0], "v4")?);
    set("s3cret")?;
    eventually("the sessions are established", || {
        Ok(router.established("ipv4")?.len() == nodes.len()
            && router.established("ipv6")?.len() == nodes.len())
    })?;
    let all = kubectl(&["get", "ciliumnodestates,ciliumnodestateslices,ciliumbgpnodeconfigs", "-o", "yaml"])?;
    ensure!(!all.contains("s3cret"), "a password stands in an object");
    Ok(())
}

#[test]
fn the_guides_objects_are_taken() -> anyhow::Result<()> {
    let block = GUIDE.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.context("the guide has objects")?;
    let said = cluster_tests::feed(&["apply", "--dry-run=server", "-f", "-"], block)?;
    ensure!(said.lines().count() == 3 && !said.contains("Warning"), "{said}");
    Ok(())
}
