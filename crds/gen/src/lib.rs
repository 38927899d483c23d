//! Text of the CustomResourceDefinitions, as it is checked in.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde_json::Value;

/// First line of every file.
const HEADER: &str = "# Generated from the types in crds/api by crd-gen. Do not edit.\n";

/// Name of the file that a definition is checked in as.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.yaml", crd.spec.names.plural)
}

/// A definition as one YAML document. The same definition always gives the same bytes: keys are sorted.
///
/// # Errors
/// The definition cannot be written as YAML (never for those of `cilium_api::all`).
pub fn render(crd: &CustomResourceDefinition) -> Result<String> {
    let name = &crd.spec.names.plural;
    let value =
        serde_json::to_value(crd).with_context(|| format!("cannot encode the definition of {name}"))?;
    let text = serde_yaml::to_string(&Sorted::from(value))
        .with_context(|| format!("cannot write {name} as YAML"))?;
    Ok(format!("{HEADER}{text}"))
}

/// A JSON value with keys in order and whole numbers without fraction, whatever features serde_json was built with.
#[derive(Serialize)]
#[serde(untagged)]
enum Sorted {
    /// null, a boolean or a string.
    Plain(Value),
    /// A number without fraction. OpenAPI bounds are floating point in the API types and would print as `1.0`.
    Whole(i64),
    /// A list in its own order.
    List(Vec<Sorted>),
    /// An object in the order of its keys.
    Map(BTreeMap<String, Sorted>),
}

impl From<Value> for Sorted {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Map(members.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
            Value::Number(number) => match number.as_f64() {
                // Below 2^53 every whole number is exact as f64.
                Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => Self::Whole(float as i64),
                _ => Self::Plain(Value::Number(number)),
            },
            plain => Self::Plain(plain),
        }
    }
}
