//! Random histories: what is decided after many changes is what would be decided at once, and no address moves without need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::parts::{self, Announcement};
use cilium_l2::{L2, Policy, Served};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::*;

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SERVICES: [&str; 4] = ["s0", "s1", "s2", "s3"];
const POLICIES: [&str; 3] = ["p", "q", "r"];
const APPS: [&str; 2] = ["web", "db"];
const ZONES: [&str; 2] = ["east", "west"];

#[derive(Clone, Debug)]
struct ServiceModel {
    app: usize,
    class: Option<&'static str>,
    /// Last bytes of its addresses.
    balanced: Vec<u8>,
    external: Vec<u8>,
    /// Nodes with backends, if it uses nothing else, with whether they are on their way out.
    local: Option<Vec<(usize, bool)>>,
}

#[derive(Clone, Debug)]
struct PolicyModel {
    app: Option<usize>,
    zone: Option<usize>,
    interfaces: Vec<&'static str>,
    balanced: bool,
    external: bool,
}

#[derive(Clone, Debug, Default)]
struct NodeModel {
    zone: Option<usize>,
    devices: Vec<String>,
    own: Option<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    Service(usize, Option<ServiceModel>),
    Policy(usize, Option<PolicyModel>),
    /// Its zone; gone otherwise.
    Node(usize, Option<usize>),
    Devices(usize, Vec<&'static str>),
    /// Last byte of its own address.
    Own(usize, Option<u8>),
    Plan,
}

fn service() -> impl Strategy<Value = ServiceModel> {
    let class =
        prop_oneof![6 => Just(None), 1 => Just(Some("io.cilium/l2-announcer")), 1 => Just(Some("other"))];
    let local = proptest::option::of(vec((0..NODES.len(), any::<bool>()), 0..4));
    (0..APPS.len(), class, vec(0..20_u8, 0..3), vec(0..20_u8, 0..2), local).prop_map(
        |(app, class, balanced, external, local)| ServiceModel { app, class, balanced, external, local },
    )
}

fn policy() -> impl Strategy<Value = PolicyModel> {
    let interfaces = vec(prop_oneof![4 => Just("^eth"), 3 => Just("^bond0$"), 1 => Just("(")], 0..3);
    let (app, zone) = (proptest::option::of(0..APPS.len()), proptest::option::of(0..ZONES.len()));
    (app, zone, interfaces, prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |(app, zone, interfaces, balanced, external)| PolicyModel {
            app,
            zone,
            interfaces,
            balanced,
            external,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let devices = vec(prop_oneof![Just("eth0"), Just("bond0"), Just("wlan0")], 0..3);
    prop_oneof![
        4 => (0..SERVICES.len(), proptest::option::weighted(0.8, service())).prop_map(|(at, it)| Step::Service(at, it)),
        3 => (0..POLICIES.len(), proptest::option::weighted(0.8, policy())).prop_map(|(at, it)| Step::Policy(at, it)),
        3 => (0..NODES.len(), proptest::option::weighted(0.7, 0..ZONES.len())).prop_map(|(at, it)| Step::Node(at, it)),
        2 => (0..NODES.len(), devices).prop_map(|(at, it)| Step::Devices(at, it)),
        1 => (0..NODES.len(), proptest::option::of(0..20_u8)).prop_map(|(at, it)| Step::Own(at, it)),
        3 => Just(Step::Plan),
    ]
}

/// What there is, without history.
#[derive(Clone, Debug, Default)]
struct Model {
    services: BTreeMap<usize, ServiceModel>,
    policies: BTreeMap<usize, PolicyModel>,
    nodes: BTreeMap<usize, NodeModel>,
}

impl PolicyModel {
    fn reduced(&self) -> Policy {
        let selector = |key: &str, values: &[&str], at: Option<usize>| match at {
            Some(at) => json!({"matchLabels": {key: values[at]}}),
            None => Value::Null,
        };
        mk_policy(json!({
            "serviceSelector": selector("app", &APPS, self.app), "nodeSelector": selector("zone", &ZONES, self.zone),
            "interfaces": self.interfaces, "loadBalancerIPs": self.balanced, "externalIPs": self.external,
        }))
    }
}

impl ServiceModel {
    fn part(&self) -> parts::Service {
        let addresses = |bytes: &[u8]| bytes.iter().map(|byte| IpAddr::from([192, 0, 2, *byte])).collect();
        let part = parts::Service {
            load_balancer: addresses(&self.balanced),
            external: addresses(&self.external),
            ..parts::Service::default()
        };
        let Some(nodes) = &self.local else { return part };
        let names: Vec<String> = nodes
            .iter()
            .map(|(at, leaves)| format!("{}{}", if *leaves { "-" } else { "" }, NODES[*at]))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        local(part, &names)
    }
}

impl Model {
    fn apply(&mut self, step: &Step) {
        fn put<T: Clone>(all: &mut BTreeMap<usize, T>, at: usize, it: Option<&T>) {
            match it {
                Some(it) => drop(all.insert(at, it.clone())),
                None => drop(all.remove(&at)),
            }
        }
        match step {
            Step::Service(at, it) => put(&mut self.services, *at, it.as_ref()),
            Step::Policy(at, it) => put(&mut self.policies, *at, it.as_ref()),
            Step::Node(at, zone) => self.nodes.entry(*at).or_default().zone = *zone,
            Step::Devices(at, devices) => {
                self.nodes.entry(*at).or_default().devices =
                    devices.iter().map(ToString::to_string).collect();
            }
            Step::Own(at, own) => self.nodes.entry(*at).or_default().own = *own,
            Step::Plan => {}
        }
    }

    /// Everything at once.
    fn l2(&self) -> L2 {
        let mut l2 = L2::default();
        self.services.iter().for_each(|(at, it)| tell(&mut l2, &Step::Service(*at, Some(it.clone()))));
        self.policies.iter().for_each(|(at, it)| tell(&mut l2, &Step::Policy(*at, Some(it.clone()))));
        for (at, node) in &self.nodes {
            tell(&mut l2, &Step::Node(*at, node.zone));
            l2.set_heard(NODES[*at], &node.devices, &[]);
            tell(&mut l2, &Step::Own(*at, node.own));
        }
        l2.plan();
        l2
    }

    /// Addresses that a policy selects: by hand, without the code under test.
    fn selected(&self) -> BTreeSet<IpAddr> {
        let mut selected = BTreeSet::new();
        for service in self.services.values().filter(|it| it.class != Some("other")) {
            let policies = self.policies.values().filter(|policy| {
                !policy.interfaces.contains(&"(") && policy.app.is_none_or(|app| app == service.app)
            });
            for policy in policies {
                let balanced = service.balanced.iter().filter(|_| policy.balanced);
                let external = service.external.iter().filter(|_| policy.external);
                selected.extend(balanced.chain(external).map(|byte| IpAddr::from([192, 0, 2, *byte])));
            }
        }
        selected
    }

    /// Whether any policy lets a node announce anything.
    fn may_own(&self, node: &str) -> bool {
        let at = NODES.iter().position(|name| *name == node).unwrap();
        let Some(NodeModel { zone: Some(zone), devices, .. }) = self.nodes.get(&at) else { return false };
        let has_device = |policy: &PolicyModel| {
            let matches = |device: &String| {
                policy.interfaces.iter().any(|it| match *it {
                    "^eth" => device.starts_with("eth"),
                    _ => device == "bond0",
                })
            };
            policy.interfaces.is_empty() || devices.is_empty() || devices.iter().any(matches)
        };
        self.policies.values().any(|policy| policy.zone.is_none_or(|it| it == *zone) && has_device(policy))
    }
}

fn tell(l2: &mut L2, step: &Step) {
    match step {
        Step::Service(at, it) => {
            let claim = it.as_ref().and_then(|it| mk_claim(SERVICES[*at], APPS[it.app], it.class));
            l2.set_claim(&name(SERVICES[*at]), claim);
            l2.set_served(&name(SERVICES[*at]), it.as_ref().map(|it| Served::reduce(&it.part())));
        }
        Step::Policy(at, it) => l2.set_policy(POLICIES[*at], it.as_ref().map(PolicyModel::reduced)),
        Step::Node(at, zone) => {
            l2.set_node(NODES[*at], zone.map(|zone| mk_labels(&[("zone", ZONES[zone])])));
        }
        Step::Devices(at, devices) => {
            let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
            l2.set_heard(NODES[*at], &devices, &[]);
        }
        Step::Own(at, own) => {
            l2.set_addresses(NODES[*at], own.map(|byte| IpAddr::from([192, 0, 2, byte])));
        }
        Step::Plan => {}
    }
}

type Parts = BTreeMap<(IpAddr, String), Announcement>;

fn parts(l2: &L2) -> Parts {
    let mut parts = Parts::new();
    for node in NODES {
        for address in l2.owned_by(node) {
            parts.insert((address, node.to_owned()), l2.announcement(address, node).unwrap());
        }
    }
    parts
}

/// What nodes have after they were told of changes only.
fn follow(l2: &mut L2, told: &mut Parts) {
    for (address, nodes) in l2.plan().parts {
        for node in nodes {
            match l2.announcement(address, &node) {
                Some(part) => drop(told.insert((address, node.to_string()), part)),
                None => drop(told.remove(&(address, node.to_string()))),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_ends_where_a_start_would(steps in vec(step(), 1..60)) {
        let (mut l2, mut model, mut told) = (L2::default(), Model::default(), Parts::new());
        for step in &steps {
            model.apply(step);
            tell(&mut l2, step);
            if matches!(step, Step::Plan) {
                follow(&mut l2, &mut told);
                prop_assert_eq!(l2.check(), Vec::<String>::new());
            }
        }
        follow(&mut l2, &mut told);
        prop_assert_eq!(l2.check(), Vec::<String>::new());
        let fresh = model.l2();
        prop_assert_eq!(&told, &parts(&fresh));
        for policy in POLICIES {
            prop_assert_eq!(l2.reach(policy), fresh.reach(policy));
            prop_assert_eq!(l2.announced(policy), fresh.announced(policy));
        }
        prop_assert_eq!(l2.plan().parts, Vec::new());
        let selected = model.selected();
        for ((address, node), part) in &told {
            prop_assert!(selected.contains(address), "{} is announced, and no policy selects it", address);
            let is_own = |node: &NodeModel| node.own.map(|byte| IpAddr::from([192, 0, 2, byte])) == Some(*address);
            prop_assert!(!model.nodes.values().any(is_own), "{} is a node's own", address);
            prop_assert!(model.may_own(node) && part.owners.contains(node), "{} owns {}", node, address);
        }
    }

    #[test]
    fn a_node_that_goes_or_comes_moves_only_its_own(steps in vec(step(), 20..60), node in 0..NODES.len()) {
        // With backends that are everywhere or nowhere, as only the nodes are to change.
        let mut model = Model::default();
        steps.iter().for_each(|step| model.apply(step));
        model.services.values_mut().for_each(|service| service.local = None);
        model.nodes.entry(node).or_default().zone.get_or_insert(0);
        let mut l2 = model.l2();
        let before = parts(&l2);
        tell(&mut l2, &Step::Node(node, None));
        l2.plan();
        let expected: Parts = before
            .iter()
            .filter(|((_, owner), _)| owner != NODES[node])
            .map(|(key, part)| {
                let owners = part.owners.iter().filter(|owner| *owner != NODES[node]).cloned().collect();
                (key.clone(), Announcement { owners, ..part.clone() })
            })
            .collect();
        prop_assert_eq!(parts(&l2), expected);
        tell(&mut l2, &Step::Node(node, model.nodes[&node].zone));
        l2.plan();
        prop_assert_eq!(parts(&l2), before);
    }
}
