//! The node's own state: a header that lists slices (or carries its parts inline), taken whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use cilium_api::digest::{decode, digest, encode};
use cilium_api::node_slice::CiliumNodeStateSliceSpec;
use cilium_api::node_state::DesiredState;
use cilium_api::parts::{FORMAT_VERSION, Part, PartKey, Parts};

use crate::Error;
use crate::union::Union;

/// Name under which inline parts are held. No slice can have it: names of objects have no upper case.
const INLINE: &str = "INLINE";

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) union: Union,
    /// The revision in force.
    pub(crate) accepted: Option<DesiredState>,
    /// The newest revision seen, when it is not the one in force, and why it is not.
    pub(crate) refused: Option<(DesiredState, Error)>,
    /// Slices whose last version is not in force: the header that lists it may come later.
    waiting: BTreeMap<String, CiliumNodeStateSliceSpec>,
    /// Slices whose last version is the one in force.
    current: BTreeSet<String>,
}

/// A revision that was just taken.
pub(crate) struct Taken {
    pub(crate) keys: BTreeSet<PartKey>,
    /// Slices that were not in force before, as they arrived.
    pub(crate) slices: Vec<(String, CiliumNodeStateSliceSpec)>,
}

/// New content of each slice, and names of those that stay as they are.
struct Plan {
    new: BTreeMap<String, (String, Parts)>,
    keep: BTreeSet<String>,
}

impl Node {
    /// Sees a header. A missing one changes nothing.
    pub(crate) fn header(&mut self, desired: DesiredState) -> Option<Taken> {
        if self.accepted.as_ref() == Some(&desired) {
            self.refused = None;
            return None;
        }
        self.take(desired)
    }

    /// Sees a slice, and looks whether the revision that was refused can be taken now.
    pub(crate) fn slice(&mut self, name: String, spec: CiliumNodeStateSliceSpec) -> Option<Taken> {
        if self.union.digest(&name) == Some(&spec.digest) {
            self.waiting.remove(&name);
            self.current.insert(name);
        } else {
            self.current.remove(&name);
            self.waiting.insert(name, spec);
        }
        let (desired, _) = self.refused.take()?;
        self.take(desired)
    }

    /// Forgets a slice. Its version in force stays until a revision does without it.
    pub(crate) fn gone(&mut self, name: &str) {
        self.waiting.remove(name);
        self.current.remove(name);
    }

    /// Names of slices that wait or are in force.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.union.names().chain(self.waiting.keys().map(String::as_str))
    }

    fn take(&mut self, desired: DesiredState) -> Option<Taken> {
        match self.plan(&desired) {
            Ok(plan) => {
                self.refused = None;
                Some(self.commit(desired, plan))
            }
            Err(error) => {
                self.refused = Some((desired, error));
                None
            }
        }
    }

    fn plan(&self, desired: &DesiredState) -> Result<Plan, Error> {
        check_format(desired.format)?;
        if let Some(data) = &desired.inline {
            let parts =
                read("the inline state", desired.format, &desired.digest, data, Part::is_node_scoped)?;
            let new = BTreeMap::from([(INLINE.to_owned(), (desired.digest.clone(), parts))]);
            return Ok(Plan { new, keep: BTreeSet::new() });
        }
        // Each slice proves its content, the digest of the revision that these are the slices that the operator meant.
        check_digest("the revision", &desired.digest, &desired.content_digest())?;
        self.check_present(desired)?;
        let mut plan = Plan { new: BTreeMap::new(), keep: BTreeSet::new() };
        for slice in &desired.slices {
            let held = self.union.digest(&slice.name) == Some(&*slice.digest);
            if let (false, Some(spec)) = (held, self.waiting.get(&*slice.name)) {
                let what = format!("slice {}", slice.name);
                let parts = read(&what, spec.format, &slice.digest, &spec.data, Part::is_node_scoped)?;
                plan.new.insert(slice.name.to_string(), (slice.digest.to_string(), parts));
            } else {
                plan.keep.insert(slice.name.to_string());
            }
        }
        Ok(plan)
    }

    fn check_present(&self, desired: &DesiredState) -> Result<(), Error> {
        let absent = |name: &str, digest: &str| {
            self.union.digest(name) != Some(digest)
                && self.waiting.get(name).is_none_or(|spec| spec.digest != digest)
        };
        let mut missing = desired.slices.iter().filter(|slice| absent(&slice.name, &slice.digest));
        let Some(first) = missing.next() else { return Ok(()) };
        Err(Error::Missing {
            missing: 1 + missing.count(),
            listed: desired.slices.len(),
            first: first.name.to_string(),
        })
    }

    /// Cannot fail: everything was checked.
    fn commit(&mut self, desired: DesiredState, plan: Plan) -> Taken {
        let mut keys = BTreeSet::new();
        let mut slices = Vec::new();
        let obsolete: Vec<String> = self
            .union
            .names()
            .filter(|name| !plan.keep.contains(*name) && !plan.new.contains_key(*name))
            .map(str::to_owned)
            .collect();
        for (name, (digest, parts)) in plan.new {
            keys.append(&mut self.union.insert(&name, digest, parts));
            if let Some(spec) = self.waiting.remove(&name) {
                slices.push((name.clone(), spec));
                self.current.insert(name);
            }
        }
        for name in obsolete {
            self.set_aside(&name);
            keys.append(&mut self.union.remove(&name));
        }
        self.accepted = Some(desired);
        Taken { keys, slices }
    }
}

impl Node {
    /// A slice that still exists may be listed again by a later revision: a watch does not repeat it.
    fn set_aside(&mut self, name: &str) {
        if !self.current.remove(name) {
            return;
        }
        let parts = self.union.parts(name);
        if let (Some(held), Ok(data)) = (self.union.digest(name), encode(&parts)) {
            let count = i64::try_from(parts.len()).unwrap_or(i64::MAX);
            let spec =
                CiliumNodeStateSliceSpec { format: FORMAT_VERSION, count, digest: held.to_owned(), data };
            self.waiting.insert(name.to_owned(), spec);
        }
    }
}

fn check_format(found: u32) -> Result<(), Error> {
    if found == FORMAT_VERSION { Ok(()) } else { Err(Error::Format { found }) }
}

fn check_digest(what: &str, expected: &str, found: &str) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Digest { what: what.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
}

/// Verifies and reads encoded parts; `belongs` says whether a part may stand there.
pub(crate) fn read(
    what: &str,
    format: u32,
    expected: &str,
    data: &str,
    belongs: impl Fn(&Part) -> bool,
) -> Result<Parts, Error> {
    check_format(format)?;
    check_digest(what, expected, &digest(data.as_bytes()))?;
    let parts = decode(data).map_err(|source| Error::Decode { what: what.to_owned(), source })?;
    match parts.iter().find(|(key, part)| key.kind() != part.kind() || !belongs(part)) {
        Some((key, part)) => {
            Err(Error::Misplaced { what: what.to_owned(), key: key.clone(), kind: part.kind() })
        }
        None => Ok(parts),
    }
}
