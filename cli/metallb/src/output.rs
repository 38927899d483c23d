//! What is printed: objects, changes of Services as commands, and notes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::document::At;

/// All that became of the input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Converted {
    /// Pools in the order in which they are to be created, then policies.
    pub objects: Vec<Value>,
    /// What to set on Services.
    pub services: Vec<ServiceChange>,
    /// What has no counterpart, or another meaning.
    pub notes: Vec<Note>,
    /// Objects that are none of MetalLB's, with their place and the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// What to set on one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceChange {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Annotations to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Something that has no counterpart, or another meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Kind and name.
    pub object: String,
    /// Path of the field; the whole object if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub advice: String,
}

impl Note {
    pub(crate) fn new(at: &At, meaning: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            object: at.object.clone(),
            field: at.path.clone(),
            meaning: meaning.into(),
            advice: advice.into(),
        }
    }
}

impl Converted {
    /// Whether something is in the notes.
    pub fn is_complete(&self) -> bool {
        self.notes.is_empty()
    }

    /// Objects as YAML for `kubectl apply`, then a comment with commands for each Service.
    ///
    /// # Errors
    /// Never in practice: the objects are plain data.
    pub fn text(&self) -> Result<String, serde_yaml::Error> {
        let objects = self.objects.iter().map(serde_yaml::to_string).collect::<Result<Vec<_>, _>>()?;
        let mut text = objects.join("---\n");
        if !self.services.is_empty() {
            let lines: String = self.services.iter().map(ServiceChange::commands).collect();
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# Services keep what they ask for with these:\n{lines}"));
        }
        Ok(text)
    }

    /// Notes for people; empty if there are none.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for line in &self.passed_over {
            text.push_str(&format!("Passed over: {line}\n"));
        }
        if !self.notes.is_empty() {
            text.push_str("Without a counterpart, or with another meaning:\n");
        }
        for Note { object, field, meaning, advice } in &self.notes {
            let field = if field.is_empty() { String::new() } else { format!(" {field}") };
            text.push_str(&format!("- {object}{field}: {meaning}.\n  What to do: {advice}.\n"));
        }
        text
    }
}

impl ServiceChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.annotations.is_empty() && self.labels.is_empty()
    }

    fn commands(&self) -> String {
        let mut text = String::new();
        for (verb, pairs) in [("annotate", &self.annotations), ("label", &self.labels)] {
            if !pairs.is_empty() {
                let pairs: String =
                    pairs.iter().map(|(key, value)| format!(" {}", word(key, value))).collect();
                let (namespace, name) = (&self.namespace, &self.name);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "# kubectl -n {namespace} {verb} service {name} --overwrite{pairs}");
            }
        }
        text
    }
}

/// A pair as one word of a shell. Values have no line breaks.
fn word(key: &str, value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:,/@%+=-".contains(c);
    if value.chars().all(is_plain) {
        format!("{key}={value}")
    } else {
        format!("{key}='{}'", value.replace('\'', r"'\''"))
    }
}
