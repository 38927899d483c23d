//! Digests of state: hex SHA-256 over the exact bytes that travel.

use sha2::{Digest as _, Sha256};

use crate::parts::Parts;

/// Hex SHA-256 of `data`, 64 characters.
pub fn digest(data: &[u8]) -> String {
    digest_of([data])
}

/// The same of data in pieces, which nobody has to put together.
pub fn digest_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sum = Sha256::new();
    pieces.into_iter().for_each(|piece| sum.update(piece));
    let mut out = String::with_capacity(64);
    for byte in sum.finalize() {
        out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    out
}

/// The bytes of a set of parts as they travel: one JSON object, keys in order, no white space.
///
/// # Errors
/// Never for parts built by the planner; the error is passed on so that a caller need not assume that.
pub fn encode(parts: &Parts) -> Result<String, serde_json::Error> {
    serde_json::to_string(parts)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// The text is not a JSON object of known parts (for example a kind that this version does not know).
pub fn decode(data: &str) -> Result<Parts, serde_json::Error> {
    serde_json::from_str(data)
}
