//! Addresses out of pools: which pool, and blocks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::pod_ip_pool::{DEFAULT_POOL, IPV4_POOL_ANNOTATION, IPV6_POOL_ANNOTATION, POOL_ANNOTATION};
use cilium_core::Labels;
use ipnet::IpNet;

use crate::blocks::Blocks;
use crate::error::Error;
use crate::ipam::{Ipam, Lease, v4, v6};
use crate::pool::Pool;

/// Pools that annotations of a pod or a namespace name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    both: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
}

impl Request {
    /// Reads annotations; `None`: they name no pool. An empty name is none.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Option<Self> {
        let named = |key| annotations?.get(key).filter(|name| !name.is_empty()).cloned();
        let request = Self {
            both: named(POOL_ANNOTATION),
            ipv4: named(IPV4_POOL_ANNOTATION),
            ipv6: named(IPV6_POOL_ANNOTATION),
        };
        (request != Self::default()).then_some(request)
    }

    fn pool(&self, is_ipv4: bool) -> Option<&String> {
        if is_ipv4 { self.ipv4.as_ref() } else { self.ipv6.as_ref() }.or(self.both.as_ref())
    }
}

/// What decides which pools a pod has addresses of: of the pod, or of its namespace.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// What its annotations say.
    pub request: Option<&'a Request>,
    /// Its labels.
    pub labels: &'a Labels,
}

/// Names of pools; `None`: pods have no address of the family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// For IPv4.
    pub ipv4: Option<String>,
    /// For IPv6.
    pub ipv6: Option<String>,
}

impl Choice {
    fn families(&self) -> impl Iterator<Item = (bool, &String)> {
        let (ipv4, ipv6) = (self.ipv4.iter(), self.ipv6.iter());
        ipv4.map(|pool| (true, pool)).chain(ipv6.map(|pool| (false, pool)))
    }
}

impl Ipam {
    /// Gives addresses out of pools.
    pub fn with_pools() -> Self {
        let mut ipam = Self::default();
        ipam.blocks = Some(Blocks::default());
        ipam
    }

    /// Whether it gives addresses out of pools.
    pub fn has_pools(&self) -> bool {
        self.blocks.is_some()
    }

    /// Takes a pool as it is now; `None` if it is gone. Pods keep what they have. Says whether anything changed.
    pub fn set_pool(&mut self, name: &str, pool: Option<Pool>) -> bool {
        self.blocks.as_mut().is_some_and(|blocks| blocks.set_pool(name, pool))
    }

    /// The pool of a pod for a family: as the pod's annotations say, as its namespace's do, the first one by name that selects
    /// it, or `default`.
    pub fn choose(&self, pod: &Asker<'_>, namespace: &Asker<'_>, is_ipv4: bool) -> String {
        let asked = [pod.request, namespace.request];
        let asked = asked.into_iter().flatten().find_map(|request| request.pool(is_ipv4));
        let selects =
            |pool: &Pool| pool.family(is_ipv4).is_some() && pool.selects(pod.labels, namespace.labels);
        let selecting = || {
            let mut pools = self.blocks.iter().flat_map(|blocks| &blocks.pools);
            pools.find(|(_, pool)| selects(pool)).map(|(name, _)| name)
        };
        asked.or_else(selecting).map_or(DEFAULT_POOL, String::as_str).to_owned()
    }

    /// Gives a number, and an address of each family out of its pool. A node without router address of a family gets one first.
    ///
    /// # Errors
    /// The node is not known, a pool is not there, lacks the family or is exhausted, or the node has no number left; then nothing
    /// was taken.
    pub fn allocate_from(&mut self, node: &str, choice: &Choice) -> Result<Lease, Error> {
        let no_prefix = || Error::NoPrefix { node: node.to_owned() };
        let known = self.blocks.as_mut().filter(|blocks| blocks.has_node(node));
        let blocks = known.ok_or_else(no_prefix)?;
        let mut found = Vec::with_capacity(2);
        for (is_ipv4, pool) in choice.families() {
            blocks.ensure_router(node, pool, is_ipv4, &self.held)?;
            found.push(blocks.find(node, pool, is_ipv4, &self.held)?);
        }
        let id = self.take_number(node)?;
        self.hold(node, found.iter().copied());
        Ok(Lease { id, ipv4: found.iter().copied().find_map(v4), ipv6: found.iter().copied().find_map(v6) })
    }

    /// Takes note that a node is there, or not any more.
    pub fn set_present(&mut self, node: &str, is_there: bool) {
        let Some(blocks) = &mut self.blocks else { return };
        if is_there { blocks.add_node(node) } else { blocks.remove_node(node) }
    }

    /// Gives every node that lacks it a router address out of the pool `default`, as far as it has one.
    pub fn give_routers(&mut self, families: &[bool]) {
        let Some(blocks) = &mut self.blocks else { return };
        for node in blocks.nodes() {
            for is_ipv4 in families {
                // A pod of the node may bring one of its own pool, and says what is missing.
                drop(blocks.ensure_router(&node, DEFAULT_POOL, *is_ipv4, &self.held));
            }
        }
    }

    /// Gives a node what it had before a restart: blocks of pools, and router addresses inside of them. Before pods are restored.
    pub fn restore_blocks(&mut self, node: &str, of_pools: &[(String, IpNet)], routers: &[IpAddr]) {
        let Some(blocks) = self.blocks.as_mut().filter(|blocks| blocks.has_node(node)) else { return };
        for (pool, prefix) in of_pools {
            blocks.claim(node, pool, prefix.trunc());
        }
        routers.iter().for_each(|address| blocks.claim_router(node, *address));
    }

    /// Takes blocks back that nobody needs. After pods were restored.
    pub fn trim(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.trim();
        }
    }

    /// Blocks of a node, each with its pool, in the order in which it got them.
    pub fn blocks(&self, node: &str) -> impl Iterator<Item = (&str, IpNet)> {
        self.blocks.iter().flat_map(move |blocks| blocks.of(node))
    }

    /// Whether pods get the first and the last address of a pool's blocks.
    pub fn allows_ends(&self, pool: &str) -> (bool, bool) {
        let pool = self.blocks.as_ref().and_then(|blocks| blocks.pools.get(pool));
        pool.map_or((false, false), |pool| (pool.allow_first, pool.allow_last))
    }

    /// Nodes whose blocks or router addresses changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        self.blocks.as_mut().map(Blocks::take_changed).unwrap_or_default()
    }

    /// What must hold at any time, and does not.
    pub fn check(&self) -> Vec<String> {
        self.blocks.as_ref().map(Blocks::check).unwrap_or_default()
    }
}
