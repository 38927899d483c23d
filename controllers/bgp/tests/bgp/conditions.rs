//! What authors are told.

use cilium_api::condition::Condition;
use cilium_bgp_plan::{Bgp, Config, RouterIds};
use serde_json::{Value, json};

use crate::world::*;

/// Conditions as `type=status reason: message`.
fn lines(conditions: Option<Vec<Condition>>) -> Vec<String> {
    let line = |it: Condition| {
        let (reason, message) = (it.reason.unwrap(), it.message.unwrap_or_default());
        format!("{}={} {reason}: {message}", it.type_, it.status)
    };
    conditions.unwrap().into_iter().map(line).collect()
}

fn of_cluster(bgp: &mut Bgp, name: &str) -> Vec<String> {
    plan(bgp);
    lines(bgp.cluster_conditions(name))
}

fn of_peer(bgp: &mut Bgp) -> Vec<String> {
    plan(bgp);
    lines(bgp.peer_conditions("p"))
}

const MATCHING: &str = "cilium.io/NoMatchingNode=False MatchingNodeSelected: ";
const RESOLVED: &str = "cilium.io/MissingPeerConfigs=False PeerConfigsResolved: ";
const ALONE: &str = "cilium.io/ConflictingClusterConfig=False ClusterConfigValidated: ";
const VALID: &str = "Valid=True Valid: ";

#[test]
fn a_configuration_in_force_has_nothing_against_it() {
    let mut bgp = mk_bgp(json!([]));
    assert_eq!(of_cluster(&mut bgp, "c"), [MATCHING, RESOLVED, ALONE, VALID]);
    assert!(bgp.cluster_conditions("other").is_none() && bgp.peer_conditions("other").is_none());
}

#[test]
fn a_configuration_says_that_it_selects_no_node() {
    let mut bgp = mk_bgp(json!([]));
    bgp.remove_node("a");
    assert_eq!(of_cluster(&mut bgp, "c")[0], MATCHING);
    bgp.remove_node("b");
    assert_eq!(
        of_cluster(&mut bgp, "c")[0],
        "cilium.io/NoMatchingNode=True MatchingNodeUnavailable: No node matches spec.nodeSelector"
    );
}

#[test]
fn missing_peer_configurations_are_named_in_order() {
    let peer = |name: &str, config: &str| json!({"name": name, "peerAddress": "203.0.113.1", "peerConfigRef": {"name": config}});
    let peers = [peer("1", "z"), peer("2", "p"), peer("3", "b"), peer("4", "z")];
    let mut bgp = mk_bgp(json!([]));
    let spec = json!({"bgpInstances": [{"name": "r", "localASN": 65001, "peers": peers}]});
    bgp.set_cluster("c", Some(mk_cluster("c", 1, spec)));
    assert_eq!(
        of_cluster(&mut bgp, "c")[1],
        "cilium.io/MissingPeerConfigs=True PeerConfigsMissing: Referenced CiliumBGPPeerConfig(s) are missing: [b z]"
    );
    bgp.set_peer("z", Some(mk_peer(json!({}))));
    bgp.set_peer("b", Some(mk_peer(json!({}))));
    assert!(bgp.plan().clusters.iter().any(|name| &**name == "c"));
    assert_eq!(of_cluster(&mut bgp, "c")[1], RESOLVED);
}

#[test]
fn only_the_loser_of_a_conflict_is_told() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_cluster("aa", Some(mk_cluster("aa", 2, one_router())));
    plan(&mut bgp);
    assert_eq!(of_cluster(&mut bgp, "c"), [MATCHING, RESOLVED, ALONE, VALID]);
    assert_eq!(
        of_cluster(&mut bgp, "aa")[2],
        "cilium.io/ConflictingClusterConfig=True ClusterConfigConflict: Selecting the same node(s) with ClusterConfig(s): [c]"
    );
    // An older one takes the nodes from the one that had them.
    bgp.set_cluster("z", Some(mk_cluster("z", 0, one_router())));
    let lost = |to: &str| {
        format!(
            "cilium.io/ConflictingClusterConfig=True ClusterConfigConflict: Selecting the same node(s) with ClusterConfig(s): [{to}]"
        )
    };
    assert_eq!(of_cluster(&mut bgp, "z")[2], ALONE);
    assert_eq!(
        [of_cluster(&mut bgp, "c")[2].clone(), of_cluster(&mut bgp, "aa")[2].clone()],
        [lost("z"), lost("z")]
    );
    bgp.set_cluster("z", None);
    bgp.set_cluster("c", None);
    assert_eq!(of_cluster(&mut bgp, "aa")[2], ALONE);
}

#[test]
fn routers_that_do_not_run_are_named_with_the_first_node_and_the_reason() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_cluster("c", Some(mk_cluster("c", 1, json!({"bgpInstances": [{"name": "r"}]}))));
    assert_eq!(
        of_cluster(&mut bgp, "c")[3],
        "Valid=False NotInForce: instance r does not run on a and 1 others: it has no localASN"
    );
    let pool = RouterIds::Pool("198.51.100.8/32".parse().unwrap());
    let mut bgp = mk_bgp_of(Config { router_ids: pool, ..Config::default() }, json!([]));
    assert_eq!(
        of_cluster(&mut bgp, "c")[3],
        "Valid=False NotInForce: instance r does not run on b: the pool of router ids (bgp-router-id-allocation-ip-pool) is exhausted"
    );
    bgp.remove_node("a");
    assert_eq!(of_cluster(&mut bgp, "c")[3], VALID);
}

#[test]
fn a_secret_is_validated_missing_or_not_configured() {
    let secret = "cilium.io/MissingAuthSecret";
    let mut bgp = mk_bgp(json!([]));
    assert_eq!(
        of_peer(&mut bgp),
        [&format!("{secret}=False AuthSecretNotConfigured: Auth Secret is not configured"), VALID]
    );
    bgp.set_peer("p", Some(mk_peer(json!({"authSecretRef": "key"}))));
    let missing = format!("{secret}=True AuthSecretMissing: Referenced Auth Secret \"key\" is missing");
    assert_eq!(of_peer(&mut bgp)[0], missing);
    bgp.set_secret("key", Some("1"));
    assert!(bgp.plan().peers.contains("p"));
    assert_eq!(of_peer(&mut bgp)[0], format!("{secret}=False AuthSecretValidated: "));
    bgp.set_secret("key", None);
    assert_eq!(of_peer(&mut bgp)[0], missing);
}

#[test]
fn without_namespace_for_secrets_a_password_is_not_in_force() {
    let mut bgp = mk_bgp_of(Config { secrets: false, ..Config::default() }, json!([]));
    assert_eq!(of_peer(&mut bgp), [VALID]);
    bgp.set_peer("p", Some(mk_peer(json!({"authSecretRef": "key"}))));
    assert_eq!(
        of_peer(&mut bgp),
        [
            "Valid=False NotInForce: spec.authSecretRef: there is no namespace for Secrets (bgp-secrets-namespace)"
        ]
    );
}

#[test]
fn faults_of_an_advertisement_are_told_to_who_selects_it_and_no_more_than_five() {
    let communities = json!({"standard": ["a", "b", "c", "d", "e", "f", "g"]});
    let places: Value = json!([{"advertisementType": "PodCIDR", "attributes": {"communities": communities}}]);
    let mut bgp = mk_bgp(places);
    let told = of_peer(&mut bgp)[1].clone();
    let start = "Valid=False NotInForce: CiliumBGPAdvertisement x: spec.advertisements[0].attributes.communities.standard[0]: \"a\" is neither";
    assert!(told.starts_with(start) && told.ends_with("; and 2 more"), "{told}");
    assert_eq!(told.matches("CiliumBGPAdvertisement x: ").count(), 5);
    bgp.set_peer("p", Some(mk_peer(selecting("off"))));
    assert_eq!(of_peer(&mut bgp)[1], VALID);
}
