//! What a change costs in a planner that has 1,000 policies and 2,000 Services, and how much memory it has by then.
//!
//! `cargo bench -p cilium-plan`. Prints, asserts nothing.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use cilium_plan::{Config, Kind, ObjectKey, Outcome, Output, Planner};
use common::{START, mk_cnp, mk_endpoint_slice, mk_namespace, mk_node, mk_pod, mk_service, rule1};
use serde_json::json;

const POLICIES: usize = 1000;
const SERVICES: usize = 2000;
const PODS: usize = 60;
const RUNS: usize = 300;

fn main() {
    let before = resident_kib();
    let mut planner = Planner::new(Config::default());
    load(&mut planner);
    planner.synced();
    let (output, first) = timed(|| planner.plan(START));
    answer(&mut planner, output);
    let (report, first_report) = timed(|| planner.report(START));
    println!("first plan {first:?}, first report {first_report:?} with {} statuses", report.policies.len());
    drop(report);
    println!("memory {} KiB above {before} KiB", resident_kib() - before);

    let other = json!({"endpointSelector": {"matchLabels": {"org": "empire"}}, "ingress": [{}]});
    let specs = [rule1(), other];
    measure("policy changes (2 nodes)", &mut planner, |planner, run| {
        planner.observe(mk_cnp("default", "rule1", run as i64 + 1, specs[run % 2].clone()).into());
    });
    measure("policy that selects nothing comes and goes", &mut planner, |planner, run| {
        let key = ObjectKey::namespaced(Kind::NetworkPolicy, "default", "nobody");
        if run % 2 == 0 {
            let spec = json!({"endpointSelector": {"matchLabels": {"org": "nobody"}}, "ingress": [{}]});
            planner.observe(mk_cnp("default", "nobody", run as i64 + 1, spec).into());
        } else {
            planner.forget(&key);
        }
    });
    measure("pod with known labels comes and goes", &mut planner, |planner, run| {
        if run % 2 == 0 {
            planner.observe(mk_pod("default", "extra", "a", &["org=empire", "class=deathstar"]).into());
        } else {
            planner.forget(&ObjectKey::namespaced(Kind::Pod, "default", "extra"));
        }
    });
    measure("pod with new labels comes and goes", &mut planner, |planner, run| {
        if run % 2 == 0 {
            planner.observe(mk_pod("default", "extra", "a", &["org=empire", &format!("run=r{run}")]).into());
        } else {
            planner.forget(&ObjectKey::namespaced(Kind::Pod, "default", "extra"));
        }
    });
    measure("backends of a Service change", &mut planner, |planner, run| {
        let addresses = [format!("10.1.0.{}", run % 200 + 2), "10.2.0.9".to_owned()];
        planner.observe(mk_endpoint_slice("default", "svc-77", &[&addresses[0], &addresses[1]], 8080).into());
    });
    println!("memory {} KiB above {before} KiB after all", resident_kib() - before);
}

fn load(planner: &mut Planner) {
    planner.observe(mk_namespace("default", &[]).into());
    for (number, node) in ["a", "b"].into_iter().enumerate() {
        planner.observe(mk_node(node, number as u8 + 1).into());
    }
    for number in 0..PODS {
        let labels = ["org=empire", "class=deathstar", &format!("app=app-{}", number % 20)];
        let labels = &labels[..if number < 4 { 2 } else { 3 }];
        planner.observe(mk_pod("default", &format!("pod-{number}"), ["a", "b"][number % 2], labels).into());
    }
    for number in 0..POLICIES {
        let spec = json!({
            "endpointSelector": {"matchLabels": {"app": format!("app-{}", number % 200)}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"org": "empire", "app": format!("app-{}", number % 31)}}],
                "toPorts": [{"ports": [{"port": format!("{}", 1000 + number), "protocol": "TCP"}]}],
            }],
        });
        planner.observe(mk_cnp("default", &format!("policy-{number}"), 1, spec).into());
    }
    for number in 0..SERVICES {
        let name = format!("svc-{number}");
        planner.observe(
            mk_service("default", &name, &format!("10.96.{}.{}", number / 250, number % 250 + 1), 80).into(),
        );
        planner
            .observe(mk_endpoint_slice("default", &name, &["10.1.0.9", "10.2.0.9", "10.1.0.8"], 8080).into());
    }
}

/// Tells the planner that everything was written.
fn answer(planner: &mut Planner, output: Output) {
    let states = output.node_states.into_iter().map(|write| write.key);
    let slices = output.slices.into_iter().map(|write| write.key);
    let identities = output.identities.into_iter().map(|write| write.key);
    let keys: Vec<ObjectKey> = states.chain(slices).chain(identities).collect();
    keys.iter().for_each(|key| planner.written(key, Outcome::Done(None)));
}

fn measure(what: &str, planner: &mut Planner, change: impl Fn(&mut Planner, usize)) {
    let (mut times, mut observing, mut writes) = (Vec::new(), Vec::new(), 0);
    for run in 0..RUNS {
        let ((), observed) = timed(|| change(planner, run));
        let (output, took) = timed(|| planner.plan(START));
        writes += common::count_output(&output);
        answer(planner, output);
        // Takes in the answers, outside of the measurement.
        let more = planner.plan(START);
        answer(planner, more);
        times.push(took);
        observing.push(observed);
    }
    times.sort();
    observing.sort();
    let middle = |times: &[Duration]| times[times.len() / 2];
    println!(
        "{what}: plan median {:?}, worst {:?}; observe median {:?}; {:.1} writes",
        middle(&times),
        times[times.len() - 1],
        middle(&observing),
        writes as f64 / RUNS as f64,
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

/// Resident memory of this process (proc(5), `VmRSS`).
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
