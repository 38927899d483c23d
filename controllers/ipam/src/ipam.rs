use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::blocks::Blocks;
use crate::error::Error;
use crate::numbers::Numbers;
use crate::range::Range;

/// What one pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Endpoint number, unique on the node.
    pub id: u16,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Lease {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
        ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6))
    }
}

/// What a pod held before a restart, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Endpoint number.
    pub id: Option<u16>,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Record {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
        ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6))
    }
}

/// The addresses of a node's end of its pods' default routes: the second address of each prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Router {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
        ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6))
    }

    pub(crate) fn family(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.addresses().find(|address| address.is_ipv4() == is_ipv4)
    }
}

/// Prefixes and endpoint numbers of one node.
#[derive(Clone, Debug, Default)]
struct Own {
    ipv4: Option<Range>,
    ipv6: Option<Range>,
    numbers: Numbers,
    /// Place that was given last, in both families. They run in step, so that a pod has the same place in both.
    last: u32,
}

impl Own {
    fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ipv4.iter().chain(&self.ipv6)
    }
    fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.ranges().next().is_none()
    }
}

/// Who holds which address, for all nodes of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    nodes: BTreeMap<String, Own>,
    /// Of all nodes: records may name addresses outside the present prefixes of their node.
    pub(crate) held: BTreeSet<IpAddr>,
    /// `None`: addresses come out of prefixes of nodes.
    pub(crate) blocks: Option<Blocks>,
}

impl Ipam {
    /// Sets the pod prefixes of a node; the first of each family counts, as Kubernetes allows one. Leases stay as they are.
    /// Says whether anything changed.
    pub fn set_node(&mut self, node: &str, prefixes: &[IpNet]) -> bool {
        let first = |v4| prefixes.iter().find(|p| p.addr().is_ipv4() == v4).map(|p| Range::new(*p));
        let (ipv4, ipv6) = (first(true), first(false));
        let pool = self.nodes.entry(node.to_owned()).or_default();
        let changed = (pool.ipv4, pool.ipv6) != (ipv4, ipv6);
        (pool.ipv4, pool.ipv6) = (ipv4, ipv6);
        self.drop_empty(node);
        changed
    }

    /// Takes the prefixes away. Leases stay until they are released.
    pub fn remove_node(&mut self, node: &str) {
        self.set_node(node, &[]);
    }

    /// The router's addresses of a node.
    pub fn router(&self, node: &str) -> Router {
        if let Some(blocks) = &self.blocks {
            return blocks.router(node);
        }
        let router = |range: Option<Range>| range.and_then(|r| r.router());
        let Some(pool) = self.nodes.get(node) else { return Router::default() };
        Router { ipv4: router(pool.ipv4).and_then(v4), ipv6: router(pool.ipv6).and_then(v6) }
    }

    /// Whether an address lies in a pod prefix or a block of the node, at a place that pods may have.
    pub fn is_pod_address(&self, node: &str, address: IpAddr) -> bool {
        if let Some(blocks) = &self.blocks {
            return blocks.is_of(node, address) && !blocks.is_router(address);
        }
        self.nodes.get(node).is_some_and(|pool| {
            pool.ranges().any(|range| range.place(address).is_some_and(|place| range.has(place)))
        })
    }

    /// Gives a number, and an address of each family that the node has a prefix of; the same place in both if possible.
    ///
    /// # Errors
    /// [`Error::NoPrefix`], [`Error::AddressesExhausted`], [`Error::NumbersExhausted`]; then nothing was taken.
    pub fn allocate(&mut self, node: &str) -> Result<Lease, Error> {
        let no_prefix = || Error::NoPrefix { node: node.to_owned() };
        let held = &self.held;
        let pool = self.nodes.get_mut(node).ok_or_else(no_prefix)?;
        let (place, ipv4, ipv6) = match (pool.ipv4, pool.ipv6) {
            (None, None) => return Err(no_prefix()),
            (Some(range), None) => single(node, held, range, pool.last).map(|(p, a)| (p, Some(a), None))?,
            (None, Some(range)) => single(node, held, range, pool.last).map(|(p, a)| (p, None, Some(a)))?,
            (Some(r4), Some(r6)) => {
                let (place, a4, a6) = pair(node, held, r4, r6, pool.last)?;
                (place, Some(a4), Some(a6))
            }
        };
        let id = pool.numbers.take_next().ok_or_else(|| Error::NumbersExhausted { node: node.to_owned() })?;
        pool.last = place;
        self.held.extend(ipv4.into_iter().chain(ipv6));
        Ok(Lease { id, ipv4: ipv4.and_then(v4), ipv6: ipv6.and_then(v6) })
    }

    /// Takes what a pod held before. An absent or used number is replaced, addresses are kept exactly; they may lie outside the
    /// node's prefixes, and the node need not be known.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if another pod holds an address, or if it is reserved in a prefix of the node;
    /// [`Error::NumbersExhausted`]. Then nothing was taken.
    pub fn restore(&mut self, node: &str, record: &Record) -> Result<Lease, Error> {
        if let Some(address) =
            record.addresses().find(|a| self.held.contains(a) || self.is_reserved(node, *a))
        {
            return Err(Error::Unavailable { node: node.to_owned(), address });
        }
        let pool = self.nodes.entry(node.to_owned()).or_default();
        let kept = record.id.filter(|id| pool.numbers.take(*id));
        let id = kept
            .or_else(|| pool.numbers.take_next())
            .ok_or_else(|| Error::NumbersExhausted { node: node.to_owned() })?;
        let places = record.addresses().filter_map(|a| pool.ranges().find_map(|range| range.place(a)));
        pool.last = places.fold(pool.last, u32::max);
        self.hold(node, record.addresses());
        Ok(Lease { id, ipv4: record.ipv4, ipv6: record.ipv6 })
    }

    /// Frees what a pod of the node held.
    pub fn release(&mut self, node: &str, lease: &Lease) {
        if let Some(pool) = self.nodes.get_mut(node) {
            pool.numbers.release(lease.id);
        }
        for address in lease.addresses() {
            self.held.remove(&address);
            if let Some(blocks) = &mut self.blocks {
                blocks.release(node, address);
            }
        }
        self.drop_empty(node);
    }

    /// Number of addresses that are held, in the whole cluster.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes addresses for a pod of the node.
    pub(crate) fn hold(&mut self, node: &str, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.held.insert(address);
            if let Some(blocks) = &mut self.blocks {
                blocks.use_one(node, address);
            }
        }
    }

    pub(crate) fn take_number(&mut self, node: &str) -> Result<u16, Error> {
        let number = self.nodes.entry(node.to_owned()).or_default().numbers.take_next();
        number.ok_or_else(|| Error::NumbersExhausted { node: node.to_owned() })
    }

    fn is_reserved(&self, node: &str, address: IpAddr) -> bool {
        if let Some(blocks) = &self.blocks {
            return blocks.is_router(address);
        }
        self.nodes.get(node).is_some_and(|pool| {
            pool.ranges().any(|range| range.place(address).is_some_and(|place| !range.has(place)))
        })
    }

    fn drop_empty(&mut self, node: &str) {
        if self.nodes.get(node).is_some_and(Own::is_empty) {
            self.nodes.remove(node);
        }
    }
}

/// The next free place of one range, with its address.
fn single(node: &str, held: &BTreeSet<IpAddr>, range: Range, last: u32) -> Result<(u32, IpAddr), Error> {
    range
        .places_after(last)
        .map(|place| (place, range.address(place)))
        .find(|(_, address)| !held.contains(address))
        .ok_or_else(|| Error::AddressesExhausted { node: node.to_owned(), prefix: range.prefix() })
}

/// The next place that is free in both ranges; without one, the next of each.
fn pair(
    node: &str,
    held: &BTreeSet<IpAddr>,
    r4: Range,
    r6: Range,
    last: u32,
) -> Result<(u32, IpAddr, IpAddr), Error> {
    let common = r4
        .places_after(last)
        .filter(|place| r6.has(*place))
        .map(|place| (place, r4.address(place), r6.address(place)))
        .find(|(_, a4, a6)| !held.contains(a4) && !held.contains(a6));
    if let Some(found) = common {
        return Ok(found);
    }
    let (place, a4) = single(node, held, r4, last)?;
    let (_, a6) = single(node, held, r6, last)?;
    Ok((place, a4, a6))
}

pub(crate) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(it) => Some(it),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(it) => Some(it),
        IpAddr::V4(_) => None,
    }
}
