//! Objects of YAML and JSON, and their fields with the path that an error names.

use std::collections::BTreeMap;

use cilium_api::selector::{LabelSelector, MatchExpression};
use cilium_core::Selector;
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// A file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// YAML, of several documents or of one, or JSON.
    pub text: &'a str,
}

/// Why nothing is converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text cannot be parsed.
    #[error("{place} is neither YAML nor JSON")]
    Syntax {
        /// File and document.
        place: String,
        /// What the parser says.
        source: serde_yaml::Error,
    },
    /// An object cannot be read.
    #[error("{place}: {object}: {path}: {reason}")]
    Field {
        /// File and document.
        place: String,
        /// Kind and name.
        object: String,
        /// Path of the field.
        path: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// There is nothing to convert.
    #[error("there is nothing of MetalLB in what was given, and no Service")]
    Nothing,
}

/// An object or a field: where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    place: String,
    /// Kind and name.
    pub(crate) object: String,
    /// Path from the root of the object.
    pub(crate) path: String,
}

impl At {
    /// The root of an object.
    pub(crate) fn root(place: &str, object: &str) -> Self {
        Self { place: place.to_owned(), object: printable(object), path: String::new() }
    }

    /// A field below.
    pub(crate) fn field(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{}", self.path, printable(name)), ..self.clone() }
    }

    /// Another field of the same object.
    pub(crate) fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// An entry of a list or a map.
    pub(crate) fn entry(&self, key: impl std::fmt::Display) -> Self {
        Self { path: format!("{}[{}]", self.path, printable(&key.to_string())), ..self.clone() }
    }

    /// The error about this field.
    pub(crate) fn fail(&self, reason: impl Into<String>) -> Error {
        Error::Field {
            place: self.place.clone(),
            object: self.object.clone(),
            path: if self.path.is_empty() { "the object".to_owned() } else { self.path.clone() },
            reason: reason.into(),
        }
    }

    /// File and document.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }
}

/// What comes from a file shall do nothing to a terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// All objects of a file, those of Lists one by one, each with its place.
pub(crate) fn objects(source: &Source<'_>) -> Result<Vec<(String, Value)>, Error> {
    let mut found = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(source.text).enumerate() {
        let place = format!("{}, document {}", source.name, index + 1);
        let value = Value::deserialize(document);
        let value = value.map_err(|source| Error::Syntax { place: place.clone(), source })?;
        collect(place, value, &mut found)?;
    }
    Ok(found)
}

fn collect(place: String, value: Value, found: &mut Vec<(String, Value)>) -> Result<(), Error> {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if !kind.ends_with("List") {
        found.push((place, value));
        return Ok(());
    }
    let list = Fields::of(&value, At::root(&place, &kind))?.list("items")?;
    list.into_iter().try_for_each(|(at, item)| collect(format!("{place}, {}", at.path), item.clone(), found))
}

/// Fields of one object. Those that nobody asks for are known in the end.
pub(crate) struct Fields<'a> {
    /// Where the object stands.
    pub(crate) at: At,
    fields: Option<&'a Map<String, Value>>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Null is an object without fields.
    pub(crate) fn of(value: &'a Value, at: At) -> Result<Self, Error> {
        match value {
            Value::Null => Ok(Self { at, fields: None, asked: Vec::new() }),
            Value::Object(fields) => Ok(Self { at, fields: Some(fields), asked: Vec::new() }),
            _ => Err(at.fail("this has to be a map of fields")),
        }
    }

    fn value(&mut self, name: &'static str) -> Option<(At, &'a Value)> {
        self.asked.push(name);
        let value = self.fields?.get(name).filter(|value| !value.is_null())?;
        Some((self.at.field(name), value))
    }

    /// An object inside; one without fields if absent.
    pub(crate) fn inner(&mut self, name: &'static str) -> Result<Self, Error> {
        let (at, value) = self.value(name).unwrap_or((self.at.field(name), &Value::Null));
        Self::of(value, at)
    }

    pub(crate) fn has(&mut self, name: &'static str) -> bool {
        self.value(name).is_some()
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Error> {
        self.value(name).map(|(at, value)| text(&at, value)).transpose()
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        let found = self.value(name);
        let read = |(at, value): (At, &Value)| {
            value.as_bool().ok_or_else(|| at.fail("this has to be true or false"))
        };
        found.map(read).transpose()
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<i64>, Error> {
        let found = self.value(name);
        let read =
            |(at, value): (At, &Value)| value.as_i64().ok_or_else(|| at.fail("this has to be a number"));
        found.map(read).transpose()
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Result<Vec<(At, &'a Value)>, Error> {
        let Some((at, value)) = self.value(name) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| at.fail("this has to be a list"))?;
        Ok(list.iter().enumerate().map(|(index, item)| (at.entry(index), item)).collect())
    }

    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Vec<(At, &'a str)>, Error> {
        let list = self.list(name)?;
        list.into_iter().map(|(at, value)| text(&at, value).map(|text| (at, text))).collect()
    }

    /// A map of texts.
    pub(crate) fn map(&mut self, name: &'static str) -> Result<BTreeMap<String, String>, Error> {
        let inner = self.inner(name)?;
        let entries = inner.fields.into_iter().flatten();
        entries.map(|(key, value)| Ok((key.clone(), text(&inner.at.entry(key), value)?.to_owned()))).collect()
    }

    /// Label selectors (Kubernetes API, `LabelSelector`), which are checked.
    pub(crate) fn selectors(&mut self, name: &'static str) -> Result<Vec<LabelSelector>, Error> {
        let list = self.list(name)?;
        list.into_iter().map(|(at, value)| selector(Fields::of(value, at)?)).collect()
    }

    /// Paths of fields that nobody asked for.
    pub(crate) fn rest(self) -> Vec<String> {
        let names = self.fields.into_iter().flat_map(Map::keys);
        let unknown = names.filter(|name| !self.asked.contains(&name.as_str()));
        unknown.map(|name| self.at.field(name).path).collect()
    }
}

fn text<'a>(at: &At, value: &'a Value) -> Result<&'a str, Error> {
    value.as_str().ok_or_else(|| at.fail("this has to be a text; put it in quotes"))
}

/// To pass over what is not known here would select more than was meant.
fn selector(mut fields: Fields<'_>) -> Result<LabelSelector, Error> {
    let labels = fields.map("matchLabels")?;
    let expressions = fields.list("matchExpressions")?;
    let expressions = expressions
        .into_iter()
        .map(|(at, value)| expression(Fields::of(value, at)?))
        .collect::<Result<Vec<_>, _>>()?;
    let found = LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    };
    Selector::parse(&found).map_err(|error| fields.at.field(&error.path).fail(error.reason))?;
    complete(fields)?;
    Ok(found)
}

fn expression(mut fields: Fields<'_>) -> Result<MatchExpression, Error> {
    let values: Vec<String> = fields.texts("values")?.into_iter().map(|(_, text)| text.to_owned()).collect();
    let found = MatchExpression {
        key: fields.text("key")?.unwrap_or_default().to_owned(),
        operator: fields.text("operator")?.unwrap_or_default().into(),
        values: (!values.is_empty()).then_some(values),
    };
    complete(fields)?;
    Ok(found)
}

fn complete(fields: Fields<'_>) -> Result<(), Error> {
    let at = fields.at.clone();
    match fields.rest().first() {
        None => Ok(()),
        Some(path) => Err(at.with_path(path.clone()).fail("there is no such field in a label selector")),
    }
}
