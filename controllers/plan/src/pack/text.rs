use std::sync::Arc;

use cilium_api::parts::{Part, PartKey};

/// An encoded part as it stands in a slice: `"<key>":<value>`. Shared between nodes that have the same part.
pub(crate) type Text = Arc<str>;

/// Encodes one part.
pub(crate) fn encode(key: &PartKey, part: &Part) -> Text {
    let encoded =
        serde_json::to_string(key).and_then(|key| Ok(format!("{key}:{}", serde_json::to_string(part)?)));
    encoded.expect("parts hold nothing that JSON cannot: no map has a key that is not text").into()
}

/// Encodes a set of parts, in the order of their keys: the same bytes as [`cilium_api::digest::encode`].
pub(crate) fn join<'a>(texts: impl Iterator<Item = &'a Text>, bytes: usize) -> String {
    let mut data = String::with_capacity(bytes);
    data.push('{');
    for text in texts {
        if data.len() > 1 {
            data.push(',');
        }
        data.push_str(text);
    }
    data.push('}');
    data
}

/// Length of what [`join`] gives for so many parts with so many bytes.
pub(crate) fn joined_len(parts: usize, bytes: usize) -> usize {
    2 + bytes + parts.saturating_sub(1)
}
