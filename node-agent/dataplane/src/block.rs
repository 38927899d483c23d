//! Traffic with one peer, cut so that a trie can hold it.

use cilium_api::parts::Entry;
use cilium_bpf::layout::PolicyKey;
use cilium_core::port_blocks;

/// Some of the traffic with a peer: what of a key's protocol and port counts. Bits beyond are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Length of the whole key.
    pub(crate) prefix_len: u32,
}

/// A port range ends before it begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ports {first} to {last} are no range: the operator is faulty, the policy in force before stays")]
pub struct InvalidRange {
    first: u16,
    last: u16,
}

impl Block {
    /// All traffic.
    pub(crate) const ALL: Self = Self { protocol: 0, port: 0, prefix_len: PolicyKey::ANY_PROTOCOL };

    /// The fewest blocks that make up an entry.
    ///
    /// # Errors
    /// [`InvalidRange`].
    pub(crate) fn of(entry: &Entry) -> Result<Vec<Self>, InvalidRange> {
        match *entry {
            Entry { protocol: 0, .. } => Ok(vec![Self::ALL]),
            Entry { protocol, first: 0, last: 0, .. } => {
                Ok(vec![Self { protocol, port: 0, prefix_len: PolicyKey::ANY_PORT }])
            }
            Entry { first, last, .. } if first > last => Err(InvalidRange { first, last }),
            Entry { protocol, first, last, .. } => {
                let ports = port_blocks(first, last).into_iter();
                Ok(ports.map(|(port, bits)| Self::new(protocol, port, bits)).collect())
            }
        }
    }

    /// `bits` of the port count.
    fn new(protocol: u8, port: u16, bits: u32) -> Self {
        let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
        Self { protocol, port: port & mask, prefix_len: PolicyKey::ANY_PORT + bits }
    }

    /// One port, or what has no ports.
    pub(crate) fn one(protocol: u8, port: u16) -> Self {
        Self::new(protocol, port, u16::BITS)
    }

    /// First and last port.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let bits = self.prefix_len.saturating_sub(PolicyKey::ANY_PORT).min(u16::BITS);
        (self.port, self.port | u16::MAX.checked_shr(bits).unwrap_or(0))
    }

    /// The block itself, and then every one that it lies in, the narrowest first.
    pub(crate) fn around(self) -> impl Iterator<Item = Self> {
        let bits = self.prefix_len.checked_sub(PolicyKey::ANY_PORT);
        let of_protocol = bits.into_iter().flat_map(|bits| (0..=bits).rev());
        of_protocol.map(move |bits| Self::new(self.protocol, self.port, bits)).chain([Self::ALL])
    }
}
