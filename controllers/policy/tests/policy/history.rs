//! Properties over random policies, identities and histories of both.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::cluster_network_policy::ClusterNetworkPolicySpec;
use cilium_api::egress::{EgressDenyRule, EgressPeers, EgressRule};
use cilium_api::icmp::{IcmpFamily, IcmpField, IcmpRule, IcmpType};
use cilium_api::ingress::{IngressDenyRule, IngressPeers, IngressRule};
use cilium_api::kubernetes_network_policy::{NetworkPolicy, NetworkPolicySpec};
use cilium_api::parts::{Entry, FIRST_BLOCK, Policy};
use cilium_api::peer::{CidrRule, Entity};
use cilium_api::port::{PortDenyRule, PortProtocol, PortRule};
use cilium_api::rule::{DefaultDeny, Rule};
use cilium_api::selector::{EndpointSelector, MatchExpression};
use cilium_core::{Families, Labels, reserved};
use cilium_policy::{
    Change, Config, Decision, Flow, Host, Judgement, Mode, Place, PolicyIndex, PolicyKey, PolicyRules, Side,
    Span, changes, reduce, verdict,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::clusternetpols::{self, mk_clusternetpol};
use crate::netpols::{self, mk_netpol};
use crate::reference::{World, Written};
use crate::support::{CLUSTER, mk_ccnp, mk_cnp};

/// Numbers that identities of these tests may have: endpoints, one of them of another cluster, an API server outside, and a node.
const NUMBERS: [u32; 9] = [256, 257, 258, 259, 300, 65535, 65536 + 300, 1 << 24, 2 << 24];
/// Numbers that prefixes outside may have.
const OUTSIDE: [u32; 4] = [(1 << 24) + 1, (1 << 24) + 2, (1 << 24) + 3, (1 << 24) + 4];
/// Prefixes that lie in each other.
const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "192.0.2.0/25",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
];
const POLICIES: [&str; 5] = ["cnp/red/a", "cnp/red/b", "cnp/blue/a", "ccnp/a", "ccnp/b"];
const NETPOLS: [&str; 3] = ["netpol/red/a", "netpol/red/b", "netpol/blue/a"];
const CLUSTERNETPOLS: [&str; 3] = ["clusternetpol/a", "clusternetpol/b", "clusternetpol/c"];

fn plain_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let namespace = option::weighted(0.9, select(vec!["red", "blue"]));
    let cluster = option::weighted(0.9, select(vec![CLUSTER, CLUSTER, "other"]));
    let own = (option::of(select(vec!["x", "y"])), option::of(select(vec!["x", "z"])));
    let ports = select(vec!["web.TCP.80", "web.TCP.81_web.UDP.90", "dns.UDP.80_web.TCP.90", "dns.SCTP.80"]);
    let rare = (
        option::weighted(0.2, Just("")),
        option::weighted(0.1, Just("")),
        option::weighted(0.1, Just("x")),
        option::of(ports),
        option::weighted(0.2, Just("kube-dns")),
    );
    (namespace, cluster, own, option::of(Just("1")), rare).prop_map(
        |(namespace, cluster, (app, org), team, (api_server, init, node, ports, dns))| {
            let labels = [
                ("k8s:io.kubernetes.pod.namespace", namespace),
                ("k8s:io.cilium.k8s.policy.cluster", cluster),
                ("k8s:app", app),
                ("k8s:org", org),
                ("k8s:io.cilium.k8s.namespace.labels.team", team),
                ("reserved:kube-apiserver", api_server),
                ("reserved:init", init),
                ("node:app", node),
                ("gen:io.cilium.k8s.named-ports", ports),
                ("k8s:k8s-app", dns),
            ];
            labels.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect()
        },
    )
}

/// Names that selectors ask for, with values that occur.
fn name_and_value() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(vec![
        ("app", "x"),
        ("app", "y"),
        ("k8s:app", "x"),
        ("any:org", "z"),
        ("org", "x"),
        ("io.kubernetes.pod.namespace", "red"),
        ("k8s:io.kubernetes.pod.namespace", "blue"),
        ("k8s:io.cilium.k8s.namespace.labels.team", "1"),
        ("io.cilium.k8s.policy.cluster", "other"),
        ("reserved:kube-apiserver", ""),
        ("reserved:init", ""),
        ("reserved:remote-node", ""),
        ("node:app", "x"),
    ])
}

fn expression() -> impl Strategy<Value = MatchExpression> {
    let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    (name_and_value(), option::of(select(vec!["x", "y", "red"])), operator).prop_map(
        |((key, value), more, operator)| {
            let values = [Some(value), more].into_iter().flatten().map(String::from).collect();
            let values = matches!(operator, "In" | "NotIn").then_some(values);
            MatchExpression { key: key.into(), operator: operator.into(), values }
        },
    )
}

fn selector() -> impl Strategy<Value = EndpointSelector> {
    let labels = proptest::collection::vec(name_and_value(), 0..2);
    let expressions = proptest::collection::vec(expression(), 0..2);
    (labels, option::weighted(0.4, expressions)).prop_map(|(labels, expressions)| EndpointSelector {
        match_labels: Some(labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()),
        match_expressions: expressions,
    })
}

fn port() -> impl Strategy<Value = PortProtocol> {
    let range = select(vec![
        ("0", None),
        ("80", None),
        ("80", Some(90)),
        ("81", Some(80)),
        ("0", Some(90)),
        ("web", None),
        ("DNS", None),
    ]);
    let protocol = option::of(select(vec!["TCP", "UDP", "SCTP", "ANY"]));
    (range, protocol).prop_map(|((port, end_port), protocol)| PortProtocol {
        port: Some(port.into()),
        end_port,
        protocol: protocol.map(Into::into),
    })
}

fn to_ports() -> impl Strategy<Value = Option<Vec<PortRule>>> {
    let item = option::of(proptest::collection::vec(port(), 0..3));
    let item = item.prop_map(|ports| PortRule { ports, ..PortRule::default() });
    option::of(proptest::collection::vec(item, 0..3))
}

fn icmps() -> impl Strategy<Value = Option<Vec<IcmpRule>>> {
    let family = option::of(select(vec![IcmpFamily::Ipv4, IcmpFamily::Ipv6]));
    let field = (family, select(vec![0, 8, 128]));
    let field = field.prop_map(|(family, number)| IcmpField { family, type_: IcmpType::Number(number) });
    let fields = option::weighted(0.9, proptest::collection::vec(field, 0..3));
    option::of(proptest::collection::vec(fields.prop_map(|fields| IcmpRule { fields }), 0..3))
}

/// Ports or ICMP messages; not both.
fn l4() -> impl Strategy<Value = (Option<Vec<PortRule>>, Option<Vec<IcmpRule>>)> {
    prop_oneof![2 => (to_ports(), Just(None)), 1 => (Just(None), icmps())]
}

fn outside_labels(families: Families) -> impl Strategy<Value = BTreeMap<String, String>> {
    let inside = PREFIXES.into_iter().filter(|text| !text.ends_with("/0")).collect::<Vec<_>>();
    (select(inside), any::<bool>()).prop_map(move |(text, grouped)| {
        let labels = cilium_core::prefix::labels(families, text.parse().unwrap());
        let group = grouped.then(|| cilium_core::prefix::group_label("g"));
        labels.iter().cloned().chain(group).collect::<Labels>().to_security_labels()
    })
}

fn cidr_rule() -> impl Strategy<Value = CidrRule> {
    let except = option::of(proptest::collection::vec(select(&PREFIXES[..]), 0..3));
    (select(&PREFIXES[..]), except).prop_map(|(cidr, except)| {
        let outer: ipnet::IpNet = cidr.parse().unwrap();
        let lies_inside = |text: &&str| outer.contains(&text.parse::<ipnet::IpNet>().unwrap());
        let except = except.map(|all| all.into_iter().filter(lies_inside).map(str::to_owned).collect());
        CidrRule { cidr: Some(cidr.to_owned()), except, ..CidrRule::default() }
    })
}

/// What is in a group; what is left out need not be.
fn group_rule() -> impl Strategy<Value = CidrRule> {
    let except = option::of(proptest::collection::vec(select(&PREFIXES[..]).prop_map(str::to_owned), 0..2));
    except.prop_map(|except| CidrRule { cidr_group_ref: Some("g".into()), except, ..CidrRule::default() })
}

/// Which lists an entry has. Not more than one has items.
#[derive(Clone, Debug)]
struct Lists {
    endpoints: Option<Vec<EndpointSelector>>,
    entities: Option<Vec<Entity>>,
    cidr: Option<Vec<String>>,
    cidr_set: Option<Vec<CidrRule>>,
    nodes: Option<Vec<EndpointSelector>>,
    groups: bool,
}

fn lists() -> impl Strategy<Value = Lists> {
    let entities = proptest::collection::vec(select(Entity::KNOWN).prop_map(Entity::from), 1..3);
    let endpoints = proptest::collection::vec(selector(), 1..3);
    let cidrs = proptest::collection::vec(select(&PREFIXES[..]).prop_map(str::to_owned), 1..3);
    let cidr_sets = proptest::collection::vec(prop_oneof![2 => cidr_rule(), 1 => group_rule()], 1..3);
    let nodes = proptest::collection::vec(selector(), 1..3);
    let none =
        || Lists { endpoints: None, entities: None, cidr: None, cidr_set: None, nodes: None, groups: false };
    let full = prop_oneof![
        3 => endpoints.prop_map(move |list| Lists { endpoints: Some(list), ..none() }),
        2 => entities.prop_map(move |list| Lists { entities: Some(list), ..none() }),
        1 => cidrs.prop_map(move |list| Lists { cidr: Some(list), ..none() }),
        2 => cidr_sets.prop_map(move |list| Lists { cidr_set: Some(list), ..none() }),
        1 => nodes.prop_map(move |list| Lists { nodes: Some(list), ..none() }),
        2 => Just(none()),
    ];
    let empty = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    (full, option::weighted(0.3, empty)).prop_map(|(full, empty)| {
        let (no_endpoint, no_entity, no_cidr, groups) = empty.unwrap_or_default();
        Lists {
            endpoints: full.endpoints.or(no_endpoint.then(Vec::new)),
            entities: full.entities.or(no_entity.then(Vec::new)),
            cidr: full.cidr.or(no_cidr.then(Vec::new)),
            cidr_set: full.cidr_set,
            nodes: full.nodes,
            groups,
        }
    })
}

impl Lists {
    fn ingress(self) -> IngressPeers {
        IngressPeers {
            from_endpoints: self.endpoints,
            from_entities: self.entities,
            from_cidr: self.cidr,
            from_cidr_set: self.cidr_set,
            from_nodes: self.nodes,
            from_groups: self.groups.then(Vec::new),
            ..IngressPeers::default()
        }
    }

    fn egress(self) -> EgressPeers {
        EgressPeers {
            to_endpoints: self.endpoints,
            to_entities: self.entities,
            to_cidr: self.cidr,
            to_cidr_set: self.cidr_set,
            to_nodes: self.nodes,
            to_services: self.groups.then(Vec::new),
            ..EgressPeers::default()
        }
    }
}

fn denied(to_ports: Option<Vec<PortRule>>) -> Option<Vec<PortDenyRule>> {
    Some(to_ports?.into_iter().map(|item| PortDenyRule { ports: item.ports }).collect())
}

fn ingress() -> impl Strategy<Value = IngressRule> {
    (lists(), l4()).prop_map(|(lists, (to_ports, icmps))| IngressRule {
        peers: lists.ingress(),
        to_ports,
        icmps,
        ..IngressRule::default()
    })
}

fn ingress_deny() -> impl Strategy<Value = IngressDenyRule> {
    (lists(), l4()).prop_map(|(lists, (to_ports, icmps))| IngressDenyRule {
        peers: lists.ingress(),
        to_ports: denied(to_ports),
        icmps,
    })
}

fn egress() -> impl Strategy<Value = EgressRule> {
    (lists(), l4()).prop_map(|(lists, (to_ports, icmps))| EgressRule {
        to_fqdns: lists.groups.then(Vec::new),
        peers: lists.egress(),
        to_ports,
        icmps,
        ..EgressRule::default()
    })
}

fn egress_deny() -> impl Strategy<Value = EgressDenyRule> {
    (lists(), l4()).prop_map(|(lists, (to_ports, icmps))| EgressDenyRule {
        peers: lists.egress(),
        to_ports: denied(to_ports),
        icmps,
    })
}

/// A section that is absent, empty, or has entries.
fn section<T: std::fmt::Debug>(
    presence: f64,
    entry: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Vec<T>>> {
    option::weighted(presence, proptest::collection::vec(entry, 0..3))
}

fn rule() -> impl Strategy<Value = Rule> {
    let default_deny = (option::of(any::<bool>()), option::of(any::<bool>()));
    let default_deny = default_deny.prop_map(|(ingress, egress)| DefaultDeny { ingress, egress });
    let ingress = (section(0.5, ingress()), section(0.3, ingress_deny()));
    let egress = (section(0.5, egress()), section(0.3, egress_deny()));
    (selector(), ingress, egress, option::weighted(0.3, default_deny)).prop_map(
        |(selector, (ingress, ingress_deny), (egress, egress_deny), enable_default_deny)| Rule {
            endpoint_selector: Some(selector),
            ingress,
            ingress_deny,
            egress,
            egress_deny,
            enable_default_deny,
            ..Rule::default()
        },
    )
}

/// One change.
#[derive(Clone, Debug)]
enum Step {
    Policy(&'static str, Option<Vec<Rule>>),
    NetworkPolicy(&'static str, Option<NetworkPolicySpec>),
    ClusterNetworkPolicy(&'static str, Option<ClusterNetworkPolicySpec>),
    Identity(u32, Option<BTreeMap<String, String>>),
    Mode(Mode),
}

fn step() -> impl Strategy<Value = Step> {
    let rules = option::weighted(0.8, proptest::collection::vec(rule(), 1..3));
    let mode = select(vec![Mode::Default, Mode::Default, Mode::Default, Mode::Always, Mode::Never]);
    prop_oneof![
        6 => (select(&POLICIES[..]), rules).prop_map(|(key, rules)| Step::Policy(key, rules)),
        3 => (select(&NETPOLS[..]), option::weighted(0.8, netpols::spec())).prop_map(|(key, spec)| Step::NetworkPolicy(key, spec)),
        4 => (select(&CLUSTERNETPOLS[..]), option::weighted(0.8, clusternetpols::spec()))
            .prop_map(|(key, spec)| Step::ClusterNetworkPolicy(key, spec)),
        3 => (select(&OUTSIDE[..]), option::weighted(0.8, outside_labels(Families::Dual)))
            .prop_map(|(n, l)| Step::Identity(n, l)),
        6 => (select(&NUMBERS[..]), option::weighted(0.8, plain_labels())).prop_map(|(n, l)| Step::Identity(n, l)),
        1 => mode.prop_map(Step::Mode),
    ]
}

/// Labels that all identities of a range have: aggregates stand on that.
fn settled(number: u32, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let cluster = "k8s:io.cilium.k8s.policy.cluster";
    match reserved::aggregate_of(number) {
        reserved::AGGREGATE_CLUSTER => {
            labels.insert(cluster.into(), CLUSTER.into());
            labels.entry("k8s:io.kubernetes.pod.namespace".into()).or_insert("red".into());
        }
        reserved::AGGREGATE_REMOTE_NODE => _ = labels.insert("reserved:remote-node".into(), String::new()),
        reserved::AGGREGATE_WORLD if !labels.keys().any(|name| name.starts_with("reserved:world")) => {
            labels.insert("reserved:world".into(), String::new());
        }
        _ => {}
    }
    labels
}

fn key_of(text: &str) -> PolicyKey {
    match text.split('/').collect::<Vec<_>>()[..] {
        ["netpol", namespace, name] => PolicyKey::netpol(namespace, name),
        ["cnp", namespace, name] => PolicyKey::cnp(namespace, name),
        ["clusternetpol", name] => PolicyKey::clusternetpol(name),
        [_, name] => PolicyKey::ccnp(name),
        _ => unreachable!("keys of these tests have two or three parts"),
    }
}

fn written(key: &str, rules: Vec<Rule>) -> Written {
    let namespace =
        key.strip_prefix("cnp/").and_then(|rest| rest.split_once('/')).map(|(namespace, _)| namespace.into());
    Written { namespace, rules }
}

fn reduced(policy: &Written) -> Option<PolicyRules> {
    let settings = reduce::Settings { node_selector_labels: true, ..CLUSTER.into() };
    match &policy.namespace {
        Some(namespace) => reduce::cnp(&mk_cnp(namespace, policy.rules.clone()), settings).ok(),
        None => reduce::ccnp(&mk_ccnp(policy.rules.clone()), settings).ok(),
    }
}

fn understood(policy: &NetworkPolicy) -> PolicyRules {
    let (rules, notes) = reduce::netpol(policy, CLUSTER);
    assert_eq!(notes, []);
    rules
}

fn ordered(key: &str, spec: &ClusterNetworkPolicySpec) -> PolicyRules {
    let settings = reduce::Settings { node_selector_labels: true, ..CLUSTER.into() };
    reduce::clusternetpol(&mk_clusternetpol(key, spec.clone()), settings).0
}

fn labels_of(plain: &BTreeMap<String, String>) -> Labels {
    Labels::from_security_labels(plain).unwrap()
}

fn new_world(families: Families) -> World {
    let reserved = reserved::all(families).into_iter();
    World {
        cluster: CLUSTER.into(),
        only_family: match families {
            Families::Ipv4 => Some('4'),
            Families::Ipv6 => Some('6'),
            Families::Dual => None,
        },
        identities: reserved.map(|(number, labels)| (number, labels.to_security_labels())).collect(),
        ..World::default()
    }
}

/// Takes a step in both. A policy that is refused changes nothing in either.
fn take(index: &mut PolicyIndex, world: &mut World, step: &Step) {
    match step.clone() {
        Step::Policy(key, None) => {
            index.set_policy(&key_of(key), None);
            world.policies.remove(key);
        }
        Step::Policy(key, Some(rules)) => {
            let policy = written(key, rules);
            if let Some(rules) = reduced(&policy) {
                index.set_policy(&key_of(key), Some(rules));
                world.policies.insert(key.into(), policy);
            }
        }
        Step::NetworkPolicy(key, None) => {
            index.set_policy(&key_of(key), None);
            world.netpols.remove(key);
        }
        Step::NetworkPolicy(key, Some(spec)) => {
            let namespace = key.split('/').nth(1).unwrap();
            let policy = mk_netpol(namespace, spec);
            index.set_policy(&key_of(key), Some(understood(&policy)));
            world.netpols.insert(key.into(), policy);
        }
        Step::ClusterNetworkPolicy(key, None) => {
            index.set_policy(&key_of(key), None);
            world.clusternetpols.remove(key);
        }
        Step::ClusterNetworkPolicy(key, Some(spec)) => {
            index.set_policy(&key_of(key), Some(ordered(key, &spec)));
            world.clusternetpols.insert(key.into(), spec);
        }
        Step::Identity(number, labels) => {
            let labels = labels.map(|labels| settled(number, labels));
            index.set_identity(number, labels.as_ref().map(labels_of));
            match labels {
                Some(labels) => _ = world.identities.insert(number, labels),
                None => _ = world.identities.remove(&number),
            }
        }
        Step::Mode(mode) => {
            index.set_mode(mode);
            world.mode = mode;
        }
    }
}

/// An index made of what there is, forwards or backwards, policies first or identities first.
fn fresh(world: &World, families: Families, backwards: bool) -> PolicyIndex {
    let mut index = PolicyIndex::new(Config { families, mode: world.mode });
    let mut policies: Vec<_> = world.policies.iter().collect();
    let mut identities: Vec<_> = world.identities.iter().collect();
    if backwards {
        policies.reverse();
        identities.reverse();
    }
    let set_policies = |index: &mut PolicyIndex| {
        for (key, policy) in &policies {
            index.set_policy(&key_of(key), reduced(policy));
        }
        for (key, policy) in &world.netpols {
            index.set_policy(&key_of(key), Some(understood(policy)));
        }
        for (key, spec) in &world.clusternetpols {
            index.set_policy(&key_of(key), Some(ordered(key, spec)));
        }
    };
    if backwards {
        set_policies(&mut index);
    }
    for (number, labels) in identities {
        index.set_identity(*number, Some(labels_of(labels)));
    }
    if !backwards {
        set_policies(&mut index);
    }
    index
}

fn endpoints() -> Vec<u32> {
    [4, 5, 8].into_iter().chain(NUMBERS).filter(|number| reserved::is_endpoint(*number)).collect()
}

type Compiled = BTreeMap<u32, [Option<Policy>; 2]>;

fn compile(index: &PolicyIndex, number: u32) -> [Option<Policy>; 2] {
    [Host::Plain, Host::ApiServer].map(|host| index.compile(number, host))
}

/// Compiles what is affected, and drops what is gone.
fn catch_up(held: &mut Compiled, index: &mut PolicyIndex, world: &World) {
    for number in index.take_affected() {
        if world.identities.contains_key(&number) {
            held.insert(number, compile(index, number));
        } else {
            held.remove(&number);
        }
    }
}

fn bytes(compiled: &Compiled) -> String {
    serde_json::to_string(compiled).unwrap()
}

/// All answers of the index beside compiled policies.
fn selections(index: &PolicyIndex) -> Vec<BTreeSet<u32>> {
    POLICIES.iter().chain(&NETPOLS).chain(&CLUSTERNETPOLS).map(|key| index.selected(&key_of(key))).collect()
}

fn check_invariants(policy: &Policy) {
    for direction in [&policy.ingress, &policy.egress] {
        assert!(direction.enforced || !direction.baseline.is_empty() || direction.allow.is_empty());
        assert!(direction.blocks.is_empty() || direction.baseline.is_empty());
        assert!(direction.closed_by.is_empty() || direction.baseline.is_empty());
        assert!(direction.blocks.windows(2).all(|pair| pair[0] < pair[1]), "sorted");
        let is_block = |entry: &Entry| entry.peer >= FIRST_BLOCK;
        assert!(
            direction
                .allow
                .iter()
                .filter(|entry| is_block(entry))
                .all(|entry| (entry.peer - FIRST_BLOCK) < direction.blocks.len() as u32)
        );
        assert!(!direction.deny.iter().any(is_block));
        let steps: Vec<&Vec<Entry>> = direction.steps().map(|step| &step.entries).collect();
        assert!(!steps.iter().any(|list| list.iter().any(is_block)));
        for list in [&direction.allow, &direction.deny].into_iter().chain(steps) {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "sorted");
            let names: Vec<_> = list.iter().map(|a| (a.peer, a.protocol, a.first, a.last)).collect();
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "one entry for each peer and ports");
            let implied = |a: &Entry| a.peer == reserved::HOST && a.origins.is_empty();
            assert!(list.iter().all(|a| (!a.origins.is_empty() || implied(a)) && a.origins.is_sorted()));
            assert!(list.iter().all(|a| a.first <= a.last && (a.protocol != 0 || a.last == 0)));
        }
    }
    assert!(policy.origins.is_sorted());
}

proptest! {
    #[test]
    fn incremental_equals_from_scratch(
        steps in proptest::collection::vec(step(), 1..40),
        families in select(vec![Families::Ipv4, Families::Dual]),
    ) {
        let mut index = PolicyIndex::new(Config { families, mode: Mode::Default });
        let mut world = new_world(families);
        // What a consumer holds that compiles nothing but what it is told to.
        let mut held = Compiled::new();
        for number in [4, 5, 8] {
            held.insert(number, compile(&index, number));
        }
        for (count, step) in steps.iter().enumerate() {
            take(&mut index, &mut world, step);
            // A consumer does not ask after every change.
            if count % 3 == 0 || count + 1 == steps.len() {
                catch_up(&mut held, &mut index, &world);
                let fresh = fresh(&world, families, count % 2 == 0);
                let known = endpoints().into_iter().filter(|number| world.identities.contains_key(number));
                let expected: Compiled = known.map(|number| (number, compile(&fresh, number))).collect();
                prop_assert_eq!(bytes(&held), bytes(&expected));
                prop_assert_eq!(selections(&index), selections(&fresh));
            }
        }
        held.values().flatten().flatten().for_each(check_invariants);
    }

    #[test]
    fn compiled_policies_mean_what_the_rules_say(
        steps in proptest::collection::vec(step(), 1..16),
        flows in proptest::collection::vec(flow(), 1..40),
        families in select(vec![Families::Ipv6, Families::Dual]),
    ) {
        let mut index = PolicyIndex::new(Config { families, mode: Mode::Default });
        let mut world = new_world(families);
        steps.iter().for_each(|step| take(&mut index, &mut world, step));
        let known: BTreeSet<u32> = world.identities.keys().copied().collect();
        for host in [Host::Plain, Host::ApiServer] {
            if host == Host::ApiServer {
                world.identities.insert(1, reserved::api_server_host_labels().to_security_labels());
            }
            let policies: BTreeMap<u32, Policy> = endpoints()
                .into_iter()
                .filter(|number| known.contains(number))
                .filter_map(|number| Some((number, index.compile(number, host)?)))
                .collect();
            for flow in flows.iter().filter(|flow| known.contains(&flow.source) && known.contains(&flow.destination)) {
                let verdict = verdict(&policies, flow);
                check_side(&world, Side::Egress, flow, &verdict.egress);
                check_side(&world, Side::Ingress, flow, &verdict.ingress);
                check_reason(&index.explain(Side::Egress, flow, host), &verdict.egress);
                check_reason(&index.explain(Side::Ingress, flow, host), &verdict.ingress);
            }
        }
    }
}

proptest! {
    #[test]
    fn changes_are_what_flows_see(
        steps in proptest::collection::vec(step(), 1..24),
        flows in proptest::collection::vec(flow(), 1..40),
    ) {
        let mut index = PolicyIndex::new(Config { families: Families::Dual, mode: Mode::Default });
        let mut world = new_world(Families::Dual);
        let (first, then) = steps.split_at(steps.len() / 2);
        first.iter().for_each(|step| take(&mut index, &mut world, step));
        let before = index.clone();
        then.iter().for_each(|step| take(&mut index, &mut world, step));
        for flow in &flows {
            for (side, subject, peer) in
                [(Side::Egress, flow.source, flow.destination), (Side::Ingress, flow.destination, flow.source)]
            {
                let old = before.compile(subject, Host::Plain);
                let new = index.compile(subject, Host::Plain);
                let address = flow.addresses.map(|(from, to)| if side == Side::Egress { to } else { from });
                let found = changes(old.as_ref(), new.as_ref(), side, (peer, peer), address);
                check_changes(&found, flow, passes_on(side, old, subject, flow), passes_on(side, new, subject, flow));
            }
        }
    }
}

/// Whether one side lets a flow pass.
fn passes_on(side: Side, policy: Option<Policy>, subject: u32, flow: &Flow) -> bool {
    let policies: BTreeMap<u32, Policy> = policy.map(|policy| (subject, policy)).into_iter().collect();
    let verdict = verdict(&policies, flow);
    match side {
        Side::Egress => !verdict.egress.drops(),
        Side::Ingress => !verdict.ingress.drops(),
    }
}

fn check_changes(found: &[Change], flow: &Flow, was: bool, is: bool) {
    // No entry of these tests is about a protocol like GRE.
    let protocol = if flow.protocol == 47 { Span::OTHER } else { flow.protocol };
    let covers = |change: &&Change| {
        let Span { protocol: of, ports } = change.span;
        of.is_none_or(|of| of == protocol)
            && ports.is_none_or(|(first, last)| (first..=last).contains(&flow.destination_port))
    };
    let covering: Vec<&Change> = found.iter().filter(covers).collect();
    assert!(covering.len() <= 1 && found.is_sorted(), "{found:?}");
    assert_eq!(
        covering.first().map(|change| change.allowed),
        (was != is).then_some(is),
        "{flow:?} {found:?}"
    );
}

fn flow() -> impl Strategy<Value = Flow> {
    let mut peers: Vec<u32> = (1..=10).chain(NUMBERS).collect();
    peers.extend(NUMBERS);
    peers.extend(OUTSIDE);
    let protocol = select(vec![(6u8, true), (17, true), (132, true), (1, false), (58, false), (47, false)]);
    let kind = select(vec![0u16, 8, 13, 128]);
    let addresses = option::weighted(0.9, netpols::addresses());
    let port = select(vec![79u16, 80, 81, 90, 91]);
    (select(peers.clone()), select(peers), protocol, port, kind, addresses).prop_map(
        |(source, destination, (protocol, has_ports), port, kind, addresses)| Flow {
            source,
            destination,
            protocol,
            destination_port: match protocol {
                1 | 58 => kind,
                _ if has_ports => port,
                _ => 0,
            },
            addresses,
        },
    )
}

fn check_side(world: &World, side: Side, flow: &Flow, found: &Judgement<'_>) {
    let answer = world.answer(side, flow);
    let names = |names: &'_ BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let by_rule = |decided: &Option<(bool, String)>| {
        let (accepts, key) = decided.clone()?;
        Some((if accepts { "granted" } else { "denied" }, key))
    };
    let is_last = answer.closed_by.is_empty();
    let expected = if let Some(decided) = by_rule(&answer.admin.decided) {
        decided
    } else if !answer.denied_by.is_empty() {
        ("denied", names(&answer.denied_by))
    } else if !(answer.restricted || is_last && answer.baseline.speaks) {
        ("not enforced", String::new())
    } else if !answer.granted_by.is_empty() {
        ("granted", names(&answer.granted_by))
    } else if let Some(decided) = by_rule(&answer.baseline.decided).filter(|_| is_last) {
        decided
    } else if !answer.restricted {
        ("not enforced", String::new())
    } else if side == Side::Ingress && flow.source == reserved::HOST && answer.spoken_of {
        ("local host", String::new())
    } else {
        ("default deny", names(&answer.closed_by))
    };
    let word = match found {
        Judgement::NotEnforced => "not enforced",
        Judgement::LocalHost => "local host",
        Judgement::Granted(_) => "granted",
        Judgement::Denied(_) => "denied",
        Judgement::DefaultDeny(_) => "default deny",
    };
    assert_eq!((word, found.origins().join(" ")), expected, "{side:?} of {flow:?}");
}

/// The reason is of the same decision, and names the same policies.
fn check_reason(reason: &Decision, judgement: &Judgement<'_>) {
    let named =
        |places: &[Place]| places.iter().map(|place| place.policy.to_string()).collect::<BTreeSet<_>>();
    let (found, policies) = match reason {
        Decision::NotEnforced => (Judgement::NotEnforced, BTreeSet::new()),
        Decision::LocalHost => (Judgement::LocalHost, BTreeSet::new()),
        Decision::Granted(places) => (Judgement::Granted(judgement.origins().to_vec()), named(places)),
        Decision::Denied(places) => (Judgement::Denied(judgement.origins().to_vec()), named(places)),
        Decision::DefaultDeny(reason) => {
            let keys = reason.closed_by.iter().map(ToString::to_string).collect();
            (Judgement::DefaultDeny(judgement.origins().to_vec()), keys)
        }
    };
    assert_eq!(found, *judgement);
    assert_eq!(policies.iter().map(String::as_str).collect::<Vec<_>>(), judgement.origins());
}
