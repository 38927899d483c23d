//! Whatever happened to Services, to the agent, to the API server and to the maps: the kernel holds entry by entry what it holds on a
//! node that only ever saw the outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use cilium_api::parts::{Algorithm, Backend, BackendPlace, Part, PartKey, Parts, Service, ServicePort};
use cilium_bpf::layout::{
    BackendEntry, BackendKey, MAGLEV_NONE, MaglevKey, ServiceEntry, ServiceKey, SourceRangeKey,
};
use cilium_delta::Table as _;
use cilium_drivers::maps::Maps;

use crate::parts::{NODE, mk_shared};
use crate::stage::{Stage, eventually};

/// Services that come and go.
const NAMES: u64 = 6;

/// Numbers that look random and are the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn sometimes(&mut self) -> bool {
        self.below(3) == 0
    }

    fn backend(&mut self, family: bool) -> Backend {
        let last = 10 + self.below(5);
        let address = if family { format!("fd00:10:244:1::{last}") } else { format!("10.244.1.{last}") };
        let place = self.sometimes().then(|| {
            let node = if self.sometimes() { "n2".into() } else { NODE.into() };
            Box::new(BackendPlace { node, leaving: self.sometimes(), ..BackendPlace::default() })
        });
        Backend { address: address.parse().expect("an address"), port: 8080, place }
    }

    fn service(&mut self, name: u64) -> Part {
        let own: IpAddr = Ipv4Addr::from(0x0a60_0100 + u32::try_from(name).expect("small")).into();
        let mut backends: Vec<Backend> = (0..self.below(5)).map(|_| self.backend(false)).collect();
        let dual = self.sometimes();
        backends.extend((0..self.below(3)).filter(|_| dual).map(|_| self.backend(true)));
        backends.sort_unstable();
        backends.dedup_by_key(|it| it.address);
        let node_port = if self.sometimes() { 30_000 } else { 0 };
        let port = ServicePort { name: String::new(), protocol: 6, port: 80, node_port, backends };
        let second = ServicePort { port: 81, node_port: 0, protocol: 17, ..port.clone() };
        let range = |text: &str| text.parse().expect("a prefix");
        let v6 = format!("fd00:10:96::{}", name + 1).parse().expect("an address");
        Part::Service(Service {
            cluster_ips: [own].into_iter().chain(dual.then_some(v6)).collect(),
            load_balancer: self.sometimes().then(contested).into_iter().collect(),
            external: self.sometimes().then(contested).into_iter().collect(),
            local: self.sometimes(),
            external_local: self.sometimes(),
            source_ranges: self.sometimes().then(|| vec![range("10.0.0.0/8"), range("10.1.0.0/16")]),
            affinity: if self.sometimes() { 60 } else { 0 },
            algorithm: self.sometimes().then_some(Algorithm::Maglev),
            ports: if self.sometimes() { vec![port, second] } else { vec![port] },
            ..Service::default()
        })
    }
}

/// An address that several Services want.
fn contested() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 240).into()
}

/// What programs find behind a frontend: seconds of affinity, flags, backends, ranges and table.
type Behind = (u32, u32, Vec<BackendEntry>, BTreeSet<String>, Vec<u16>);

/// All frontends, and how many entries belong to none.
fn seen(stage: &Stage) -> (BTreeMap<ServiceKey, Behind>, usize) {
    let mut maps = Maps::open(&stage.bpffs.join("cilium")).expect("the maps are there");
    let services: Vec<(ServiceKey, ServiceEntry)> = maps.services.list().expect("lists");
    let backends: BTreeMap<BackendKey, BackendEntry> =
        maps.backends.list().expect("lists").into_iter().collect();
    let ranges: Vec<SourceRangeKey> =
        maps.source_ranges.list().expect("lists").into_iter().map(|(key, _)| key).collect();
    let tables: BTreeMap<MaglevKey, Vec<u16>> = maps
        .maglev
        .list()
        .expect("lists")
        .into_iter()
        .map(|(key, chunk)| (key, chunk.backends.0.to_vec()))
        .collect();
    let used: BTreeSet<u32> = services.iter().map(|(_, entry)| entry.generation).collect();
    let generations = backends.keys().map(|key| key.generation);
    let generations = generations.chain(ranges.iter().map(|key| key.generation));
    let generations = generations.chain(tables.keys().map(|key| key.generation));
    let stray = generations.filter(|generation| !used.contains(generation)).count();
    let behind = |entry: ServiceEntry| {
        let generation = entry.generation;
        let of = |index| backends.get(&BackendKey { generation, index }).copied();
        let ranges = ranges.iter().filter(|key| key.generation == generation);
        let table = tables.iter().filter(|(key, _)| key.generation == generation);
        (
            entry.affinity,
            entry.flags,
            (0..entry.count).filter_map(of).collect(),
            ranges.map(|key| format!("{:?}", key.prefix())).collect(),
            table.flat_map(|(_, chunk)| chunk).copied().filter(|index| *index != MAGLEV_NONE).collect(),
        )
    };
    (services.into_iter().map(|(key, entry)| (key, behind(entry))).collect(), stray)
}

/// Somebody else writes the maps: something is gone, something is wrong, something is too much.
fn vandalise(stage: &Stage, numbers: &mut Numbers) {
    let mut maps = Maps::open(&stage.bpffs.join("cilium")).expect("the maps are there");
    let backends = maps.backends.list().expect("lists");
    let services = maps.services.list().expect("lists");
    let pick =
        |numbers: &mut Numbers, length: usize| usize::try_from(numbers.below(length as u64)).expect("small");
    if backends.is_empty() || services.is_empty() {
        return;
    }
    let (key, entry) = backends[pick(numbers, backends.len())];
    match numbers.below(5) {
        0 => maps.backends.delete(&key).expect("deletes"),
        1 => {
            let other = backends[pick(numbers, backends.len())].1;
            maps.backends.set(&key, &BackendEntry { address: entry.address, ..other }).expect("sets");
        }
        2 => maps.backends.set(&BackendKey { index: 77, ..key }, &entry).expect("sets"),
        3 => maps.services.delete(&services[pick(numbers, services.len())].0).expect("deletes"),
        _ => {
            let (key, entry) = services[pick(numbers, services.len())];
            maps.services.set(&key, &ServiceEntry { affinity: 7, ..entry }).expect("sets");
        }
    }
}

fn settings() -> [(&'static str, &'static str); 2] {
    [("bpf-lb-algorithm-annotation", "true"), ("bpf-lb-maglev-table-size", "251")]
}

/// Lives through a history. Returns the node and what was planned last.
fn live(numbers: &mut Numbers) -> (Stage, Parts) {
    let mut stage = Stage::create(2, &settings());
    stage.await_ready();
    let mut parts = mk_shared(1..=2);
    for _ in 0..60 {
        let name = numbers.below(NAMES);
        let key = PartKey::service("default", &format!("s{name}"));
        match numbers.below(16) {
            0..8 => drop(parts.insert(key, numbers.service(name))),
            8..11 => drop(parts.remove(&key)),
            11 => stage.kill_server(),
            12 => stage.kill_agent(),
            13 => vandalise(&stage, numbers),
            _ => {}
        }
        // Some changes are only seen together with the next.
        if numbers.below(4) > 0 {
            stage.plan_shared(&parts);
        }
        match numbers.below(6) {
            0 => {
                stage.kill_server();
                stage.start_server();
            }
            1 => {
                stage.kill_agent();
                stage.start_agent();
            }
            2 => std::thread::sleep(std::time::Duration::from_millis(numbers.below(300))),
            _ => {}
        }
    }
    parts.insert(PartKey::service("default", "s0"), numbers.service(0));
    stage.plan_shared(&parts);
    stage.kill_server();
    stage.start_server();
    stage.kill_agent();
    stage.start_agent();
    // What happened before, the agent finds when it starts; this, when it looks the next time.
    stage.await_ready();
    (0..3).for_each(|_| vandalise(&stage, numbers));
    (stage, parts)
}

#[test]
fn what_the_kernel_holds_of_services_does_not_depend_on_what_happened() {
    let seed = std::env::var("HISTORY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HISTORY_SEED={seed}");
    let mut numbers = Numbers(seed);
    let (stage, parts) = live(&mut numbers);
    let fresh = Stage::create(2, &settings());
    fresh.await_ready();
    fresh.plan_shared(&parts);
    let clusters = parts.values().filter_map(|part| match part {
        Part::Service(service) => Some(service.cluster_ips.len() * service.ports.len()),
        _ => None,
    });
    let least = clusters.sum::<usize>();
    assert!(least > 2, "the history ended with little");
    eventually("a node that saw only the outcome has it", || {
        seen(&fresh).0.len() >= least && seen(&fresh).1 == 0
    });
    eventually("the other one has the same", || seen(&stage) == seen(&fresh));
    let (services, _) = seen(&fresh);
    assert!(services.values().any(|(_, _, backends, ..)| !backends.is_empty()), "{services:?}");
    let failures = |stage: &Stage| stage.status().map(|status| status.node_state.failures);
    eventually("both say the same of what is not in force", || {
        failures(&stage).is_some_and(|failures_here| Some(failures_here) == failures(&fresh))
    });
}
