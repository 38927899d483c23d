//! A large cluster on one core: 10,000 policies, 50,000 pods, 1,000 nodes, 1,000 Services. What it takes to plan it from nothing, what one change
//! costs then, and how much memory the planner has.
//!
//! `just bench-plan`. Prints a table with the goal of each figure; fails when a goal is missed.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::Duration;

use cilium_plan::{Config, Kind, ObjectKey, Outcome, Output, Planner, Report};
use rustix::time::{ClockId, clock_gettime};

use common::{START, mk, mk_cnp, mk_endpoint_slice, mk_namespace, mk_pod, mk_service};
use serde_json::{Value, json};

const NODES: usize = 1000;
const NAMESPACES: usize = 200;
/// Deployments of a namespace; the pods of one have the same labels.
const APPS: usize = 25;
/// Pods of a deployment, spread over nodes.
const REPLICAS: usize = 10;
const POLICIES_PER_NAMESPACE: usize = 50;
const SERVICES: usize = 1000;
const RUNS: usize = 200;

const FROM_SCRATCH: Duration = Duration::from_secs(10);
const ONE_CHANGE: Duration = Duration::from_millis(1);
const MEMORY_KIB: i64 = 1 << 20;

/// Lines of the table.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    fn line(&mut self, what: &str, figure: &str, goal: &str, is_met: bool) {
        self.missed += usize::from(!is_met);
        println!("| {what} | {figure} | {goal} | {} |", if is_met { "yes" } else { "NO" });
    }

    fn plain(what: &str, figure: &str) {
        println!("| {what} | {figure} | | |");
    }
}

/// The operator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    println!("| what | figure | goal | met |\n|---|---|---|---|");
    let mut table = Table::default();
    let mut planner = Planner::new(Config::default());
    from_scratch(&mut planner, &mut table);
    changes(&mut planner, &mut table);
    ExitCode::from(u8::from(table.missed > 0))
}

fn from_scratch(planner: &mut Planner, table: &mut Table) {
    let start = resident_kib();
    let mut took = Duration::ZERO;
    let mut before = start;
    let mut observed =
        |planner: &mut Planner, what: &str, count: usize, load: fn(&mut Planner) -> Duration| {
            let time = load(planner);
            let now = resident_kib();
            let each = (now - before) * 1024 / i64::try_from(count).unwrap_or(1);
            Table::plain(&format!("{count} {what} observed"), &format!("{time:.0?}, {each} bytes each"));
            took += time;
            before = now;
        };
    observed(planner, "nodes", NODES, load_nodes);
    observed(planner, "namespaces", NAMESPACES, load_namespaces);
    observed(planner, "pods", NAMESPACES * APPS * REPLICAS, load_pods);
    observed(planner, "policies", NAMESPACES * POLICIES_PER_NAMESPACE, load_policies);
    observed(planner, "Services", SERVICES, load_services);
    planner.synced();
    let (output, planned) = timed(|| planner.plan(START));
    let writes = common::count_output(&output);
    Table::plain(&format!("first plan, {writes} writes"), &format!("{planned:.0?}"));
    took += planned;
    table.line("from scratch", &format!("{took:.1?}"), &format!("{FROM_SCRATCH:?}"), took <= FROM_SCRATCH);
    answer(planner, output);
    let (report, reported) = timed(|| planner.report(START));
    Table::plain(
        &format!("first report, {} writes", common::count_report(&report)),
        &format!("{reported:.0?}"),
    );
    answer_report(planner, report);
    settle(planner);
    let used = resident_kib() - start;
    let pods = i64::try_from(NAMESPACES * APPS * REPLICAS).unwrap_or(1);
    let figure = format!("{} MiB, {} bytes for each pod", used / 1024, used * 1024 / pods);
    table.line("memory with all written", &figure, &format!("{} MiB", MEMORY_KIB / 1024), used <= MEMORY_KIB);
}

fn changes(planner: &mut Planner, table: &mut Table) {
    measure(table, planner, "pod with known labels comes", |planner, run| {
        planner.observe(extra_pod(run, &app_labels(run % APPS)).into());
    });
    measure(table, planner, "pod with known labels goes", |planner, run| planner.forget(&extra_key(run)));
    measure(table, planner, "pod with new labels comes", |planner, run| {
        let mut labels = app_labels(run % APPS);
        labels.push(format!("run=r{run}"));
        planner.observe(extra_pod(run, &labels).into());
    });
    measure(table, planner, "pod with new labels goes", |planner, run| planner.forget(&extra_key(run)));
    measure(table, planner, "backends of a Service change", |planner, run| {
        planner.observe(mk_backends(run, run % 200 + 2).into());
    });
    measure(table, planner, "policy changes", |planner, run| {
        let (namespace, number) = (run % NAMESPACES, run % POLICIES_PER_NAMESPACE);
        planner.observe(mk_policy(namespace, number, 2, 9000 + run).into());
    });
    measure(table, planner, "policy goes", |planner, run| {
        let (namespace, number) = (run % NAMESPACES, run % POLICIES_PER_NAMESPACE);
        planner.forget(&ObjectKey::namespaced(
            Kind::NetworkPolicy,
            &namespace_name(namespace),
            &format!("policy-{number}"),
        ));
    });
}

/// Median of what a change costs until its writes are there, and the median of the report about it.
fn measure(table: &mut Table, planner: &mut Planner, what: &str, change: impl Fn(&mut Planner, usize)) {
    let (mut times, mut reports, mut writes) = (Vec::new(), Vec::new(), 0);
    for run in 0..RUNS {
        let (output, took) = timed(|| {
            change(planner, run);
            planner.plan(START)
        });
        writes += common::count_output(&output);
        answer(planner, output);
        times.push(took);
        reports.push(settle(planner));
    }
    times.sort();
    reports.sort();
    let (median, worst) = (times[RUNS / 2], times[RUNS - 1]);
    let figure = format!(
        "median {median:.1?}, worst {worst:.1?}, {:.1} writes; report {:.1?}",
        writes as f64 / RUNS as f64,
        reports[RUNS / 2]
    );
    table.line(what, &figure, &format!("{ONE_CHANGE:?}"), median <= ONE_CHANGE);
}

/// Plans and reports until nothing is left to be written; the time of the first report.
fn settle(planner: &mut Planner) -> Duration {
    let mut first = None;
    loop {
        let output = planner.plan(START);
        let (report, took) = timed(|| planner.report(START));
        first.get_or_insert(took);
        let writes = common::count_output(&output) + common::count_report(&report);
        answer(planner, output);
        answer_report(planner, report);
        if writes == 0 {
            return first.unwrap_or_default();
        }
    }
}

/// Observes objects one by one, so that only the planner's work is counted, and only what it keeps.
fn load<T: Into<cilium_plan::Object>>(planner: &mut Planner, objects: impl Iterator<Item = T>) -> Duration {
    let one = |object: T| {
        let object = object.into();
        timed(|| planner.observe(object)).1
    };
    objects.map(one).sum()
}

fn load_nodes(planner: &mut Planner) -> Duration {
    load(planner, (0..NODES).map(|number| {
        let (high, low) = (number / 250, number % 250);
        mk::<cilium_api::slim::Node>(json!({
            "metadata": {"name": node_name(number), "uid": format!("uid-of-node-{number:04}-0123456789abcdef")},
            "spec": {"podCIDRs": [format!("10.{}.{low}.0/24", 10 + high), format!("fd00:{number:x}::/64")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.{high}.{low}")}]},
        }))
    }))
}

fn load_namespaces(planner: &mut Planner) -> Duration {
    load(planner, (0..NAMESPACES).map(|number| mk_namespace(&namespace_name(number), &["team=blue"])))
}

fn load_pods(planner: &mut Planner) -> Duration {
    let all = (0..NAMESPACES).flat_map(|namespace| (0..APPS * REPLICAS).map(move |pod| (namespace, pod)));
    load(
        planner,
        all.map(|(namespace, pod)| {
            let labels = app_labels(pod / REPLICAS);
            let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
            let node = node_name((namespace * APPS * REPLICAS + pod * 37) % NODES);
            mk_pod(&namespace_name(namespace), &format!("app-7c9d6b5f4-{pod:05}"), &node, &texts)
        }),
    )
}

fn load_policies(planner: &mut Planner) -> Duration {
    let all =
        (0..NAMESPACES).flat_map(|namespace| (0..POLICIES_PER_NAMESPACE).map(move |it| (namespace, it)));
    load(planner, all.map(|(namespace, number)| mk_policy(namespace, number, 1, 8000 + number)))
}

fn load_services(planner: &mut Planner) -> Duration {
    let services = (0..SERVICES).map(|number| {
        let (namespace, address) =
            (number % NAMESPACES, format!("10.96.{}.{}", number / 250, number % 250 + 1));
        mk_service(&namespace_name(namespace), &format!("svc-{number}"), &address, 80)
    });
    load(planner, services) + load(planner, (0..SERVICES).map(|number| mk_backends(number, 9)))
}

fn mk_backends(service: usize, last: usize) -> cilium_api::slim::EndpointSlice {
    let addresses = [format!("10.10.0.{last}"), "10.11.0.9".to_owned(), "10.12.0.8".to_owned()];
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    mk_endpoint_slice(&namespace_name(service % NAMESPACES), &format!("svc-{service}"), &texts, 8080)
}

fn node_name(number: usize) -> String {
    format!("node-{number:04}.example.internal")
}

fn namespace_name(number: usize) -> String {
    format!("namespace-{number:03}")
}

fn app_labels(app: usize) -> Vec<String> {
    vec![
        format!("app.kubernetes.io/name=app-{app}"),
        format!("tier={}", ["front", "middle", "back"][app % 3]),
        "version=v1".to_owned(),
    ]
}

fn extra_key(run: usize) -> ObjectKey {
    ObjectKey::namespaced(Kind::Pod, &namespace_name(run % NAMESPACES), &format!("extra-{run}"))
}

fn extra_pod(run: usize, labels: &[String]) -> cilium_api::slim::Pod {
    let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
    mk_pod(&namespace_name(run % NAMESPACES), &format!("extra-{run}"), &node_name(run * 7 % NODES), &texts)
}

/// One of the kinds of policies that clusters are full of: apps of a namespace with each other, a namespace by itself, a part of
/// another namespace, prefixes, the world, a denial.
fn mk_policy(
    namespace: usize,
    number: usize,
    generation: i64,
    port: usize,
) -> cilium_api::CiliumNetworkPolicy {
    let app = |app: usize| json!({"matchLabels": {"app.kubernetes.io/name": format!("app-{}", app % APPS)}});
    let ports = json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
    let other = namespace_name((namespace + number) % NAMESPACES);
    let spec: Value = match number % 10 {
        0..=3 => json!({"endpointSelector": app(number),
            "ingress": [{"fromEndpoints": [app(number + 1), app(number + 7)], "toPorts": ports}]}),
        4 => json!({"endpointSelector": app(number),
            "egress": [{"toEndpoints": [app(number + 3)], "toPorts": ports}, {"toEntities": ["world"]}]}),
        5 => json!({"endpointSelector": {"matchLabels": {"tier": "back"}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"tier": "middle"}}], "toPorts": ports}]}),
        6 => json!({"endpointSelector": app(number), "ingress": [{"fromEndpoints": [
            {"matchLabels": {"io.kubernetes.pod.namespace": other, "tier": "front"}}], "toPorts": ports}]}),
        7 => json!({"endpointSelector": app(number), "egress": [{"toCIDRSet": [
            {"cidr": format!("172.{}.0.0/16", 16 + number % 16), "except": [format!("172.{}.{namespace}.0/24", 16 + number % 16)]}],
            "toPorts": ports}]}),
        8 => json!({"endpointSelector": app(number), "enableDefaultDeny": {"ingress": false},
            "ingressDeny": [{"fromEndpoints": [app(number + 11)]}]}),
        _ => json!({"endpointSelector": app(number), "ingress": [{"fromEntities": ["remote-node", "host"]}]}),
    };
    mk_cnp(&namespace_name(namespace), &format!("policy-{number}"), generation, spec)
}

/// Tells the planner that everything was written.
fn answer(planner: &mut Planner, output: Output) {
    let states = output.node_states.into_iter().map(|write| write.key);
    let slices = output.slices.into_iter().map(|write| write.key);
    let identities = output.identities.into_iter().map(|write| write.key);
    let keys: Vec<ObjectKey> = states.chain(slices).chain(identities).collect();
    keys.iter().for_each(|key| planner.written(key, Outcome::Done(None)));
}

fn answer_report(planner: &mut Planner, report: Report) {
    let endpoints = report.endpoints.into_iter().map(|write| write.key);
    let nodes = report.nodes.into_iter().map(|write| write.key);
    let policies = report.policies.into_iter().map(|write| write.key);
    let slices = report.slices.into_iter().map(|write| write.key);
    let keys: Vec<ObjectKey> = endpoints.chain(nodes).chain(policies).chain(slices).collect();
    keys.iter().for_each(|key| planner.written(key, Outcome::Done(None)));
}

/// Result and time on the processor, whatever else the machine does meanwhile.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = processor_time();
    let result = work();
    (result, processor_time() - started)
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Resident memory of this process (proc(5), `VmRSS`).
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
