use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cilium_api::condition::Condition;
use cilium_api::digest::{self, digest};
use cilium_api::node_slice::owner_label;
use cilium_api::node_state::{AppliedState, CiliumNodeState, DesiredState, Failure};
use cilium_api::parts::{FORMAT_VERSION, Part, PartKey};
use cilium_policy::PolicyKey;

use crate::ledger::{Version, version};
use crate::names::PodName;
use crate::output::{Action, NodeDesired, NodeRest, Outcome, Precondition};
use crate::pack::{self, MAX_BYTES, Slices, Tree};

/// Something whose arrival on the node somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// What a policy says about endpoints of the node.
    Policy(PolicyKey),
    /// An endpoint.
    Pod(PodName),
    /// Addresses that the node announces because of a policy of this name.
    Announcements(Arc<str>),
}

/// Desired state of one node on its way out, and what the node says of it.
///
/// Tokens tell when a change is in force: a token that is [awaited](State::await_token) is unsent until a revision is made
/// that holds the change, then bound to that revision, and confirmed when the node reports it.
#[derive(Debug)]
pub(crate) struct State {
    tree: Tree,
    /// Slices of the node, when its parts do not fit inline.
    pub(crate) slices: Slices,
    /// Digest of the desired state, whatever its revision, as of the last [`State::pack`].
    digest: String,
    unsent: BTreeSet<Token>,
    bound: BTreeMap<Token, i64>,
    stored: Stored,
    sent: Option<Sent>,
    /// Something may have to be written.
    due: bool,
}

/// The CiliumNodeState as the API has it.
#[derive(Debug, Default)]
struct Stored {
    exists: bool,
    version: Version,
    /// Version of the object as it was last seen; the one after a write is not, until it is.
    seen: Version,
    /// Revision and digest of `status.desired`; the digest is empty if the content is not what it says.
    desired: Option<(i64, String)>,
    /// Highest revision ever seen: it does not go back when the object is made again.
    highest: i64,
    applied: Option<AppliedState>,
    conditions: Option<Vec<Condition>>,
}

/// A write that is out.
#[derive(Debug)]
enum Sent {
    Desired(i64, String),
    Delete,
}

/// What an observed object changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Names of parts that began or ceased to fail.
    pub(crate) failures: BTreeSet<String>,
    /// There are failures without names, or there were.
    pub(crate) unnamed: bool,
    /// Somebody else wrote the desired state: everything has to be awaited anew.
    pub(crate) foreign: bool,
}

impl State {
    pub(crate) fn new(node: &str) -> Self {
        let mut new = Self {
            tree: Tree::default(),
            slices: Slices::new(format!("node.{}", owner_label(node)), true),
            digest: String::new(),
            unsent: BTreeSet::new(),
            bound: BTreeMap::new(),
            stored: Stored::default(),
            sent: None,
            due: true,
        };
        new.update_digest();
        new
    }

    /// Puts, replaces or removes a part. Says whether that changed anything.
    pub(crate) fn set(&mut self, key: &PartKey, part: Option<&Part>) -> bool {
        self.set_text(key, part.map(|part| pack::encode(key, part)))
    }

    /// The same with a part that is encoded already.
    pub(crate) fn set_text(&mut self, key: &PartKey, text: Option<pack::Text>) -> bool {
        let changed = self.tree.set(key, text);
        self.due |= changed;
        changed
    }

    /// Makes slices and digest follow the parts. Gives the names of slices that changed, came or went.
    pub(crate) fn pack(&mut self) -> Vec<String> {
        if !self.tree.is_touched() {
            return Vec::new();
        }
        let changed = self.slices.follow(&mut self.tree);
        self.update_digest();
        changed
    }

    fn update_digest(&mut self) {
        self.digest = match self.inline() {
            Some(data) => digest(data.as_bytes()),
            None => digest::of_slices(self.slices.refs()),
        };
    }

    /// All parts, if they are small enough to stand in the object.
    fn inline(&self) -> Option<String> {
        (self.tree.encoded_len() <= MAX_BYTES).then(|| self.tree.union())
    }

    /// The parts.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// From now until [`State::take_confirmed`] gives it, the token is not in force.
    pub(crate) fn await_token(&mut self, token: Token) {
        self.bound.remove(&token);
        self.unsent.insert(token);
        self.due = true;
    }

    /// Nobody waits any more.
    pub(crate) fn drop_token(&mut self, token: &Token) {
        self.bound.remove(token);
        self.unsent.remove(token);
    }

    /// Whether the node has what the token stands for, as far as revisions tell.
    pub(crate) fn is_confirmed(&self, token: &Token) -> bool {
        !self.unsent.contains(token) && !self.bound.contains_key(token)
    }

    /// Tokens that the node has confirmed since the last call.
    pub(crate) fn take_confirmed(&mut self) -> Vec<Token> {
        let Some(applied) = self.stored.applied.as_ref().map(|applied| applied.revision) else {
            return Vec::new();
        };
        self.bound.extract_if(.., |_, revision| *revision <= applied).map(|(token, _)| token).collect()
    }

    /// Whether the node says that a part is not in force though its revision is.
    pub(crate) fn is_failing(&self, key: &PartKey) -> bool {
        let Some(applied) = &self.stored.applied else { return false };
        // At most ten failures have names; beyond that any part may be among them.
        has_unnamed(applied) || applied.failures.iter().any(|failure| *failure.object == *key.0)
    }

    /// What the node last said of itself.
    pub(crate) fn applied(&self) -> Option<&AppliedState> {
        self.stored.applied.as_ref()
    }

    /// Parts that the node says are not in force, as far as it names them.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.applied().into_iter().flat_map(|applied| &applied.failures)
    }

    /// There are more of them.
    pub(crate) fn has_unnamed_failures(&self) -> bool {
        self.applied().is_some_and(has_unnamed)
    }

    /// What the node says of a part that is not in force.
    pub(crate) fn message(&self, part: &str) -> Option<&str> {
        Some(self.failures().find(|failure| failure.object == part)?.message.as_str())
    }

    /// Why the node has not put in force the policy of one of these identities, as far as it says so.
    pub(crate) fn failure(&self, mut identities: impl Iterator<Item = u32>) -> Option<&str> {
        identities.find_map(|number| self.message(&PartKey::policy(number).0))
    }

    /// The write that brings the object to the desired state. `owner_uid` is that of the Node, if there is one.
    pub(crate) fn send(&mut self, owner_uid: Option<&str>) -> Option<Action<NodeDesired>> {
        if !self.due || self.sent.is_some() {
            return None;
        }
        self.due = false;
        match owner_uid {
            Some(uid) => self.send_desired(uid),
            None if self.stored.exists => {
                self.sent = Some(Sent::Delete);
                Some(Action::Delete(Precondition::default()))
            }
            None => None,
        }
    }

    fn send_desired(&mut self, owner_uid: &str) -> Option<Action<NodeDesired>> {
        let stored = self.stored.desired.as_ref();
        if let Some((revision, _)) = stored.filter(|(_, stored)| *stored == self.digest) {
            self.bind_unsent(*revision);
            return None;
        }
        let replaces = stored.map(|(revision, _)| *revision);
        let revision = self.stored.highest + 1;
        self.bind_unsent(revision);
        self.sent = Some(Sent::Desired(revision, self.digest.clone()));
        let content = NodeDesired {
            owner_uid: owner_uid.to_owned(),
            replaces,
            desired: self.desired(revision),
            rest: self.rest(),
        };
        Some(if self.stored.exists { Action::Update(content) } else { Action::Create(content) })
    }

    fn rest(&self) -> Option<NodeRest> {
        let Stored { version, seen, applied, conditions, .. } = &self.stored;
        (*seen != 0 && seen == version).then(|| NodeRest {
            resource_version: seen.to_string(),
            applied: applied.clone(),
            conditions: conditions.clone(),
        })
    }

    fn desired(&self, revision: i64) -> DesiredState {
        DesiredState {
            format: FORMAT_VERSION,
            revision,
            digest: self.digest.clone(),
            inline: self.inline(),
            slices: self.slices.refs().cloned().collect(),
        }
    }

    fn bind_unsent(&mut self, revision: i64) {
        self.bound.extend(std::mem::take(&mut self.unsent).into_iter().map(|token| (token, revision)));
    }

    /// Takes note of how a write went.
    pub(crate) fn written(&mut self, outcome: Outcome) {
        let Some(sent) = self.sent.take() else { return };
        self.due = true;
        match (sent, outcome) {
            (Sent::Desired(revision, digest), Outcome::Done(resource_version)) => {
                self.stored.exists = true;
                self.stored.version = self.stored.version.max(version(resource_version.as_deref()));
                if revision >= self.stored.highest {
                    self.stored.highest = revision;
                    self.stored.desired = Some((revision, digest));
                }
            }
            // Whether the API has this revision, and with this content, is not known: its tokens need another one.
            (Sent::Desired(revision, _), Outcome::Conflict | Outcome::Failed) => {
                let lost = self.bound.extract_if(.., |_, bound| *bound == revision);
                self.unsent.extend(lost.map(|(token, _)| token));
            }
            (Sent::Delete, Outcome::Done(_)) => self.forget(),
            (Sent::Delete, Outcome::Conflict | Outcome::Failed) => {}
        }
    }

    /// Takes note of the object as it is.
    pub(crate) fn observe(&mut self, object: &CiliumNodeState) -> Seen {
        let found_version = version(object.metadata.resource_version.as_deref());
        if found_version != 0 && found_version < self.stored.version {
            return Seen::default();
        }
        (self.stored.version, self.stored.seen) = (found_version, found_version);
        self.stored.exists = true;
        self.due = true;
        let status = object.status.as_ref();
        let desired = status.and_then(|status| status.desired.as_ref());
        let applied = status.and_then(|status| status.applied.clone());
        self.stored.conditions = status.and_then(|status| status.conditions.clone());
        let foreign = self.take_desired(desired.map(|desired| (desired.revision, digest_found(desired))));
        let before = std::mem::replace(&mut self.stored.applied, applied);
        let (before, after) = (before.as_ref(), self.stored.applied.as_ref());
        let failures =
            failing(before).symmetric_difference(&failing(after)).map(|name| (*name).to_owned()).collect();
        let unnamed = before.is_some_and(has_unnamed) != after.is_some_and(has_unnamed);
        Seen { failures, unnamed, foreign }
    }

    fn take_desired(&mut self, found: Option<(i64, String)>) -> bool {
        let is_sent = |found: &(i64, String)| matches!(&self.sent, Some(Sent::Desired(r, d)) if (*r, d) == (found.0, &found.1));
        let is_ours = found == self.stored.desired || found.as_ref().is_some_and(is_sent);
        if let Some((revision, _)) = &found {
            self.stored.highest = self.stored.highest.max(*revision);
        }
        self.stored.desired = found;
        !is_ours
    }

    /// Takes note that the object is gone.
    pub(crate) fn forget(&mut self) {
        self.stored = Stored { highest: self.stored.highest, ..Stored::default() };
        self.due = true;
    }

    /// Something that [`State::send`] depends on has changed.
    pub(crate) fn touch(&mut self) {
        self.due = true;
    }

    /// Nothing is out, and what is stored is what is desired.
    pub(crate) fn is_settled(&self) -> bool {
        let stored = self.stored.desired.as_ref().map(|(_, digest)| digest);
        self.sent.is_none() && (!self.stored.exists || stored == Some(&self.digest))
    }

    /// There is no object, and nothing to put into one.
    pub(crate) fn is_empty(&self) -> bool {
        !self.stored.exists && self.sent.is_none() && self.tree.is_empty()
    }
}

/// The digest of what was found, as far as it stands for all of it: empty for what this planner would not have written.
fn digest_found(desired: &DesiredState) -> String {
    let is_either = desired.inline.is_none() || desired.slices.is_empty();
    let is_sound =
        is_either && desired.format == FORMAT_VERSION && desired.content_digest() == desired.digest;
    if is_sound { desired.digest.clone() } else { String::new() }
}

fn failing(applied: Option<&AppliedState>) -> BTreeSet<&str> {
    applied.into_iter().flat_map(|applied| &applied.failures).map(|failure| failure.object.as_str()).collect()
}

fn has_unnamed(applied: &AppliedState) -> bool {
    usize::try_from(applied.failure_count).is_ok_and(|count| count > applied.failures.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cilium_api::node_state::{CiliumNodeStateSpec, CiliumNodeStateStatus};
    use cilium_api::parts::{Address, Endpoint};

    fn mk_part(id: u16) -> Part {
        Part::Endpoint(Endpoint { uid: "u".into(), id, identity: 300, ..Endpoint::default() })
    }

    fn mk_token() -> Token {
        Token::Pod(PodName::new("default", "x"))
    }

    fn key() -> PartKey {
        PartKey::endpoint("default", "x")
    }

    fn send(state: &mut State) -> Option<(Option<i64>, DesiredState)> {
        state.pack();
        match state.send(Some("u1"))? {
            Action::Create(content) | Action::Update(content) => Some((content.replaces, content.desired)),
            Action::Delete(_) => panic!("the node exists"),
        }
    }

    fn mk_object(
        version: &str,
        desired: Option<DesiredState>,
        applied: Option<AppliedState>,
    ) -> CiliumNodeState {
        let mut object = CiliumNodeState::new("a", CiliumNodeStateSpec {});
        object.metadata.resource_version = Some(version.into());
        object.status = Some(CiliumNodeStateStatus { desired, applied, conditions: None });
        object
    }

    fn mk_applied(revision: i64) -> Option<AppliedState> {
        Some(AppliedState { revision, ..AppliedState::default() })
    }

    #[test]
    fn a_change_is_confirmed_by_the_revision_that_holds_it() {
        let mut state = State::new("a");
        let (replaces, first) = send(&mut state).unwrap();
        assert_eq!((replaces, first.revision, first.inline.as_deref()), (None, 1, Some("{}")));
        state.set(&key(), Some(&mk_part(1)));
        state.await_token(mk_token());
        assert_eq!(send(&mut state), None, "one write is out");
        state.written(Outcome::Done(Some("7".into())));
        let (replaces, second) = send(&mut state).unwrap();
        assert_eq!((replaces, second.revision), (Some(1), 2));
        state.written(Outcome::Done(Some("8".into())));
        state.observe(&mk_object("9", Some(second.clone()), mk_applied(1)));
        assert_eq!(state.take_confirmed(), []);
        assert!(!state.is_confirmed(&mk_token()));
        state.observe(&mk_object("10", Some(second), mk_applied(2)));
        assert_eq!(state.take_confirmed(), [mk_token()]);
        assert!(state.is_confirmed(&mk_token()));
        assert_eq!(send(&mut state), None);
        assert!(state.is_settled());
    }

    #[test]
    fn a_change_that_was_taken_back_needs_no_write() {
        let mut state = State::new("a");
        send(&mut state).unwrap();
        state.written(Outcome::Done(None));
        state.set(&key(), Some(&mk_part(1)));
        state.await_token(mk_token());
        state.set(&key(), None);
        assert_eq!(send(&mut state), None);
        let stored = state.desired(1);
        state.observe(&mk_object("10", Some(stored), mk_applied(1)));
        assert_eq!(state.take_confirmed(), [mk_token()]);
    }

    #[test]
    fn a_write_of_unknown_outcome_confirms_nothing() {
        let mut state = State::new("a");
        state.set(&key(), Some(&mk_part(1)));
        state.await_token(mk_token());
        let (_, lost) = send(&mut state).unwrap();
        state.set(&key(), Some(&mk_part(2)));
        state.await_token(mk_token());
        state.written(Outcome::Failed);
        // It had reached the API after all.
        let seen = state.observe(&mk_object("10", Some(lost), mk_applied(1)));
        assert!(seen.foreign);
        assert_eq!(state.take_confirmed(), []);
        let (replaces, next) = send(&mut state).unwrap();
        assert_eq!((replaces, next.revision), (Some(1), 2));
        assert!(!state.is_confirmed(&mk_token()));
    }

    #[test]
    fn older_views_of_the_object_are_ignored() {
        let mut state = State::new("a");
        let (_, first) = send(&mut state).unwrap();
        state.written(Outcome::Done(Some("20".into())));
        state.set(&key(), Some(&mk_part(1)));
        send(&mut state).unwrap();
        state.written(Outcome::Done(Some("30".into())));
        assert_eq!(state.observe(&mk_object("20", Some(first), None)), Seen::default());
        assert!(state.is_settled());
        assert_eq!(send(&mut state), None);
    }

    #[test]
    fn an_edited_header_is_written_again_over_the_edit() {
        let mut state = State::new("a");
        let (_, mut edited) = send(&mut state).unwrap();
        state.written(Outcome::Done(Some("20".into())));
        edited.inline = Some("{\"x\":1}".into());
        edited.revision = 7;
        assert!(state.observe(&mk_object("21", Some(edited), None)).foreign);
        let (replaces, again) = send(&mut state).unwrap();
        assert_eq!((replaces, again.revision, again.inline.as_deref()), (Some(7), 8, Some("{}")));
        state.forget();
        state.written(Outcome::Conflict);
        assert_eq!(send(&mut state).unwrap().1.revision, 8, "revisions do not start again");
    }

    #[test]
    fn a_node_that_is_gone_loses_its_object() {
        let mut state = State::new("a");
        send(&mut state).unwrap();
        state.written(Outcome::Done(None));
        state.touch();
        assert!(matches!(state.send(None), Some(Action::Delete(_))));
        state.written(Outcome::Done(None));
        assert_eq!(state.send(None), None);
        assert!(state.is_empty());
    }

    #[test]
    fn the_rest_of_the_object_is_known_from_when_it_is_seen_until_it_is_written() {
        let mut state = State::new("a");
        let applied = AppliedState { revision: 3, ..Default::default() };
        state.observe(&mk_object("7", None, Some(applied.clone())));
        let rest = |state: &mut State, id| {
            state.set(&key(), Some(&mk_part(id)));
            state.pack();
            match state.send(Some("u")) {
                Some(Action::Update(NodeDesired { rest, .. })) => rest,
                other => panic!("{other:?}"),
            }
        };
        let known = rest(&mut state, 1).unwrap();
        assert_eq!((known.resource_version.as_str(), known.applied), ("7", Some(applied)));
        state.written(Outcome::Done(Some("8".into())));
        assert_eq!(rest(&mut state, 2), None, "the agent may have written before 8");
    }

    #[test]
    fn failures_concern_the_parts_that_they_name_and_all_when_some_have_no_name() {
        let mut state = State::new("a");
        let failure = |name: &str| Failure { object: name.into(), message: "full".into() };
        let mut applied =
            AppliedState { failure_count: 1, failures: vec![failure("policy/300")], ..Default::default() };
        let seen = state.observe(&mk_object("1", None, Some(applied.clone())));
        assert_eq!((seen.failures, seen.unnamed), (["policy/300".to_owned()].into(), false));
        assert!(state.is_failing(&PartKey::policy(300)) && !state.is_failing(&PartKey::policy(301)));
        applied.failure_count = 2;
        assert!(state.observe(&mk_object("2", None, Some(applied))).unnamed);
        assert!(state.is_failing(&PartKey::policy(301)));
    }

    #[test]
    fn large_sets_travel_in_slices() {
        let mut state = State::new("a");
        for number in 0..200 {
            let part = Part::Address(Address { identity: number, node: None });
            state.set(&PartKey::identity(number), Some(&part));
        }
        let names = state.pack();
        let Some(Action::Create(NodeDesired { desired, .. })) = state.send(Some("u")) else {
            panic!("nothing sent")
        };
        assert_eq!(desired.inline, None);
        assert!(
            desired.slices.iter().map(|slice| &*slice.name).eq(names.iter().map(|name| &**name))
                && names.len() > 1
        );
        assert_eq!(desired.digest, desired.content_digest());
        state.written(Outcome::Done(None));
        let mut cut = desired.clone();
        cut.slices.pop();
        assert!(!state.observe(&mk_object("2", Some(desired), None)).foreign);
        assert!(state.observe(&mk_object("3", Some(cut), None)).foreign, "it lists other slices");
        assert!(!state.is_settled());
    }
}
