//! Slices on their way out.

use cilium_api::digest::digest;
use cilium_api::node_slice::{
    CiliumNodeStateSlice, CiliumNodeStateSliceSpec, OWNER_LABEL, SHARED, owner_label,
};
use cilium_api::parts::FORMAT_VERSION;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::last_valid;
use crate::object::{Kind, ObjectKey};
use crate::output::{Action, Write};
use crate::pack::{Slices, Tree};
use crate::planner::Planner;

/// Owner of shared slices, in their names.
pub(crate) const SHARED_OWNER: &str = "cluster";

/// What of a slice is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    /// Value of the owner label.
    owner: String,
    /// Of the content. Empty for a slice that is not what it says.
    digest: String,
}

impl Print {
    fn of(slice: &CiliumNodeStateSlice) -> Self {
        let labels = slice.metadata.labels.as_ref();
        let owner = labels.and_then(|labels| labels.get(OWNER_LABEL)).cloned().unwrap_or_default();
        let spec = &slice.spec;
        let is_sound = spec.format == FORMAT_VERSION && digest(spec.data.as_bytes()) == spec.digest;
        Self { owner, digest: if is_sound { spec.digest.clone() } else { String::new() } }
    }
}

/// Whether a slice is a record for a later start.
fn is_kept(key: &ObjectKey) -> bool {
    split(&key.name).0 == last_valid::OWNER
}

/// Splits the name of a slice into its owner and the rest.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}

impl Planner {
    pub(crate) fn observe_slice(&mut self, slice: &CiliumNodeStateSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        if let Some(records) = &mut self.records {
            records.add_slice(slice);
        }
        let meta = &slice.metadata;
        let key = ObjectKey::cluster(Kind::Slice, name);
        self.slices.observe(&key, Print::of(slice), meta.resource_version.as_deref(), meta.uid.as_deref());
    }

    /// Slices to write. What goes waits for what comes in its place, so that no part is missing in between.
    pub(crate) fn write_slices(&mut self) -> Vec<Write<CiliumNodeStateSlice>> {
        for name in self.shared.pack() {
            self.slices.touch(ObjectKey::cluster(Kind::Slice, &name));
        }
        let due = self.slices.take_due_of(|key| !is_kept(key));
        self.write_due_slices(due)
    }

    /// The same for slices that no node waits for.
    pub(crate) fn write_kept_slices(&mut self) -> Vec<Write<CiliumNodeStateSlice>> {
        for name in self.kept.pack() {
            self.slices.touch(ObjectKey::cluster(Kind::Slice, &name));
        }
        let due = self.slices.take_due_of(is_kept);
        self.write_due_slices(due)
    }

    /// Whether [`Planner::write_kept_slices`] has something to look at.
    pub(crate) fn is_kept_due(&self) -> bool {
        self.kept.is_touched() || self.slices.is_due_of(is_kept)
    }

    fn write_due_slices(&mut self, due: Vec<ObjectKey>) -> Vec<Write<CiliumNodeStateSlice>> {
        let (mut writes, mut unwanted) = (Vec::with_capacity(due.len()), Vec::new());
        for key in due {
            match self.desired_slice(&key.name) {
                Some(desired) => writes.extend(self.write_slice(key, Some(desired))),
                None => unwanted.push(key),
            }
        }
        for key in unwanted {
            if self.is_replaced(&key.name) {
                writes.extend(self.write_slice(key, None));
            } else {
                self.slices.touch(key);
            }
        }
        writes
    }

    fn write_slice(&mut self, key: ObjectKey, desired: Option<Print>) -> Option<Write<CiliumNodeStateSlice>> {
        let stored = self.slices.stored(&key);
        // A label cannot be replaced by an update, so such a slice is made anew.
        let is_mislabelled = desired.is_some()
            && stored
                .map(|s| &s.owner)
                .is_some_and(|owner| Some(owner) != desired.as_ref().map(|d| &d.owner));
        let desired = desired.filter(|_| !is_mislabelled);
        let mut content = desired.as_ref().and_then(|desired| self.slice(&key.name, desired));
        if let Some(content) = content.as_mut().filter(|_| stored.is_some()) {
            let precondition = self.slices.precondition(&key);
            content.metadata.uid = precondition.uid;
            content.metadata.resource_version = precondition.resource_version;
        }
        let action: Action<_> = self.slices.decide(&key, desired, || content)?;
        Some(Write { key, action })
    }

    /// Whether the other slices of the owner, and its header, are in place.
    fn is_replaced(&self, name: &str) -> bool {
        let (owner, _) = split(name);
        let start = format!("{owner}.");
        let first = ObjectKey::cluster(Kind::Slice, &start);
        let is_writing = self.slices.is_writing(&first, |key| key.name.starts_with(&start));
        let node = owner.strip_prefix("node.").and_then(|label| self.nodes.by_label(label));
        let has_header = node.is_none_or(|(_, entry)| entry.object.is_none() || entry.state.is_settled());
        !is_writing && has_header
    }

    fn desired_slice(&self, name: &str) -> Option<Print> {
        let (owner, _) = split(name);
        let (owner, digest) = match owner {
            last_valid::OWNER => {
                (last_valid::OWNER_LABEL.to_owned(), self.kept.slices.find(name)?.1.to_owned())
            }
            SHARED_OWNER => (SHARED.to_owned(), self.shared.slices.find(name)?.1.to_owned()),
            _ => {
                let (node, entry) = self.nodes.by_label(owner.strip_prefix("node.")?)?;
                entry.object.as_ref()?;
                (owner_label(node), entry.state.slices.find(name)?.1.to_owned())
            }
        };
        Some(Print { owner, digest })
    }

    fn slice(&self, name: &str, print: &Print) -> Option<CiliumNodeStateSlice> {
        let (owner, _) = split(name);
        let (node, (count, data)) = match owner {
            last_valid::OWNER => (None, content(&self.kept.slices, self.kept.tree(), name)?),
            SHARED_OWNER => (None, content(&self.shared.slices, self.shared.tree(), name)?),
            _ => {
                let (node, entry) = self.nodes.by_label(owner.strip_prefix("node.")?)?;
                let uid = entry.object.as_ref()?.uid.as_str();
                (Some((node, uid)), content(&entry.state.slices, entry.state.tree(), name)?)
            }
        };
        let digest = print.digest.clone();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let spec = CiliumNodeStateSliceSpec { format: FORMAT_VERSION, count, digest, data };
        let mut slice = CiliumNodeStateSlice::new(name, spec);
        slice.metadata.labels = Some([(OWNER_LABEL.to_owned(), print.owner.clone())].into());
        slice.metadata.owner_references = node.map(|(name, uid)| vec![owned_by_node(name, uid)]);
        Some(slice)
    }
}

fn content(slices: &Slices, tree: &Tree, name: &str) -> Option<(usize, String)> {
    let (path, _) = slices.find(name)?;
    tree.leaf(path)
}

/// Objects that go with their Node.
pub(crate) fn owned_by_node(name: &str, uid: &str) -> OwnerReference {
    owned_by("Node", name, uid)
}

/// Objects that go with an object of Kubernetes' core group.
pub(crate) fn owned_by(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}
