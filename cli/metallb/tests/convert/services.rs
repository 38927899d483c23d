//! What Services ask for.

use super::*;

#[test]
fn services_keep_what_they_ask_for() {
    let pools = [mk_pool("a", A), mk_advertisement("")].concat();
    for (annotations, spec, address, expected, fields) in [
        ("", "ports: []", "", "", [].as_slice()),
        ("", "ports: []", "{ip: 192.0.2.20}", "lbipam.cilium.io/ips=192.0.2.20", &[]),
        // Another controller gave it.
        ("", "ports: []", "{ip: 203.0.113.1}, {hostname: lb.test}", "", &[]),
        ("", "loadBalancerIP: 192.0.2.20", "{ip: 192.0.2.20}", "", &[]),
        (
            "metallb.universe.tf/loadBalancerIPs: '192.0.2.21, 192.0.2.22'",
            "ports: []",
            "{ip: 192.0.2.20}",
            "lbipam.cilium.io/ips=192.0.2.21,192.0.2.22",
            &[],
        ),
        (
            "metallb.io/loadBalancerIPs: 192.0.2.21, metallb.universe.tf/loadBalancerIPs: 192.0.2.22, lbipam.cilium.io/ips: 192.0.2.21",
            "ports: []",
            "",
            "",
            &[],
        ),
        (
            "metallb.io/loadBalancerIPs: 192.0.2.21",
            "loadBalancerIP: 192.0.2.22",
            "",
            "lbipam.cilium.io/ips=192.0.2.21",
            &["spec.loadBalancerIP"],
        ),
        (
            "metallb.io/loadBalancerIPs: 203.0.113.1",
            "ports: []",
            "",
            "lbipam.cilium.io/ips=203.0.113.1",
            &[""],
        ),
        ("metallb.io/allow-shared-ip: k", "ports: []", "", "lbipam.cilium.io/sharing-key=k", &[]),
        (
            "metallb.universe.tf/allow-shared-ip: \"it's; rm\"",
            "ports: []",
            "",
            r"lbipam.cilium.io/sharing-key='it'\''s; rm'",
            &[],
        ),
        (
            "metallb.io/allow-shared-ip: \"a\\Lb\"",
            "ports: []",
            "",
            "",
            &["metadata.annotations[metallb.io/allow-shared-ip]"],
        ),
        (
            "metallb.io/address-pool: a",
            "ports: []",
            "",
            "",
            &["metadata.annotations[metallb.io/address-pool]"],
        ),
        (
            "metallb.io/address-pool: a",
            "ports: []",
            "{ip: 192.0.2.20}",
            "lbipam.cilium.io/ips=192.0.2.20",
            &[],
        ),
        ("metallb.io/colour: red", "ports: []", "", "", &["metadata.annotations[metallb.io/colour]"]),
        (
            "metallb.io/ip-allocated-from-pool: a",
            "loadBalancerClass: example.org/metallb",
            "{ip: 192.0.2.20}",
            "lbipam.cilium.io/ips=192.0.2.20",
            &["spec.loadBalancerClass"],
        ),
    ] {
        let text = [pools.clone(), mk_service(annotations, spec, address)].concat();
        let found = run(&text, &mk_options());
        let lines: Vec<String> = found
            .text()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("# kubectl"))
            .map(str::to_owned)
            .collect();
        let expected: Vec<String> = Some(expected)
            .filter(|it| !it.is_empty())
            .map(|it| format!("# kubectl -n shop annotate service web --overwrite {it}"))
            .into_iter()
            .collect();
        assert_eq!(lines, expected, "{annotations} {spec}");
        let fields: Vec<String> =
            fields.iter().map(|it| format!("Service shop/web {it}").trim_end().to_owned()).collect();
        assert_eq!(noted(&found), fields, "{annotations} {spec}");
    }
}

#[test]
fn services_of_others_are_passed_over() {
    let text = "kind: List
apiVersion: v1
items:
- {apiVersion: v1, kind: Service, metadata: {name: a, annotations: {metallb.io/address-pool: a}}, spec: {type: ClusterIP}}
- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {type: LoadBalancer, loadBalancerClass: io.cilium/l2-announcer}}
- {apiVersion: v1, kind: Service, metadata: {name: c, namespace: x}, spec: {type: LoadBalancer, loadBalancerClass: example.org/cloud}}
- {apiVersion: v1, kind: Service, metadata: {name: d}, spec: {type: ClusterIP}}
";
    let found = run(text, &mk_options());
    assert!(found.is_complete() && found.services.is_empty(), "{found:?}");
    assert_eq!(
        found.report(),
        "Passed over: in.yaml, document 1, items[0]: Service default/a (its type is not LoadBalancer)
Passed over: in.yaml, document 1, items[1]: Service default/b (its class is another controller's)
Passed over: in.yaml, document 1, items[2]: Service x/c (its class is another controller's)
"
    );
}

#[test]
fn sharing_goes_across_namespaces_where_it_did() {
    let service = mk_service("metallb.io/allow-shared-ip: k", "ports: []", "");
    let texts = [service.clone(), service.replace("shop", "cart"), service.replace("shop", "bank")];
    let found = converted(&texts);
    let with: Vec<_> = found
        .services
        .iter()
        .map(|it| it.annotations["lbipam.cilium.io/sharing-cross-namespace"].as_str())
        .collect();
    assert_eq!(with, ["bank,cart", "bank,shop", "cart,shop"]);
    assert!(found.is_complete());
}
