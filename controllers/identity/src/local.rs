//! Numbers for what has a name of its own: prefixes outside the cluster, and nodes.

use std::collections::BTreeMap;
use std::fmt::Display;

use cilium_core::reserved::{FIRST_LOCAL, FIRST_NAMED, FIRST_REMOTE_NODE};
use ipnet::IpNet;

/// What numbers of a scope stand for.
pub trait Named: Clone + Ord + Display {
    /// First number of the scope.
    const FIRST: u32;
    /// How many numbers there are; a power of two.
    const COUNT: u32;
}

/// A prefix outside the cluster.
impl Named for IpNet {
    const FIRST: u32 = FIRST_LOCAL;
    /// Above, nodes number addresses with names.
    const COUNT: u32 = FIRST_NAMED - FIRST_LOCAL;
}

/// The name of a node.
impl Named for String {
    const FIRST: u32 = FIRST_REMOTE_NODE;
    const COUNT: u32 = 1 << 24;
}

/// Gives every name a number of its scope: prefixes from 16777216 on, nodes from 33554432 on.
///
/// # Guarantees
/// - The number is a hash of the name, so it needs no record: it is the same in every cluster and after every restart, and a
///   number that was freed comes back for the same name only.
/// - When two names have one hash, the later gets the next free number. Then [`Local::remember`] keeps it over a restart.
#[derive(Clone, Debug)]
pub struct Local<N> {
    numbers: BTreeMap<N, u32>,
    taken: BTreeMap<u32, N>,
    remembered: BTreeMap<N, u32>,
}

impl<N> Default for Local<N> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), taken: BTreeMap::new(), remembered: BTreeMap::new() }
    }
}

impl<N: Named> Local<N> {
    /// What names had before a restart; asked before the hash is. Numbers out of range, or of two names, do not count.
    pub fn remember(&mut self, numbers: impl IntoIterator<Item = (N, u32)>) {
        let mut owners = BTreeMap::new();
        for (name, number) in numbers {
            if (N::FIRST..N::FIRST + N::COUNT).contains(&number) {
                owners.entry(number).or_insert(name);
            }
        }
        self.remembered = owners.into_iter().map(|(number, name)| (name, number)).collect();
    }

    /// Forgets what [`Local::remember`] was told.
    pub fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    /// The number of a name, given out if it has none. `None` when all numbers are taken.
    pub fn acquire(&mut self, name: N) -> Option<u32> {
        if let Some(number) = self.numbers.get(&name) {
            return Some(*number);
        }
        let start = hash(&name);
        let candidates = (start..N::COUNT).chain(0..start).map(|offset| N::FIRST + offset);
        let before = self.remembered.get(&name).copied();
        let number = before.into_iter().chain(candidates).find(|number| !self.taken.contains_key(number))?;
        self.numbers.insert(name.clone(), number);
        self.taken.insert(number, name);
        Some(number)
    }

    /// Frees the number of a name and gives it.
    pub fn release(&mut self, name: &N) -> Option<u32> {
        let number = self.numbers.remove(name)?;
        self.taken.remove(&number);
        Some(number)
    }

    /// All names that have a number, in order.
    pub fn all(&self) -> impl Iterator<Item = (&N, u32)> {
        self.numbers.iter().map(|(name, number)| (name, *number))
    }

    /// The number of a name, if it has one.
    pub fn number(&self, name: &N) -> Option<u32> {
        self.numbers.get(name).copied()
    }
}

/// 32-bit FNV-1a over the name as text, folded.
fn hash<N: Named>(name: &N) -> u32 {
    let text = name.to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 24 ^ hash) & (N::COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(number: u32) -> IpNet {
        IpNet::V4(ipnet::Ipv4Net::new(number.into(), 32).unwrap())
    }

    /// Two prefixes with one hash.
    fn pair() -> [IpNet; 2] {
        let mut seen: BTreeMap<u32, IpNet> = BTreeMap::new();
        let found = (0..).find_map(|number| {
            let before = seen.insert(hash(&net(number)), net(number))?;
            Some([before, net(number)])
        });
        found.unwrap()
    }

    #[test]
    fn a_number_needs_no_record() {
        let (mut one, mut other) = (Local::default(), Local::default());
        let prefixes = [net(1), net(2), "fd00::/8".parse().unwrap()];
        let numbers = prefixes.map(|prefix| one.acquire(prefix));
        let mut backwards = prefixes;
        backwards.reverse();
        for prefix in backwards {
            other.acquire(prefix);
        }
        assert_eq!(prefixes.map(|prefix| other.number(&prefix)), numbers);
        assert!(numbers.iter().flatten().all(|number| number >> 24 == 1));
        assert_eq!(one.release(&prefixes[0]), numbers[0]);
        assert_eq!(one.number(&prefixes[0]), None);
        assert_eq!(one.acquire(prefixes[0]), numbers[0]);
    }

    #[test]
    fn nodes_have_numbers_of_another_scope() {
        let mut nodes = Local::default();
        let numbers = ["a", "b"].map(|name| nodes.acquire(name.to_owned()).unwrap());
        assert!(numbers[0] != numbers[1] && numbers.iter().all(|number| number >> 24 == 2));
    }

    #[test]
    fn two_of_one_hash_have_two_numbers_and_keep_them() {
        let [first, second] = pair();
        let mut local = Local::default();
        let numbers = [local.acquire(first), local.acquire(second)];
        assert_ne!(numbers[0], numbers[1]);
        let mut restarted = Local::default();
        restarted.remember([(first, numbers[0].unwrap()), (second, numbers[1].unwrap()), (net(9), 5)]);
        assert_eq!(restarted.acquire(second), numbers[1]);
        assert_eq!(restarted.acquire(first), numbers[0]);
        assert_ne!(restarted.acquire(net(9)), Some(5));
    }
}
