use std::{collections::HashMap, convert::Infallible, hash::Hash};

/// Something in the kernel (or elsewhere) that holds entries by key.
pub trait Table<K, V> {
    /// Why an operation on one entry or the listing failed.
    type Error;

    /// Reads all entries that belong to us back.
    ///
    /// # Errors
    /// When the listing is not complete; a partial list is never returned.
    fn list(&mut self) -> Result<Vec<(K, V)>, Self::Error>;

    /// Shows all entries that belong to us one by one, where a table can do so without holding them all.
    ///
    /// # Errors
    /// As [`Table::list`]; some may have been shown before.
    fn each(&mut self, see: &mut dyn FnMut(K, V)) -> Result<(), Self::Error> {
        self.list()?.into_iter().for_each(|(key, value)| see(key, value));
        Ok(())
    }

    /// Creates the entry or overwrites the one with this key.
    ///
    /// # Errors
    /// When the entry could not be written; the old one then still stands.
    fn set(&mut self, key: &K, value: &V) -> Result<(), Self::Error>;

    /// Removes the entry. An entry that is not there is a success.
    ///
    /// # Errors
    /// When the entry is still there.
    fn delete(&mut self, key: &K) -> Result<(), Self::Error>;
}

/// A table in memory, for tests of what is built on a [`Tracker`](crate::Tracker).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryTable<K: Eq + Hash, V>(pub HashMap<K, V>);

impl<K: Eq + Hash, V> Default for MemoryTable<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Table<K, V> for MemoryTable<K, V> {
    type Error = Infallible;

    fn list(&mut self) -> Result<Vec<(K, V)>, Infallible> {
        Ok(self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn set(&mut self, key: &K, value: &V) -> Result<(), Infallible> {
        self.0.insert(key.clone(), value.clone());
        Ok(())
    }

    fn delete(&mut self, key: &K) -> Result<(), Infallible> {
        self.0.remove(key);
        Ok(())
    }
}
