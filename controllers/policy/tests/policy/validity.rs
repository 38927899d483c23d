//! What is refused, where and why.

use cilium_policy::InvalidKind::{self, Disabled, Malformed, Unsupported};
use cilium_policy::{Invalid, PolicyRules, reduce};
use serde_json::{Value, json};

use crate::support::{CLUSTER, mk_ccnp, mk_cnp, mk_rule, reduce_clusterwide, reduce_spec};

/// A spec with one ingress entry.
fn ingress(entry: Value) -> Value {
    json!({"endpointSelector": {}, "ingress": [entry]})
}

/// A spec with one egress entry.
fn egress(entry: Value) -> Value {
    json!({"endpointSelector": {}, "egress": [entry]})
}

/// A spec with one egress entry that denies.
fn deny(entry: Value) -> Value {
    json!({"endpointSelector": {}, "ingress": [{}], "egressDeny": [entry]})
}

/// A spec with one port.
fn port(port: Value) -> Value {
    ingress(json!({"toPorts": [{"ports": [port]}]}))
}

fn check(result: Result<PolicyRules, Invalid>, path: &str, kind: InvalidKind, reason: &str) {
    let invalid = result.expect_err(path);
    assert_eq!((invalid.path.as_str(), invalid.kind), (path, kind), "{}", invalid.reason);
    assert!(invalid.reason.contains(reason), "{invalid}, expected {reason:?}");
}

#[test]
fn shape_of_a_rule() {
    for (spec, path, reason) in [
        (json!({"ingress": [{}]}), "spec", "endpointSelector or nodeSelector must be given"),
        (json!({"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]}), "spec", "exclude each other"),
        (json!({"nodeSelector": {}, "ingress": [{}]}), "spec.nodeSelector", "CiliumClusterwideNetworkPolicy"),
        (json!({"endpointSelector": {}}), "spec", "needs an entry"),
        (json!({"endpointSelector": {}, "ingress": [], "egressDeny": []}), "spec", "needs an entry"),
        (
            json!({"endpointSelector": {"matchLabels": {"a b": ""}}, "ingress": [{}]}),
            "spec.endpointSelector.matchLabels[a b]",
            "\"a b\" is not a label key",
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "ingress": [{}]}),
            "spec.endpointSelector.matchExpressions[0].values",
            "In needs at least one value",
        ),
    ] {
        check(reduce_spec(spec), path, Malformed, reason);
    }
    let none = mk_cnp("default", Vec::new());
    check(reduce::cnp(&none, CLUSTER), "spec", Malformed, "a policy needs spec, specs or both");
}

#[test]
fn one_bad_rule_refuses_the_whole_policy() {
    let good = mk_rule(ingress(json!({})));
    let bad = mk_rule(ingress(json!({"fromEntities": ["mars"]})));
    let path = "specs[1].ingress[0].fromEntities[0]";
    check(
        reduce::cnp(&mk_cnp("default", vec![good.clone(), bad.clone()]), CLUSTER),
        path,
        Malformed,
        "\"mars\" is not an entity",
    );
    check(reduce::ccnp(&mk_ccnp(vec![good, bad]), CLUSTER), path, Malformed, "\"mars\" is not an entity");
}

#[test]
fn shape_of_an_entry() {
    for (spec, path, reason) in [
        (
            ingress(json!({"fromEndpoints": [{}], "fromEntities": ["all"]})),
            "spec.ingress[0]",
            "combining fromEndpoints and fromEntities is not supported yet",
        ),
        (
            ingress(json!({"fromCIDR": ["192.0.2.0/24"], "fromCIDRSet": [{"cidr": "192.0.2.0/24"}]})),
            "spec.ingress[0]",
            "combining fromCIDR and fromCIDRSet is not supported yet",
        ),
        (
            egress(json!({"toEndpoints": [{}], "toFQDNs": [{"matchName": "example.org"}]})),
            "spec.egress[0]",
            "combining toEndpoints and toFQDNs is not supported yet",
        ),
        (
            ingress(json!({"icmps": [{}], "toPorts": [{"ports": [{"port": "80"}]}]})),
            "spec.ingress[0]",
            "icmps and toPorts exclude each other",
        ),
        (
            egress(
                json!({"toServices": [{"k8sServiceSelector": {"selector": {"matchLabels": {"a": "-"}}}}]}),
            ),
            "spec.egress[0].toServices[0].k8sServiceSelector.selector.matchLabels[a]",
            "\"-\" is not a label value",
        ),
        (ingress(json!({"fromRequires": ["x"]})), "spec.ingress[0].fromRequires", "no longer supported"),
        (
            ingress(json!({"fromEndpoints": [{}, {"matchLabels": {"a": "-"}}]})),
            "spec.ingress[0].fromEndpoints[1].matchLabels[a]",
            "\"-\" is not a label value",
        ),
        (
            deny(json!({"toEndpoints": [{}], "toEntities": ["all"]})),
            "spec.egressDeny[0]",
            "combining toEndpoints and toEntities is not supported yet",
        ),
        (
            deny(json!({"toPorts": [{"ports": [{"port": "+1"}]}]})),
            "spec.egressDeny[0].toPorts[0].ports[0].port",
            "neither a port number",
        ),
        (
            ingress(json!({"authentication": {"mode": "maybe"}})),
            "spec.ingress[0].authentication.mode",
            "\"maybe\" is not a mode",
        ),
    ] {
        check(reduce_spec(spec), path, Malformed, reason);
    }
}

#[test]
fn icmp_messages() {
    let field = |field: Value| ingress(json!({"icmps": [{}, {"fields": [{"type": 8}, field]}]}));
    let path = |field: &str| format!("spec.ingress[0].icmps[1].fields[1].{field}");
    for (value, at, reason) in [
        (json!({"type": 256}), "type", "256 is not a type, they go from 0 to 255"),
        (json!({"type": -1}), "type", "-1 is not a type"),
        (json!({"type": "+8"}), "type", "\"+8\" is no ICMP type"),
        (json!({"type": "256"}), "type", "\"256\" is no ICMP type"),
        (json!({"type": "Echo", "family": "IPv6"}), "type", "\"Echo\" is no ICMP type of the family"),
        (
            json!({"type": "PacketTooBig", "family": "IPv4"}),
            "type",
            "\"PacketTooBig\" is no ICMP type of the family",
        ),
        (json!({"type": "echorequest"}), "type", "\"echorequest\" is no ICMP type"),
        (json!({"type": 8, "family": "IPX"}), "family", "\"IPX\" is neither IPv4 nor IPv6"),
    ] {
        check(reduce_spec(field(value)), &path(at), Malformed, reason);
    }
    let many = vec![json!({"type": 8}); 41];
    let spec = deny(json!({"icmps": [{"fields": many}]}));
    check(reduce_spec(spec), "spec.egressDeny[0].icmps[0].fields", Malformed, "41 messages are too many");
}

#[test]
fn prefixes() {
    let set = |rule: Value| egress(json!({"toCIDRSet": [{"cidr": "10.0.0.0/8"}, rule]}));
    for (spec, path, reason) in [
        (
            ingress(json!({"fromCIDR": ["10.0.0.0/8", "10.0.0.0/33"]})),
            "spec.ingress[0].fromCIDR[1]",
            "not a prefix",
        ),
        (ingress(json!({"fromCIDR": ["example.org"]})), "spec.ingress[0].fromCIDR[0]", "not a prefix"),
        (
            ingress(json!({"fromCIDR": ["::ffff:10.0.0.0/104"]})),
            "spec.ingress[0].fromCIDR[0]",
            "written as IPv6",
        ),
        (ingress(json!({"fromCIDR": ["::ffff:10.0.0.1"]})), "spec.ingress[0].fromCIDR[0]", "written as IPv6"),
        (set(json!({"cidr": "10.0.0.1"})), "spec.egress[0].toCIDRSet[1].cidr", "not a prefix"),
        (set(json!({})), "spec.egress[0].toCIDRSet[1]", "exactly one of cidr"),
        (
            set(json!({"cidr": "10.0.0.0/8", "cidrGroupRef": "x"})),
            "spec.egress[0].toCIDRSet[1]",
            "exactly one of",
        ),
        (
            set(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]})),
            "spec.egress[0].toCIDRSet[1].except[1]",
            "\"11.0.0.0/16\" does not lie inside of 10.0.0.0/8",
        ),
        (
            set(json!({"cidrGroupRef": "x", "cidrGroupSelector": {}})),
            "spec.egress[0].toCIDRSet[1]",
            "exactly one of",
        ),
        (
            set(json!({"cidrGroupRef": "x", "except": ["10.0.0.1"]})),
            "spec.egress[0].toCIDRSet[1].except[0]",
            "not a prefix",
        ),
        (
            set(json!({"cidrGroupSelector": {"matchLabels": {"a": "-"}}})),
            "spec.egress[0].toCIDRSet[1].cidrGroupSelector.matchLabels[a]",
            "not a label value",
        ),
        (
            set(json!({"cidr": "10.0.0.0/8", "except": ["::/0"]})),
            "spec.egress[0].toCIDRSet[1].except[0]",
            "does not lie inside",
        ),
        (
            set(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0"]})),
            "spec.egress[0].toCIDRSet[1].except[0]",
            "not a prefix",
        ),
    ] {
        check(reduce_spec(spec), path, Malformed, reason);
    }
}

#[test]
fn ports() {
    let out_of_range = "neither a port number from 0 to 65535 nor a port name";
    for (value, field, reason) in [
        (json!({"protocol": "TCP"}), "port", "port must be specified"),
        (json!({"port": ""}), "port", "port must be specified"),
        (json!({"port": "65536"}), "port", out_of_range),
        (json!({"port": "+80"}), "port", out_of_range),
        (json!({"port": "080"}), "port", out_of_range),
        (json!({"port": "a--b"}), "port", out_of_range),
        (json!({"port": "-a"}), "port", out_of_range),
        (json!({"port": "sixteen-letters-"}), "port", out_of_range),
        (json!({"port": "80", "endPort": 65536}), "endPort", "65536 is not a port"),
        (json!({"port": "80", "endPort": -1}), "endPort", "-1 is not a port"),
        (json!({"port": "80", "protocol": "ICMP"}), "protocol", "\"ICMP\" is not a protocol with ports"),
    ] {
        check(
            reduce_spec(port(value)),
            &format!("spec.ingress[0].toPorts[0].ports[0].{field}"),
            Malformed,
            reason,
        );
    }
    let many = vec![json!({"port": "80"}); 41];
    let spec = ingress(json!({"toPorts": [{}, {"ports": many}]}));
    check(reduce_spec(spec), "spec.ingress[0].toPorts[1].ports", Malformed, "41 ports are too many");
}

#[test]
fn what_this_version_cannot_enforce_is_refused_by_path() {
    let tls = json!({"secret": {"name": "x"}});
    let listener = json!({"envoyConfig": {"name": "x"}, "name": "l"});
    for (spec, path) in [
        (ingress(json!({"fromGroups": [{}]})), "spec.ingress[0].fromGroups"),
        (
            egress(json!({
                "toFQDNs": [{"matchName": "example.org"}],
                "toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}],
            })),
            "spec.egress[0].toPorts",
        ),
        (egress(json!({"toGroups": [{}]})), "spec.egress[0].toGroups"),
        (ingress(json!({"authentication": {"mode": "required"}})), "spec.ingress[0].authentication.mode"),
        (ingress(json!({"toPorts": [{"terminatingTLS": tls}]})), "spec.ingress[0].toPorts[0].terminatingTLS"),
        (ingress(json!({"toPorts": [{"originatingTLS": tls}]})), "spec.ingress[0].toPorts[0].originatingTLS"),
        (ingress(json!({"toPorts": [{"serverNames": ["x"]}]})), "spec.ingress[0].toPorts[0].serverNames"),
        (egress(json!({"toPorts": [{"listener": listener}]})), "spec.egress[0].toPorts[0].listener"),
        (ingress(json!({"toPorts": [{"rules": {"http": [{}]}}]})), "spec.ingress[0].toPorts[0].rules.http"),
        (egress(json!({"toPorts": [{"rules": {"kafka": [{}]}}]})), "spec.egress[0].toPorts[0].rules.kafka"),
        (port(json!({"port": "0", "protocol": "GRE"})), "spec.ingress[0].toPorts[0].ports[0].protocol"),
    ] {
        check(reduce_spec(spec), path, Unsupported, "cannot be enforced by this version");
    }
}

#[test]
fn what_is_turned_off_is_refused_with_the_flag_that_turns_it_on() {
    for (spec, path) in [
        (ingress(json!({"fromNodes": [{}]})), "spec.ingress[0].fromNodes"),
        (deny(json!({"toNodes": [{"matchLabels": {"zone": "a"}}]})), "spec.egressDeny[0].toNodes"),
    ] {
        check(reduce_spec(spec.clone()), path, Disabled, "flag enable-node-selector-labels");
        let mut policy = mk_cnp("default", Vec::new());
        policy.spec = Some(mk_rule(spec));
        policy.specs = None;
        let settings = reduce::Settings { node_selector_labels: true, ..CLUSTER.into() };
        reduce::cnp(&policy, settings).unwrap();
    }
    let nodes = json!({"nodeSelector": {}, "ingress": [{}]});
    check(reduce_clusterwide(nodes.clone()), "specs[0].nodeSelector", Disabled, "flag enable-host-firewall");
    let settings = reduce::Settings { host_firewall: true, ..CLUSTER.into() };
    reduce::ccnp(&mk_ccnp(vec![mk_rule(nodes)]), settings).unwrap();
    let rules = json!({"dns": [{"matchPattern": "*"}]});
    let asks =
        json!({"nodeSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "53"}], "rules": rules}]}]});
    let settings = reduce::Settings { host_firewall: true, ..CLUSTER.into() };
    let refused = reduce::ccnp(&mk_ccnp(vec![mk_rule(asks)]), settings);
    check(refused, "specs[0].egress", Unsupported, "a rule for DNS questions of a node");
}

#[test]
fn what_asks_for_nothing_special_is_accepted() {
    for spec in [
        json!({"endpointSelector": {}, "ingress": [{}], "ingressDeny": [], "egressDeny": []}),
        json!({"endpointSelector": {}, "ingressDeny": [{}]}),
        deny(json!({"toPorts": [{"ports": [{"port": "80"}]}]})),
        ingress(json!({"fromRequires": [], "authentication": {"mode": "disabled"}})),
        ingress(
            json!({"fromCIDR": [], "fromNodes": [], "fromGroups": [], "fromEndpoints": [{}], "icmps": []}),
        ),
        ingress(json!({"icmps": [{}, {"fields": []}]})),
        ingress(json!({"fromCIDR": ["192.0.2.1", "192.0.2.7/24", "2001:db8::/32", "0.0.0.0/0", "::/0"]})),
        egress(json!({"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "10.1.2.3/16"]}]})),
        ingress(json!({"fromCIDRSet": [{"cidrGroupRef": "x", "except": ["10.0.0.0/8", "::/0"]}]})),
        deny(
            json!({"toCIDRSet": [{"cidrGroupSelector": {}}, {"cidrGroupSelector": {"matchLabels": {"k8s:a": "b"}}}]}),
        ),
        egress(
            json!({"toServices": [{}, {"k8sService": {"namespace": "x"}}, {"k8sService": {"serviceName": "x"}}]}),
        ),
        deny(json!({"toServices": [{"k8sServiceSelector": {"selector": {}}}]})),
        egress(json!({"toFQDNs": [], "toServices": [], "toEntities": ["world-ipv4"]})),
        egress(json!({"toFQDNs": [{"matchName": "Example.org."}, {"matchPattern": "**.*x_y-.org"}]})),
        egress(json!({"toPorts": [{"rules": {"dns": []}}]})),
        ingress(json!({"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": []}}]})),
        port(json!({"port": "65535", "endPort": 0, "protocol": "SCTP"})),
        ingress(json!({"toPorts": [{"ports": vec![json!({"port": "1"}); 40]}]})),
    ] {
        reduce_spec(spec.clone()).unwrap_or_else(|invalid| panic!("{spec}: {invalid}"));
    }
}
