//! Routes that peers made known, in the node's main table, where a CiliumBGPPeerConfig says `importRoutes`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cilium_delta::{Table, Tracker};
use cilium_drivers::netlink::{Error, LearnedRoutes, Netlink};
use cilium_rest::bgp::ImportedRoute;
use ipnet::IpNet;

use crate::watch::chain;

/// A speaker that has just begun does not know yet what its peers make known: so long, nothing is taken away.
const HOLD: Duration = Duration::from_secs(30);

/// What is in the table, and should be.
pub(super) struct Imports<T = LearnedRoutes> {
    tracker: Tracker<IpNet, Vec<IpAddr>>,
    table: Option<T>,
    since: Option<Instant>,
}

impl Imports {
    pub(super) fn new() -> Self {
        Self { tracker: Tracker::new(), table: None, since: None }
    }

    /// Makes the table so. Returns what cannot be.
    pub(super) fn set(&mut self, routes: Vec<ImportedRoute>) -> Vec<String> {
        if self.table.is_none() {
            match self.open() {
                Ok(table) => self.table = Some(table),
                Err(error) => return vec![chain(&error)],
            }
        }
        self.apply(routes)
    }

    /// What an earlier agent left counts as well.
    fn open(&mut self) -> Result<LearnedRoutes, Error> {
        let mut table = LearnedRoutes::new(Netlink::open()?);
        self.tracker.refresh(&mut table)?;
        Ok(table)
    }
}

impl<T: Table<IpNet, Vec<IpAddr>, Error = Error>> Imports<T> {
    /// The speaker begins anew.
    pub(super) fn hold(&mut self) {
        self.since = Some(Instant::now());
    }

    fn apply(&mut self, routes: Vec<ImportedRoute>) -> Vec<String> {
        let mut wanted: BTreeMap<IpNet, Vec<IpAddr>> =
            routes.into_iter().map(|route| (route.prefix, route.next_hops)).collect();
        if self.since.is_some_and(|since| since.elapsed() < HOLD) {
            for (prefix, next_hops) in self.tracker.actual() {
                wanted.entry(*prefix).or_insert_with(|| next_hops.clone());
            }
        }
        self.tracker.replace_desired(wanted);
        let Some(table) = &mut self.table else { return Vec::new() };
        let report = self.tracker.apply(table);
        report.failures.iter().map(|(_, error)| chain(error)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kernel(BTreeMap<IpNet, Vec<IpAddr>>);

    impl Table<IpNet, Vec<IpAddr>> for Kernel {
        type Error = Error;

        fn list(&mut self) -> Result<Vec<(IpNet, Vec<IpAddr>)>, Error> {
            Ok(self.0.clone().into_iter().collect())
        }

        fn set(&mut self, prefix: &IpNet, next_hops: &Vec<IpAddr>) -> Result<(), Error> {
            self.0.insert(*prefix, next_hops.clone());
            Ok(())
        }

        fn delete(&mut self, prefix: &IpNet) -> Result<(), Error> {
            self.0.remove(prefix);
            Ok(())
        }
    }

    #[test]
    fn a_speaker_that_begins_anew_takes_nothing_away_at_once() {
        let mk = |prefix: &str, next_hop: &str| ImportedRoute {
            prefix: prefix.parse().expect("a prefix"),
            next_hops: vec![next_hop.parse().expect("an address")],
        };
        let mut imports: Imports<Kernel> =
            Imports { tracker: Tracker::new(), table: Some(Kernel::default()), since: None };
        let prefixes = |imports: &Imports<Kernel>| {
            let table = imports.table.as_ref().expect("is there");
            table.0.iter().map(|(prefix, hops)| format!("{prefix} {}", hops[0])).collect::<Vec<_>>()
        };
        let (one, two) = (mk("198.51.100.0/24", "192.0.2.1"), mk("203.0.113.0/24", "192.0.2.1"));
        assert_eq!(imports.apply(vec![one, two]), Vec::<String>::new());
        imports.hold();
        imports.apply(vec![mk("203.0.113.0/24", "192.0.2.2")]);
        assert_eq!(prefixes(&imports), ["198.51.100.0/24 192.0.2.1", "203.0.113.0/24 192.0.2.2"]);
        imports.since = Instant::now().checked_sub(HOLD);
        imports.apply(vec![mk("203.0.113.0/24", "192.0.2.2")]);
        assert_eq!(prefixes(&imports), ["203.0.113.0/24 192.0.2.2"]);
    }
}
