//! What programs tell about packets: drops and policy verdicts, from the ring buffer.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use cilium_bpf::layout::{Event, Layout};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use crate::{maps::DIRECTORY, sys};

/// Why events cannot be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The ring is not there or not accessible.
    #[error("cannot open the event ring {path}")]
    Open {
        /// The pin.
        path: PathBuf,
        /// What aya said.
        source: MapError,
    },
    /// The runtime cannot wait for the ring.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

/// The reading end of `cilium_events`. The ring has one reader: what one takes, no other sees.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Opens the ring that is pinned below `bpffs`. Programs send only what the map `cilium_event_mask` asks for.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Wait`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        let path = bpffs.join(DIRECTORY).join("cilium_events");
        let ring = MapData::from_pin(&path).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        let ring = ring.map_err(|source| Error::Open { path, source })?;
        Ok(Self { ring: sys::watch_ring(ring).map_err(Error::Wait)? })
    }

    /// The next event; waits until there is one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Wait`].
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            let mut guard = self.ring.readable_mut().await.map_err(Error::Wait)?;
            guard.clear_ready();
        }
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let record = self.ring.get_mut().next()?;
            if record.len() >= Event::SIZE {
                return Some(Event::read(&record));
            }
            tracing::warn!(bytes = record.len(), "a record in the event ring is too short; skipped");
        }
    }
}
