//! Router ids out of a pool: each router of each node has one of its own, and keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

/// Node and name of the router.
type Router = (Arc<str>, String);

/// Who has which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    held: BTreeMap<Ipv4Addr, Router>,
    of: BTreeMap<Router, Ipv4Addr>,
    /// Those that overrides tell: nobody gets one of them.
    told: BTreeSet<Ipv4Addr>,
}

impl Pool {
    /// The id of a router.
    pub(crate) fn get(&self, node: &Arc<str>, router: &str) -> Option<Ipv4Addr> {
        self.of.get(&(node.clone(), router.to_owned())).copied()
    }

    /// Takes the ids that overrides tell now. Gives the nodes that had one of them until now, and says whether
    /// another one is free again.
    pub(crate) fn reserve(&mut self, told: BTreeSet<Ipv4Addr>) -> (BTreeSet<Arc<str>>, bool) {
        let is_freed = !self.told.is_subset(&told);
        let lost: Vec<Router> = told.iter().filter_map(|id| self.held.remove(id)).collect();
        for router in &lost {
            self.of.remove(router);
        }
        self.told = told;
        (lost.into_iter().map(|(node, _)| node).collect(), is_freed)
    }

    /// Takes the ids of all other routers of a node back. Says whether there were any.
    pub(crate) fn keep(&mut self, node: &Arc<str>, routers: &BTreeSet<String>) -> bool {
        let of_node = self.of.range((node.clone(), String::new())..).take_while(|((it, _), _)| it == node);
        let gone = of_node.filter(|((_, router), _)| !routers.contains(router));
        let gone: Vec<(Router, Ipv4Addr)> = gone.map(|(router, id)| (router.clone(), *id)).collect();
        for (router, id) in &gone {
            self.of.remove(router);
            self.held.remove(id);
        }
        !gone.is_empty()
    }

    /// Gives a router the id that it is known to have had, unless it has one, or this one is taken.
    pub(crate) fn claim(&mut self, pool: Ipv4Net, node: &Arc<str>, router: &str, id: Ipv4Addr) {
        if pool.contains(&id) && self.get(node, router).is_none() && self.is_free(id) {
            self.put(node, router, id);
        }
    }

    /// Gives a router the first id that is free, unless it has one; `false`: there is none.
    pub(crate) fn allocate(&mut self, pool: Ipv4Net, node: &Arc<str>, router: &str) -> bool {
        if self.get(node, router).is_some() {
            return true;
        }
        let free = pool.hosts().find(|id| self.is_free(*id));
        if let Some(id) = free {
            self.put(node, router, id);
        }
        free.is_some()
    }

    fn is_free(&self, id: Ipv4Addr) -> bool {
        !id.is_unspecified() && !self.told.contains(&id) && !self.held.contains_key(&id)
    }

    fn put(&mut self, node: &Arc<str>, router: &str, id: Ipv4Addr) {
        self.held.insert(id, (node.clone(), router.to_owned()));
        self.of.insert((node.clone(), router.to_owned()), id);
    }
}

impl Pool {
    /// What is wrong, as sentences: an id that is not of the pool, that two have, or that an override tells.
    pub(crate) fn check(&self, pool: Ipv4Net) -> Vec<String> {
        let mut notes = Vec::new();
        for (router, id) in &self.of {
            if !pool.contains(id) || self.held.get(id) != Some(router) {
                notes.push(format!("router id {id} is not that of {} on {}", router.1, router.0));
            }
        }
        let told = self.of.iter().filter(|(_, id)| self.told.contains(*id));
        notes.extend(told.map(|((node, router), id)| {
            format!("router id {id} of {router} on {node} is one that an override tells")
        }));
        if self.of.len() != self.held.len() {
            notes.push(format!("{} router ids are held by {} routers", self.held.len(), self.of.len()));
        }
        notes
    }
}
