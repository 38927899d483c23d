//! The connection to the agent: rules come from it, what was learned goes to it.
//!
//! The agent may be away. Then what it said last counts, and what is learned meanwhile is told when it is back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cilium_names::Answer;
use cilium_rest::dns::{Counts, FromAgent, Learned};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use crate::counters::Counters;
use crate::known::Known;

/// Between two attempts to reach the agent.
const RETRY: Duration = Duration::from_millis(100);
/// Answers that wait for the agent; the oldest go first.
const MOST_WAITING: usize = 10_000;
/// What a name that was just learned counts as in force for, at least: the agent keeps it longer.
const AT_LEAST: Duration = Duration::from_secs(1);

/// Between two reports of what was counted.
const REPORT: Duration = Duration::from_secs(5);

/// Something that the agent does not have in force yet.
struct Waiting {
    /// On the present connection; 0: not sent.
    id: u64,
    name: String,
    addresses: Vec<IpAddr>,
    until: Instant,
    done: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Books {
    known: Known,
    waiting: VecDeque<Waiting>,
}

/// What is known of the agent's side.
#[derive(Clone)]
pub(crate) struct Agent {
    books: Arc<Mutex<Books>>,
    more: Arc<Notify>,
    /// The longest that an answer waits for the agent.
    patience: Duration,
    /// What this process counts.
    pub(crate) counters: Arc<Counters>,
}

impl Agent {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { books: Arc::default(), more: Arc::default(), patience, counters: Arc::default() }
    }

    fn books<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        work(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has an answer put in force, and returns when it is, or when patience ends.
    pub(crate) async fn learn(&self, name: &str, answer: &Answer) {
        if answer.addresses.is_empty() {
            return;
        }
        let now = Instant::now();
        let until = now + Duration::from_secs(answer.ttl.into());
        let covers = |at| self.books(|books| books.known.covers(name, &answer.addresses, at));
        // The agent keeps everything for longer than a second.
        if until.checked_sub(AT_LEAST).is_some_and(covers) {
            return;
        }
        let in_force = covers(now);
        let (done, wait) = oneshot::channel();
        let waiting = Waiting {
            id: 0,
            name: name.to_owned(),
            addresses: answer.addresses.clone(),
            until,
            done: (!in_force).then_some(done),
        };
        self.books(|books| {
            if books.waiting.len() >= MOST_WAITING {
                books.waiting.pop_front();
            }
            books.waiting.push_back(waiting);
        });
        self.more.notify_one();
        if !in_force && tokio::time::timeout(self.patience, wait).await.is_err() {
            self.counters.timeouts.add();
            tracing::debug!(name, "the agent does not answer; the addresses may not be reachable at first");
        }
    }

    /// Talks to the agent for ever. `take` gets what it says beside acknowledgements.
    pub(crate) async fn run(self, path: PathBuf, mut take: impl FnMut(FromAgent)) {
        let mut is_told = false;
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => {
                    tracing::info!("connected to the agent");
                    let Err(error) = self.talk(stream, &mut take).await;
                    tracing::warn!(%error, "the agent is gone; going on with what it said last");
                    is_told = true;
                }
                Err(error) if !is_told => {
                    tracing::warn!(%error, path = %path.display(), "no agent yet");
                    is_told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until the connection breaks.
    async fn talk(
        &self,
        stream: UnixStream,
        take: &mut impl FnMut(FromAgent),
    ) -> Result<Infallible, io::Error> {
        let (reader, writer) = stream.into_split();
        self.books(Books::start_over);
        self.more.notify_one();
        tokio::select! {
            ended = self.read(reader, take) => ended,
            ended = self.write(writer) => ended,
        }
    }

    async fn read(
        &self,
        reader: tokio::net::unix::OwnedReadHalf,
        take: &mut impl FnMut(FromAgent),
    ) -> Result<Infallible, io::Error> {
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            match serde_json::from_str(&line)? {
                FromAgent::InForce { id, forgotten } => {
                    self.books(|books| books.in_force(id, forgotten, Instant::now()));
                }
                other => take(other),
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    async fn write(&self, mut writer: tokio::net::unix::OwnedWriteHalf) -> Result<Infallible, io::Error> {
        let mut last = 0;
        // Nothing is known of the other side, so the first report is at once.
        let (mut told, mut ticks) = (None, tokio::time::interval(REPORT));
        loop {
            let text = tokio::select! {
                () = self.more.notified() => self.books(|books| books.unsent(&mut last, Instant::now()))?,
                _ = ticks.tick() => report(&mut told, self.counters.counts())?,
            };
            writer.write_all(&text).await?;
        }
    }
}

/// A line with what was counted, if that is another than what was told.
fn report(told: &mut Option<Counts>, counts: Counts) -> io::Result<Vec<u8>> {
    if told.as_ref() == Some(&counts) {
        return Ok(Vec::new());
    }
    let mut text = serde_json::to_vec(&counts)?;
    text.push(b'\n');
    *told = Some(counts);
    Ok(text)
}

impl Books {
    /// A new connection, perhaps to another agent, that may have lost its last words: it is told everything again.
    fn start_over(&mut self) {
        let now = Instant::now();
        self.waiting.iter_mut().for_each(|waiting| waiting.id = 0);
        for (name, addresses, left) in self.known.take(now) {
            self.waiting.push_back(Waiting { id: 0, name, addresses, until: now + left, done: None });
        }
    }

    /// Lines for everything that has not been sent on this connection.
    fn unsent(&mut self, last: &mut u64, now: Instant) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.id == 0) {
            *last += 1;
            waiting.id = *last;
            let left = waiting.until.saturating_duration_since(now).as_secs_f64().round();
            let learned = Learned {
                id: waiting.id,
                name: waiting.name.clone(),
                addresses: waiting.addresses.clone(),
                ttl: left as u32,
            };
            serde_json::to_writer(&mut text, &learned)?;
            text.push(b'\n');
        }
        Ok(text)
    }

    fn in_force(&mut self, id: u64, forgotten: bool, now: Instant) {
        if forgotten {
            self.known.clear();
        }
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| (1..=id).contains(&waiting.id)) {
            if !forgotten {
                self.known.insert(&waiting.name, &waiting.addresses, waiting.until.max(now + AT_LEAST));
            }
            if let Some(done) = waiting.done {
                // The client may have given up.
                let _gone = done.send(());
            }
        }
    }
}
