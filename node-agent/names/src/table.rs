//! Names and their addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Bounds of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses of one name.
    pub per_name: usize,
    /// Pairs of name and address in all.
    pub pairs: usize,
    /// Pairs that are kept after their time because connections use the address.
    pub in_use: usize,
    /// What a shorter TTL counts as, in seconds.
    pub min_ttl: u32,
    /// Seconds that a pair stays after its time: whoever got the answer in its last moment has yet to connect.
    pub grace: u64,
}

impl Default for Limits {
    /// Upstream's bounds, and one for the whole.
    fn default() -> Self {
        Self { per_name: 1000, pairs: 100_000, in_use: 10_000, min_ttl: 0, grace: 10 }
    }
}

/// A table as it is kept: for each name its addresses, and when each expires.
pub type Saved = BTreeMap<String, BTreeMap<IpAddr, u64>>;

/// A name with an address, and when that expires (seconds since 1970). Ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    expires: u64,
    name: Arc<str>,
    address: IpAddr,
}

/// What an address is called, as far as answers said so.
///
/// # Guarantees
/// - A pair stays for its TTL, and then for as long as [`Table::forget_expired`] is told that its address is in use.
/// - No bound of [`Limits`] is ever exceeded. What has to go for that is the pair whose time is up first.
/// - Every address whose names differ from before is named by [`Table::take_changed`] once; addresses that lost a name before
///   their time by [`Table::take_evicted`] too: connections to them were allowed for that name.
#[derive(Clone, Debug, Default)]
pub struct Table {
    limits: Limits,
    names: BTreeMap<Arc<str>, BTreeMap<IpAddr, u64>>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    by_time: BTreeSet<Pair>,
    changed: BTreeSet<IpAddr>,
    evicted: BTreeSet<IpAddr>,
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A table with what was kept of another.
    pub fn restore(limits: Limits, saved: &Saved) -> Self {
        let mut table = Self::new(limits);
        for (name, addresses) in saved {
            for (address, expires) in addresses {
                table.put(name, *address, *expires);
            }
        }
        table
    }

    /// What is to be kept.
    pub fn save(&self) -> Saved {
        self.names.iter().map(|(name, addresses)| (name.to_string(), addresses.clone())).collect()
    }

    /// Takes an answer: addresses of a name (lower case, with a dot at the end), good for `ttl` seconds from `now` on.
    pub fn learn(&mut self, name: &str, addresses: &[IpAddr], ttl: u32, now: u64) {
        let expires = now + u64::from(ttl.max(self.limits.min_ttl));
        for address in addresses {
            self.put(name, *address, expires);
        }
    }

    /// Pairs whose time is over, grace included.
    fn expired(&self, now: u64) -> impl Iterator<Item = &Pair> {
        let limit = now.saturating_sub(self.limits.grace);
        self.by_time.iter().take_while(move |pair| pair.expires < limit)
    }

    /// Whether there is something for [`Table::forget_expired`].
    pub fn has_expired(&self, now: u64) -> bool {
        self.expired(now).next().is_some()
    }

    /// Removes pairs whose time is over, but for those with an address that connections use; of these, as many as the bound
    /// allows, the youngest.
    pub fn forget_expired(&mut self, now: u64, in_use: &HashSet<IpAddr>) {
        let (used, unused): (Vec<Pair>, Vec<Pair>) =
            self.expired(now).cloned().partition(|pair| in_use.contains(&pair.address));
        for pair in &unused {
            self.remove(pair);
        }
        let excess = used.len().saturating_sub(self.limits.in_use);
        for pair in used.iter().take(excess) {
            self.evict(pair);
        }
    }

    /// Forgets a name, or all.
    pub fn clear(&mut self, name: Option<&str>) {
        let all: Vec<Pair> =
            self.by_time.iter().filter(|pair| name.is_none_or(|name| *pair.name == *name)).cloned().collect();
        for pair in &all {
            self.evict(pair);
        }
    }

    /// Names of an address, in order.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.by_address.get(&address).into_iter().flatten().map(AsRef::as_ref)
    }

    /// All addresses with a name.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// Every name with its addresses and when they expire, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeMap<IpAddr, u64>)> {
        self.names.iter().map(|(name, addresses)| (name.as_ref(), addresses))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Addresses that gained or lost a name since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Addresses that lost a name before its time since the last call: connections may still use them.
    pub fn take_evicted(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.evicted)
    }

    fn put(&mut self, name: &str, address: IpAddr, expires: u64) {
        let name: Arc<str> = match self.names.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => Arc::from(name),
        };
        let addresses = self.names.entry(name.clone()).or_default();
        match addresses.insert(address, expires) {
            Some(before) if before >= expires => {
                addresses.insert(address, before);
                return;
            }
            Some(before) => {
                self.by_time.remove(&Pair { expires: before, name: name.clone(), address });
            }
            None => {
                self.by_address.entry(address).or_default().insert(name.clone());
                self.changed.insert(address);
            }
        }
        let too_many = addresses.len() > self.limits.per_name;
        let first =
            too_many.then(|| addresses.iter().min_by_key(|(address, expires)| (**expires, **address)));
        let first = first.flatten().map(|(address, expires)| (*address, *expires));
        self.by_time.insert(Pair { expires, name: name.clone(), address });
        if let Some((address, expires)) = first {
            self.evict(&Pair { expires, name, address });
        }
        if self.by_time.len() > self.limits.pairs
            && let Some(first) = self.by_time.first().cloned()
        {
            self.evict(&first);
        }
    }

    fn evict(&mut self, pair: &Pair) {
        self.remove(pair);
        self.evicted.insert(pair.address);
    }

    fn remove(&mut self, pair: &Pair) {
        self.by_time.remove(pair);
        if let Some(addresses) = self.names.get_mut(&pair.name) {
            addresses.remove(&pair.address);
            if addresses.is_empty() {
                self.names.remove(&pair.name);
            }
        }
        if let Some(names) = self.by_address.get_mut(&pair.address) {
            names.remove(&pair.name);
            if names.is_empty() {
                self.by_address.remove(&pair.address);
            }
        }
        self.changed.insert(pair.address);
    }
}
