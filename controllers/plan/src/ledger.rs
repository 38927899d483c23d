//! What stands in the API, what is being written, and what may have to be written next; for one kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::object::ObjectKey;
use crate::output::{Action, Outcome, Precondition};

/// Bookkeeping over the objects of one kind. `F` is what of an object is compared: enough to tell whether to write.
///
/// # Guarantees
/// At most one write of an object is out. A key stays due until desired and stored content are the same.
#[derive(Debug)]
pub(crate) struct Ledger<F> {
    /// Far more than are due or out, so they are found without comparing one name after the other.
    entries: HashMap<ObjectKey, Entry<F>>,
    due: BTreeSet<ObjectKey>,
    /// What is being written; `None` is a delete.
    out: BTreeMap<ObjectKey, Option<F>>,
}

#[derive(Debug)]
struct Entry<F> {
    stored: Option<F>,
    version: Version,
    uid: Option<String>,
}

/// `metadata.resourceVersion` as a number; 0 when it is none. Versions of one kind can be compared (Kubernetes API
/// concepts, "resource versions", since 1.35).
pub(crate) type Version = u64;

/// Reads a resource version.
pub(crate) fn version(text: Option<&str>) -> Version {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<F> Default for Entry<F> {
    fn default() -> Self {
        Self { stored: None, version: 0, uid: None }
    }
}

impl<F> Default for Ledger<F> {
    fn default() -> Self {
        Self { entries: HashMap::new(), due: BTreeSet::new(), out: BTreeMap::new() }
    }
}

impl<F: Clone + PartialEq> Ledger<F> {
    /// Takes note of an object as it is. Older than what is known: ignored, and `false`.
    pub(crate) fn observe(
        &mut self,
        key: &ObjectKey,
        found: F,
        resource_version: Option<&str>,
        uid: Option<&str>,
    ) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        let version = version(resource_version);
        if version != 0 && version < entry.version {
            return false;
        }
        entry.version = version;
        entry.uid = uid.map(ToOwned::to_owned);
        entry.stored = Some(found);
        self.due.insert(key.clone());
        true
    }

    /// Takes note that an object is gone.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.stored = None;
            self.due.insert(key.clone());
        }
    }

    /// The desired content may have changed.
    pub(crate) fn touch(&mut self, key: ObjectKey) {
        self.due.insert(key);
    }

    /// Keys to look at now; those with a write out come when that is answered.
    pub(crate) fn take_due(&mut self) -> Vec<ObjectKey> {
        self.take_due_of(|_| true)
    }

    /// The same of some keys.
    pub(crate) fn take_due_of(&mut self, pick: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
        self.due.extract_if(.., |key| pick(key) && !self.out.contains_key(key)).collect()
    }

    /// Whether [`Ledger::take_due`] would give any.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_of(|_| true)
    }

    /// Whether [`Ledger::take_due_of`] would give any.
    pub(crate) fn is_due_of(&self, pick: impl Fn(&ObjectKey) -> bool) -> bool {
        self.due.iter().any(|key| pick(key) && !self.out.contains_key(key))
    }

    /// What to do so that the object becomes as desired; takes it as sent. `content` is only asked for when it is needed.
    pub(crate) fn decide<T>(
        &mut self,
        key: &ObjectKey,
        desired: Option<F>,
        content: impl FnOnce() -> Option<T>,
    ) -> Option<Action<T>> {
        let entry = self.entries.get(key);
        let stored = entry.and_then(|entry| entry.stored.as_ref());
        if stored == desired.as_ref() {
            if stored.is_none() {
                self.entries.remove(key);
            }
            return None;
        }
        let uid = || entry.and_then(|entry| entry.uid.clone());
        let action = match (&desired, stored.is_some()) {
            (None, _) => Action::Delete(Precondition { uid: uid(), resource_version: None }),
            (Some(_), true) => Action::Update(content()?),
            (Some(_), false) => Action::Create(content()?),
        };
        self.out.insert(key.clone(), desired);
        Some(action)
    }

    /// Takes note of how a write went.
    pub(crate) fn written(&mut self, key: &ObjectKey, outcome: Outcome) {
        let Some((key, sent)) = self.out.remove_entry(key) else { return };
        self.due.insert(key.clone());
        let Outcome::Done(resource_version) = outcome else { return };
        let version = version(resource_version.as_deref());
        let entry = self.entries.entry(key).or_default();
        // A newer one may have been seen already.
        if version == 0 || version >= entry.version {
            entry.stored = sent;
            entry.version = entry.version.max(version);
        }
    }

    /// What is known to stand in the API.
    pub(crate) fn stored(&self, key: &ObjectKey) -> Option<&F> {
        self.entries.get(key)?.stored.as_ref()
    }

    /// UID and resource version of the object, for deletes that must not hit another state of it.
    pub(crate) fn precondition(&self, key: &ObjectKey) -> Precondition {
        let Some(entry) = self.entries.get(key) else { return Precondition::default() };
        let resource_version = (entry.version != 0).then(|| entry.version.to_string());
        Precondition { uid: entry.uid.clone(), resource_version }
    }

    /// Whether a create or update is out for any key from `first` on, as long as `within` holds.
    pub(crate) fn is_writing(&self, first: &ObjectKey, within: impl Fn(&ObjectKey) -> bool) -> bool {
        self.out.range(first..).take_while(|(key, _)| within(key)).any(|(_, sent)| sent.is_some())
    }

    /// Number of keys that are not as desired, or not known to be.
    pub(crate) fn unsettled(&self) -> usize {
        self.out.len() + self.due.iter().filter(|key| !self.out.contains_key(key)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn mk_key() -> ObjectKey {
        ObjectKey::cluster(Kind::Slice, "a")
    }

    /// What is done when `desired` is wanted: C, U, D or nothing.
    fn step(ledger: &mut Ledger<u8>, desired: Option<u8>) -> Option<char> {
        ledger.touch(mk_key());
        let due = ledger.take_due();
        let action = due.first().and_then(|key| ledger.decide(key, desired, || Some(())))?;
        Some(match action {
            Action::Create(()) => 'C',
            Action::Update(()) => 'U',
            Action::Delete(_) => 'D',
        })
    }

    #[test]
    fn one_write_at_a_time_and_the_latest_content_follows() {
        let (mut ledger, key) = (Ledger::default(), mk_key());
        assert_eq!(step(&mut ledger, Some(1)), Some('C'));
        assert_eq!(step(&mut ledger, Some(2)), None, "one is out");
        assert_eq!(ledger.unsettled(), 1);
        ledger.written(&key, Outcome::Done(Some("5".into())));
        assert_eq!(step(&mut ledger, Some(3)), Some('U'));
        ledger.written(&key, Outcome::Failed);
        assert!(ledger.is_due());
        assert_eq!(step(&mut ledger, Some(3)), Some('U'), "a failed write is repeated");
        ledger.written(&key, Outcome::Done(Some("6".into())));
        assert_eq!(step(&mut ledger, Some(3)), None);
        assert_eq!((ledger.is_due(), ledger.unsettled()), (false, 0));
        assert_eq!(step(&mut ledger, None), Some('D'));
        ledger.written(&key, Outcome::Done(None));
        assert_eq!(step(&mut ledger, None), None);
        assert!(ledger.entries.is_empty());
    }

    #[test]
    fn echoes_of_older_writes_are_ignored() {
        let (mut ledger, key) = (Ledger::default(), mk_key());
        assert_eq!(step(&mut ledger, Some(1)), Some('C'));
        ledger.written(&key, Outcome::Done(Some("5".into())));
        assert_eq!(step(&mut ledger, Some(2)), Some('U'));
        ledger.written(&key, Outcome::Done(Some("9".into())));
        assert!(!ledger.observe(&key, 1, Some("5"), None));
        assert_eq!(step(&mut ledger, Some(2)), None);
        assert!(ledger.observe(&key, 7, Some("10"), None), "somebody else's write counts");
        assert_eq!(step(&mut ledger, Some(2)), Some('U'));
    }

    #[test]
    fn a_write_that_was_overtaken_does_not_hide_what_was_seen() {
        let (mut ledger, key) = (Ledger::default(), mk_key());
        assert_eq!(step(&mut ledger, Some(1)), Some('C'));
        ledger.observe(&key, 8, Some("6"), Some("uid"));
        ledger.written(&key, Outcome::Done(Some("5".into())));
        assert_eq!(ledger.stored(&key), Some(&8));
        assert_eq!(step(&mut ledger, Some(1)), Some('U'));
        ledger.forget(&key);
        ledger.written(&key, Outcome::Conflict);
        assert_eq!(step(&mut ledger, Some(1)), Some('C'));
    }
}
