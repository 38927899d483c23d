//! 20,000 Services of which each gets an address of a /15: what it takes to plan them from nothing, to find at a start that all is
//! well, and to follow one change then.
//!
//! `just bench-plan`. Prints a table with the goal of each figure; fails when a goal is missed.

use std::process::ExitCode;
use std::time::Duration;

use cilium_api::CiliumLoadBalancerIPPool;
use cilium_api::slim::Service;
use cilium_lbipam::{Config, FIELD_MANAGER, Lbipam, Outcome, Pool, SATISFIED};
use cilium_services::ServiceName;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const SERVICES: usize = 20_000;
const NAMESPACES: usize = 100;
const FROM_SCRATCH: Duration = Duration::from_secs(1);
const ONE_CHANGE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    println!("| what | figure | goal | met |\n|---|---|---|---|");
    let pool = mk_pool();
    let mut services: Vec<Service> = (0..SERVICES).map(mk_service).collect();
    let mut lbipam = mk_lbipam();
    let (given, scratch) = timed(|| fill(&mut lbipam, &pool, &services));
    let mut met = line(&format!("{SERVICES} Services planned from nothing"), scratch, FROM_SCRATCH);
    services.iter_mut().for_each(|service| write_back(service, &lbipam));
    let mut lbipam = mk_lbipam();
    let (moved, restart) = timed(|| fill(&mut lbipam, &pool, &services));
    met &= line("the same after a restart", restart, FROM_SCRATCH);
    met &= line("one more Service (median)", median(|service| add(&mut lbipam, service)), ONE_CHANGE);
    met &= line("one Service less (median)", median(|service| remove(&mut lbipam, service)), ONE_CHANGE);
    let (_, disabled) = timed(|| disable(&mut lbipam, &pool));
    met &= line("the pool disabled", disabled, FROM_SCRATCH);
    assert!(given == SERVICES && moved == SERVICES, "{given} Services got an address, and {moved} have one");
    ExitCode::from(u8::from(!met))
}

fn line(what: &str, took: Duration, goal: Duration) -> bool {
    let met = took <= goal;
    println!("| {what} | {took:.1?} | {goal:.0?} | {} |", if met { "yes" } else { "NO" });
    met
}

fn mk_lbipam() -> Lbipam {
    Lbipam::new(Config { ipv4: true, ipv6: true, default_class: true, bgp_class: false, l2_class: false })
}

fn mk_pool() -> CiliumLoadBalancerIPPool {
    let spec = json!({"blocks": [{"cidr": "198.18.0.0/15"}]});
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "benchmark"}, "spec": spec,
    });
    serde_json::from_value(object).expect("a pool")
}

fn mk_service(index: usize) -> Service {
    let object = json!({
        "metadata": {"namespace": format!("n{}", index % NAMESPACES), "name": format!("s{index}"), "labels": {"app": "web"}},
        "spec": {
            "type": "LoadBalancer", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
            "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}],
        },
    });
    serde_json::from_value(object).expect("a Service")
}

fn name(service: &Service) -> ServiceName {
    let meta = &service.metadata;
    ServiceName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Feeds and plans; how many Services have an address.
fn fill(lbipam: &mut Lbipam, pool: &CiliumLoadBalancerIPPool, services: &[Service]) -> usize {
    lbipam.set_pool("benchmark", Some(Pool::reduce(pool)));
    for service in services {
        lbipam.set_service(service, false);
    }
    lbipam.plan();
    services.iter().filter(|service| address(lbipam, &name(service)).is_some()).count()
}

fn address(lbipam: &Lbipam, service: &ServiceName) -> Option<String> {
    match lbipam.outcome(service)? {
        Outcome::Assigned { addresses, failure: None } => addresses.first().map(ToString::to_string),
        _ => None,
    }
}

/// The status becomes as planned.
fn write_back(service: &mut Service, lbipam: &Lbipam) {
    let address = address(lbipam, &name(service)).expect("an address");
    let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
    let entry = json!([{"manager": FIELD_MANAGER, "fieldsV1": fields}]);
    service.metadata.managed_fields = serde_json::from_value(entry).expect("an account of writers");
    let status = json!({
        "loadBalancer": {"ingress": [{"ip": address}]}, "conditions": [{"type": SATISFIED, "status": "True"}],
    });
    service.status = serde_json::from_value(status).expect("a status");
}

fn add(lbipam: &mut Lbipam, service: &Service) {
    lbipam.set_service(service, false);
    assert_eq!(lbipam.plan().services.len(), 1);
}

fn remove(lbipam: &mut Lbipam, service: &Service) {
    lbipam.remove_service(&name(service));
    lbipam.plan();
}

fn disable(lbipam: &mut Lbipam, pool: &CiliumLoadBalancerIPPool) {
    let mut pool = pool.clone();
    pool.spec.disabled = true;
    lbipam.set_pool("benchmark", Some(Pool::reduce(&pool)));
    assert_eq!(lbipam.plan().services, []);
}

/// The median of a hundred rounds, each with another Service.
fn median(mut round: impl FnMut(&Service)) -> Duration {
    let services = (SERVICES..SERVICES + 100).map(mk_service);
    let mut times: Vec<Duration> = services.map(|service| timed(|| round(&service)).1).collect();
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
