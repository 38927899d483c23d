//! What policies say, in three maps: of peers, of aggregates, and of peers of whom they say much.

use std::path::Path;

use cilium_bpf::layout::{
    PolicyAggregate, PolicyAggregates, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules,
};
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
    aggregates: Map<u32, PolicyAggregates>,
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
        let Some((index, number)) = peer.aggregate_place() else { return self.named.get(peer) };
        let found = self.aggregates.get(&index)?.map(|element| element.of.0[number]);
        Ok(found.filter(|it| it.generation == peer.generation).map(|it| it.said))
    }

    /// Programs may read the others in the element meanwhile: they stay as they are, byte by byte.
    fn set_aggregate(&mut self, index: u32, number: usize, to: PolicyAggregate) -> Result<(), Error> {
        let mut element = self.aggregates.get(&index)?.unwrap_or_default();
        element.of.0[number] = to;
        self.aggregates.set(&index, &element)
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
        self.aggregates
            .each(&mut |index, element| element.said(index).for_each(|(peer, said)| see(peer, said)))
    }

    /// An aggregate takes its place from one of another generation.
    fn set(&mut self, peer: &PolicyPeer, said: &PolicyRules) -> Result<(), Error> {
        match peer.aggregate_place() {
            None => self.named.set(peer, said),
            Some((index, number)) => {
                let to = PolicyAggregate { generation: peer.generation, said: *said };
                self.set_aggregate(index, number, to)
            }
        }
    }

    fn delete(&mut self, peer: &PolicyPeer) -> Result<(), Error> {
        match peer.aggregate_place() {
            None => self.named.delete(peer),
            Some((index, number)) if self.get(peer)?.is_some() => {
                self.set_aggregate(index, number, PolicyAggregate::default())
            }
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
