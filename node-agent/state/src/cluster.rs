//! Slices that all nodes share: each counts as soon as it is seen.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::parts::{PartKey, Parts};

use crate::Error;
use crate::node::read;
use crate::union::Union;

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) union: Union,
    pub(crate) refused: BTreeMap<String, Error>,
}

impl Cluster {
    /// Takes a version of a slice. `None`: it was refused, or is what is held already.
    pub(crate) fn slice(&mut self, name: &str, spec: &CiliumNodeStateSliceSpec) -> Option<BTreeSet<PartKey>> {
        if self.union.digest(name) == Some(&spec.digest) {
            self.refused.remove(name);
            return None;
        }
        match parts_of(name, spec) {
            Ok(parts) => {
                self.refused.remove(name);
                Some(self.union.insert(name, spec.digest.clone(), parts))
            }
            Err(error) => {
                self.refused.insert(name.to_owned(), error);
                None
            }
        }
    }

    /// Forgets a slice.
    pub(crate) fn gone(&mut self, name: &str) -> BTreeSet<PartKey> {
        self.refused.remove(name);
        self.union.remove(name)
    }
}

fn parts_of(name: &str, spec: &CiliumNodeStateSliceSpec) -> Result<Parts, Error> {
    read(&format!("slice {name}"), spec.format, &spec.digest, &spec.data, |part| !part.is_node_scoped())
}
