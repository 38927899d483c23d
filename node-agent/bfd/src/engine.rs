//! All sessions of the node, by neighbour and by discriminator, with their sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::packet::{Diagnostic, Packet, State};
use crate::session::{Parameters, Session};
use crate::sockets::{Datagram, Receiver, Sender, TTL, device_index};

/// Datagrams of a family that are read in a row: who floods the port does not keep others from their timers.
const IN_A_ROW: usize = 1024;

/// Between attempts to listen.
const RETRY: Duration = Duration::from_secs(1);

/// A neighbour is told for its detection time that a session goes, and no longer than this.
const FAREWELL: Duration = Duration::from_secs(10);

/// Which session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Address of the node from which packets come; `None`: what the kernel takes.
    pub local: Option<IpAddr>,
    /// Address of the neighbour, of the same family.
    pub peer: IpAddr,
    /// Device by which packets go and come; needed where the peer's address is link-local.
    pub device: Option<String>,
}

/// Another state of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The session.
    pub key: Key,
    /// Its state.
    pub state: State,
    /// The neighbour's, as it said last: a session that is down because the neighbour has it in `AdminDown` says nothing of the way to it
    /// (RFC 5882, 3.2).
    pub remote: State,
    /// Why it changed last.
    pub diagnostic: Diagnostic,
    /// What keeps the node from sending or receiving, if anything does: a sentence.
    pub problem: Option<String>,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    sender: Option<Sender>,
    /// What keeps it from sending.
    problem: Option<String>,
    told: (State, Option<String>),
}

impl Entry {
    fn send(&mut self, key: &Key, packet: &Packet) {
        let result = self.sender(key).and_then(|sender| sender.send(&packet.bytes()));
        // A socket may be bound to a device or an address that was there before: the next packet gets a new one.
        self.problem = result.err().map(|error| {
            self.sender = None;
            format!("packets of BFD cannot be sent to {}: {error}", key.peer)
        });
    }

    fn sender(&mut self, key: &Key) -> io::Result<&Sender> {
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None => Sender::open(key, random())?,
        };
        Ok(self.sender.insert(sender))
    }
}

/// A socket that receives, as soon as there is one.
#[derive(Debug, Default)]
struct Listening {
    receiver: Option<Receiver>,
    problem: Option<String>,
    retry: Duration,
}

impl Listening {
    fn ensure(&mut self, is_v6: bool, now: Duration) {
        if self.receiver.is_some() || now < self.retry {
            return;
        }
        self.retry = now + RETRY;
        match Receiver::open(is_v6) {
            Ok(receiver) => (self.receiver, self.problem) = (Some(receiver), None),
            Err(error) => {
                let text =
                    format!("packets of BFD cannot be received: UDP port 3784 cannot be opened: {error}");
                self.problem = Some(text);
            }
        }
    }
}

/// The sessions.
#[derive(Debug)]
pub struct Engine {
    sessions: BTreeMap<Key, Entry>,
    /// Sessions that nobody wants any more, and until when their neighbours are told.
    leaving: Vec<(Duration, Key, Entry)>,
    v4: Listening,
    v6: Listening,
    changes: UnboundedSender<Change>,
}

/// A random number.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without entropy all numbers are the same. That takes jitter away, and the rest goes on.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

impl Engine {
    /// None yet; changes of states are told to `changes`.
    pub fn new(changes: UnboundedSender<Change>) -> Self {
        let (v4, v6) = (Listening::default(), Listening::default());
        Self { sessions: BTreeMap::new(), leaving: Vec::new(), v4, v6, changes }
    }

    /// Has these sessions, and no others. One that goes says so to its neighbour.
    pub fn set(&mut self, wanted: &BTreeMap<Key, Parameters>, now: Duration) {
        let gone: Vec<Key> = self.sessions.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            let Some(mut entry) = self.sessions.remove(&key) else { continue };
            let packet = entry.session.disable(now, random());
            entry.send(&key, &packet);
            let until = now + entry.session.detection_time().min(FAREWELL);
            self.leaving.push((until, key, entry));
        }
        for (key, parameters) in wanted {
            self.leaving.retain(|(_, leaving, _)| leaving != key);
            match self.sessions.get_mut(key) {
                Some(entry) => entry.session.configure(*parameters),
                None => self.add(key, *parameters),
            }
        }
    }

    fn add(&mut self, key: &Key, parameters: Parameters) {
        let session = Session::new(self.free_discriminator(), parameters);
        let entry = Entry { session, sender: None, problem: None, told: (State::Down, None) };
        self.sessions.insert(key.clone(), entry);
    }

    fn free_discriminator(&self) -> NonZeroU32 {
        let is_taken = |number| self.sessions.values().any(|entry| entry.session.discriminator() == number);
        let mut number = NonZeroU32::new(random()).unwrap_or(NonZeroU32::MIN);
        while is_taken(number) {
            number = number.checked_add(1).unwrap_or(NonZeroU32::MIN);
        }
        number
    }

    /// Waits for a packet.
    pub async fn wait(&self) {
        let wait = async |listening: &Listening| match &listening.receiver {
            Some(receiver) => receiver.wait().await,
            None => std::future::pending().await,
        };
        tokio::select! {
            () = wait(&self.v4) => {}
            () = wait(&self.v6) => {}
        }
    }

    /// Reads what came, and then does what time asks for. `now` is from before the call: what waits to be read is not late.
    pub fn turn(&mut self, now: Duration) {
        self.listen(now);
        for is_v6 in [false, true] {
            for _ in 0..IN_A_ROW {
                let listening = if is_v6 { &self.v6 } else { &self.v4 };
                let Some(datagram) = listening.receiver.as_ref().and_then(Receiver::next) else { break };
                self.receive(&datagram, now);
            }
        }
        self.leaving.retain(|(until, ..)| *until > now);
        let leaving = self.leaving.iter_mut().map(|(_, key, entry)| (&*key, entry));
        for (key, entry) in self.sessions.iter_mut().chain(leaving) {
            if let Some(packet) = entry.session.advance(now, random()) {
                entry.send(key, &packet);
            }
        }
        self.tell();
    }

    fn listen(&mut self, now: Duration) {
        let needs = |is_v6| self.sessions.keys().any(|key| key.peer.is_ipv6() == is_v6);
        let (v4, v6) = (needs(false), needs(true));
        for (is_needed, is_v6, listening) in [(v4, false, &mut self.v4), (v6, true, &mut self.v6)] {
            if is_needed {
                listening.ensure(is_v6, now);
            } else {
                *listening = Listening::default();
            }
        }
    }

    /// When [`Self::turn`] is to be called, if no packet comes before.
    pub fn deadline(&self) -> Option<Duration> {
        let leaving = self.leaving.iter().map(|(until, _, entry)| (Some(*until), entry));
        let entries = self.sessions.values().map(|entry| (None, entry)).chain(leaving);
        let sessions = entries.flat_map(|(until, entry)| [until, entry.session.deadline()]);
        let retries = [&self.v4, &self.v6].map(|it| it.problem.as_ref().map(|_| it.retry));
        sessions.chain(retries).flatten().min()
    }

    fn receive(&mut self, datagram: &Datagram, now: Duration) {
        // Only a neighbour's packets have all of their hops left (RFC 5881, 5).
        if datagram.ttl != TTL {
            return tracing::debug!(source = %datagram.source, ttl = datagram.ttl, "a packet of BFD came from afar");
        }
        let packet = match Packet::read(datagram.bytes()) {
            Ok(packet) => packet,
            Err(error) => {
                return tracing::debug!(source = %datagram.source, %error, "a packet of BFD is of no use");
            }
        };
        let Some((key, entry)) =
            self.sessions.iter_mut().find(|(key, entry)| is_meant(key, entry, &packet, datagram))
        else {
            return tracing::debug!(source = %datagram.source, "a packet of BFD belongs to no session");
        };
        if let Some(answer) = entry.session.receive(&packet, now, random()) {
            entry.send(key, &answer);
        }
    }

    fn tell(&mut self) {
        for (key, entry) in &mut self.sessions {
            let listening = if key.peer.is_ipv6() { &self.v6 } else { &self.v4 };
            let problem = listening.problem.as_ref().or(entry.problem.as_ref());
            let state = entry.session.state();
            if (state, problem) == (entry.told.0, entry.told.1.as_ref()) {
                continue;
            }
            entry.told = (state, problem.cloned());
            let (remote, diagnostic) = (entry.session.remote_state(), entry.session.diagnostic());
            let problem = problem.cloned();
            // Nobody listens when the owner is about to drop the handle.
            let _ = self.changes.send(Change { key: key.clone(), state, remote, diagnostic, problem });
        }
    }
}

/// Whether a packet belongs to a session (RFC 5880, 6.8.6; RFC 5881, 3).
fn is_meant(key: &Key, entry: &Entry, packet: &Packet, datagram: &Datagram) -> bool {
    let is_number = packet.yours == 0 || packet.yours == entry.session.discriminator().get();
    is_number
        && key.peer == datagram.source
        && key.local.is_none_or(|local| datagram.destination.is_none_or(|to| to == local))
        && key.device.as_ref().is_none_or(|device| device_index(device) == Some(datagram.ifindex))
}
