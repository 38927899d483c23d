//! Incremental equals from scratch, over random histories, with restarts in between.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::parts::{Algorithm, Backend, BackendPlace, FIRST_BLOCK, Part, PartKey, Parts, Service};
use cilium_bpf::layout::{BlockEntry, PolicyEntry};
use cilium_dataplane::{Compiled, Dataplane, GRACE, compile};
use proptest::prelude::*;

use crate::build::*;
use crate::kernel::{Content, Fake};

#[derive(Clone, Debug)]
enum Step {
    Pod(u16, u32),
    PodGone(u16),
    Link(u16),
    Unlink(u16),
    Policy(u32, Vec<(u32, u8, u16, u16)>),
    PolicyGone(u32),
    Address(u8, u32, u8),
    AddressGone(u8),
    Node(u8),
    NodeGone(u8),
    Prefix(usize, u32),
    PrefixGone(usize),
    Service(u8, Vec<u8>),
    ServiceGone(u8),
    Redirect(u8, u8),
    RedirectGone(u8),
    Sweep,
    Check,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let rule = (300u32..304, prop::sample::select(vec![0u8, 6, 17]), 0u16..4, 0u16..9)
        .prop_map(|(peer, protocol, first, more)| (peer, protocol, first, first + more));
    prop_oneof![
        3 => (1u16..6, 300u32..303).prop_map(|(id, identity)| Step::Pod(id, identity)),
        1 => (1u16..6).prop_map(Step::PodGone),
        3 => (1u16..6).prop_map(Step::Link),
        1 => (1u16..6).prop_map(Step::Unlink),
        3 => (300u32..303, prop::collection::vec(rule, 0..4)).prop_map(|(i, rules)| Step::Policy(i, rules)),
        1 => (300u32..303).prop_map(Step::PolicyGone),
        2 => (0u8..6, 300u32..303, 1u8..4).prop_map(|(a, i, n)| Step::Address(a, i, n)),
        1 => (0u8..6).prop_map(Step::AddressGone),
        1 => (1u8..4).prop_map(Step::Node),
        1 => (1u8..4).prop_map(Step::NodeGone),
        2 => (0..PREFIXES.len(), 1u32..4).prop_map(|(p, i)| Step::Prefix(p, (1 << 24) + i)),
        1 => (0..PREFIXES.len()).prop_map(Step::PrefixGone),
        2 => (1u8..4, prop::collection::vec(0u8..6, 0..4)).prop_map(|(s, b)| Step::Service(s, b)),
        1 => (1u8..4).prop_map(Step::ServiceGone),
        2 => (0u8..3, 0u8..8).prop_map(|(r, content)| Step::Redirect(r, content)),
        1 => (0u8..3).prop_map(Step::RedirectGone),
        1 => Just(Step::Sweep),
        1 => Just(Step::Check),
        1 => Just(Step::Restart),
    ]
}

/// Some of these are addresses of pods and nodes, prefixes of pods, or around all of IPv4.
const PREFIXES: [&str; 8] = [
    "10.0.0.0/8",
    "10.244.2.0/24",
    "10.244.2.0/25",
    "10.244.2.1/32",
    "172.30.0.1/32",
    "fd00::/8",
    "fd00:10:244:2::/80",
    "::/8",
];

/// Some of these addresses are nodes' own.
fn address(number: u8) -> String {
    if number < 3 { format!("10.244.2.{number}") } else { format!("172.30.0.{}", number - 2) }
}

/// Stands for a block in rules.
const BY_ADDRESS: u32 = 303;
const BLOCKS: [&str; 4] = ["0.0.0.0/0", "10.244.2.0/25", "::/0", "fd00::/8"];

struct World {
    parts: Parts,
    links: BTreeSet<u16>,
    dataplane: Dataplane,
    kernel: Fake,
    now: u64,
    tunnel: bool,
    /// Some slot was put under another generation though its policy is the same: from then on it shares entries with nobody.
    renewed: bool,
}

/// The first has backends for everybody, the second some for zones, the third has nodes use their own. All have a port of nodes, and want
/// one and the same address; how many clients the first lets in goes with its backends.
fn mk_placed_service(number: u8, backends: &[u8]) -> Service {
    let place = |backend: u8| match number {
        1 => None,
        2 => Some(BackendPlace {
            for_zones: vec![["a", "b"][usize::from(backend % 2)].to_owned()],
            ..BackendPlace::default()
        }),
        _ => Some(BackendPlace {
            node: format!("n{}", backend % 3),
            leaving: backend > 3,
            ..BackendPlace::default()
        }),
    };
    let backend = |backend: &u8| Backend {
        address: ip(&address(*backend)),
        port: 80,
        place: place(*backend).map(Box::new),
    };
    let addresses = backends.len();
    let backends = backends.iter().map(backend).collect();
    let wanted = vec![ip("192.0.2.80")];
    let ranges = ["198.51.100.0/24", "10.0.0.0/8"][..addresses % 3]
        .iter()
        .map(|range| range.parse().expect("a prefix"));
    let mut service = Service {
        local: number == 3,
        external_local: number == 3,
        affinity: u32::from(number),
        algorithm: (number != 2).then_some(Algorithm::Maglev),
        load_balancer: if number < 3 { wanted.clone() } else { vec![] },
        external: if number == 3 { wanted } else { vec![] },
        source_ranges: (number == 1).then(|| ranges.collect()),
        ..mk_service_of(number, backends)
    };
    service.ports[0].node_port = 30_000 + u16::from(number);
    service
}

/// Of a Service, of none, or of one that both want; with pods that are exempt or without.
fn mk_any_redirect(number: u8, content: u8) -> (PartKey, Part) {
    let address = ["10.96.0.1", "10.96.0.2", "169.254.169.254", "10.96.0.1"][usize::from(content % 4)];
    let exempt = if content < 4 { &[1, 2, 3][..] } else { &[] };
    mk_redirect(&format!("r{number}"), address, &["10.244.1.1"], exempt)
}

impl World {
    fn new(tunnel: bool) -> Self {
        let dataplane = Dataplane::new(mk_config(tunnel));
        let mut kernel = Fake::default();
        kernel.allowed.push(Content::default());
        Self {
            parts: Parts::new(),
            links: BTreeSet::new(),
            dataplane,
            kernel,
            now: 0,
            tunnel,
            renewed: false,
        }
    }

    fn put(&mut self, (key, part): (PartKey, Part)) {
        if let Part::Policy(policy) = &part {
            self.kernel.allowed.push(content(&compile(policy).expect("compiles")));
        }
        self.parts.insert(key.clone(), part);
        self.dataplane.update([&key], &self.parts);
    }

    fn drop(&mut self, key: &PartKey) {
        self.parts.remove(key);
        self.dataplane.update([key], &self.parts);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pod(id, identity) => {
                let (key, part) = mk_open_endpoint(id, identity);
                let identity_of = |part: &Part| if let Part::Endpoint(it) = part { it.identity } else { 0 };
                let before = self.parts.get(&key).map(identity_of);
                self.renewed |= before.is_some_and(|before| before != identity);
                self.put((key, part));
            }
            Step::PodGone(id) => self.drop(&mk_open_endpoint(id, 0).0),
            Step::Link(id) => {
                self.links.insert(id);
                self.dataplane.link(id, Some(mk_link(id)));
            }
            Step::Unlink(id) => {
                self.links.remove(&id);
                self.dataplane.link(id, None);
            }
            Step::Policy(identity, rules) => {
                let allow = rules.into_iter().map(|(peer, protocol, first, last)| match protocol {
                    0 => mk_allow(peer, 0, 0, 0),
                    _ => mk_allow(peer, protocol, first, last),
                });
                let (key, mut part) = mk_policy(identity, allow.collect());
                // Blocks, in some policies: an entry for peer 303 is for the second of them.
                if let Part::Policy(policy) = &mut part {
                    let ingress = &mut policy.ingress;
                    let by_address = ingress.allow.iter_mut().filter(|entry| entry.peer == BY_ADDRESS);
                    let count = by_address.map(|entry| entry.peer = FIRST_BLOCK + 1).count();
                    if count > 0 {
                        ingress.blocks = BLOCKS.iter().map(|text| text.parse().expect("a prefix")).collect();
                    }
                }
                self.put((key, part));
            }
            Step::PolicyGone(identity) => self.drop(&PartKey::policy(identity)),
            Step::Address(number, identity, node) => {
                self.put(mk_address(&address(number), identity, Some(&format!("n{node}"))));
            }
            Step::AddressGone(number) => self.drop(&PartKey::address(ip(&address(number)))),
            Step::Node(number) => self.put(mk_node(&format!("n{number}"), number)),
            Step::NodeGone(number) => self.drop(&PartKey::node(&format!("n{number}"))),
            Step::Prefix(at, identity) => {
                self.renewed = true;
                self.put(mk_prefix(PREFIXES[at], identity));
            }
            Step::PrefixGone(at) => {
                self.renewed = true;
                self.drop(&PartKey::prefix(PREFIXES[at]));
            }
            Step::Service(number, backends) => {
                let part = Part::Service(mk_placed_service(number, &backends));
                self.put((PartKey::service("default", &format!("s{number}")), part));
            }
            Step::ServiceGone(number) => self.drop(&mk_service(&format!("s{number}"), number, &[]).0),
            Step::Redirect(number, content) => self.put(mk_any_redirect(number, content)),
            Step::RedirectGone(number) => self.drop(&mk_any_redirect(number, 0).0),
            Step::Sweep => {
                self.now += GRACE;
                self.dataplane.sweep(&mut self.kernel, self.now);
            }
            Step::Check => assert_eq!(self.dataplane.check(&mut self.kernel, self.now), Ok(0)),
            Step::Restart => self.restart(),
        }
        self.dataplane.apply(&mut self.kernel, self.now);
    }

    fn restart(&mut self) {
        let before = self.kernel.writes;
        self.dataplane = Dataplane::new(mk_config(self.tunnel));
        self.dataplane.adopt(&mut self.kernel, self.now).expect("lists");
        for id in &self.links {
            self.dataplane.link(*id, Some(mk_link(*id)));
        }
        self.dataplane.update(self.parts.keys(), &self.parts);
        self.dataplane.apply(&mut self.kernel, self.now);
        let linked = |key: &PartKey| matches!(self.parts.get(key), Some(Part::Endpoint(e)) if self.links.contains(&e.id));
        let pods = self.parts.keys().filter(|key| key.kind() == "endpoint").collect::<Vec<_>>();
        if pods.iter().all(|key| linked(key)) {
            assert_eq!(self.kernel.writes, before, "a restart with equal state writes nothing");
        }
    }
}

fn content(compiled: &Compiled) -> Content {
    let rule = |(rule, entry): &(cilium_dataplane::Rule, PolicyEntry)| {
        let key = rule.key(0);
        (key.direction, key.peer, key.protocol, key.port.0, key.prefix_len, entry.cookie)
    };
    let block = |(block, entry): &(cilium_dataplane::AddressBlock, BlockEntry)| {
        let key = block.key(0);
        (key.direction, format!("{:?}", key.prefix()), entry.peer)
    };
    let (rules, blocks) = (compiled.rules.iter().map(rule), compiled.blocks.iter().map(block));
    (compiled.ingress, compiled.egress, rules.collect(), blocks.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn incremental_equals_from_scratch(steps in prop::collection::vec(step(), 0..60), tunnel: bool) {
        let mut world = World::new(tunnel);
        for step in steps {
            world.take(step);
        }
        world.now += GRACE;
        prop_assert!(!world.dataplane.sweep(&mut world.kernel, world.now));
        let failures = world.dataplane.failures();
        prop_assert!(failures.iter().all(|it| it.message.contains(" belongs to ")), "{failures:?}");

        let mut fresh = Dataplane::new(mk_config(tunnel));
        let mut kernel = Fake::default();
        for id in &world.links {
            fresh.link(*id, Some(mk_link(*id)));
        }
        fresh.update(world.parts.keys(), &world.parts);
        fresh.apply(&mut kernel, 0);
        prop_assert_eq!(failures, fresh.failures());
        prop_assert_eq!(world.kernel.seen(), kernel.seen());
        if !world.renewed {
            prop_assert_eq!(world.kernel.policy.len(), kernel.policy.len());
        }
        let connected: BTreeMap<u16, u32> = kernel.endpoints.values().map(|e| (e.id, e.identity)).collect();
        prop_assert_eq!(connected.len(), world.dataplane.connected());
    }
}
