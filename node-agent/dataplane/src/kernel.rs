use std::error::Error;
use std::sync::Arc;

use cilium_api::parts::{Part, PartKey};
use cilium_bpf::layout::{
    Addr, BackendEntry, BackendKey, BlockEntry, BlockKey, Endpoint, ExemptEntry, ExemptKey, IpcacheEntry,
    IpcacheKey, MaglevChunk, MaglevKey, PolicyEntry, PolicyKey, PolicyPeer, PolicyRules, ServiceEntry,
    ServiceKey, Slot, SourceRangeEntry, SourceRangeKey,
};
use cilium_delta::Table;
use ipnet::IpNet;

use crate::{Mac, Neighbour, Route};

/// Index of a policy slot. Slot 0 is nobody's: it is always closed, and its generation is the next one to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u16);

/// Key of a piece of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PieceKey {
    /// Of what is said of peers.
    Peer(PolicyPeer),
    /// Of a rule about a peer of whom more is said than fits there.
    Port(PolicyKey),
    /// Of the trie of blocks.
    Block(BlockKey),
}

/// A piece of a policy, of the same variant as its key: a table refuses what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What is said of a peer.
    Peer(PolicyRules),
    /// A rule about a peer of whom more is said than fits there.
    Port(PolicyEntry),
    /// Of the trie of blocks.
    Block(BlockEntry),
}

/// Key of what stands behind a frontend of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BehindKey {
    /// Of a backend.
    Backend(BackendKey),
    /// Of a source range.
    Range(SourceRangeKey),
    /// Of a piece of a table of backends.
    Maglev(MaglevKey),
}

/// What stands behind a frontend, of the same variant as its key: a table refuses what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A backend.
    Backend(BackendEntry),
    /// A source range.
    Range(SourceRangeEntry),
    /// A piece of a table of backends.
    Maglev(Arc<MaglevChunk>),
}

/// Reads single entries back.
pub trait Lookup<K, V>: Table<K, V> {
    /// The entry with exactly this key.
    ///
    /// # Errors
    /// When the entry could not be read.
    fn lookup(&mut self, key: &K) -> Result<Option<V>, Self::Error>;
}

/// Everything in the kernel that is ours, each kind of entry as a [`Table`] of one common error.
///
/// Listing slots may leave out those that are zero; deleting one sets it to zero.
pub trait Kernel:
    Table<Addr, Endpoint, Error = Self::Fault>
    + Table<IpcacheKey, IpcacheEntry, Error = Self::Fault>
    + Table<SlotIndex, Slot, Error = Self::Fault>
    + Lookup<PieceKey, Piece, Error = Self::Fault>
    + Table<ExemptKey, ExemptEntry, Error = Self::Fault>
    + Table<ServiceKey, ServiceEntry, Error = Self::Fault>
    + Lookup<BehindKey, Behind, Error = Self::Fault>
    + Table<IpNet, Route, Error = Self::Fault>
    + Table<Neighbour, Mac, Error = Self::Fault>
{
    /// Why an operation failed.
    type Fault: Error;

    /// Writes of routes and neighbours may be done in the background. Before they are, these are not read back.
    fn is_settled(&self) -> bool {
        true
    }

    /// How many of these could not be done: so many entries are not as believed, and nobody else is to blame.
    fn refused(&self) -> usize {
        0
    }
}

/// The parts in force.
pub trait Parts {
    /// A part, if it is there.
    fn get(&self, key: &PartKey) -> Option<&Part>;
    /// All parts.
    fn all(&self) -> Box<dyn Iterator<Item = (&PartKey, &Part)> + '_>;
}

impl Parts for cilium_api::parts::Parts {
    fn get(&self, key: &PartKey) -> Option<&Part> {
        self.get(key)
    }
    fn all(&self) -> Box<dyn Iterator<Item = (&PartKey, &Part)> + '_> {
        Box::new(self.iter())
    }
}

/// An error with all of its sources.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
