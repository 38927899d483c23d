//! Names of addresses: learned by the DNS proxy, in force before the answer reaches the pod, kept on disk.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cilium_api::parts::DnsRule;
use cilium_bpf::layout::Addr;
use cilium_dataplane::GRACE;
use cilium_names::{Limits, Saved, Table};
use cilium_rest::dns;
use cilium_rest::model::NameEntry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Brain, Desired};
use crate::flows;
use crate::host::worlds;

/// Milliseconds in which changes are collected before they are kept on disk. What a crash takes, the proxy tells again.
const SAVE_AFTER: u64 = 1_000;

/// Addresses that connections used.
struct Used {
    /// When that was looked at, in seconds since 1970.
    at: u64,
    addresses: HashSet<IpAddr>,
}

/// What metrics of names are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsNumbers {
    pub(crate) counts: dns::Counts,
    /// Names with addresses.
    pub(crate) names: usize,
    /// Addresses with names.
    pub(crate) addresses: usize,
    /// Addresses that lost a name before its time, mostly as a bound was reached.
    pub(crate) evicted: u64,
}

/// Names, and what is done with them in the background.
pub(super) struct Names {
    pub(super) table: Table,
    file: PathBuf,
    rules: watch::Sender<dns::Rules>,
    /// What the proxy counted, as it said last.
    counts: dns::Counts,
    /// Addresses that lost a name before its time.
    evicted: u64,
    /// When the file is to be written, in milliseconds of the clock.
    pub(super) save: Option<u64>,
    saving: Option<JoinHandle<()>>,
    used: Arc<Mutex<Option<Used>>>,
}

impl Names {
    /// With what was kept. A file that cannot be read is named in the log: names are learned again.
    pub(super) fn open(file: PathBuf, limits: Limits, rules: watch::Sender<dns::Rules>) -> Self {
        let saved = match read(&file) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "lost what names were learned");
                Saved::new()
            }
        };
        Self {
            table: Table::restore(limits, &saved),
            file,
            rules,
            counts: dns::Counts::default(),
            evicted: 0,
            save: None,
            saving: None,
            used: Arc::default(),
        }
    }

    fn names_of(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<(IpAddr, BTreeSet<String>)> {
        let names = |address| self.table.names_of(address).map(str::to_owned).collect();
        addresses.into_iter().map(|address| (address, names(address))).collect()
    }

    /// All of them, for a dataplane that knows none.
    pub(super) fn all(&self) -> Vec<(IpAddr, BTreeSet<String>)> {
        self.names_of(self.table.addresses())
    }

    /// The task that writes them.
    fn save_now(&mut self) -> JoinHandle<()> {
        self.save = None;
        let (file, saved) = (self.file.clone(), self.table.save());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&file, &saved) {
                tracing::error!(%error, file = %file.display(), "learned names are not kept on disk");
            }
        })
    }
}

impl Brain {
    /// Takes what the proxy counted.
    pub(crate) fn take_dns_counts(&mut self, counts: dns::Counts) {
        self.names.counts = counts;
    }

    /// What metrics of names are made of.
    pub(super) fn dns_numbers(&self) -> DnsNumbers {
        DnsNumbers {
            counts: self.names.counts.clone(),
            names: self.names.table.iter().count(),
            addresses: self.names.table.addresses().count(),
            evicted: self.names.evicted,
        }
    }

    /// Takes what the proxy learned, and has it in force when it returns. True when something older had to go for it.
    pub(crate) fn learn(&mut self, learned: &[dns::Learned]) -> bool {
        let now = unix_seconds();
        for dns::Learned { name, addresses, ttl, .. } in learned {
            self.names.table.learn(name, addresses, *ttl, now);
        }
        self.follow_names()
    }

    /// Forgets a name, or all.
    pub(crate) fn forget_names(&mut self, name: Option<&str>) {
        self.names.table.clear(name);
        self.follow_names();
    }

    /// Every name with its addresses, and seconds until they expire: negative while connections still use them.
    pub(crate) fn name_entries(&self) -> Vec<NameEntry> {
        let now = unix_seconds();
        let left =
            |expires: u64| i64::try_from(expires).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(0);
        let entry = |name: &str, address: IpAddr, expires| NameEntry {
            fqdn: name.to_owned(),
            ip: address.to_string(),
            ttl: left(expires),
        };
        let names = self.names.table.iter();
        names
            .flat_map(|(name, addresses)| addresses.iter().map(move |(ip, at)| entry(name, *ip, *at)))
            .collect()
    }

    fn follow_names(&mut self) -> bool {
        let evicted = self.names.table.take_evicted();
        let changed = self.names.table.take_changed();
        self.names.evicted += evicted.len() as u64;
        self.reassigned.extend(evicted.iter().map(|address| Addr::from(*address)));
        let now = self.clock.now();
        self.names.save.get_or_insert(now + SAVE_AFTER);
        let names = self.names.names_of(changed);
        if let Some(running) = &mut self.running
            && !names.is_empty()
        {
            running.dataplane.set_names(names, &Desired(&self.state));
            self.tell_rules();
            self.apply_names();
        }
        !evicted.is_empty()
    }

    fn apply_names(&mut self) {
        let now = self.clock.now();
        let Some(running) = &mut self.running else { return };
        running.dataplane.apply(&mut running.tables, now);
        if running.dataplane.has_retired() {
            self.due.sweep.get_or_insert(now + GRACE);
        }
        self.forget_soon();
    }

    /// Tells the proxy who may ask whom for what, if that is another than before.
    pub(super) fn tell_rules(&self) {
        let Some(running) = &self.running else { return };
        let (world4, world6) = worlds(&self.settings);
        let rule = |rule: &DnsRule| dns::Rule {
            peer: rule.peer,
            protocol: rule.protocol,
            port: rule.port,
            patterns: rule.patterns.clone(),
        };
        let all = running.dataplane.dns_rules().iter();
        let by_identity = all.map(|(number, rules)| (*number, rules.iter().map(rule).collect())).collect();
        let rules = dns::Rules { world4, world6, by_identity };
        self.names.rules.send_if_modified(|told| {
            let news = *told != rules;
            *told = rules;
            news
        });
    }

    /// Writes the file when it is due.
    pub(super) fn save_names(&mut self, now: u64) {
        if self.names.save.is_some_and(|due| due <= now) {
            self.names.saving = Some(self.names.save_now());
        }
    }

    /// Keeps what has been learned since the file was last written: the proxy stops with the agent's pod, and cannot tell it again.
    pub(crate) async fn save_last_names(&mut self) {
        let before = self.names.saving.take();
        wait_for(before).await;
        let last = self.names.save.is_some().then(|| self.names.save_now());
        wait_for(last).await;
    }

    /// Removes names whose time is over, as far as no connection uses their addresses. Who uses what is looked up in the background,
    /// so it takes two calls.
    pub(super) fn forget_expired_names(&mut self) {
        let used = self.names.used.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Used { at, addresses }) = used {
            self.names.table.forget_expired(at, &addresses);
            self.follow_names();
        }
        let now = unix_seconds();
        if !self.names.table.has_expired(now) {
            return;
        }
        let (bpffs, result) = (self.settings.bpffs.clone(), self.names.used.clone());
        tokio::task::spawn_blocking(move || match flows::in_use(&bpffs) {
            Ok(addresses) => {
                let used = Used { at: now, addresses };
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "expired names stay: connections cannot be read"
                );
            }
        });
    }
}

async fn wait_for(saving: Option<JoinHandle<()>>) {
    if let Some(task) = saving
        && let Err(error) = task.await
    {
        tracing::error!(%error, "learned names may not be kept on disk");
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read(file: &Path) -> io::Result<Saved> {
    match fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::new()),
        Err(error) => Err(error),
    }
}

fn write(file: &Path, saved: &Saved) -> io::Result<()> {
    let beside = file.with_added_extension("new");
    fs::write(&beside, serde_json::to_vec(saved)?)?;
    fs::rename(&beside, file)
}
