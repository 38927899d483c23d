//! A connection with its bytes.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use cilium_rest::bgp::SessionState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::session::{Event, Session};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks that are read before others have their turn.
const CHUNKS: usize = 16;

/// A peer that takes nothing for so long is gone, whatever it says (RFC 9687, 6), or for twice the hold time if that is longer.
const STALLED: Duration = Duration::from_secs(480);

/// How long a peer may take for its OPEN until it is said that it is missing. The session waits for minutes (RFC 4271, 8.2.2).
const OVERDUE: Duration = Duration::from_secs(5);

/// How long a NOTIFICATION is given to arrive before the connection is cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Connection {
    pub(super) session: Session,
    /// Address of the node.
    pub(super) local: IpAddr,
    /// We opened it.
    pub(super) is_ours: bool,
    /// When it was opened.
    pub(super) since: Duration,
    /// It was established at some time.
    pub(super) is_established: bool,
    /// It was said that the peer's OPEN is missing.
    is_overdue: bool,
    stream: TcpStream,
    output: VecDeque<Bytes>,
    /// Since when the peer takes nothing.
    stalled: Option<Duration>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, session: Session, is_ours: bool, now: Duration) -> io::Result<Self> {
        let local = stream.local_addr()?.ip();
        let output = VecDeque::new();
        Ok(Self {
            session,
            local,
            is_ours,
            since: now,
            is_established: false,
            is_overdue: false,
            stream,
            output,
            stalled: None,
        })
    }

    pub(super) fn state(&self) -> SessionState {
        self.session.state()
    }

    /// All that was said is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.output.is_empty()
    }

    /// Waits until there is something to do; for ever where there is no connection.
    pub(super) async fn ready(this: Option<&Self>) {
        let Some(this) = this else { return std::future::pending().await };
        let interest =
            if this.output.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        // An error shows itself when it is read.
        drop(this.stream.ready(interest).await);
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.output.push_back(bytes);
        }
    }

    fn stall(&self) -> Option<Duration> {
        let hold = self.session.negotiated().map_or(0, |it| it.hold_time);
        Some(self.stalled? + STALLED.max(Duration::from_secs(2 * u64::from(hold))))
    }

    fn overdue(&self) -> Option<Duration> {
        let waits = self.state() == SessionState::OpenSent && !self.is_overdue;
        waits.then_some(self.since + OVERDUE)
    }

    /// Whether the peer's OPEN is missing, once.
    pub(super) fn becomes_overdue(&mut self, now: Duration) -> bool {
        let becomes = self.overdue().is_some_and(|at| at <= now);
        self.is_overdue |= becomes;
        becomes
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.session.deadline().into_iter().chain(self.stall()).chain(self.overdue()).min()
    }

    pub(super) fn advance(&mut self, now: Duration, events: &mut Vec<Event>) {
        if self.session.deadline().is_some_and(|at| at <= now) {
            // A process that got no processor for long is late itself: what came meanwhile counts.
            self.read(now, events);
        }
        self.session.advance(now, events);
        if self.stall().is_some_and(|at| at <= now) {
            self.session.lost("the peer takes no bytes (send hold timer expired)".to_owned(), now, events);
        }
    }

    pub(super) fn read(&mut self, now: Duration, events: &mut Vec<Event>) {
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS {
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return self.session.lost("the peer closed the connection".to_owned(), now, events),
                Ok(length) => {
                    self.session.receive(&chunk[..length], now, events);
                    if length < CHUNK {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    return self.session.lost(format!("the connection broke: {error}"), now, events);
                }
            }
        }
    }

    pub(super) fn write(&mut self, now: Duration, events: &mut Vec<Event>) {
        while let Some(bytes) = self.output.front_mut() {
            match self.stream.try_write(bytes) {
                Ok(length) => {
                    self.stalled = None;
                    bytes.advance(length);
                    if bytes.is_empty() {
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert(now);
                    return;
                }
                Err(error) => {
                    self.output.clear();
                    self.session.lost(format!("the connection broke: {error}"), now, events);
                }
            }
        }
    }

    /// Closes it; with `says_so`, once what was said has had its time to arrive: a connection that is closed with bytes unread is
    /// cut, and the peer's kernel forgets what it did not read yet.
    pub(super) fn finish(mut self, says_so: bool) -> Option<JoinHandle<()>> {
        let farewell = async move {
            for bytes in &self.output {
                if self.stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            let is_shut = self.stream.shutdown().await.is_ok();
            let mut rest = [0; 1024];
            while is_shut && matches!(self.stream.read(&mut rest).await, Ok(length) if length > 0) {}
        };
        says_so.then(|| {
            tokio::spawn(async move {
                // Late or not, the connection is closed now.
                drop(tokio::time::timeout(FAREWELL, farewell).await);
            })
        })
    }
}
