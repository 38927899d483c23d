//! Digests of state: hex SHA-256 over the exact bytes that travel.

use sha2::{Digest as _, Sha256};

use crate::node_state::SliceRef;
use crate::parts::Parts;

/// Hex SHA-256 of `data`, 64 characters.
pub fn digest(data: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(data) {
        out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    out
}

/// The digest of a set of parts in slices: over a line `<name> <digest>` for each slice, in the order given. It stands for all parts, as
/// each digest stands for those of its slice, and costs what the list takes, however much is in the slices.
pub fn of_slices<'a>(slices: impl IntoIterator<Item = &'a SliceRef>) -> String {
    let mut lines = String::new();
    for SliceRef { name, digest } in slices {
        lines.extend([&**name, " ", &**digest, "\n"]);
    }
    digest(lines.as_bytes())
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
