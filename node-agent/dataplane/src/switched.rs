//! Content that is reached through a pointer: filled aside, verified, put in force by one write, removed later.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use cilium_delta::Table;

use crate::GRACE;
use crate::kernel::{Lookup, chain};

/// The two tables of one kind of content.
pub(crate) trait Scheme {
    /// Key of the pointer.
    type Owner: Copy + Eq + Hash + Ord;
    /// Its value, which names a generation.
    type Pointer: Copy + PartialEq;
    /// What stands under a generation, as a whole.
    type Content: Eq + Hash;
    /// Key of a piece of content.
    type Key: Copy + Eq + Hash;
    /// A piece of content.
    type Value: Clone + PartialEq;

    /// The lowest generation.
    const FIRST: u32;

    /// The pieces of content under a generation.
    fn items(generation: u32, content: &Self::Content) -> Vec<(Self::Key, Self::Value)>;
    /// The pointer that puts content in force.
    fn pointer(generation: u32, content: &Self::Content) -> Self::Pointer;
    /// The entry that remembers the next generation, when it must outlive the content.
    fn mark(next: u32) -> Option<(Self::Owner, Self::Pointer)>;
    /// The generation that a pointer names; `None` for a pointer that counts as absent.
    fn generation(pointer: &Self::Pointer) -> Option<u32>;
    /// The generation that a piece belongs to.
    fn item_generation(key: &Self::Key) -> u32;
    /// The content behind a pointer that was read back; `None` when pointer and pieces contradict each other.
    fn content(pointer: &Self::Pointer, items: Vec<(Self::Key, Self::Value)>) -> Option<Self::Content>;
}

/// What is believed to be in force for one owner.
struct Actual<S: Scheme> {
    generation: u32,
    /// `None`: not understood, so it equals nothing that could be desired.
    content: Option<Arc<S::Content>>,
}

/// The pieces of each generation.
type Groups<S> = HashMap<u32, Vec<(<S as Scheme>::Key, <S as Scheme>::Value)>>;

/// Pieces that nothing points to any more.
struct Retired<S: Scheme> {
    due: u64,
    keys: Vec<S::Key>,
}

/// Owners of equal content share one generation.
pub(crate) struct Switched<S: Scheme> {
    desired: HashMap<S::Owner, Arc<S::Content>>,
    actual: HashMap<S::Owner, Actual<S>>,
    /// How many owners each generation with content has.
    users: HashMap<u32, usize>,
    /// The generation that an owner of this content may join.
    joinable: HashMap<Arc<S::Content>, u32>,
    dirty: BTreeSet<S::Owner>,
    /// Owners that need another generation, whatever their content is.
    outdated: BTreeSet<S::Owner>,
    failed: BTreeMap<S::Owner, String>,
    retired: Vec<Retired<S>>,
    next: u32,
}

/// What a step of the protocol failed at.
#[derive(Debug, thiserror::Error)]
enum Error<E: std::error::Error + 'static> {
    #[error("the next generation cannot be recorded; what was in force before stays")]
    Mark(#[source] E),
    // Without the number of those that fit: that changes from one attempt to the next, and a message that changes is told again.
    #[error("its {all} entries cannot all be written; what was in force before stays")]
    Fill {
        all: usize,
        #[source]
        source: E,
    },
    #[error("an entry cannot be read back; what was in force before stays")]
    Verify(#[source] E),
    #[error("an entry reads back differently than it was written; what was in force before stays")]
    Differs,
    #[error("the new entries cannot be put in force; what was in force before stays")]
    Switch(#[source] E),
}

impl<S: Scheme> Switched<S> {
    pub(crate) fn new() -> Self {
        Self {
            desired: HashMap::new(),
            actual: HashMap::new(),
            users: HashMap::new(),
            joinable: HashMap::new(),
            dirty: BTreeSet::new(),
            outdated: BTreeSet::new(),
            failed: BTreeMap::new(),
            retired: Vec::new(),
            next: S::FIRST,
        }
    }

    /// Desires content.
    pub(crate) fn set(&mut self, owner: S::Owner, content: Arc<S::Content>) {
        if self.desired.get(&owner).is_some_and(|old| *old == content) {
            return;
        }
        self.failed.remove(&owner);
        self.desired.insert(owner, content);
        self.dirty.insert(owner);
    }

    /// Desires that there is none.
    pub(crate) fn remove(&mut self, owner: S::Owner) {
        self.failed.remove(&owner);
        self.outdated.remove(&owner);
        if self.desired.remove(&owner).is_some() {
            self.dirty.insert(owner);
        }
    }

    /// Lets [`Switched::switch`] give the owner a generation that does not exist yet.
    pub(crate) fn renew(&mut self, owner: S::Owner) {
        if let Some(content) = self.desired.get(&owner) {
            self.joinable.remove(content);
        }
        self.outdated.insert(owner);
        self.dirty.insert(owner);
    }

    /// Nothing is desired for the owner.
    pub(crate) fn is_unset(&self, owner: S::Owner) -> bool {
        !self.desired.contains_key(&owner)
    }

    /// Owner of nothing, neither desired nor believed to be there.
    pub(crate) fn is_free(&self, owner: S::Owner) -> bool {
        !self.desired.contains_key(&owner) && !self.actual.contains_key(&owner)
    }

    /// The desired content is in force.
    pub(crate) fn is_in_force(&self, owner: S::Owner) -> bool {
        let actual = self.actual.get(&owner).and_then(|actual| actual.content.as_ref());
        actual.is_some_and(|actual| self.desired.get(&owner) == Some(actual))
    }

    /// Generation and content in force.
    pub(crate) fn in_force(&self, owner: S::Owner) -> Option<(u32, &S::Content)> {
        let actual = self.actual.get(&owner)?;
        Some((actual.generation, actual.content.as_deref()?))
    }

    /// Owners whose content is not in force, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (S::Owner, &str)> {
        self.failed.iter().map(|(owner, message)| (*owner, message.as_str()))
    }

    /// Pieces wait for their removal.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Nothing is left to be tried at once; what failed waits for [`Switched::retry`].
    pub(crate) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Lets [`Switched::switch`] try again what failed.
    pub(crate) fn retry(&mut self) {
        self.dirty.extend(std::mem::take(&mut self.failed).into_keys());
    }

    /// Learns what the kernel holds. To be called once, before anything is applied.
    pub(crate) fn adopt(
        &mut self,
        pointers: Vec<(S::Owner, S::Pointer)>,
        items: Vec<(S::Key, S::Value)>,
        now: u64,
    ) {
        let mark = S::mark(0).map(|(owner, _)| owner);
        let mut groups: Groups<S> = HashMap::new();
        for (key, value) in items {
            groups.entry(S::item_generation(&key)).or_default().push((key, value));
        }
        let seen = pointers.iter().filter_map(|(owner, pointer)| {
            let generation = S::generation(pointer)?;
            Some(if Some(*owner) == mark { generation } else { generation.saturating_add(1) })
        });
        let used = groups.keys().map(|generation| generation.saturating_add(1));
        self.next = seen.chain(used).fold(self.next, u32::max);
        let mut pointed: HashSet<u32> = HashSet::new();
        for (owner, pointer) in pointers.into_iter().filter(|(owner, _)| Some(*owner) != mark) {
            let Some(generation) = S::generation(&pointer) else { continue };
            pointed.insert(generation);
            let items = groups.get(&generation).cloned().unwrap_or_default();
            let content = S::content(&pointer, items).map(Arc::new);
            self.dirty.insert(owner);
            match content {
                Some(content) => self.hold(owner, generation, content),
                None => drop(self.actual.insert(owner, Actual { generation, content: None })),
            }
        }
        for (generation, items) in groups.into_iter().filter(|(it, _)| !self.users.contains_key(it)) {
            let due = if pointed.contains(&generation) { now + GRACE } else { now };
            let keys = items.into_iter().map(|(key, _)| key).collect();
            self.retired.push(Retired { due, keys });
        }
    }

    /// Takes note that content is in force for an owner that had none.
    fn hold(&mut self, owner: S::Owner, generation: u32, content: Arc<S::Content>) {
        *self.users.entry(generation).or_default() += 1;
        self.joinable.entry(content.clone()).or_insert(generation);
        self.actual.insert(owner, Actual { generation, content: Some(content) });
    }

    /// Puts in force what is desired and is not. Owners of nothing are left to [`Switched::drop_unwanted`].
    pub(crate) fn switch<K, E>(&mut self, kernel: &mut K, now: u64)
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E> + Lookup<S::Key, S::Value, Error = E>,
    {
        let wanted: Vec<(S::Owner, Arc<S::Content>)> =
            self.dirty.iter().filter_map(|owner| Some((*owner, self.desired.get(owner)?.clone()))).collect();
        // What does not fit for one owner does not fit for the next.
        let mut refused: HashMap<Arc<S::Content>, String> = HashMap::new();
        for (owner, content) in wanted {
            self.dirty.remove(&owner);
            if self.is_in_force(owner) && !self.outdated.contains(&owner) {
                self.share(owner);
                continue;
            }
            if let Some(message) = refused.get(&content) {
                self.failed.insert(owner, message.clone());
                continue;
            }
            match self.replace(kernel, owner, content.clone(), now) {
                Ok(()) => _ = self.outdated.remove(&owner),
                Err(error) => {
                    self.failed.insert(owner, chain(&error));
                    refused.insert(content, chain(&error));
                }
            }
        }
    }

    /// Equal content need not be held twice.
    fn share(&mut self, owner: S::Owner) {
        if let (Some(actual), Some(desired)) = (self.actual.get_mut(&owner), self.desired.get(&owner)) {
            actual.content = Some(desired.clone());
        }
    }

    fn replace<K, E>(
        &mut self,
        kernel: &mut K,
        owner: S::Owner,
        content: Arc<S::Content>,
        now: u64,
    ) -> Result<(), Error<E>>
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E> + Lookup<S::Key, S::Value, Error = E>,
    {
        if let Some(generation) = self.joinable.get(&content).copied() {
            let items = S::items(generation, &content);
            // Somebody else may have changed it since it was filled; then it is left to be repaired.
            if verify(kernel, &items).is_ok() {
                return self.point(kernel, owner, generation, content, now).map_err(Error::Switch);
            }
        }
        self.fill_and_point(kernel, owner, content, now)
    }

    fn point<K, E>(
        &mut self,
        kernel: &mut K,
        owner: S::Owner,
        generation: u32,
        content: Arc<S::Content>,
        now: u64,
    ) -> Result<(), E>
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E>,
    {
        Table::set(kernel, &owner, &S::pointer(generation, &content))?;
        let old = self.actual.remove(&owner);
        self.hold(owner, generation, content);
        self.retire(old, now);
        Ok(())
    }

    fn fill_and_point<K, E>(
        &mut self,
        kernel: &mut K,
        owner: S::Owner,
        content: Arc<S::Content>,
        now: u64,
    ) -> Result<(), Error<E>>
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E> + Lookup<S::Key, S::Value, Error = E>,
    {
        let generation = self.next_generation(kernel).map_err(Error::Mark)?;
        let items = S::items(generation, &content);
        let filled = fill(kernel, &items).and_then(|()| verify(kernel, &items));
        // A generation that was given up is nobody's to join.
        self.joinable.remove(&content);
        let done =
            filled.and_then(|()| self.point(kernel, owner, generation, content, now).map_err(Error::Switch));
        if done.is_err() {
            let keys = items.into_iter().map(|(key, _)| key).collect();
            self.retired.push(Retired { due: now, keys });
            self.sweep(kernel, now);
        }
        done
    }

    fn next_generation<K, E>(&mut self, kernel: &mut K) -> Result<u32, E>
    where
        K: Table<S::Owner, S::Pointer, Error = E>,
    {
        let generation = self.next;
        // At one change a millisecond the numbers last for seven weeks of nothing else; then they begin anew.
        let next = generation.checked_add(1).unwrap_or(S::FIRST);
        if let Some((owner, pointer)) = S::mark(next) {
            kernel.set(&owner, &pointer)?;
        }
        self.next = next;
        Ok(generation)
    }

    fn retire(&mut self, old: Option<Actual<S>>, now: u64) {
        let Some(Actual { generation, content: Some(content) }) = old else { return };
        let users = self.users.entry(generation).or_default();
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        self.users.remove(&generation);
        if self.joinable.get(&content) == Some(&generation) {
            self.joinable.remove(&content);
        }
        let keys: Vec<S::Key> = S::items(generation, &content).into_iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            self.retired.push(Retired { due: now + GRACE, keys });
        }
    }

    /// Takes away the pointers of owners that desire nothing, as far as `may_go`.
    pub(crate) fn drop_unwanted<K, E>(&mut self, kernel: &mut K, now: u64, may_go: impl Fn(S::Owner) -> bool)
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E>,
    {
        let unwanted: Vec<S::Owner> = self
            .dirty
            .iter()
            .filter(|owner| !self.desired.contains_key(owner) && may_go(**owner))
            .copied()
            .collect();
        for owner in unwanted {
            self.dirty.remove(&owner);
            if !self.actual.contains_key(&owner) {
                continue;
            }
            match kernel.delete(&owner) {
                Ok(()) => {
                    let old = self.actual.remove(&owner);
                    self.retire(old, now);
                }
                Err(error) => {
                    self.failed.insert(owner, chain(&error));
                }
            }
        }
    }

    /// Removes pieces whose time has come. Those that cannot be removed are tried again by the next call.
    pub(crate) fn sweep<K, E>(&mut self, kernel: &mut K, now: u64)
    where
        K: Table<S::Key, S::Value, Error = E>,
    {
        for retired in &mut self.retired {
            if retired.due <= now {
                retired.keys.retain(|key| kernel.delete(key).is_err());
            }
        }
        self.retired.retain(|retired| !retired.keys.is_empty());
    }

    /// Compares what the kernel holds with what is believed, and puts differences right. Returns how many there were.
    pub(crate) fn repair<K, E>(&mut self, kernel: &mut K) -> Result<usize, E>
    where
        K: Table<S::Owner, S::Pointer, Error = E> + Table<S::Key, S::Value, Error = E>,
    {
        let pointers = <K as Table<S::Owner, S::Pointer>>::list(kernel)?;
        let items = <K as Table<S::Key, S::Value>>::list(kernel)?;
        let mut expected: HashMap<S::Key, S::Value> = HashMap::new();
        let mut pointing: HashMap<S::Owner, S::Pointer> = HashMap::new();
        for (owner, actual) in &self.actual {
            if let Some(content) = &actual.content {
                expected.extend(S::items(actual.generation, content));
                pointing.insert(*owner, S::pointer(actual.generation, content));
            }
        }
        let leaving: HashSet<S::Key> =
            self.retired.iter().flat_map(|retired| retired.keys.iter().copied()).collect();
        if self.next > S::FIRST {
            pointing.extend(S::mark(self.next));
        }
        let pointers = pointers.into_iter().filter(|(_, pointer)| S::generation(pointer).is_some());
        Ok(mend(kernel, expected, items, |key| leaving.contains(key))?
            + mend(kernel, pointing, pointers, |_| false)?)
    }
}

/// Makes a table hold `expected` and, but for what is `tolerated`, nothing else. Returns the number of differences.
fn mend<T, K, V>(
    table: &mut T,
    mut expected: HashMap<K, V>,
    found: impl IntoIterator<Item = (K, V)>,
    tolerated: impl Fn(&K) -> bool,
) -> Result<usize, T::Error>
where
    T: Table<K, V>,
    K: Eq + Hash,
    V: PartialEq,
{
    let mut foreign = Vec::new();
    for (key, value) in found {
        if expected.get(&key).is_some_and(|expected| *expected == value) {
            expected.remove(&key);
        } else if !expected.contains_key(&key) && !tolerated(&key) {
            foreign.push(key);
        }
    }
    for (key, value) in &expected {
        table.set(key, value)?;
    }
    for key in &foreign {
        table.delete(key)?;
    }
    Ok(expected.len() + foreign.len())
}

fn fill<T, K, V>(table: &mut T, items: &[(K, V)]) -> Result<(), Error<T::Error>>
where
    T: Table<K, V>,
    T::Error: std::error::Error + 'static,
{
    items.iter().try_for_each(|(key, value)| {
        table.set(key, value).map_err(|source| Error::Fill { all: items.len(), source })
    })
}

fn verify<T, K, V>(table: &mut T, items: &[(K, V)]) -> Result<(), Error<T::Error>>
where
    T: Lookup<K, V>,
    V: PartialEq,
    T::Error: std::error::Error + 'static,
{
    items.iter().try_for_each(|(key, value)| match table.lookup(key) {
        Ok(Some(found)) if found == *value => Ok(()),
        Ok(_) => Err(Error::Differs),
        Err(error) => Err(Error::Verify(error)),
    })
}
