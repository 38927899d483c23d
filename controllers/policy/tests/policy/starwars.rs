//! The demo that users know.

use std::collections::BTreeSet;

use cilium_policy::{Flow, Host, Judgement, PolicyIndex, Side, entries_of, reduce, verdict};

use crate::support::{TCP, compile_all, mk_index, mk_key, reduce_spec};

const RULE1: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: rule1
  namespace: default
spec:
  description: "L3-L4 policy to restrict deathstar access to empire ships only"
  endpointSelector:
    matchLabels:
      org: empire
      class: deathstar
  ingress:
  - fromEndpoints:
    - matchLabels:
        org: empire
    toPorts:
    - ports:
      - port: "80"
        protocol: TCP
"#;

const DEATHSTAR: u32 = 300;
const TIEFIGHTER: u32 = 301;
const XWING: u32 = 302;
const OTHER_EMPIRE: u32 = 303;
const ALL: [u32; 4] = [DEATHSTAR, TIEFIGHTER, XWING, OTHER_EMPIRE];

fn galaxy() -> PolicyIndex {
    mk_index(&[
        (DEATHSTAR, "default", &["org=empire", "class=deathstar"]),
        (TIEFIGHTER, "default", &["org=empire", "class=tiefighter"]),
        (XWING, "default", &["org=alliance", "class=xwing"]),
        (OTHER_EMPIRE, "elsewhere", &["org=empire", "class=tiefighter"]),
    ])
}

fn with_rule1() -> PolicyIndex {
    let mut index = galaxy();
    let policy = serde_yaml::from_str(RULE1).unwrap();
    index.set_policy(&reduce::cnp_key(&policy), Some(reduce::cnp(&policy, "kind").unwrap()));
    index
}

#[test]
fn without_policy_everything_passes() {
    assert!(compile_all(&galaxy(), &ALL).is_empty());
}

#[test]
fn rule1_concerns_the_deathstar_only() {
    let mut index = with_rule1();
    assert_eq!(index.take_affected(), BTreeSet::from([DEATHSTAR]));
    assert_eq!(index.selected(&mk_key("rule1")), BTreeSet::from([DEATHSTAR]));
    assert_eq!(index.selecting(DEATHSTAR), BTreeSet::from([mk_key("rule1")]));
    for number in [TIEFIGHTER, XWING, OTHER_EMPIRE] {
        assert_eq!(index.compile(number, Host::Plain), None);
    }
    let policy = index.compile(DEATHSTAR, Host::Plain).unwrap();
    assert_eq!(
        serde_json::to_string(&policy).unwrap(),
        r#"{"ingress":{"enforced":true,"closedBy":[0],"allow":[[1,0,0,0,[]],[300,6,80,80,[0]],[301,6,80,80,[0]]]},"egress":{},"origins":["cnp/default/rule1"]}"#
    );
    assert_eq!(entries_of(&policy, &mk_key("rule1")), 2);
    assert_eq!(entries_of(&policy, &mk_key("rule2")), 0);
}

#[test]
fn ships_of_the_empire_land_and_nobody_else() {
    let policies = compile_all(&with_rule1(), &ALL);
    let land = |source, port| {
        let flow =
            Flow { source, destination: DEATHSTAR, protocol: TCP, destination_port: port, addresses: None };
        verdict(&policies, &flow)
    };
    let landed = land(TIEFIGHTER, 80);
    assert!(landed.allowed());
    assert_eq!(landed.egress, Judgement::NotEnforced);
    assert_eq!(landed.ingress, Judgement::Granted(vec!["cnp/default/rule1"]));
    assert_eq!(landed.origins(), BTreeSet::from(["cnp/default/rule1"]));
    assert_eq!(land(XWING, 80).denied_by(), Some(Side::Ingress));
    assert_eq!(land(TIEFIGHTER, 443).denied_by(), Some(Side::Ingress));
    assert_eq!(
        land(OTHER_EMPIRE, 80).denied_by(),
        Some(Side::Ingress),
        "peers are of the policy's namespace"
    );
    assert_eq!(land(9, 80).denied_by(), Some(Side::Ingress));
    assert_eq!(land(6, 80).denied_by(), Some(Side::Ingress));
    assert_eq!(land(1, 80).ingress, Judgement::LocalHost);
}

#[test]
fn a_new_ship_of_the_empire_may_land() {
    let mut index = with_rule1();
    index.take_affected();
    index.set_identity(310, Some(crate::support::mk_labels("default", &["org=empire", "class=shuttle"])));
    assert_eq!(index.take_affected(), BTreeSet::from([DEATHSTAR, 310]));
    let policies = compile_all(&index, &ALL);
    assert!(
        verdict(
            &policies,
            &Flow {
                source: 310,
                destination: DEATHSTAR,
                protocol: TCP,
                destination_port: 80,
                addresses: None
            }
        )
        .allowed()
    );
}

#[test]
fn deletion_opens_again() {
    let mut index = with_rule1();
    index.take_affected();
    index.set_policy(&mk_key("rule1"), None);
    assert_eq!(index.take_affected(), BTreeSet::from([DEATHSTAR]));
    assert_eq!(index.compile(DEATHSTAR, Host::Plain), None);
    assert!(index.selected(&mk_key("rule1")).is_empty());
    assert!(!index.contains(&mk_key("rule1")));
}

#[test]
fn a_refused_version_leaves_the_last_one_in_force() {
    let mut index = with_rule1();
    let before = compile_all(&index, &ALL);
    let edited = reduce_spec(serde_json::json!({
        "endpointSelector": {"matchLabels": {"org": "empire", "class": "deathstar"}},
        "ingress": [{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"path": "/v1"}]}}]}],
    }));
    let refused = edited.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "spec.ingress[0].toPorts[0].rules.http: a rule for HTTP requests cannot be enforced by this version"
    );
    assert!(index.take_affected().contains(&DEATHSTAR));
    assert_eq!(compile_all(&index, &ALL), before);
}
