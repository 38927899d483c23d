//! Random histories: what is planned step by step is what would be planned at once, and what changed is named.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::bgp::{BgpInstance, Route};
use cilium_bgp_plan::{Bgp, Changes, Config, NodeConfig, RouterIds};
use cilium_services::ServiceName;
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, of_services, rack, to_tor};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Clone, Debug)]
enum Step {
    Node(usize, bool),
    Cluster(usize, u8),
    Peer(u8),
    Advertisement(u8),
    Override(usize, bool),
    Secret(Option<u8>),
    Service(u8, u8, u8, u8),
    Plan,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, any::<bool>()).prop_map(|(node, is_there)| Step::Node(node, is_there)),
        (0..2_usize, 0..4_u8).prop_map(|(name, how)| Step::Cluster(name, how)),
        (0..4_u8).prop_map(Step::Peer),
        (0..5_u8).prop_map(Step::Advertisement),
        (0..3_usize, any::<bool>()).prop_map(|(node, is_there)| Step::Override(node, is_there)),
        proptest::option::of(0..3_u8).prop_map(Step::Secret),
        (0..3_u8, 0..4_u8, 0..4_u8, 0..8_u8).prop_map(|(a, b, c, d)| Step::Service(a, b, c, d)),
        Just(Step::Plan),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Node(at, true) => world.node(NODES[*at], u8::try_from(*at).unwrap() + 1),
        Step::Node(at, false) => world.bgp.remove_node(NODES[*at]),
        Step::Cluster(at, how) => cluster(world, ["one", "two"][*at], *how),
        Step::Peer(0) => world.bgp.set_peer("tor", None),
        Step::Peer(1) => world.peer("tor", json!({"families": [to_tor("ipv4")], "authSecretRef": "pw"})),
        Step::Peer(2) => world.peer("tor", json!({})),
        Step::Peer(_) => world.peer("tor", json!({"families": [to_tor("ipv4"), to_tor("ipv6")]})),
        Step::Advertisement(how) => advertisement(world, *how),
        Step::Override(at, true) => {
            world.different(NODES[*at], json!([{"name": "rack", "routerID": "192.0.2.99"}]));
        }
        Step::Override(at, false) => world.bgp.set_override(NODES[*at], None),
        Step::Secret(version) => {
            world.bgp.set_secret("pw", version.map(|it| it.to_string()).as_deref());
        }
        Step::Service(name, kind, policy, nodes) => service(world, *name, *kind, *policy, *nodes),
        Step::Plan => {}
    }
}

fn cluster(world: &mut World, name: &str, how: u8) {
    let selector = json!({"matchLabels": {"name": "n2"}});
    match how {
        0 => world.bgp.set_cluster(name, None),
        1 => world.cluster(name, json!({"bgpInstances": [rack()]})),
        2 => world.cluster(name, json!({"nodeSelector": selector, "bgpInstances": [rack()]})),
        _ => world.cluster(name, json!({"bgpInstances": [{"name": "rack"}, {"name": "b", "localASN": 7}]})),
    }
}

fn advertisement(world: &mut World, how: u8) {
    let mut aggregated = of_services(&["LoadBalancerIP", "ExternalIP"]);
    aggregated["service"]["aggregationLengthIPv4"] = json!(24);
    match how {
        0 => world.bgp.set_advertisement("a", None),
        1 => world.advertisement("a", json!([{"advertisementType": "PodCIDR"}])),
        2 => world.advertisement("a", json!([of_services(&["LoadBalancerIP", "ClusterIP"])])),
        3 => world.advertisement("a", json!([aggregated, {"advertisementType": "PodCIDR"}])),
        _ => world.advertisement("b", json!([of_services(&["ExternalIP"])])),
    }
}

/// Two of three may share their address; `nodes` has a bit for each node with a backend.
fn service(world: &mut World, name: u8, kind: u8, policy: u8, nodes: u8) {
    let service = ServiceName::new("shop", &format!("s{name}"));
    let spec = match policy {
        0 => json!({}),
        1 => json!({"externalTrafficPolicy": "Local"}),
        2 => json!({"internalTrafficPolicy": "Local"}),
        _ => json!({"loadBalancerClass": "example.com/other"}),
    };
    let with: Vec<&str> = (0..3).filter(|at| nodes >> at & 1 == 1).map(|at| NODES[at]).collect();
    match kind {
        0 => world.bgp.set_claim(&service, None),
        1 => world.bgp.set_served(&service, None),
        _ => world.service(&format!("s{name}"), name / 2 + 1, spec, &with),
    }
}

/// Somebody who knows only what changes name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Follower {
    instances: BTreeMap<(String, String), BgpInstance>,
    routes: BTreeMap<IpNet, Route>,
    node_routes: BTreeMap<(String, IpNet), Route>,
    node_configs: BTreeMap<String, NodeConfig>,
}

fn put<K: Ord, V>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(all.insert(key, value)),
        None => drop(all.remove(&key)),
    }
}

impl Follower {
    fn follow(&mut self, bgp: &Bgp, changes: &Changes) {
        for (node, name) in &changes.instances {
            put(&mut self.instances, (node.to_string(), name.clone()), bgp.instance(node, name).cloned());
        }
        for prefix in &changes.routes {
            put(&mut self.routes, *prefix, bgp.route(*prefix));
        }
        for (node, prefix) in &changes.node_routes {
            put(&mut self.node_routes, (node.to_string(), *prefix), bgp.node_route(node, *prefix));
        }
        for node in &changes.node_configs {
            put(&mut self.node_configs, node.to_string(), bgp.node_config(node).cloned());
        }
    }

    fn of(bgp: &Bgp) -> Self {
        let mut all = Self::default();
        for node in NODES {
            let instances = bgp.instances(node);
            all.instances.extend(instances.map(|(name, it)| ((node.to_owned(), name.clone()), it.clone())));
            for prefix in bgp.all_node_routes(node) {
                put(&mut all.node_routes, (node.to_owned(), prefix), bgp.node_route(node, prefix));
            }
            put(&mut all.node_configs, node.to_owned(), bgp.node_config(node).cloned());
        }
        for prefix in bgp.all_routes() {
            put(&mut all.routes, prefix, bgp.route(prefix));
        }
        all
    }
}

/// Keys of all that changes name, of what a follower knows.
type Keys = (BTreeSet<(String, String)>, BTreeSet<IpNet>, BTreeSet<(String, IpNet)>, BTreeSet<String>);

fn named(changes: &Changes) -> Keys {
    (
        changes.instances.iter().map(|(node, name)| (node.to_string(), name.clone())).collect(),
        changes.routes.clone(),
        changes.node_routes.iter().map(|(node, prefix)| (node.to_string(), *prefix)).collect(),
        changes.node_configs.iter().map(ToString::to_string).collect(),
    )
}

impl Follower {
    /// Keys of all that is not the same for another one.
    fn differing(&self, other: &Self) -> Keys {
        fn of<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
            old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
        }
        (
            of(&self.instances, &other.instances),
            of(&self.routes, &other.routes),
            of(&self.node_routes, &other.node_routes),
            of(&self.node_configs, &other.node_configs),
        )
    }
}

proptest! {
    #[test]
    fn step_by_step_is_as_at_once_and_changes_are_named(
        steps in proptest::collection::vec(step(), 1..60),
        with_pool in any::<bool>(),
        without_backends in any::<bool>(),
    ) {
        let router_ids =
            if with_pool { RouterIds::Pool("10.9.0.0/30".parse().unwrap()) } else { RouterIds::Node };
        let mut world = World::new(Config { router_ids, without_backends, ..Config::default() });
        let mut follower = Follower::default();
        for step in steps.iter().chain([&Step::Plan]) {
            take(&mut world, step);
            if matches!(step, Step::Plan) {
                let changes = world.bgp.plan();
                prop_assert_eq!(world.bgp.check(), Vec::<String>::new());
                prop_assert_eq!(&named(&changes), &follower.differing(&Follower::of(&world.bgp)));
                follower.follow(&world.bgp, &changes);
                prop_assert_eq!(&follower, &Follower::of(&world.bgp));
                prop_assert_eq!(world.bgp.plan(), Changes::default());
            }
        }
    }
}
