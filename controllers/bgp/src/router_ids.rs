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
}

impl Pool {
    /// The id of a router.
    pub(crate) fn get(&self, node: &Arc<str>, router: &str) -> Option<Ipv4Addr> {
        self.of.get(&(node.clone(), router.to_owned())).copied()
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

    /// Gives a router the id that it is known to have had, unless it has one, or somebody else has this one.
    pub(crate) fn claim(&mut self, pool: Ipv4Net, node: &Arc<str>, router: &str, id: Ipv4Addr) {
        if pool.contains(&id) && self.get(node, router).is_none() && !self.held.contains_key(&id) {
            self.put(node, router, id);
        }
    }

    /// Gives a router the first id that is free, unless it has one; `false`: there is none.
    pub(crate) fn allocate(&mut self, pool: Ipv4Net, node: &Arc<str>, router: &str) -> bool {
        if self.get(node, router).is_some() {
            return true;
        }
        let free = pool.hosts().find(|id| !id.is_unspecified() && !self.held.contains_key(id));
        if let Some(id) = free {
            self.put(node, router, id);
        }
        free.is_some()
    }

    fn put(&mut self, node: &Arc<str>, router: &str, id: Ipv4Addr) {
        self.held.insert(id, (node.clone(), router.to_owned()));
        self.of.insert((node.clone(), router.to_owned()), id);
    }
}

impl Pool {
    /// What is wrong, as sentences: an id that is not of the pool, or that two have.
    pub(crate) fn check(&self, pool: Ipv4Net) -> Vec<String> {
        let mut notes = Vec::new();
        for (router, id) in &self.of {
            if !pool.contains(id) || self.held.get(id) != Some(router) {
                notes.push(format!("router id {id} is not that of {} on {}", router.1, router.0));
            }
        }
        if self.of.len() != self.held.len() {
            notes.push(format!("{} router ids are held by {} routers", self.held.len(), self.of.len()));
        }
        notes
    }
}
