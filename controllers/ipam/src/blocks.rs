//! Blocks of pools that nodes have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::pod_ip_pool::DEFAULT_POOL;
use ipnet::IpNet;

use crate::error::Error;
use crate::ipam::{Router, v4, v6};
use crate::pool::{Family, Pool};
use crate::range::Range;

/// A block that a node has.
#[derive(Clone, Debug)]
struct Block {
    node: String,
    pool: String,
    range: Range,
    /// Addresses of it that pods of the node or its router have.
    used: BTreeSet<IpAddr>,
    /// Place that was given last.
    last: u32,
}

/// Pools, and which node has which of their blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) pools: BTreeMap<String, Pool>,
    /// By their first address. They do not overlap.
    all: BTreeMap<IpAddr, Block>,
    /// First addresses of a node's blocks, in the order in which it got them.
    of_node: BTreeMap<String, Vec<IpAddr>>,
    /// Nodes that are there, with their router addresses.
    routers: BTreeMap<String, Router>,
    /// Nodes whose blocks or router addresses changed.
    changed: BTreeSet<String>,
}

pub(crate) fn family_name(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "IPv4" } else { "IPv6" }
}

impl Blocks {
    /// Takes a pool as it is now. Blocks that it has no more are taken back when they are free.
    pub(crate) fn set_pool(&mut self, name: &str, pool: Option<Pool>) -> bool {
        if self.pools.get(name) == pool.as_ref() {
            return false;
        }
        let (first, last) = pool.as_ref().map_or((false, false), |pool| (pool.allow_first, pool.allow_last));
        for block in self.all.values_mut().filter(|block| block.pool == name) {
            block.range = Range::of_block(block.range.prefix(), first, last);
        }
        match pool {
            Some(pool) => drop(self.pools.insert(name.to_owned(), pool)),
            None => drop(self.pools.remove(name)),
        }
        self.trim_where(|block| block.pool == name);
        true
    }

    /// Takes note that a node is there.
    pub(crate) fn add_node(&mut self, node: &str) {
        self.routers.entry(node.to_owned()).or_default();
    }

    /// Takes note that a node is gone. Blocks in which pods have addresses stay until these are released.
    pub(crate) fn remove_node(&mut self, node: &str) {
        let Some(router) = self.routers.remove(node) else { return };
        router.addresses().for_each(|address| self.unuse(address));
        self.trim_where(|block| block.node == node);
    }

    /// Gives a node the block that it had before a restart.
    pub(crate) fn claim(&mut self, node: &str, pool: &str, prefix: IpNet) -> bool {
        if self.overlapping(prefix).is_some() {
            return false;
        }
        self.put(node, pool, prefix);
        true
    }

    /// Gives a node the router address that it had before a restart, if it lies in a block that the node has or can get.
    pub(crate) fn claim_router(&mut self, node: &str, address: IpAddr) {
        self.bring_back(node, address);
        if !self.is_of(node, address) || !self.routers.contains_key(node) {
            return;
        }
        self.set_router(node, address);
    }

    /// The router addresses of a node.
    pub(crate) fn router(&self, node: &str) -> Router {
        self.routers.get(node).copied().unwrap_or_default()
    }

    /// Blocks of a node with their pools, in the order in which it got them.
    pub(crate) fn of(&self, node: &str) -> impl Iterator<Item = (&str, IpNet)> {
        let blocks = self.of_node.get(node).into_iter().flatten().filter_map(|first| self.all.get(first));
        blocks.map(|block| (&*block.pool, block.range.prefix()))
    }

    /// Whether a node is there.
    pub(crate) fn has_node(&self, node: &str) -> bool {
        self.routers.contains_key(node)
    }

    /// Nodes that are there.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.routers.keys().cloned().collect()
    }

    /// Nodes whose blocks or router addresses changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Whether an address lies in a block of the node.
    pub(crate) fn is_of(&self, node: &str, address: IpAddr) -> bool {
        self.around(address).is_some_and(|block| block.node == node)
    }

    /// Whether an address is a router's.
    pub(crate) fn is_router(&self, address: IpAddr) -> bool {
        let block = self.around(address);
        block.is_some_and(|block| self.router(&block.node).addresses().any(|router| router == address))
    }

    /// Gives a node a router address of a family, if it has none: of the pool `default`, or of another one.
    ///
    /// # Errors
    /// Neither pool has an address for it.
    pub(crate) fn ensure_router(
        &mut self,
        node: &str,
        other: &str,
        is_ipv4: bool,
        held: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        if !self.routers.contains_key(node) || self.router(node).family(is_ipv4).is_some() {
            return Ok(());
        }
        let found = self.find(node, DEFAULT_POOL, is_ipv4, held);
        let address = found.or_else(|_| self.find(node, other, is_ipv4, held))?;
        self.set_router(node, address);
        Ok(())
    }

    /// A free address of a pool for a pod of the node. It is free until [`Blocks::use_one`].
    ///
    /// # Errors
    /// There is no such pool, it has no such family, or no free block.
    pub(crate) fn find(
        &mut self,
        node: &str,
        pool: &str,
        is_ipv4: bool,
        held: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, Error> {
        let family = self.family(pool, is_ipv4)?.clone();
        if let Some(address) = self.free_address(node, pool, &family, is_ipv4, held) {
            return Ok(address);
        }
        // Held addresses outside of blocks of their node can fill a block that nobody has: then the next one is cut.
        while let Some(prefix) = self.cut(&family).or_else(|| self.take_back(pool, node, &family)) {
            self.put(node, pool, prefix);
            if let Some(address) = self.free_address(node, pool, &family, is_ipv4, held) {
                return Ok(address);
            }
        }
        self.trim_where(|block| block.node == node && block.pool == pool);
        let (pool, node) = (pool.to_owned(), node.to_owned());
        Err(Error::PoolExhausted { pool, family: family_name(is_ipv4), node })
    }

    fn family(&self, pool: &str, is_ipv4: bool) -> Result<&Family, Error> {
        let (name, family) = (|| pool.to_owned(), family_name(is_ipv4));
        let found = self.pools.get(pool).ok_or_else(|| Error::NoPool { pool: name(), family })?;
        found.family(is_ipv4).ok_or_else(|| Error::NoFamily { pool: name(), family })
    }

    fn free_address(
        &self,
        node: &str,
        pool: &str,
        family: &Family,
        is_ipv4: bool,
        held: &BTreeSet<IpAddr>,
    ) -> Option<IpAddr> {
        let blocks = self.of_node.get(node)?.iter().filter_map(|first| self.all.get(first));
        let usable = blocks.filter(|block| {
            let prefix = block.range.prefix();
            block.pool == pool && prefix.addr().is_ipv4() == is_ipv4 && family.has(prefix)
        });
        let router = self.router(node).family(is_ipv4);
        usable.into_iter().find_map(|block| {
            let all = block.range.places_after(block.last).map(|place| block.range.address(place));
            all.into_iter().find(|address| !held.contains(address) && router != Some(*address))
        })
    }

    /// The first block of the pool's prefixes that no node has.
    fn cut(&self, family: &Family) -> Option<IpNet> {
        family.cidrs.iter().find_map(|cidr| {
            let mut next = IpNet::new(cidr.network(), family.mask).ok()?;
            while let Some(taken) = self.overlapping(next) {
                // Of two prefixes that overlap, one contains the other: no block begins before the end of the larger one.
                let end = next.broadcast().max(taken.range.prefix().broadcast());
                next = IpNet::new(following(end)?, family.mask).ok()?;
                if !cidr.contains(&next) {
                    return None;
                }
            }
            cidr.contains(&next).then_some(next)
        })
    }

    /// Takes a block back that its node only keeps for later pods.
    fn take_back(&mut self, pool: &str, node: &str, family: &Family) -> Option<IpNet> {
        let is_ipv4 = family.cidrs.first()?.addr().is_ipv4();
        let mut all = self.all.values();
        let spare = all.find(|block| {
            let prefix = block.range.prefix();
            let is_alike = prefix.addr().is_ipv4() == is_ipv4 && prefix.prefix_len() == family.mask;
            block.used.is_empty()
                && block.pool == pool
                && block.node != node
                && is_alike
                && family.has(prefix)
        })?;
        let prefix = spare.range.prefix();
        self.remove(prefix.network());
        Some(prefix)
    }

    /// Marks an address as used. If it lies in a block that nobody has, the node gets it.
    pub(crate) fn use_one(&mut self, node: &str, address: IpAddr) {
        self.bring_back(node, address);
        if let Some(block) = self.around_mut(address).filter(|block| block.node == node) {
            block.used.insert(address);
            block.last = block.range.place(address).unwrap_or_default();
        }
    }

    /// Gives a node the block of an address, if nobody has it.
    fn bring_back(&mut self, node: &str, address: IpAddr) {
        if self.around(address).is_none()
            && let Some((pool, prefix)) = self.block_for(address)
        {
            self.claim(node, &pool, prefix);
        }
    }

    /// The block of a pool that an address belongs to.
    fn block_for(&self, address: IpAddr) -> Option<(String, IpNet)> {
        let mut pools = self.pools.iter();
        pools.find_map(|(name, pool)| {
            let family = pool.family(address.is_ipv4())?;
            let prefix = IpNet::new(address, family.mask).ok()?.trunc();
            family.has(prefix).then(|| (name.clone(), prefix))
        })
    }

    /// Marks an address of the node as free, and takes its block back if the node has another free one.
    pub(crate) fn release(&mut self, node: &str, address: IpAddr) {
        if !self.is_of(node, address) {
            return;
        }
        self.unuse(address);
        let Some(block) = self.around(address).filter(|block| block.used.is_empty()) else { return };
        let pool = block.pool.clone();
        self.trim_where(|block| block.node == node && block.pool == pool);
    }

    fn unuse(&mut self, address: IpAddr) {
        if let Some(block) = self.around_mut(address) {
            block.used.remove(&address);
        }
    }

    /// Takes free blocks back: all but one of each node, pool and family, and that one too when the node is gone or the
    /// pool does not have it any more.
    fn trim_where(&mut self, picks: impl Fn(&Block) -> bool) {
        let mut kept = BTreeSet::new();
        let mut spare = Vec::new();
        for (first, block) in self.all.iter().filter(|(_, block)| block.used.is_empty() && picks(block)) {
            let prefix = block.range.prefix();
            let family = self.pools.get(&block.pool).and_then(|pool| pool.family(first.is_ipv4()));
            let is_current = family.is_some_and(|family| family.has(prefix));
            let is_kept = is_current && self.routers.contains_key(&block.node);
            if !is_kept || !kept.insert((&block.node, &block.pool, first.is_ipv4())) {
                spare.push(*first);
            }
        }
        spare.into_iter().for_each(|first| self.remove(first));
    }

    /// Takes back what nobody needs after a restart.
    pub(crate) fn trim(&mut self) {
        self.trim_where(|_| true);
    }

    fn put(&mut self, node: &str, pool: &str, prefix: IpNet) {
        let ends = self.pools.get(pool).map_or((false, false), |pool| (pool.allow_first, pool.allow_last));
        let range = Range::of_block(prefix, ends.0, ends.1);
        let block = Block {
            node: node.to_owned(),
            pool: pool.to_owned(),
            range,
            used: BTreeSet::new(),
            last: u32::MAX,
        };
        let first = range.prefix().network();
        self.all.insert(first, block);
        self.of_node.entry(node.to_owned()).or_default().push(first);
        self.changed.insert(node.to_owned());
    }

    fn remove(&mut self, first: IpAddr) {
        let Some(block) = self.all.remove(&first) else { return };
        if let Some(blocks) = self.of_node.get_mut(&block.node) {
            blocks.retain(|it| *it != first);
            if blocks.is_empty() {
                self.of_node.remove(&block.node);
            }
        }
        self.changed.insert(block.node);
    }

    fn set_router(&mut self, node: &str, address: IpAddr) {
        let router = self.routers.entry(node.to_owned()).or_default();
        match address {
            IpAddr::V4(_) if router.ipv4.is_none() => router.ipv4 = v4(address),
            IpAddr::V6(_) if router.ipv6.is_none() => router.ipv6 = v6(address),
            _ => return,
        }
        self.use_one(node, address);
        self.changed.insert(node.to_owned());
    }

    /// What must hold at any time, and does not.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut before: Option<IpNet> = None;
        for block in self.all.values() {
            let prefix = block.range.prefix();
            if before.is_some_and(|before| before.contains(&prefix.network())) {
                notes.push(format!("block {prefix} of node {} is inside of another one", block.node));
            }
            if block.used.iter().any(|address| !prefix.contains(address)) {
                notes.push(format!("block {prefix} counts addresses outside of it"));
            }
            before = Some(prefix);
        }
        let listed: BTreeSet<&IpAddr> = self.of_node.values().flatten().collect();
        if !listed.into_iter().eq(self.all.keys()) {
            notes.push("blocks of nodes are not all blocks".to_owned());
        }
        notes
    }

    /// A block that has addresses of a prefix.
    fn overlapping(&self, prefix: IpNet) -> Option<&Block> {
        let (_, block) = self.all.range(prefix.network()..=prefix.broadcast()).next_back().or_else(|| {
            let before = self.all.range(..prefix.network()).next_back()?;
            before.1.range.prefix().contains(&prefix.network()).then_some(before)
        })?;
        Some(block)
    }

    fn around(&self, address: IpAddr) -> Option<&Block> {
        let (_, block) = self.all.range(..=address).next_back()?;
        block.range.prefix().contains(&address).then_some(block)
    }

    fn around_mut(&mut self, address: IpAddr) -> Option<&mut Block> {
        let (_, block) = self.all.range_mut(..=address).next_back()?;
        block.range.prefix().contains(&address).then_some(block)
    }
}

/// The address after this one.
fn following(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(it) => it.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(it) => it.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
