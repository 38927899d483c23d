use std::fmt;

use cilium_core::hash::fnv1a;

/// Where a slice stands in the tree: the first bits of the hashes of its keys, most significant first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Path {
    /// The bits, left-aligned; the rest is zero. First, so that paths are ordered as their texts are.
    bits: u64,
    len: u8,
}

impl Path {
    /// The whole tree.
    pub(crate) const ROOT: Self = Self { bits: 0, len: 0 };

    /// One level down. Never called on a full path: see [`Path::is_full`].
    pub(crate) fn child(self, bit: usize) -> Self {
        let mask = (bit as u64) << (63 - self.len);
        Self { bits: self.bits | mask, len: self.len + 1 }
    }

    /// Which child a hash belongs to.
    pub(crate) fn branch(self, hash: u64) -> usize {
        usize::from(hash >> (63 - self.len) & 1 == 1)
    }

    /// All bits are used: keys below it cannot be told apart.
    pub(crate) fn is_full(self) -> bool {
        self.len == 64
    }

    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "r" {
            return Some(Self::ROOT);
        }
        let bits = (1..=64).contains(&text.len()).then_some(text.bytes())?;
        bits.into_iter().try_fold(Self::ROOT, |path, bit| match bit {
            b'0' => Some(path.child(0)),
            b'1' => Some(path.child(1)),
            _ => None,
        })
    }

    /// The bit at a level above this path.
    pub(crate) fn bit(self, level: u8) -> usize {
        usize::from(self.bits >> (63 - level) & 1 == 1)
    }

    /// Number of bits.
    pub(crate) fn len(self) -> u8 {
        self.len
    }
}

impl fmt::Display for Path {
    /// The bits as `0` and `1`, or `r` without bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == 0 {
            return f.write_str("r");
        }
        (0..self.len).try_for_each(|level| write!(f, "{}", self.bit(level)))
    }
}

/// Where a key goes.
pub(crate) fn hash(key: &str) -> u64 {
    fnv1a(key.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_paths() {
        let path = Path::ROOT.child(1).child(0).child(1);
        assert_eq!((Path::ROOT.to_string(), path.to_string()), ("r".into(), "101".into()));
        assert_eq!([path.branch(u64::MAX), path.branch(0)], [1, 0]);
        assert!(Path::ROOT.child(0) < Path::ROOT.child(0).child(0));
        assert!(Path::ROOT.child(0).child(1) < Path::ROOT.child(1));
        let full = (0..64).fold(Path::ROOT, |path, _| path.child(1));
        assert!(full.is_full() && full.to_string().len() == 64);
        for path in [Path::ROOT, path, full] {
            assert_eq!(Path::parse(&path.to_string()), Some(path));
        }
        for text in ["", "2", "0r", &"0".repeat(65)] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }
}
