//! What forms of a rule mean: lists that are absent or empty, ports, selectors, default deny, modes.

use std::collections::BTreeSet;

use cilium_core::{Families, Labels};
use cilium_policy::{Config, Host, Judgement, Mode, PolicyIndex, PolicyRules, Side};
use serde_json::{Value, json};

use crate::support::{
    CLUSTER, TCP, UDP, ingress_of, mk_index, mk_key, mk_labels, passes, reduce_clusterwide, reduce_spec,
};

/// The endpoint that policies of these tests select.
const SUBJECT: u32 = 300;
/// A pod of its namespace.
const NEAR: u32 = 301;
/// A pod of namespace `far`.
const FAR: u32 = 302;
const PORT_80: (u32, u8, u16, u16) = (0, TCP, 80, 80);

fn pods() -> PolicyIndex {
    mk_index(&[
        (SUBJECT, "default", &["app=web"]),
        (NEAR, "default", &["app=client"]),
        (FAR, "far", &["app=client"]),
    ])
}

fn index_with(rules: PolicyRules) -> PolicyIndex {
    let mut index = pods();
    index.set_policy(&mk_key("p"), Some(rules));
    index
}

fn spec(entry: Value) -> Value {
    json!({"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [entry]})
}

/// Ingress entries of the subject under one ingress entry of a policy in its namespace.
fn allowed(entry: Value) -> Vec<(u32, u8, u16, u16)> {
    ingress_of(&index_with(reduce_spec(spec(entry)).unwrap()), SUBJECT).unwrap()
}

/// Peers that are allowed on all ports.
fn peers(entry: Value) -> Vec<u32> {
    let entries = allowed(entry);
    assert!(
        entries.iter().all(|(_, protocol, first, last)| (*protocol, *first, *last) == (0, 0, 0)),
        "{entries:?}"
    );
    entries.into_iter().map(|(peer, ..)| peer).collect()
}

/// The same for a policy of the whole cluster.
fn clusterwide_peers(entry: Value) -> Vec<u32> {
    let index = index_with(reduce_clusterwide(spec(entry)).unwrap());
    ingress_of(&index, SUBJECT).unwrap().into_iter().map(|(peer, ..)| peer).collect()
}

#[test]
fn absent_and_empty_lists() {
    let on_80 = json!([{"ports": [{"port": "80", "protocol": "TCP"}]}]);
    for (entry, expected) in [
        (json!({}), vec![]),
        (json!({"toPorts": []}), vec![]),
        (json!({"toPorts": on_80}), vec![PORT_80]),
        (json!({"fromEndpoints": []}), vec![]),
        (json!({"fromEndpoints": [], "toPorts": on_80}), vec![]),
        (json!({"fromEntities": [], "toPorts": on_80}), vec![]),
        (json!({"fromCIDR": [], "toPorts": on_80}), vec![]),
        (json!({"fromCIDRSet": [], "toPorts": on_80}), vec![]),
        (json!({"fromNodes": [], "toPorts": on_80}), vec![]),
        (json!({"fromGroups": []}), vec![]),
        (json!({"fromGroups": [], "toPorts": on_80}), vec![]),
        (json!({"fromEndpoints": [], "fromEntities": ["health"], "toPorts": on_80}), vec![(4, TCP, 80, 80)]),
        (json!({"fromEntities": ["all"], "toPorts": []}), vec![(0, 0, 0, 0)]),
        (json!({"fromEntities": ["all"], "toPorts": [{}]}), vec![]),
        (json!({"fromEntities": ["all"], "icmps": [{}]}), vec![]),
        (json!({"toPorts": [{}, {"ports": [{"port": "80", "protocol": "TCP"}]}]}), vec![PORT_80]),
        (json!({"fromEntities": ["none"]}), vec![]),
    ] {
        assert_eq!(allowed(entry.clone()), expected, "{entry}");
    }
}

#[test]
fn absent_and_empty_lists_of_egress() {
    for (entry, expected) in [
        (json!({"toFQDNs": []}), vec![]),
        (
            json!({"toFQDNs": [], "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}]}),
            vec![(0, UDP, 53, 53)],
        ),
        (json!({"toServices": [], "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}]}), vec![]),
        (json!({"toGroups": [], "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}]}), vec![]),
        (json!({"toCIDR": [], "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}]}]}), vec![]),
    ] {
        let rules = reduce_spec(json!({"endpointSelector": {}, "egress": [entry]})).unwrap();
        let policy = index_with(rules).compile(SUBJECT, Host::Plain).unwrap();
        let found: Vec<_> =
            policy.egress.allow.iter().map(|a| (a.peer, a.protocol, a.first, a.last)).collect();
        assert_eq!(found, expected, "{entry}");
        assert!(policy.egress.enforced && !policy.ingress.enforced);
    }
}

#[test]
fn ports_and_protocols() {
    for (port, expected) in [
        (json!({"port": "80"}), vec![(6, 80, 80), (17, 80, 80), (132, 80, 80)]),
        (json!({"port": "0", "protocol": "ANY"}), vec![(6, 0, 0), (17, 0, 0), (132, 0, 0)]),
        (json!({"port": "0", "endPort": 100, "protocol": "TCP"}), vec![(6, 0, 0)]),
        (json!({"port": "80", "endPort": 90, "protocol": "UDP"}), vec![(17, 80, 90)]),
        (json!({"port": "80", "endPort": 80, "protocol": "UDP"}), vec![(17, 80, 80)]),
        (json!({"port": "80", "endPort": 79, "protocol": "SCTP"}), vec![(132, 80, 80)]),
    ] {
        let entries = allowed(json!({"toPorts": [{"ports": [port]}]}));
        let found: Vec<_> =
            entries.iter().map(|(_, protocol, first, last)| (*protocol, *first, *last)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn icmp_messages_are_types_of_a_family() {
    for (fields, expected) in [
        (json!([{"type": 8}]), vec![(1, 8)]),
        (json!([{"type": "EchoRequest"}, {"type": "Echo", "family": "IPv4"}]), vec![(1, 8)]),
        (json!([{"type": "EchoRequest", "family": "IPv6"}, {"type": "255"}]), vec![(1, 255), (58, 128)]),
        (
            json!([{"type": "ParameterProblem", "family": "IPv6"}, {"type": "ParameterProblem"}]),
            vec![(1, 12), (58, 4)],
        ),
        (json!([{"type": "EchoReply"}]), vec![(1, 0)]),
        (json!([]), vec![]),
    ] {
        let entries = allowed(json!({"icmps": [{"fields": fields}]}));
        assert!(entries.iter().all(|(peer, _, first, last)| *peer == 0 && first == last), "{entries:?}");
        let found: Vec<_> = entries.iter().map(|(_, protocol, first, _)| (*protocol, *first)).collect();
        assert_eq!(found, expected, "{fields}");
    }
    let of = |icmps: Value| index_with(reduce_spec(spec(json!({"icmps": icmps}))).unwrap());
    let ping = of(json!([{"fields": [{"type": 8}]}]));
    assert!(passes(&ping, FAR, SUBJECT, 1, 8) && !passes(&ping, FAR, SUBJECT, 1, 13));
    assert!(!passes(&ping, FAR, SUBJECT, 58, 8) && !passes(&ping, FAR, SUBJECT, TCP, 8));
    let zero = of(json!([{"fields": [{"type": 0}]}]));
    assert!(passes(&zero, FAR, SUBJECT, 1, 13), "type 0 is every type, as port 0 is every port");
    assert!(!passes(&zero, FAR, SUBJECT, 58, 128));
    let near = json!({"fromEndpoints": [{}], "icmps": [{"fields": [{"type": 8}]}]});
    let index = index_with(reduce_spec(spec(near)).unwrap());
    assert!(passes(&index, NEAR, SUBJECT, 1, 8) && !passes(&index, FAR, SUBJECT, 1, 8));
    let deny = denying(json!({"icmps": [{"fields": [{"type": 8}]}]}), None, json!({"ingress": false}));
    let index = index_with(deny);
    assert!(!passes(&index, NEAR, SUBJECT, 1, 8) && passes(&index, NEAR, SUBJECT, 1, 13));
}

#[test]
fn any_is_no_icmp_but_a_rule_without_ports_is() {
    let icmp = 1;
    let by_port = index_with(
        reduce_spec(spec(json!({"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "0"}]}]}))).unwrap(),
    );
    assert!(passes(&by_port, FAR, SUBJECT, UDP, 53));
    assert!(!passes(&by_port, FAR, SUBJECT, icmp, 0));
    let by_peer = index_with(reduce_spec(spec(json!({"fromEntities": ["all"]}))).unwrap());
    assert!(passes(&by_peer, FAR, SUBJECT, icmp, 0));
}

#[test]
fn peers_are_of_the_namespace_unless_the_selector_names_one() {
    let key = "io.kubernetes.pod.namespace";
    assert_eq!(peers(json!({"fromEndpoints": [{}]})), [SUBJECT, NEAR]);
    assert_eq!(peers(json!({"fromEndpoints": [{"matchLabels": {"app": "client"}}]})), [NEAR]);
    assert_eq!(peers(json!({"fromEndpoints": [{"matchLabels": {key: "far"}}]})), [FAR]);
    let nobody = json!({"matchLabels": {format!("k8s:{key}"): "far", "app": "web"}});
    assert!(peers(json!({"fromEndpoints": [nobody]})).is_empty());
    let anywhere = json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    assert_eq!(peers(json!({"fromEndpoints": [anywhere]})), [SUBJECT, NEAR, FAR]);
    assert_eq!(peers(json!({"fromEndpoints": [{"matchLabels": {"reserved:host": ""}}]})), [1]);
    let host_or_pod =
        json!([{"matchLabels": {"reserved:remote-node": ""}}, {"matchLabels": {"app": "client"}}]);
    assert_eq!(peers(json!({"fromEndpoints": host_or_pod})), [6, 7, NEAR]);
}

#[test]
fn a_label_of_the_namespace_opens_other_namespaces() {
    let selector = json!({"matchLabels": {"k8s:io.cilium.k8s.namespace.labels.team": "red"}});
    let mut index = index_with(reduce_spec(spec(json!({"fromEndpoints": [selector]}))).unwrap());
    index.set_identity(FAR, Some(mk_labels("far", &["io.cilium.k8s.namespace.labels.team=red"])));
    assert_eq!(ingress_of(&index, SUBJECT).unwrap(), [(FAR, 0, 0, 0)]);
}

#[test]
fn peers_of_clusterwide_policies_are_pods_of_any_namespace() {
    assert_eq!(clusterwide_peers(json!({"fromEndpoints": [{}]})), [11], "all pods of the cluster");
    assert_eq!(
        clusterwide_peers(json!({"fromEndpoints": [{"matchLabels": {"app": "client"}}]})),
        [NEAR, FAR]
    );
    assert_eq!(clusterwide_peers(json!({"fromEndpoints": [{"matchLabels": {"reserved:health": ""}}]})), [4]);
}

#[test]
fn a_rule_about_endpoints_without_labels_yet_may_mean_peers_without_namespace() {
    for (subject, expected) in [("reserved:init", vec![SUBJECT, NEAR, FAR, 400]), ("app", vec![11])] {
        let subject = json!({"matchExpressions": [{"key": subject, "operator": "Exists"}]});
        let rules =
            reduce_clusterwide(json!({"endpointSelector": subject, "ingress": [{"fromEndpoints": [{}]}]}));
        let mut index = index_with(rules.unwrap());
        index.set_identity(
            400,
            Some(Labels::parse([format!("k8s:io.cilium.k8s.policy.cluster={CLUSTER}")]).unwrap()),
        );
        let selected = if expected.contains(&400) { 5 } else { SUBJECT };
        let found: Vec<u32> =
            ingress_of(&index, selected).unwrap().into_iter().map(|(peer, ..)| peer).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn peers_are_of_the_local_cluster_unless_the_selector_names_one() {
    let key = "io.cilium.k8s.policy.cluster";
    let remote =
        Labels::parse([format!("k8s:{key}=other"), "k8s:io.kubernetes.pod.namespace=default".into()])
            .unwrap();
    for (selector, expected) in [
        (json!({}), vec![SUBJECT, NEAR]),
        (json!({"matchLabels": {key: "other"}}), vec![400]),
        (json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}), vec![SUBJECT, NEAR, 400]),
    ] {
        let mut index = index_with(reduce_spec(spec(json!({"fromEndpoints": [selector]}))).unwrap());
        index.set_identity(400, Some(remote.clone()));
        let found: Vec<u32> =
            ingress_of(&index, SUBJECT).unwrap().into_iter().map(|(peer, ..)| peer).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn subjects() {
    let selected = |rules: PolicyRules| index_with(rules).selected(&mk_key("p"));
    let of = |selector: Value| reduce_spec(json!({"endpointSelector": selector, "ingress": [{}]})).unwrap();
    assert_eq!(selected(of(json!({}))), BTreeSet::from([SUBJECT, NEAR]));
    let claimed = json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": "far"}});
    assert_eq!(selected(of(claimed)), BTreeSet::from([SUBJECT, NEAR]), "overwritten with the policy's own");
    let contradiction = json!({"matchLabels": {"io.kubernetes.pod.namespace": "far"}});
    assert_eq!(selected(of(contradiction)), BTreeSet::new());
    let all = reduce_clusterwide(json!({"endpointSelector": {}, "ingress": [{}]})).unwrap();
    assert_eq!(selected(all), BTreeSet::from([4, 5, 8, SUBJECT, NEAR, FAR]), "endpoints, and no nodes");
    let host = reduce_clusterwide(
        json!({"endpointSelector": {"matchLabels": {"reserved:host": ""}}, "ingress": [{}]}),
    );
    assert_eq!(selected(host.unwrap()), BTreeSet::new());
}

#[test]
fn entities() {
    for (entity, expected) in [
        ("all", vec![0]),
        ("world", vec![9, 10, 13]),
        ("host", vec![1]),
        ("remote-node", vec![6, 7, 14]),
        ("kube-apiserver", vec![7, 16_777_216]),
        ("cluster", vec![1, 3, 4, 5, 6, 7, 8, 11, 14, 16_777_216]),
        ("cluster-mesh", vec![1, 3, 4, 5, 6, 7, 8, 11, 14, 16_777_216]),
    ] {
        let mut index = index_with(reduce_spec(spec(json!({"fromEntities": [entity]}))).unwrap());
        let api_server = cilium_core::reserved::external_api_server_labels(
            cilium_core::Families::Dual,
            "192.0.2.1".parse().unwrap(),
        );
        index.set_identity(16_777_216, Some(api_server));
        let found: Vec<u32> =
            ingress_of(&index, SUBJECT).unwrap().into_iter().map(|(peer, ..)| peer).collect();
        assert_eq!(found, expected, "{entity}");
    }
}

/// Peers under an entry, where prefixes 10.0.0.0/8, 10.1.0.0/16 and 10.1.2.0/24 are identities 1, 2 and 3, and 2001:db8::/32 is 4, all
/// of the local scope.
fn peers_outside(entry: Value, families: Families) -> Vec<u32> {
    let mut index = PolicyIndex::new(Config { families, mode: Mode::Default });
    index.set_identity(SUBJECT, Some(mk_labels("default", &["app=web"])));
    index.set_policy(&mk_key("p"), Some(reduce_spec(spec(entry)).unwrap()));
    for (number, prefix) in (1..).zip(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "2001:db8::/32"]) {
        let labels = cilium_core::prefix::labels(families, prefix.parse().unwrap());
        index.set_identity((1 << 24) + number, Some(labels));
    }
    let entries = ingress_of(&index, SUBJECT).unwrap();
    entries.into_iter().map(|(peer, ..)| peer & 0xff_ffff).collect()
}

#[test]
fn a_prefix_selects_what_lies_inside_of_it_and_is_outside_of_the_cluster() {
    let dual = |entry| peers_outside(entry, Families::Dual);
    assert_eq!(dual(json!({"fromCIDR": ["10.0.0.0/8"]})), [1, 2, 3]);
    assert_eq!(dual(json!({"fromCIDR": ["10.1.2.3"]})), Vec::<u32>::new(), "nothing is as narrow");
    assert_eq!(dual(json!({"fromCIDR": ["10.1.255.255/16", "2001:db8::/32"]})), [2, 3, 4]);
    let except = |list: Value| json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": list}]});
    assert_eq!(dual(except(json!(["10.1.0.0/16"]))), [1]);
    assert_eq!(dual(except(json!(["10.1.2.0/24", "10.2.0.0/16"]))), [1, 2]);
    assert_eq!(dual(except(json!(["10.0.0.0/8"]))), Vec::<u32>::new());
    assert_eq!(dual(json!({"fromCIDR": ["0.0.0.0/0"]})), [9, 1, 2, 3], "and the world of the family");
    assert_eq!(dual(json!({"fromCIDR": ["::/0"]})), [10, 4]);
    let all_but = json!({"fromCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}]});
    assert_eq!(dual(all_but), [9]);
    assert_eq!(dual(json!({"fromEntities": ["world"]})), [9, 10, 13], "all of them");
    let only = |families, prefix: &str| peers_outside(json!({"fromCIDR": [prefix]}), families);
    assert_eq!(only(Families::Ipv4, "0.0.0.0/0"), [2, 1, 2, 3], "identity 2 is the world");
    assert_eq!(only(Families::Ipv4, "::/0"), [4], "there is no such world");
    assert_eq!(only(Families::Ipv6, "::/0"), [2, 4]);
}

#[test]
fn every_prefix_that_is_named_is_known() {
    let entry = json!({"fromCIDRSet": [
        {"cidr": "10.7.0.0/8", "except": ["10.1.0.0/16"]}, {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24"]},
    ]});
    let mut rule = spec(entry);
    rule["egressDeny"] = json!([{"toCIDR": ["2001:db8::1"]}]);
    let named: Vec<String> = reduce_spec(rule).unwrap().prefixes().iter().map(ToString::to_string).collect();
    assert_eq!(named, ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::1/128"]);
}

#[test]
fn the_own_node_is_an_api_server_where_it_runs_one() {
    let rules =
        reduce_spec(json!({"endpointSelector": {}, "egress": [{"toEntities": ["kube-apiserver"]}]})).unwrap();
    let index = index_with(rules);
    let peers = |host| {
        let policy = index.compile(SUBJECT, host).unwrap();
        policy.egress.allow.iter().map(|allow| allow.peer).collect::<Vec<_>>()
    };
    assert_eq!(peers(Host::Plain), [7]);
    assert_eq!(peers(Host::ApiServer), [1, 7]);
    let other_host = json!({
        "matchLabels": {"reserved:host": ""},
        "matchExpressions": [{"key": "reserved:kube-apiserver", "operator": "DoesNotExist"}],
    });
    let index = index_with(
        reduce_spec(json!({"endpointSelector": {}, "egress": [{"toEndpoints": [other_host]}]})).unwrap(),
    );
    let peers = |host| index.compile(SUBJECT, host).unwrap().egress.allow.len();
    assert_eq!((peers(Host::Plain), peers(Host::ApiServer)), (1, 0));
    let hosts = reduce_spec(json!({"endpointSelector": {}, "egress": [{"toEntities": ["host"]}]})).unwrap();
    let index = index_with(hosts);
    assert_eq!(index.compile(SUBJECT, Host::Plain), index.compile(SUBJECT, Host::ApiServer));
}

#[test]
fn default_deny() {
    let rule = |default_deny: Value| {
        reduce_spec(json!({
            "endpointSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"fromEntities": ["health"]}],
            "enableDefaultDeny": default_deny,
        }))
        .unwrap()
    };
    let enforced = |rules| {
        index_with(rules).compile(SUBJECT, Host::Plain).map(|p| (p.ingress.enforced, p.egress.enforced))
    };
    assert_eq!(enforced(rule(json!({}))), Some((true, false)));
    assert_eq!(
        enforced(rule(json!({"ingress": true, "egress": true}))),
        Some((true, false)),
        "it acts through entries"
    );
    assert_eq!(enforced(rule(json!({"egress": false}))), Some((true, false)));
    assert_eq!(enforced(rule(json!({"ingress": false}))), None);

    let mut index = index_with(rule(json!({"ingress": false})));
    index.set_policy(&mk_key("q"), Some(reduce_spec(spec(json!({"fromEntities": ["host"]}))).unwrap()));
    let policy = index.compile(SUBJECT, Host::Plain).unwrap();
    assert_eq!(policy.origins, ["cnp/default/p", "cnp/default/q"]);
    assert_eq!(ingress_of(&index, SUBJECT).unwrap(), [(1, 0, 0, 0), (4, 0, 0, 0)], "once closed, both allow");
}

/// Rules with one entry that denies, and perhaps one that allows, for ingress.
fn denying(deny: Value, allow: Option<Value>, default_deny: Value) -> PolicyRules {
    let rule = json!({
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": allow.map(|entry| vec![entry]),
        "ingressDeny": [deny],
        "enableDefaultDeny": default_deny,
    });
    reduce_spec(rule).unwrap()
}

#[test]
fn what_is_denied_is_dropped_whatever_allows_it() {
    let clients = json!({"fromEndpoints": [{"matchLabels": {"app": "client"}}]});
    let on_80 = json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]});
    let all = json!({"fromEntities": ["all"]});
    let near_80 = json!({"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": on_80["toPorts"]});
    for (deny, allow, default_deny, on_80_passes, on_81_passes) in [
        // A narrow denial in a wide allowance, and the other way round.
        (&near_80, Some(&all), json!({}), false, true),
        (&all, Some(&near_80), json!({}), false, false),
        (&on_80, Some(&clients), json!({}), false, true),
        (&clients, Some(&on_80), json!({}), false, false),
        // It closes the direction, unless told otherwise.
        (&on_80, None, json!({}), false, false),
        (&on_80, None, json!({"ingress": false}), false, true),
        (&json!({}), None, json!({}), false, false),
        (&json!({}), None, json!({"ingress": false}), true, true),
    ] {
        let index = index_with(denying(deny.clone(), allow.cloned(), default_deny.clone()));
        let found = [80, 81].map(|port| passes(&index, NEAR, SUBJECT, TCP, port));
        assert_eq!(found, [on_80_passes, on_81_passes], "{deny} {allow:?} {default_deny}");
    }
}

#[test]
fn a_denial_goes_before_what_a_node_may_do_to_its_pods() {
    let index = |deny: Value| index_with(denying(json!({"fromEntities": [deny]}), None, json!({})));
    assert!(!passes(&index(json!("host")), 1, SUBJECT, TCP, 80));
    assert!(!passes(&index(json!("all")), 1, SUBJECT, TCP, 80));
    assert!(
        passes(&index(json!("world")), 1, SUBJECT, TCP, 80),
        "a denial of others is a rule about ingress"
    );
    let mut always = pods();
    always.set_mode(Mode::Always);
    assert!(!passes(&always, 1, SUBJECT, TCP, 80), "no rule says anything about ingress");
    let mut never = index(json!("host"));
    never.set_mode(Mode::Never);
    assert!(passes(&never, 1, SUBJECT, TCP, 80));
}

#[test]
fn every_policy_that_denies_is_named() {
    let deny =
        || denying(json!({"fromEntities": ["all"]}), Some(json!({"fromEntities": ["all"]})), json!({}));
    let mut index = index_with(deny());
    index.set_policy(&mk_key("a"), Some(deny()));
    let policy = index.compile(SUBJECT, Host::Plain).unwrap();
    assert_eq!(serde_json::to_string(&policy.ingress.deny).unwrap(), "[[0,0,0,0,[0,1]]]");
    assert_eq!(cilium_policy::entries_of(&policy, &mk_key("a")), 2);
    let policies = crate::support::compile_all(&index, &[SUBJECT]);
    let flow = cilium_policy::Flow {
        source: NEAR,
        destination: SUBJECT,
        protocol: TCP,
        destination_port: 1,
        addresses: None,
    };
    let verdict = cilium_policy::verdict(&policies, &flow);
    assert_eq!(verdict.ingress, Judgement::Denied(vec!["cnp/default/a", "cnp/default/p"]));
    assert_eq!(verdict.denied_by(), Some(Side::Ingress));
}

#[test]
fn policies_that_allow_the_same_share_an_entry() {
    let rules = || reduce_spec(spec(json!({"fromEntities": ["health"]}))).unwrap();
    let mut index = index_with(rules());
    index.set_policy(&mk_key("a"), Some(rules()));
    let policy = index.compile(SUBJECT, Host::Plain).unwrap();
    assert_eq!(
        serde_json::to_string(&policy.ingress.allow).unwrap(),
        "[[1,0,0,0,[]],[4,0,0,0,[0,1]]]",
        "{:?}",
        policy.origins
    );
}

#[test]
fn modes() {
    let mut index = index_with(reduce_spec(spec(json!({"fromEntities": ["health"]}))).unwrap());
    index.take_affected();
    index.set_mode(Mode::Always);
    assert_eq!(index.take_affected(), BTreeSet::from([4, 5, 8, SUBJECT, NEAR, FAR]));
    let near = index.compile(NEAR, Host::Plain).unwrap();
    assert!(near.ingress.enforced && near.egress.enforced && near.ingress.allow.is_empty());
    assert!(passes(&index, 1, SUBJECT, TCP, 80), "the node reaches its pods");
    index.set_mode(Mode::Never);
    assert_eq!(index.compile(SUBJECT, Host::Plain), None);
    index.set_mode(Mode::Default);
    assert_eq!(index.compile(NEAR, Host::Plain), None);
    assert!(index.compile(SUBJECT, Host::Plain).is_some());
}

#[test]
fn endpoints_without_labels_yet_are_closed() {
    let mut index = pods();
    let init = index.compile(5, Host::Plain).unwrap();
    assert!(init.ingress.enforced && init.egress.enforced && init.ingress.allow.is_empty());
    let unknown = index.compile(999, Host::Plain).unwrap();
    assert_eq!(unknown, init, "an identity without labels is not open either");
    index.set_mode(Mode::Never);
    assert_eq!(index.compile(999, Host::Plain), None);
}

#[test]
fn an_identity_that_an_entity_covers_costs_nothing() {
    let mut index = index_with(reduce_spec(spec(json!({"fromEntities": ["cluster", "world"]}))).unwrap());
    index.take_affected();
    let before = index.compile(SUBJECT, Host::Plain);
    index.set_identity(400, Some(mk_labels("far", &["app=new"])));
    let prefix = cilium_core::prefix::labels(Families::Dual, "10.0.0.0/8".parse().unwrap());
    index.set_identity(1 << 24, Some(prefix));
    assert_eq!(index.take_affected(), BTreeSet::from([400]), "the new pod's own policy only");
    assert_eq!(index.compile(SUBJECT, Host::Plain), before);
    for source in [400, 1 << 24, 2 << 24, 4] {
        assert!(passes(&index, source, SUBJECT, TCP, 80), "{source}");
    }
}

/// `web` is another port in each of two pods, and none in a third.
#[test]
fn a_port_by_name_is_the_number_that_the_destination_has() {
    const OTHER: u32 = 303;
    let with_port = |own: &[&str], port: &str| {
        let port = Labels::parse([format!("gen:io.cilium.k8s.named-ports={port}")]).unwrap();
        let labels = mk_labels("default", own);
        labels.iter().chain(port.iter()).cloned().collect::<Labels>()
    };
    let named = json!([{"ports": [{"port": "web", "protocol": "TCP"}]}]);
    let mut index = pods();
    index.set_identity(SUBJECT, Some(with_port(&["app=web"], "web.TCP.8080")));
    index.set_identity(OTHER, Some(with_port(&["app=web"], "web.TCP.9090_web.UDP.53")));
    let ingress =
        json!({"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"toPorts": named}]});
    index.set_policy(&mk_key("p"), Some(reduce_spec(ingress).unwrap()));
    let reached = |index: &PolicyIndex| {
        [(SUBJECT, 8080), (SUBJECT, 9090), (OTHER, 8080), (OTHER, 9090), (OTHER, 53), (NEAR, 8080)]
            .map(|(to, port)| passes(index, FAR, to, TCP, port))
    };
    assert_eq!(reached(&index), [true, false, false, true, false, true]);
    let egress =
        json!({"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [{"toPorts": named}]});
    index.set_policy(&mk_key("q"), Some(reduce_spec(egress).unwrap()));
    let reached = |index: &PolicyIndex| {
        [(SUBJECT, 8080), (SUBJECT, 9090), (OTHER, 8080), (OTHER, 9090), (9, 8080)]
            .map(|(to, port)| passes(index, NEAR, to, TCP, port))
    };
    assert_eq!(reached(&index), [true, false, false, true, false]);
    // The number changes, under the same selectors.
    index.take_affected();
    index.set_identity(OTHER, Some(with_port(&["app=web"], "web.TCP.8080")));
    assert!(index.take_affected().contains(&NEAR));
    assert_eq!(reached(&index), [true, false, true, false, false]);
}

#[test]
fn nodes_are_selected_by_policies_for_nodes_and_by_no_others() {
    let settings = cilium_policy::reduce::Settings { host_firewall: true, ..CLUSTER.into() };
    let rule = json!({"nodeSelector": {"matchLabels": {"zone": "a"}}, "ingress": [{"fromEntities": ["host", "cluster"]}]});
    let policy = crate::support::mk_ccnp(vec![crate::support::mk_rule(rule)]);
    let mut index = index_with(cilium_policy::reduce::ccnp(&policy, settings).unwrap());
    let node = cilium_core::reserved::node_host(5);
    let labels =
        |zone: &str| Labels::parse([format!("k8s:zone={zone}"), "reserved:host".to_owned()]).unwrap();
    index.set_identity(node, Some(labels("a")));
    assert_eq!(index.selected(&mk_key("p")), BTreeSet::from([node]));
    let ingress = index.compile(node, Host::Plain).unwrap().ingress;
    let peers: Vec<u32> = ingress.allow.iter().map(|entry| entry.peer).collect();
    assert_eq!(peers, [1, 3, 4, 5, 6, 7, 8, 11, 14], "not the number of the subject");
    index.set_identity(node, Some(labels("b")));
    assert_eq!((index.selected(&mk_key("p")), index.compile(node, Host::Plain)), (BTreeSet::new(), None));
    index.set_policy(
        &mk_key("p"),
        Some(reduce_clusterwide(json!({"endpointSelector": {}, "ingress": [{}]})).unwrap()),
    );
    assert!(!index.selected(&mk_key("p")).contains(&node));
    assert_eq!(index.compile(node, Host::Plain), None);
    index.set_mode(Mode::Always);
    assert!(index.compile(node, Host::Plain).is_some_and(|policy| policy.ingress.allow.is_empty()));
}
