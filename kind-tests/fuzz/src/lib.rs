//! Documents from arbitrary bytes, for parsers of what comes from outside.
//!
//! Random bytes are hardly ever JSON. So the bytes of an input are also read as a script that changes one of the valid samples:
//! its structure ([`Input::changed`]), its text ([`Input::damaged`]), or bytes that are no document ([`Input::altered`]). An input is the same document each time, so what a fuzzer
//! found can be kept: `tests/__fuzz__/<test>/crashes` and `corpus` are tried by every test run.
//!
//! `cargo test -p fuzz` tries a few thousand inputs on stable Rust; `just fuzz TEST` goes on with libFuzzer.

use serde_json::{Value, json};

/// What a fuzzer made up.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

/// Bytes of one step of a script: where (two), what (one).
const STEP: usize = 3;

impl Input<'_> {
    /// The sample that the first byte names, and the script behind it.
    fn parts<'s, T>(&self, samples: &'s [T]) -> Option<(&'s T, impl Iterator<Item = (usize, u8)>)> {
        let (first, script) = self.0.split_first()?;
        let sample = samples.get(usize::from(*first) % samples.len().max(1))?;
        let steps = script.chunks_exact(STEP);
        Some((sample, steps.map(|step| (usize::from(u16::from_be_bytes([step[0], step[1]])), step[2]))))
    }

    /// A sample with other values in some places.
    pub fn changed(&self, samples: &[Value]) -> Option<Value> {
        let (sample, steps) = self.parts(samples)?;
        let mut document = sample.clone();
        for (place, what) in steps {
            let donor = &samples[(usize::from(what) + place) % samples.len()];
            let mut left = place % count(&document);
            change(&mut document, &mut left, what, donor);
        }
        Some(document)
    }

    /// A sample's text with other bytes in some places.
    pub fn damaged(&self, samples: &[Value]) -> Option<Vec<u8>> {
        let (sample, steps) = self.parts(samples)?;
        Some(damage(sample.to_string().into_bytes(), steps))
    }

    /// The same for samples that are bytes and no documents.
    pub fn altered(&self, samples: &[Vec<u8>]) -> Option<Vec<u8>> {
        let (sample, steps) = self.parts(samples)?;
        Some(damage(sample.clone(), steps))
    }
}

fn damage(mut text: Vec<u8>, steps: impl Iterator<Item = (usize, u8)>) -> Vec<u8> {
    for (place, what) in steps {
        let at = place % text.len().max(1);
        match what % 4 {
            0 => text.truncate(at),
            1 => text.insert(at, what),
            _ => text[at] = what,
        }
        if text.is_empty() {
            text.push(what);
        }
    }
    text
}

/// How many values a document has, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value that is `left` steps away, counted in the order of the text. True when that was done.
fn change(value: &mut Value, left: &mut usize, what: u8, donor: &Value) -> bool {
    if *left == 0 {
        replace(value, what, donor);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change(item, left, what, donor)),
        Value::Object(fields) => fields.values_mut().any(|field| change(field, left, what, donor)),
        _ => false,
    }
}

fn replace(value: &mut Value, what: u8, donor: &Value) {
    match (what % 16, &mut *value) {
        (0, _) => *value = Value::Null,
        (1, _) => *value = json!([]),
        (2, _) => *value = json!({}),
        (3, _) => *value = json!(""),
        (4, _) => *value = json!(-1),
        (5, _) => *value = json!(u64::MAX),
        (6, _) => *value = json!("65536"),
        (7, _) => *value = json!("0.0.0.0/0"),
        (8, _) => *value = json!("::ffff:10.0.0.0/100"),
        (9, _) => *value = json!(true),
        (10, Value::Array(items)) => {
            if let Some(last) = items.last().cloned() {
                items.push(last);
            }
        }
        (11, Value::Array(items)) => drop(items.pop()),
        (11, Value::Object(fields)) => {
            if let Some(first) = fields.keys().nth(usize::from(what / 16)).cloned() {
                fields.remove(&first);
            }
        }
        (12, Value::String(text)) => text.push(char::from(what)),
        (13, Value::String(text)) => *text = text.chars().rev().collect(),
        (14, Value::String(text)) => *text = text.repeat(40),
        (_, it) => *it = donor.clone(),
    }
}

/// The documents of YAML files.
///
/// # Panics
/// A file is not YAML.
pub fn documents(files: &[&str]) -> Vec<Value> {
    use serde_yaml::Deserializer;
    let all = files.iter().flat_map(|text| Deserializer::from_str(text));
    all.map(|document| {
        serde_yaml::with::singleton_map_recursive::deserialize(document).expect("samples are YAML")
    })
    .filter(|document: &Value| !document.is_null())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_changes_what_it_names() {
        let samples = [json!({"a": [1, 2], "b": "x"})];
        assert_eq!(Input(&[0]).changed(&samples), Some(samples[0].clone()));
        assert_eq!(Input(&[0, 0, 4, 4]).changed(&samples), Some(json!({"a": [1, 2], "b": -1})));
        assert_eq!(Input(&[0, 0, 1, 11, 0, 2, 0]).changed(&samples), Some(json!({"a": [null], "b": "x"})));
        assert_eq!(Input(&[0, 0, 0, 11]).changed(&samples), Some(json!({"b": "x"})));
        assert_eq!(Input(&[0, 0, 1, b'?']).damaged(&samples).unwrap(), b"{?a\":[1,2],\"b\":\"x\"}");
        assert_eq!(Input(&[]).changed(&samples), None);
    }
}
