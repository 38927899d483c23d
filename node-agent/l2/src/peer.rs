//! Another owner of addresses, as seen on one device.

use cilium_bpf::layout::{HEARTBEAT_HEARS_YOU, LINK_ANSWERING, LINK_WILLING, PeerEntry};

use crate::announcer::{Action, MILLISECOND};
use crate::frame::node_number;

/// Between two requests to a peer that lives.
const ASK_EVERY: u64 = 100 * MILLISECOND;
/// Between two to one that does not answer.
const ASK_DEAD_EVERY: u64 = 200 * MILLISECOND;
/// So long after the last sign of it a peer is dead, if it was asked often enough.
pub(crate) const DEAD_AFTER: u64 = 500 * MILLISECOND;
/// Requests without an answer, of which the last may still be on its way.
const UNANSWERED: u32 = 4;
/// A request says that the peer was heard if that is not longer ago: with the 300 ms that the peer relies on it, less than `DEAD_AFTER`.
const HEARS_WITHIN: u64 = 180 * MILLISECOND;
/// Milliseconds after which peers take what a node has whose agent is away; the node itself stops a second before
/// (`AGENT_AWAY_AT_MOST` of the programs).
const AGENT_AWAY: u64 = 31_000;

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    number: u64,
    seen: PeerEntry,
    is_alive: bool,
    unanswered: u32,
    next_ask: u64,
    followed: u64,
}

impl Peer {
    pub(crate) fn new(name: &str, now: u64) -> Self {
        Self {
            number: node_number(name),
            seen: PeerEntry::default(),
            is_alive: false,
            unanswered: 0,
            next_ask: now,
            followed: 0,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The last time at which it is known to have lived; 0: never.
    fn heard(&self) -> u64 {
        self.seen.answered.max(self.seen.asked)
    }

    /// Takes what programs saw of it.
    pub(crate) fn follow(&mut self, seen: PeerEntry, now: u64) {
        if seen.answered != self.seen.answered || seen.asked != self.seen.asked {
            self.unanswered = 0;
        }
        self.seen = seen;
        self.followed = now;
        let is_recent = self.heard() > 0 && now.saturating_sub(self.heard()) < DEAD_AFTER;
        // An agent that was held up itself has not asked: that nobody answered says nothing then.
        self.is_alive = is_recent || (self.is_alive && self.unanswered < UNANSWERED);
    }

    pub(crate) fn was_heard_after(&self, time: u64) -> bool {
        self.heard() > time
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive
    }

    /// It answers for the addresses of which it is the first owner.
    pub(crate) fn is_willing(&self) -> bool {
        self.is_alive && self.seen.flags & LINK_WILLING != 0 && self.seen.agent_age < AGENT_AWAY
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.is_alive && self.seen.flags & LINK_ANSWERING != 0
    }

    pub(crate) fn is_at(&self, mac: [u8; 6]) -> bool {
        self.seen.mac == mac
    }

    /// When [`Peer::ask`] or [`Peer::follow`] has something to do.
    pub(crate) fn deadline(&self) -> u64 {
        let dies = self.heard() + DEAD_AFTER;
        if self.is_alive && dies > self.followed { self.next_ask.min(dies) } else { self.next_ask }
    }

    /// Makes the next request due.
    pub(crate) fn ask_at(&mut self, now: u64) {
        self.next_ask = now;
    }

    /// The request that is due. Where the peer was never heard, it is sought by other means.
    pub(crate) fn ask(&mut self, now: u64) -> Option<Action> {
        if now < self.next_ask {
            return None;
        }
        self.next_ask = now + if self.is_alive { ASK_EVERY } else { ASK_DEAD_EVERY };
        if self.seen.mac == [0; 6] {
            return None;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        let hears = self.seen.answered > 0 && now.saturating_sub(self.seen.answered) < HEARS_WITHIN;
        let flags = if hears { HEARTBEAT_HEARS_YOU } else { 0 };
        Some(Action::Ask { to: self.number, destination: self.seen.mac, flags })
    }
}
