//! 20,000 Services on 100 nodes that speak BGP: what it takes to plan their prefixes from nothing, and to follow one change then.
//!
//! `just bench-plan`. Prints a table with the goal of each figure; fails when a goal is missed.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use cilium_api::parts;
use cilium_api::slim::Service;
use cilium_bgp_plan::{Advertisement, Bgp, Claim, ClusterConfig, PeerConfig, Served};
use cilium_core::{Label, Labels};
use cilium_services::ServiceName;
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SERVICES: u32 = 20_000;
const NODES: u8 = 100;
const FROM_SCRATCH: Duration = Duration::from_secs(1);
const ONE_CHANGE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    println!("| what | figure | goal | met |\n|---|---|---|---|");
    let services: Vec<(ServiceName, Claim)> = (0..SERVICES).map(mk_claim).collect();
    let (mut bgp, scratch) = timed(|| mk_bgp(&services));
    let what = format!("prefixes of {SERVICES} Services on {NODES} nodes planned from nothing");
    let mut met = line(&what, scratch, FROM_SCRATCH);
    let more: Vec<(ServiceName, Claim)> = (SERVICES..SERVICES + 100).map(mk_claim).collect();
    let add = |(number, (name, claim)): (u32, &(ServiceName, Claim))| {
        timed(|| {
            set_service(&mut bgp, name, claim, number);
            assert_eq!(bgp.plan().routes.len(), 1);
        })
        .1
    };
    met &= line("one more Service (median)", median((SERVICES..).zip(&more).map(add).collect()), ONE_CHANGE);
    let ((), took) = timed(|| {
        set_node(&mut bgp, NODES);
        let changes = bgp.plan();
        assert_eq!((changes.instances.len(), changes.node_routes.len()), (1, 1));
    });
    met &= line("one more node", took, FROM_SCRATCH);
    ExitCode::from(u8::from(!met))
}

fn line(what: &str, took: Duration, goal: Duration) -> bool {
    let met = took <= goal;
    println!("| {what} | {took:.1?} | {goal:.0?} | {} |", if met { "yes" } else { "NO" });
    met
}

fn object<K: DeserializeOwned>(kind: &str, spec: &Value) -> K {
    let metadata = json!({"name": "x", "labels": {"advertise": "bgp"}});
    let object = json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect("an object of this kind")
}

fn mk_bgp(services: &[(ServiceName, Claim)]) -> Bgp {
    let mut bgp = Bgp::default();
    let config = json!({"name": "x"});
    let peer =
        json!({"name": "tor", "peerAddress": "203.0.113.1", "peerASN": 65000, "peerConfigRef": config});
    let spec = json!({"bgpInstances": [{"name": "r", "localASN": 65001, "peers": [peer]}]});
    bgp.set_cluster("x", Some(ClusterConfig::reduce(&object("CiliumBGPClusterConfig", &spec))));
    let selector = json!({"matchLabels": {"advertise": "bgp"}});
    let spec = json!({"families": [{"afi": "ipv4", "safi": "unicast", "advertisements": selector}]});
    bgp.set_peer("x", Some(PeerConfig::reduce(&object("CiliumBGPPeerConfig", &spec))));
    let (kinds, selector) =
        (json!({"addresses": ["LoadBalancerIP"]}), json!({"matchLabels": {"app": "web"}}));
    let spec = json!({"advertisements": [
        {"advertisementType": "PodCIDR"},
        {"advertisementType": "Service", "service": kinds, "selector": selector},
    ]});
    bgp.set_advertisement("x", Some(Advertisement::reduce(&object("CiliumBGPAdvertisement", &spec))));
    (0..NODES).for_each(|number| set_node(&mut bgp, number));
    for (number, (name, claim)) in (0..).zip(services) {
        set_service(&mut bgp, name, claim, number);
    }
    let changes = bgp.plan();
    let counts = (changes.routes.len(), changes.node_routes.len(), changes.instances.len());
    assert_eq!(counts, (services.len(), usize::from(NODES), usize::from(NODES)));
    bgp
}

fn set_node(bgp: &mut Bgp, number: u8) {
    let name = format!("node-{number}");
    let labels = Labels::from_iter([Label::k8s("kubernetes.io/hostname", &name)]);
    let pods = IpNet::new(IpAddr::from([10, number, 0, 0]), 24).expect("a length of IPv4");
    bgp.set_node(&name, labels, &[IpAddr::from([192, 0, 2, number])], &[pods]);
}

fn set_service(bgp: &mut Bgp, name: &ServiceName, claim: &Claim, number: u32) {
    let address = IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + number));
    let part = parts::Service { load_balancer: vec![address], ..parts::Service::default() };
    bgp.set_claim(name, Some(claim.clone()));
    bgp.set_served(name, Some(Served::reduce(&part)));
}

fn mk_claim(number: u32) -> (ServiceName, Claim) {
    let name = ServiceName::new("default", &format!("s{number}"));
    let object = json!({"metadata": {"namespace": "default", "name": name.name, "labels": {"app": "web"}}, "spec": {}});
    let service: Service = serde_json::from_value(object).expect("a Service");
    (name, Claim::reduce(&service))
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
