//! The admission webhook, which the leader serves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cilium_admission::certificate::{self, Certificate, ROTATE_AFTER_DAYS};
use cilium_admission::serve::{Judge, Question};
use cilium_admission::{NAME, register, serve};
use jiff::Zoned;
use jiff::tz::TimeZone;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::options::Options;

/// Questions that may wait for the planner; who finds no room is answered without it.
pub const QUESTIONS: usize = 16;

/// Time between two looks at what was registered: an installation may have written over it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The same after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Where the webhook is served, and for whom.
#[derive(Clone, Debug)]
pub struct Webhook {
    address: SocketAddr,
    namespace: String,
    config: cilium_plan::Config,
}

impl Webhook {
    /// As the options have it, with what the planner is told; `None` when it is switched off.
    ///
    /// # Errors
    /// The address is none.
    pub fn of(options: &Options, config: cilium_plan::Config) -> anyhow::Result<Option<Self>> {
        let text = &options.admission_webhook_address;
        if text.is_empty() {
            return Ok(None);
        }
        let ip: IpAddr = text
            .parse()
            .with_context(|| format!("--admission-webhook-address: {text:?} is not an IP address"))?;
        Ok(Some(Self {
            address: SocketAddr::new(ip, options.admission_webhook_port),
            namespace: options.k8s_namespace.clone(),
            config,
        }))
    }

    /// Serves until the operator ends. Without a webhook the operator does everything else, so a failure is only logged.
    pub async fn run(self, client: Client, planner: mpsc::Sender<Question>) {
        if let Err(error) = self.serve(client, planner).await {
            tracing::error!(
                error = format!("{error:#}"),
                "no admission webhook: policies are stored without being looked at first"
            );
        }
    }

    async fn serve(&self, client: Client, planner: mpsc::Sender<Question>) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.with_context(|| {
            format!("cannot listen on {}: set admission-webhook-port to a free port", self.address)
        })?;
        let first = self.certificate()?;
        let (sender, config) = watch::channel(first.config.clone());
        let router = serve::router(Judge::new(self.config.clone(), planner));
        tokio::select! {
            () = serve::run(listener, config, router) => Ok(()),
            ended = self.keep_registered(&client, first, &sender) => ended,
        }
    }

    fn certificate(&self) -> anyhow::Result<Certificate> {
        let today = Zoned::now().with_time_zone(TimeZone::UTC).date();
        let name = format!("{NAME}.{}.svc", self.namespace);
        certificate::make(&name, today).context("there is no certificate for the webhook")
    }

    /// Registers, looks again now and then, and changes certificates in time: the API server believes in the next one before it is used.
    async fn keep_registered(
        &self,
        client: &Client,
        first: Certificate,
        serving: &watch::Sender<Arc<tokio_rustls::rustls::ServerConfig>>,
    ) -> anyhow::Result<()> {
        let lifetime = Duration::from_secs(u64::try_from(ROTATE_AFTER_DAYS).unwrap_or(1) * 24 * 3600);
        let (mut current, mut bundle) = (first.clone(), first.pem);
        let mut made = Instant::now();
        let mut was_well = false;
        loop {
            if made.elapsed() > lifetime {
                let next = self.certificate()?;
                bundle = format!("{}{}", next.pem, current.pem);
                (current, made) = (next, Instant::now());
            }
            let ensured = register::ensure(client, &self.namespace, self.address, &bundle).await;
            match &ensured {
                Ok(()) => {
                    serving.send_replace(current.config.clone());
                    if !was_well {
                        tracing::info!(address = %self.address, "the admission webhook is registered");
                    }
                }
                Err(error) => {
                    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "the admission webhook is not registered; trying again");
                }
            }
            was_well = ensured.is_ok();
            tokio::time::sleep(if was_well { LOOK_AGAIN } else { TRY_AGAIN }).await;
        }
    }
}
