//! Telling everybody on the link that this node has an address now.

use std::net::IpAddr;

use crate::announcer::{Action, MILLISECOND, NEVER};

/// When it is told, counted from the moment at which this node begins to answer: frames get lost.
const AT: [u64; 3] = [0, 200 * MILLISECOND, 1000 * MILLISECOND];

/// How often it was told. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    since: u64,
    told: usize,
}

impl Telling {
    /// All is still to be told.
    pub(crate) fn new(now: u64) -> Self {
        Self { since: now, told: 0 }
    }

    /// Another agent has told it.
    pub(crate) fn done(now: u64) -> Self {
        Self { since: now, told: AT.len() }
    }

    /// Begins to answer, and to tell.
    pub(crate) fn start(address: IpAddr, now: u64, actions: &mut Vec<Action>) -> Self {
        actions.push(Action::Answer(address, true));
        let mut it = Self::new(now);
        it.follow(address, now, actions);
        it
    }

    /// When it began.
    pub(crate) fn since(self) -> u64 {
        self.since
    }

    /// When [`Telling::follow`] has something to do.
    pub(crate) fn deadline(self) -> u64 {
        AT.get(self.told).map_or(NEVER, |after| self.since + after)
    }

    /// Tells it once more if that is due.
    pub(crate) fn follow(&mut self, address: IpAddr, now: u64, actions: &mut Vec<Action>) {
        if self.deadline() <= now {
            self.told += 1;
            actions.push(Action::Announce(address));
        }
    }
}
