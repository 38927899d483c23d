//! The loop of the thread.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cilium_rest::{Client, bgp};
use tokio::sync::watch;

use super::import::Imports;
use super::resolve::{Facts, Instances, Resolved, needs_facts, resolve};
use super::routes::{Source, Table};
use super::secrets::{Passwords, Wanted};
use super::{Changes, Intent, Message, facts, runs};
use crate::watch::chain;

/// Gateways and addresses, and routes of peers, are looked at so often, where any are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What the speaker did not take is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// For an answer of the speaker.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the thread works, and with what.
pub(super) struct Place {
    /// Where the speaker listens.
    pub(super) socket: PathBuf,
    pub(super) intent: watch::Sender<Intent>,
    /// Secrets that are wanted.
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) runs: watch::Sender<runs::All>,
    /// As they were kept on disk.
    pub(super) passwords: Passwords,
}

/// Runs until the sender is gone: the speaker goes on.
pub(super) fn run(place: Place, messages: &Receiver<Message>) {
    let mut router = Router::new(place);
    loop {
        match messages.recv_timeout(router.wait()) {
            Ok(message) => router.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(message) = messages.try_recv() {
            router.take(message);
        }
        router.turn();
    }
}

struct Router {
    place: Place,
    client: Client,
    instances: Instances,
    /// The plan is there as a whole: before that, nobody can tell that a router shall not be.
    is_complete: bool,
    facts: Facts,
    looked: Option<Instant>,
    look_failure: Option<String>,
    secret_failures: Vec<String>,
    routes: Table,
    /// What the speaker has; `None`: not known.
    sent: Option<bgp::Config>,
    has_routes: bool,
    imports: Imports,
    imported: Option<Instant>,
    import_failures: Vec<String>,
    /// Why the speaker cannot be told, or what it did not take.
    refusal: Option<String>,
    answers: bool,
}

impl Router {
    fn new(place: Place) -> Self {
        let client = Client::of_speaker(&place.socket, Some(PATIENCE));
        Self {
            place,
            client,
            instances: Instances::new(),
            is_complete: false,
            facts: Facts::default(),
            looked: None,
            look_failure: None,
            secret_failures: Vec::new(),
            routes: Table::default(),
            sent: None,
            has_routes: false,
            imports: Imports::new(),
            imported: None,
            import_failures: Vec::new(),
            refusal: None,
            answers: false,
        }
    }

    fn wait(&self) -> Duration {
        let retry = (self.answers && self.refusal.is_some()).then_some(RETRY);
        let look = (needs_facts(&self.instances) || self.is_importing()).then_some(LOOK_EVERY);
        retry.into_iter().chain(look).min().unwrap_or(Duration::MAX)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Changes(changes) => self.change(changes),
            Message::Passwords(passwords, failures) => {
                self.place.passwords = passwords;
                let said = |(name, failure): (String, String)| format!("Secret {name}: {failure}");
                self.secret_failures = failures.into_iter().map(said).collect();
            }
            Message::Speaker(state) => {
                self.answers = state.is_ok();
                self.refusal = state.err();
                (self.sent, self.has_routes) = (None, false);
                self.imports.hold();
            }
        }
    }

    fn change(&mut self, changes: Changes) {
        self.is_complete |= changes.is_complete;
        for (name, instance) in changes.instances {
            match instance {
                Some(instance) => drop(self.instances.insert(name, *instance)),
                None => drop(self.instances.remove(&name)),
            }
            self.looked = None;
        }
        for (prefix, source, ids) in changes.routes {
            self.routes.set(prefix, source, ids);
        }
        if let Some(addresses) = changes.own {
            self.facts.own4 = addresses.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            self.facts.own6 = addresses.iter().find_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
        }
    }

    fn turn(&mut self) {
        if !self.is_complete {
            return;
        }
        let begun = Instant::now();
        if needs_facts(&self.instances) && self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look_failure = facts::read(&mut self.facts).err().map(|error| chain(&error));
            self.looked = Some(Instant::now());
        }
        self.want();
        let Resolved { config, routes, mut problems } =
            resolve(&self.instances, &self.facts, &self.place.passwords);
        self.routes.replace(Source::Device, routes);
        if self.answers {
            self.refusal = self.tell(config).err().map(|error| error.chain());
        }
        if self.answers && self.refusal.is_none() {
            self.import();
        }
        let common = [&self.refusal, &self.look_failure].into_iter().flatten();
        for problem in common.chain(&self.secret_failures).chain(&self.import_failures) {
            for name in self.instances.keys() {
                problems.entry(name.clone()).or_default().push(problem.clone());
            }
        }
        self.count(begun.elapsed(), &problems);
        let intent = Intent { instances: self.instances.clone(), problems };
        self.place.intent.send_if_modified(|known| std::mem::replace(known, intent.clone()) != intent);
    }

    /// Every router is part of every run.
    fn count(&self, took: Duration, problems: &BTreeMap<String, Vec<String>>) {
        self.place.runs.send_modify(|runs| {
            runs.retain(|name, _| self.instances.contains_key(name));
            for name in self.instances.keys() {
                let problems = problems.get(name).map_or(0, Vec::len);
                runs.entry(name.clone()).or_default().add(took, problems);
            }
        });
    }

    /// Names the Secrets of which there is a version.
    fn want(&self) {
        let secrets = self.instances.values().flat_map(|instance| instance.peers.values());
        let secrets = secrets.filter_map(|peer| peer.secret.as_ref());
        let wanted: Wanted =
            secrets.filter_map(|secret| Some((secret.name.clone(), secret.version.clone()?))).collect();
        self.place.wanted.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
    }

    fn is_importing(&self) -> bool {
        self.instances.values().flat_map(|instance| instance.peers.values()).any(|peer| peer.import)
    }

    /// Without a peer whose routes are wanted, what was there goes.
    fn import(&mut self) {
        let routes = if self.is_importing() {
            if self.imported.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                return;
            }
            match self.client.get("/v1/import") {
                Ok(routes) => routes,
                Err(error) => {
                    self.import_failures = vec![error.chain()];
                    return;
                }
            }
        } else {
            Vec::new()
        };
        self.imported = Some(Instant::now());
        self.import_failures = self.imports.set(routes);
    }

    /// Prefixes go first: a session that comes up has them all before it says that these were all.
    fn tell(&mut self, config: bgp::Config) -> Result<(), cilium_rest::Error> {
        if !self.has_routes {
            self.client.replace("/v1/routes", &self.routes.take_all())?;
            self.has_routes = true;
        } else if let Some(changes) = self.routes.take_changes() {
            self.has_routes = false;
            self.client.patch("/v1/routes", &changes)?;
            self.has_routes = true;
        }
        if self.sent.as_ref() != Some(&config) {
            self.sent = None;
            self.client.replace("/v1/config", &config)?;
            self.sent = Some(config);
        }
        Ok(())
    }
}
