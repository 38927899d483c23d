//! Services, with kube-proxy beside: how soon a new one works, connections in a second, memory, and an agent's restart.

use std::fs;

use cluster_tests::Namespace;

use crate::peers::Mode;
use crate::services::Scene;
use crate::table::{Goal, Row};
use crate::{load, memory, rates, restart};

/// The whole table, with up to so many services of three backends each.
pub(crate) async fn measure(rounds: usize, pairs: usize, most: usize) -> anyhow::Result<Vec<Row>> {
    say_load("before");
    let mut scene = Scene::new().await?;
    eprintln!("connections in a second, {pairs} pairs each ...");
    let mut rows = vec![
        rates::cluster_ip(&scene, pairs).await?,
        rates::node_port(&scene, pairs).await?,
        rates::forwarding(&scene, pairs).await?,
    ];
    let others = Namespace::new("others")?;
    let before = memory::agent()?;
    let mut there = 0;
    for (count, goal) in [(0, 15.0), (most / 4, 15.0), (most, 20.0)] {
        if count > there {
            eprintln!("{count} services are made ...");
            load::services(&others, there..count).await?;
            there = count;
        }
        if count == most {
            rows.push(memory_of_each(memory::agent()? - before, count));
        }
        eprintln!("new Services with {count} others, {rounds} rounds ...");
        let label = format!("with {count} others");
        rows.push(scene.ours(&label, goal, rounds).await?);
        for mode in [Mode::Nftables, Mode::Iptables] {
            rows.push(scene.peer(mode, &label, rounds).await?);
        }
    }
    eprintln!("an agent restarts ...");
    rows.extend(restart::measure(&scene, most).await?);
    say_load("after");
    Ok(rows)
}

fn memory_of_each(mib: f64, services: usize) -> Row {
    Row {
        what: format!("agent memory for each of {services} services with 3 backends"),
        unit: "KiB",
        floor: None,
        value: mib * 1024.0 / services.max(1) as f64,
        goal: Goal::AtMost(1.0),
    }
}

/// Figures of a machine that does something else are no figures; whoever reads them shall know.
pub(crate) fn say_load(when: &str) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    eprintln!("load of the machine {when}: {}", load.trim());
}
