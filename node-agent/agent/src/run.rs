//! Puts the parts together: one loop that owns the brain, and tasks around it that wait for the outside world.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch as channel};

use crate::announce::{Announcements, Line};
use crate::backoff::Backoff;
use crate::bgp::Routing;
use crate::brain::{Brain, Health, Outside};
use crate::config::{Agreement, Settings};
use crate::health::{Checks, Failures};
use crate::watch::{Seen, chain};
use crate::{ack, announce, dns, health, kube_proxy, monitor, pressure, serve, watch};

/// Where the manifest mounts the node's kernel parameters: `/proc/sys` is read-only in a container.
const HOST_SYSCTLS: &str = "/host/proc/sys";

/// So long the end may be put off so that other nodes need not wait for Leases.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// Work for the brain.
type Job = Box<dyn FnOnce(&mut Brain) + Send>;

/// The loop has ended: the agent is about to exit.
#[derive(Debug, thiserror::Error)]
#[error("the agent is shutting down")]
pub(crate) struct Gone;

/// How everybody else talks to the brain.
#[derive(Clone)]
pub(crate) struct Handle {
    jobs: mpsc::Sender<Job>,
    pub(crate) listeners: mpsc::Sender<monitor::Listener>,
}

impl Handle {
    /// Runs `work` on the brain between two changes.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Brain) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |brain| {
            // Nobody waits any more when the client has gone.
            drop(sender.send(work(brain)));
        });
        self.jobs.send(job).await.map_err(|_| Gone)?;
        receiver.await.map_err(|_| Gone)
    }
}

/// Runs until a signal says to stop. What is in the kernel stays there, but for addresses that are announced by Leases.
pub(crate) async fn run(settings: Settings, namespace: String) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = settings.node, "starting");
    if std::path::Path::new(HOST_SYSCTLS).join("net").exists() {
        cilium_drivers::sysctl::use_root(HOST_SYSCTLS.as_ref());
    }
    // Before anything else: CNI may be waiting, and the runtime is told of the plugin as soon as the node works.
    let socket = serve::bind(&settings.socket)?;
    let (seen_sender, mut seen) = mpsc::channel(64);
    let (job_sender, mut jobs) = mpsc::channel::<Job>(64);
    let (listener_sender, listeners) = mpsc::channel(4);
    let dns_socket = serve::bind(&settings.dns_socket)?;
    let (rules_sender, rules) = channel::channel(cilium_rest::dns::Rules::default());
    let (told_sender, told) = channel::channel(None);
    let handle = Handle { jobs: job_sender, listeners: listener_sender };
    let (checks_sender, checks) = channel::channel(Checks::new());
    let (failures_sender, mut health_failures) = channel::channel(Failures::new());
    let health = Health::new(checks_sender, health_failures.clone());
    let (pressure_sender, mut pressures) = channel::channel(Vec::new());
    let (kube_proxy_sender, kube_proxy) = channel::channel(Vec::new());
    let (announcements, leases) = Announcements::start(&settings)?;
    let (line, mut announced) = (announcements.line(), announcements.told());
    if settings.announces == Some(Agreement::Heartbeats) {
        announce::key::recall(&settings.heartbeat_key_file(), &line);
    }
    let (routing, reader, reporter) = Routing::start(&settings)?;
    let mut routed = routing.intent();
    let outside = Outside { health, announcements, routing, pressures: pressures.clone(), kube_proxy };
    let mut brain = Brain::new(settings.clone(), told_sender, rules_sender, outside)?;

    tokio::spawn(monitor::run(settings.bpffs.clone(), handle.clone(), listeners));
    serve::start(&settings, socket, &handle).await?;
    tokio::spawn(pressure::follow(settings.bpffs.clone(), pressure_sender));
    tokio::spawn(kube_proxy::follow(kube_proxy_sender));
    tokio::spawn(health::start(settings.every_address(), checks, failures_sender));
    tokio::spawn(dns::serve(dns_socket, handle.clone(), rules));
    let (client_sender, client) = oneshot::channel();
    let campaign = leases.map(|leases| tokio::spawn(leases.run(client, namespace.clone())));
    let (secrets_sender, client) = oneshot::channel();
    if let Some(reader) = reader {
        tokio::spawn(reader.run(client));
    }
    let (status_sender, client) = oneshot::channel();
    if let Some(reporter) = reporter {
        tokio::spawn(reporter.run(client));
    }
    let clients = vec![client_sender, secrets_sender, status_sender];
    let connection = Connection { settings, namespace, line: line.clone(), clients };
    tokio::spawn(connect(connection, seen_sender, told, handle.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let deadline = tokio::time::Instant::from_std(brain.deadline());
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(first) = seen.recv() => timed("a watch event", || {
                brain.see(first);
                while let Ok(more) = seen.try_recv() {
                    brain.see(more);
                }
                brain.settle();
            }),
            Ok(()) = health_failures.changed() => brain.ack_soon(),
            Ok(()) = pressures.changed() => brain.ack_soon(),
            Ok(()) = announced.changed() => brain.ack_soon(),
            Ok(()) = routed.changed() => brain.ack_soon(),
            Some(job) = jobs.recv() => timed("a request", || job(&mut brain)),
            () = tokio::time::sleep_until(deadline) => timed("a timer", || brain.tick()),
        }
    }
    brain.save_last_names().await;
    if let Some(campaign) = campaign {
        line.stop();
        if tokio::time::timeout(RELEASE_WITHIN, campaign).await.is_err() {
            tracing::warn!("Leases are not given back: other nodes wait until they expire");
        }
    }
    tracing::info!("stopping; the datapath goes on");
    Ok(())
}

/// Everything waits for the loop, policies and pods alike.
const LONG: Duration = Duration::from_millis(50);

/// Does one thing of the loop, and says so when it took long.
fn timed(what: &str, work: impl FnOnce()) {
    let begin = Instant::now();
    work();
    let took = begin.elapsed();
    if took > LONG {
        tracing::warn!(what, milliseconds = took.as_millis(), "took long, and everything else had to wait");
    }
}

/// For whom the API server is found.
struct Connection {
    settings: Settings,
    namespace: String,
    line: Line,
    /// Who waits for it: for elections, Secrets and status.
    clients: Vec<oneshot::Sender<Client>>,
}

/// Finds the API server and starts what talks to it. Tries for ever: the node works from disk meanwhile.
async fn connect(
    Connection { settings, namespace, line, clients }: Connection,
    seen: mpsc::Sender<Seen>,
    told: channel::Receiver<Option<ack::Told>>,
    handle: Handle,
) {
    let mut backoff = Backoff::new();
    let client = loop {
        match client(&settings).await {
            Ok(client) => break client,
            Err(error) => {
                let broken = Seen::Connection("CiliumNodeState", Err(format!("{error:#}")));
                if seen.send(broken).await.is_err() {
                    return;
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    };
    tokio::spawn(watch::header(client.clone(), settings.node.clone(), seen.clone()));
    tokio::spawn(watch::slices(client.clone(), settings.node.clone(), seen));
    tokio::spawn(ack::run(client.clone(), settings.node.clone(), told));
    for waiting in clients {
        // Nobody may wait for it.
        drop(waiting.send(client.clone()));
    }
    if settings.announces == Some(Agreement::Heartbeats) {
        let file = settings.heartbeat_key_file();
        tokio::spawn(announce::key::fetch(client.clone(), namespace, file, line));
    }
    ask_version(client, handle).await;
}

async fn client(settings: &Settings) -> anyhow::Result<Client> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(file, &Default::default()).await?
        }
        None => kube::Config::incluster().context("the API server is not known")?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// Only for the status; not worth more than patience.
async fn ask_version(client: Client, handle: Handle) {
    let mut backoff = Backoff::new();
    loop {
        match client.apiserver_version().await {
            Ok(info) => {
                let text =
                    format!("{}.{} ({}) [{}]", info.major, info.minor, info.git_version, info.platform);
                drop(handle.ask(move |brain| brain.set_server_version(text)).await);
                return;
            }
            Err(error) => tracing::debug!(error = chain(&error), "the API server does not tell its version"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
