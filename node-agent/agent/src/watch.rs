//! The two watches: the node's own state, and the slices that concern it.

use std::pin::pin;

use cilium_api::node_slice::{CiliumNodeStateSlice, OWNER_LABEL, SHARED, owner_label};
use cilium_api::node_state::CiliumNodeState;
use cilium_state::{Event, Owner, Slice};
use futures::StreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::mpsc;

use crate::backoff::Backoff;

/// How many watches an agent holds.
pub(crate) const WATCHES: usize = 2;

/// What a watch tells.
pub(crate) enum Seen {
    /// Something changed.
    Event(Event),
    /// The connection works, or why it does not.
    Connection(&'static str, Result<(), String>),
}

/// Watches the node's own state until nobody listens.
pub(crate) async fn header(client: Client, node: String, sender: mpsc::Sender<Seen>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let mut listed = false;
    follow::<CiliumNodeState>("CiliumNodeState", Api::all(client), config, sender, |event| {
        let desired =
            |object: CiliumNodeState| Event::Header(object.status.and_then(|status| status.desired));
        match event {
            watcher::Event::Init => {
                listed = false;
                None
            }
            watcher::Event::InitApply(object) => {
                listed = true;
                Some(desired(object))
            }
            watcher::Event::InitDone => (!listed).then_some(Event::Header(None)),
            watcher::Event::Apply(object) => Some(desired(object)),
            watcher::Event::Delete(_) => Some(Event::Header(None)),
        }
    })
    .await;
}

/// Watches shared slices and those of the node until nobody listens.
pub(crate) async fn slices(client: Client, node: String, sender: mpsc::Sender<Seen>) {
    let labels = format!("{OWNER_LABEL} in ({SHARED},{})", owner_label(&node));
    let config = watcher::Config::default().labels(&labels);
    follow::<CiliumNodeStateSlice>("CiliumNodeStateSlice", Api::all(client), config, sender, |event| {
        Some(match event {
            watcher::Event::Init => Event::RelistStarted,
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => Event::Slice(reduce(object)),
            watcher::Event::InitDone => Event::RelistDone,
            watcher::Event::Delete(object) => Event::SliceGone(object.name_any()),
        })
    })
    .await;
}

fn reduce(object: CiliumNodeStateSlice) -> Slice {
    let owner = object.labels().get(OWNER_LABEL).map_or(Owner::Node, |label| Owner::from_label(label));
    Slice { name: object.name_any(), owner, spec: object.spec }
}

async fn follow<K>(
    kind: &'static str,
    api: Api<K>,
    config: watcher::Config,
    sender: mpsc::Sender<Seen>,
    mut reduce: impl FnMut(watcher::Event<K>) -> Option<Event>,
) where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let mut stream = pin!(watcher(api, config));
    let mut backoff = Backoff::new();
    let mut connected = false;
    while let Some(next) = stream.next().await {
        let sent = match next {
            Ok(event) => {
                // The first step of a list comes before the server was asked.
                let answered = !matches!(event, watcher::Event::Init);
                if answered {
                    backoff.succeeded();
                }
                let works = answered && !connected;
                connected |= works;
                let told = works.then_some(Seen::Connection(kind, Ok(())));
                let seen = told.into_iter().chain(reduce(event).map(Seen::Event));
                send_all(&sender, seen).await
            }
            Err(error) => {
                connected = false;
                let message = chain(&error);
                let told = send_all(&sender, [Seen::Connection(kind, Err(message))]).await;
                tokio::time::sleep(backoff.pause()).await;
                told
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn send_all(
    sender: &mpsc::Sender<Seen>,
    seen: impl IntoIterator<Item = Seen>,
) -> Result<(), mpsc::error::SendError<Seen>> {
    for seen in seen {
        sender.send(seen).await?;
    }
    Ok(())
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some of the client's errors repeat their source.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
