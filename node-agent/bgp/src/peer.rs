//! One neighbour: a task that connects, is connected to, and keeps both sides' tables.

mod connection;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cilium_rest::bgp::{Bfd, Family, SessionState};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use self::connection::Connection;
pub(crate) use self::status::{Sent, Status, unix_time};
use crate::common::Common;
use crate::config::{Soft, Spec};
use crate::connect;
use crate::export::{Changes, Table};
use crate::retention::{Fate, Retention};
use crate::session::{Cease, End, Event, Negotiated, NextHop, Parameters, Session, Voice, end_of_rib};

/// A session that held for so long had no trouble: the next attempts come soon again.
const SOUND: Duration = Duration::from_secs(30);

/// The first pause between two attempts; each further one is twice as long, up to what is configured.
const SOON: Duration = Duration::from_secs(1);

/// What BFD of a peer may take longer than we count on.
const MARGIN: Duration = Duration::from_millis(500);

/// How long after its start the speaker says nothing to a peer, by BFD or by BGP, and longer than this never. The peer may have had BFD
/// with the process before this one: it has to miss that one while it keeps our routes (RFC 4724), not when there is a new session.
pub(crate) fn quiet(bfd: Bfd) -> Duration {
    let interval = Duration::from_millis(bfd.transmit.max(bfd.receive).into());
    (interval * u32::from(bfd.multiplier) + MARGIN).min(Duration::from_secs(5))
}

/// What a peer shall be told, and what else changes without a new session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) soft: Soft,
    /// By family, and whether the peer is in our AS; both where only its OPEN will say.
    pub(crate) tables: BTreeMap<(Family, bool), Arc<Table>>,
    /// The prefixes were told. Until then, nothing is said, and no end of it.
    pub(crate) is_known: bool,
}

/// What happens to a peer.
#[derive(Debug)]
pub(crate) enum Message {
    /// It connected.
    Incoming(TcpStream),
    /// BFD lost it.
    BfdDown,
    /// The task ends, after a NOTIFICATION, or without a word where the peer agreed on graceful restart.
    Stop(Cease),
    /// The process ends.
    Shutdown,
}

/// Slot of the connection that we opened.
const OURS: usize = 0;
/// Slot of the one that the peer opened.
const THEIRS: usize = 1;

type Attempt = Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send>>;

/// The task.
pub(crate) struct Task {
    common: Arc<Common>,
    spec: Spec,
    status: Arc<Status>,
    orders: watch::Receiver<Arc<Orders>>,
    messages: mpsc::UnboundedReceiver<Message>,
    connections: [Option<Connection>; 2],
    attempt: Option<Attempt>,
    next_attempt: Duration,
    failures: u32,
    established_at: Duration,
    retention: Retention,
    refresh: BTreeSet<Family>,
    events: VecDeque<(usize, Event)>,
}

impl Task {
    /// A task that begins after a pause.
    pub(crate) fn new(
        common: Arc<Common>,
        spec: Spec,
        status: Arc<Status>,
        orders: watch::Receiver<Arc<Orders>>,
        messages: mpsc::UnboundedReceiver<Message>,
        pause: Duration,
    ) -> Self {
        let next_attempt = common.now() + pause;
        Self {
            common,
            spec,
            status,
            orders,
            messages,
            connections: [None, None],
            attempt: None,
            next_attempt,
            failures: 0,
            established_at: Duration::ZERO,
            retention: Retention::default(),
            refresh: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Runs until it is stopped.
    pub(crate) async fn run(mut self) {
        loop {
            self.advance();
            self.settle();
            let deadline = self.common.instant(self.deadline());
            let Self { messages, orders, attempt, connections: [ours, theirs], .. } = &mut self;
            tokio::select! {
                message = messages.recv() => {
                    let stop = match message {
                        Some(Message::Incoming(stream)) => { self.incoming(stream); None }
                        Some(Message::BfdDown) => { self.cease(Cease::BfdDown, "BFD says the peer is gone"); None }
                        Some(Message::Stop(cease)) => Some((cease, false)),
                        Some(Message::Shutdown) => Some((Cease::Shutdown, true)),
                        None => return,
                    };
                    if let Some((cease, is_shutdown)) = stop {
                        return self.stop(cease, is_shutdown).await;
                    }
                }
                Ok(()) = orders.changed() => {}
                result = pending_attempt(attempt) => {
                    self.attempt = None;
                    self.attempted(result);
                }
                () = Connection::ready(ours.as_ref()) => self.exchange(OURS),
                () = Connection::ready(theirs.as_ref()) => self.exchange(THEIRS),
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let attempt = self.may_attempt().then_some(self.next_attempt.max(self.quiet()));
        let sessions = self.connections.iter().flatten().filter_map(Connection::deadline);
        sessions.chain(attempt).chain(self.retention.deadline()).min()
    }

    fn may_attempt(&self) -> bool {
        !self.spec.passive && self.attempt.is_none() && self.connections.iter().all(Option::is_none)
    }

    /// Until when there are no sessions.
    fn quiet(&self) -> Duration {
        self.orders.borrow().soft.bfd.map_or(Duration::ZERO, quiet)
    }

    fn advance(&mut self) {
        let now = self.common.now();
        for slot in [OURS, THEIRS] {
            if let Some(connection) = &mut self.connections[slot] {
                let mut events = Vec::new();
                connection.advance(now, &mut events);
                if connection.becomes_overdue(now) {
                    self.set_reason(Some(connect::silence(&self.spec)));
                }
                self.queue(slot, events);
            }
        }
        for fate in self.retention.advance(now) {
            self.status.change(|it| match fate {
                Fate::LongLived(family) => it.routes.mark_long_lived(family),
                Fate::Dropped(family) => it.routes.drop_stale(family),
            });
            self.common.changed();
        }
        if self.may_attempt() && self.next_attempt.max(self.quiet()) <= now {
            let retry = Duration::from_secs(self.orders.borrow().soft.connect_retry.into());
            self.attempt = Some(Box::pin(connect::connect(self.spec.clone(), retry)));
        }
    }

    /// Works off what happened, and says what is to be said.
    fn settle(&mut self) {
        loop {
            while let Some((slot, event)) = self.events.pop_front() {
                self.take(slot, event);
            }
            self.tell();
            for slot in [OURS, THEIRS] {
                let Some(connection) = &mut self.connections[slot] else { continue };
                let mut events = Vec::new();
                connection.write(self.common.now(), &mut events);
                self.queue(slot, events);
            }
            if self.events.is_empty() {
                break;
            }
        }
        self.show_state();
    }

    fn queue(&mut self, slot: usize, events: Vec<Event>) {
        self.events.extend(events.into_iter().map(|event| (slot, event)));
    }

    fn show_state(&self) {
        let session = self.connections.iter().flatten().map(Connection::state).max();
        let waiting = if self.attempt.is_some() { SessionState::Connect } else { SessionState::Active };
        if self.status.set_state(session.unwrap_or(waiting)) {
            self.common.changed();
        }
    }

    fn exchange(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let mut events = Vec::new();
        connection.read(self.common.now(), &mut events);
        self.queue(slot, events);
    }

    fn attempted(&mut self, result: Result<TcpStream, String>) {
        match result {
            Ok(stream) => self.begin(OURS, stream),
            Err(reason) => {
                tracing::debug!(peer = %self.spec.address, reason, "not connected");
                self.set_reason(Some(reason));
                self.schedule();
            }
        }
    }

    fn incoming(&mut self, stream: TcpStream) {
        if self.common.now() < self.quiet() {
            tracing::debug!(peer = %self.spec.address, "a connection is not taken yet");
            return;
        }
        if let Err(reason) = connect::adopt(&stream, &self.spec) {
            tracing::warn!(peer = %self.spec.address, reason, "a connection is not taken");
            if !self.connections.iter().flatten().any(|it| it.is_established) {
                self.set_reason(Some(reason));
            }
            return;
        }
        // The later one of two counts: the peer has given up the other.
        if let Some(connection) = &mut self.connections[THEIRS]
            && connection.state() != SessionState::Established
        {
            let mut events = Vec::new();
            connection.session.cease(Cease::Collision, "the peer connected again", &mut events);
            self.queue(THEIRS, events);
            self.settle();
        }
        // An established one of theirs moves out of the way until the peer's OPEN is there.
        let slot = match (&self.connections[OURS], &self.connections[THEIRS]) {
            (_, None) => THEIRS,
            (None, Some(_)) => OURS,
            (Some(_), Some(_)) => return,
        };
        self.begin(slot, stream);
        if let Some(connection) = &mut self.connections[slot] {
            connection.is_ours = false;
        }
    }

    fn begin(&mut self, slot: usize, stream: TcpStream) {
        if self.connections[slot].is_some() {
            return;
        }
        let now = self.common.now();
        let mut events = Vec::new();
        let session = Session::new(self.parameters(now), now, &mut events);
        match Connection::new(stream, session, slot == OURS, now) {
            Ok(connection) => {
                self.connections[slot] = Some(connection);
                self.queue(slot, events);
            }
            Err(error) => {
                self.set_reason(Some(format!("the connection is gone already: {error}")));
                self.schedule();
            }
        }
    }

    fn parameters(&self, now: Duration) -> Parameters {
        let spec = &self.spec;
        let is_first = self.status.established_count() == 0;
        let restart = Duration::from_secs(spec.restart_time.unwrap_or_default().into());
        Parameters {
            local_asn: spec.local_asn,
            router_id: spec.router_id,
            peer_asn: spec.asn,
            peer: spec.address,
            hold_time: spec.hold_time,
            keepalive: spec.keepalive,
            families: spec.families.clone(),
            restart_time: spec.restart_time,
            stale_time: spec.stale_time,
            is_restarting: self.common.is_restart && is_first && now < restart,
            is_forwarding: self.common.is_restart || !is_first,
        }
    }

    fn take(&mut self, slot: usize, event: Event) {
        let Some(connection) = &self.connections[slot] else { return };
        // What came in one piece with the OPEN of a connection that lost against another one.
        let is_over = connection.state() == SessionState::Idle;
        if is_over && !connection.is_established && matches!(event, Event::Established(_) | Event::Update(_))
        {
            return;
        }
        match event {
            Event::Send(bytes) => {
                if let Some(connection) = &mut self.connections[slot] {
                    connection.push(bytes);
                }
            }
            Event::Opened(id, asn) => self.resolve(slot, (id.into(), asn)),
            Event::Established(negotiated) => {
                if let Some(connection) = &mut self.connections[slot] {
                    connection.is_established = true;
                }
                self.established(&negotiated);
            }
            Event::Update(update) => self.update(update),
            Event::Refresh(family) => {
                self.refresh.insert(family);
            }
            Event::Closed(end) => self.closed(slot, end),
        }
    }

    /// Of two connections one stays (RFC 4271, 6.8; RFC 6286, 2.3).
    fn resolve(&mut self, slot: usize, peer: (u32, u32)) {
        let other = 1 - slot;
        let (Some(new), Some(old)) = (&self.connections[slot], &self.connections[other]) else { return };
        let local = (u32::from(self.spec.router_id), self.spec.local_asn);
        let loser = match old.state() {
            SessionState::Established => {
                let is_restart = old.session.negotiated().is_some_and(|it| it.restart.is_some());
                if is_restart && !new.is_ours && new.since > self.established_at { other } else { slot }
            }
            SessionState::OpenConfirm if new.is_ours == (local > peer) => other,
            SessionState::OpenConfirm => slot,
            _ => return,
        };
        let Some(connection) = &mut self.connections[loser] else { return };
        let mut events = Vec::new();
        if connection.is_established {
            // It restarted: its routes may stay (RFC 4724, 4.2).
            connection.session.abandon("the peer restarted, and connected again", &mut events);
        } else {
            connection.session.cease(
                Cease::Collision,
                "another connection with the peer was kept",
                &mut events,
            );
        }
        self.queue(loser, events);
    }

    fn established(&mut self, negotiated: &Arc<Negotiated>) {
        let now = self.common.now();
        self.established_at = now;
        self.refresh.clear();
        let gone = self.retention.back(negotiated, now);
        let reason = negotiated.missing(&self.spec.families);
        tracing::info!(peer = %self.spec.address, asn = negotiated.peer_asn, "the session is established");
        self.status.change(|it| {
            gone.iter().for_each(|family| it.routes.drop_stale(*family));
            it.negotiated = Some(negotiated.clone());
            it.established_count += 1;
            it.reason = reason;
        });
        self.common.changed();
    }

    fn update(&mut self, update: crate::session::Update) {
        if let Some(flaw) = &update.flaw {
            tracing::warn!(peer = %self.spec.address, flaw, "an UPDATE is malformed");
            self.set_reason(Some(format!("an UPDATE of the peer was malformed: {flaw}")));
        }
        if let Some(family) = update.end_of {
            if self.retention.is_complete(family) {
                self.status.change(|it| it.routes.drop_stale(family));
                self.common.changed();
            }
            return;
        }
        let (is_counted, count) = self.status.change(|it| {
            let before = it.counts();
            it.routes.apply(update, self.common.unix_time() as u32, &mut self.common.paths());
            let now = it.counts();
            (before != now, now.iter().sum::<u64>())
        });
        let most = self.common.max_prefixes();
        if count > most {
            self.cease(Cease::MaxPrefixes, &format!("the peer made more than {most} prefixes known"));
        }
        if is_counted || self.orders.borrow().soft.import {
            self.common.changed();
        }
    }

    fn closed(&mut self, slot: usize, end: End) {
        let Some(connection) = self.connections[slot].take() else { return };
        let was_established = connection.is_established;
        connection.finish(!end.is_silent);
        let is_other = self.connections.iter().any(Option::is_some);
        if was_established {
            self.ended(end);
        } else if !is_other {
            tracing::info!(peer = %self.spec.address, reason = end.reason, "no session");
            self.set_reason(Some(end.reason));
        }
        if !is_other {
            self.schedule();
        }
    }

    /// The session is over; its routes may stay for now.
    fn ended(&mut self, end: End) {
        let now = self.common.now();
        tracing::warn!(peer = %self.spec.address, reason = end.reason, "the session ended");
        if now > self.established_at + SOUND {
            self.failures = 0;
        }
        let retention = &mut self.retention;
        self.status.change(|it| {
            let stays = match it.negotiated.take().filter(|_| end.is_silent) {
                Some(negotiated) => retention.lost(&negotiated, now),
                None => Vec::new(),
            };
            if stays.is_empty() {
                retention.clear();
                it.routes.clear();
            } else {
                it.routes.mark_stale(&stays);
            }
            it.sent.clear();
            it.reason = Some(end.reason);
        });
        self.common.changed();
    }

    fn schedule(&mut self) {
        let longest = Duration::from_secs(self.orders.borrow().soft.connect_retry.into());
        let pause = SOON.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        self.next_attempt = self.common.now() + self.common.jitter(pause);
    }

    fn set_reason(&self, reason: Option<String>) {
        let is_new = self.status.change(|it| {
            let is_new = it.reason != reason;
            it.reason = reason;
            is_new
        });
        if is_new {
            self.common.changed();
        }
    }

    fn cease(&mut self, cease: Cease, reason: &str) {
        for slot in [OURS, THEIRS] {
            if let Some(connection) = &mut self.connections[slot] {
                let mut events = Vec::new();
                connection.session.cease(cease, reason, &mut events);
                self.queue(slot, events);
            }
        }
    }

    /// Says what the peer was not told yet, if it took what it was told before.
    fn tell(&mut self) {
        let orders = self.orders.borrow_and_update().clone();
        let established =
            self.connections.iter_mut().flatten().find(|it| it.state() == SessionState::Established);
        let Some(connection) = established.filter(|it| it.is_idle() && orders.is_known) else { return };
        let Some(negotiated) = connection.session.negotiated().cloned() else { return };
        let mut is_changed = false;
        let mut reasons: Vec<String> = negotiated.missing(&self.spec.families).into_iter().collect();
        for family in negotiated.families.iter().copied() {
            let voice = voice(&self.spec, &orders.soft, &negotiated, connection.local, family);
            if voice.is_none() {
                reasons.push(no_next_hop(family).to_owned());
            }
            let wanted = voice.and_then(|_| orders.tables.get(&(family, negotiated.is_internal)).cloned());
            let wanted = wanted.unwrap_or_default();
            let before = self.status.sent(family);
            let is_refresh = self.refresh.remove(&family);
            let is_same = |it: &Sent| it.voice == voice && Arc::ptr_eq(&it.table, &wanted);
            if before.as_ref().is_some_and(is_same) && !is_refresh {
                continue;
            }
            let old = before.as_ref().map(|it| it.table.clone()).unwrap_or_default();
            let is_anew = is_refresh || before.as_ref().is_some_and(|it| it.voice != voice);
            // Without a voice now, what was said before is taken back with the former one.
            if let Some(voice) = voice.or(before.as_ref().and_then(|it| it.voice)) {
                let said =
                    self.common.say(&old, &wanted, is_anew, voice, |changes: &Changes| voice.say(changes));
                connection.push(said);
            }
            if before.is_none() {
                connection.push(end_of_rib(family));
            }
            is_changed |= self.status.set_sent(family, Sent { table: wanted, voice });
        }
        if is_changed {
            self.set_reason((!reasons.is_empty()).then(|| reasons.join("; ")));
            self.common.changed();
        }
    }

    async fn stop(mut self, cease: Cease, is_shutdown: bool) {
        let mut last = Vec::new();
        for connection in self.connections.iter_mut().flatten() {
            let mut events = Vec::new();
            let restart = connection.session.negotiated().and_then(|it| it.restart.as_ref());
            if !is_shutdown || restart.is_none() || !connection.is_established {
                connection.session.cease(cease, "it is stopped", &mut events);
                for event in events {
                    if let Event::Send(bytes) = event {
                        connection.push(bytes);
                    }
                }
            }
        }
        for connection in self.connections.into_iter().flatten() {
            let says_so = connection.session.state() == SessionState::Idle;
            last.extend(connection.finish(says_so));
        }
        for task in last {
            // It ends by itself, soon.
            drop(task.await);
        }
    }
}

async fn pending_attempt(attempt: &mut Option<Attempt>) -> Result<TcpStream, String> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

fn no_next_hop(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => {
            "IPv4 prefixes are not sent: the session has no IPv4 address, and the instance no nextHop4"
        }
        Family::Ipv6 => {
            "IPv6 prefixes are not sent: the session has no IPv6 address, and the instance no nextHop6"
        }
    }
}

/// How a family is said in a session with this local address; `None`: there is no next hop for it.
fn voice(spec: &Spec, soft: &Soft, negotiated: &Negotiated, local: IpAddr, family: Family) -> Option<Voice> {
    let next_hop = match (family, local) {
        (Family::Ipv4, IpAddr::V4(local)) => NextHop::V4(local),
        (Family::Ipv4, IpAddr::V6(local)) if negotiated.extended_next_hop => ipv6_next_hop(local, soft),
        (Family::Ipv4, IpAddr::V6(_)) => NextHop::V4(soft.next_hop4?),
        (Family::Ipv6, IpAddr::V6(local)) => ipv6_next_hop(local, soft),
        (Family::Ipv6, IpAddr::V4(_)) => NextHop::V6(soft.next_hop6?, None),
    };
    let asn = (!negotiated.is_internal).then_some(spec.local_asn);
    Some(Voice { family, asn, four_octet_as: negotiated.four_octet_as, next_hop })
}

fn ipv6_next_hop(local: std::net::Ipv6Addr, soft: &Soft) -> NextHop {
    if local.is_unicast_link_local() {
        NextHop::V6(soft.next_hop6.unwrap_or(local), Some(local))
    } else {
        NextHop::V6(local, None)
    }
}
