//! A definition as a flat list of fields, in the notation of the upstream field lists.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};

/// What a field is: its type (with ` required` after it), and its constraints in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Field {
    pub(crate) kind: String,
    pub(crate) constraints: BTreeSet<String>,
}

/// Fields by path, and the lines about the kind as a whole.
#[derive(Debug, Default)]
pub(crate) struct FieldList {
    /// Names, scope and versions.
    pub(crate) head: String,
    /// Printed columns in their order.
    pub(crate) columns: Vec<String>,
    pub(crate) fields: BTreeMap<String, Field>,
}

impl FieldList {
    /// Reads a list as it is checked in.
    pub(crate) fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            if let Some(column) = line.strip_prefix("# column ") {
                list.columns.push(column.into());
            } else if let Some(head) = line.strip_prefix("# ") {
                list.head = head.into();
            } else {
                list.parse_field(line);
            }
        }
        list
    }

    fn parse_field(&mut self, line: &str) {
        let mut cells = line.split('\t');
        let (Some(path), Some(kind)) = (cells.next(), cells.next()) else { panic!("not a field: {line:?}") };
        let constraints =
            cells.next().into_iter().flat_map(|cell| cell.split("; ")).map(str::to_owned).collect();
        let old = self.fields.insert(path.into(), Field { kind: kind.into(), constraints });
        assert_eq!(old, None, "{path} is listed twice");
    }

    /// Reads one version of a definition.
    pub(crate) fn of(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Self {
        let mut list = Self { head: head(crd, version), columns: columns(version), fields: BTreeMap::new() };
        let root = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap();
        for (name, schema) in root.properties.iter().flatten() {
            if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                list.walk(name, schema, is_required(root, name));
            }
        }
        list
    }

    fn walk(&mut self, path: &str, schema: &JSONSchemaProps, required: bool) {
        self.fields.insert(path.into(), field(schema, required));
        for (name, schema_of) in schema.properties.iter().flatten() {
            self.walk(&format!("{path}.{name}"), schema_of, is_required(schema, name));
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            self.walk(&format!("{path}[]"), items, false);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            self.walk(&format!("{path}{{}}"), values, false);
        }
    }
}

fn is_required(parent: &JSONSchemaProps, name: &str) -> bool {
    parent.required.iter().flatten().any(|required| required == name)
}

fn head(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> String {
    let spec = &crd.spec;
    let status = version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some());
    format!(
        "{} {}/{} {} plural={} short={} categories={} status={} storage={} served={}",
        spec.names.kind,
        spec.group,
        version.name,
        spec.scope,
        spec.names.plural,
        spec.names.short_names.clone().unwrap_or_default().join(","),
        spec.names.categories.clone().unwrap_or_default().join(","),
        if status { "yes" } else { "no" },
        capital(version.storage),
        capital(version.served),
    )
}

fn capital(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn columns(version: &CustomResourceDefinitionVersion) -> Vec<String> {
    let columns = version.additional_printer_columns.iter().flatten();
    columns
        .map(|c| format!("{} {} {} priority={}", c.name, c.type_, c.json_path, c.priority.unwrap_or(0)))
        .collect()
}

fn field(schema: &JSONSchemaProps, required: bool) -> Field {
    let int_or_string = schema.x_kubernetes_int_or_string == Some(true);
    let kind = if int_or_string { "int-or-string" } else { schema.type_.as_deref().unwrap_or("?") };
    Field {
        kind: format!("{kind}{}", if required { " required" } else { "" }),
        constraints: constraints(schema),
    }
}

fn constraints(schema: &JSONSchemaProps) -> BTreeSet<String> {
    let enumerated = schema.enum_.as_ref().map(|values| {
        let values: Vec<&str> = values.iter().map(|value| value.0.as_str().unwrap()).collect();
        values.join("|")
    });
    let list = schema.x_kubernetes_list_type.as_ref().map(|list| match &schema.x_kubernetes_list_map_keys {
        Some(keys) => format!("{list}({})", keys.join(",")),
        None => list.clone(),
    });
    let named = [
        ("format", schema.format.clone()),
        ("minimum", schema.minimum.map(|n| n.to_string())),
        ("maximum", schema.maximum.map(|n| n.to_string())),
        ("minLength", schema.min_length.map(|n| n.to_string())),
        ("maxLength", schema.max_length.map(|n| n.to_string())),
        ("minItems", schema.min_items.map(|n| n.to_string())),
        ("maxItems", schema.max_items.map(|n| n.to_string())),
        ("minProperties", schema.min_properties.map(|n| n.to_string())),
        ("maxProperties", schema.max_properties.map(|n| n.to_string())),
        ("pattern", schema.pattern.as_deref().map(quoted)),
        (
            "default",
            schema.default.as_ref().map(|value| value.0.as_str().map_or(value.0.to_string(), quoted)),
        ),
        ("enum", enumerated),
        ("list", list),
        ("oneOf", schema.one_of.as_deref().map(choices)),
        ("anyOf", schema.any_of.as_deref().map(choices)),
        ("allOf", schema.all_of.as_deref().map(choices)),
        ("cel-rules", schema.x_kubernetes_validations.as_ref().map(|rules| rules.len().to_string())),
        ("exclusiveMinimum", schema.exclusive_minimum.map(|b| b.to_string())),
        ("exclusiveMaximum", schema.exclusive_maximum.map(|b| b.to_string())),
        ("multipleOf", schema.multiple_of.map(|n| n.to_string())),
        ("uniqueItems", schema.unique_items.map(|b| b.to_string())),
        ("nullable", schema.nullable.map(|b| b.to_string())),
    ];
    let mut out: BTreeSet<String> =
        named.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        out.insert("preserve-unknown".into());
    }
    out
}

/// The lists quote strings, with backslashes doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\"))
}

/// A choice is written as what its branches require, or as their types.
fn choices(branches: &[JSONSchemaProps]) -> String {
    let names = branches.iter().map(|branch| match (&branch.required, &branch.type_) {
        (Some(required), None) => required.join("+"),
        (None, Some(type_)) => type_.clone(),
        other => panic!("a branch of an unknown form: {other:?}"),
    });
    names.collect::<Vec<_>>().join("/")
}
