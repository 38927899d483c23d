//! How full the tables are that traffic fills. They drop what was used least recently when they are full: connections in the middle
//! would be forgotten, and nobody told. So it is told before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cilium_api::node_state::Failure;
use cilium_drivers::maps::{self, Maps};
use rustix::time::ClockId;
use tokio::sync::watch;

use crate::watch::chain;

/// A pass over the tables takes some milliseconds of another thread.
const EVERY: Duration = Duration::from_secs(30);

/// Of a hundred entries: when there are more it is a failure, and when there are fewer it is over.
const BOUNDS: (usize, usize) = (90, 80);

/// A table that traffic fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) map: String,
    /// Entries that count: not those of which the time is over.
    pub(crate) used: usize,
    pub(crate) size: u32,
    /// It is, or was just now, nearly full.
    is_high: bool,
}

impl Pressure {
    fn new(map: &str, used: usize, size: u32, before: &[Self]) -> Self {
        let was_high = before.iter().any(|it| it.map == map && it.is_high);
        let percent = used * 100 / usize::try_from(size).unwrap_or(usize::MAX).max(1);
        Self {
            map: map.to_owned(),
            used,
            size,
            is_high: percent >= if was_high { BOUNDS.1 } else { BOUNDS.0 },
        }
    }

    /// From 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        self.used as f64 / f64::from(self.size.max(1))
    }
}

/// Tables that are nearly full. Without the number of entries: a message that changes is told again.
pub(crate) fn failures(all: &[Pressure]) -> Vec<Failure> {
    let failure = |it: &Pressure| Failure {
        object: format!("map/{}", it.map),
        message: format!(
            "nearly full: it has room for {} entries, and forgets connections in use when there are more; raise bpf-map-dynamic-size-ratio",
            it.size
        ),
    };
    all.iter().filter(|it| it.is_high).map(failure).collect()
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
        let is_news = failures(known) != failures(&now);
        *known = now;
        is_news
    });
}

fn measure(bpffs: &Path, before: &[Pressure]) -> Result<Vec<Pressure>, maps::Error> {
    let maps = Maps::open(bpffs)?;
    let now = u32::try_from(rustix::time::clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(u32::MAX);
    let ct = maps.ct.count_if(|entry| entry.expires >= now)?;
    let snat = maps.snat.count_if(|entry| entry.expires >= now)?;
    Ok(vec![
        Pressure::new(maps.ct.name(), ct, maps.ct.max_entries(), before),
        Pressure::new(maps.snat.name(), snat, maps.snat.max_entries(), before),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_nearly_full_until_it_is_clearly_not() {
        let mut before = Vec::new();
        let mut failing = |used| {
            before = vec![Pressure::new("cilium_ct", used, 1000, &before)];
            failures(&before).into_iter().map(|failure| failure.object).collect::<Vec<_>>()
        };
        assert_eq!(failing(899), Vec::<String>::new());
        assert_eq!(failing(900), ["map/cilium_ct"]);
        assert_eq!(failing(800), ["map/cilium_ct"], "not to and fro");
        assert_eq!(failing(799), Vec::<String>::new());
        assert_eq!(failing(899), Vec::<String>::new());
    }

    #[test]
    fn the_message_stays_the_same_while_the_number_changes() {
        let told = |used| failures(&[Pressure::new("cilium_snat", used, 1000, &[])]);
        assert_eq!(told(900), told(950));
        assert!(told(900)[0].message.contains("1000"));
    }
}
