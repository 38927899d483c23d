//! What others may know of a peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cilium_rest::bgp::{BfdState, Family, SessionState};

use crate::export::Table;
use crate::rib::AdjIn;
use crate::session::{Negotiated, Voice};

/// What a peer was told of a family.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) table: Arc<Table>,
    /// `None`: there is no next hop, so it was told nothing.
    pub(crate) voice: Option<Voice>,
}

/// What is known now.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) state: SessionState,
    /// When it was reached, in seconds since 1970.
    pub(crate) since: u64,
    pub(crate) established_count: u64,
    /// While established.
    pub(crate) negotiated: Option<Arc<Negotiated>>,
    pub(crate) reason: Option<String>,
    pub(crate) bfd: Option<BfdState>,
    /// What keeps BFD from working.
    pub(crate) bfd_problem: Option<String>,
    pub(crate) routes: AdjIn,
    pub(crate) sent: BTreeMap<Family, Sent>,
}

impl Known {
    pub(crate) fn counts(&self) -> [u64; 2] {
        [Family::Ipv4, Family::Ipv6].map(|family| self.routes.count(family))
    }
}

/// The same, shared.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<Known>);

impl Status {
    pub(crate) fn new(since: u64, established_count: u64) -> Self {
        Self(Mutex::new(Known { since, established_count, ..Known::default() }))
    }

    /// Does something with it. Never waits for long: nobody holds it over an await.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn established_count(&self) -> u64 {
        self.change(|it| it.established_count)
    }

    pub(super) fn sent(&self, family: Family) -> Option<Sent> {
        self.change(|it| it.sent.get(&family).cloned())
    }

    /// Whether that is another number of prefixes, or another reason why there are none.
    pub(super) fn set_sent(&self, family: Family, sent: Sent) -> bool {
        self.change(|it| {
            let (count, has_voice) = (sent.table.len(), sent.voice.is_some());
            let before = it.sent.insert(family, sent);
            before.is_none_or(|before| before.table.len() != count || before.voice.is_some() != has_voice)
        })
    }

    pub(super) fn set_state(&self, state: SessionState) -> bool {
        self.change(|it| {
            let is_new = it.state != state;
            if is_new {
                it.state = state;
                it.since = unix_time();
            }
            is_new
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
