//! What all peers of the process have in common.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::export::{Changes, Table};
use crate::peer::unix_time;
use crate::rib::Paths;
use crate::session::Voice;

/// Changes that are remembered as bytes: peers in different groups change at the same time.
const SAID: usize = 8;

/// Prefixes that a peer may make known, unless somebody says otherwise: all that there are in the Internet have room.
pub const MAX_PREFIXES: u64 = 2_000_000;

/// An idle task looks around that often.
const IDLE: Duration = Duration::from_secs(3600);

/// Bytes that one peer was told are told the next one.
#[derive(Debug)]
struct Said {
    old: Arc<Table>,
    new: Arc<Table>,
    is_anew: bool,
    voice: Voice,
    bytes: Bytes,
}

/// What all peers have in common.
#[derive(Debug)]
pub(crate) struct Common {
    start: Instant,
    /// The process began with what an earlier one had kept.
    pub(crate) is_restart: bool,
    generation: watch::Sender<u64>,
    paths: Mutex<Paths>,
    said: Mutex<VecDeque<Said>>,
    max_prefixes: AtomicU64,
}

impl Common {
    pub(crate) fn new(is_restart: bool) -> Self {
        // Another one than that of any earlier process.
        let (generation, _) = watch::channel(unix_time() << 20);
        let (paths, said) = (Mutex::default(), Mutex::default());
        let max_prefixes = AtomicU64::new(MAX_PREFIXES);
        Self { start: Instant::now(), is_restart, generation, paths, said, max_prefixes }
    }

    /// Prefixes of both families that a peer may make known.
    pub(crate) fn max_prefixes(&self) -> u64 {
        self.max_prefixes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_prefixes(&self, most: u64) {
        self.max_prefixes.store(most, Ordering::Relaxed);
    }

    /// Time since the process began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn instant(&self, time: Option<Duration>) -> Instant {
        self.start + time.unwrap_or_else(|| self.now() + IDLE)
    }

    /// Seconds since 1970.
    pub(crate) fn unix_time(&self) -> u64 {
        unix_time()
    }

    /// Something is to be seen that was not before.
    pub(crate) fn changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between three quarters and all of it.
    pub(crate) fn jitter(&self, time: Duration) -> Duration {
        let random = RandomState::new().build_hasher().finish() % 1024;
        time.mul_f64(0.75 + random as f64 / 4096.0)
    }

    /// From one table to the next, in bytes; made once for all peers that go the same way.
    pub(crate) fn say(
        &self,
        old: &Arc<Table>,
        new: &Arc<Table>,
        is_anew: bool,
        voice: Voice,
        encode: impl FnOnce(&Changes) -> Bytes,
    ) -> Bytes {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // Empty tables are made anew all the time.
        let is_one = |a: &Arc<Table>, b: &Arc<Table>| Arc::ptr_eq(a, b) || a.is_empty() && b.is_empty();
        let known = said.iter().find(|it| {
            it.is_anew == is_anew && it.voice == voice && is_one(&it.old, old) && is_one(&it.new, new)
        });
        if let Some(known) = known {
            return known.bytes.clone();
        }
        let bytes = encode(&Changes::between(old, new, is_anew));
        said.truncate(SAID - 1);
        said.push_front(Said { old: old.clone(), new: new.clone(), is_anew, voice, bytes: bytes.clone() });
        bytes
    }
}
