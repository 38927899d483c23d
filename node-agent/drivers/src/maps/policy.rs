//! What policies say, in three maps: of peers, of aggregates, and of peers of whom they say much.

use std::path::Path;

use cilium_bpf::layout::{PolicyAggregate, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules};
use cilium_delta::Table;

use super::{Error, Map};

/// The maps of policies.
pub struct PolicyMaps {
    /// What fits into one entry, of every peer that is spoken of.
    pub peers: PeerMap,
    /// The rules that do not.
    pub ports: Map<PolicyKey, PolicyEntry>,
}

impl PolicyMaps {
    /// Opens them; `pins` is the directory of the pins.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Layout`].
    pub fn open(pins: &Path) -> Result<Self, Error> {
        let peers = PeerMap {
            named: Map::open(&pins.join("cilium_policy"))?,
            aggregates: Map::open(&pins.join("cilium_policy_aggregates"))?,
        };
        Ok(Self { peers, ports: Map::open(&pins.join("cilium_policy_ports"))? })
    }

    /// All rules, wherever they stand.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn rules(&mut self) -> Result<Vec<(PolicyKey, PolicyEntry)>, Error> {
        let mut rules = self.ports.list()?;
        self.peers.each(&mut |peer, said| rules.extend(said.unpack(peer)))?;
        Ok(rules)
    }

    /// How many rules there are.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn count(&mut self) -> Result<usize, Error> {
        let mut count = self.ports.count()?;
        self.peers.each(&mut |peer, said| count += said.unpack(peer).count())?;
        Ok(count)
    }

    /// Removes everything of the generations that `keep` refuses. Returns how many rules went.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Delete`].
    pub fn retain_generations(&mut self, keep: impl Fn(u32) -> bool) -> Result<usize, Error> {
        let (mut obsolete, mut count) = (Vec::new(), 0);
        self.peers.each(&mut |peer, said| {
            if !keep(peer.generation) {
                count += said.unpack(peer).count();
                obsolete.push(peer);
            }
        })?;
        obsolete.iter().try_for_each(|peer| self.peers.delete(peer))?;
        Ok(count + self.ports.retain_generations(keep)?)
    }
}

/// What is said of peers: a hash map, and for aggregates an array in which the generation tells their place.
pub struct PeerMap {
    named: Map<PolicyPeer, PolicyRules>,
    aggregates: Map<u32, PolicyAggregate>,
}

impl PeerMap {
    /// The hash map's name.
    pub fn name(&self) -> &str {
        self.named.name()
    }

    /// How many peers fit that are not aggregates.
    pub fn max_entries(&self) -> u32 {
        self.named.max_entries()
    }

    /// What is said of a peer.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn get(&self, peer: &PolicyPeer) -> Result<Option<PolicyRules>, Error> {
        let Some(index) = peer.aggregate_index() else { return self.named.get(peer) };
        let found = self.aggregates.get(&index)?.filter(|element| element.generation == peer.generation);
        Ok(found.map(|element| element.said))
    }
}

impl Table<PolicyPeer, PolicyRules> for PeerMap {
    type Error = Error;

    fn list(&mut self) -> Result<Vec<(PolicyPeer, PolicyRules)>, Error> {
        let mut all = Vec::new();
        self.each(&mut |peer, said| all.push((peer, said)))?;
        Ok(all)
    }

    fn each(&mut self, see: &mut dyn FnMut(PolicyPeer, PolicyRules)) -> Result<(), Error> {
        self.named.each(see)?;
        self.aggregates.each(&mut |index, PolicyAggregate { generation, said }| {
            if let Some(peer) = PolicyPeer::of_aggregate(index, generation) {
                see(peer, said);
            }
        })
    }

    /// An aggregate takes its place from one of another generation.
    fn set(&mut self, peer: &PolicyPeer, said: &PolicyRules) -> Result<(), Error> {
        match peer.aggregate_index() {
            None => self.named.set(peer, said),
            Some(index) => {
                let element = PolicyAggregate { generation: peer.generation, said: *said };
                self.aggregates.set(&index, &element)
            }
        }
    }

    fn delete(&mut self, peer: &PolicyPeer) -> Result<(), Error> {
        match peer.aggregate_index() {
            None => self.named.delete(peer),
            Some(index) if self.get(peer)?.is_some() => self.aggregates.delete(&index),
            Some(_) => Ok(()),
        }
    }
}

impl Map<PolicyKey, PolicyEntry> {
    /// Removes all entries of the generations that `keep` refuses. Returns how many entries went.
    fn retain_generations(&mut self, keep: impl Fn(u32) -> bool) -> Result<usize, Error> {
        let obsolete = self.keys(|key| !keep(key.generation))?;
        obsolete.iter().try_for_each(|key| self.delete(key))?;
        Ok(obsolete.len())
    }
}
