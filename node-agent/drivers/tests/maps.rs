//! Pinned maps on the real kernel: round trips, restarts, replacements. Needs root.
#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

mod common;

use cilium_bpf::layout::{
    AGGREGATE_PLACES, Addr, BackendEntry, BackendKey, CtEntry, CtKey, Endpoint, IpcacheEntry, IpcacheKey,
    NetPort, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules, ServiceEntry, ServiceKey, Slot,
};
use cilium_delta::{Table, Tracker};
use cilium_drivers::{
    datapath::{Datapath, Error, LoadOptions},
    maps::{self, Map, Maps},
    testing::Bpffs,
};
use common::{ip, mk_options};

fn mk_policy(generation: u32, number: u32) -> (PolicyKey, PolicyEntry) {
    let key = PolicyKey {
        prefix_len: PolicyKey::ONE_PORT,
        generation,
        peer: 1000 + number / 50_000,
        direction: 1,
        protocol: 6,
        port: NetPort(u16::try_from(number % 50_000).unwrap()),
    };
    (key, PolicyEntry { cookie: number, verdict: 1 })
}

/// Sets, reads, changes and removes through the interface that trackers use.
fn check_round_trip<K, V>(map: &mut Map<K, V>, key: &K, one: &V, other: &V)
where
    K: maps::Record + Clone + std::fmt::Debug + PartialEq,
    V: maps::Record + Clone + std::fmt::Debug + PartialEq,
{
    assert_eq!(map.list().unwrap(), [], "{}", map.name());
    map.set(key, one).unwrap();
    assert_eq!(map.get(key).unwrap().as_ref(), Some(one));
    map.set(key, other).unwrap();
    assert_eq!(map.list().unwrap(), [(key.clone(), other.clone())]);
    assert_eq!(map.count().unwrap(), 1);
    map.delete(key).unwrap();
    map.delete(key).unwrap();
    assert_eq!(map.list().unwrap(), [], "{}", map.name());
}

#[test]
fn every_kind_of_map_gives_back_what_was_written() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    Datapath::load(&mk_options(&bpffs)).unwrap();
    let mut maps = Maps::open(&bpffs).unwrap();

    let endpoint = Endpoint { ifindex: 7, identity: 1234, slot: 3, id: 9, mac: [1; 6], host_mac: [2; 6] };
    let address = Addr::from(ip("10.1.0.5"));
    check_round_trip(&mut maps.endpoints, &address, &endpoint, &Endpoint { identity: 4321, ..endpoint });
    let identity = |identity| IpcacheEntry { tunnel: ip("192.0.2.7").into(), identity };
    check_round_trip(&mut maps.ipcache, &IpcacheKey::new(ip("10.1.0.0"), 24), &identity(5), &identity(6));
    let slot = Slot { generation: 8, ingress_enforced: true, egress_enforced: false, open: true };
    check_round_trip(&mut maps.slots, &4095, &slot, &Slot { generation: 9, ..slot });
    let (key, entry) = mk_policy(1, 80);
    check_round_trip(&mut maps.policy.ports, &key, &entry, &PolicyEntry { verdict: 2, ..entry });
    let service = ServiceKey { address, port: NetPort(80), protocol: 6, scope: 0 };
    let count = |count| ServiceEntry { generation: 1, count, affinity: 0, flags: 0 };
    check_round_trip(&mut maps.services, &service, &count(1), &count(2));
    let backend = |port| BackendEntry { address, port: NetPort(port) };
    check_round_trip(&mut maps.backends, &BackendKey { generation: 1, index: 0 }, &backend(1), &backend(2));
    let (connection, _) = CtKey::new(6, (address, 1), (address, 2));
    let state = |expires| CtEntry { expires, ..CtEntry::default() };
    check_round_trip(&mut maps.ct, &connection, &state(1), &state(2));
    check_round_trip(&mut maps.event_mask, &0, &1, &3);
    assert!(maps.metrics.totals().unwrap().is_empty());
}

#[test]
fn aggregates_give_their_place_to_none_but_one_that_is_written() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    Datapath::load(&mk_options(&bpffs)).unwrap();
    let mut maps = Maps::open(&bpffs).unwrap();
    let (key, entry) = mk_policy(7, 80);
    let said = PolicyRules::pack([(&key, &entry)]).unwrap();
    let mk_peer = |generation, peer| PolicyPeer { generation, peer, direction: 1 };
    let all = [0, 11, 13, 14, 1000].map(|peer| mk_peer(7, peer));
    for peer in &all {
        maps.policy.peers.set(peer, &said).unwrap();
        assert_eq!(maps.policy.peers.get(peer).unwrap(), Some(said));
    }
    let mut listed: Vec<_> = maps.policy.peers.list().unwrap().into_iter().map(|(peer, _)| peer).collect();
    listed.sort_unstable();
    assert_eq!(listed, all);
    let rules = maps.policy.rules().unwrap();
    assert_eq!((rules.len(), maps.policy.count().unwrap()), (5, 5));
    assert!(rules.contains(&(PolicyKey { peer: 13, ..key }, entry)));

    // The next generation with this place is not there, and nothing goes with it.
    let next = mk_peer(7 + AGGREGATE_PLACES, 13);
    assert_eq!(maps.policy.peers.get(&next).unwrap(), None);
    maps.policy.peers.delete(&next).unwrap();
    assert_eq!(maps.policy.peers.get(&all[2]).unwrap(), Some(said));
    maps.policy.peers.set(&next, &said).unwrap();
    assert_eq!(maps.policy.peers.get(&all[2]).unwrap(), None);
    assert_eq!(maps.policy.retain_generations(|generation| generation != 7).unwrap(), 4);
    assert_eq!(maps.policy.peers.list().unwrap(), [(next, said)]);
}

#[test]
fn a_trie_answers_with_the_longest_prefix() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    Datapath::load(&mk_options(&bpffs)).unwrap();
    let mut ipcache = Maps::open(&bpffs).unwrap().ipcache;
    let entry = |identity| IpcacheEntry { tunnel: Addr::NONE, identity };
    ipcache.set(&IpcacheKey::new(ip("10.0.0.0"), 8), &entry(8)).unwrap();
    ipcache.set(&IpcacheKey::new(ip("10.1.0.0"), 16), &entry(16)).unwrap();
    ipcache.set(&IpcacheKey::new(ip("fd00::"), 64), &entry(64)).unwrap();
    let identity =
        |text, bits| ipcache.get(&IpcacheKey::new(ip(text), bits)).unwrap().map(|entry| entry.identity);
    assert_eq!(identity("10.1.2.3", 32), Some(16));
    assert_eq!(identity("10.2.2.3", 32), Some(8));
    assert_eq!(identity("fd00::7", 128), Some(64));
    assert_eq!(identity("192.0.2.1", 32), None);
}

#[test]
fn thousands_of_entries_are_read_in_batches_and_repaired() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    Datapath::load(&mk_options(&bpffs)).unwrap();
    let mut maps = Maps::open(&bpffs).unwrap();
    let mut policy = Tracker::new();
    policy.replace_desired((0..20_000).map(|number| mk_policy(1 + number % 3, number)));
    assert!(policy.apply(&mut maps.policy.ports).is_complete());
    assert_eq!(policy.refresh(&mut maps.policy.ports).unwrap().total(), 0);
    assert_eq!(maps.policy.count().unwrap(), 20_000);

    // Emptied from outside: found, counted, repaired.
    assert_eq!(maps.policy.retain_generations(|_| false).unwrap(), 20_000);
    let drift = policy.refresh(&mut maps.policy.ports).unwrap();
    assert_eq!((drift.missing, drift.total()), (20_000, 20_000));
    assert_eq!(policy.apply(&mut maps.policy.ports).set, 20_000);

    assert_eq!(policy.refresh(&mut maps.policy.ports).unwrap().total(), 0);

    let first = (0..20_000).filter(|number| number % 3 == 0).count();
    assert_eq!(maps.policy.retain_generations(|generation| generation != 1).unwrap(), first);
    assert_eq!(maps.policy.count().unwrap(), 20_000 - first);
    assert!(maps.policy.rules().unwrap().iter().all(|(key, _)| key.generation != 1));

    // Hash and LRU maps have more than one entry in a bucket.
    for number in 0..4000 {
        let key = BackendKey { generation: number, index: 1 };
        maps.backends.set(&key, &BackendEntry::default()).unwrap();
        let (key, _) =
            CtKey::new(17, (Addr::NONE, u16::try_from(number).unwrap()), (ip("10.0.0.1").into(), 53));
        maps.ct.set(&key, &CtEntry::default()).unwrap();
    }
    assert_eq!((maps.backends.count().unwrap(), maps.ct.entries().unwrap().len()), (4000, 4000));
}

#[test]
fn a_restart_finds_its_maps_as_they_were() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    let first = Datapath::load(&mk_options(&bpffs)).unwrap();
    assert_eq!(first.replaced_maps(), []);
    let (key, entry) = mk_policy(1, 1);
    Maps::open(&bpffs).unwrap().policy.ports.set(&key, &entry).unwrap();
    drop(first);
    let second = Datapath::load(&mk_options(&bpffs)).unwrap();
    assert_eq!(second.replaced_maps(), []);
    assert_eq!(Maps::open(&bpffs).unwrap().policy.ports.list().unwrap(), [(key, entry)]);
}

#[test]
fn a_map_of_another_size_is_replaced_and_named() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    let small = [("cilium_services".to_owned(), 4)].into();
    Datapath::load(&LoadOptions { map_sizes: small, ..mk_options(&bpffs) }).unwrap();
    let mut old = Maps::open(&bpffs).unwrap();
    assert_eq!(old.services.max_entries(), 4);
    let key = |port| ServiceKey { port: NetPort(port), ..ServiceKey::default() };
    for port in 0..4 {
        old.services.set(&key(port), &ServiceEntry::default()).unwrap();
    }
    let error = old.services.set(&key(4), &ServiceEntry::default()).unwrap_err();
    assert!(matches!(&error, maps::Error::Full { map, limit: 4, .. } if map == "cilium_services"), "{error}");
    let (policy, entry) = mk_policy(1, 1);
    old.policy.ports.set(&policy, &entry).unwrap();

    let datapath = Datapath::load(&mk_options(&bpffs)).unwrap();
    let replaced: Vec<_> = datapath.replaced_maps().iter().map(|map| map.name.as_str()).collect();
    assert_eq!(replaced, ["cilium_services"]);
    assert_eq!(datapath.replaced_maps()[0].reason, "entries 4, needed 65536");
    let mut new = Maps::open(&bpffs).unwrap();
    assert_eq!(new.services.list().unwrap(), []);
    assert_eq!(new.policy.ports.list().unwrap(), [(policy, entry)]);
    // The old one still is what it was for the programs in force.
    assert_eq!(old.services.count().unwrap(), 4);
}

#[test]
fn a_pin_of_another_type_is_replaced() {
    let mount = Bpffs::create();
    let bpffs = mount.directory("cilium");
    Datapath::load(&mk_options(&bpffs)).unwrap();
    let pins = bpffs.join("maps");
    std::fs::remove_file(pins.join("cilium_slots")).unwrap();
    std::fs::rename(pins.join("cilium_backends"), pins.join("cilium_slots")).unwrap();
    let error = Maps::open(&bpffs).err().unwrap();
    assert!(error.to_string().contains("cilium_slots"), "{error}");
    let datapath = Datapath::load(&mk_options(&bpffs)).unwrap();
    assert_eq!(datapath.replaced_maps().len(), 1);
    assert_eq!(datapath.replaced_maps()[0].reason, "type 1, needed 2");
    assert_eq!(Maps::open(&bpffs).unwrap().slots.count().unwrap(), 0);
}

#[test]
fn an_ordinary_directory_is_refused_untouched() {
    let directory = std::env::temp_dir().join(format!("cilium-drivers-{}", std::process::id()));
    let error = Datapath::load(&mk_options(&directory)).err().unwrap();
    assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
    assert!(!directory.exists());
}
