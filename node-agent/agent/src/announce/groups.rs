//! Joins groups beside the thread: the kernel's lock of all network configuration may be somebody else's for a while.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use cilium_announcer::Mac;
use cilium_drivers::frames::Groups;
use cilium_drivers::netlink::Link;

use crate::watch::chain;

/// Who asks for an IPv6 address of Services asks at one of these.
pub(super) struct Members {
    wanted: mpsc::Sender<BTreeMap<Ipv6Addr, Mac>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Members {
    /// In no group yet.
    pub(super) fn new(device: &Link) -> std::io::Result<Self> {
        let (wanted, receiver) = mpsc::channel::<BTreeMap<Ipv6Addr, Mac>>();
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let (told, mut groups) = (failure.clone(), Groups::new(device));
        std::thread::Builder::new().name("groups".to_owned()).spawn(move || {
            while let Ok(mut latest) = receiver.recv() {
                latest = receiver.try_iter().last().unwrap_or(latest);
                let failed = groups.set(&latest).err().map(|error| chain(&error));
                if let Some(error) = &failed {
                    tracing::error!(error, "addresses of Services cannot all be asked for");
                }
                *told.lock().unwrap_or_else(PoisonError::into_inner) = failed;
            }
        })?;
        Ok(Self { wanted, failure })
    }

    /// Is in these groups soon, and in no other.
    pub(super) fn set(&self, groups: BTreeMap<Ipv6Addr, Mac>) {
        // The other thread ends with this one only.
        drop(self.wanted.send(groups));
    }

    /// Why a group was not joined.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
