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
    /// Generations that are equal modulo this share a place, which has room for one of them.
    const PLACES: u32 = u32::MAX;

    /// The pieces of content under a generation, each with a key of its own.
    fn items(generation: u32, content: &Self::Content) -> Vec<(Self::Key, Self::Value)>;
    /// The piece of content that has this key, whatever its generation.
    fn item(content: &Self::Content, key: &Self::Key) -> Option<Self::Value>;
    /// How many pieces there are.
    fn count(content: &Self::Content) -> usize;
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

/// What is believed to stand under a generation.
struct Held<C> {
    content: Arc<C>,
    /// How many owners point to it.
    owners: u32,
    /// How many of its pieces [`Switched::repair`] has found as they should be.
    found: u32,
}

/// In place of a generation: a pointer that is not understood, so that it equals nothing that could be desired.
const STRANGE: u32 = 0;

/// The pieces of each generation.
type Groups<S> = HashMap<u32, Vec<(<S as Scheme>::Key, <S as Scheme>::Value)>>;

/// Pieces that nothing points to any more.
struct Retired<S: Scheme> {
    generation: u32,
    due: u64,
    keys: Vec<S::Key>,
}

/// Owners of equal content share one generation.
pub(crate) struct Switched<S: Scheme> {
    desired: HashMap<S::Owner, Arc<S::Content>>,
    /// The generation that an owner's pointer is believed to name, or [`STRANGE`].
    actual: HashMap<S::Owner, u32>,
    /// Generations that owners point to.
    held: HashMap<u32, Held<S::Content>>,
    /// The generation that an owner of this content may join.
    joinable: HashMap<Arc<S::Content>, u32>,
    dirty: BTreeSet<S::Owner>,
    /// Owners that need another generation, whatever their content is.
    outdated: BTreeSet<S::Owner>,
    failed: BTreeMap<S::Owner, String>,
    retired: Vec<Retired<S>>,
    /// Places of generations whose pieces may be in the kernel.
    taken: HashSet<u32>,
    next: u32,
}

/// What a step of the protocol failed at.
#[derive(Debug, thiserror::Error)]
enum Error<E: std::error::Error + 'static> {
    #[error("the next generation cannot be recorded; what was in force before stays")]
    Mark(#[source] E),
    #[error("all {places} generations that may exist at a time do; what was in force before stays")]
    Places { places: u32 },
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
            held: HashMap::new(),
            joinable: HashMap::new(),
            dirty: BTreeSet::new(),
            outdated: BTreeSet::new(),
            failed: BTreeMap::new(),
            retired: Vec::new(),
            taken: HashSet::new(),
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
        let held = self.actual.get(&owner).and_then(|generation| self.held.get(generation));
        held.is_some_and(|held| self.desired.get(&owner) == Some(&held.content))
    }

    /// Generation and content in force.
    pub(crate) fn in_force(&self, owner: S::Owner) -> Option<(u32, &S::Content)> {
        let generation = *self.actual.get(&owner)?;
        Some((generation, &*self.held.get(&generation)?.content))
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
        // Programs remember numbers for longer than they are in use. Without a mark nothing tells which ones were given away last, but
        // so many milliseconds into a machine's life, no run before has come further.
        let unused = u32::try_from(now % u64::from(u32::MAX)).unwrap_or(S::FIRST);
        let unused = Some(unused).filter(|_| mark.is_none());
        self.next = seen.chain(used).chain(unused).fold(self.next, u32::max);
        let mut pointed: HashSet<u32> = HashSet::new();
        for (owner, pointer) in pointers.into_iter().filter(|(owner, _)| Some(*owner) != mark) {
            let Some(generation) = S::generation(&pointer) else { continue };
            pointed.insert(generation);
            let items = groups.get(&generation).cloned().unwrap_or_default();
            let content = S::content(&pointer, items).filter(|content| self.may_hold(generation, content));
            self.dirty.insert(owner);
            match content {
                Some(content) => self.hold(owner, generation, Arc::new(content)),
                None => drop(self.actual.insert(owner, STRANGE)),
            }
        }
        for (generation, items) in groups.into_iter().filter(|(it, _)| !self.held.contains_key(it)) {
            let due = if pointed.contains(&generation) { now + GRACE } else { now };
            let keys = items.into_iter().map(|(key, _)| key).collect();
            self.retired.push(Retired { generation, due, keys });
        }
        let left = self.retired.iter().map(|retired| retired.generation);
        self.taken = self.held.keys().copied().chain(left).map(|it| it % S::PLACES).collect();
    }

    /// Pointers to one generation say the same of it, unless somebody else wrote them.
    fn may_hold(&self, generation: u32, content: &S::Content) -> bool {
        generation != STRANGE && self.held.get(&generation).is_none_or(|held| *held.content == *content)
    }

    /// Takes note that content is in force for an owner that had none.
    fn hold(&mut self, owner: S::Owner, generation: u32, content: Arc<S::Content>) {
        let fresh = || Held { content: content.clone(), owners: 0, found: 0 };
        self.held.entry(generation).or_insert_with(fresh).owners += 1;
        self.joinable.entry(content).or_insert(generation);
        self.actual.insert(owner, generation);
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
        let held = self.actual.get(&owner).and_then(|generation| self.held.get_mut(generation));
        let (Some(held), Some(desired)) = (held, self.desired.get(&owner)) else { return };
        held.content = desired.clone();
        if let Some(generation) = self.joinable.remove(desired) {
            self.joinable.insert(desired.clone(), generation);
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
        let generation = self.next_generation(kernel)?;
        let items = S::items(generation, &content);
        let filled = fill(kernel, &items).and_then(|()| verify(kernel, &items));
        // A generation that was given up is nobody's to join.
        self.joinable.remove(&content);
        let done =
            filled.and_then(|()| self.point(kernel, owner, generation, content, now).map_err(Error::Switch));
        if done.is_err() {
            let keys = items.into_iter().map(|(key, _)| key).collect();
            self.retired.push(Retired { generation, due: now, keys });
            self.sweep(kernel, now);
        }
        done
    }

    /// Takes a generation whose place is free.
    fn next_generation<K, E>(&mut self, kernel: &mut K) -> Result<u32, Error<E>>
    where
        E: std::error::Error + 'static,
        K: Table<S::Owner, S::Pointer, Error = E>,
    {
        // At one change a millisecond the numbers last for seven weeks of nothing else; then they begin anew.
        let after = |generation: u32| generation.checked_add(1).unwrap_or(S::FIRST);
        let numbers = std::iter::successors(Some(self.next), |number| Some(after(*number)));
        let mut numbers = numbers.take(usize::try_from(S::PLACES).unwrap_or(usize::MAX));
        let free = numbers.find(|number| !self.taken.contains(&(number % S::PLACES)));
        let generation = free.ok_or(Error::Places { places: S::PLACES })?;
        let next = after(generation);
        if let Some((owner, pointer)) = S::mark(next) {
            kernel.set(&owner, &pointer).map_err(Error::Mark)?;
        }
        self.next = next;
        self.taken.insert(generation % S::PLACES);
        Ok(generation)
    }

    fn retire(&mut self, old: Option<u32>, now: u64) {
        let Some(generation) = old else { return };
        let Some(held) = self.held.get_mut(&generation) else { return };
        held.owners = held.owners.saturating_sub(1);
        if held.owners > 0 {
            return;
        }
        let content = held.content.clone();
        self.held.remove(&generation);
        if self.joinable.get(&content) == Some(&generation) {
            self.joinable.remove(&content);
        }
        let keys: Vec<S::Key> = S::items(generation, &content).into_iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            self.taken.remove(&(generation % S::PLACES));
        } else {
            self.retired.push(Retired { generation, due: now + GRACE, keys });
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
        for gone in self.retired.extract_if(.., |retired| retired.keys.is_empty()) {
            self.taken.remove(&(gone.generation % S::PLACES));
        }
    }

    /// Compares what the kernel holds with what is believed, and puts differences right. Returns how many there were.
    pub(crate) fn repair<K, E>(&mut self, kernel: &mut K) -> Result<usize, E>
    where
        K: Table<S::Owner, S::Pointer, Error = E> + Table<S::Key, S::Value, Error = E>,
    {
        Ok(self.repair_items(kernel)? + self.repair_pointers(kernel)?)
    }

    fn repair_items<T: Table<S::Key, S::Value>>(&mut self, table: &mut T) -> Result<usize, T::Error> {
        let leaving: HashSet<S::Key> =
            self.retired.iter().flat_map(|retired| retired.keys.iter().copied()).collect();
        self.held.values_mut().for_each(|held| held.found = 0);
        let mut foreign = Vec::new();
        table.each(&mut |key, value| {
            let held = self.held.get_mut(&S::item_generation(&key));
            let expected = held.and_then(|held| Some((S::item(&held.content, &key)?, held)));
            match expected {
                Some((expected, held)) => held.found += u32::from(expected == value),
                None if leaving.contains(&key) => {}
                None => foreign.push(key),
            }
        })?;
        let mut differences = foreign.len();
        for (generation, held) in &self.held {
            let found = usize::try_from(held.found).unwrap_or(usize::MAX);
            let lacking = S::count(&held.content).saturating_sub(found);
            if lacking > 0 {
                differences += lacking;
                let mut items = S::items(*generation, &held.content).into_iter();
                items.try_for_each(|(key, value)| table.set(&key, &value))?;
            }
        }
        foreign.iter().try_for_each(|key| table.delete(key))?;
        Ok(differences)
    }

    fn repair_pointers<T: Table<S::Owner, S::Pointer>>(&mut self, table: &mut T) -> Result<usize, T::Error> {
        let mark = S::mark(self.next).filter(|_| self.next > S::FIRST);
        let pointer = |owner: &S::Owner| match &mark {
            Some((mark, pointer)) if mark == owner => Some(*pointer),
            _ => {
                let generation = *self.actual.get(owner)?;
                Some(S::pointer(generation, &self.held.get(&generation)?.content))
            }
        };
        let mut foreign = Vec::new();
        let mut right = 0;
        table.each(&mut |owner, found| match pointer(&owner) {
            _ if S::generation(&found).is_none() => {}
            Some(expected) => right += usize::from(expected == found),
            None => foreign.push(owner),
        })?;
        let owners = self.actual.keys().copied().chain(mark.map(|(mark, _)| mark));
        let expected = owners.filter_map(|owner| Some((owner, pointer(&owner)?)));
        let mut differences = foreign.len();
        if expected.clone().count() > right {
            let found: HashMap<S::Owner, S::Pointer> = table.list()?.into_iter().collect();
            for (owner, pointer) in expected.filter(|(owner, pointer)| found.get(owner) != Some(pointer)) {
                table.set(&owner, &pointer)?;
                differences += 1;
            }
        }
        foreign.iter().try_for_each(|owner| table.delete(owner))?;
        Ok(differences)
    }
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
