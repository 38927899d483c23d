//! Sockets that a Service has led to a backend that is gone: their programs are told, and can connect anew at once. Without that a
//! TCP connection hangs on retransmissions, and a connected UDP socket talks into the void. A UDP socket that is not connected gets
//! another backend when it sends the next time, and needs nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cilium_bpf::layout::{Addr, NetPort, SockRevnatKey};
use cilium_delta::Table as _;
use cilium_drivers::maps::{self, Maps};
use cilium_drivers::netlink::{Connected, Error, Sockets, Transport};
use cilium_drivers::netns::{self, Netns};
use tokio::task::JoinHandle;

use crate::watch::chain;

/// What could not be done, by object.
type Failures = BTreeMap<String, String>;

/// Who tells. There is one task at a time, for all addresses that went meanwhile: to enter namespaces and to list sockets takes time.
#[derive(Default)]
pub(crate) struct Teller {
    /// Addresses that were somebody's.
    gone: HashSet<Addr>,
    task: Option<JoinHandle<()>>,
    /// Of the last time.
    failures: Arc<Mutex<Failures>>,
}

impl Teller {
    /// Takes addresses that stand for somebody else now, or for nobody.
    pub(crate) fn add(&mut self, addresses: &[Addr]) {
        self.gone.extend(addresses);
    }

    /// There is something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.gone.is_empty()
    }

    /// The task before is still at it.
    pub(crate) fn is_busy(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Starts to tell sockets in the node's network namespace and in `namespaces`. Addresses of which `is_nobodys` does not hold are
    /// left out: their pod lives, with other labels, or the next pod answers for itself.
    pub(crate) fn start(
        &mut self,
        bpffs: &Path,
        namespaces: BTreeSet<String>,
        is_nobodys: impl Fn(&Addr) -> bool,
    ) {
        let gone: HashSet<Addr> = std::mem::take(&mut self.gone).into_iter().filter(is_nobodys).collect();
        if gone.is_empty() {
            return;
        }
        let (bpffs, known) = (bpffs.to_owned(), self.failures.clone());
        self.task = Some(tokio::task::spawn_blocking(move || {
            let mut failures = Failures::new();
            match tell(&bpffs, &gone, &namespaces, &mut failures) {
                Ok(0) => tracing::debug!(addresses = gone.len(), "no socket is connected to what is gone"),
                Ok(told) => {
                    tracing::info!(told, addresses = gone.len(), "told sockets whose backend is gone");
                }
                Err(error) => drop(failures.insert("map cilium_sock_revnat".to_owned(), chain(&error))),
            }
            report(&known, failures);
        }));
    }
}

/// Says each failure once, until it is over.
fn report(known: &Mutex<Failures>, failures: Failures) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    for (object, error) in &failures {
        if !known.contains_key(object) {
            tracing::error!(object, error, "sockets are not told that their backend is gone; they time out");
        }
    }
    *known = failures;
}

/// Destroys the sockets that a Service has led to these addresses, and forgets that it did. Returns how many there were.
///
/// Usually the map names none, and that is all. One pass over the map serves all addresses, one over a namespace's sockets of each
/// kind all that are looked for. What goes wrong in one namespace holds up no other.
fn tell(
    bpffs: &Path,
    gone: &HashSet<Addr>,
    namespaces: &BTreeSet<String>,
    failures: &mut Failures,
) -> Result<usize, maps::Error> {
    let mut map = Maps::open(bpffs)?.sock_revnat;
    let led = map.keys(|key| gone.contains(&key.backend))?;
    let mut search = Search { left: led.iter().copied().collect(), told: 0 };
    let places = std::iter::once(None).chain(namespaces.iter().map(|path| Some(path.as_str())));
    for place in places {
        if search.left.is_empty() {
            break;
        }
        if let Err(error) = search.visit(place)
            && let Some((object, message)) = explain(place, &error)
        {
            failures.insert(object, message);
        }
    }
    for key in &led {
        map.delete(key)?;
    }
    Ok(search.told)
}

/// What is looked for. Most of it is not there any more: nobody tells when a socket is closed.
struct Search {
    left: HashSet<SockRevnatKey>,
    told: usize,
}

impl Search {
    /// Looks in one network namespace, or in the node's own.
    fn visit(&mut self, place: Option<&str>) -> Result<(), Error> {
        let mut sockets = match place {
            Some(path) => Sockets::open_in(&Netns::open(path)?)?,
            None => Sockets::open()?,
        };
        for transport in Transport::ALL {
            let found = sockets.connected(transport, |socket| self.left.contains(&key_of(socket)))?;
            self.destroy(&mut sockets, &found)?;
        }
        Ok(())
    }

    /// Goes on after a failure, and returns the first.
    fn destroy(&mut self, sockets: &mut Sockets, found: &[Connected]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for socket in found {
            match sockets.destroy(socket) {
                Ok(was_there) => {
                    self.left.remove(&key_of(socket));
                    self.told += usize::from(was_there);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }
}

/// Where the map would have a socket: both its peer and its cookie must be the same.
fn key_of(socket: &Connected) -> SockRevnatKey {
    let (backend, port) = (socket.peer.ip().into(), NetPort(socket.peer.port()));
    SockRevnatKey { cookie: socket.cookie, backend, port }
}

/// What is wrong with what, and what to do; `None` for a pod that went meanwhile. All pods have the same trouble, and it is said once.
fn explain(place: Option<&str>, error: &Error) -> Option<(String, String)> {
    let text = chain(error);
    if error.is_unsupported() {
        return Some(("kernel".to_owned(), format!("{text}: it needs CONFIG_INET_DIAG_DESTROY")));
    }
    if matches!(error, Error::ReadSockets { .. }) {
        let hint = "does it have CONFIG_INET_DIAG and CONFIG_INET_UDP_DIAG?";
        return Some(("kernel".to_owned(), format!("{text}: {hint}")));
    }
    let Some(path) = place else { return Some(("sockets of the node".to_owned(), text)) };
    let directory = Path::new(path).parent().unwrap_or_else(|| Path::new("/"));
    if is_not_found(error) && directory.exists() {
        tracing::debug!(path, "a pod went before its sockets were looked at");
        return None;
    }
    let hint = match error {
        Error::Netns(_) => format!(
            ": mount the node's {} into the agent's container, with mountPropagation HostToContainer",
            directory.display()
        ),
        _ => String::new(),
    };
    Some((format!("sockets of pods in {}", directory.display()), format!("{text}{hint}")))
}

fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Netns(netns::Error::Open { source, .. }) if source.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_with_namespaces_says_what_to_mount_and_pods_that_went_are_none() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let open = |path: &str| Error::from(Netns::open(path).expect_err("is not there"));
        let gone = dir.path().join("cni-1").display().to_string();
        assert_eq!(explain(Some(&gone), &open(&gone)), None);
        let (object, message) = explain(Some("/nowhere/cni-1"), &open("/nowhere/cni-1")).expect("a failure");
        assert_eq!(object, "sockets of pods in /nowhere");
        assert!(message.contains("/nowhere/cni-1") && message.contains("mountPropagation"), "{message}");
        let other = explain(Some("/nowhere/cni-2"), &open("/nowhere/cni-2")).expect("a failure");
        assert_eq!(other.0, object, "said once for all pods");
    }

    #[test]
    fn a_map_that_is_missing_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut failures = Failures::new();
        assert!(tell(dir.path(), &HashSet::new(), &BTreeSet::new(), &mut failures).is_err());
    }
}
