//! Passwords of sessions: out of Secrets that the plan names, each read once in each version, and kept on disk, so that a restart
//! without an API server resets no session.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cilium_api::bgp::BgpSecret;
use cilium_rest::bgp::Password;
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::Line;
use crate::backoff::Backoff;

/// The entry of a Secret that is meant.
const ENTRY: &str = "password";
/// Longest key of TCP-MD5 that the kernel takes, in bytes.
const LONGEST: usize = 80;

/// Secrets that are wanted, each with its version.
pub(super) type Wanted = BTreeSet<(String, String)>;

/// What was read, by name of the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Passwords(BTreeMap<String, Read>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Read {
    version: String,
    password: Password,
}

impl Passwords {
    /// The password of a Secret, of an older version if the one that is asked for has not been read.
    pub(super) fn get(&self, secret: &BgpSecret) -> Result<Password, String> {
        let name = &secret.name;
        if secret.version.is_none() {
            return Err(format!("Secret {name} is not there"));
        }
        let read = self.0.get(name).ok_or_else(|| format!("Secret {name} is not read yet"))?;
        Ok(read.password.clone())
    }

    pub(super) fn set(&mut self, name: &str, version: &str, password: &str) {
        let read = Read { version: version.to_owned(), password: Password(password.to_owned()) };
        self.0.insert(name.to_owned(), read);
    }

    fn has(&self, (name, version): &(String, String)) -> bool {
        self.0.get(name).is_some_and(|read| read.version == *version)
    }

    /// What is not asked for any more goes.
    fn retain(&mut self, wanted: &Wanted) {
        self.0.retain(|name, _| wanted.iter().any(|(other, _)| other == name));
    }

    /// What is on disk; nothing where that cannot be read, as it can be read again.
    pub(super) fn recall(file: &Path) -> Self {
        match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), %error, "passwords are read from the API server");
                Self::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "passwords are read from the API server");
                Self::default()
            }
        }
    }

    /// Nobody else may read it.
    fn keep(&self, file: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        let beside = file.with_added_extension("new");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            new.write_all(&bytes)?;
            fs::rename(&beside, file)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Reads Secrets.
pub(crate) struct Reader {
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) namespace: String,
    pub(super) file: PathBuf,
    pub(super) line: Line,
}

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl Reader {
    /// Reads whatever is wanted and not there, until nobody wants anything.
    pub(crate) async fn run(mut self, client: oneshot::Receiver<Client>) {
        let Ok(client) = client.await else { return };
        let mut passwords = Passwords::recall(&self.file);
        let mut backoff = Backoff::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let before = passwords.clone();
            passwords.retain(&wanted);
            let failures = self.read_missing(&client, &wanted, &mut passwords).await;
            if passwords != before
                && let Err(error) = passwords.keep(&self.file)
            {
                tracing::error!(error = format!("{error:#}"), "a restart will need the API server");
            }
            self.line.set_passwords(passwords.clone(), failures.clone());
            let pause = if failures.is_empty() {
                backoff.succeeded();
                std::time::Duration::MAX
            } else {
                backoff.pause()
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Why a Secret could not be read, by its name.
    async fn read_missing(
        &self,
        client: &Client,
        wanted: &Wanted,
        passwords: &mut Passwords,
    ) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        for secret in wanted {
            if passwords.has(secret) {
                continue;
            }
            let (name, version) = secret;
            match self.read(client, name).await {
                Ok((found, password)) => {
                    // A newer one than the plan knows of counts as what it names: it will name the newer one, too.
                    tracing::info!(secret = name, version, found, "the password of BGP sessions is read");
                    passwords.set(name, version, &password);
                }
                Err(error) => drop(failures.insert(name.clone(), format!("{error:#}"))),
            }
        }
        failures
    }

    async fn read(&self, client: &Client, name: &str) -> anyhow::Result<(String, String)> {
        let namespace = &self.namespace;
        let what = || format!("Secret {namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let request = hyper::Request::get(path).body(Vec::new())?;
        let secret: Secret = client.request(request).await.with_context(what)?;
        let text = secret.data.get(ENTRY).with_context(|| format!("{} has no entry {ENTRY}", what()))?;
        let password = decode(text).with_context(what)?;
        Ok((secret.metadata.resource_version, password))
    }
}

fn decode(text: &str) -> anyhow::Result<String> {
    let bytes = STANDARD.decode(text).map_err(|_| anyhow::anyhow!("{ENTRY} is not base64"))?;
    let password = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{ENTRY} is not UTF-8"))?;
    anyhow::ensure!(!password.is_empty(), "{ENTRY} is empty");
    anyhow::ensure!(password.len() <= LONGEST, "{ENTRY} is longer than {LONGEST} bytes");
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwords_outlive_the_process_and_are_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secrets");
        assert_eq!(Passwords::recall(&file), Passwords::default());
        let mut passwords = Passwords::default();
        passwords.set("a", "1", "x");
        passwords.set("b", "2", "y");
        passwords.keep(&file).expect("is kept");
        assert_eq!(fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Passwords::recall(&file), passwords);
        passwords.retain(&[("b".to_owned(), "3".to_owned())].into());
        assert!(passwords.has(&("b".to_owned(), "2".to_owned())));
        assert!(!passwords.has(&("b".to_owned(), "3".to_owned())) && passwords.0.len() == 1);
        fs::write(&file, "{").expect("writes");
        assert_eq!(Passwords::recall(&file), Passwords::default());
    }

    #[test]
    fn a_password_is_what_the_kernel_takes() {
        let of = |password: &str| decode(&STANDARD.encode(password)).map_err(|error| error.to_string());
        assert_eq!(of("s3cret"), Ok("s3cret".to_owned()));
        assert_eq!(of(""), Err("password is empty".to_owned()));
        assert_eq!(of(&"x".repeat(81)), Err("password is longer than 80 bytes".to_owned()));
        assert_eq!(decode("!").map_err(|error| error.to_string()), Err("password is not base64".to_owned()));
    }
}
