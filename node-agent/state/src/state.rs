use std::collections::BTreeSet;

use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::{DesiredState, Failure};
use cilium_api::parts::{Part, PartKey};

use crate::cluster::Cluster;
use crate::node::Node;
use crate::{Event, Owner, Slice};

/// Desired state of this node, as far as it is verified. See the crate documentation for guarantees.
#[derive(Debug, Default)]
pub struct State {
    node: Node,
    cluster: Cluster,
    /// Names seen since a relist began.
    relist: Option<BTreeSet<String>>,
    listed: bool,
}

/// What an event led to.
#[derive(Debug, Default)]
pub struct Change {
    /// Parts that may have changed; [`State::get`] has their present value, `None` for those that are gone.
    pub keys: BTreeSet<PartKey>,
    /// What [`crate::Store::save`] must write before the parts are applied.
    pub saves: Vec<Save>,
}

/// One piece for the disk.
#[derive(Debug)]
pub enum Save {
    /// A revision of the node's state, and those of its slices that are new.
    Revision {
        /// The header.
        desired: DesiredState,
        /// Name and content of new slices.
        slices: Vec<(String, CiliumNodeStateSliceSpec)>,
    },
    /// A version of a shared slice.
    Shared {
        /// Name of the slice.
        name: String,
        /// Its content.
        spec: CiliumNodeStateSliceSpec,
    },
    /// A shared slice is gone.
    SharedGone {
        /// Name of the slice.
        name: String,
    },
    /// All shared slices that exist have been saved.
    Listed,
}

/// The revision in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Its number.
    pub revision: i64,
    /// Its digest.
    pub digest: &'a str,
}

impl State {
    /// A node that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what a watch saw.
    pub fn apply(&mut self, event: Event) -> Change {
        match event {
            Event::Header(Some(desired)) => self.header(desired),
            Event::Header(None) => {
                self.node.refused = None;
                Change::default()
            }
            Event::Slice(slice) => self.slice(slice),
            Event::SliceGone(name) => self.gone(&name),
            Event::RelistStarted => {
                self.relist = Some(BTreeSet::new());
                Change::default()
            }
            Event::RelistDone => self.relisted(),
        }
    }

    fn header(&mut self, desired: DesiredState) -> Change {
        let taken = self.node.header(desired);
        self.taken(taken)
    }

    fn slice(&mut self, slice: Slice) -> Change {
        if let Some(seen) = &mut self.relist {
            seen.insert(slice.name.clone());
        }
        if slice.owner == Owner::Node {
            let taken = self.node.slice(slice.name, slice.spec);
            return self.taken(taken);
        }
        match self.cluster.slice(&slice.name, &slice.spec) {
            Some(keys) => Change { keys, saves: vec![Save::Shared { name: slice.name, spec: slice.spec }] },
            None => Change::default(),
        }
    }

    fn taken(&self, taken: Option<crate::node::Taken>) -> Change {
        let (Some(taken), Some(desired)) = (taken, &self.node.accepted) else { return Change::default() };
        let saves = vec![Save::Revision { desired: desired.clone(), slices: taken.slices }];
        Change { keys: taken.keys, saves }
    }

    fn gone(&mut self, name: &str) -> Change {
        self.node.gone(name);
        if self.cluster.union.digest(name).is_none() {
            self.cluster.gone(name);
            return Change::default();
        }
        let keys = self.cluster.gone(name);
        Change { keys, saves: vec![Save::SharedGone { name: name.to_owned() }] }
    }

    fn relisted(&mut self) -> Change {
        let seen = self.relist.take().unwrap_or_default();
        let names = self.node.names().chain(self.cluster.union.names());
        let refused = self.cluster.refused.keys().map(String::as_str);
        let vanished: BTreeSet<String> =
            names.chain(refused).filter(|name| !seen.contains(*name)).map(str::to_owned).collect();
        let mut change = Change::default();
        for name in vanished {
            let mut one = self.gone(&name);
            change.keys.append(&mut one.keys);
            change.saves.append(&mut one.saves);
        }
        if !self.listed {
            self.listed = true;
            change.saves.push(Save::Listed);
        }
        change
    }

    /// A part in force.
    pub fn get(&self, key: &PartKey) -> Option<&Part> {
        self.node.union.get(key).or_else(|| self.cluster.union.get(key))
    }

    /// All parts in force: those of the node, then the shared ones, each in order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&PartKey, &Part)> {
        self.node.union.iter().chain(self.cluster.union.iter())
    }

    /// The node's revision in force.
    pub fn accepted(&self) -> Option<Accepted<'_>> {
        self.node.accepted.as_ref().map(|d| Accepted { revision: d.revision, digest: &d.digest })
    }

    /// The newest revision seen, in force or not.
    pub fn seen_revision(&self) -> Option<i64> {
        let refused = self.node.refused.as_ref().map(|(desired, _)| desired.revision);
        refused.or(self.node.accepted.as_ref().map(|desired| desired.revision))
    }

    /// A revision is in force and the shared slices were listed once: only now may kernel objects that nothing desires
    /// be removed.
    pub fn is_complete(&self) -> bool {
        self.listed && self.node.accepted.is_some()
    }

    /// What was refused, and why: `revision/<number>` and `slice/<name>`.
    pub fn failures(&self) -> Vec<Failure> {
        let revision = self.node.refused.iter().map(|(desired, error)| Failure {
            object: format!("revision/{}", desired.revision),
            message: error.chain(),
        });
        let slices = self
            .cluster
            .refused
            .iter()
            .map(|(name, error)| Failure { object: format!("slice/{name}"), message: error.chain() });
        revision.chain(slices).collect()
    }
}
