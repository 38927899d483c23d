//! How full the tables are that traffic fills. They drop what was used least recently when they are full: connections in the middle
//! would be forgotten, and nobody told. New connections fail when the node has no port left towards a destination. So it is told before.

use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cilium_api::condition::Condition;
use cilium_api::node_state::MAP_PRESSURE;
use cilium_bpf::layout::{NAT_IN, NatKey};
use cilium_delta::Table as _;
use cilium_drivers::maps::{self, Maps};
use rustix::time::ClockId;
use tokio::sync::watch;

use crate::host::NAT_PORTS;
use crate::watch::chain;

/// A pass over the tables takes some milliseconds of another thread.
const EVERY: Duration = Duration::from_secs(30);

/// Of a hundred entries: when there are more it is told, and when there are fewer it is over.
const BOUNDS: (usize, usize) = (90, 80);

/// What can be full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A table that traffic fills, by its name.
    Map(String),
    /// The ports that the node has towards one destination, for pods that are masqueraded and for clients of Services.
    Ports,
}

/// How full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) subject: Subject,
    /// Entries that count: not those of which the time is over.
    pub(crate) used: usize,
    pub(crate) size: u32,
    /// It is, or was just now, nearly full.
    is_high: bool,
}

impl Pressure {
    fn new(subject: Subject, used: usize, size: u32, before: &[Self]) -> Self {
        let was_high = before.iter().any(|it| it.subject == subject && it.is_high);
        let percent = used * 100 / usize::try_from(size).unwrap_or(usize::MAX).max(1);
        Self { subject, used, size, is_high: percent >= if was_high { BOUNDS.1 } else { BOUNDS.0 } }
    }

    /// From 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        self.used as f64 / f64::from(self.size.max(1))
    }

    /// Without the number of entries: a message that changes is written again.
    fn message(&self) -> String {
        match &self.subject {
            Subject::Map(map) => format!(
                "{map} has room for {} entries, and forgets connections in use when there are more: raise bpf-map-dynamic-size-ratio",
                self.size
            ),
            Subject::Ports => format!(
                "the node has {} ports towards one address and port, and new connections to a busy one will fail: spread its clients over more nodes, or its servers over more addresses (cilium-dbg bpf nat list)",
                self.size
            ),
        }
    }
}

/// The condition of the node; `None` before the first look. Its time is for whoever writes it.
pub(crate) fn condition(all: &[Pressure]) -> Option<Condition> {
    if all.is_empty() {
        return None;
    }
    let high = || all.iter().filter(|it| it.is_high);
    let reason = match high().next().map(|it| &it.subject) {
        None => "EnoughRoom",
        Some(Subject::Map(_)) => "TableNearlyFull",
        Some(Subject::Ports) => "PortsNearlyUsedUp",
    };
    let messages: Vec<String> = high().map(Pressure::message).collect();
    let status = if messages.is_empty() { "False" } else { "True" };
    Some(Condition::new(MAP_PRESSURE, status, reason, messages.join("; ")))
}

/// Looks at the tables for as long as somebody wants to know.
pub(crate) async fn follow(bpffs: PathBuf, sender: watch::Sender<Vec<Pressure>>) {
    while !sender.is_closed() {
        tokio::time::sleep(EVERY).await;
        let (bpffs, before) = (bpffs.clone(), sender.borrow().clone());
        match tokio::task::spawn_blocking(move || measure(&bpffs, &before)).await {
            Ok(Ok(now)) => publish(&sender, now),
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "how full the tables are is not known"),
            Err(_) => return,
        }
    }
}

/// Only what is nearly full, or is not any more, is news; the numbers are read when they are asked for.
fn publish(sender: &watch::Sender<Vec<Pressure>>, now: Vec<Pressure>) {
    sender.send_if_modified(|known| {
        let is_news = condition(known) != condition(&now);
        if is_news && now.iter().any(|it| it.is_high) {
            tracing::warn!(message = condition(&now).and_then(|it| it.message), "nearly full");
        }
        *known = now;
        is_news
    });
}

fn measure(bpffs: &Path, before: &[Pressure]) -> Result<Vec<Pressure>, maps::Error> {
    let mut maps = Maps::open(bpffs)?;
    let now = u32::try_from(rustix::time::clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(u32::MAX);
    let (mut connections, mut translated, mut ports) = (0, 0, Ports::new());
    maps.ct.each(&mut |_, entry| connections += usize::from(entry.expires >= now))?;
    maps.snat.each(&mut |key, entry| {
        if entry.expires >= now {
            translated += 1;
            ports.count(&key);
        }
    })?;
    let map = |name: &str| Subject::Map(name.to_owned());
    let all_ports = u32::from(NAT_PORTS.1 - NAT_PORTS.0) + 1;
    Ok(vec![
        Pressure::new(map(maps.ct.name()), connections, maps.ct.max_entries(), before),
        Pressure::new(map(maps.snat.name()), translated, maps.snat.max_entries(), before),
        Pressure::new(Subject::Ports, ports.most(), all_ports, before),
    ])
}

/// Ports in use by destination. Destinations with one hash are counted as one: there are more places than ports, so that hardly adds
/// to the figure, and a table of a million connections takes no more memory.
struct Ports {
    counts: Box<[u32]>,
    hasher: std::hash::RandomState,
}

impl Ports {
    const PLACES: usize = 1 << 16;

    fn new() -> Self {
        Self { counts: vec![0; Self::PLACES].into(), hasher: std::hash::RandomState::new() }
    }

    fn count(&mut self, key: &NatKey) {
        if key.direction == NAT_IN {
            let destination = (key.protocol, key.local, key.remote, key.remote_port);
            let place = self.hasher.hash_one(destination) % Self::PLACES as u64;
            self.counts[usize::try_from(place).unwrap_or(0)] += 1;
        }
    }

    /// Of the destination with the most of them.
    fn most(&self) -> usize {
        self.counts.iter().max().and_then(|most| usize::try_from(*most).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use cilium_bpf::layout::{NAT_OUT, NetPort};

    use super::*;

    fn mk_pressure(used: usize, before: &[Pressure]) -> Pressure {
        Pressure::new(Subject::Map("cilium_ct".to_owned()), used, 1000, before)
    }

    #[test]
    fn a_table_is_nearly_full_until_it_is_clearly_not() {
        let mut before = Vec::new();
        let mut status = |used| {
            before = vec![mk_pressure(used, &before)];
            condition(&before).expect("it was looked at").status
        };
        assert_eq!(status(899), "False");
        assert_eq!(status(900), "True");
        assert_eq!(status(800), "True", "not to and fro");
        assert_eq!(status(799), "False");
        assert_eq!(status(899), "False");
    }

    #[test]
    fn the_condition_says_what_is_full_and_not_by_how_much() {
        assert_eq!(condition(&[]), None);
        let ports = |used| Pressure::new(Subject::Ports, used, 4536, &[]);
        let told = condition(&[mk_pressure(900, &[]), ports(4500)]).expect("it was looked at");
        assert_eq!(told.reason.as_deref(), Some("TableNearlyFull"));
        let message = told.message.clone().unwrap_or_default();
        assert!(
            message.contains("cilium_ct has room for 1000") && message.contains("4536 ports"),
            "{message}"
        );
        assert_eq!(condition(&[mk_pressure(950, &[]), ports(4501)]), Some(told));
        let told = condition(&[mk_pressure(1, &[]), ports(4500)]).expect("it was looked at");
        assert_eq!(told.reason.as_deref(), Some("PortsNearlyUsedUp"));
        let told = condition(&[mk_pressure(1, &[]), ports(1)]).expect("it was looked at");
        assert_eq!((told.status.as_str(), told.reason.as_deref()), ("False", Some("EnoughRoom")));
    }

    #[test]
    fn ports_are_counted_for_the_busiest_destination() {
        let mut ports = Ports::new();
        let mut count = |direction, remote: u8, connections: u16| {
            for port in 0..connections {
                ports.count(&NatKey {
                    local: IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)).into(),
                    remote: IpAddr::from(Ipv4Addr::new(198, 51, 100, remote)).into(),
                    local_port: NetPort(61_000 + port),
                    remote_port: NetPort(443),
                    protocol: 6,
                    direction,
                });
            }
        };
        count(NAT_IN, 1, 300);
        count(NAT_IN, 2, 500);
        count(NAT_OUT, 3, 2000);
        // Both may have one hash, once in 65,536 runs.
        assert!([500, 800].contains(&ports.most()), "{}", ports.most());
    }
}
