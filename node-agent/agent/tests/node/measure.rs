//! Figures of one node: `just bench-node`, with `ENABLE_TCX=false` for filters instead of tcx links.

use std::time::{Duration, Instant};
use std::{fs, thread};

use cilium_api::node_slice::SHARED;
use cilium_api::parts::{Backend, Part, PartKey, Parts, Service, ServicePort};
use cilium_drivers::maps::Maps;
use cilium_drivers::netns::Netns;
use cilium_drivers::testing;

use crate::api::lock;
use crate::parts::{address4, mk_endpoint, mk_policy, mk_shared, mk_spec};
use crate::stage::{Stage, eventually};
use crate::stream::Echo;

const SERVICES: u32 = 20_000;

/// Resident and largest resident memory of the agent in KiB.
fn memory(stage: &Stage) -> [u32; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.agent_id())).expect("it runs");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    ["VmRSS:", "VmHWM:"].map(value)
}

fn rss(stage: &Stage) -> String {
    let [now, most] = memory(stage);
    format!("{now} KiB resident, {most} KiB at most")
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("median {:?}, max {:?}", times[times.len() / 2], times[times.len() - 1])
}

fn mk_services(count: u32) -> Vec<Parts> {
    let service = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x0a60_1000 + number);
        let backends = (1..=3)
            .map(|backend| std::net::Ipv4Addr::from(0x0af4_0200 + number * 3 + backend))
            .map(|address| Backend::from((address.into(), 8080)))
            .collect();
        let port = ServicePort { name: "http".into(), protocol: 6, port: 80, node_port: 0, backends };
        let service = Service { cluster_ips: vec![address.into()], ports: vec![port], ..Service::default() };
        (PartKey::service("load", &format!("service-{number}")), Part::Service(service))
    };
    (0..count)
        .collect::<Vec<_>>()
        .chunks(20)
        .map(|chunk| chunk.iter().map(|n| service(*n)).collect())
        .collect()
}

#[test]
#[ignore = "measures: just bench-node"]
fn measure() {
    let pods = 25;
    let tcx = std::env::var("ENABLE_TCX").unwrap_or_else(|_| "true".into());
    let mut stage = Stage::create(pods, &[("enable-tcx", &tcx)]);
    stage.await_ready();
    println!("idle: {}", rss(&stage));

    crate::stage::cni_plugin();
    let one_by_one: Vec<(Netns, Duration)> = (21..=pods).map(|id| add(&stage, id)).collect();
    println!("ADD, one after the other: {}", median(one_by_one.iter().map(|(_, took)| *took).collect()));
    let (connected, times): (Vec<Netns>, Vec<Duration>) = thread::scope(|scope| {
        let stage = &stage;
        let adding: Vec<_> = (1..=20).map(|id| scope.spawn(move || add(stage, id))).collect();
        adding.into_iter().map(|thread| thread.join().expect("adds")).unzip()
    });
    println!("20 ADDs at once: {}", median(times));

    round_trips(&connected[0], &connected[1]);
    switch(&mut stage, pods, "a policy, watch event to switched slot");
    let [before, _] = memory(&stage);
    for (number, parts) in (0..).zip(mk_services(SERVICES)) {
        lock(&stage.world).put_slice(&format!("cluster.1{number:07b}"), SHARED, &mk_spec(&parts));
    }
    eventually("all services are in the kernel", || {
        Maps::open(&stage.bpffs.join("cilium"))
            .is_ok_and(|maps| maps.services.count().is_ok_and(|count| count >= SERVICES as usize))
    });
    println!("with {SERVICES} services of 3 backends: {}", rss(&stage));
    switch(&mut stage, pods, "a policy, with these services");
    thread::sleep(Duration::from_secs(12));
    println!("after a check: {}", rss(&stage));
    let each = f64::from(memory(&stage)[0] - before) / f64::from(SERVICES);
    println!("memory of each service: {each:.2} KiB (goal 1.00)");
}

fn round_trips(one: &Netns, two: &Netns) {
    let _echo = Echo::start(two, address4(2), 7000);
    let socket = crate::stream::bind(one, address4(1), 0);
    socket.connect((address4(2), 7000)).expect("connects");
    let mut times: Vec<Duration> = (0..50_000)
        .map(|_| {
            let begin = Instant::now();
            socket.send(b"x").expect("sends");
            socket.recv(&mut [0; 8]).expect("is answered");
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("round trip between pods: p10 {:?}, p50 {:?}", times[times.len() / 10], times[times.len() / 2]);
}

fn add(stage: &Stage, id: u16) -> (Netns, Duration) {
    let netns = testing::namespace();
    let begin = Instant::now();
    let answer = stage.cni("ADD", id, &netns.proc_path(), &serde_json::Value::Null);
    let took = begin.elapsed();
    assert!(answer.success, "{}", answer.json);
    (netns, took)
}

/// From the API server's write to the slot's switch, as the kernel's map shows it.
fn switch(stage: &mut Stage, pods: u16, what: &str) {
    let maps = Maps::open(&stage.bpffs.join("cilium")).expect("maps are pinned");
    let newest = || {
        let slots = maps.slots.entries().expect("lists");
        slots.iter().filter(|(_, slot)| slot.open).map(|(_, slot)| slot.generation).max().unwrap_or(0)
    };
    let mut times = Vec::new();
    for round in 0..50 {
        let mut parts: Parts = (1..=pods).map(mk_endpoint).collect();
        parts.extend([mk_policy(2, 1, 7000 + round)]);
        let before = newest();
        let begin = Instant::now();
        stage.plan(&parts);
        while newest() == before {}
        times.push(begin.elapsed());
        thread::sleep(Duration::from_millis(30));
    }
    println!("{what}: {}", median(times));
    for line in stage.http(9962, "/metrics").lines().filter(|line| line.starts_with("cilium_agent_apply")) {
        println!("  {line}");
    }
    lock(&stage.world).put_slice("cluster.r", SHARED, &mk_spec(&mk_shared(1..=pods)));
}
