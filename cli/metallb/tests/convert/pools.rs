//! Pools, in all forms that they had.

use super::*;

#[test]
fn a_pool_and_an_advertisement_for_all() {
    let text = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first
  namespace: metallb-system
  labels: {tier: public}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: x}
spec:
  addresses: [192.0.2.7/28, 192.0.2.32-192.0.2.40, 2001:db8::/120]
status: {assignedIPv4: 3}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
";
    let converted = run(text, &mk_options());
    let expected = "apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata:
  labels:
    tier: public
  name: first
spec:
  blocks:
  - cidr: 192.0.2.0/28
  - start: 192.0.2.32
    stop: 192.0.2.40
  - cidr: 2001:db8::/120
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata:
  name: lan
spec:
  loadBalancerIPs: true
  nodeSelector:
    matchExpressions:
    - key: node.kubernetes.io/exclude-from-external-load-balancers
      operator: DoesNotExist
";
    assert_eq!(converted.text().unwrap(), expected);
    assert_eq!(converted.report(), "");
    assert!(converted.is_complete());
}

#[test]
fn avoid_buggy_ips() {
    let pool = |addresses: &str| {
        let spec = format!("addresses: [{addresses}], avoidBuggyIPs: true");
        converted(&[mk_pool("a", &spec), mk_advertisement("")])
    };
    let found = pool("192.0.2.0/23");
    assert_eq!(
        objects(&found)[0],
        r#"pool a {"blocks":[{"start":"192.0.2.1","stop":"192.0.2.254"},{"start":"192.0.3.1","stop":"192.0.3.254"}]}"#
    );
    assert!(found.is_complete());
    let found = pool("10.0.0.0/15");
    assert_eq!(objects(&found)[0], r#"pool a {"blocks":[{"cidr":"10.0.0.0/15"}]}"#);
    assert_eq!(noted(&found), ["IPAddressPool a spec.avoidBuggyIPs"]);
    assert!(meaning(&found, "spec.avoidBuggyIPs").contains("allowFirstLastIPs"), "{found:?}");
    let found = pool("192.0.2.255/32");
    assert_eq!(objects(&found)[0], r#"pool a {"blocks":[]}"#);
    assert!(meaning(&found, "spec.avoidBuggyIPs").ends_with("so none is left"), "{found:?}");
}

#[test]
fn a_pool_that_waits_to_be_asked_is_for_those_with_a_label() {
    let pool = mk_pool("a", &format!("{A}, autoAssign: false"));
    let found = converted(&[
        pool.clone(),
        mk_advertisement(""),
        mk_service("metallb.io/address-pool: a", "ports: []", ""),
    ]);
    assert_eq!(
        objects(&found)[0],
        r#"pool a {"blocks":[{"cidr":"192.0.2.16/28"}],"serviceSelector":{"matchLabels":{"ip-pool":"a"}}}"#
    );
    let expected = "
# Services keep what they ask for with these:
# kubectl -n shop label service web --overwrite ip-pool=a
";
    assert!(found.text().unwrap().ends_with(expected), "{}", found.text().unwrap());
    assert_eq!(
        found.report(),
        "Without a counterpart, or with another meaning:
- IPAddressPool a spec.autoAssign: a pool cannot wait to be asked for; it is for Services with the label ip-pool=a.
  What to do: set the label on Services that ask for the pool or for one of its addresses; commands for those that were given are in the output.
"
    );
    // Who asks for an address asks for its pool.
    let found = converted(&[pool, mk_advertisement(""), mk_service("", "loadBalancerIP: 192.0.2.17", "")]);
    assert_eq!(found.services[0].labels.get("ip-pool").map(String::as_str), Some("a"));
    assert!(found.services[0].annotations.is_empty(), "{found:?}");

    let long = "a".repeat(64);
    let found = converted(&[mk_pool(&long, &format!("{A}, autoAssign: false")), mk_advertisement("")]);
    assert_eq!(
        objects(&found)[0],
        format!(r#"pool {long} {{"blocks":[{{"cidr":"192.0.2.16/28"}}],"disabled":true}}"#)
    );
}

#[test]
fn service_allocation() {
    let pool = |allocation: &str| {
        let spec = format!("{A}, serviceAllocation: {{{allocation}}}");
        converted(&[mk_pool("a", &spec), mk_advertisement("")])
    };
    for (allocation, selector, fields) in [
        ("priority: 5", "", [].as_slice()),
        (
            "namespaces: [shop]",
            r#","serviceSelector":{"matchLabels":{"io.kubernetes.service.namespace":"shop"}}"#,
            &[],
        ),
        (
            "namespaces: [shop, cart], serviceSelectors: [{matchLabels: {app: web}}]",
            r#","serviceSelector":{"matchExpressions":[{"key":"io.kubernetes.service.namespace","operator":"In","values":["cart","shop"]}],"matchLabels":{"app":"web"}}"#,
            &[],
        ),
        (
            "serviceSelectors: [{matchLabels: {app: web}}, {matchExpressions: [{key: app, operator: In, values: [api, web]}]}]",
            r#","serviceSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]}"#,
            &[],
        ),
        (
            "serviceSelectors: [{matchLabels: {app: web}}, {matchLabels: {tier: edge}}]",
            r#","disabled":true"#,
            &["IPAddressPool a spec.serviceAllocation.serviceSelectors"],
        ),
        (
            "namespaceSelectors: [{matchLabels: {team: blue}}]",
            r#","disabled":true"#,
            &["IPAddressPool a spec.serviceAllocation.namespaceSelectors"],
        ),
        (
            "namespaces: [shop], namespaceSelectors: [{matchLabels: {team: blue}}]",
            r#","serviceSelector":{"matchLabels":{"io.kubernetes.service.namespace":"shop"}}"#,
            &["IPAddressPool a spec.serviceAllocation.namespaceSelectors"],
        ),
        ("shape: round", "", &["IPAddressPool a spec.serviceAllocation.shape"]),
    ] {
        let found = pool(allocation);
        assert_eq!(
            objects(&found)[0],
            format!(r#"pool a {{"blocks":[{{"cidr":"192.0.2.16/28"}}]{selector}}}"#)
        );
        assert_eq!(noted(&found), fields, "{allocation}");
    }
}

#[test]
fn pools_come_in_the_order_in_which_they_are_preferred() {
    let pinned = |priority: u8, n: u8| {
        format!("addresses: [10.0.{n}.0/24], serviceAllocation: {{priority: {priority}}}")
    };
    let found = converted(&[
        mk_pool("rest", A),
        mk_pool("none", &pinned(0, 1)),
        mk_pool("late", &pinned(20, 2)),
        mk_pool("early", &pinned(10, 3)),
        mk_advertisement(""),
    ]);
    let names: Vec<_> = found.objects.iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["early", "late", "none", "rest", "lan"]);
    let expected =
        ["early", "late", "none"].map(|name| format!("IPAddressPool {name} spec.serviceAllocation"));
    assert_eq!(noted(&found), expected);
    assert!(meaning(&found, "spec.serviceAllocation").contains("the oldest pool gives first"));
}

#[test]
fn address_pools_say_themselves_how_they_are_announced() {
    let mk = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: metallb.io/v1beta1, kind: AddressPool, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let found = converted(&[
        mk("a", &format!("protocol: layer2, {A}")),
        mk("b", &format!("protocol: layer2, {B}, avoidBuggyIPs: true")),
    ]);
    assert_eq!(
        objects(&found),
        [
            r#"pool a {"blocks":[{"cidr":"192.0.2.16/28"}]}"#.to_owned(),
            r#"pool b {"blocks":[{"cidr":"198.51.100.16/28"}]}"#.to_owned(),
            format!(r#"policy layer2 {{"loadBalancerIPs":true,{NODES}}}"#),
        ]
    );
    assert!(found.is_complete());
    let found = converted(&[mk("a", &format!("protocol: bgp, {A}, bgpAdvertisements: [{{localPref: 1}}]"))]);
    assert_eq!(
        noted(&found),
        ["AddressPool a spec.protocol", "AddressPool a spec.bgpAdvertisements", "AddressPool a"]
    );
    assert!(found.notes[2].meaning.ends_with("does not announce its addresses, unless by BGP"), "{found:?}");
}

#[test]
fn the_config_map_is_read() {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: metallb-system}
data:
  config: |
    peers: [{peer-address: 10.0.0.1, peer-asn: 64501, my-asn: 64500}]
    address-pools:
    - name: default
      protocol: layer2
      addresses: [192.0.2.0/24]
      avoid-buggy-ips: true
    - name: asked
      protocol: layer2
      addresses: [198.51.100.0/28]
      auto-assign: false
      colour: red
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {config: 'listen: 80'}
";
    let found = run(text, &mk_options());
    assert_eq!(
        objects(&found),
        [
            r#"pool default {"blocks":[{"start":"192.0.2.1","stop":"192.0.2.254"}]}"#.to_owned(),
            r#"pool asked {"blocks":[{"cidr":"198.51.100.0/28"}],"serviceSelector":{"matchLabels":{"ip-pool":"asked"}}}"#.to_owned(),
            format!(r#"policy layer2 {{"loadBalancerIPs":true,{NODES}}}"#),
        ]
    );
    assert_eq!(
        noted(&found),
        [
            "ConfigMap config data.config.address-pools[1].colour",
            "ConfigMap config data.config.peers",
            "ConfigMap config data.config.address-pools[1].auto-assign"
        ]
    );
    assert_eq!(
        found.passed_over,
        ["in.yaml, document 2: ConfigMap other (it is no configuration of MetalLB)"]
    );
}
