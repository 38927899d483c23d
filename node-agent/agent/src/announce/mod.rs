//! Addresses that this node makes known on its links (CiliumL2AnnouncementPolicy): the plan's part of it goes to a thread of its own,
//! which decides with other nodes who answers, and does not wait for the loop, for the API server or for anybody's lock.
//!
//! | module | what |
//! |---|---|
//! | `thread` | the loop: plan and clock in, maps and frames out |
//! | `station` | one device: its maps, its socket, who decides |
//! | `decider` | who decides: heartbeats of other owners, or Leases |
//! | `leases` | reads and writes Leases, where these decide |
//! | `groups` | multicast groups of a device, which need the lock of all network configuration |
//! | `key` | the key of heartbeats: from the API server once, then from disk |

mod decider;
mod groups;
pub(crate) mod key;
pub(crate) mod leases;
mod station;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc;

use cilium_announcer::Tenure;
use cilium_api::l2_announcement_policy::HEARTBEAT_KEY;
use cilium_api::node_state::Failure;
use cilium_api::parts::{Announcement, Part, PartKey};
use cilium_dataplane::Parts;
use cilium_drivers::netlink::Link;
use cilium_rest::model;
use tokio::sync::{oneshot, watch};

use crate::config::{Agreement, Settings};
use leases::Leases;
use thread::Place;

/// The key of heartbeats.
pub(crate) type Key = [u8; HEARTBEAT_KEY];

/// Why Leases are not written, by their names; why they are not listed, by the empty name.
type LeaseFailures = BTreeMap<String, String>;

/// What the thread is told.
enum Message {
    Plan(BTreeMap<IpAddr, Announcement>),
    /// Those of the node, all of them.
    Devices(Vec<Link>),
    Key(Key),
    /// What is known of a Lease; `None`: this node does not take part in its election any more.
    Lease(String, Option<Tenure>),
    LeaseFailures(LeaseFailures),
    /// Answer for nothing any more.
    Stop,
    List(oneshot::Sender<Vec<model::Announcement>>),
}

/// What the operator is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Other owners that are not heard.
    pub(crate) silent: Vec<String>,
    /// What is not in force, by object.
    pub(crate) failures: BTreeMap<String, String>,
}

/// How the thread is reached.
#[derive(Clone)]
pub(crate) struct Line(Option<mpsc::Sender<Message>>);

impl Line {
    fn say(&self, message: Message) {
        if let Some(line) = &self.0 {
            // It ends with the agent only.
            drop(line.send(message));
        }
    }

    /// The key of heartbeats is known, or is another one.
    pub(crate) fn set_key(&self, key: Key) {
        self.say(Message::Key(key));
    }

    /// Nothing is answered for any more, and Leases are given back.
    pub(crate) fn stop(&self) {
        self.say(Message::Stop);
    }
}

/// The loop's end of the line.
pub(crate) struct Announcements {
    line: Line,
    told: watch::Receiver<Told>,
    plan: BTreeMap<IpAddr, Announcement>,
    devices: Vec<Link>,
    bpffs: PathBuf,
}

impl Announcements {
    /// Starts the thread, where the settings say so. Gives what takes part in elections for it, where Leases decide.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(settings: &Settings) -> std::io::Result<(Self, Option<Leases>)> {
        let (told_sender, told) = watch::channel(Told::default());
        let this = |line| Self {
            line,
            told,
            plan: BTreeMap::new(),
            devices: Vec::new(),
            bpffs: settings.bpffs.clone(),
        };
        let Some(agreement) = settings.announces else { return Ok((this(Line(None)), None)) };
        let (sender, receiver) = mpsc::channel();
        let (wanted_sender, wanted) = watch::channel(BTreeSet::new());
        let timings = match agreement {
            Agreement::Heartbeats => None,
            Agreement::Leases(timings) => Some(timings),
        };
        let place = Place {
            node: settings.node.clone(),
            bpffs: settings.bpffs.clone(),
            timings,
            told: told_sender,
            wanted: wanted_sender,
        };
        let run = move || thread::run(&place, &receiver);
        std::thread::Builder::new().name("announcements".to_owned()).spawn(run)?;
        let line = Line(Some(sender));
        let leases = timings.map(|timings| Leases {
            node: settings.node.clone(),
            timings,
            wanted,
            line: line.clone(),
        });
        Ok((this(line), leases))
    }

    /// For those who have something to tell the thread.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// For those who wait for news.
    pub(crate) fn told(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }

    /// Takes parts that changed.
    pub(crate) fn update(&mut self, changed: &BTreeSet<PartKey>, parts: &dyn Parts) {
        let mut is_touched = false;
        for key in changed.iter().filter(|key| key.kind() == "announcement") {
            let address = key.0.strip_prefix("announcement/").and_then(|text| text.parse().ok());
            let Some(address) = address else { continue };
            let part = match parts.get(key) {
                Some(Part::Announcement(part)) => Some(part),
                _ => None,
            };
            if self.plan.get(&address) != part {
                is_touched = true;
                match part {
                    Some(part) => drop(self.plan.insert(address, part.clone())),
                    None => drop(self.plan.remove(&address)),
                }
            }
        }
        if is_touched {
            self.line.say(Message::Plan(self.plan.clone()));
        }
    }

    /// Devices that have their programs.
    pub(crate) fn set_devices(&mut self, devices: &[Link]) {
        if self.devices == devices {
            return;
        }
        self.devices = devices.to_vec();
        if self.line.0.is_some() {
            self.line.say(Message::Devices(self.devices.clone()));
        } else {
            thread::forget_all_but(&self.bpffs, &[]);
        }
    }

    /// Names of the devices on which addresses can be announced.
    pub(crate) fn devices(&self) -> Vec<String> {
        let announcing = self.devices.iter().filter(|_| self.line.0.is_some());
        announcing.map(|device| device.name.clone()).collect()
    }

    /// Other owners that are not heard.
    pub(crate) fn silent(&self) -> Vec<String> {
        self.told.borrow().silent.clone()
    }

    /// What is not in force. Without a thread, nothing is.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        if self.line.0.is_none() {
            let message = "enable-l2-announcements is not true for this agent: restart it";
            let failure = |address: &IpAddr| Failure {
                object: PartKey::announcement(*address).0.to_string(),
                message: message.to_owned(),
            };
            return self.plan.keys().map(failure).collect();
        }
        let told = self.told.borrow();
        let failure = |(object, message): (&String, &String)| Failure {
            object: object.clone(),
            message: message.clone(),
        };
        told.failures.iter().map(failure).collect()
    }

    /// All addresses, as they stand now; the sender is dropped when there is nobody to ask.
    pub(crate) fn list(&self) -> oneshot::Receiver<Vec<model::Announcement>> {
        let (sender, receiver) = oneshot::channel();
        self.line.say(Message::List(sender));
        receiver
    }
}
