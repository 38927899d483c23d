//! Addresses with names: their identities, what policies say of them, and what is never in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use cilium_api::parts::{Direction, DnsRule, Entry, NamedPeer, Part, PartKey, Parts, Policy};
use cilium_bpf::layout::{Addr, DIRECTION_EGRESS, IpcacheKey, POLICY_ALLOW, POLICY_PROXY};
use cilium_dataplane::{Dataplane, GRACE};
use cilium_names::{Limits, Table};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::build::*;
use crate::kernel::Fake;

const WORLD: u32 = 9;
const PREFIX: u32 = (1 << 24) + 7;

fn mk_named(identity: u32, egress: Vec<Entry>, names: &[(&str, u16)]) -> (PartKey, Part) {
    let peer = |(pattern, port): &(&str, u16)| NamedPeer {
        pattern: (*pattern).to_owned(),
        protocol: 6,
        first: *port,
        last: *port,
        origins: vec![0],
    };
    let policy = Policy {
        egress: Direction { enforced: true, allow: egress, ..Direction::default() },
        names: names.iter().map(peer).collect(),
        origins: vec!["cnp/default/rule1".into()],
        ..Policy::default()
    };
    (PartKey::policy(identity), Part::Policy(Box::new(policy)))
}

fn mk_running(policy: (PartKey, Part)) -> (Dataplane, Fake, Parts) {
    let (mut dataplane, mut kernel) = (Dataplane::new(mk_config(false)), Fake::default());
    let parts = Parts::from([mk_node("n1", 1), mk_node("n2", 2), mk_endpoint(5, 300), policy]);
    dataplane.link(5, Some(mk_link(5)));
    feed(&mut dataplane, &mut kernel, &parts);
    (dataplane, kernel, parts)
}

fn name(dataplane: &mut Dataplane, kernel: &mut Fake, parts: &Parts, address: &str, names: &[&str]) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    dataplane.set_names([(ip(address), names)], parts);
    dataplane.apply(kernel, 0);
}

fn identity(kernel: &Fake, address: IpAddr) -> Option<u32> {
    let key = IpcacheKey::new(address, if address.is_ipv4() { 32 } else { 128 });
    kernel.ipcache.get(&key).map(|entry| entry.identity)
}

/// What the pod may reach of an identity, by port.
fn ports(kernel: &Fake, peer: u32) -> BTreeSet<u16> {
    let endpoint = kernel.endpoints.get(&Addr::from(ip("10.244.1.5"))).expect("is connected");
    let generation = kernel.slots[&endpoint.slot].generation;
    let entries = kernel.rules().into_iter();
    let allowed = entries.filter(|(key, entry)| {
        (key.generation, key.direction, key.peer) == (generation, DIRECTION_EGRESS, peer)
            && [POLICY_ALLOW, POLICY_PROXY].contains(&entry.verdict)
    });
    allowed.map(|(key, _)| key.port.0).collect()
}

#[test]
fn an_address_is_allowed_for_its_name_and_what_it_was_before() {
    let world = mk_allow(WORLD, 6, 80, 80);
    let (mut dataplane, mut kernel, parts) =
        mk_running(mk_named(300, vec![world], &[("a.io.", 443), ("*.io.", 444), ("b.org.", 445)]));
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.1", &["a.io.", "www.example.org."]);
    let first = identity(&kernel, ip("192.0.2.1")).expect("has an identity");
    assert!((0x0180_0000..0x0200_0000).contains(&first));
    assert_eq!(ports(&kernel, first), BTreeSet::from([80, 443, 444]));

    let generation = kernel.slots.clone();
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.2", &["a.io."]);
    assert_eq!(identity(&kernel, ip("192.0.2.2")), Some(first), "the same patterns, the same identity");
    assert_eq!(kernel.slots, generation, "policies know it already");
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.3", &["example.org."]);
    assert_eq!(identity(&kernel, ip("192.0.2.3")), None, "nobody asks for that name");

    for address in ["192.0.2.1", "192.0.2.2"] {
        name(&mut dataplane, &mut kernel, &parts, address, &[]);
    }
    assert_eq!(identity(&kernel, ip("192.0.2.1")), None);
    assert!(ports(&kernel, first).is_empty());
    dataplane.sweep(&mut kernel, GRACE);
    assert!(!kernel.entries().any(|key| key.peer == first), "nothing is left");
    assert!(dataplane.take_reassigned().is_empty(), "no connection has to be forgotten");
}

/// The bound that `docs/design/dns.md` states: however many addresses a name goes through, 1000 entries of the ipcache, and what
/// policies say of one identity.
#[test]
fn a_name_with_ever_changing_addresses_stays_within_its_bound() {
    const EACH: u32 = 200;
    let (mut dataplane, mut kernel, parts) = mk_running(mk_named(300, vec![], &[("a.io.", 443)]));
    let mut table = Table::new(Limits::default());
    let (mut evicted, mut settled) = (0, None);
    for answer in 0..20 {
        let first = 0x0100_0000 * 203 + answer * EACH;
        let addresses: Vec<IpAddr> = (first..first + EACH).map(|it| Ipv4Addr::from(it).into()).collect();
        table.learn("a.io.", &addresses, 60, 1000 + u64::from(answer));
        let changed = table.take_changed();
        let names = |address| table.names_of(address).map(str::to_owned).collect();
        dataplane.set_names(changed.into_iter().map(|address| (address, names(address))), &parts);
        dataplane.apply(&mut kernel, 0);
        evicted += table.take_evicted().len();
        let named: BTreeMap<IpcacheKey, u32> = kernel
            .ipcache
            .iter()
            .filter(|(_, entry)| entry.identity >= 0x0180_0000)
            .map(|(key, entry)| (*key, entry.identity))
            .collect();
        assert!(named.len() <= 1000, "{} entries after {} answers", named.len(), answer + 1);
        assert!(addresses.iter().all(|it| named.contains_key(&IpcacheKey::new(*it, 32))), "the newest count");
        assert_eq!(named.values().collect::<BTreeSet<_>>().len(), 1, "one identity");
        let now = (kernel.slots.clone(), kernel.policy.clone());
        assert_eq!(*settled.get_or_insert_with(|| now.clone()), now, "policies stay as they are");
    }
    assert_eq!(evicted, 20 * 200 - 1000, "connections to what had to go are forgotten");
}

#[test]
fn the_cluster_has_no_names() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_named(300, vec![], &[("*", 443)]));
    parts.extend([mk_address("172.16.0.7", 301, Some("n2")), mk_address("203.0.113.9", PREFIX, None)]);
    feed(&mut dataplane, &mut kernel, &parts);
    for (address, named) in [
        ("172.30.0.2", false),
        ("10.244.2.77", false),
        ("172.16.0.7", false),
        ("203.0.113.9", true),
        ("203.0.113.10", true),
        ("2001:db8::1", true),
    ] {
        let before = identity(&kernel, ip(address));
        name(&mut dataplane, &mut kernel, &parts, address, &["a.io."]);
        assert_eq!(identity(&kernel, ip(address)) != before, named, "{address}");
    }
    // An address that becomes a pod's is the pod's, and the other way round.
    parts.extend([mk_address("203.0.113.10", 302, Some("n2"))]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(identity(&kernel, ip("203.0.113.10")), Some(302));
    parts.remove(&PartKey::address(ip("203.0.113.10")));
    dataplane.update([&PartKey::address(ip("203.0.113.10"))], &parts);
    dataplane.apply(&mut kernel, 0);
    assert!(identity(&kernel, ip("203.0.113.10")).expect("is named") >= 0x0180_0000);
}

#[test]
fn a_prefix_around_goes_on_to_count() {
    let allow = vec![mk_allow(PREFIX, 6, 81, 81), mk_allow(WORLD, 6, 80, 80)];
    let mut policy = mk_named(300, allow, &[("a.io.", 443)]);
    if let Part::Policy(policy) = &mut policy.1 {
        policy.egress.deny = vec![mk_allow(PREFIX, 6, 443, 443)];
        let patterns = vec!["*".to_owned()];
        policy.dns = vec![DnsRule { peer: PREFIX, protocol: 17, port: 53, patterns, origins: vec![0] }];
    }
    let (mut dataplane, mut kernel, mut parts) = mk_running(policy);
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.1", &["a.io."]);
    let outside = identity(&kernel, ip("192.0.2.1")).expect("is named");
    assert_eq!(ports(&kernel, outside), BTreeSet::from([80, 443]));
    let before = kernel.slots.clone();
    parts.extend([mk_prefix("192.0.2.0/24", PREFIX)]);
    feed(&mut dataplane, &mut kernel, &parts);
    let inside = identity(&kernel, ip("192.0.2.1")).expect("is named");
    assert_eq!(ports(&kernel, inside), BTreeSet::from([53, 81]), "what is denied to the prefix is denied");
    assert_ne!(kernel.slots, before, "connections are judged again");
    assert!(dataplane.dns_rules()[&300].iter().any(|rule| rule.peer == inside));
}

#[test]
fn a_pattern_that_comes_finds_names_that_were_there() {
    let (mut dataplane, mut kernel, mut parts) = mk_running(mk_named(300, vec![], &[]));
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.1", &["a.b.io."]);
    assert_eq!(identity(&kernel, ip("192.0.2.1")), None);
    parts.extend([mk_named(300, vec![], &[("**.io.", 443)])]);
    feed(&mut dataplane, &mut kernel, &parts);
    let named = identity(&kernel, ip("192.0.2.1")).expect("is named");
    assert_eq!(ports(&kernel, named), BTreeSet::from([443]));
    parts.extend([mk_named(300, vec![], &[])]);
    feed(&mut dataplane, &mut kernel, &parts);
    assert_eq!(identity(&kernel, ip("192.0.2.1")), None);
}

#[test]
fn a_restarted_agent_with_the_same_names_writes_nothing() {
    let (mut dataplane, mut kernel, parts) = mk_running(mk_named(300, vec![], &[("a.io.", 443)]));
    name(&mut dataplane, &mut kernel, &parts, "192.0.2.1", &["a.io."]);
    dataplane.sweep(&mut kernel, GRACE);
    let before = kernel.clone();
    let mut restarted = Dataplane::new(mk_config(false));
    restarted.adopt(&mut kernel, 0).expect("lists");
    restarted.link(5, Some(mk_link(5)));
    restarted.update(parts.keys(), &parts);
    restarted.set_names([(ip("192.0.2.1"), BTreeSet::from(["a.io.".to_owned()]))], &parts);
    restarted.apply(&mut kernel, 0);
    assert!(restarted.take_reassigned().is_empty());
    assert!(!restarted.sweep(&mut kernel, GRACE));
    assert_eq!(kernel, before);
}

#[derive(Clone, Debug)]
enum Step {
    Name(usize, Vec<&'static str>),
    Policy(Vec<(&'static str, u16)>),
    Prefix(bool),
    Pod(bool),
}

const ADDRESSES: [&str; 4] = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1"];

fn step() -> impl Strategy<Value = Step> {
    let names = subsequence(vec!["a.io.", "b.io.", "c.org."], 0..3);
    let patterns = subsequence(vec![("a.io.", 443), ("*.io.", 444), ("*", 445), ("c.org.", 446)], 0..4);
    prop_oneof![
        4 => (0..ADDRESSES.len(), names).prop_map(|(at, names)| Step::Name(at, names)),
        2 => patterns.prop_map(Step::Policy),
        1 => any::<bool>().prop_map(Step::Prefix),
        1 => select(vec![true, false]).prop_map(Step::Pod),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// In whatever order things come, the kernel holds what a dataplane that learned all at once writes.
    #[test]
    fn histories_do_not_matter(steps in proptest::collection::vec(step(), 0..20)) {
        let allow = || vec![mk_allow(WORLD, 6, 80, 80), mk_allow(PREFIX, 6, 81, 81)];
        let (mut dataplane, mut kernel, mut parts) = mk_running(mk_named(300, allow(), &[]));
        let mut named = vec![Vec::new(); ADDRESSES.len()];
        for step in steps {
            match step {
                Step::Name(at, names) => {
                    name(&mut dataplane, &mut kernel, &parts, ADDRESSES[at], &names);
                    named[at] = names;
                    continue;
                }
                Step::Policy(names) => parts.extend([mk_named(300, allow(), &names)]),
                Step::Prefix(true) => parts.extend([mk_prefix("192.0.2.0/24", PREFIX)]),
                Step::Prefix(false) => drop(parts.remove(&PartKey::prefix("192.0.2.0/24"))),
                Step::Pod(true) => parts.extend([mk_address("198.51.100.1", 301, Some("n2"))]),
                Step::Pod(false) => drop(parts.remove(&PartKey::address(ip("198.51.100.1")))),
            }
            let mut keys: Vec<PartKey> = parts.keys().cloned().collect();
            keys.extend([PartKey::prefix("192.0.2.0/24"), PartKey::address(ip("198.51.100.1"))]);
            dataplane.update(keys.iter(), &parts);
            dataplane.apply(&mut kernel, 0);
        }
        dataplane.sweep(&mut kernel, GRACE);
        let (mut fresh, mut other) = (Dataplane::new(mk_config(false)), Fake::default());
        fresh.link(5, Some(mk_link(5)));
        fresh.update(parts.keys(), &parts);
        for (address, names) in ADDRESSES.iter().zip(&named) {
            name(&mut fresh, &mut other, &parts, address, names);
        }
        prop_assert_eq!(&kernel.ipcache, &other.ipcache);
        let contents = |kernel: &Fake| -> Vec<_> {
            kernel.slots.values().filter(|slot| slot.open).map(|slot| kernel.content(*slot)).collect()
        };
        prop_assert_eq!(contents(&kernel), contents(&other));
    }
}
