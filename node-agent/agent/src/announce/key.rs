//! The key of heartbeats: the operator makes a Secret of it once. It is kept on disk, so that a restart needs no API server.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cilium_api::l2_announcement_policy::{HEARTBEAT_ENTRY as ENTRY, HEARTBEAT_SECRET as SECRET};
use kube::Client;
use serde::Deserialize;

use super::{Key, Line};
use crate::backoff::Backoff;

/// As far as it is read.
#[derive(Deserialize)]
struct Secret {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// Gives the key that is on disk, if there is one.
pub(crate) fn recall(file: &Path, line: &Line) {
    match fs::read(file) {
        Ok(bytes) => match <Key>::try_from(bytes.as_slice()) {
            Ok(key) => line.set_key(key),
            Err(_) => {
                tracing::warn!(file = %file.display(), "this is no key; it is read from the API server");
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(file = %file.display(), %error, "the key is read from the API server"),
    }
}

/// Reads the Secret, once it is there.
pub(crate) async fn fetch(client: Client, namespace: String, file: PathBuf, line: Line) {
    let mut backoff = Backoff::new();
    let mut has_failed = false;
    loop {
        match read(&client, &namespace).await {
            Ok(key) => {
                line.set_key(key);
                if let Err(error) = keep(&file, &key) {
                    tracing::error!(error = format!("{error:#}"), "a restart will need the API server");
                }
                return;
            }
            Err(error) if !has_failed => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the key of heartbeats cannot be read; trying until it can"
                );
                has_failed = true;
            }
            Err(error) => tracing::debug!(error = format!("{error:#}"), "the key cannot be read yet"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn read(client: &Client, namespace: &str) -> anyhow::Result<Key> {
    let what = || format!("Secret {namespace}/{SECRET}");
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{SECRET}");
    let request = hyper::Request::get(path).body(Vec::new())?;
    let secret: Secret = client.request(request).await.with_context(what)?;
    let text = secret.data.get(ENTRY).with_context(|| format!("{} has no entry {ENTRY}", what()))?;
    let bytes = STANDARD.decode(text).with_context(what)?;
    let length = bytes.len();
    Key::try_from(bytes).ok().with_context(|| format!("{}: {ENTRY} has {length} bytes: delete it", what()))
}

/// Nobody else may read it.
fn keep(file: &Path, key: &Key) -> anyhow::Result<()> {
    let beside = file.with_added_extension("new");
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(key)?;
        fs::rename(&beside, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::mpsc;

    use super::super::Message;
    use super::*;

    #[test]
    fn a_key_outlives_the_process_and_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("key");
        let (sender, receiver) = mpsc::channel();
        let line = Line(Some(sender));
        recall(&file, &line);
        fs::write(&file, "short").expect("writes");
        recall(&file, &line);
        assert!(receiver.try_recv().is_err(), "neither is a key");
        keep(&file, &[7; 16]).expect("is kept");
        let mode = fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        recall(&file, &line);
        assert!(matches!(receiver.try_recv(), Ok(Message::Key(key)) if key == [7; 16]));
    }
}
