//! Random histories: what is decided after many changes is what would be decided at once, and what is named is what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use cilium_api::bgp::{BgpInstance, Route};
use cilium_api::condition::Condition;
use cilium_bgp_plan::{Bgp, Changes, Config, NodeConfig, RouterIds, Served};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::*;

const NODES: [&str; 4] = ["a", "b", "c", "d"];
const CLUSTERS: [&str; 3] = ["c1", "c2", "c3"];
const PEERS: [&str; 2] = ["p", "q"];
const ADVERTISEMENTS: [&str; 2] = ["x", "y"];
const SERVICES: [&str; 4] = ["s0", "s1", "s2", "s3"];
const LABELS: [&str; 2] = ["on", "off"];
const APPS: [&str; 2] = ["web", "db"];
const SECRETS: [&str; 2] = ["k0", "k1"];
const ADDRESS_KINDS: [&str; 3] = ["ClusterIP", "LoadBalancerIP", "ExternalIP"];

#[derive(Clone, Debug)]
struct ClusterModel {
    second: u8,
    zone: Option<usize>,
    /// AS numbers of its routers, and the peer configuration of the peer of each.
    routers: Vec<(Option<u32>, Option<usize>)>,
}

#[derive(Clone, Debug)]
struct ServiceModel {
    app: usize,
    class: Option<&'static str>,
    /// Last bytes of its cluster, balanced and external addresses; those of IPv6 from [`IPV6`] on.
    addresses: [Vec<u8>; 3],
    local: (bool, bool),
    backends: Vec<usize>,
}

/// A place of an advertisement: kind of address, or prefixes of pods; app; length of aggregates; community.
type PlaceModel = (Option<usize>, Option<usize>, Option<u8>, Option<u16>);

/// Bytes from this one on belong to addresses of IPv6, and backends on every second node have such.
const IPV6: u8 = 12;

/// Addresses of nodes: none, of one family, of both.
const NODE_ADDRESSES: [&[&str]; 4] =
    [&[], &["198.51.100.77"], &["2001:db8:1::77"], &["2001:db8:1::78", "198.51.100.78"]];

#[derive(Clone, Debug)]
enum Step {
    Cluster(usize, Option<ClusterModel>),
    /// Label that it selects, and its Secret.
    Peer(usize, Option<(Option<usize>, Option<usize>)>),
    Advertisement(usize, Option<(usize, Vec<PlaceModel>)>),
    /// AS number and last byte of the router id of `r0`.
    Override(usize, Option<(Option<u32>, Option<u8>)>),
    Secret(usize, Option<u8>),
    /// Its zone, its addresses, and bytes of prefixes of its pods: those of IPv6 from 4 on.
    Node(usize, Option<(usize, usize, Vec<u8>)>),
    Service(usize, Option<ServiceModel>),
    Plan,
}

fn cluster() -> impl Strategy<Value = ClusterModel> {
    let router = (option::weighted(0.9, 1..5_u32), option::weighted(0.9, 0..PEERS.len()));
    (0..3_u8, option::of(0..2_usize), vec(router, 1..3)).prop_map(|(second, zone, routers)| ClusterModel {
        second,
        zone,
        routers,
    })
}

fn service() -> impl Strategy<Value = ServiceModel> {
    let class = prop_oneof![6 => Just(None), 1 => Just(Some("io.cilium/bgp-control-plane")), 1 => Just(Some("other"))];
    let bytes = || vec(0..IPV6 + 6, 0..3);
    let addresses = (bytes(), bytes(), bytes());
    let local = (prop::bool::weighted(0.3), prop::bool::weighted(0.5));
    (0..APPS.len(), class, addresses, local, vec(0..NODES.len(), 0..3)).prop_map(
        |(app, class, (cluster, balanced, external), local, backends)| ServiceModel {
            app,
            class,
            addresses: [cluster, balanced, external],
            local,
            backends,
        },
    )
}

fn advertisement() -> impl Strategy<Value = (usize, Vec<PlaceModel>)> {
    let length = option::weighted(0.4, prop_oneof![Just(24_u8), Just(29), Just(30)]);
    let place = (
        option::weighted(0.8, 0..ADDRESS_KINDS.len()),
        option::weighted(0.9, 0..APPS.len()),
        length,
        option::of(0..3_u16),
    );
    (0..LABELS.len(), vec(place, 0..3))
}

fn step() -> impl Strategy<Value = Step> {
    let peer = (option::weighted(0.9, 0..LABELS.len()), option::of(0..SECRETS.len()));
    let different = (option::of(5..8_u32), option::of(0..10_u8));
    let node = (0..2_usize, 0..NODE_ADDRESSES.len(), vec(0..8_u8, 0..3));
    prop_oneof![
        3 => (0..CLUSTERS.len(), option::weighted(0.8, cluster())).prop_map(|(at, it)| Step::Cluster(at, it)),
        3 => (0..PEERS.len(), option::weighted(0.8, peer)).prop_map(|(at, it)| Step::Peer(at, it)),
        3 => (0..ADVERTISEMENTS.len(), option::weighted(0.8, advertisement()))
            .prop_map(|(at, it)| Step::Advertisement(at, it)),
        2 => (0..NODES.len(), option::of(different)).prop_map(|(at, it)| Step::Override(at, it)),
        1 => (0..SECRETS.len(), option::of(0..3_u8)).prop_map(|(at, it)| Step::Secret(at, it)),
        4 => (0..NODES.len(), option::weighted(0.8, node)).prop_map(|(at, it)| Step::Node(at, it)),
        5 => (0..SERVICES.len(), option::weighted(0.8, service())).prop_map(|(at, it)| Step::Service(at, it)),
        4 => Just(Step::Plan),
    ]
}

/// A Service has addresses, and another one has them instead: with one plan, or with one in between.
fn takeover() -> impl Strategy<Value = Vec<Step>> {
    let names = (0..SERVICES.len(), 1..SERVICES.len());
    (names, service(), any::<bool>(), any::<bool>()).prop_map(|((from, by), service, is_later, is_first)| {
        let to = (from + by) % SERVICES.len();
        let (goes, comes) = (Step::Service(from, None), Step::Service(to, Some(service.clone())));
        let between = if is_later { Step::Plan } else { comes.clone() };
        let [one, other] = if is_first { [comes, goes] } else { [goes, comes] };
        vec![Step::Service(from, Some(service)), Step::Plan, one, between, other, Step::Plan]
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = prop_oneof![12 => step().prop_map(|it| vec![it]), 1 => takeover()];
    vec(some, 1..60).prop_map(|all| all.concat())
}

impl ClusterModel {
    fn spec(&self) -> Value {
        let router = |(at, (asn, config)): (usize, &(Option<u32>, Option<usize>))| {
            let config = config.map(|at| json!({"name": PEERS[at]}));
            let peer =
                json!({"name": "t", "peerAddress": "203.0.113.1", "peerASN": 65000, "peerConfigRef": config});
            json!({"name": format!("r{at}"), "localASN": asn, "peers": [peer]})
        };
        let routers: Vec<Value> = self.routers.iter().enumerate().map(router).collect();
        let nodes = self.zone.map(|zone| json!({"matchLabels": {"zone": zone.to_string()}}));
        json!({"nodeSelector": nodes, "bgpInstances": routers})
    }
}

impl ServiceModel {
    fn served(&self) -> Served {
        let texts = |at: usize, start: &str| -> Vec<String> {
            let text = |byte: &u8| match byte {
                IPV6.. => format!("2001:db8:{at}::{byte}"),
                _ => format!("{start}{byte}"),
            };
            self.addresses[at].iter().map(text).collect()
        };
        let (cluster, balanced, external) =
            (texts(0, "10.96.0."), texts(1, "192.0.2."), texts(2, "192.0.2."));
        let [cluster, balanced, external] =
            [&cluster, &balanced, &external].map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
        let nodes: Vec<&str> = self.backends.iter().map(|at| NODES[*at]).collect();
        let mut part = on(mk_part(&cluster, &balanced, &external), &nodes);
        for (number, backend) in (0_u16..).zip(&mut part.ports[0].backends) {
            if number % 2 == 1 {
                backend.address = std::net::Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, number]).into();
            }
        }
        (part.local, part.external_local) = self.local;
        Served::reduce(&part)
    }
}

fn place((kind, app, length, community): &PlaceModel) -> Value {
    let communities = community.map(|low| json!({"communities": {"standard": [format!("65000:{low}")]}}));
    let Some(kind) = kind else { return json!({"advertisementType": "PodCIDR", "attributes": communities}) };
    json!({
        "advertisementType": "Service", "attributes": communities,
        "service": {"addresses": [ADDRESS_KINDS[*kind], "ExternalIP"], "aggregationLengthIPv4": length,
            "aggregationLengthIPv6": length.map(|it| it + 96)},
        "selector": app.map(|app| json!({"matchLabels": {"app": APPS[app]}})),
    })
}

fn peer_spec(label: Option<usize>, secret: Option<usize>) -> Value {
    let mut spec = label.map_or(json!({}), |label| selecting(LABELS[label]));
    if let Some(families) = spec["families"].as_array_mut() {
        families
            .push(json!({"afi": "ipv6", "safi": "unicast", "advertisements": families[0]["advertisements"]}));
    }
    spec["authSecretRef"] = json!(secret.map(|at| SECRETS[at]));
    spec
}

fn tell(bgp: &mut Bgp, step: &Step) {
    match step {
        Step::Cluster(at, it) => {
            let it = it.as_ref().map(|it| mk_cluster(CLUSTERS[*at], it.second, it.spec()));
            bgp.set_cluster(CLUSTERS[*at], it);
        }
        Step::Peer(at, it) => {
            bgp.set_peer(PEERS[*at], it.map(|(label, secret)| mk_peer(peer_spec(label, secret))));
        }
        Step::Advertisement(at, it) => {
            let it = it.as_ref().map(|(label, places)| {
                mk_advertisement(ADVERTISEMENTS[*at], LABELS[*label], places.iter().map(place).collect())
            });
            bgp.set_advertisement(ADVERTISEMENTS[*at], it);
        }
        Step::Override(at, it) => {
            let it = it.map(|(asn, id)| {
                let id = id.map(|byte| format!("198.51.100.{byte}"));
                mk_override(json!({"bgpInstances": [{"name": "r0", "localASN": asn, "routerID": id}]}))
            });
            bgp.set_override(NODES[*at], it);
        }
        Step::Secret(at, version) => {
            bgp.set_secret(SECRETS[*at], version.map(|it| it.to_string()).as_deref());
        }
        Step::Node(at, None) => bgp.remove_node(NODES[*at]),
        Step::Node(at, Some((zone, addresses, pods))) => {
            let prefix = |byte: &u8| match byte {
                4.. => format!("fd00:{byte}::/64").parse().unwrap(),
                _ => format!("10.0.{byte}.0/24").parse().unwrap(),
            };
            let pods: Vec<IpNet> = pods.iter().map(prefix).collect();
            let addresses: Vec<IpAddr> = NODE_ADDRESSES[*addresses].iter().map(|text| ip(text)).collect();
            bgp.set_node(NODES[*at], mk_labels(&[("zone", &zone.to_string())]), &addresses, &pods);
        }
        Step::Service(at, it) => {
            let service = name(SERVICES[*at]);
            bgp.set_claim(&service, it.as_ref().map(|it| mk_claim(SERVICES[*at], APPS[it.app], it.class)));
            bgp.set_served(&service, it.as_ref().map(ServiceModel::served));
        }
        Step::Plan => {}
    }
}

/// What a step is about: a later one about the same takes its place.
fn subject(step: &Step) -> (u8, usize) {
    match step {
        Step::Cluster(at, _) => (0, *at),
        Step::Peer(at, _) => (1, *at),
        Step::Advertisement(at, _) => (2, *at),
        Step::Override(at, _) => (3, *at),
        Step::Secret(at, _) => (4, *at),
        Step::Node(at, _) => (5, *at),
        Step::Service(at, _) => (6, *at),
        Step::Plan => (7, 0),
    }
}

/// Everything that is there in the end, told at once and backwards.
fn at_once(config: Config, steps: &[Step]) -> Bgp {
    let last: BTreeMap<(u8, usize), &Step> = steps.iter().map(|step| (subject(step), step)).collect();
    let mut bgp = Bgp::new(config);
    last.values().rev().for_each(|step| tell(&mut bgp, step));
    bgp.plan();
    bgp
}

/// All that is decided.
#[derive(Clone, Debug, Default, PartialEq)]
struct Whole {
    instances: BTreeMap<(String, String), BgpInstance>,
    routes: BTreeMap<IpNet, Route>,
    node_routes: BTreeMap<(String, IpNet), Route>,
    node_configs: BTreeMap<String, NodeConfig>,
    clusters: BTreeMap<String, Vec<Condition>>,
    peers: BTreeMap<String, Vec<Condition>>,
}

impl Whole {
    fn of(bgp: &Bgp) -> Self {
        let routes = bgp.all_routes().map(|prefix| (prefix, bgp.route(prefix).unwrap())).collect();
        let mut all = Self { routes, ..Self::default() };
        for node in NODES {
            let of_node = bgp.instances(node).map(|(name, it)| ((node.to_owned(), name.clone()), it.clone()));
            all.instances.extend(of_node);
            let routes = bgp.all_node_routes(node);
            let routes = routes.map(|it| ((node.to_owned(), it), bgp.node_route(node, it).unwrap()));
            all.node_routes.extend(routes);
            all.node_configs.extend(bgp.node_config(node).map(|it| (node.to_owned(), it.clone())));
        }
        let clusters = CLUSTERS.iter().filter_map(|it| Some(((*it).to_owned(), bgp.cluster_conditions(it)?)));
        all.clusters = clusters.collect();
        let peers = PEERS.iter().filter_map(|it| Some(((*it).to_owned(), bgp.peer_conditions(it)?)));
        all.peers = peers.collect();
        all
    }

    /// Applies what is named, and nothing else.
    fn follow(&mut self, bgp: &Bgp, named: &Changes) {
        for (node, router) in &named.instances {
            let key = (node.to_string(), router.clone());
            replace(&mut self.instances, key, bgp.instance(node, router).cloned());
        }
        for prefix in &named.routes {
            replace(&mut self.routes, *prefix, bgp.route(*prefix));
        }
        for (node, prefix) in &named.node_routes {
            replace(&mut self.node_routes, (node.to_string(), *prefix), bgp.node_route(node, *prefix));
        }
        for node in &named.node_configs {
            replace(&mut self.node_configs, node.to_string(), bgp.node_config(node).cloned());
        }
        for name in &named.clusters {
            replace(&mut self.clusters, name.to_string(), bgp.cluster_conditions(name));
        }
        for name in &named.peers {
            replace(&mut self.peers, name.clone(), bgp.peer_conditions(name));
        }
    }
}

fn replace<K: Ord, V>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(all.insert(key, value)),
        None => drop(all.remove(&key)),
    }
}

fn differing<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
    old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

/// Plans; what is named has to be what differs. Conditions may be named without need, as objects have generations.
fn follow(bgp: &mut Bgp, told: &mut Whole) -> Result<(), TestCaseError> {
    fn same<K: Ord + Debug>(named: BTreeSet<K>, differing: BTreeSet<K>) -> Result<(), TestCaseError> {
        prop_assert_eq!(named, differing);
        Ok(())
    }
    let before = told.clone();
    let named = bgp.plan();
    let after = Whole::of(bgp);
    prop_assert_eq!(bgp.check(), Vec::<String>::new());
    let own = |name: &std::sync::Arc<str>| name.to_string();
    let instances = named.instances.iter().map(|(node, router)| (own(node), router.clone()));
    same(instances.collect(), differing(&before.instances, &after.instances))?;
    same(named.routes.clone(), differing(&before.routes, &after.routes))?;
    let node_routes = named.node_routes.iter().map(|(node, prefix)| (own(node), *prefix));
    same(node_routes.collect(), differing(&before.node_routes, &after.node_routes))?;
    same(named.node_configs.iter().map(own).collect(), differing(&before.node_configs, &after.node_configs))?;
    told.follow(bgp, &named);
    prop_assert_eq!(&*told, &after);
    prop_assert_eq!(bgp.plan(), Changes::default());
    Ok(())
}

/// Who has each router id; those of a pool have one router each, and none that an override tells another one.
fn check_router_ids(bgp: &Bgp, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut overrides: [Option<u8>; NODES.len()] = [None; NODES.len()];
    for step in steps {
        if let Step::Override(at, it) = step {
            overrides[*at] = it.and_then(|(_, id)| id);
        }
    }
    let told =
        |at: usize| overrides[at].map(|byte| format!("198.51.100.{byte}")).filter(|it| it != "198.51.100.0");
    let mut taken: BTreeSet<String> = (0..NODES.len()).filter_map(told).collect();
    for (at, node) in NODES.iter().enumerate() {
        for (router, it) in bgp.instances(node).filter(|(router, _)| *router != "r0" || told(at).is_none()) {
            prop_assert!(
                taken.insert(it.router_id.to_string()),
                "{} of {node} {router} is taken",
                it.router_id
            );
        }
    }
    Ok(())
}

/// Small pools, of which some are exhausted.
fn config() -> impl Strategy<Value = Config> {
    let pool = prop_oneof![Just("198.51.100.0/30"), Just("198.51.100.0/29"), Just("198.51.100.1/32")];
    let ids = option::of(pool.prop_map(|text| RouterIds::Pool(text.parse().unwrap())));
    (ids, any::<bool>(), any::<bool>()).prop_map(|(ids, secrets, without_backends)| Config {
        router_ids: ids.unwrap_or(RouterIds::Node),
        secrets,
        without_backends,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_ends_where_a_start_would(config in config(), steps in steps()) {
        let (mut bgp, mut told) = (Bgp::new(config), Whole::default());
        for step in &steps {
            tell(&mut bgp, step);
            if matches!(step, Step::Plan) {
                follow(&mut bgp, &mut told)?;
            }
        }
        follow(&mut bgp, &mut told)?;
        // Who has which id of a pool depends on who came first.
        if config.router_ids == RouterIds::Node {
            prop_assert_eq!(&told, &Whole::of(&at_once(config, &steps)));
        }
    }

    #[test]
    fn router_ids_of_a_pool_outlive_the_planner(steps in steps()) {
        let pool = RouterIds::Pool("198.51.100.0/29".parse().unwrap());
        let config = Config { router_ids: pool, ..Config::default() };
        let mut bgp = Bgp::new(config);
        for step in &steps {
            tell(&mut bgp, step);
            bgp.plan();
        }
        check_router_ids(&bgp, &steps)?;
        let mut next = Bgp::new(config);
        NODES.iter().for_each(|node| next.set_recorded(node, bgp.node_config(node).map(|it| &it.spec)));
        steps.iter().for_each(|step| tell(&mut next, step));
        next.plan();
        prop_assert_eq!(next.check(), Vec::<String>::new());
        for node in NODES {
            prop_assert_eq!(next.node_config(node), bgp.node_config(node));
        }
    }
}
