//! Services for clients outside: this process is one, on the network of the nodes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::outside::{
    MANY, PATIENCE, Way, answers, are_answered_by, ask, keep_asking, node_address, node_port,
};
use cluster_tests::pods::mk_pod;
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, exec, holds_for, nodes};

/// The same question by UDP.
fn ask_datagram(at: SocketAddr, question: &str) -> anyhow::Result<String> {
    let any: IpAddr = if at.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(at)?;
    socket.send(question.as_bytes())?;
    let mut answer = [0; 1024];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// From a pod; who answers.
fn asked_by_pod(ns: &Namespace, url: &str) -> anyhow::Result<String> {
    let ran = exec(&ns.name, "client", &["curl", "-s", "--max-time", "3", url])?;
    Ok(ran.out)
}

/// A Deployment that goes the way that Kubernetes recommends: ready when it answers, and slow to leave.
const ROLLING: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling}
spec:
  replicas: 3
  selector: {matchLabels: {app: rolling}}
  template:
    metadata: {labels: {app: rolling}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
        imagePullPolicy: Never
        command: [/agnhost, netexec, --http-port=7000]
        readinessProbe: {httpGet: {path: /healthz, port: 7000}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 4}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: rolling}, ports: [{name: tcp, port: 80, targetPort: 7000}]}
";

#[test]
fn no_request_fails_while_a_deployment_is_restarted() -> anyhow::Result<()> {
    let (ns, nodes) = backends("rolling")?;
    ns.apply(ROLLING)?;
    ns.kubectl(&["rollout", "status", "deployment", "rolling", "--timeout=120s"])?;
    let address = node_address(&nodes[0], "IPv4")?.context("no IPv4 address")?;
    let at = SocketAddr::new(address, node_port(&ns, "tcp")?);
    eventually("the Service works", || Ok(ask(at, "/hostname").is_ok()))?;
    let cluster = ns.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    // 200 requests a second from outside; from a pod as many, for longer than the restart takes.
    let stop = AtomicBool::new(false);
    let url = format!("http://{cluster}/hostname?[1-6000]");
    let curl = [
        "curl",
        "-s",
        "--max-time",
        "5",
        "--rate",
        "200/s",
        "-H",
        "Connection: close",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}\n",
        &url,
    ];
    std::thread::scope(|scope| {
        let outside: Vec<_> =
            (0..2).map(|_| scope.spawn(|| keep_asking(at, Duration::from_millis(10), &stop))).collect();
        let inside = scope.spawn(|| exec(&ns.name, "client", &curl));
        let restarted = ns
            .kubectl(&["rollout", "restart", "deployment", "rolling"])
            .and_then(|_| ns.kubectl(&["rollout", "status", "deployment", "rolling", "--timeout=120s"]));
        let inside = inside.join().map_err(|_| anyhow::anyhow!("the client in a pod was lost"));
        stop.store(true, Ordering::Relaxed);
        restarted?;
        let (mut asked, mut failed) = (0, Vec::new());
        for client in outside {
            let (number, failures) = client.join().map_err(|_| anyhow::anyhow!("a client was lost"))?;
            asked += number;
            failed.extend(failures);
        }
        let codes = inside??.out;
        let inside = codes.lines().count();
        let bad = codes.lines().filter(|code| *code != "200").count();
        println!("{asked} requests from outside, {} failed; {inside} from a pod, {bad} failed", failed.len());
        ensure!(asked > 2000 && inside == 6000, "{asked} requests from outside, {inside} from a pod");
        ensure!(failed.is_empty() && bad == 0, "{bad} from a pod failed; from outside {failed:?}");
        Ok(())
    })
}

const DUAL: &str = "ipFamilyPolicy: RequireDualStack";

#[test]
fn every_node_serves_the_port() -> anyhow::Result<()> {
    let (ns, nodes) = backends("node-port")?;
    serve(&ns, &format!("type: NodePort, {DUAL}"))?;
    let (tcp, udp) = (node_port(&ns, "tcp")?, node_port(&ns, "udp")?);
    let mut tried = 0;
    for node in &nodes {
        for family in ["IPv4", "IPv6"] {
            let Some(address) = node_address(node, family)? else { continue };
            are_answered_by((address, tcp).into(), &["far", "near"])?;
            let mut seen = BTreeSet::new();
            eventually(&format!("datagrams to {address} reach both"), || {
                seen.insert(ask_datagram((address, udp).into(), "hostname")?);
                Ok(seen == BTreeSet::from(["far".to_owned(), "near".to_owned()]))
            })?;
            let url = format!("http://{}/hostname", SocketAddr::new(address, tcp));
            eventually(&format!("a pod is served at {address}"), || {
                Ok(["near", "far"].contains(&asked_by_pod(&ns, &url)?.as_str()))
            })?;
            tried += 1;
        }
    }
    ensure!(tried >= 2 * nodes.len(), "both families of {} nodes, but only {tried} addresses", nodes.len());
    Ok(())
}

#[test]
fn a_nodes_own_processes_are_served_at_the_loopback_address() -> anyhow::Result<()> {
    let (ns, nodes) = backends("loopback")?;
    serve(&ns, "type: NodePort")?;
    let port = node_port(&ns, "tcp")?;
    let pod = mk_pod("own", Some(&nodes[0]), &[], true);
    ns.apply(&pod)?;
    ns.ready(&["own"])?;
    let url = format!("http://127.0.0.1:{port}/hostname");
    eventually("the node's process is served", || {
        let ran = exec(&ns.name, "own", &["curl", "-s", "--max-time", "3", &url])?;
        Ok(["near", "far"].contains(&ran.out.as_str()))
    })?;
    // A pod's loopback address is its own.
    let ran = exec(&ns.name, "client", &["curl", "-s", "--max-time", "3", &url])?;
    ensure!(ran.code == 7, "curl in a pod ended with {}", ran.code);
    Ok(())
}

#[test]
fn with_a_policy_of_local_nodes_serve_their_own_and_keep_the_clients_address() -> anyhow::Result<()> {
    let (ns, nodes) = backends("external-local")?;
    serve(&ns, "type: NodePort, externalTrafficPolicy: Local")?;
    let port = node_port(&ns, "tcp")?;
    let at = |node: &str| -> anyhow::Result<SocketAddr> {
        Ok((node_address(node, "IPv4")?.context("no IPv4 address")?, port).into())
    };
    let (first, second) = (at(&nodes[0])?, at(&nodes[1])?);
    are_answered_by(first, &["near"])?;
    are_answered_by(second, &["far"])?;
    let own = UdpSocket::bind("0.0.0.0:0")?;
    own.connect(first)?;
    let (_, seen) = ask(first, "/clientip")?;
    ensure!(seen.starts_with(&format!("{}:", own.local_addr()?.ip())), "the backend saw {seen}");

    ns.kubectl(&["delete", "pod", "near"])?;
    eventually("a node without backends drops", || {
        let error = TcpStream::connect_timeout(&first, Duration::from_secs(1)).err();
        Ok(error.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut))
    })?;
    are_answered_by(second, &["far"])
}

#[test]
fn addresses_of_load_balancers_let_source_ranges_in() -> anyhow::Result<()> {
    let (ns, nodes) = backends("balancer")?;
    let address: IpAddr = "192.0.2.78".parse()?;
    let at = SocketAddr::new(address, 80);
    let spec = |ranges: &str| format!("type: LoadBalancer, allocateLoadBalancerNodePorts: false{ranges}");
    serve(&ns, &spec(""))?;
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
    ns.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &status])?;
    for node in &nodes {
        let _way = Way::new(address, node)?;
        are_answered_by(at, &["far", "near"])?;
    }
    let _way = Way::new(address, &nodes[1])?;
    serve(&ns, &spec(", loadBalancerSourceRanges: [203.0.113.0/24]"))?;
    eventually("this client is not let in", || Ok(ask(at, "/hostname").is_err()))?;
    serve(&ns, &spec(", loadBalancerSourceRanges: [203.0.113.0/24, 172.30.0.0/16]"))?;
    are_answered_by(at, &["far", "near"])
}

#[test]
fn external_addresses_are_served_from_outside_only() -> anyhow::Result<()> {
    let (ns, nodes) = backends("external")?;
    let address: IpAddr = "192.0.2.79".parse()?;
    serve(&ns, &format!("externalIPs: [{address}]"))?;
    let _way = Way::new(address, &nodes[0])?;
    are_answered_by(SocketAddr::new(address, 80), &["far", "near"])?;
    holds_for("pods are not led astray", Duration::from_secs(2), || {
        Ok(!["near", "far"].contains(&asked_by_pod(&ns, &format!("http://{address}/hostname"))?.as_str()))
    })
}

#[test]
fn a_client_outside_keeps_its_backend() -> anyhow::Result<()> {
    let (ns, nodes) = backends("client-ip")?;
    serve(&ns, "type: NodePort, sessionAffinity: ClientIP")?;
    let at: SocketAddr =
        (node_address(&nodes[0], "IPv4")?.context("no IPv4 address")?, node_port(&ns, "tcp")?).into();
    let mut first = BTreeSet::new();
    eventually("all connections come to one backend", || {
        first = answers(at);
        Ok(first.len() == 1)
    })?;
    let kept = first.first().context("nobody answered")?;
    ns.kubectl(&["delete", "pod", kept])?;
    are_answered_by(at, &[if kept == "near" { "far" } else { "near" }])
}

/// Who answers datagrams from these ports of ours, one after the other.
fn answers_from(ports: std::ops::Range<u16>, at: SocketAddr) -> anyhow::Result<Vec<String>> {
    let ask = |port| -> anyhow::Result<String> {
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(at)?;
        socket.send(b"hostname")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).with_context(|| format!("no answer to port {port}"))?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    ports.map(ask).collect()
}

/// The agents let Services choose (`bpf.lbAlgorithmAnnotation`).
#[test]
fn by_maglev_hashing_nodes_agree_on_the_backend_of_a_connection() -> anyhow::Result<()> {
    let (ns, nodes) = backends("maglev")?;
    serve(&ns, "type: NodePort")?;
    ns.kubectl(&["annotate", "service", "web", "service.cilium.io/lb-algorithm=maglev"])?;
    let port = node_port(&ns, "udp")?;
    let mut tables = Vec::new();
    eventually("every node has the table", || {
        tables = nodes.iter().map(|node| tables_at(node, port)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(tables.iter().all(|table| !table.is_empty() && *table == tables[0]))
    })
    .with_context(|| format!("the last tables were {tables:?}"))?;
    let at = |node: &str| -> anyhow::Result<SocketAddr> {
        Ok((node_address(node, "IPv4")?.context("no IPv4 address")?, port).into())
    };
    let one = answers_from(21_000..21_200, at(&nodes[0])?)?;
    let other = answers_from(21_000..21_200, at(&nodes[1])?)?;
    let count = |name: &str| one.iter().filter(|answer| *answer == name).count();
    ensure!(count("near") + count("far") == 200, "somebody else answers: {one:?}");
    // Both have half of the table; so uneven is not one of a billion.
    ensure!((55..145).contains(&count("near")), "{} of 200 connections came to one", count("near"));
    ensure!(one == other, "the nodes do not agree");
    Ok(())
}

/// Size and digest of the table for a port of nodes, as a node's agent shows it; empty without one.
fn tables_at(node: &str, port: u16) -> anyhow::Result<String> {
    let text = nodes::dbg(node, &["bpf", "lb", "maglev", "list"])?;
    let line = text.lines().find(|line| line.starts_with(&format!("0.0.0.0:{port}/UDP")));
    Ok(line.map(|line| line.split_whitespace().skip(2).take(2).collect()).unwrap_or_default())
}

/// The agents let Services choose (`bpf.lbModeAnnotation`).
#[test]
fn by_direct_return_backends_of_every_node_see_the_client() -> anyhow::Result<()> {
    let (ns, nodes) = backends("direct-return")?;
    serve(&ns, &format!("type: NodePort, {DUAL}"))?;
    ns.kubectl(&["annotate", "service", "web", "service.cilium.io/forwarding-mode=dsr"])?;
    let (tcp, udp) = (node_port(&ns, "tcp")?, node_port(&ns, "udp")?);
    let mut tried = 0;
    for node in &nodes {
        for family in ["IPv4", "IPv6"] {
            let Some(address) = node_address(node, family)? else { continue };
            let at: SocketAddr = (address, tcp).into();
            are_answered_by(at, &["far", "near"])?;
            let own = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            own.connect(at)?;
            let own = own.local_addr()?.ip();
            let mut seen = BTreeSet::new();
            eventually(&format!("at {at} all backends see {own}"), || {
                let all: anyhow::Result<BTreeSet<String>> =
                    (0..MANY).map(|_| ask(at, "/clientip").map(|(_, body)| body)).collect();
                seen = all?
                    .iter()
                    .filter_map(|text| text.parse::<SocketAddr>().ok())
                    .map(|it| it.ip())
                    .collect();
                Ok(seen == BTreeSet::from([own]))
            })
            .with_context(|| format!("the last backends saw {seen:?}"))?;
            let mut answered = BTreeSet::new();
            eventually(&format!("datagrams to {address} reach both"), || {
                answered.insert(ask_datagram((address, udp).into(), "hostname")?);
                Ok(answered == BTreeSet::from(["far".to_owned(), "near".to_owned()]))
            })?;
            tried += 1;
        }
    }
    ensure!(tried >= 2 * nodes.len(), "both families of {} nodes, but only {tried} addresses", nodes.len());
    Ok(())
}

#[test]
fn a_backend_on_the_nodes_own_network_is_served() -> anyhow::Result<()> {
    let (ns, nodes) = backends("own-network")?;
    let pod = mk_pod(
        "hosted",
        Some(&nodes[0]),
        &["/agnhost", "netexec", "--http-port=7391", "--udp-port=7391"],
        true,
    )
    .replace("localhost/client:dev", "registry.k8s.io/e2e-test-images/agnhost:2.63.0");
    ns.apply(&pod)?;
    ns.ready(&["hosted"])?;
    ns.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: hosted}, ports: [{name: tcp, port: 80, targetPort: 7391}, {name: udp, protocol: UDP, port: 80, targetPort: 7391}]}}",
    )?;
    let (tcp, udp) = (node_port(&ns, "tcp")?, node_port(&ns, "udp")?);
    for node in &nodes {
        let address = node_address(node, "IPv4")?.context("no IPv4 address")?;
        eventually(&format!("{address} leads to the process"), || {
            Ok(ask((address, tcp).into(), "/clientip").is_ok_and(|(status, _)| status == 200))
        })?;
        eventually(&format!("{address} leads datagrams to the process"), || {
            Ok(ask_datagram((address, udp).into(), "clientip").is_ok_and(|answer| !answer.is_empty()))
        })?;
    }
    Ok(())
}
