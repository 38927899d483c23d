//! Peers under load: many sessions of different AS numbers in one thread, which announce prefixes and count what they are told.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::Ipv4Net;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::wire;

/// Between two attempts of a session.
const RETRY: Duration = Duration::from_millis(100);
/// Between two KEEPALIVEs.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: Ipv4Addr,
    pub(super) asn: u16,
    /// UPDATEs that it sends when it is told to.
    pub(super) updates: Vec<u8>,
}

/// How far the sessions are.
#[derive(Debug, Default)]
struct Progress {
    established: usize,
    /// When the first UPDATE was sent.
    sent: Option<Instant>,
    /// Prefixes that each session waits for.
    wanted: usize,
    /// Counts questions: no session answers one twice.
    question: usize,
    /// Sessions that have as many.
    reached: usize,
    /// When the first UPDATE came since the question.
    first: Option<Instant>,
    /// When the last session had all.
    last: Option<Instant>,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until something is there.
    fn wait<T>(&self, what: &str, patience: Duration, look: impl Fn(&Progress) -> Option<T>) -> Result<T> {
        let is_open = |it: &mut Progress| it.failed.is_none() && look(it).is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_open);
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (&progress.failed, look(&progress)) {
            (_, Some(found)) => Ok(found),
            (Some(reason), None) => {
                Err(anyhow!("a session ended while there was waiting for {what}: {reason}"))
            }
            (None, None) => Err(anyhow!("in vain waited for {what}: {progress:?}")),
        }
    }
}

/// What the peers were told, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// The first bytes of an UPDATE were at one of them.
    pub(super) first: Instant,
    /// The last one had all.
    pub(super) last: Instant,
}

/// Peers, which connect at once; the sessions end with the value.
#[derive(Debug)]
pub(super) struct Generator {
    count: usize,
    patience: Duration,
    shared: Arc<Shared>,
    announces: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Generator {
    /// Connects all peers with a daemon, from the network namespace of the calling thread; waits until all sessions are established.
    pub(super) fn connect(daemon: SocketAddr, peers: Vec<Peer>, patience: Duration) -> Result<Self> {
        let count = peers.len();
        let shared = Arc::new(Shared::default());
        let (announces, announced) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let progress = shared.clone();
        let thread = thread::Builder::new().name("peers".to_owned()).spawn(move || {
            runtime.block_on(async move {
                for peer in peers {
                    tokio::spawn(run(daemon, peer, progress.clone(), announced.clone()));
                }
                let mut announced = announced;
                // Until the handle is gone.
                while announced.changed().await.is_ok() {}
            });
        })?;
        let generator = Self { count, patience, shared, announces, thread: Some(thread) };
        generator.shared.wait("all sessions", patience, |it| (it.established == count).then_some(()))?;
        Ok(generator)
    }

    /// Has each peer send its UPDATEs; returns when the first one was sent.
    pub(super) fn announce(&self) -> Result<Instant> {
        self.announces.send_replace(true);
        self.shared.wait("the first UPDATE", self.patience, |it| it.sent)
    }

    /// From now on, each peer waits until it has so many prefixes.
    pub(super) fn expect(&self, prefixes: usize) {
        self.shared.change(|it| {
            let question = it.question + 1;
            (it.wanted, it.question, it.reached, it.first, it.last) = (prefixes, question, 0, None, None);
        });
    }

    /// Waits for what was expected.
    pub(super) fn told(&self) -> Result<Told> {
        let all = |it: &Progress| {
            let is_all = it.reached == self.count;
            is_all.then_some(Told { first: it.first?, last: it.last? })
        };
        self.shared.wait("prefixes at every peer", self.patience, all)
    }

    /// Fails when a session has ended.
    pub(super) fn check(&self) -> Result<()> {
        match &self.shared.lock().failed {
            Some(reason) => bail!("a session ended: {reason}"),
            None => Ok(()),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let (closed, _) = watch::channel(false);
        drop(std::mem::replace(&mut self.announces, closed));
        // A panic of it was printed.
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

async fn run(daemon: SocketAddr, peer: Peer, shared: Arc<Shared>, announced: watch::Receiver<bool>) {
    let session = loop {
        match Session::open(daemon, &peer).await {
            Ok(session) => break session,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    shared.change(|it| it.established += 1);
    if let Err(error) = session.run(&shared, announced, &peer.updates).await {
        shared.change(|it| it.failed = Some(format!("{}: {error:#}", peer.address)));
    }
}

struct Session {
    stream: TcpStream,
    input: Vec<u8>,
    told: HashSet<Ipv4Net>,
    /// The last question that was answered.
    answered: usize,
}

impl Session {
    /// Established when it returns.
    async fn open(daemon: SocketAddr, peer: &Peer) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        socket.bind((peer.address, 0).into())?;
        let stream = socket.connect(daemon).await?;
        let mut session = Self { stream, input: Vec::new(), told: HashSet::new(), answered: 0 };
        session.stream.write_all(&wire::open(peer.asn, peer.address)).await?;
        loop {
            session.read().await?;
            while let Some((kind, _)) = session.next()? {
                match kind {
                    wire::OPEN => session.stream.write_all(&wire::message(wire::KEEPALIVE, &[])).await?,
                    wire::KEEPALIVE => return Ok(session),
                    other => bail!("a message of type {other} before the session is established"),
                }
            }
        }
    }

    async fn run(
        mut self,
        shared: &Shared,
        mut announced: watch::Receiver<bool>,
        updates: &[u8],
    ) -> Result<()> {
        let mut keepalive = tokio::time::interval(KEEPALIVE);
        self.take(shared, Instant::now())?;
        loop {
            tokio::select! {
                result = self.read() => {
                    result?;
                    self.take(shared, Instant::now())?;
                }
                result = announced.changed() => {
                    if result.is_err() {
                        return Ok(());
                    }
                    shared.change(|it| it.sent = it.sent.or_else(|| Some(Instant::now())));
                    self.stream.write_all(updates).await?;
                }
                _ = keepalive.tick() => self.stream.write_all(&wire::message(wire::KEEPALIVE, &[])).await?,
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => bail!("the daemon closed the connection"),
            _ => Ok(()),
        }
    }

    /// The next message that is there: type and body.
    fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let Some((kind, length)) = wire::whole(&self.input)? else { return Ok(None) };
        let body = self.input.drain(..length).skip(wire::HEADER).collect();
        Ok(Some((kind, body)))
    }

    /// Takes what came at this time.
    fn take(&mut self, shared: &Shared, now: Instant) -> Result<()> {
        let mut is_update = false;
        while let Some((kind, body)) = self.next()? {
            match kind {
                wire::UPDATE => {
                    let [withdrawn, announced] = wire::prefixes(&body)?;
                    // An End-of-RIB has none.
                    is_update |= !announced.is_empty();
                    self.told.retain(|prefix| !withdrawn.contains(prefix));
                    self.told.extend(announced);
                }
                wire::NOTIFICATION => {
                    let (code, subcode) =
                        body.first().zip(body.get(1)).context("a NOTIFICATION without a reason")?;
                    bail!("NOTIFICATION {code}/{subcode}");
                }
                _ => {}
            }
        }
        if is_update {
            shared.change(|it| self.answer(it, now));
        }
        Ok(())
    }

    fn answer(&mut self, progress: &mut Progress, now: Instant) {
        progress.first.get_or_insert(now);
        if self.told.len() >= progress.wanted && self.answered < progress.question {
            self.answered = progress.question;
            progress.reached += 1;
            progress.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use cilium_bgp::Speaker;
    use tokio::sync::oneshot;

    use super::super::{ours, prefixes, wire};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A speaker in a thread; it ends with the second value.
    fn mk_speaker(port: u16, peers: &[Peer]) -> (Speaker, oneshot::Sender<()>) {
        let config = ours::config(port, peers);
        let (started, start) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let folder = tempfile::tempdir().unwrap();
            runtime.block_on(async {
                let speaker = Speaker::start(folder.path()).unwrap();
                speaker.set_config(config).unwrap();
                started.send(speaker).unwrap();
                ended.await.ok()
            })
        });
        (start.recv().unwrap(), end)
    }

    #[test]
    fn peers_announce_and_are_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let peer = |number: u8| {
            let (address, asn) = (Ipv4Addr::new(127, 0, 1, number), 64600 + u16::from(number));
            let own: Vec<_> =
                prefixes(0x14_0000 + 20 * u32::from(number), 20).collect::<Result<_>>().unwrap();
            // A loopback address is no next hop.
            let next_hop = Ipv4Addr::new(192, 0, 2, number);
            Peer { address, asn, updates: wire::announce(&own, &[asn.into()], next_hop) }
        };
        let peers: Vec<_> = (1..=3).map(peer).collect();
        let (speaker, _end) = mk_speaker(port, &peers);
        let generator = Generator::connect((Ipv4Addr::LOCALHOST, port).into(), peers, PATIENCE).unwrap();
        let start = generator.announce().unwrap();
        let received = || -> Vec<u64> {
            speaker.peers().peers.iter().flat_map(|it| &it.families).map(|it| it.received).collect()
        };
        while received() != [20, 20, 20] {
            assert!(start.elapsed() < PATIENCE, "{:?}", speaker.peers());
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(speaker.import().len(), 60);
        let own: Vec<_> = prefixes(0x1E_0000, 7).collect::<Result<_>>().unwrap();
        generator.expect(7);
        speaker.set_routes(ours::routes(&own));
        let told = generator.told().unwrap();
        assert!(told.first <= told.last);
        generator.check().unwrap();
    }
}
