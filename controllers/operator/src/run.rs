//! The process from start to end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cilium_admission::serve::Question;
use cilium_plan::Planner;
use cilium_runtime::lease::{self, Standing};
use cilium_runtime::metrics::Metrics;
use cilium_runtime::writer::{self, Limits, Writer};
use cilium_runtime::{client, crds, serve};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bootstrap::{Bootstrap, Settings};
use crate::brain::Brain;
use crate::feed::{self, News};
use crate::options::{DefaultServiceIpam, IpamMode, L2Mode, Options};
use crate::{heartbeat, metrics, rbac, webhook};

/// News and reports taken in one go. A longer queue means that another round follows at once.
const BATCH: usize = 4096;

/// Connections kept open for writes: an urgent change is a header and a few slices.
const WARM: usize = 4;

/// How the operator calls itself to the API server.
const AGENT: &str = concat!("cilium-operator/", env!("CARGO_PKG_VERSION"));

/// How long giving back the Lease may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until a signal ends it or leadership is lost.
///
/// # Errors
/// What only a change of configuration can mend, and the loss of leadership: a fresh process then waits for the Lease.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut registry = Registry::with_prefix("cilium_operator");
    let shell = Metrics::register(&mut registry);
    let plan_seconds = metrics::register_plan_seconds(&mut registry);
    registry.register_collector(Box::new(metrics::Process));
    let load_balancers = metrics::LoadBalancers::default();
    registry.register_collector(Box::new(load_balancers.clone()));
    start_servers(&options, registry).await?;
    let client = client::connect(config(&options).await?, AGENT)?;
    let election = election(&options);
    let store = Api::<Lease>::namespaced(client.clone(), &options.k8s_namespace);
    let webhook = webhook::Webhook::of(&options, plan_config(&options)?)?;
    let operator =
        Operator { options, webhook, client, shell, plan_seconds, load_balancers, tasks: JoinSet::new() };
    tokio::select! {
        ended = operator.compete(store.clone(), election.clone()) => ended,
        signalled = termination() => {
            signalled?;
            let released = tokio::time::timeout(RELEASE_TIMEOUT, lease::release(&store, &election)).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!("could not give back the Lease; it expires by itself");
            }
            Ok(())
        }
    }
}

async fn start_servers(options: &Options, registry: Registry) -> anyhow::Result<()> {
    let health = serve::bind(&options.operator_api_serve_addr).await?;
    tokio::spawn(serve::run(health, serve::health()));
    if !options.operator_prometheus_serve_addr.is_empty() {
        let metrics = serve::bind(&options.operator_prometheus_serve_addr).await?;
        tokio::spawn(serve::run(metrics, serve::metrics(Arc::new(registry))));
    }
    Ok(())
}

async fn config(options: &Options) -> anyhow::Result<Config> {
    let Some(path) = &options.k8s_kubeconfig_path else {
        return Config::infer().await.context("no service account and no kubeconfig was found");
    };
    let file = Kubeconfig::read_from(path);
    let file = file.with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("the kubeconfig {} is incomplete", path.display()))
}

/// The identity is the pod's, so that a container that was restarted in its pod goes on at once: its predecessor is dead.
fn election(options: &Options) -> lease::Config {
    let unique = || format!("{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
    let identity = std::env::var("POD_NAME").unwrap_or_else(|_| format!("cilium-operator-{}", unique()));
    lease::Config {
        name: rbac::LEASE.to_owned(),
        identity,
        lease_duration: options.leader_election_lease_duration,
        renew_deadline: options.leader_election_renew_deadline,
        retry_period: options.leader_election_retry_period,
    }
}

async fn termination() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: giving back the Lease"),
        _ = interrupt.recv() => tracing::info!("SIGINT: giving back the Lease"),
    }
    Ok(())
}

struct Operator {
    options: Options,
    /// Where to serve it, if at all.
    webhook: Option<webhook::Webhook>,
    client: Client,
    shell: Metrics,
    plan_seconds: Histogram,
    load_balancers: metrics::LoadBalancers,
    /// Ends with the operator: what gives back the Lease must not write any more, nor compete for it.
    tasks: JoinSet<()>,
}

impl Operator {
    /// Waits for leadership, then acts until it is lost.
    async fn compete(mut self, store: Api<Lease>, election: lease::Config) -> anyhow::Result<()> {
        let (sender, mut standing) = watch::channel(Standing::Waiting);
        self.tasks.spawn(async move { lease::lead(&store, election, &sender).await });
        self.tasks.spawn(follow(standing.clone(), self.shell.clone()));
        tracing::info!(lease = rbac::LEASE, namespace = self.options.k8s_namespace, "waiting for leadership");
        standing.wait_for(|now| *now == Standing::Leading).await.context("the election ended")?;
        let lost = standing.clone();
        tokio::select! {
            ended = self.lead(standing) => ended,
            () = lost_leadership(lost) => bail!("another operator leads now; this one ends"),
        }
    }

    async fn lead(mut self, standing: watch::Receiver<Standing>) -> anyhow::Result<()> {
        let mode = if self.options.skip_crd_creation { crds::Mode::WaitOnly } else { crds::Mode::Install };
        crds::ensure(&self.client, &cilium_api::all(), mode).await;
        self.tasks.spawn(client::keep_warm(self.client.clone(), WARM));
        if self.options.needs_heartbeat_key() {
            self.tasks.spawn(heartbeat::ensure(self.client.clone(), self.options.k8s_namespace.clone()));
        }
        let wanted = feed::Wanted {
            cluster_network_policies: self.options.enable_k8s_cluster_network_policy,
            load_balancer_pools: self.options.enable_lb_ipam,
            pod_pools: self.options.ipam == IpamMode::MultiPool,
            l2_announcement_policies: self.options.enable_l2_announcements,
            bgp: self.options.enable_bgp_control_plane.then(|| self.options.bgp_secrets_namespace.clone()),
        };
        let news = feed::start(&self.client, &self.shell, &wanted);
        let rate = self.options.operator_k8s_client_qps;
        let limits = Limits { per_second: (rate > 0.0).then_some(rate) };
        let client = self.client.clone();
        let (writer, reports, task) = writer::start(self.client, standing, limits, self.shell);
        self.tasks.spawn(task);
        let planner = Planner::new(plan_config(&self.options)?);
        let (asker, questions) = mpsc::channel(webhook::QUESTIONS);
        if let Some(webhook) = self.webhook {
            self.tasks.spawn(webhook.run(client, asker.clone()));
        }
        let brain = Brain::new(planner, Bootstrap::new(settings(&self.options)));
        let told = Told { plan_seconds: self.plan_seconds, load_balancers: self.load_balancers };
        let ended = drive(brain, Inputs { news, reports, questions }, &writer, &told).await;
        // Without a webhook nobody asks, but the channel is open.
        drop(asker);
        ended
    }
}

/// Says how the election goes.
async fn follow(mut standing: watch::Receiver<Standing>, shell: Metrics) {
    while standing.changed().await.is_ok() {
        let now = *standing.borrow_and_update();
        shell.leader.set(i64::from(now == Standing::Leading));
        match now {
            Standing::Leading => tracing::info!("leading"),
            Standing::Suspended => {
                tracing::warn!("the Lease could not be renewed in time; nothing is written until it is");
            }
            Standing::Waiting | Standing::Lost => {}
        }
    }
}

async fn lost_leadership(mut standing: watch::Receiver<Standing>) {
    // An error means that the election ended, which it does only after a loss.
    let _ = standing.wait_for(|now| *now == Standing::Lost).await;
}

fn plan_config(options: &Options) -> anyhow::Result<cilium_plan::Config> {
    Ok(cilium_plan::Config {
        cluster: options.cluster_name.clone(),
        ipv4: options.enable_ipv4,
        ipv6: options.enable_ipv6,
        mode: options.enable_policy.into(),
        labels: options.label_filter()?,
        node_selector_labels: options.enable_node_selector_labels,
        host_firewall: options.enable_host_firewall,
        local_redirects: options.enable_local_redirect_policy,
        redirect_cidrs: options.redirect_cidrs()?,
        services: cilium_plan::ServiceConfig {
            node_ports: options.node_port_range.clone(),
            algorithm_by_annotation: options.bpf_lb_algorithm_annotation,
            forwarding_by_annotation: options.bpf_lb_mode_annotation,
        },
        pod_pools: options.ipam == IpamMode::MultiPool,
        lb_ipam: options.enable_lb_ipam,
        lb_default_class: options.default_lb_service_ipam == DefaultServiceIpam::Lbipam,
        lb_bgp_class: options.enable_bgp_control_plane,
        lb_l2_class: options.enable_l2_announcements,
        l2_announcements: options.enable_l2_announcements,
        l2_leases: options.l2_announcements_mode == L2Mode::Lease,
        bgp: options.bgp()?,
        bgp_status: options.enable_bgp_control_plane_status_report,
        policy_map_entries: options.policy_map_entries()?,
        identity_gc_interval: i64::try_from(options.identity_gc_interval.as_secs()).unwrap_or(i64::MAX),
    })
}

fn settings(options: &Options) -> Settings {
    let taint = options.remove_cilium_node_taints.then(|| options.agent_not_ready_taint_key.clone());
    Settings { taint, condition: options.set_cilium_is_up_condition }
}

/// What the loop waits for.
struct Inputs {
    news: mpsc::Receiver<News>,
    reports: mpsc::UnboundedReceiver<writer::Report>,
    questions: mpsc::Receiver<Question>,
}

/// What is measured of each round.
struct Told {
    plan_seconds: Histogram,
    load_balancers: metrics::LoadBalancers,
}

/// The loop: takes all that is there, plans, hands over what is to be written. Nothing waits on the way.
async fn drive(
    mut brain: Brain,
    Inputs { mut news, mut reports, mut questions }: Inputs,
    writer: &Writer,
    told: &Told,
) -> anyhow::Result<()> {
    loop {
        let alarm = brain.next(Instant::now(), Timestamp::now());
        tokio::select! {
            biased;
            Some(report) = reports.recv() => brain.written(report),
            next = news.recv() => brain.take(next.context("all watches ended")?),
            Some(Question { object, answer }) = questions.recv() => {
                // Who asked may have given up.
                let _ = answer.send(brain.advise(&object));
                continue;
            }
            () = sleep_until(alarm) => {}
        }
        for _ in 0..BATCH {
            let Ok(report) = reports.try_recv() else { break };
            brain.written(report);
        }
        for _ in 0..BATCH {
            let Ok(next) = news.try_recv() else { break };
            brain.take(next);
        }
        let started = Instant::now();
        for job in brain.plan(started, Timestamp::now()).context("the plan has no JSON form")? {
            writer.submit(job);
        }
        told.plan_seconds.observe(started.elapsed().as_secs_f64());
        told.load_balancers.set(brain.load_balancer_numbers());
    }
}

async fn sleep_until(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => tokio::time::sleep_until(alarm).await,
        None => std::future::pending().await,
    }
}
