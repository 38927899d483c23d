//! Router ids: of the node, of its name, and out of a pool.

use cilium_api::bgp_node_config::{BgpNodeConfigSpec, BgpNodeInstance};
use cilium_bgp_plan::{Bgp, Config, RouterIds};
use serde_json::{Value, json};

use crate::world::*;

fn id(bgp: &Bgp, node: &str) -> Option<String> {
    let spec = &bgp.node_config(node)?.spec;
    let told = bgp.instance(node, "r").map(|it| it.router_id.to_string());
    assert_eq!(spec.bgp_instances[0].router_id, told);
    told
}

fn mk_pool(prefix: &str) -> Config {
    Config { router_ids: RouterIds::Pool(prefix.parse().unwrap()), ..Config::default() }
}

fn recorded(id: &str) -> BgpNodeConfigSpec {
    let instance = BgpNodeInstance { name: "r".to_owned(), router_id: Some(id.to_owned()), ..mk_instance() };
    BgpNodeConfigSpec { bgp_instances: vec![instance] }
}

fn mk_instance() -> BgpNodeInstance {
    serde_json::from_value(json!({"name": "r"})).unwrap()
}

fn ids(bgp: &mut Bgp, nodes: &[&str]) -> Vec<Option<String>> {
    plan(bgp);
    nodes.iter().map(|node| id(bgp, node)).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn a_node_has_its_first_address_of_ipv4() {
    let mut bgp = mk_bgp(json!([]));
    bgp.set_node("a", mk_labels(&[]), &[ip("2001:db8::1"), ip("192.0.2.77"), ip("192.0.2.78")], &[]);
    assert_eq!(ids(&mut bgp, &["a", "b"]), some(&["192.0.2.77", "192.0.2.2"]));
}

#[test]
fn without_ipv4_the_name_gives_one_that_stays() {
    let derived = |others: &[&str]| {
        let mut bgp = mk_bgp(json!([]));
        others.iter().for_each(|node| set_node(&mut bgp, node));
        for node in ["six-1", "six-2"] {
            bgp.set_node(node, mk_labels(&[]), &[ip("2001:db8::1")], &[]);
        }
        ids(&mut bgp, &["six-1", "six-2"])
    };
    let first = derived(&[]);
    assert!(first[0].is_some() && first[0] != first[1], "{first:?}");
    assert_eq!(first, derived(&["c", "d"]));
}

#[test]
fn a_pool_gives_each_router_one_of_its_own() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.0/29"), json!([]));
    assert_eq!(ids(&mut bgp, &["a", "b"]), some(&["198.51.100.1", "198.51.100.2"]));
    set_node(&mut bgp, "0");
    bgp.remove_node("a");
    // What is free goes on; nobody else moves.
    assert_eq!(ids(&mut bgp, &["0", "b"]), some(&["198.51.100.1", "198.51.100.2"]));
}

#[test]
fn what_is_recorded_is_kept_if_the_pool_has_it() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.0/29"), json!([]));
    set_node(&mut bgp, "c");
    bgp.set_recorded("a", Some(&recorded("203.0.113.9")));
    bgp.set_recorded("b", Some(&recorded("198.51.100.1")));
    bgp.set_recorded("c", Some(&recorded("198.51.100.1")));
    assert_eq!(ids(&mut bgp, &["a", "b", "c"]), some(&["198.51.100.2", "198.51.100.1", "198.51.100.3"]));
}

#[test]
fn a_router_for_which_there_is_none_waits_for_one() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.8/32"), json!([{"advertisementType": "PodCIDR"}]));
    assert_eq!(ids(&mut bgp, &["a", "b"]), [Some("198.51.100.8".to_owned()), None]);
    assert_eq!((of_node(&mut bgp, "a").len(), of_node(&mut bgp, "b").len()), (1, 0));
    bgp.remove_node("a");
    assert_eq!(ids(&mut bgp, &["b"]), some(&["198.51.100.8"]));
    assert_eq!(of_node(&mut bgp, "b"), ["10.2.0.0/24 x/0"]);
}

#[test]
fn an_override_needs_none_of_the_pool() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.8/32"), json!([]));
    let different: Value = json!({"bgpInstances": [{"name": "r", "routerID": "192.0.2.200"}]});
    plan(&mut bgp);
    bgp.set_override("a", Some(mk_override(different)));
    assert_eq!(ids(&mut bgp, &["a", "b"]), some(&["192.0.2.200", "198.51.100.8"]));
}

#[test]
fn what_an_override_tells_goes_to_nobody_else() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.0/29"), json!([]));
    set_node(&mut bgp, "c");
    bgp.set_recorded("b", Some(&recorded("198.51.100.2")));
    let tells = |id: &str| Some(mk_override(json!({"bgpInstances": [{"name": "r", "routerID": id}]})));
    // Its node need not be there.
    bgp.set_override("later", tells("198.51.100.1"));
    bgp.set_override("c", tells("198.51.100.2"));
    assert_eq!(ids(&mut bgp, &["a", "b", "c"]), some(&["198.51.100.3", "198.51.100.4", "198.51.100.2"]));
    bgp.set_override("later", tells("198.51.100.3"));
    assert_eq!(ids(&mut bgp, &["a", "b", "c"]), some(&["198.51.100.1", "198.51.100.4", "198.51.100.2"]));
}

#[test]
fn a_router_waits_while_an_override_tells_the_last_one() {
    let mut bgp = mk_bgp_of(mk_pool("198.51.100.8/32"), json!([]));
    assert_eq!(ids(&mut bgp, &["a"]), some(&["198.51.100.8"]));
    bgp.set_override(
        "b",
        Some(mk_override(json!({"bgpInstances": [{"name": "r", "routerID": "198.51.100.8"}]}))),
    );
    assert_eq!(ids(&mut bgp, &["a", "b"]), [None, Some("198.51.100.8".to_owned())]);
    bgp.set_override("b", None);
    // The first of those that wait.
    assert_eq!(ids(&mut bgp, &["a", "b"]), [Some("198.51.100.8".to_owned()), None]);
}
