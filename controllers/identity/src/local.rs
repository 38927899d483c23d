//! Numbers for prefixes outside the cluster.

use std::collections::BTreeMap;

use cilium_core::reserved::FIRST_LOCAL;
use ipnet::IpNet;

/// How many numbers there are, from [`FIRST_LOCAL`] on.
const COUNT: u32 = 1 << 24;

/// Gives every prefix a number of the local scope (16777216 and up).
///
/// # Guarantees
/// - The number is a hash of the prefix, so it needs no record: it is the same in every cluster and after every restart, and a
///   number that was freed comes back for the same prefix only.
/// - When two prefixes have one hash, the later gets the next free number. Then [`Local::remember`] keeps it over a restart.
#[derive(Clone, Debug, Default)]
pub struct Local {
    numbers: BTreeMap<IpNet, u32>,
    taken: BTreeMap<u32, IpNet>,
    remembered: BTreeMap<IpNet, u32>,
}

impl Local {
    /// What prefixes had before a restart; asked before the hash is. Numbers out of range, or of two prefixes, do not count.
    pub fn remember(&mut self, numbers: impl IntoIterator<Item = (IpNet, u32)>) {
        let mut owners = BTreeMap::new();
        for (prefix, number) in numbers {
            if (FIRST_LOCAL..FIRST_LOCAL + COUNT).contains(&number) {
                owners.entry(number).or_insert(prefix);
            }
        }
        self.remembered = owners.into_iter().map(|(number, prefix)| (prefix, number)).collect();
    }

    /// Forgets what [`Local::remember`] was told.
    pub fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    /// The number of a prefix, given out if it has none. `None` when all numbers are taken.
    pub fn acquire(&mut self, prefix: IpNet) -> Option<u32> {
        if let Some(number) = self.numbers.get(&prefix) {
            return Some(*number);
        }
        let start = hash(&prefix);
        let candidates = (start..COUNT).chain(0..start).map(|offset| FIRST_LOCAL + offset);
        let before = self.remembered.get(&prefix).copied();
        let number = before.into_iter().chain(candidates).find(|number| !self.taken.contains_key(number))?;
        self.numbers.insert(prefix, number);
        self.taken.insert(number, prefix);
        Some(number)
    }

    /// Frees the number of a prefix and gives it.
    pub fn release(&mut self, prefix: &IpNet) -> Option<u32> {
        let number = self.numbers.remove(prefix)?;
        self.taken.remove(&number);
        Some(number)
    }

    /// The number of a prefix, if it has one.
    pub fn number(&self, prefix: &IpNet) -> Option<u32> {
        self.numbers.get(prefix).copied()
    }
}

/// 32-bit FNV-1a over the prefix as text, folded to 24 bits.
fn hash(prefix: &IpNet) -> u32 {
    let text = prefix.to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 24 ^ hash) & (COUNT - 1)
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
