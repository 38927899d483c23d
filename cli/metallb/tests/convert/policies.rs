//! Advertisements.

use cilium_metallb::Options;

use super::*;

#[test]
fn an_advertisement_of_some_pools_selects_their_services() {
    let shop = mk_pool("shop", &format!("{B}, serviceAllocation: {{namespaces: [shop]}}"));
    for (spec, selector, says) in [
        ("ipAddressPools: [a]", "", Some("addresses of shop are announced, too")),
        (
            "ipAddressPools: [shop]",
            r#","serviceSelector":{"matchLabels":{"io.kubernetes.service.namespace":"shop"}}"#,
            Some("Services of these pools that have an address of a are announced with it, too"),
        ),
        (
            "ipAddressPoolSelectors: [{matchLabels: {pool: shop}}]",
            r#","serviceSelector":{"matchLabels":{"io.kubernetes.service.namespace":"shop"}}"#,
            Some("Services of these pools that have an address of a are announced with it, too"),
        ),
        ("ipAddressPools: [a, shop]", "", None),
        (
            "ipAddressPools: [a], ipAddressPoolSelectors: [{matchExpressions: [{key: pool, operator: Exists}]}]",
            "",
            None,
        ),
    ] {
        let found = converted(&[mk_pool("a", A), shop.clone(), mk_advertisement(spec)]);
        assert_eq!(
            objects(&found)[2],
            format!(r#"policy lan {{"loadBalancerIPs":true,{NODES}{selector}}}"#),
            "{spec}"
        );
        let of_policy = found.notes.iter().find(|note| note.object == "L2Advertisement lan");
        assert_eq!(of_policy.map(|note| note.field.as_str()), says.map(|_| "spec.ipAddressPools"));
        assert!(of_policy.is_none_or(|note| note.meaning.ends_with(says.unwrap())), "{of_policy:?}");
    }
}

#[test]
fn what_no_advertisement_is_for_is_named() {
    let found = converted(&[mk_pool("a", A), mk_advertisement("ipAddressPools: [gone]")]);
    assert_eq!(objects(&found).len(), 1);
    assert_eq!(
        noted(&found),
        ["L2Advertisement lan spec.ipAddressPools", "L2Advertisement lan", "IPAddressPool a"]
    );
    let found = converted(&[mk_pool("a", A)]);
    assert_eq!(noted(&found), ["IPAddressPool a"]);
    assert!(found.notes[0].meaning.ends_with("MetalLB does not announce its addresses"), "{found:?}");
}

#[test]
fn alternatives_become_policies() {
    let found = converted(&[
        mk_pool("a", A),
        mk_advertisement(
            "nodeSelectors: [{matchLabels: {host: n1}}, {matchLabels: {host: n2}}, {matchLabels: {rack: r1, disk: ssd}}],
             serviceSelectors: [{matchLabels: {app: web}}], interfaces: [eth0.100, br+lan]",
        ),
    ]);
    let excluded =
        r#"{"key":"node.kubernetes.io/exclude-from-external-load-balancers","operator":"DoesNotExist"}"#;
    let rest = r#""serviceSelector":{"matchLabels":{"app":"web"}}"#;
    let interfaces = r#""interfaces":["^eth0\\.100$","^br\\+lan$"],"loadBalancerIPs":true"#;
    assert_eq!(
        objects(&found)[1..],
        [
            format!(
                r#"policy lan-1 {{{interfaces},"nodeSelector":{{"matchExpressions":[{{"key":"host","operator":"In","values":["n1","n2"]}},{excluded}]}},{rest}}}"#
            ),
            format!(
                r#"policy lan-2 {{{interfaces},"nodeSelector":{{"matchExpressions":[{excluded}],"matchLabels":{{"disk":"ssd","rack":"r1"}}}},{rest}}}"#
            ),
        ]
    );
    assert!(found.is_complete());
}

#[test]
fn options_reach_policies() {
    let text = [mk_pool("a", A), mk_advertisement("")].concat();
    let options = Options {
        moved_label: Some(("moved".to_owned(), "yes".to_owned())),
        ignore_exclude_lb: true,
        ..mk_options()
    };
    assert_eq!(
        objects(&run(&text, &options))[1],
        r#"policy lan {"loadBalancerIPs":true,"serviceSelector":{"matchLabels":{"moved":"yes"}}}"#
    );
}
