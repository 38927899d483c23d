//! Addresses of Services on the nodes' own network (CiliumL2AnnouncementPolicy), from a machine that is no part of the cluster, with
//! arping, ndisc6, curl and tcpdump.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::announced::{Policy, answering, macs, macs6, nodes_by_mac, outside, settled};
use cluster_tests::nodes::{self, SYSTEM, control, control_plane, kill_in_pod};
use cluster_tests::outside::node_address;
use cluster_tests::scenes::{backends, serve};
use cluster_tests::{Namespace, eventually, kubectl, kubectl_json};

/// The first three numbers of addresses on the nodes' network.
fn network() -> anyhow::Result<String> {
    let address = node_address(&nodes::names()?[0], "IPv4")?.context("nodes have IPv4 addresses")?;
    let text = address.to_string();
    Ok(text.rsplit_once('.').context("is one")?.0.to_owned())
}

/// The network of IPv6, up to the part of hosts.
fn network6() -> anyhow::Result<String> {
    let address = node_address(&nodes::names()?[0], "IPv6")?.context("nodes have IPv6 addresses")?;
    let text = address.to_string();
    Ok(text.rsplit_once(':').context("is one")?.0.to_owned())
}

/// A Service without backends that has these addresses.
fn mk_external(addresses: &[String]) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: many}}, spec: {{externalIPs: ['{}'], ports: [{{port: 80}}]}}}}",
        addresses.join("', '")
    )
}

fn of_namespace(ns: &Namespace) -> String {
    format!("serviceSelector: {{matchLabels: {{io.kubernetes.service.namespace: {}}}}}", ns.name)
}

#[test]
fn a_hundred_addresses_are_spread_and_each_has_one_answer() -> anyhow::Result<()> {
    let ns = Namespace::new("spread")?;
    let network = network()?;
    let addresses: Vec<String> = (101..=200).map(|last| format!("{network}.{last}")).collect();
    ns.apply(&mk_external(&addresses))?;
    let policy = Policy::new(&ns.name, &format!("externalIPs: true, {}", of_namespace(&ns)))?;
    let by_node = settled(100)?;
    let counts: Vec<usize> = by_node.values().map(Vec::len).collect();
    println!("100 addresses on {} nodes: {counts:?}", counts.len());
    ensure!(counts.len() == 3, "the test needs three nodes");
    ensure!(counts.iter().all(|count| (27..=40).contains(count)), "not within 20 % of even: {counts:?}");
    let nodes = nodes_by_mac()?;
    for (node, addresses) in &by_node {
        for address in addresses {
            // One of three may come too late to be seen.
            let macs = macs(address, 3)?;
            let seen: BTreeSet<Option<&String>> = macs.iter().map(|mac| nodes.get(mac)).collect();
            ensure!(
                macs.len() >= 2 && seen == [Some(node)].into(),
                "{address} of {node} is answered by {macs:?}"
            );
        }
    }
    policy.set(&format!("externalIPs: true, interfaces: ['^nothing$'], {}", of_namespace(&ns)))?;
    settled(0)?;
    eventually("the policy says that no device matches", || {
        let text = kubectl(&["describe", "ciliuml2announcementpolicy", &ns.name])?;
        Ok(text.contains("NoDevices"))
    })?;
    ensure!(macs(&addresses[0], 1)?.is_empty(), "it is announced all the same");
    Ok(())
}

#[test]
fn a_load_balancer_is_reached_at_its_address() -> anyhow::Result<()> {
    let (ns, nodes) = backends("announced")?;
    let (network, network6) = (network()?, network6()?);
    serve(&ns, "type: LoadBalancer, ipFamilyPolicy: RequireDualStack")?;
    let pool = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumLoadBalancerIPPool, metadata: {{name: {}}}, spec: {{{}, blocks: [{{start: {network}.210, stop: {network}.219}}, {{start: '{network6}:210', stop: '{network6}:219'}}]}}}}",
        ns.name,
        of_namespace(&ns)
    );
    cluster_tests::feed(&["apply", "-f", "-"], &pool)?;
    let _policy = Policy::new(&ns.name, &format!("loadBalancerIPs: true, {}", of_namespace(&ns)))?;
    let outcome = is_reached(&ns, &nodes);
    kubectl(&["delete", "ippool", &ns.name])?;
    outcome
}

fn is_reached(ns: &Namespace, nodes: &[String]) -> anyhow::Result<()> {
    settled(2)?;
    let service = kubectl_json(&["-n", &ns.name, "get", "service", "web"])?;
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let addresses: Vec<String> =
        ingress.iter().filter_map(|it| it["ip"].as_str().map(str::to_owned)).collect();
    let [v4, v6] = addresses.as_slice() else { anyhow::bail!("the Service has {addresses:?}") };
    for url in [format!("http://{v4}/hostname"), format!("http://[{v6}]/hostname")] {
        let answer = outside(&["curl", "-s", "--max-time", "5", &url])?;
        ensure!(["near", "far"].contains(&answer.as_str()), "{url} says {answer:?}");
    }
    let by_mac = nodes_by_mac()?;
    let (mac, mac6) = (macs(v4, 1)?, macs6(v6)?);
    ensure!(mac6.len() == 1 && by_mac.contains_key(&mac6[0]), "{v6} is answered by {mac6:?}");
    let node = &by_mac[&mac[0]];
    eventually("the policy says where the addresses are", || {
        let policy = kubectl_json(&["get", "ciliuml2announcementpolicy", &ns.name])?;
        let rows = policy["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row["address"] == v4.as_str());
        Ok(rows.len() == 2 && row.is_some_and(|row| row["node"] == node.as_str()))
    })?;
    // With Local, the address is where a backend is: on the other node when this one loses its own.
    serve(ns, "type: LoadBalancer, ipFamilyPolicy: RequireDualStack, externalTrafficPolicy: Local")?;
    ns.kubectl(&["delete", "pod", "near"])?;
    let expected = &nodes[1];
    eventually(&format!("{expected} has the addresses"), || {
        let has_both = answering()?[expected].len() == 2;
        Ok(has_both && macs(v4, 1)?.first().map(|mac| &by_mac[mac]) == Some(expected))
    })?;
    let answer = outside(&["curl", "-s", "--max-time", "5", &format!("http://{v4}/hostname")])?;
    ensure!(answer == "far", "{v4} says {answer:?}");
    ns.kubectl(&["delete", "pod", "far"])?;
    settled(0).map(drop)
}

#[test]
fn nothing_is_missed_while_agents_operator_and_api_server_are_away() -> anyhow::Result<()> {
    let ns = Namespace::new("steady")?;
    let address = format!("{}.220", network()?);
    ns.apply(&mk_external(std::slice::from_ref(&address)))?;
    let _policy = Policy::new(&ns.name, &format!("externalIPs: true, {}", of_namespace(&ns)))?;
    let before = settled(1)?;
    let asking =
        std::thread::spawn(move || outside(&["arping", "-c", "20000", "-W", "0.001", "-i", "e0", &address]));
    for node in nodes::names()? {
        kill_in_pod(&node, &nodes::agent(&node)?, "cilium-agent")?;
    }
    kubectl(&["scale", "deployment", "cilium-operator", "-n", SYSTEM, "--replicas=0"])?;
    control_plane(&["stop", "apiserver"])?;
    sleep(Duration::from_secs(5));
    control_plane(&["start", "apiserver"])?;
    eventually("the API server is back", || kubectl(&["get", "--raw", "/readyz"]).map(|_| true))?;
    kubectl(&["scale", "deployment", "cilium-operator", "-n", SYSTEM, "--replicas=1"])?;
    kubectl(&["rollout", "status", "deployment/cilium-operator", "-n", SYSTEM, "--timeout=120s"])?;
    let summary = asking.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
    let summary = summary.lines().find(|line| line.contains("packets transmitted")).context("a summary")?;
    println!("{summary}");
    let counts: Vec<&str> = summary.split(' ').filter(|word| word.parse::<u32>().is_ok()).take(2).collect();
    ensure!(counts == ["20000", "20000"], "some questions were not answered: {summary}");
    ensure!(settled(1)? == before, "the address has moved");
    Ok(())
}

/// Requests that the API server has served, but for watches, of kinds that announcements are about.
fn requests() -> anyhow::Result<BTreeMap<String, f64>> {
    const KINDS: [&str; 6] = [
        "ciliumnodestates",
        "ciliumnodestateslices",
        "ciliuml2announcementpolicies",
        "services",
        "secrets",
        "events",
    ];
    let metrics = kubectl(&["get", "--raw", "/metrics"])?;
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let is_of = |kind: &&&str| line.contains(&format!("resource=\"{kind}\""));
        let Some(kind) = KINDS.iter().find(is_of).filter(|_| !line.contains("verb=\"WATCH\"")) else {
            continue;
        };
        // The API server itself reads all of them now and then, to look for ports that nobody has any more.
        if *kind == "services" && line.contains("verb=\"LIST\"") {
            continue;
        }
        let count: f64 = line.rsplit(' ').next().context("a number")?.parse()?;
        *counts.entry((*kind).to_owned()).or_default() += count;
    }
    Ok(counts)
}

#[test]
fn a_thousand_addresses_at_rest_cost_no_request() -> anyhow::Result<()> {
    let ns = Namespace::new("rest")?;
    // Nobody has these: the network is not theirs, and that does not matter to those who announce them.
    let addresses: Vec<String> =
        (0..1000).map(|at| format!("198.18.{}.{}", at / 250, at % 250 + 1)).collect();
    ns.apply(&mk_external(&addresses))?;
    let _policy = Policy::new(&ns.name, &format!("externalIPs: true, {}", of_namespace(&ns)))?;
    settled(1000)?;
    sleep(Duration::from_secs(15));
    let before = requests()?;
    sleep(Duration::from_secs(60));
    let after = requests()?;
    let grown: BTreeMap<&String, f64> = after
        .iter()
        .map(|(kind, count)| (kind, count - before.get(kind).unwrap_or(&0.0)))
        .filter(|(_, grown)| *grown > 0.0)
        .collect();
    println!("requests in a minute with 1,000 addresses on 3 nodes: {grown:?}");
    ensure!(grown.is_empty(), "there were requests: {grown:?}");
    flood_costs_the_agent_nothing(&ns)
}

/// Sends questions for one address as fast as it can for five seconds, and prints how many.
const FLOOD: &str = "
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('e0', 0))
mac = s.getsockname()[4]
frame = b'\\xff' * 6 + mac + bytes.fromhex('08060001080006040001') + mac + bytes(4) + bytes(6) + socket.inet_aton(sys.argv[1])
end, n = time.monotonic() + 5, 0
while time.monotonic() < end:
    for _ in range(1000):
        s.send(frame)
    n += 1000
print(n // 5)
";

/// Ticks (10 ms) of processor time that the agent of a node has had.
fn ticks(node: &str) -> anyhow::Result<u64> {
    let stat = control(&["node", node, "sh", "-c", "cat /proc/$(pgrep -ox cilium-agent)/stat"])?;
    let fields: Vec<&str> = stat.rsplit(") ").next().context("a line")?.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn flood_costs_the_agent_nothing(ns: &Namespace) -> anyhow::Result<()> {
    let (node, address) = answering()?
        .into_iter()
        .find_map(|(node, addresses)| Some((node, addresses.into_iter().next()?)))
        .with_context(|| format!("nobody answers for {}", ns.name))?;
    let begin = ticks(&node)?;
    sleep(Duration::from_secs(5));
    let idle = ticks(&node)? - begin;
    // On a machine that is busy with other things, it may be a trickle.
    let flood = || {
        let begin = ticks(&node)?;
        let rate: u64 = outside(&["python3", "-c", FLOOD, &address])?.trim().parse()?;
        anyhow::Ok((rate, ticks(&node)? - begin))
    };
    let (mut rate, mut busy) = flood()?;
    for _ in 0..2 {
        if rate < 100_000 {
            (rate, busy) = flood()?;
        }
    }
    println!("agent of {node}: {idle} ticks in 5 s at rest, {busy} while {rate}/s ask");
    ensure!(rate >= 100_000, "the flood was a trickle: {rate}/s");
    ensure!(
        busy <= idle + 5,
        "a flood costs the agent more than 1 %: {idle} -> {busy} ticks of 10 ms in 5 s"
    );
    Ok(())
}
