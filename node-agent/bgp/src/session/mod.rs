//! One connection with a peer, from OPEN to its end: bytes and time in, bytes and events out. No socket, no clock.
//!
//! The state machine and the codec are bought; nothing outside of this module names their types.

mod message;
mod negotiated;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cilium_rest::bgp::{Family, SessionState};
use rustbgpd_fsm::{
    Action, Event as Input, PeerConfig, Session as Machine, SessionState as MachineState, TimerType,
};
use rustbgpd_wire::notification::{self, NotificationCode, cease_subcode, open_subcode};
use rustbgpd_wire::{
    Capability, EXTENDED_MAX_MESSAGE_LEN, MAX_MESSAGE_LEN, Message, NotificationMessage, OpenMessage,
    decode_message, encode_message_with_limit, peek_message_length,
};
use rustbgpd_wire::{ExtendedNextHopFamily, RouteRefreshSubtype, Safi};

pub use message::{LONGEST, LONGEST_COMMUNITIES, NextHop, Origin, Path, Segment, Update, Voice, end_of_rib};
pub use negotiated::{Negotiated, PeerRestart};

/// What the node says of itself in an OPEN, and what it wants of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Our AS number.
    pub local_asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// AS number that the peer has to say; 0 is any.
    pub peer_asn: u32,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Proposed hold time in seconds.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs, where the hold time is the one that was proposed.
    pub keepalive: u16,
    /// What the session shall carry.
    pub families: Vec<Family>,
    /// Graceful restart, with this restart time in seconds (RFC 4724).
    pub restart_time: Option<u16>,
    /// Long-lived graceful restart, with this stale time in seconds (RFC 9494).
    pub stale_time: Option<u32>,
    /// This process has just started, and takes up sessions that an earlier one had (the R bit).
    pub is_restarting: bool,
    /// The node forwards as it did before the last session ended (the F bits).
    pub is_forwarding: bool,
}

/// Why we end a session (RFC 4486, RFC 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cease {
    /// The speaker ends.
    Shutdown,
    /// The peer is not configured any more.
    Deconfigured,
    /// The configuration of the session is another one.
    ConfigurationChange,
    /// There is another connection with the peer (RFC 4271, 6.8).
    Collision,
    /// BFD does not see the peer any more.
    BfdDown,
    /// It made more prefixes known than are kept (RFC 4486).
    MaxPrefixes,
}

impl Cease {
    fn subcode(self) -> u8 {
        match self {
            Self::Shutdown => cease_subcode::ADMINISTRATIVE_SHUTDOWN,
            Self::Deconfigured => cease_subcode::PEER_DECONFIGURED,
            Self::ConfigurationChange => cease_subcode::OTHER_CONFIGURATION_CHANGE,
            Self::Collision => cease_subcode::CONNECTION_COLLISION_RESOLUTION,
            Self::BfdDown => cease_subcode::BFD_DOWN,
            Self::MaxPrefixes => cease_subcode::MAX_PREFIXES,
        }
    }
}

/// What comes of bytes and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes for the peer.
    Send(Bytes),
    /// The peer's OPEN is good; its BGP identifier and AS number.
    Opened(Ipv4Addr, u32),
    /// Routes may be exchanged.
    Established(Arc<Negotiated>),
    /// Routes of the peer.
    Update(Update),
    /// The peer wants to hear a family again (RFC 2918).
    Refresh(Family),
    /// The connection is to be closed once everything before this is sent. Nothing comes after it.
    Closed(End),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// A sentence.
    pub reason: String,
    /// Neither side said that it ends: the peer may be restarting, and its routes may stay (RFC 4724, 4.2).
    pub is_silent: bool,
}

/// A connection, once TCP is connected.
#[derive(Debug)]
pub struct Session {
    parameters: Parameters,
    machine: Machine,
    input: BytesMut,
    negotiated: Option<Arc<Negotiated>>,
    hold: Option<(Duration, u32)>,
    keepalive: Option<Duration>,
    /// What the peer said in its OPEN, to explain a refusal.
    said: Option<(u32, u16)>,
    cause: Option<End>,
    is_closed: bool,
    random: u64,
}

impl Session {
    /// Says OPEN.
    pub fn new(parameters: Parameters, now: Duration, events: &mut Vec<Event>) -> Self {
        let mut config = PeerConfig::new(parameters.local_asn, parameters.peer_asn, parameters.router_id);
        config.hold_time = parameters.hold_time;
        config.families = parameters.families.iter().map(|it| (message::afi(*it), Safi::Unicast)).collect();
        config.disable_ipv4_unicast = !parameters.families.contains(&Family::Ipv4);
        config.graceful_restart = parameters.restart_time.is_some();
        config.gr_restart_time = parameters.restart_time.unwrap_or_default();
        config.llgr_stale_time = parameters.stale_time.unwrap_or_default();
        let mut session = Self {
            parameters,
            machine: Machine::new(config),
            input: BytesMut::new(),
            negotiated: None,
            hold: None,
            keepalive: None,
            said: None,
            cause: None,
            is_closed: false,
            random: RandomState::new().build_hasher().finish() | 1,
        };
        session.feed(Input::ManualStart, now, events);
        session.feed(Input::TcpConnectionConfirmed, now, events);
        session
    }

    /// OpenSent or later; Idle after its end.
    pub fn state(&self) -> SessionState {
        match self.machine.state() {
            _ if self.is_closed => SessionState::Idle,
            MachineState::Idle => SessionState::Idle,
            MachineState::Connect => SessionState::Connect,
            MachineState::Active => SessionState::Active,
            MachineState::OpenSent => SessionState::OpenSent,
            MachineState::OpenConfirm => SessionState::OpenConfirm,
            MachineState::Established => SessionState::Established,
        }
    }

    /// What both sides agreed on, from OpenConfirm on.
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.negotiated.as_ref()
    }

    /// When [`Self::advance`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let hold = self.hold.map(|(at, _)| at);
        hold.into_iter().chain(self.keepalive).min().filter(|_| !self.is_closed)
    }

    /// Does what time asks for.
    pub fn advance(&mut self, now: Duration, events: &mut Vec<Event>) {
        if self.hold.is_some_and(|(at, _)| at <= now) {
            let seconds = self.hold.take().map_or(0, |(_, seconds)| seconds);
            let reason = format!("the hold timer expired: nothing was heard from the peer for {seconds} s");
            self.cause = Some(End { reason, is_silent: false });
            self.feed(Input::HoldTimerExpires, now, events);
        }
        if self.keepalive.is_some_and(|at| at <= now) {
            self.feed(Input::KeepaliveTimerExpires, now, events);
        }
    }

    /// Takes bytes of the peer.
    pub fn receive(&mut self, bytes: &[u8], now: Duration, events: &mut Vec<Event>) {
        self.input.extend_from_slice(bytes);
        while !self.is_closed {
            let length = match peek_message_length(&self.input, self.longest()) {
                Ok(Some(length)) if usize::from(length) <= self.input.len() => usize::from(length),
                Ok(_) => break,
                Err(error) => return self.feed(Input::DecodeError(error), now, events),
            };
            let mut bytes = self.input.split_to(length).freeze();
            match decode_message(&mut bytes, self.longest()) {
                Ok(message) => self.take(message, now, events),
                Err(error) => self.feed(Input::DecodeError(error), now, events),
            }
        }
        if self.input.is_empty() {
            // A quiet session holds no buffer.
            self.input = BytesMut::new();
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self, reason: String, now: Duration, events: &mut Vec<Event>) {
        self.cause = Some(End { reason, is_silent: true });
        self.feed(Input::TcpConnectionFails, now, events);
    }

    /// Ends the session with a NOTIFICATION.
    pub fn cease(&mut self, cease: Cease, reason: &str, events: &mut Vec<Event>) {
        let notification = NotificationMessage::new(NotificationCode::Cease, cease.subcode(), Bytes::new());
        self.cause = Some(End { reason: reason.to_owned(), is_silent: false });
        self.send(&Message::Notification(notification), events);
        self.close(events);
    }

    /// Ends it without a word.
    pub fn abandon(&mut self, reason: &str, events: &mut Vec<Event>) {
        self.cause = Some(End { reason: reason.to_owned(), is_silent: true });
        self.close(events);
    }

    fn take(&mut self, message: Message, now: Duration, events: &mut Vec<Event>) {
        let input = match message {
            Message::Open(open) => {
                self.said = Some((open.four_byte_as(), open.hold_time));
                Input::OpenReceived(open)
            }
            Message::Keepalive => Input::KeepaliveReceived,
            Message::Notification(notification) => {
                let reason = format!("the peer ended the session: {}", describe(&notification));
                self.cause = Some(End { reason, is_silent: false });
                Input::NotificationReceived(notification)
            }
            Message::Update(update) => return self.update(&update, now, events),
            Message::RouteRefresh(refresh) => {
                let (Some(afi), Some(safi)) = (refresh.afi(), refresh.safi()) else { return };
                let is_established = self.machine.state() == MachineState::Established;
                let families = self.negotiated.as_ref().map(|it| it.families.as_slice()).unwrap_or_default();
                let family = message::family_of(afi, safi).filter(|family| families.contains(family));
                if let Some(family) = family
                    && is_established
                    && refresh.subtype() == RouteRefreshSubtype::Normal
                {
                    events.push(Event::Refresh(family));
                }
                Input::RouteRefreshReceived { afi, safi }
            }
            // The codec knows no others yet.
            _ => return,
        };
        self.feed(input, now, events);
    }

    fn update(&mut self, update: &rustbgpd_wire::UpdateMessage, now: Duration, events: &mut Vec<Event>) {
        let negotiated =
            self.negotiated.clone().filter(|_| self.machine.state() == MachineState::Established);
        let Some(negotiated) = negotiated else {
            return self.feed(Input::UpdateReceived, now, events);
        };
        let context = message::Context {
            four_octet_as: negotiated.four_octet_as,
            is_internal: negotiated.is_internal,
            is_link_local: matches!(self.parameters.peer, IpAddr::V6(it) if it.is_unicast_link_local()),
            families: &negotiated.families,
        };
        match message::read(update, context) {
            Ok(update) => {
                self.feed(Input::UpdateReceived, now, events);
                events.push(Event::Update(update));
            }
            Err(notification) => self.feed(Input::UpdateValidationError(notification), now, events),
        }
    }

    fn feed(&mut self, input: Input, now: Duration, events: &mut Vec<Event>) {
        if self.is_closed {
            return;
        }
        for action in self.machine.handle_event(input) {
            self.act(action, now, events);
        }
    }

    fn act(&mut self, action: Action, now: Duration, events: &mut Vec<Event>) {
        match action {
            Action::SendOpen(open) => {
                let open = self.adapt(open);
                self.send(&Message::Open(open), events);
            }
            Action::SendKeepalive => self.send(&Message::Keepalive, events),
            Action::SendNotification(notification) => {
                let reason = self.explain(&notification);
                self.cause.get_or_insert(End { reason, is_silent: false });
                self.send(&Message::Notification(notification), events);
            }
            Action::StartTimer(TimerType::Hold, seconds) => {
                self.hold = Some((now + Duration::from_secs(seconds.into()), seconds));
            }
            Action::StartTimer(TimerType::Keepalive, _) => {
                let interval =
                    self.machine.negotiated().map(|it| negotiated::keepalive(&self.parameters, it.hold_time));
                self.keepalive =
                    interval.map(|seconds| now + self.jitter(Duration::from_secs(seconds.into())));
            }
            Action::StopTimer(TimerType::Hold) => self.hold = None,
            Action::StopTimer(TimerType::Keepalive) => self.keepalive = None,
            Action::StateChanged { new: MachineState::OpenConfirm, .. } => self.opened(events),
            Action::StateChanged { new: MachineState::Established, .. } => {
                events.extend(self.negotiated.clone().map(Event::Established));
            }
            Action::CloseTcpConnection => self.close(events),
            _ => {}
        }
    }

    fn opened(&mut self, events: &mut Vec<Event>) {
        let Some(said) = self.machine.negotiated() else { return };
        events.push(Event::Opened(said.peer_router_id, said.peer_asn));
        self.negotiated = Some(Arc::new(Negotiated::new(&self.parameters, said)));
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.is_closed, true) {
            let unknown = || End { reason: "the session ended".to_owned(), is_silent: false };
            events.push(Event::Closed(self.cause.take().unwrap_or_else(unknown)));
        }
    }

    fn send(&self, message: &Message, events: &mut Vec<Event>) {
        match encode_message_with_limit(message, self.longest()) {
            Ok(bytes) => events.push(Event::Send(bytes.freeze())),
            Err(error) => {
                tracing::error!(peer = %self.parameters.peer, %error, "a message cannot be written");
            }
        }
    }

    /// Bytes that a message may have now.
    fn longest(&self) -> u16 {
        match &self.negotiated {
            Some(negotiated) if negotiated.extended_message => EXTENDED_MAX_MESSAGE_LEN,
            _ => MAX_MESSAGE_LEN,
        }
    }

    /// Between three quarters and all of it (RFC 4271, 10).
    fn jitter(&mut self, interval: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        interval.mul_f64(0.75 + (self.random % 1024) as f64 / 4096.0)
    }

    /// The machine's OPEN, with what it does not know, and without what we do not do: marked ends of refreshes (RFC 7313), routes that
    /// outlive a NOTIFICATION (RFC 8538).
    fn adapt(&self, mut open: OpenMessage) -> OpenMessage {
        let not_done =
            |it: &Capability| matches!(it, Capability::EnhancedRouteRefresh | Capability::ExtendedNextHop(_));
        open.capabilities.retain(|it| !not_done(it));
        for capability in &mut open.capabilities {
            match capability {
                Capability::GracefulRestart { restart_state, notification, families, .. } => {
                    *restart_state = self.parameters.is_restarting;
                    *notification = false;
                    families
                        .iter_mut()
                        .for_each(|it| it.forwarding_preserved = self.parameters.is_forwarding);
                }
                Capability::LongLivedGracefulRestart(families) => {
                    families
                        .iter_mut()
                        .for_each(|it| it.forwarding_preserved = self.parameters.is_forwarding);
                }
                _ => {}
            }
        }
        if negotiated::may_extend_next_hops(&self.parameters) {
            let family = ExtendedNextHopFamily {
                nlri_afi: message::afi(Family::Ipv4),
                nlri_safi: Safi::Unicast,
                next_hop_afi: message::afi(Family::Ipv6),
            };
            open.capabilities.push(Capability::ExtendedNextHop(vec![family]));
        }
        open
    }

    /// Why we end a session.
    fn explain(&self, notification: &NotificationMessage) -> String {
        let what = describe(notification);
        let (asn, hold_time) = self.said.unwrap_or_default();
        let details = match (notification.code, notification.subcode) {
            (NotificationCode::OpenMessage, open_subcode::BAD_PEER_AS) => {
                format!("it says AS {asn}, configured is AS {}", self.parameters.peer_asn)
            }
            (NotificationCode::OpenMessage, open_subcode::UNACCEPTABLE_HOLD_TIME) => {
                format!("it proposes a hold time of {hold_time} s")
            }
            (NotificationCode::OpenMessage, open_subcode::BAD_BGP_IDENTIFIER) => {
                format!("its BGP identifier is 0.0.0.0 or ours, {}", self.parameters.router_id)
            }
            (NotificationCode::OpenMessage, open_subcode::UNSUPPORTED_CAPABILITY) => {
                let families: Vec<_> =
                    self.parameters.families.iter().map(|it| negotiated::name(*it)).collect();
                format!("it carries none of the families {}", families.join(", "))
            }
            _ => return format!("the peer's message was refused: {what}"),
        };
        format!("the peer's OPEN was refused: {what}; {details}")
    }
}

/// What a NOTIFICATION says, in the words of the RFCs, with its numbers.
fn describe(notification: &NotificationMessage) -> String {
    let (code, subcode) = (notification.code, notification.subcode);
    let text = notification::description(code, subcode);
    let text = if text.starts_with("Unknown") { code.to_string() } else { text.to_owned() };
    let numbers = format!("{text} ({}/{subcode})", code.as_u8());
    match notification::extract_shutdown_communication(notification) {
        Ok(Some(said)) if !said.is_empty() => format!("{numbers}: {said}"),
        _ => numbers,
    }
}

#[cfg(test)]
mod tests;
