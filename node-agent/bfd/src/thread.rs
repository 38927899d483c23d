//! The thread of all sessions, and the handle to it.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use cilium_drivers::turns;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::engine::{Change, Engine, Key};
use crate::session::Parameters;

/// What the thread asks for: before other work of the node, behind what keeps the kernel going.
const NICE: i32 = -15;

/// The sessions of the node. They end without a word when it is dropped, as if the process had ended.
#[derive(Debug)]
pub struct Bfd {
    wanted: watch::Sender<BTreeMap<Key, Parameters>>,
}

impl Bfd {
    /// Starts the thread, in the network namespace of the caller. A session that is set is down until a [`Change`] says otherwise.
    ///
    /// # Errors
    /// There are no more threads, or no more files for its runtime.
    pub fn start() -> io::Result<(Self, mpsc::UnboundedReceiver<Change>)> {
        let (wanted, receiver) = watch::channel(BTreeMap::new());
        let (changes, told) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            hasten();
            runtime.block_on(run(receiver, Engine::new(changes)));
        })?;
        Ok((Self { wanted }, told))
    }

    /// Has these sessions from now on, and no others. One whose parameters change stays up; one that goes says so to its neighbour
    /// (AdminDown), and is not told of any more.
    pub fn set(&self, sessions: BTreeMap<Key, Parameters>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != sessions;
            *wanted = sessions;
            is_new
        });
    }
}

fn hasten() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the thread of BFD gets no precedence");
    }
    if let Err(error) = turns::shorten() {
        tracing::debug!(%error, "the thread of BFD gets no short turns");
    }
}

async fn run(mut wanted: watch::Receiver<BTreeMap<Key, Parameters>>, mut engine: Engine) {
    let start = Instant::now();
    // Far enough away where nothing is to be done.
    let idle = Duration::from_secs(3600);
    loop {
        let deadline = start + engine.deadline().unwrap_or_else(|| start.elapsed() + idle);
        tokio::select! {
            biased;
            () = engine.wait() => {}
            _ = wanted.changed() => wanted.mark_changed(),
            () = sleep_until(deadline) => {}
        }
        let now = start.elapsed();
        // Asked here, because packets may come without a pause.
        match wanted.has_changed() {
            Ok(true) => engine.set(&wanted.borrow_and_update(), now),
            Ok(false) => {}
            Err(_) => return,
        }
        engine.turn(now);
    }
}
