//! Drops and verdicts for those who listen. While nobody does, programs send nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use cilium_bpf::layout::{EVENT_MASK_DROP, EVENT_MASK_VERDICT, Event};
use cilium_delta::Table as _;
use cilium_drivers::events::Events;
use cilium_drivers::maps::Map;
use tokio::sync::mpsc;

use crate::run::Handle;

/// Takes lines; one that does not keep up loses the newest.
pub(crate) type Listener = mpsc::Sender<Bytes>;

/// Events that are put in words at once.
const BATCH: usize = 256;

/// How often listeners that are gone are noticed while there are no events.
const LOOK_ROUND: Duration = Duration::from_secs(1);

/// Serves listeners until no more can come.
pub(crate) async fn run(bpffs: PathBuf, handle: Handle, mut arrivals: mpsc::Receiver<Listener>) {
    while let Some(first) = arrivals.recv().await {
        if let Err(error) = listen(&bpffs, &handle, &mut arrivals, first).await {
            tracing::error!(error = format!("{error:#}"), "events cannot be read");
        }
        if let Err(error) = set_mask(&bpffs, 0) {
            tracing::warn!(error = format!("{error:#}"), "programs go on sending events");
        }
    }
}

/// Serves listeners until all of them are gone.
async fn listen(
    bpffs: &Path,
    handle: &Handle,
    arrivals: &mut mpsc::Receiver<Listener>,
    first: Listener,
) -> anyhow::Result<()> {
    let mut listeners = vec![first];
    let mut events = Events::open(bpffs)?;
    // What lies in the ring is from an earlier listener.
    while events.take().is_some() {}
    set_mask(bpffs, EVENT_MASK_DROP | EVENT_MASK_VERDICT)?;
    while !listeners.is_empty() {
        tokio::select! {
            Some(listener) = arrivals.recv() => listeners.push(listener),
            event = events.next() => {
                let mut batch = vec![event?];
                batch.extend(std::iter::from_fn(|| events.take()).take(BATCH - 1));
                tell(handle, &listeners, batch).await?;
            }
            () = tokio::time::sleep(LOOK_ROUND) => {}
        }
        listeners.retain(|listener| !listener.is_closed());
    }
    Ok(())
}

async fn tell(handle: &Handle, listeners: &[Listener], batch: Vec<Event>) -> anyhow::Result<()> {
    let told =
        handle.ask(move |brain| batch.iter().map(|event| brain.describe(event)).collect::<Vec<_>>()).await?;
    for event in told {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        let line = Bytes::from(line);
        for listener in listeners {
            if let Err(mpsc::error::TrySendError::Full(_)) = listener.try_send(line.clone()) {
                tracing::debug!("a listener does not keep up and loses an event");
            }
        }
    }
    Ok(())
}

fn set_mask(bpffs: &Path, mask: u32) -> anyhow::Result<()> {
    let path = bpffs.join("maps").join("cilium_event_mask");
    let mut map = Map::<u32, u32>::open(&path)?;
    map.set(&0, &mask).context("the event mask cannot be set")
}
