//! What agents do: put together what they see, and acknowledge it.

use std::collections::BTreeMap;

use cilium_api::digest::{decode, digest};
use cilium_api::node_slice::{CiliumNodeStateSlice, OWNER_LABEL, SHARED};
use cilium_api::node_state::{AppliedState, CiliumNodeState, DesiredState};
use cilium_api::parts::Parts;
use cilium_plan::{Kind, Object, ObjectKey};

use super::Store;

/// The view of one agent.
pub struct Agent<'a>(pub &'a Store);

impl Agent<'_> {
    fn slice(&self, name: &str) -> Option<&CiliumNodeStateSlice> {
        match self.0.get(&ObjectKey::cluster(Kind::Slice, name)) {
            Some(Object::Slice(slice)) => Some(slice),
            _ => None,
        }
    }

    fn state(&self, node: &str) -> Option<&CiliumNodeState> {
        match self.0.get(&ObjectKey::cluster(Kind::NodeState, node)) {
            Some(Object::NodeState(state)) => Some(state),
            _ => None,
        }
    }

    /// Parts of a node; `None` if a slice is missing or not the listed one.
    pub fn node_parts(&self, node: &str) -> Option<Parts> {
        self.parts(self.state(node)?.status.as_ref()?.desired.as_ref()?)
    }

    fn parts(&self, desired: &DesiredState) -> Option<Parts> {
        assert_eq!(
            desired.content_digest(),
            desired.digest,
            "revision {} is not what it says",
            desired.revision
        );
        let parts = match &desired.inline {
            Some(inline) => decode(inline).expect("what is inline decodes"),
            None => {
                let mut parts = Parts::new();
                for listed in &desired.slices {
                    let slice = self.slice(&listed.name)?;
                    if *slice.spec.digest != *listed.digest
                        || digest(slice.spec.data.as_bytes()) != *listed.digest
                    {
                        return None;
                    }
                    for (key, part) in decode(&slice.spec.data).expect("slices decode") {
                        assert_eq!(parts.insert(key, part), None, "a part is in two slices of a revision");
                    }
                }
                parts
            }
        };
        Some(parts)
    }

    /// The union of all shared slices; of two copies the one from the more specific slice counts.
    pub fn shared_parts(&self) -> Parts {
        let mut slices: BTreeMap<(usize, &str), &CiliumNodeStateSlice> = BTreeMap::new();
        for object in self.0.objects() {
            let Object::Slice(slice) = object else { continue };
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let labels = slice.metadata.labels.as_ref();
            if labels.and_then(|labels| labels.get(OWNER_LABEL)).is_some_and(|owner| owner == SHARED) {
                slices.insert((name.trim_end_matches('r').len(), name), slice);
            }
        }
        slices.into_values().flat_map(|slice| decode(&slice.spec.data).expect("slices decode")).collect()
    }
}

/// Lets every agent acknowledge the revision that it sees whole. Says whether any had something to say.
pub fn acknowledge(store: &mut Store) -> bool {
    let states = store.keys(Kind::NodeState);
    let mut any = false;
    for key in states {
        any |= acknowledge_node(store, &key.name);
    }
    any
}

/// Lets one agent acknowledge.
pub fn acknowledge_node(store: &mut Store, node: &str) -> bool {
    let agent = Agent(store);
    let Some(mut state) = agent.state(node).cloned() else { return false };
    let Some(status) = state.status.as_mut() else { return false };
    let Some(parts) = agent.node_parts(node) else { return false };
    let Some(desired) = &status.desired else { return false };
    let endpoints = parts.keys().filter(|key| key.kind() == "endpoint").count();
    let before = status.applied.clone().unwrap_or_default();
    let applied = AppliedState {
        devices: before.devices,
        silent: before.silent,
        revision: desired.revision,
        digest: desired.digest.clone(),
        endpoints: i64::try_from(endpoints).unwrap_or(i64::MAX),
        ..AppliedState::default()
    };
    if status.applied.as_ref() == Some(&applied) {
        return false;
    }
    status.applied = Some(applied);
    store.apply(state.into());
    true
}
