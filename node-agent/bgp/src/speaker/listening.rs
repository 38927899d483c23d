//! Ports of instances.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cilium_rest::bgp::{Instance, Password};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Speaker, State};
use crate::connect::{self, Listeners};
use crate::peer::{Message, quiet};

/// Between two attempts to listen, or to accept.
const RETRY: Duration = Duration::from_secs(1);

/// What a port needs of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    port: u16,
    passwords: BTreeMap<IpAddr, Option<Password>>,
    has_gtsm: bool,
    /// It is opened so long after the start of the speaker.
    quiet: Duration,
}

/// The port of an instance; closed when it is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Speaker {
    /// Listens where the configuration says so.
    pub(super) fn listen(&self, state: &mut State) {
        let instances: BTreeMap<String, Wanted> = state.config.instances.iter().filter_map(wanted).collect();
        // What goes, goes first: its port may be another instance's now.
        state.listening.retain(|name, it| {
            instances.get(name).is_some_and(|wanted| wanted.port == it.wanted.borrow().port)
        });
        for (name, wanted) in instances {
            match state.listening.get(&name) {
                Some(listening) => drop(listening.wanted.send_replace(wanted)),
                None => {
                    let (sender, receiver) = watch::channel(wanted);
                    let task = tokio::spawn(self.clone().serve_port(name.clone(), receiver));
                    state.listening.insert(name, Listening { wanted: sender, task });
                }
            }
        }
    }

    async fn serve_port(self, instance: String, mut wanted: watch::Receiver<Wanted>) {
        let port = wanted.borrow().port;
        // Peers take a refused connection for a speaker that is away, and a closed one for an error.
        let quiet = wanted.borrow().quiet;
        tokio::time::sleep_until(self.0.common.instant(Some(quiet))).await;
        let listeners = loop {
            match Listeners::open(port) {
                Ok(listeners) => break listeners,
                Err(error) => {
                    self.explain(&instance, Some(format!("cannot listen on port {port}: {error}")));
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tracing::info!(instance, port, "listening");
        self.explain(&instance, None);
        let mut before = BTreeMap::new();
        loop {
            let now = wanted.borrow_and_update().clone();
            if let Err(error) = prepare(&listeners, &before, &now) {
                tracing::error!(instance, port, %error, "options of the port cannot be set");
            }
            before = now.passwords;
            loop {
                tokio::select! {
                    accepted = listeners.accept() => self.accepted(&instance, accepted).await,
                    result = wanted.changed() => match result {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
        }
    }

    async fn accepted(&self, instance: &str, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, address)) => self.hand_over(instance, stream, address),
            Err(error) => {
                tracing::warn!(instance, %error, "cannot accept");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// To the peer's task; whoever is no peer is cut.
    fn hand_over(&self, instance: &str, stream: TcpStream, address: SocketAddr) {
        let state = self.state();
        let peer = state.neighbours.iter().find(|((of, _), neighbour)| {
            of == instance && connect::is_from(&stream, address, &neighbour.spec)
        });
        match peer {
            Some((_, neighbour)) => drop(neighbour.messages.send(Message::Incoming(stream))),
            None => tracing::info!(instance, %address, "no peer has this address: the connection is cut"),
        }
    }

    /// Peers that wait to be connected to have this reason; `None` takes it back.
    fn explain(&self, instance: &str, reason: Option<String>) {
        let state = self.state();
        let passive = state.neighbours.iter().filter(|((of, _), it)| of == instance && it.spec.passive);
        for (_, neighbour) in passive {
            neighbour.status.change(|it| {
                if it.negotiated.is_none() {
                    it.reason.clone_from(&reason);
                }
            });
        }
        if let Some(reason) = reason {
            tracing::warn!(instance, reason, "trying again");
        }
        self.0.common.changed();
    }
}

fn wanted(instance: &Instance) -> Option<(String, Wanted)> {
    let peers = &instance.peers;
    let wanted = Wanted {
        port: instance.port?,
        passwords: peers.iter().map(|peer| (peer.address, peer.password.clone())).collect(),
        has_gtsm: peers.iter().any(|peer| peer.ttl_security),
        quiet: peers.iter().filter_map(|peer| peer.bfd).map(quiet).max().unwrap_or_default(),
    };
    Some((instance.name.clone(), wanted))
}

fn prepare(
    listeners: &Listeners,
    before: &BTreeMap<IpAddr, Option<Password>>,
    now: &Wanted,
) -> io::Result<()> {
    if now.has_gtsm {
        listeners.secure_ttl()?;
    }
    listeners.set_passwords(before, &now.passwords)
}
