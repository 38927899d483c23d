//! Routes and neighbours, written by a thread of their own.
//!
//! The kernel takes such a write under the lock of all network configuration, which others hold for long while pods come and go.
//! Policies and new pods must not wait for that, and need not: packets for a pod whose route or neighbour is on its way wait in the
//! kernel, or are sent again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use cilium_api::node_state::Failure;
use cilium_dataplane as dataplane;
use cilium_delta::Table;
use cilium_drivers::netlink::{self, Mac, Neighbour, NeighbourTable, Netlink, Route, RouteTable};
use ipnet::IpNet;

use crate::watch::chain;

/// Both tables, as they shall be.
#[derive(Debug)]
enum Write {
    Route(IpNet, Option<dataplane::Route>),
    Neighbour(dataplane::Neighbour, Option<dataplane::Mac>),
}

/// What both threads know.
#[derive(Default)]
struct Shared {
    /// Writes that have not been done.
    waiting: AtomicUsize,
    /// What could not be written, by name, and why.
    failures: Mutex<BTreeMap<String, String>>,
}

/// Both tables.
struct Tables {
    routes: RouteTable,
    neighbours: NeighbourTable,
}

/// Hands writes to the thread, and reads the tables itself.
pub(crate) struct Wires {
    tables: Tables,
    writes: mpsc::Sender<Write>,
    shared: Arc<Shared>,
}

impl Wires {
    /// Starts the thread, which ends with the value.
    pub(crate) fn open() -> Result<Self, netlink::Error> {
        let (writes, queue) = mpsc::channel();
        let (tables, mut theirs) = (Tables::open()?, Tables::open()?);
        let shared = Arc::new(Shared::default());
        let known = shared.clone();
        thread::spawn(move || {
            for write in queue {
                theirs.carry_out(&write, &known);
                known.waiting.fetch_sub(1, Ordering::Release);
            }
        });
        Ok(Self { tables, writes, shared })
    }

    /// Nothing is on its way: what is listed is what was written.
    pub(crate) fn is_settled(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) == 0
    }

    /// What could not be written.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        let failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = |(object, message): (&String, &String)| Failure {
            object: object.clone(),
            message: message.clone(),
        };
        failures.iter().map(failure).collect()
    }

    fn hand_over(&self, write: Write) {
        self.shared.waiting.fetch_add(1, Ordering::Release);
        // The thread ends only with this value.
        let _ = self.writes.send(write);
    }
}

impl Tables {
    fn open() -> Result<Self, netlink::Error> {
        Ok(Self {
            routes: RouteTable::new(Netlink::open()?),
            neighbours: NeighbourTable::new(Netlink::open()?),
        })
    }

    fn carry_out(&mut self, write: &Write, shared: &Shared) {
        let (name, result) = match write {
            Write::Route(to, route) => (format!("route {to}"), self.write_route(to, route.as_ref())),
            Write::Neighbour(key, mac) => {
                (format!("neighbour {}", key.address), self.write_neighbour(key, *mac))
            }
        };
        let mut failures = shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => drop(failures.remove(&name)),
            Err(error) => {
                let message = chain(&error);
                tracing::error!(object = name, error = message, "not written");
                failures.insert(name, message);
            }
        }
    }

    fn write_route(&mut self, to: &IpNet, route: Option<&dataplane::Route>) -> Result<(), netlink::Error> {
        match route {
            Some(&dataplane::Route { device, via, source, mtu }) => {
                self.routes.set(to, &Route { device, via, source, mtu })
            }
            None => self.routes.delete(to),
        }
    }

    fn write_neighbour(
        &mut self,
        key: &dataplane::Neighbour,
        mac: Option<dataplane::Mac>,
    ) -> Result<(), netlink::Error> {
        let key = Neighbour { device: key.device, address: key.address };
        match mac {
            Some(mac) => self.neighbours.set(&key, &Mac(mac)),
            None => self.neighbours.delete(&key),
        }
    }
}

impl Table<IpNet, dataplane::Route> for Wires {
    type Error = netlink::Error;
    fn list(&mut self) -> Result<Vec<(IpNet, dataplane::Route)>, netlink::Error> {
        let of = |Route { device, via, source, mtu }| dataplane::Route { device, via, source, mtu };
        Ok(self.tables.routes.list()?.into_iter().map(|(to, route)| (to, of(route))).collect())
    }
    fn set(&mut self, to: &IpNet, route: &dataplane::Route) -> Result<(), netlink::Error> {
        self.hand_over(Write::Route(*to, Some(*route)));
        Ok(())
    }
    fn delete(&mut self, to: &IpNet) -> Result<(), netlink::Error> {
        self.hand_over(Write::Route(*to, None));
        Ok(())
    }
}

impl Table<dataplane::Neighbour, dataplane::Mac> for Wires {
    type Error = netlink::Error;
    fn list(&mut self) -> Result<Vec<(dataplane::Neighbour, dataplane::Mac)>, netlink::Error> {
        let of = |device: u32, address: IpAddr| dataplane::Neighbour { device, address };
        let found = self.tables.neighbours.list()?.into_iter();
        Ok(found.map(|(key, mac)| (of(key.device, key.address), mac.0)).collect())
    }
    fn set(&mut self, key: &dataplane::Neighbour, mac: &dataplane::Mac) -> Result<(), netlink::Error> {
        self.hand_over(Write::Neighbour(*key, Some(*mac)));
        Ok(())
    }
    fn delete(&mut self, key: &dataplane::Neighbour) -> Result<(), netlink::Error> {
        self.hand_over(Write::Neighbour(*key, None));
        Ok(())
    }
}
