//! The DNS proxy's end of the agent: tells it rules, hears what it learned.

use std::io;

use cilium_rest::dns::{Counts, FromAgent, FromProxy, Learned, Rules};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::run::Handle;

/// Messages that are put in force together at most.
const BATCH: usize = 256;

/// Takes connections for ever.
pub(crate) async fn serve(listener: UnixListener, handle: Handle, rules: watch::Receiver<Rules>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handle, rules) = (handle.clone(), rules.clone());
                tokio::spawn(async move {
                    if let Err(error) = talk(stream, handle, rules).await {
                        tracing::debug!(%error, "the DNS proxy is gone");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "the DNS proxy cannot connect");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, handle: Handle, mut rules: watch::Receiver<Rules>) -> io::Result<()> {
    tracing::info!("the DNS proxy is there");
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader);
    // Rules of a node that is not set up yet would be none; the proxy has those of before.
    rules.mark_unchanged();
    let first = rules.borrow().clone();
    if first != Rules::default() {
        say(&mut writer, &FromAgent::Rules(first)).await?;
    }
    let mut line = Vec::new();
    loop {
        tokio::select! {
            changed = rules.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = rules.borrow_and_update().clone();
                say(&mut writer, &FromAgent::Rules(now)).await?;
            }
            // Half a line stays in `line` when something else comes first.
            read = lines.read_until(b'\n', &mut line) => {
                if read? == 0 {
                    return Ok(());
                }
                let (learned, counts) = sorted(batch(&mut lines, &mut line).await?);
                if let Some(counts) = counts {
                    handle.ask(move |brain| brain.take_dns_counts(counts)).await.map_err(io::Error::other)?;
                }
                let Some(id) = learned.last().map(|learned| learned.id) else { continue };
                let forgotten = handle.ask(move |brain| brain.learn(&learned)).await.map_err(io::Error::other)?;
                say(&mut writer, &FromAgent::InForce { id, forgotten }).await?;
            }
        }
    }
}

/// The line, and those that are there already.
async fn batch(lines: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<Vec<FromProxy>> {
    let mut all = vec![serde_json::from_slice(line)?];
    line.clear();
    while all.len() < BATCH && lines.buffer().contains(&b'\n') {
        lines.read_until(b'\n', line).await?;
        all.push(serde_json::from_slice(line)?);
        line.clear();
    }
    Ok(all)
}

/// What was learned, in order, and the latest counts.
fn sorted(said: Vec<FromProxy>) -> (Vec<Learned>, Option<Counts>) {
    let (mut learned, mut latest) = (Vec::new(), None);
    for one in said {
        match one {
            FromProxy::Learned(one) => learned.push(one),
            FromProxy::Counts(counts) => latest = Some(counts),
        }
    }
    (learned, latest)
}

async fn say(writer: &mut tokio::net::unix::OwnedWriteHalf, said: &FromAgent) -> io::Result<()> {
    let mut text = serde_json::to_vec(said)?;
    text.push(b'\n');
    writer.write_all(&text).await
}
