//! Measures what a network does to packets: loss, gaps, round trips, throughput, and when a path opens or closes.
//!
//! Runs inside the client pods of tests and benchmarks, and in bare namespaces for the floors. Results are JSON, one
//! object a line; times are nanoseconds of CLOCK_MONOTONIC, which all namespaces of a machine share.

mod connections;
mod serve;
mod stamp;
mod stream;
mod throughput;
mod watch;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Measure loss, gaps, round trips and throughput between two places.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  probe serve 7000\n  probe stream 10.244.1.5:7000 --seconds 60\n  probe rr 10.244.1.5:7000 --count 50000"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Stay on this processor: what a wake-up costs depends on where the two ends run
    #[arg(long, global = true)]
    cpu: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Echo datagrams and swallow TCP streams on a port, until killed
    Serve {
        /// Port for both protocols
        port: u16,
    },
    /// Send numbered datagrams at a steady pace, and count the echoes that come back
    Stream {
        /// Address and port of `probe serve`
        to: SocketAddr,
        /// How long to send
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Time between datagrams
        #[arg(long, default_value_t = 1000)]
        interval_us: u64,
        /// Let the first datagrams be lost until the path is up (for paths that are opened later)
        #[arg(long)]
        wait_for_path: bool,
    },
    /// Datagram round trips, one after the other
    Rr {
        /// Address and port of `probe serve`
        to: SocketAddr,
        /// Number of round trips
        #[arg(long, default_value_t = 20_000)]
        count: usize,
    },
    /// Send a TCP stream as fast as it goes
    Tcp {
        /// Address and port of `probe serve`
        to: SocketAddr,
        /// How long to send
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Take TCP connections on a port, until killed
    Accept {
        /// Port
        port: u16,
    },
    /// Open TCP connections one after the other, and say how many come about in a second
    Connect {
        /// Address and port of `probe accept`
        to: SocketAddr,
        /// How long to connect
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// Time after each
        #[arg(long, default_value_t = 0)]
        pause_us: u64,
    },
    /// Say when a path opens and closes, from one socket that keeps sending
    Watch {
        /// Address and port of `probe serve`
        to: SocketAddr,
        /// Time between datagrams
        #[arg(long, default_value_t = 100)]
        interval_us: u64,
        /// Silence after which the path counts as closed
        #[arg(long, default_value_t = 50)]
        silence_ms: u64,
        /// Stop after this time
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(cpu) = cli.cpu {
        stay_on(cpu)?;
    }
    match cli.command {
        Command::Serve { port } => serve::run(port),
        Command::Stream { to, seconds, interval_us, wait_for_path } => {
            stream::run(to, Duration::from_secs(seconds), Duration::from_micros(interval_us), wait_for_path)
        }
        Command::Rr { to, count } => throughput::round_trips(to, count),
        Command::Tcp { to, seconds } => throughput::tcp(to, Duration::from_secs(seconds)),
        Command::Accept { port } => connections::accept(port),
        Command::Connect { to, seconds, pause_us } => {
            connections::connect(to, Duration::from_secs(seconds), Duration::from_micros(pause_us))
        }
        Command::Watch { to, interval_us, silence_ms, seconds } => watch::run(
            to,
            Duration::from_micros(interval_us),
            Duration::from_millis(silence_ms),
            Duration::from_secs(seconds),
        ),
    }
}

/// Keeps this thread, and those that it starts, on one processor.
fn stay_on(cpu: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot stay on processor {cpu}"))
}

/// CLOCK_MONOTONIC in nanoseconds.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A socket of the right family, connected to `to`.
fn connect(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).context("cannot open a datagram socket")?;
    socket.connect(to).with_context(|| format!("cannot connect a datagram socket to {to}"))?;
    Ok(socket)
}

/// Numbers travel as 8 bytes, big-endian.
fn number(datagram: &[u8]) -> Option<u64> {
    datagram.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}
