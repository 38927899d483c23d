//! Measures the product on the cluster in a box, and its BGP speaker beside it, with floors from the same run, and prints one table.

mod bgp;
mod cni;
mod compare;
mod floors;
mod hops;
mod latency;
mod load;
mod memory;
mod paths;
mod peers;
mod rates;
mod restart;
mod services;
mod table;

use clap::{Parser, ValueEnum};
use table::{Format, Row};

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From the API request for a policy to the first and last packet
    Latency,
    /// New Services, connections through them, memory and restart with many of them; kube-proxy beside
    Services,
    /// Throughput and round trips against bare paths
    Paths,
    /// Resident memory of agents and operator, and watches
    Memory,
    /// Twenty pods at once
    Cni,
    /// Latency and memory again, with 1,000 policies and 2,000 services
    Loaded,
    /// The BGP speaker beside GoBGP, BIRD and FRR; needs no cluster
    Bgp,
}

/// Measure latency, throughput, memory and pod start against their floors and goals.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  just bench\n  just bench --only latency --rounds 10\n  just bench --only services --services 5000\n  just bench --only bgp\n  just bench -o json"
)]
struct Cli {
    /// Measure only these
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Policies applied and deleted per latency figure
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Pairs of (floor, product) runs per path figure
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Services that are made, a quarter of them first
    #[arg(long, default_value_t = 20_000)]
    services: usize,
    /// Rounds of BGP figures, all daemons in each
    #[arg(long, default_value_t = 3)]
    bgp_rounds: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let wanted = |part| cli.only.is_empty() || cli.only.contains(&part);
    let mut rows: Vec<Row> = Vec::new();
    if wanted(Part::Bgp) {
        rows.extend(bgp::measure(cli.bgp_rounds)?);
    }
    if wanted(Part::Memory) {
        eprintln!("memory, idle ...");
        rows.extend(memory::idle()?);
    }
    if wanted(Part::Latency) {
        eprintln!("policy latency, {} rounds ...", cli.rounds);
        rows.extend(latency::measure("alone", 8.0, 6.0, cli.rounds).await?);
    }
    if wanted(Part::Services) {
        rows.extend(compare::measure(cli.rounds, cli.pairs, cli.services).await?);
    }
    if wanted(Part::Paths) {
        eprintln!("paths, {} pairs each ...", cli.pairs);
        rows.extend(paths::measure(cli.pairs)?);
    }
    if wanted(Part::Cni) {
        eprintln!("twenty pods at once ...");
        rows.extend(cni::measure()?);
    }
    if wanted(Part::Loaded) {
        eprintln!("1,000 policies and 2,000 services are applied ...");
        let load = load::apply().await?;
        rows.extend(latency::measure("with 1,000 other CNPs", 10.0, 10.0, cli.rounds).await?);
        rows.push(services::Scene::new().await?.ours("with 2,000 others", 15.0, cli.rounds).await?);
        rows.extend(memory::loaded()?);
        drop(load);
    }
    table::print(&rows, cli.output)
}
