//! What callers rely on, on examples and on random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_ipam::{Error, FIRST_ID, Ipam, LAST_ID, Lease, Record};
use ipnet::IpNet;
use proptest::prelude::*;

fn mk_prefixes(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|p| p.parse().expect("prefixes of tests are well-formed")).collect()
}

fn mk_ipam(prefixes: &[&str]) -> Ipam {
    let mut ipam = Ipam::default();
    assert!(ipam.set_node("a", &mk_prefixes(prefixes)));
    ipam
}

fn shown(lease: &Lease) -> String {
    lease.addresses().map(|a| a.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn both_families_get_the_same_place() {
    let mut ipam = mk_ipam(&["10.1.0.0/24", "fd00:1::/64"]);
    assert_eq!(ipam.router("a").ipv4, Some("10.1.0.1".parse().unwrap()));
    assert_eq!(ipam.router("a").ipv6, Some("fd00:1::1".parse().unwrap()));
    assert_eq!(shown(&ipam.allocate("a").unwrap()), "10.1.0.2 fd00:1::2");
    assert_eq!(shown(&ipam.allocate("a").unwrap()), "10.1.0.3 fd00:1::3");
}

#[test]
fn a_place_taken_in_one_family_is_passed_over_while_others_are_free_in_both() {
    let mut ipam = mk_ipam(&["10.1.0.0/29", "fd00:1::/125"]);
    let record = Record { ipv4: Some("10.1.0.4".parse().unwrap()), ..Record::default() };
    ipam.restore("a", &record).unwrap();
    let given: Vec<_> = (0..5).map(|_| ipam.allocate("a")).collect();
    let texts: Vec<_> = given.iter().flatten().map(shown).collect();
    assert_eq!(
        texts,
        ["10.1.0.5 fd00:1::5", "10.1.0.6 fd00:1::6", "10.1.0.2 fd00:1::2", "10.1.0.3 fd00:1::3"]
    );
    assert!(matches!(given[4], Err(Error::AddressesExhausted { .. })));
}

#[test]
fn different_places_are_given_when_no_common_one_is_free() {
    let mut ipam = mk_ipam(&["10.1.0.0/30", "fd00:1::/64"]);
    let record = Record { ipv6: Some("fd00:1::2".parse().unwrap()), ..Record::default() };
    ipam.restore("a", &record).unwrap();
    assert_eq!(shown(&ipam.allocate("a").unwrap()), "10.1.0.2 fd00:1::3");
}

#[test]
fn a_freed_address_and_number_are_used_again_last() {
    let mut ipam = mk_ipam(&["10.1.0.0/29"]);
    let first = ipam.allocate("a").unwrap();
    ipam.release("a", &first);
    let next: Vec<_> = (0..5).map(|_| ipam.allocate("a").unwrap()).collect();
    let texts: Vec<_> = next.iter().map(shown).collect();
    assert_eq!(texts, ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"]);
    assert_eq!(next.iter().map(|l| l.id).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
}

#[test]
fn exhaustion_names_node_and_prefix() {
    let mut ipam = mk_ipam(&["10.1.0.0/30"]);
    ipam.allocate("a").unwrap();
    let text = ipam.allocate("a").unwrap_err().to_string();
    assert!(text.contains("10.1.0.0/30") && text.contains("node a"), "{text}");
    assert_eq!(ipam.allocate("b").unwrap_err(), Error::NoPrefix { node: "b".into() });
}

#[test]
fn numbers_run_out_at_4095() {
    let mut ipam = mk_ipam(&["10.0.0.0/8"]);
    let all: BTreeSet<_> = (FIRST_ID..=LAST_ID).map(|_| ipam.allocate("a").unwrap().id).collect();
    assert_eq!(all.len(), usize::from(LAST_ID));
    assert_eq!(ipam.allocate("a").unwrap_err(), Error::NumbersExhausted { node: "a".into() });
}

#[test]
fn records_come_before_prefixes_and_are_kept_exactly() {
    let mut ipam = Ipam::default();
    let record = Record { id: Some(9), ipv4: Some("10.1.0.7".parse().unwrap()), ipv6: None };
    let lease = ipam.restore("a", &record).unwrap();
    assert_eq!((lease.id, shown(&lease)), (9, "10.1.0.7".into()));
    assert!(matches!(ipam.restore("b", &record), Err(Error::Unavailable { .. })));
    ipam.set_node("a", &mk_prefixes(&["10.1.0.0/28"]));
    for _ in 0..12 {
        assert_ne!(ipam.allocate("a").unwrap().ipv4, record.ipv4);
    }
    assert!(ipam.allocate("a").is_err());
    ipam.release("a", &lease);
    assert_eq!(ipam.allocate("a").unwrap().ipv4, record.ipv4);
}

#[test]
fn a_record_with_a_reserved_address_is_refused_and_a_used_number_replaced() {
    let mut ipam = mk_ipam(&["10.1.0.0/24"]);
    for reserved in ["10.1.0.0", "10.1.0.1", "10.1.0.255"] {
        let record = Record { ipv4: Some(reserved.parse().unwrap()), ..Record::default() };
        assert!(matches!(ipam.restore("a", &record), Err(Error::Unavailable { .. })), "{reserved}");
        assert!(!ipam.is_pod_address("a", reserved.parse().unwrap()));
    }
    let taken = ipam.allocate("a").unwrap();
    for id in [Some(taken.id), Some(0), Some(5000), None] {
        let lease = ipam.restore("a", &Record { id, ..Record::default() }).unwrap();
        assert_ne!(lease.id, taken.id);
        assert!((FIRST_ID..=LAST_ID).contains(&lease.id));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Release(usize),
    Restore(usize, u8, u16),
    Prefixes(usize, usize),
}

const NODES: [&str; 3] = ["a", "b", "c"];
// Overlapping on purpose: a node that was made again may have another node's old prefix.
const PREFIXES: [&[&str]; 4] =
    [&["10.1.0.0/28"], &["10.1.0.0/29", "fd00:1::/124"], &["fd00:1::/125"], &["10.1.0.8/29", "fd00:2::/64"]];

fn mk_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize).prop_map(Step::Allocate),
        3 => any::<usize>().prop_map(Step::Release),
        1 => (0..3usize, 0..16u8, 0..20u16).prop_map(|(n, p, id)| Step::Restore(n, p, id)),
        1 => (0..3usize, 0..4usize).prop_map(|(n, p)| Step::Prefixes(n, p)),
    ]
}

/// The prefixes as they are now, beside the leases that are out.
struct Model {
    ipam: Ipam,
    prefixes: BTreeMap<&'static str, Vec<IpNet>>,
    leases: Vec<(&'static str, Lease)>,
}

impl Model {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Allocate(n) => {
                if let Ok(lease) = self.ipam.allocate(NODES[n]) {
                    self.check_inside(NODES[n], &lease);
                    self.leases.push((NODES[n], lease));
                }
            }
            Step::Release(i) if !self.leases.is_empty() => {
                let (node, lease) = self.leases.swap_remove(i % self.leases.len());
                self.ipam.release(node, &lease);
            }
            Step::Release(_) => {}
            Step::Restore(n, last, id) => {
                let ipv4 = Some(std::net::Ipv4Addr::new(10, 1, 0, last));
                if let Ok(lease) = self.ipam.restore(NODES[n], &Record { id: Some(id), ipv4, ipv6: None }) {
                    self.leases.push((NODES[n], lease));
                }
            }
            Step::Prefixes(n, p) => {
                let prefixes = mk_prefixes(PREFIXES[p]);
                self.ipam.set_node(NODES[n], &prefixes);
                self.prefixes.insert(NODES[n], prefixes);
            }
        }
    }

    fn check_inside(&self, node: &'static str, lease: &Lease) {
        let prefixes = &self.prefixes[node];
        assert_eq!(lease.addresses().count(), prefixes.len());
        let router = self.ipam.router(node);
        for address in lease.addresses() {
            let prefix = prefixes.iter().find(|p| p.contains(&address)).expect("inside a prefix of the node");
            assert_ne!(address, prefix.network());
            assert!(address.is_ipv6() || address != prefix.broadcast());
            assert!(![router.ipv4.map(IpAddr::V4), router.ipv6.map(IpAddr::V6)].contains(&Some(address)));
        }
    }

    fn check_unique(&self) {
        let addresses: Vec<_> = self.leases.iter().flat_map(|(_, l)| l.addresses()).collect();
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
        assert_eq!(self.ipam.held(), addresses.len());
        let ids: Vec<_> = self.leases.iter().map(|(n, l)| (n, l.id)).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        assert!(self.leases.iter().all(|(_, l)| (FIRST_ID..=LAST_ID).contains(&l.id)));
    }
}

proptest! {
    #[test]
    fn no_address_is_held_twice_and_none_given_outside(steps in prop::collection::vec(mk_step(), 1..120)) {
        let mut model = Model { ipam: Ipam::default(), prefixes: BTreeMap::new(), leases: Vec::new() };
        for step in &steps {
            model.step(step);
            model.check_unique();
        }
    }
}
