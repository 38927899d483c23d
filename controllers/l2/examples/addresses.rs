//! 20,000 addresses on 100 nodes: what it takes to plan who announces them from nothing, and to follow one change then.
//!
//! `just bench-plan`. Prints a table with the goal of each figure; fails when a goal is missed.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use cilium_api::parts;
use cilium_api::slim::Service;
use cilium_core::{Label, Labels};
use cilium_l2::{Claim, L2, Policy, Served};
use cilium_services::ServiceName;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const ADDRESSES: u32 = 20_000;
const NODES: usize = 100;
const FROM_SCRATCH: Duration = Duration::from_secs(1);
const ONE_CHANGE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    println!("| what | figure | goal | met |\n|---|---|---|---|");
    let services: Vec<(ServiceName, Claim)> = (0..ADDRESSES).map(mk_claim).collect();
    let (mut l2, scratch) = timed(|| mk_l2(&services));
    let mut met =
        line(&format!("{ADDRESSES} addresses on {NODES} nodes planned from nothing"), scratch, FROM_SCRATCH);
    let more: Vec<(ServiceName, Claim)> = (ADDRESSES..ADDRESSES + 100).map(mk_claim).collect();
    let add = |(number, (name, claim)): (u32, &(ServiceName, Claim))| {
        timed(|| {
            set_service(&mut l2, name, claim, ADDRESSES + number);
            assert_eq!(l2.plan().parts.len(), 1);
        })
        .1
    };
    met &= line("one more address (median)", median((0..).zip(&more).map(add).collect()), ONE_CHANGE);
    let (moved, took) = timed(|| {
        l2.set_node("node-7", None);
        l2.plan().parts.len()
    });
    met &= line(&format!("one node less, an owner of {moved} addresses"), took, FROM_SCRATCH);
    ExitCode::from(u8::from(!met))
}

fn line(what: &str, took: Duration, goal: Duration) -> bool {
    let met = took <= goal;
    println!("| {what} | {took:.1?} | {goal:.0?} | {} |", if met { "yes" } else { "NO" });
    met
}

fn mk_l2(services: &[(ServiceName, Claim)]) -> L2 {
    let mut l2 = L2::default();
    let policy = json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "benchmark"},
        "spec": {"loadBalancerIPs": true, "interfaces": ["^eth[0-9]+$"]},
    });
    l2.set_policy("benchmark", Some(Policy::reduce(&serde_json::from_value(policy).expect("a policy"))));
    for number in 0..NODES {
        let name = format!("node-{number}");
        l2.set_node(&name, Some(Labels::from_iter([Label::k8s("kubernetes.io/hostname", &name)])));
        l2.set_heard(&name, &["eth0".to_owned(), "lo".to_owned()], &[]);
    }
    for (number, (name, claim)) in (0..).zip(services) {
        set_service(&mut l2, name, claim, number);
    }
    let changes = l2.plan();
    assert_eq!(changes.parts.len(), services.len());
    let parts =
        changes.parts.iter().flat_map(|(address, nodes)| nodes.iter().map(move |node| (*address, node)));
    let parts = parts.filter_map(|(address, node)| l2.announcement(address, node)).count();
    assert_eq!(parts, services.len() * parts::MAX_OWNERS);
    l2
}

fn set_service(l2: &mut L2, name: &ServiceName, claim: &Claim, number: u32) {
    let address = IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + number));
    let part = parts::Service { load_balancer: vec![address], ..parts::Service::default() };
    l2.set_claim(name, Some(claim.clone()));
    l2.set_served(name, Some(Served::reduce(&part)));
}

fn mk_claim(number: u32) -> (ServiceName, Claim) {
    let name = ServiceName::new("default", &format!("s{number}"));
    let object = json!({"metadata": {"namespace": "default", "name": name.name, "labels": {"app": "web"}}, "spec": {}});
    let service: Service = serde_json::from_value(object).expect("a Service");
    (name, Claim::reduce(&service).expect("no class"))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Result, and processor time that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let start = now();
    let result = work();
    (result, now().saturating_sub(start))
}
