//! The proxy: takes questions of pods, lets through what rules allow, and answers when what was learned is in force.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cilium_names::{Question, Rcode};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::rules::{Decision, Identities, Rules};
use crate::socket::{self, Datagram};
use crate::upstream;

/// IP protocol numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Questions in the air at the same time, and connections of clients. What is beyond waits in the kernel.
const MOST_QUESTIONS: usize = 4096;
const MOST_CONNECTIONS: usize = 1024;
/// Sockets to answer from, one for each name server.
const MOST_SENDERS: usize = 1024;
/// A name server that takes longer has lost its client.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
/// A client's connection on which nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// Everything that questions need.
pub(crate) struct Proxy<I> {
    pub(crate) rules: RwLock<Arc<Rules>>,
    pub(crate) identities: RwLock<Option<I>>,
    pub(crate) agent: Agent,
    /// What a client hears that asks for what it may not.
    pub(crate) refusal: Rcode,
    senders: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
}

/// Who asks whom, and how.
#[derive(Clone, Copy)]
struct Path {
    client: SocketAddr,
    server: SocketAddr,
    protocol: u8,
}

impl<I: Identities + Send + Sync + 'static> Proxy<I> {
    pub(crate) fn new(agent: Agent, refusal: Rcode) -> Self {
        Self {
            rules: RwLock::default(),
            identities: RwLock::new(None),
            agent,
            refusal,
            senders: Mutex::default(),
        }
    }

    /// Until the kernel's maps can be read, nobody is known.
    fn decide(&self, path: Path, name: &str) -> Decision {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner).clone();
        match &*self.identities.read().unwrap_or_else(PoisonError::into_inner) {
            Some(identities) => rules.decide(identities, path.client.ip(), path.server, path.protocol, name),
            None => Decision::Unknown,
        }
    }

    /// Takes datagrams for ever.
    pub(crate) async fn serve_udp(self: Arc<Self>, listener: UdpSocket) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(MOST_QUESTIONS));
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let received = socket::receive(&listener, &mut buffer).await;
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            match received {
                Ok(Some(datagram)) => {
                    let proxy = self.clone();
                    tokio::spawn(async move {
                        proxy.answer_datagram(datagram).await;
                        drop(place);
                    });
                }
                Ok(None) => {}
                // Of one client, such as an ICMP error about an answer.
                Err(error) => tracing::debug!(%error, "a datagram could not be read"),
            }
        }
    }

    async fn answer_datagram(&self, datagram: Datagram) {
        let path = Path { client: datagram.from, server: datagram.to, protocol: UDP };
        let counters = &self.agent.counters;
        counters.received.add();
        let Ok(question) = Question::read(&datagram.bytes) else {
            counters.malformed.add();
            tracing::debug!(client = %path.client, "what a pod sent to a name server is no question");
            return;
        };
        let answer = match self.decide(path, &question.name) {
            Decision::Unknown => return,
            Decision::Refused => self.refuse(path, &question, &datagram.bytes),
            Decision::Allowed => {
                counters.forwarded.add();
                let start = Instant::now();
                let asked = upstream::ask(path.server, &question, &datagram.bytes);
                match timeout(SERVER_PATIENCE, asked).await {
                    Ok(Ok((bytes, answer))) => {
                        counters.replied(start.elapsed());
                        self.agent.learn(&question.name, &answer).await;
                        bytes
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, server = %path.server, "a name server cannot be asked");
                        question.refuse(&datagram.bytes, Rcode::ServerFailure)
                    }
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = self.send(path, &answer).await {
            tracing::warn!(%error, client = %path.client, server = %path.server, "an answer could not be sent");
        }
    }

    fn refuse(&self, path: Path, question: &Question, bytes: &[u8]) -> Vec<u8> {
        self.agent.counters.denied.add();
        // Pods may ask as often as they like; how often is counted.
        tracing::debug!(client = %path.client, server = %path.server, name = question.name, "refused");
        question.refuse(bytes, self.refusal)
    }

    async fn send(&self, path: Path, bytes: &[u8]) -> io::Result<()> {
        let sender = self.sender(path.server)?;
        sender.send_to(bytes, path.client).await.map(drop)
    }

    /// The socket that sends in the place of a name server.
    fn sender(&self, server: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(&server) {
            return Ok(sender.clone());
        }
        if senders.len() >= MOST_SENDERS {
            senders.clear();
        }
        let sender = Arc::new(socket::udp_sender(server)?);
        senders.insert(server, sender.clone());
        Ok(sender)
    }

    /// Takes connections for ever.
    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let proxy = self.clone();
            tokio::spawn(async move {
                if let Err(error) = proxy.serve_connection(stream, client).await {
                    tracing::debug!(%error, %client, "a connection ended");
                }
                drop(place);
            });
        }
    }

    async fn serve_connection(&self, mut client: TcpStream, from: SocketAddr) -> io::Result<()> {
        client.set_nodelay(true)?;
        let path = Path { client: from, server: client.local_addr()?, protocol: TCP };
        let mut server = None;
        while let Some(bytes) = timeout(IDLE, upstream::read_message(&mut client)).await?? {
            self.agent.counters.received.add();
            let Ok(question) = Question::read(&bytes) else {
                self.agent.counters.malformed.add();
                return Ok(());
            };
            let answer = match self.decide(path, &question.name) {
                Decision::Unknown => return Ok(()),
                Decision::Refused => self.refuse(path, &question, &bytes),
                Decision::Allowed => {
                    self.agent.counters.forwarded.add();
                    let asked = self.ask_by_stream(&mut server, path, &question, &bytes);
                    match timeout(SERVER_PATIENCE, asked).await? {
                        Ok(answer) => answer,
                        Err(error) => {
                            tracing::debug!(%error, server = %path.server, "a name server cannot be asked");
                            server = None;
                            question.refuse(&bytes, Rcode::ServerFailure)
                        }
                    }
                }
            };
            upstream::write_message(&mut client, &answer).await?;
        }
        Ok(())
    }

    /// A server may have ended a connection that it had nothing to do for: then it gets another.
    async fn ask_by_stream(
        &self,
        server: &mut Option<TcpStream>,
        path: Path,
        question: &Question,
        bytes: &[u8],
    ) -> io::Result<Vec<u8>> {
        let start = Instant::now();
        let answer = match server {
            Some(stream) => match exchange(stream, bytes).await {
                Ok(answer) => answer,
                Err(_) => exchange(connect(server, path).await?, bytes).await?,
            },
            None => exchange(connect(server, path).await?, bytes).await?,
        };
        self.agent.counters.replied(start.elapsed());
        if let Ok(read) = question.read_answer(&answer) {
            self.agent.learn(&question.name, &read).await;
        }
        Ok(answer)
    }
}

async fn connect(server: &mut Option<TcpStream>, path: Path) -> io::Result<&mut TcpStream> {
    let stream = TcpStream::connect(path.server).await?;
    stream.set_nodelay(true)?;
    Ok(server.insert(stream))
}

async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    upstream::write_message(stream, bytes).await?;
    upstream::read_message(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
