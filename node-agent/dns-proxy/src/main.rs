//! `cilium-dns-proxy`: stands between the node's pods and name servers where policy says so.
//!
//! eBPF gives it packets of pods that have rules about DNS. It lets questions through that the rules allow, unchanged, refuses the
//! others, and passes an answer on as soon as the agent has its addresses in force, so that the first connection is not dropped.
//! It is a process of its own: it goes on without the agent, by the rules that it kept.
//!
//! | module | what |
//! |---|---|
//! | [`proxy`] | questions in, answers out, by UDP and TCP |
//! | [`socket`], [`upstream`] | sockets in the place of others; questions to servers |
//! | [`rules`], [`identities`] | who may ask whom for what |
//! | [`agent`], [`known`], [`kept`] | what the agent says and is told; what is in force; rules on disk |
//! | [`counters`] | what is counted |

mod agent;
mod counters;
mod identities;
mod kept;
mod known;
mod proxy;
mod rules;
mod socket;
mod upstream;

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use cilium_names::Rcode;
use cilium_rest::dns::{self, FromAgent};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::agent::Agent;
use crate::identities::KernelIdentities;
use crate::proxy::Proxy;

/// Between two attempts to open the kernel's maps, which the agent makes.
const RETRY: Duration = Duration::from_millis(200);

/// Filters and watches DNS of this node's pods.
#[derive(Parser)]
#[command(name = "cilium-dns-proxy", version)]
struct Arguments {
    /// Port on the loopback addresses, as the agent has it (tofqdns-proxy-port).
    #[arg(long, default_value_t = dns::PORT)]
    port: u16,
    /// Socket of the agent.
    #[arg(long, value_name = "PATH", default_value = dns::SOCKET)]
    agent: PathBuf,
    /// File that keeps the rules over a restart.
    #[arg(long, value_name = "PATH", default_value = "/var/run/cilium/state/dns-rules.json")]
    rules: PathBuf,
    /// Directory below which the agent pins its maps.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/cilium")]
    bpffs: PathBuf,
    /// What a client hears that asks for what it may not.
    #[arg(long, value_name = "CODE", default_value = "refused")]
    reject_with: Reject,
    /// The longest that an answer waits for the agent, in ms or s.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    max_delay: Duration,
}

/// A time such as 100ms or 2s.
fn duration(text: &str) -> Result<Duration, String> {
    let number = |unit| text.strip_suffix(unit).and_then(|number| number.parse().ok());
    let milliseconds = number("ms").map(Duration::from_millis);
    let time = milliseconds.or_else(|| number("s").map(Duration::from_secs));
    time.ok_or_else(|| format!("{text:?} is no time such as 100ms or 2s"))
}

/// Names are upstream's.
#[derive(Clone, Copy, ValueEnum)]
enum Reject {
    #[value(name = "refused")]
    Refused,
    #[value(name = "nameError")]
    NameError,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let refusal = match arguments.reject_with {
        Reject::Refused => Rcode::Refused,
        Reject::NameError => Rcode::NameError,
    };
    let agent = Agent::new(arguments.max_delay);
    let proxy = Arc::new(Proxy::new(agent.clone(), refusal));
    if let Some(rules) = kept::load(&arguments.rules) {
        set_rules(&proxy, &rules);
    }
    open_maps(&proxy, &arguments.bpffs);
    let from_agent = {
        let (proxy, file, bpffs) = (proxy.clone(), arguments.rules.clone(), arguments.bpffs.clone());
        move |said| {
            if let FromAgent::Rules(rules) = said {
                set_rules(&proxy, &rules);
                kept::save(&file, &rules);
                // The agent may have replaced them.
                open_maps(&proxy, &bpffs);
            }
        }
    };
    tokio::spawn(agent.run(arguments.agent, from_agent));
    tokio::spawn(wait_for_maps(proxy.clone(), arguments.bpffs));
    listen(&proxy, arguments.port)?;
    tracing::info!(port = arguments.port, version = env!("CARGO_PKG_VERSION"), "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// On both loopback addresses, as far as the node has them.
fn listen(proxy: &Arc<Proxy<KernelIdentities>>, port: u16) -> anyhow::Result<()> {
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    let loopbacks: [(bool, IpAddr); 2] =
        [(true, Ipv4Addr::LOCALHOST.into()), (has_ipv6, Ipv6Addr::LOCALHOST.into())];
    for (_, address) in loopbacks.into_iter().filter(|(there, _)| *there) {
        let address = SocketAddr::new(address, port);
        let failed = || format!("cannot listen on {address}");
        let (udp, tcp) = (socket::udp_listener(address), socket::tcp_listener(address));
        let (udp, tcp) = (udp.with_context(failed)?, tcp.with_context(failed)?);
        tokio::spawn(proxy.clone().serve_udp(udp));
        tokio::spawn(proxy.clone().serve_tcp(tcp));
    }
    Ok(())
}

fn set_rules(proxy: &Proxy<KernelIdentities>, rules: &dns::Rules) {
    tracing::debug!(identities = rules.by_identity.len(), "rules");
    *proxy.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules.into());
}

/// What was open before stays so when it fails.
fn open_maps(proxy: &Proxy<KernelIdentities>, bpffs: &Path) -> bool {
    match KernelIdentities::open(bpffs) {
        Ok(identities) => {
            *proxy.identities.write().unwrap_or_else(PoisonError::into_inner) = Some(identities);
            true
        }
        Err(error) => {
            tracing::debug!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "the maps are not there yet"
            );
            false
        }
    }
}

async fn wait_for_maps(proxy: Arc<Proxy<KernelIdentities>>, bpffs: PathBuf) {
    while !open_maps(&proxy, &bpffs) {
        tokio::time::sleep(RETRY).await;
    }
}
