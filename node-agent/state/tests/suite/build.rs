//! Builders of what an operator writes.

use std::collections::BTreeMap;

use cilium_api::digest::{digest, encode, of_slices};
use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::{DesiredState, SliceRef};
use cilium_api::parts::{Endpoint, FORMAT_VERSION, Identity, Part, PartKey, Parts};
use cilium_state::{Event, Owner, Slice, State};

pub(crate) fn mk_endpoint(n: u16) -> (PartKey, Part) {
    let endpoint = Endpoint { uid: format!("uid-{n}"), id: n, identity: 300, ..Endpoint::default() };
    (PartKey::endpoint("default", &format!("pod-{n}")), Part::Endpoint(endpoint))
}

pub(crate) fn mk_policy(identity: u32) -> (PartKey, Part) {
    (PartKey::policy(identity), Part::Policy(Box::default()))
}

pub(crate) fn mk_identity(number: u32, label: &str) -> (PartKey, Part) {
    (PartKey::identity(number), Part::Identity(Identity { labels: vec![label.to_owned()] }))
}

pub(crate) fn mk_spec(parts: &Parts) -> CiliumNodeStateSliceSpec {
    let data = encode(parts).expect("parts encode");
    let count = i64::try_from(parts.len()).expect("few");
    CiliumNodeStateSliceSpec { format: FORMAT_VERSION, count, digest: digest(data.as_bytes()), data }
}

pub(crate) fn mk_slice(name: &str, owner: Owner, parts: &Parts) -> Event {
    Event::Slice(Slice { name: name.to_owned(), owner, spec: mk_spec(parts) })
}

pub(crate) fn mk_inline(revision: i64, parts: &Parts) -> DesiredState {
    let data = encode(parts).expect("parts encode");
    let digest = digest(data.as_bytes());
    DesiredState { format: FORMAT_VERSION, revision, digest, inline: Some(data), slices: vec![] }
}

pub(crate) fn mk_header(revision: i64, slices: &BTreeMap<String, Parts>) -> DesiredState {
    let slices: Vec<SliceRef> = slices
        .iter()
        .map(|(name, parts)| SliceRef { name: name.as_str().into(), digest: mk_spec(parts).digest.into() })
        .collect();
    let digest = of_slices(&slices);
    DesiredState { format: FORMAT_VERSION, revision, digest, inline: None, slices }
}

pub(crate) fn parts_of(state: &State) -> Parts {
    state.iter().map(|(key, part)| (key.clone(), part.clone())).collect()
}
