//! Pods of this node: planned by the operator, linked by CNI.

use std::collections::HashMap;
use std::net::IpAddr;

use cilium_api::parts;
use cilium_api::parts::{HostPort, PartKey};
use cilium_bpf::layout::{Addr, Endpoint};
use cilium_delta::Tracker;

use crate::kernel::SlotIndex;
use crate::{Link, Mac, Neighbour};

/// A planned pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// UID of the pod.
    pub uid: String,
    /// Number of the endpoint.
    pub id: u16,
    /// Security identity.
    pub identity: u32,
    /// One address of each family at most.
    pub addresses: Vec<IpAddr>,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

impl Planned {
    fn new(part: &parts::Endpoint) -> Self {
        let addresses = part.ipv4.map(IpAddr::V4).into_iter().chain(part.ipv6.map(IpAddr::V6)).collect();
        let (uid, host_ports) = (part.uid.clone(), part.host_ports.clone());
        Self { uid, id: part.id, identity: part.identity, addresses, host_ports }
    }
}

/// Entries of the endpoint map, and neighbours of pods.
pub(crate) struct Endpoints {
    pub(crate) tracker: Tracker<Addr, Endpoint>,
    pub(crate) neighbours: Tracker<Neighbour, Mac>,
    planned: HashMap<PartKey, Planned>,
    links: HashMap<u16, Link>,
}

impl Endpoints {
    pub(crate) fn new() -> Self {
        Self {
            tracker: Tracker::new(),
            neighbours: Tracker::new(),
            planned: HashMap::new(),
            links: HashMap::new(),
        }
    }

    /// Takes an endpoint part, or that there is none. Returns what was planned before.
    pub(crate) fn plan(&mut self, key: &PartKey, part: Option<&parts::Endpoint>) -> Option<Planned> {
        match part {
            Some(part) => self.planned.insert(key.clone(), Planned::new(part)),
            None => self.planned.remove(key),
        }
    }

    /// Takes how an endpoint is linked, or that it is not.
    pub(crate) fn link(&mut self, id: u16, link: Option<Link>) -> Option<Link> {
        match link {
            Some(link) => self.links.insert(id, link),
            None => self.links.remove(&id),
        }
    }

    /// The plan of a pod.
    pub(crate) fn planned(&self, key: &PartKey) -> Option<&Planned> {
        self.planned.get(key)
    }

    /// Pods that ports of the node lead to.
    pub(crate) fn with_host_ports(&self) -> impl Iterator<Item = &PartKey> {
        self.planned.iter().filter(|(_, planned)| !planned.host_ports.is_empty()).map(|(key, _)| key)
    }

    /// The plan with this number.
    pub(crate) fn by_id(&self, id: u16) -> Option<(&PartKey, &Planned)> {
        self.planned.iter().find(|(_, planned)| planned.id == id)
    }

    /// The plan that has this address.
    pub(crate) fn by_address(&self, address: IpAddr) -> Option<&PartKey> {
        self.planned.iter().find(|(_, planned)| planned.addresses.contains(&address)).map(|(key, _)| key)
    }

    /// The link of a plan: made for the same pod.
    pub(crate) fn link_of(&self, planned: &Planned) -> Option<&Link> {
        self.links.get(&planned.id).filter(|link| link.uid == planned.uid)
    }

    /// Number of pods that are planned and linked.
    pub(crate) fn connected(&self) -> usize {
        self.planned.values().filter(|planned| self.link_of(planned).is_some()).count()
    }

    /// Takes away the entries of a plan, except for addresses that another plan has taken over meanwhile. Returns the
    /// addresses that are nobody's now.
    pub(crate) fn clear(&mut self, planned: &Planned) -> Vec<IpAddr> {
        let mut freed = Vec::new();
        for address in planned.addresses.iter().copied() {
            let addr = Addr::from(address);
            let Some(entry) = self.tracker.get(&addr).copied().filter(|entry| entry.id == planned.id) else {
                continue;
            };
            self.tracker.remove(&addr);
            self.neighbours.remove(&Neighbour { device: entry.ifindex, address });
            freed.push(address);
        }
        freed
    }

    /// Desires the entries of a plan, when it is linked. Returns the index of its device.
    pub(crate) fn fill(&mut self, planned: &Planned, slot: SlotIndex) -> Option<u32> {
        let link = self.link_of(planned)?;
        let (device, mac) = (link.ifindex, link.mac);
        let entry = Endpoint {
            ifindex: device,
            identity: planned.identity,
            slot: slot.0,
            id: planned.id,
            mac,
            host_mac: link.host_mac,
        };
        for address in &planned.addresses {
            self.tracker.set(Addr::from(*address), entry);
            self.neighbours.set(Neighbour { device, address: *address }, mac);
        }
        Some(device)
    }
}
