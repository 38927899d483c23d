//! BGP of the node: what the plan says of it goes to a thread of its own, which tells the speaker, a process that outlives the agent.
//!
//! | module | what |
//! |---|---|
//! | `thread` | the loop: plan, facts and passwords in, configuration and prefixes out |
//! | `resolve`, `facts` | the plan with what only the node knows: gateways, addresses of devices |
//! | `routes` | prefixes, and which of them the speaker has not been told |
//! | `import` | routes of peers, in the node's table |
//! | `runs` | what is counted of it, for metrics |
//! | `secrets` | passwords: from the API server once, then from disk |
//! | `follow` | what the speaker says of its sessions |
//! | `report` | the same in the status of CiliumBGPNodeConfig |

mod facts;
mod follow;
mod import;
pub(crate) mod report;
mod resolve;
mod routes;
pub(crate) mod runs;
pub(crate) mod secrets;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;

use cilium_api::bgp::BgpInstance;
use cilium_api::node_state::Failure;
use cilium_api::parts::{Part, PartKey};
use cilium_dataplane::Parts;
use cilium_rest::bgp::{PeerState, Peers};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::config::Settings;
use report::Reporter;
use resolve::Instances;
use routes::{Ids, Source};
use secrets::{Passwords, Reader, Wanted};

/// What the thread is told.
enum Message {
    Changes(Changes),
    /// Passwords, and why some are missing, by name of the Secret.
    Passwords(Passwords, BTreeMap<String, String>),
    /// The speaker answers, and knows nothing of what it was told before; or it does not, and why.
    Speaker(Result<(), String>),
}

/// What changed of the plan.
#[derive(Default)]
struct Changes {
    instances: Vec<(String, Option<Box<BgpInstance>>)>,
    routes: Vec<(IpNet, Source, Ids)>,
    /// Addresses of the node.
    own: Option<Vec<IpAddr>>,
    /// All that is planned is known.
    is_complete: bool,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.routes.is_empty() && self.own.is_none()
    }
}

/// What the thread has made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intent {
    /// Routers by name, as planned.
    pub(crate) instances: Instances,
    /// What is not in force, by router: a sentence for each.
    pub(crate) problems: BTreeMap<String, Vec<String>>,
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

    fn set_passwords(&self, passwords: Passwords, failures: BTreeMap<String, String>) {
        self.say(Message::Passwords(passwords, failures));
    }
}

/// The loop's end of the line.
pub(crate) struct Routing {
    line: Line,
    node: PartKey,
    planned: BTreeSet<String>,
    is_complete: bool,
    intent: watch::Receiver<Intent>,
    peers: watch::Receiver<Option<Peers>>,
    runs: watch::Receiver<runs::All>,
}

impl Routing {
    /// Starts the threads, where the settings say so. Gives what reads Secrets for them, and what writes their status.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(settings: &Settings) -> std::io::Result<(Self, Option<Reader>, Option<Reporter>)> {
        let (intent_sender, intent) = watch::channel(Intent::default());
        let (peers_sender, peers) = watch::channel(None);
        let node = PartKey::node(&settings.node);
        let (runs_sender, runs) = watch::channel(runs::All::new());
        let this =
            |line| Self { line, node, planned: BTreeSet::new(), is_complete: false, intent, peers, runs };
        let Some(bgp) = &settings.bgp else { return Ok((this(Line(None)), None, None)) };
        let (sender, receiver) = mpsc::channel();
        let line = Line(Some(sender));
        let (wanted_sender, wanted) = watch::channel(Wanted::new());
        let file = settings.bgp_secrets_file();
        let place = thread::Place {
            socket: bgp.socket.clone(),
            intent: intent_sender,
            wanted: wanted_sender,
            runs: runs_sender,
            passwords: Passwords::recall(&file),
        };
        let run = move || thread::run(place, &receiver);
        std::thread::Builder::new().name("bgp".to_owned()).spawn(run)?;
        let (socket, to_thread) = (bgp.socket.clone(), line.clone());
        let run = move || follow::run(&socket, &to_thread, &peers_sender);
        std::thread::Builder::new().name("bgp-peers".to_owned()).spawn(run)?;
        let reader = Reader { wanted, namespace: bgp.secrets_namespace.clone(), file, line: line.clone() };
        let this = this(line);
        let reporter = bgp.reports.then(|| Reporter {
            node: settings.node.clone(),
            intent: this.intent.clone(),
            peers: this.peers.clone(),
        });
        Ok((this, Some(reader), reporter))
    }

    /// What became of the plan, for those who wait for news.
    pub(crate) fn intent(&self) -> watch::Receiver<Intent> {
        self.intent.clone()
    }

    /// What the speaker says of its sessions; nothing while it says nothing.
    pub(crate) fn peers(&self) -> Vec<PeerState> {
        self.peers.borrow().as_ref().map(|peers| peers.peers.clone()).unwrap_or_default()
    }

    /// How often the thread has run, and for how long.
    pub(crate) fn runs(&self) -> runs::All {
        self.runs.borrow().clone()
    }

    /// Takes parts that changed. `is_complete`: all that is planned is among the parts.
    pub(crate) fn update(&mut self, changed: &BTreeSet<PartKey>, parts: &dyn Parts, is_complete: bool) {
        let mut changes = Changes { is_complete, ..Changes::default() };
        for key in changed {
            match key.kind() {
                "bgp" => changes.instances.extend(instance(key, parts)),
                "route" => changes.routes.extend(route(key, "route/", Source::Cluster, parts)),
                "nodeRoute" => changes.routes.extend(route(key, "nodeRoute/", Source::Node, parts)),
                "node" if *key == self.node => {
                    if let Some(Part::Node(node)) = parts.get(key) {
                        changes.own = Some(node.addresses.clone());
                    }
                }
                _ => {}
            }
        }
        for (name, instance) in &changes.instances {
            match instance {
                Some(_) => drop(self.planned.insert(name.clone())),
                None => drop(self.planned.remove(name)),
            }
        }
        if std::mem::replace(&mut self.is_complete, is_complete) != is_complete || !changes.is_empty() {
            self.line.say(Message::Changes(changes));
        }
    }

    /// What is not in force. Without a thread, nothing is.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        let failure = |name: &String, message: String| Failure {
            object: PartKey::bgp_instance(name).0.to_string(),
            message,
        };
        if self.line.0.is_none() {
            let message = "enable-bgp-control-plane is not true for this agent: restart it";
            return self.planned.iter().map(|name| failure(name, message.to_owned())).collect();
        }
        let intent = self.intent.borrow();
        intent.problems.iter().map(|(name, problems)| failure(name, problems.join("; "))).collect()
    }
}

fn instance(key: &PartKey, parts: &dyn Parts) -> Option<(String, Option<Box<BgpInstance>>)> {
    let name = key.0.strip_prefix("bgp/")?.to_owned();
    match parts.get(key) {
        Some(Part::Bgp(instance)) => Some((name, Some(instance.clone()))),
        _ => Some((name, None)),
    }
}

fn route(key: &PartKey, kind: &str, source: Source, parts: &dyn Parts) -> Option<(IpNet, Source, Ids)> {
    let prefix = key.0.strip_prefix(kind)?.parse().ok()?;
    match parts.get(key) {
        Some(Part::Route(route) | Part::NodeRoute(route)) => {
            Some((prefix, source, route.advertisements.clone()))
        }
        _ => Some((prefix, source, Ids::new())),
    }
}
