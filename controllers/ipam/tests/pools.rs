//! Addresses out of pools, on examples and on random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_core::Labels;
use cilium_ipam::{Asker, Choice, Error, Ipam, Lease, Pool, Record, Request};
use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

#[expect(clippy::needless_pass_by_value, reason = "json!(..) as an argument reads better without &")]
fn mk_pool(spec: Value) -> Pool {
    let object =
        json!({"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool", "metadata": {}, "spec": spec});
    Pool::reduce(&serde_json::from_value(object).expect("pools of tests parse"))
}

fn v4_pool(cidr: &str, mask: u8) -> Pool {
    mk_pool(json!({"ipv4": {"cidrs": [cidr], "maskSize": mask}}))
}

fn mk_ipam(pools: &[(&str, Pool)], nodes: &[&str]) -> Ipam {
    let mut ipam = Ipam::with_pools();
    nodes.iter().for_each(|node| ipam.set_present(node, true));
    for (name, pool) in pools {
        ipam.set_pool(name, Some(pool.clone()));
    }
    ipam
}

fn of(pool: &str) -> Choice {
    Choice { ipv4: Some(pool.to_owned()), ipv6: None }
}

fn give(ipam: &mut Ipam, node: &str, pool: &str) -> Result<String, Error> {
    ipam.allocate_from(node, &of(pool)).map(|lease| lease.ipv4.expect("it was asked for").to_string())
}

fn blocks(ipam: &Ipam, node: &str) -> Vec<String> {
    ipam.blocks(node).map(|(pool, prefix)| format!("{pool} {prefix}")).collect()
}

#[test]
fn a_node_gets_a_block_when_those_that_it_has_are_full() {
    let mut ipam =
        mk_ipam(&[("default", v4_pool("10.0.0.0/24", 29)), ("red", v4_pool("10.9.0.0/24", 30))], &["a", "b"]);
    ipam.give_routers(&[true]);
    assert_eq!(
        (blocks(&ipam, "a"), blocks(&ipam, "b")),
        (vec!["default 10.0.0.0/29".into()], vec!["default 10.0.0.8/29".into()])
    );
    assert_eq!(ipam.router("a").ipv4, Some("10.0.0.1".parse().unwrap()));
    let given: Vec<_> = (0..3).map(|_| give(&mut ipam, "a", "red").unwrap()).collect();
    assert_eq!(given, ["10.9.0.1", "10.9.0.2", "10.9.0.5"]);
    assert_eq!(give(&mut ipam, "b", "red").unwrap(), "10.9.0.9");
    assert_eq!(blocks(&ipam, "a"), ["default 10.0.0.0/29", "red 10.9.0.0/30", "red 10.9.0.4/30"]);
}

#[test]
fn trouble_names_the_pool_and_the_reason() {
    let mut ipam =
        mk_ipam(&[("default", v4_pool("10.0.0.0/24", 29)), ("red", v4_pool("10.9.0.0/31", 32))], &["a"]);
    let text = |result: Result<Lease, Error>| result.unwrap_err().to_string();
    assert_eq!(
        text(ipam.allocate_from("a", &of("blue"))),
        "no address of IPv4: there is no CiliumPodIPPool blue; make it, or let the pod use another pool"
    );
    let ipv6 = Choice { ipv4: None, ipv6: Some("red".into()) };
    assert!(text(ipam.allocate_from("a", &ipv6)).starts_with("CiliumPodIPPool red has no IPv6: "));
    assert_eq!(
        (give(&mut ipam, "a", "red").unwrap(), give(&mut ipam, "a", "red").unwrap()),
        ("10.9.0.0".into(), "10.9.0.1".into())
    );
    assert!(
        text(ipam.allocate_from("a", &of("red")))
            .starts_with("CiliumPodIPPool red has no free block of IPv4 for node a: ")
    );
    assert_eq!(give(&mut ipam, "nowhere", "red").unwrap_err(), Error::NoPrefix { node: "nowhere".into() });
}

#[test]
fn one_free_block_is_kept_until_another_node_needs_it() {
    let mut ipam =
        mk_ipam(&[("default", v4_pool("10.0.0.0/24", 29)), ("red", v4_pool("10.9.0.0/31", 32))], &["a", "b"]);
    ipam.give_routers(&[true]);
    let leases: Vec<Lease> = (0..2).map(|_| ipam.allocate_from("a", &of("red")).unwrap()).collect();
    leases.iter().for_each(|lease| ipam.release("a", lease));
    assert_eq!(blocks(&ipam, "a"), ["default 10.0.0.0/29", "red 10.9.0.0/32"]);
    assert_eq!(give(&mut ipam, "b", "red").unwrap(), "10.9.0.1");
    assert_eq!(give(&mut ipam, "b", "red").unwrap(), "10.9.0.0");
    assert_eq!(blocks(&ipam, "a"), ["default 10.0.0.0/29"]);
    ipam.set_pool("red", None);
    assert_eq!(
        blocks(&ipam, "b"),
        ["default 10.0.0.8/29", "red 10.9.0.1/32", "red 10.9.0.0/32"],
        "pods have them"
    );
}

#[test]
fn annotations_come_before_selectors_and_those_before_the_default() {
    let red = mk_pool(
        json!({"ipv4": {"cidrs": ["10.9.0.0/24"], "maskSize": 28}, "podSelector": {"matchLabels": {"app": "web"}}}),
    );
    let ipam = mk_ipam(&[("red", red)], &[]);
    let request = |key: &str, name: &str| {
        Request::read(Some(&[(format!("ipam.cilium.io/{key}"), name.to_owned())].into()))
    };
    let (web, none) = (Labels::parse(["k8s:app=web"]).unwrap(), Labels::default());
    let choose = |pod: Option<Request>, labels: &Labels, namespace: Option<Request>, is_ipv4| {
        let pod = Asker { request: pod.as_ref(), labels };
        ipam.choose(&pod, &Asker { request: namespace.as_ref(), labels: &none }, is_ipv4)
    };
    assert_eq!(choose(request("ip-pool", "a"), &web, request("ipv4-pool", "b"), true), "a");
    assert_eq!(choose(request("ipv6-pool", "a"), &web, request("ip-pool", "b"), true), "b");
    assert_eq!(choose(None, &web, None, true), "red");
    assert_eq!(choose(None, &web, None, false), "default", "red has no IPv6");
    assert_eq!(choose(request("ip-pool", ""), &none, None, true), "default");
}

#[test]
fn an_address_whose_block_is_not_on_record_brings_it_back() {
    let mut ipam = mk_ipam(&[("default", v4_pool("10.0.0.0/24", 29))], &["a", "b"]);
    let record = Record { id: Some(7), ipv4: Some("10.0.0.12".parse().unwrap()), ipv6: None };
    ipam.restore("b", &record).unwrap();
    assert_eq!(blocks(&ipam, "b"), ["default 10.0.0.8/29"]);
    ipam.give_routers(&[true]);
    assert_eq!(blocks(&ipam, "a"), ["default 10.0.0.0/29"]);
}

#[derive(Clone, Debug)]
enum Step {
    Pod(usize, usize),
    Gone(usize),
    Pool(usize, usize),
    NoPool(usize),
    Node(usize, bool),
    Restart,
}

const NODES: [&str; 3] = ["a", "b", "c"];
const POOLS: [&str; 3] = ["default", "red", "tiny"];
// They overlap on purpose, and change their size and the length of blocks.
const SPECS: [(&str, u8); 5] = [
    ("10.0.0.0/27", 29),
    ("10.0.0.16/28", 30),
    ("10.0.0.32/30", 32),
    ("10.0.0.0/28", 28),
    ("10.0.0.40/29", 31),
];

fn mk_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, 0..3usize).prop_map(|(n, p)| Step::Pod(n, p)),
        6 => any::<usize>().prop_map(Step::Gone),
        2 => (0..3usize, 0..5usize).prop_map(|(p, s)| Step::Pool(p, s)),
        1 => (0..3usize).prop_map(Step::NoPool),
        1 => (0..3usize, any::<bool>()).prop_map(|(n, there)| Step::Node(n, there)),
        2 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Model {
    ipam: Ipam,
    pools: BTreeMap<&'static str, Pool>,
    specs: BTreeMap<&'static str, &'static str>,
    nodes: BTreeSet<&'static str>,
    leases: Vec<(&'static str, Lease)>,
}

impl Model {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pod(n, p) => {
                if let Ok(lease) = self.ipam.allocate_from(NODES[n], &of(POOLS[p])) {
                    let cidr: IpNet =
                        self.specs[POOLS[p]].parse().expect("prefixes of tests are well-formed");
                    let inside =
                        |address| cidr.contains(&address) && self.ipam.is_pod_address(NODES[n], address);
                    assert!(lease.addresses().all(inside), "{lease:?} of {cidr}");
                    self.leases.push((NODES[n], lease));
                }
            }
            Step::Gone(i) if !self.leases.is_empty() => {
                let (node, lease) = self.leases.swap_remove(i % self.leases.len());
                self.ipam.release(node, &lease);
            }
            Step::Gone(_) => {}
            Step::Pool(p, s) => {
                let pool = v4_pool(SPECS[s].0, SPECS[s].1);
                self.ipam.set_pool(POOLS[p], Some(pool.clone()));
                self.pools.insert(POOLS[p], pool);
                self.specs.insert(POOLS[p], SPECS[s].0);
            }
            Step::NoPool(p) => {
                self.ipam.set_pool(POOLS[p], None);
                self.pools.remove(POOLS[p]);
            }
            Step::Node(n, is_there) => {
                self.ipam.set_present(NODES[n], is_there);
                if is_there {
                    self.nodes.insert(NODES[n])
                } else {
                    self.nodes.remove(NODES[n])
                };
            }
            Step::Restart => self.restart(),
        }
        self.ipam.give_routers(&[true]);
    }

    /// All that is on record goes to a new one, which has the same of it.
    fn restart(&mut self) {
        let mut next = Ipam::with_pools();
        self.nodes.iter().for_each(|node| next.set_present(node, true));
        for (name, pool) in &self.pools {
            next.set_pool(name, Some(pool.clone()));
        }
        for node in &self.nodes {
            let blocks: Vec<_> = self.ipam.blocks(node).map(|(pool, it)| (pool.to_owned(), it)).collect();
            let routers: Vec<_> = self.ipam.router(node).addresses().collect();
            next.restore_blocks(node, &blocks, &routers);
        }
        for (node, lease) in &self.leases {
            let record = Record { id: Some(lease.id), ipv4: lease.ipv4, ipv6: lease.ipv6 };
            assert_eq!(next.restore(node, &record).as_ref(), Ok(lease));
        }
        next.trim();
        for node in &self.nodes {
            assert_eq!(blocks(&next, node), blocks(&self.ipam, node));
            assert_eq!(next.router(node), self.ipam.router(node));
        }
        self.ipam = next;
    }

    fn check(&self) {
        assert_eq!(self.ipam.check(), Vec::<String>::new());
        let of_pods = self.leases.iter().flat_map(|(_, lease)| lease.addresses());
        let all: Vec<IpAddr> =
            of_pods.chain(NODES.iter().flat_map(|node| self.ipam.router(node).addresses())).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        assert_eq!(self.ipam.held(), self.leases.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn no_address_twice_none_outside_no_block_twice_and_a_restart_changes_nothing(
        steps in prop::collection::vec(mk_step(), 1..100)
    ) {
        let mut model = Model { ipam: Ipam::with_pools(), ..Model::default() };
        for node in NODES {
            model.ipam.set_present(node, true);
            model.nodes.insert(node);
        }
        for step in &steps {
            model.step(step);
            model.check();
        }
    }
}
