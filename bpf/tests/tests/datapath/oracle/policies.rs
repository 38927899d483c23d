//! Random policies: objects as users write them, reduced and compiled as the operator does, and compiled ones that no object leads to.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Action, Direction, DnsRule, Entry, FIRST_BLOCK, Policy, Step};
use cilium_policy::{Config, Host, PolicyIndex, PolicyKey, PolicyRules, reduce};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::random::Random;
use super::world::{self, PREFIXES};

/// Ports that policies name, none near those that flows come from.
pub(super) const PORTS: [u16; 12] = [1, 53, 80, 81, 90, 443, 1023, 1024, 8080, 8192, 12_345, 65_535];

/// Identities of the pods that are here.
const HERE: [u32; 2] = [1005, 1006];

/// The compiled policies of the pods here, and the identities of the prefixes that are named.
pub(super) struct Set {
    pub(super) policies: BTreeMap<u32, Policy>,
    pub(super) prefixes: BTreeMap<IpNet, u32>,
    /// What they were made from.
    pub(super) source: Vec<Value>,
}

/// Policies from objects.
pub(super) fn from_objects(random: &mut Random) -> Set {
    let mut index = PolicyIndex::new(Config::default());
    let mut source = Vec::new();
    let mut prefixes: BTreeSet<IpNet> = BTreeSet::new();
    for number in 0..1 + random.below(8) {
        let object = object(random, number);
        // What is refused would not come into force either.
        let Some((key, rules)) = reduced(&object) else { continue };
        prefixes.extend(rules.prefixes());
        index.set_policy(&key, Some(rules));
        source.push(object);
    }
    let prefixes = world::number_prefixes(prefixes);
    for (number, labels) in world::identities() {
        index.set_identity(number, Some(labels));
    }
    for (prefix, number) in &prefixes {
        index.set_identity(*number, Some(world::prefix_labels(*prefix)));
    }
    let compiled = |number| Some((number, index.compile(number, Host::Plain)?));
    Set { policies: HERE.into_iter().filter_map(compiled).collect(), prefixes, source }
}

fn reduced(object: &Value) -> Option<(PolicyKey, PolicyRules)> {
    if object["kind"] == "NetworkPolicy" {
        let policy = serde_json::from_value(object.clone()).unwrap();
        Some((reduce::netpol_key(&policy), reduce::netpol(&policy, "default").0))
    } else if object["kind"] == "CiliumNetworkPolicy" {
        let policy = serde_json::from_value(object.clone()).unwrap();
        Some((reduce::cnp_key(&policy), reduce::cnp(&policy, "default").ok()?))
    } else if object["kind"] == "ClusterNetworkPolicy" {
        let policy = serde_json::from_value(object.clone()).unwrap();
        let settings = reduce::Settings { node_selector_labels: true, .."default".into() };
        Some((reduce::clusternetpol_key(&policy), reduce::clusternetpol(&policy, settings).0))
    } else {
        let policy = serde_json::from_value(object.clone()).unwrap();
        Some((reduce::ccnp_key(&policy), reduce::ccnp(&policy, "default").ok()?))
    }
}

fn object(random: &mut Random, number: usize) -> Value {
    if random.chance(25) {
        return kubernetes_object(random, number);
    }
    if random.chance(25) {
        return ordered_object(random, number);
    }
    let clusterwide = random.chance(30);
    let specs = random.list(1, 3, rule);
    let name = format!("p{number}");
    if clusterwide {
        json!({"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": name}, "specs": specs})
    } else {
        json!({"kind": "CiliumNetworkPolicy", "metadata": {"name": name, "namespace": random.pick(&["red", "red", "red", "blue"])}, "specs": specs})
    }
}

/// A NetworkPolicy of Kubernetes, mostly about blocks of addresses.
fn kubernetes_object(random: &mut Random, number: usize) -> Value {
    let subject = [json!({}), json!({"matchLabels": {"app": "a"}}), json!({"matchLabels": {"org": "x"}})]
        [random.below(3)]
    .clone();
    let mut spec = json!({"podSelector": subject});
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        if random.chance(60) {
            spec[field] = random.list(0, 3, |random| kubernetes_entry(random, peers)).into();
        }
    }
    json!({"kind": "NetworkPolicy", "metadata": {"name": format!("p{number}"), "namespace": "red"}, "spec": spec})
}

fn kubernetes_entry(random: &mut Random, peers: &str) -> Value {
    let mut entry = json!({});
    if random.chance(85) {
        let list = random.list(1, 4, |random| match random.below(5) {
            0 => json!({"podSelector": {"matchLabels": {"app": random.pick(&["a", "b", "c"])}}}),
            1 => json!({"namespaceSelector": {}}),
            2 => json!({"namespaceSelector": {"matchLabels": {"team": "1"}}}),
            _ => json!({"ipBlock": prefix_set(random)}),
        });
        entry[peers] = list.into();
    }
    if random.chance(50) {
        let ports = random.list(
            1,
            4,
            |random| json!({"port": random.pick(&PORTS), "protocol": random.pick(&["TCP", "UDP", "SCTP"])}),
        );
        entry["ports"] = ports.into();
    }
    entry
}

/// A ClusterNetworkPolicy.
fn ordered_object(random: &mut Random, number: usize) -> Value {
    let subject = [
        json!({"namespaces": {}}),
        json!({"namespaces": {"matchLabels": {"team": "1"}}}),
        json!({"pods": {"podSelector": {"matchLabels": {"app": random.pick(&["a", "b"])}}}}),
    ][random.below(3)]
    .clone();
    let tier = random.pick(&["Admin", "Baseline"]);
    let mut spec = json!({"tier": tier, "priority": random.below(3), "subject": subject});
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        if random.chance(70) {
            spec[field] = random.list(1, 5, |random| ordered_rule(random, peers)).into();
        }
    }
    json!({"kind": "ClusterNetworkPolicy", "metadata": {"name": format!("p{number}")}, "spec": spec})
}

fn ordered_rule(random: &mut Random, peers: &str) -> Value {
    let kinds = if peers == "to" { 6 } else { 4 };
    let list = random.list(1, 4, |random| match random.below(kinds) {
        0 => json!({"namespaces": {}}),
        1 => json!({"namespaces": {"matchLabels": {"team": random.pick(&["1", "2"])}}}),
        2 | 3 => json!({"pods": {"podSelector": {"matchLabels": {"app": random.pick(&["a", "b", "c"])}}}}),
        4 => json!({"networks": random.list(1, 4, |random| random.pick(&PREFIXES))}),
        _ => json!({"nodes": {}}),
    });
    let mut rule = json!({"action": random.pick(&["Accept", "Deny", "Pass"])});
    rule[peers] = list.into();
    if random.chance(60) {
        rule["protocols"] = random.list(1, 4, ordered_protocol).into();
    }
    rule
}

fn ordered_protocol(random: &mut Random) -> Value {
    let (one, other) = (random.pick(&PORTS), random.pick(&PORTS));
    let destination = match random.below(4) {
        0 => json!({}),
        1 => json!({"destinationPort": {"range": {"start": one.min(other), "end": one.max(other)}}}),
        _ => json!({"destinationPort": {"number": one}}),
    };
    let mut protocol = json!({});
    protocol[random.pick(&["tcp", "udp", "sctp"])] = destination;
    protocol
}

fn rule(random: &mut Random) -> Value {
    let mut rule = json!({"endpointSelector": subject(random)});
    for (field, percent, peers) in
        [("ingress", 50, &FROM), ("egress", 50, &TO), ("ingressDeny", 25, &FROM), ("egressDeny", 25, &TO)]
    {
        if random.chance(percent) {
            rule[field] = random.list(0, 4, |random| entry(random, peers)).into();
        }
    }
    if random.chance(25) {
        rule["enableDefaultDeny"] = json!({"ingress": random.chance(50), "egress": random.chance(50)});
    }
    rule
}

/// Names of lists of peers: endpoints, entities, prefixes, sets of prefixes.
const FROM: [&str; 4] = ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"];
const TO: [&str; 4] = ["toEndpoints", "toEntities", "toCIDR", "toCIDRSet"];

fn entry(random: &mut Random, names: &[&str; 4]) -> Value {
    let mut entry = json!({});
    if random.chance(80) {
        let (kind, least) = (random.below(4), usize::from(random.chance(90)));
        let list = random.list(least, 4, |random| match kind {
            0 => selector(random),
            1 => random.pick(&ENTITIES).into(),
            2 => random.pick(&PREFIXES).into(),
            _ => prefix_set(random),
        });
        entry[names[kind]] = list.into();
    }
    match random.below(10) {
        0..=4 => {
            entry["toPorts"] = random.list(1, 3, |random| json!({"ports": random.list(0, 5, port)})).into();
        }
        5..=6 => {
            entry["icmps"] = random.list(1, 3, |random| json!({"fields": random.list(0, 3, message)})).into();
        }
        _ => {}
    }
    entry
}

const ENTITIES: [&str; 10] = [
    "all",
    "world",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "health",
    "ingress",
    "init",
    "unmanaged",
];

fn subject(random: &mut Random) -> Value {
    match random.below(5) {
        0 => json!({}),
        1 => json!({"matchLabels": {"app": "a"}}),
        2 => json!({"matchLabels": {"app": "b"}}),
        3 => json!({"matchLabels": {"org": "x"}}),
        _ => selector(random),
    }
}

const NAMES: [(&str, &str); 9] = [
    ("app", "a"),
    ("app", "b"),
    ("k8s:app", "c"),
    ("org", "x"),
    ("any:org", "y"),
    ("io.kubernetes.pod.namespace", "red"),
    ("k8s:io.kubernetes.pod.namespace", "blue"),
    ("k8s:io.cilium.k8s.namespace.labels.team", "1"),
    ("reserved:remote-node", ""),
];

fn selector(random: &mut Random) -> Value {
    let mut selector = json!({"matchLabels": {}});
    if random.chance(60) {
        let (name, value) = random.pick(&NAMES);
        selector["matchLabels"][name] = value.into();
    }
    if random.chance(35) {
        selector["matchExpressions"] = random.list(1, 3, expression).into();
    }
    selector
}

fn expression(random: &mut Random) -> Value {
    let (key, value) = random.pick(&NAMES);
    match random.below(4) {
        0 => json!({"key": key, "operator": "In", "values": [value, random.pick(&["a", "b", "blue"])]}),
        1 => json!({"key": key, "operator": "NotIn", "values": [value]}),
        2 => json!({"key": key, "operator": "Exists"}),
        _ => json!({"key": key, "operator": "DoesNotExist"}),
    }
}

/// A prefix without some that lie in it.
fn prefix_set(random: &mut Random) -> Value {
    let text = random.pick(&PREFIXES);
    let outer = world::prefix(text);
    let inside: Vec<&str> =
        PREFIXES.into_iter().filter(|it| outer.contains(&world::prefix(it)) && *it != text).collect();
    let except =
        if inside.is_empty() { Vec::new() } else { random.list(0, 3, |random| random.pick(&inside)) };
    json!({"cidr": text, "except": except})
}

fn port(random: &mut Random) -> Value {
    let first = if random.chance(90) { random.pick(&PORTS) } else { random.next() as u16 };
    let mut port = json!({"port": first.to_string()});
    if random.chance(30) {
        let end = if random.chance(70) { random.pick(&PORTS) } else { random.next() as u16 };
        port["endPort"] = end.max(first).into();
    }
    if random.chance(80) {
        port["protocol"] = random.pick(&["TCP", "UDP", "SCTP", "ANY"]).into();
    }
    port
}

fn message(random: &mut Random) -> Value {
    let (family, types) = random.pick(&[("IPv4", [0, 8, 13, 14]), ("IPv6", [128, 129, 139, 160])]);
    json!({"family": family, "type": random.pick(&types)})
}

/// Compiled policies as no operator makes them: any entries in any order, of which many say the same in part.
pub(super) fn from_entries(random: &mut Random) -> Set {
    let policies = HERE.map(|number| {
        let (ingress, egress) = (direction(random), direction(random));
        let numbers: Vec<u32> = [0, 0].into_iter().chain(world::numbers()).collect();
        let dns = random.list(2, 12, |random| DnsRule {
            peer: random.pick(&numbers),
            protocol: random.pick(&[6, 17]),
            port: random.pick(&PORTS),
            patterns: vec!["*".to_owned()],
            origins: Vec::new(),
        });
        let heard = random.list(0, 3, |random| {
            let port = random.pick(&PORTS);
            let (peer, protocol) = (random.pick(&numbers), random.pick(&[6, 17]));
            Entry { peer, protocol, first: port, last: port, origins: Vec::new() }
        });
        (number, Policy { ingress, egress, dns, heard, ..Policy::default() })
    });
    let prefixes = random.list(0, 3, |random| world::prefix(random.pick(&PREFIXES)));
    let prefixes = prefixes.into_iter().filter(|prefix| prefix.prefix_len() > 0).collect::<BTreeSet<_>>();
    let source = policies.iter().map(|(_, policy)| serde_json::to_value(policy).unwrap()).collect();
    Set { policies: policies.into(), prefixes: world::number_prefixes(prefixes), source }
}

fn direction(random: &mut Random) -> Direction {
    let numbers = world::numbers();
    let enforced = random.chance(60);
    let deny = random.list(0, 4, |random| any_entry(random, &numbers));
    let (admin, baseline) = (steps(random, &numbers), steps(random, &numbers));
    if !enforced && baseline.is_empty() {
        return Direction { admin, deny, ..Direction::default() };
    }
    // Blocks are of policies that close the direction, and then nothing is asked behind them.
    let most = if baseline.is_empty() { 5 } else { 1 };
    let mut blocks = random.list(0, most, |random| world::prefix(random.pick(&PREFIXES)));
    blocks.sort_unstable();
    blocks.dedup();
    let by_address = (FIRST_BLOCK..).take(blocks.len());
    let numbers: Vec<u32> = numbers.into_iter().chain(by_address).collect();
    let allow = random.list(0, 8, |random| any_entry(random, &numbers));
    Direction { enforced, admin, allow, blocks, deny, baseline, ..Direction::default() }
}

/// Rules in an order; often none.
fn steps(random: &mut Random, numbers: &[u32]) -> Vec<Step> {
    let most = if random.chance(50) { 1 } else { 6 };
    random.list(0, most, |random| Step {
        action: random.pick(&[Action::Accept, Action::Deny, Action::Pass]),
        entries: random.list(0, 4, |random| any_entry(random, numbers)),
        names: Vec::new(),
    })
}

fn any_entry(random: &mut Random, numbers: &[u32]) -> Entry {
    let (peer, protocol) = (random.pick(numbers), random.pick(&[0, 1, 6, 17, 58, 132]));
    let (one, other) = (random.pick(&PORTS), random.pick(&PORTS));
    let (first, last) = match protocol {
        0 => (0, 0),
        _ if random.chance(25) => (0, 0),
        1 => random.pick(&[(8, 8), (13, 14), (1, 40)]),
        58 => random.pick(&[(128, 128), (129, 139), (64, 255)]),
        _ => (one.min(other), one.max(other)),
    };
    Entry { peer, protocol, first, last, origins: Vec::new() }
}
