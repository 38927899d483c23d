//! What forms of a ClusterNetworkPolicy mean, among other policies.

use cilium_api::parts::Action;
use cilium_core::Labels;
use cilium_policy::reduce::Settings;
use cilium_policy::verdict::questions;
use cilium_policy::{
    Decision, Flow, Host, Idle, Missed, PolicyIndex, PolicyKey, PolicyRules, Side, changes, reduce, verdict,
};
use serde_json::{Value, json};

use crate::support::{CLUSTER, TCP, UDP, compile_all, mk_index, mk_key, mk_labels, passes, reduce_spec};

const WEB: u32 = 300;
const NEAR: u32 = 301;
const FAR: u32 = 302;
const DNS: u32 = 303;
const WORLD: u32 = 9;
const NODE: u32 = (2 << 24) + 1;
const HOST: u32 = 1;

fn reduce_in(settings: Settings<'_>, spec: Value) -> (PolicyRules, Vec<String>) {
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    let (rules, notes) = reduce::clusternetpol(&serde_json::from_value(policy).unwrap(), settings);
    (rules, notes.iter().map(ToString::to_string).collect())
}

fn reduce_policy(spec: Value) -> (PolicyRules, Vec<String>) {
    reduce_in(CLUSTER.into(), spec)
}

/// `web` and `near` in namespace `default`, `far` in namespace `far`, which is of team 1, a name server, and a node.
fn index() -> PolicyIndex {
    let mut index = mk_index(&[(WEB, "default", &["app=web"]), (NEAR, "default", &["app=near"])]);
    let more = |labels: Labels, texts: &[&str]| -> Labels {
        labels.iter().cloned().chain(Labels::parse(texts.iter().copied()).unwrap().iter().cloned()).collect()
    };
    let team = ["k8s:io.cilium.k8s.namespace.labels.team=1"];
    index.set_identity(FAR, Some(more(mk_labels("far", &["app=far"]), &team)));
    let ports = ["gen:io.cilium.k8s.named-ports=dns-tcp.TCP.1053_dns.UDP.1053"];
    index.set_identity(DNS, Some(more(mk_labels("kube-system", &["k8s-app=kube-dns"]), &ports)));
    let node = ["node:zone=a", "reserved:remote-node", "k8s:io.cilium.k8s.policy.cluster=kind"];
    index.set_identity(NODE, Some(Labels::parse(node).unwrap()));
    index
}

fn put(index: &mut PolicyIndex, name: &str, spec: Value) {
    let settings = Settings { node_selector_labels: true, ..CLUSTER.into() };
    let (rules, notes) = reduce_in(settings, spec);
    let is_known = |note: &String| note.contains("denial of pods and nodes by their addresses");
    assert!(notes.iter().all(is_known), "{notes:?}");
    index.set_policy(&PolicyKey::clusternetpol(name), Some(rules));
}

fn mk(tier: &str, priority: i32, rules: Value) -> Value {
    let mut spec = json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}});
    spec.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    spec
}

fn team() -> Value {
    json!({"namespaces": {"matchLabels": {"team": "1"}}})
}

fn anybody() -> Value {
    json!({"namespaces": {}})
}

fn web() -> Value {
    json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}})
}

/// Who reaches `web` at TCP 80, of near, far, the node and the world.
fn reach_web(index: &PolicyIndex) -> [bool; 4] {
    [NEAR, FAR, NODE, WORLD].map(|peer| passes(index, peer, WEB, TCP, 80))
}

/// Whom `web` reaches at TCP 80.
fn web_reaches(index: &PolicyIndex) -> [bool; 4] {
    [NEAR, FAR, NODE, WORLD].map(|peer| passes(index, WEB, peer, TCP, 80))
}

/// A CiliumNetworkPolicy about `web`.
fn put_cnp(index: &mut PolicyIndex, name: &str, mut spec: Value) {
    spec["endpointSelector"] = json!({"matchLabels": {"app": "web"}});
    index.set_policy(&mk_key(name), Some(reduce_spec(spec).unwrap()));
}

#[test]
fn a_policy_alone_closes_nothing_but_what_it_denies() {
    let mut index = index();
    put(&mut index, "a", mk("Admin", 1, json!({"ingress": [{"action": "Deny", "from": [team()]}]})));
    assert_eq!(reach_web(&index), [true, false, true, true]);
    assert_eq!(web_reaches(&index), [true; 4]);
    put(&mut index, "a", mk("Admin", 1, json!({"ingress": [{"action": "Accept", "from": [team()]}]})));
    assert_eq!(reach_web(&index), [true; 4]);
}

#[test]
fn admin_goes_before_policies_of_namespaces_and_these_before_baseline() {
    let mut index = index();
    put_cnp(&mut index, "only-far", json!({"ingress": [{"fromEntities": ["world"]}]}));
    assert_eq!(reach_web(&index), [false, false, false, true]);
    put(&mut index, "a", mk("Admin", 1, json!({"ingress": [{"action": "Accept", "from": [team()]}]})));
    assert_eq!(reach_web(&index), [false, true, false, true]);
    put_cnp(&mut index, "deny", json!({"ingressDeny": [{"fromEntities": ["all"]}]}));
    assert_eq!(reach_web(&index), [false, true, false, false], "what is accepted is not asked any further");
    put(&mut index, "a", mk("Baseline", 1, json!({"ingress": [{"action": "Accept", "from": [team()]}]})));
    assert_eq!(reach_web(&index), [false; 4]);
}

#[test]
fn baseline_does_not_open_what_a_policy_closes() {
    let mut index = index();
    put(&mut index, "b", mk("Baseline", 1, json!({"ingress": [{"action": "Accept", "from": [anybody()]}]})));
    put_cnp(&mut index, "closed", json!({"ingress": [{}]}));
    assert_eq!(reach_web(&index), [false; 4]);
    let compiled = index.compile(WEB, Host::Plain).unwrap();
    assert!(compiled.ingress.baseline.is_empty());
}

#[test]
fn baseline_denies_where_no_policy_speaks() {
    let mut index = index();
    put(&mut index, "b", mk("Baseline", 1, json!({"ingress": [{"action": "Deny", "from": [anybody()]}]})));
    assert_eq!(reach_web(&index), [false, false, true, true]);
    // A policy that closes nothing still allows before it.
    let allow = json!({"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "near"}}]}], "enableDefaultDeny": {"ingress": false}});
    put_cnp(&mut index, "open", allow);
    assert_eq!(reach_web(&index), [true, false, true, true]);
}

#[test]
fn priority_then_name_then_place_decide() {
    let rules = |first: &str, then: &str| json!({"ingress": [{"action": first, "from": [anybody()]}, {"action": then, "from": [team()]}]});
    let mut index = index();
    put(&mut index, "m", mk("Admin", 5, rules("Accept", "Deny")));
    assert!(reach_web(&index)[1], "the first rule decides");
    put(&mut index, "z", mk("Admin", 4, rules("Deny", "Accept")));
    assert!(!reach_web(&index)[1], "the lower priority decides");
    put(&mut index, "z", mk("Admin", 5, rules("Deny", "Accept")));
    assert!(reach_web(&index)[1], "of equal ones, the name");
    put(&mut index, "a", mk("Admin", 5, rules("Deny", "Accept")));
    assert!(!reach_web(&index)[1]);
}

#[test]
fn pass_goes_on_with_the_next_tier() {
    let mut index = index();
    let rules =
        json!({"ingress": [{"action": "Pass", "from": [team()]}, {"action": "Deny", "from": [anybody()]}]});
    put(&mut index, "a", mk("Admin", 1, rules));
    assert_eq!(reach_web(&index), [false, true, true, true]);
    put(&mut index, "b", mk("Baseline", 1, json!({"ingress": [{"action": "Deny", "from": [team()]}]})));
    assert_eq!(reach_web(&index), [false, false, true, true]);
    put(
        &mut index,
        "b",
        mk(
            "Baseline",
            1,
            json!({"ingress": [
        {"action": "Pass", "from": [team()]}, {"action": "Deny", "from": [team()]}]}),
        ),
    );
    assert_eq!(reach_web(&index), [false, true, true, true], "behind the last tier, everything passes");
    put_cnp(&mut index, "closed", json!({"ingress": [{}]}));
    assert_eq!(reach_web(&index), [false; 4], "or nothing");
}

#[test]
fn subjects_are_pods_and_never_nodes() {
    let mut index = index();
    let deny = json!([{"action": "Deny", "from": [anybody()]}]);
    let subject = json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "near"}}}});
    put(&mut index, "a", json!({"tier": "Admin", "priority": 1, "subject": subject, "ingress": deny}));
    assert_eq!(index.selected(&PolicyKey::clusternetpol("a")), [NEAR].into());
    put(&mut index, "a", json!({"tier": "Admin", "priority": 1, "subject": team(), "ingress": deny}));
    assert_eq!(index.selected(&PolicyKey::clusternetpol("a")), [FAR].into());
    put(&mut index, "a", json!({"tier": "Admin", "priority": 1, "subject": anybody(), "ingress": deny}));
    assert_eq!(index.selected(&PolicyKey::clusternetpol("a")), [WEB, NEAR, FAR, DNS].into());
}

#[test]
fn a_node_reaches_its_pods() {
    let mut index = index();
    put_cnp(&mut index, "closed", json!({"ingress": [{}]}));
    put(&mut index, "a", mk("Admin", 1, json!({"ingress": [{"action": "Deny", "from": [anybody()]}]})));
    assert!(passes(&index, HOST, WEB, TCP, 80));
    assert!(!passes(&index, NEAR, WEB, TCP, 80));
}

#[test]
fn peers_that_go_out() {
    let deny = |peer: Value| {
        let mut index = index();
        put(&mut index, "a", mk("Admin", 1, json!({"egress": [{"action": "Deny", "to": [peer]}]})));
        let host = passes(&index, WEB, HOST, TCP, 80);
        (web_reaches(&index), host)
    };
    assert_eq!(deny(anybody()), ([false, false, true, true], true));
    assert_eq!(deny(team()), ([true, false, true, true], true));
    assert_eq!(deny(web()), ([true; 4], true));
    assert_eq!(deny(json!({"networks": ["0.0.0.0/0"]})), ([true, true, true, false], true));
    assert_eq!(deny(json!({"networks": ["192.0.2.0/24", "::/0"]})), ([true; 4], true));
    // Whether the pod's own node has the label is not known: it is denied as well.
    assert_eq!(deny(json!({"nodes": {"matchLabels": {"zone": "a"}}})), ([true, true, false, true], false));
    assert_eq!(deny(json!({"nodes": {"matchLabels": {"zone": "b"}}})), ([true; 4], false));
    assert_eq!(deny(json!({"nodes": {}})), ([true, true, false, true], false));
}

#[test]
fn nodes_are_accepted_only_where_they_are_known() {
    let accept = |labels: Value| {
        let mut index = index();
        put_cnp(&mut index, "closed", json!({"egress": [{}]}));
        let rules = json!({"egress": [{"action": "Accept", "to": [{"nodes": labels}]}]});
        put(&mut index, "a", mk("Admin", 1, rules));
        [NODE, HOST].map(|peer| passes(&index, WEB, peer, TCP, 80))
    };
    assert_eq!(accept(json!({"matchLabels": {"zone": "a"}})), [true, false]);
    assert_eq!(accept(json!({})), [true, true]);
}

#[test]
fn protocols_and_ports() {
    let denied = |protocols: Value| {
        let mut index = index();
        let rules = json!({"egress": [{"action": "Deny", "to": [anybody()], "protocols": protocols}]});
        put(&mut index, "a", mk("Admin", 1, rules));
        let flows = [(TCP, 80), (TCP, 81), (UDP, 80), (1, 8), (TCP, 1053), (UDP, 1053)];
        flows.map(|(protocol, port)| !passes(&index, WEB, DNS, protocol, port))
    };
    let port = |number: i32| json!({"destinationPort": {"number": number}});
    assert_eq!(denied(json!([])), [true; 6]);
    assert_eq!(denied(json!([{"tcp": port(80)}])), [true, false, false, false, false, false]);
    assert_eq!(denied(json!([{"tcp": {}}])), [true, true, false, false, true, false]);
    assert_eq!(
        denied(json!([{"udp": port(80)}, {"sctp": port(80)}])),
        [false, false, true, false, false, false]
    );
    let range = json!({"destinationPort": {"range": {"start": 80, "end": 1053}}});
    assert_eq!(denied(json!([{"tcp": range}])), [true, true, false, false, true, false]);
    assert_eq!(denied(json!([{"destinationNamedPort": "dns"}])), [false, false, false, false, false, true]);
}

/// Whom `web` reaches under one rule with the action, and what is said of it.
fn unclear(action: &str, peers: Value, protocols: Value) -> ([bool; 4], Vec<String>) {
    let mut index = index();
    put_cnp(&mut index, "open", json!({"egress": [{"toEntities": ["all"]}]}));
    let rules = json!({"egress": [{"action": action, "to": peers, "protocols": protocols}]});
    let (rules, notes) = reduce_policy(mk("Admin", 1, rules));
    index.set_policy(&PolicyKey::clusternetpol("a"), Some(rules));
    (web_reaches(&index), notes)
}

#[test]
fn what_is_not_understood_counts_for_the_stricter() {
    let all = || json!([]);
    let note = |path: &str, reason: &str, so: &str| vec![format!("spec.egress[0].{path}: {reason}; {so}")];
    let kind = "exactly one kind of peer must be given, and one that this version knows";
    let (nothing, everybody) = ("it matches nothing", "the rule denies everybody");
    assert_eq!(unclear("Accept", json!([{"later": {}}]), all()), ([true; 4], note("to[0]", kind, nothing)));
    for action in ["Deny", "Pass"] {
        assert_eq!(
            unclear(action, json!([{"later": {}}]), all()),
            ([false; 4], note("to[0]", kind, everybody))
        );
        let (reached, notes) = unclear(action, json!([team(), {"domainNames": ["a.io"]}]), all());
        assert_eq!((reached, notes.len()), ([false; 4], 1), "{notes:?}");
        let (reached, notes) = unclear(action, json!([{"nodes": {}}]), all());
        assert_eq!(reached, [false; 4]);
        assert!(notes[0].contains("enable-node-selector-labels"), "{notes:?}");
        let (reached, notes) = unclear(action, json!([team()]), json!([{"icmp": {}}, {"udp": {}}]));
        assert_eq!(reached, [false; 4], "{notes:?}");
        let (reached, _) = unclear(action, json!([{}]), json!([{"udp": {}}]));
        assert_eq!(reached, [true; 4], "as far as protocols are known, only these");
        let (reached, _) = unclear(action, json!([]), all());
        assert_eq!(reached, [false; 4]);
    }
    let (reached, notes) = unclear("Allow", json!([team()]), all());
    assert_eq!(reached, [true, false, true, true]);
    assert_eq!(notes, note("action", "\"Allow\" is not an action", "the rule denies"));
}

#[test]
fn malformed_parts_are_named() {
    let noted = |rules: Value| reduce_policy(mk("Admin", 1, rules)).1.join("\n");
    let to = |peer: Value| noted(json!({"egress": [{"action": "Accept", "to": [peer]}]}));
    assert!(to(json!({"networks": ["10.0.0.0/8", "x"]})).starts_with("spec.egress[0].to[0].networks[1]: "));
    assert!(to(json!({"domainNames": ["a.*.io"]})).starts_with("spec.egress[0].to[0].domainNames[0]: "));
    let selector = json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
    assert!(to(selector).starts_with("spec.egress[0].to[0].namespaces.matchExpressions[0]"));
    let from = json!({"ingress": [{"action": "Accept", "from": [{"networks": ["10.0.0.0/8"]}]}]});
    assert!(noted(from).starts_with("spec.ingress[0].from[0]: what comes in is from namespaces or pods"));
    let on = |protocol: Value, peer: Value| {
        noted(json!({"egress": [{"action": "Accept", "to": [peer], "protocols": [protocol]}]}))
    };
    let port = |port: Value| on(json!({"tcp": {"destinationPort": port}}), anybody());
    let path = "spec.egress[0].protocols[0].tcp.destinationPort";
    assert!(port(json!({"number": 0})).starts_with(&format!("{path}.number: ")));
    assert!(port(json!({"number": 70000})).starts_with(&format!("{path}.number: ")));
    assert!(port(json!({})).starts_with(&format!("{path}: exactly one of number and range")));
    assert!(port(json!({"range": {"start": 9, "end": 8}})).starts_with(&format!("{path}.range: ")));
    let named = json!({"destinationNamedPort": "web"});
    assert!(on(named, json!({"networks": ["::/0"]})).contains("have no ports with names"));
    let denied = noted(json!({"egress": [{"action": "Deny", "to": [{"networks": ["::/0"]}]}]}));
    assert!(
        denied.starts_with("spec.egress[0].to[0].networks: a denial of pods and nodes by their addresses")
    );
}

#[test]
fn a_subject_that_is_not_understood_leaves_the_policy_out() {
    for subject in [json!({}), json!({"later": {}}), json!({"namespaces": {}, "pods": {}})] {
        let spec = json!({"tier": "Admin", "priority": 1, "subject": subject, "ingress": [{"action": "Deny", "from": [{}]}]});
        let (rules, notes) = reduce_policy(spec);
        assert!(rules.rules.is_empty());
        let reason = "exactly one of namespaces and pods must be given; the policy is not in force";
        assert_eq!(notes, [format!("spec.subject: {reason}")]);
    }
    let (rules, notes) =
        reduce_policy(mk("Top", 1, json!({"ingress": [{"action": "Deny", "from": [anybody()]}]})));
    assert_eq!(notes, ["spec.tier: \"Top\" is not a tier; it goes before all other policies"]);
    assert_eq!(rules.rules.len(), 1);
}

fn ask(source: u32, destination: u32, port: u16) -> Flow {
    Flow { source, destination, protocol: TCP, destination_port: port, addresses: None }
}

#[test]
fn explanations_name_the_rule_that_decides() {
    let mut index = index();
    let rules = json!({"ingress": [
        {"action": "Pass", "from": [{"pods": {"podSelector": {"matchLabels": {"app": "near"}}}}]},
        {"action": "Deny", "from": [team()]},
        {"action": "Accept", "from": [anybody()], "protocols": [{"tcp": {"destinationPort": {"number": 443}}}]},
    ]});
    put(&mut index, "a", mk("Admin", 1, rules));
    put(&mut index, "b", mk("Baseline", 1, json!({"ingress": [{"action": "Deny", "from": [anybody()]}]})));
    let place = |decision: Decision| match decision {
        Decision::Granted(places) | Decision::Denied(places) => {
            places.iter().map(|place| format!("{} {}", place.policy, place.path)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let explain = |source, port| index.explain(Side::Ingress, &ask(source, WEB, port), Host::Plain);
    assert_eq!(place(explain(FAR, 443)), ["clusternetpol/a spec.ingress[1]"]);
    assert_eq!(place(explain(DNS, 443)), ["clusternetpol/a spec.ingress[2]"]);
    assert_eq!(place(explain(NEAR, 443)), ["clusternetpol/b spec.ingress[0]"]);
    assert_eq!(explain(WORLD, 443), Decision::NotEnforced);
    let mut closed = index.clone();
    put_cnp(&mut closed, "closed", json!({"ingress": [{}]}));
    let Decision::DefaultDeny(reason) = closed.explain(Side::Ingress, &ask(DNS, WEB, 80), Host::Plain) else {
        panic!("a default deny")
    };
    let nearest = reason.nearest.unwrap();
    assert_eq!(nearest.place.path.as_ref(), "spec.ingress[2]");
    assert!(matches!(nearest.missed, Missed::Port(_)));
    let (before, after) = (index.compile(WEB, Host::Plain), closed.compile(WEB, Host::Plain));
    let found = changes(before.as_ref(), after.as_ref(), Side::Ingress, (WORLD, WORLD), None);
    assert_eq!(
        found.iter().map(|it| format!("{} {}", it.span, it.allowed)).collect::<Vec<_>>(),
        ["any false"]
    );
    let found = changes(before.as_ref(), None, Side::Ingress, (DNS, DNS), None);
    let shown: Vec<_> = found.iter().map(|it| format!("{} {}", it.span, it.allowed)).collect();
    assert!(
        shown.contains(&"0-442/TCP true".to_owned()) && !shown.iter().any(|it| it.contains("443/TCP")),
        "{shown:?}"
    );
}

#[test]
fn a_rule_behind_a_denial_of_admins_has_no_effect() {
    let mut index = index();
    let allow = json!({"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "near"}}]}]});
    put_cnp(&mut index, "near", allow);
    let idle = |index: &PolicyIndex| index.ineffective(&mk_key("near"), &|_| true);
    assert_eq!(idle(&index), []);
    put(&mut index, "a", mk("Admin", 1, json!({"ingress": [{"action": "Deny", "from": [anybody()]}]})));
    let found = idle(&index);
    let Idle::Denied(places) = &found[0].why else { panic!("{found:?}") };
    assert_eq!((places[0].policy.as_str(), places[0].path.as_ref()), ("clusternetpol/a", "spec.ingress[0]"));
    put(&mut index, "0", mk("Admin", 0, json!({"ingress": [{"action": "Pass", "from": [anybody()]}]})));
    assert_eq!(idle(&index), []);
}

#[test]
fn names_are_accepted_and_their_servers_heard() {
    let rules = json!({"egress": [
        {"action": "Accept", "to": [{"domainNames": ["Example.io", "*.example.io"]}], "protocols": [{"tcp": {"destinationPort": {"number": 443}}}]},
        {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]},
    ]});
    let mut index = index();
    put(&mut index, "a", mk("Admin", 1, rules));
    let compiled = index.compile(WEB, Host::Plain).unwrap();
    let steps = &compiled.egress.admin;
    assert_eq!(steps.iter().map(|step| step.action).collect::<Vec<_>>(), [Action::Accept, Action::Deny]);
    let names: Vec<_> = steps[0].names.iter().map(|it| (it.pattern.as_str(), it.first)).collect();
    assert_eq!(names, [("**.example.io.", 443), ("example.io.", 443)]);
    let heard: Vec<_> = compiled.heard.iter().map(|it| (it.peer, it.protocol, it.first)).collect();
    assert_eq!(heard, [(DNS, TCP, 1053), (DNS, UDP, 1053)]);
    let asked = |index: &PolicyIndex| {
        let policies = compile_all(index, &[WEB]);
        let flow = Flow { protocol: UDP, ..ask(WEB, DNS, 1053) };
        let names = questions(&policies, &flow);
        (
            verdict(&policies, &flow).allowed(),
            names.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>()),
        )
    };
    assert_eq!(asked(&index), (true, Some(vec!["*".to_owned()])));
    // Nothing is said about questions: where they do not pass, they still do not.
    put_cnp(&mut index, "closed", json!({"egress": [{}]}));
    assert_eq!(asked(&index), (false, None));
    let dns = json!({"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system"}}],
        "toPorts": [{"ports": [{"port": "1053", "protocol": "UDP"}], "rules": {"dns": [{"matchName": "a.io"}]}}]});
    put_cnp(&mut index, "dns", json!({"egress": [dns]}));
    assert_eq!(asked(&index), (true, Some(vec!["a.io.".to_owned()])), "nor are rules about them opened");
    put(&mut index, "b", mk("Admin", 0, json!({"egress": [{"action": "Accept", "to": [anybody()]}]})));
    assert_eq!(asked(&index), (true, Some(vec!["*".to_owned()])), "what admins accept is not filtered");
    index.set_policy(&PolicyKey::clusternetpol("a"), None);
    assert_eq!(asked(&index), (true, None), "and without names it is not heard");
}
