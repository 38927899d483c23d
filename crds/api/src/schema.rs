//! From derived JSON schemas to what the API server accepts as a structural schema.
//!
//! The derive follows JSON Schema 2020-12; a CustomResourceDefinition takes a subset of OpenAPI v3 (Kubernetes
//! API, `apiextensions.k8s.io/v1`, "structural schema"). [`tidy`] closes the gap, the other functions are hooks for single fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Object schema of `T` with everything written in place: structural schemas know no `$ref`.
pub(crate) fn derived<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Completes the schema of a whole object with what every Kubernetes object has.
pub(crate) fn with_object_fields(mut schema: Value) -> Value {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(
            "apiVersion".into(),
            json!({"type": "string", "description": "Group and version of the schema that this object is written in."}),
        );
        properties.insert(
            "kind".into(),
            json!({"type": "string", "description": "Name of the REST resource that this object stands for."}),
        );
        properties.insert("metadata".into(), json!({"type": "object"}));
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "kind" && name != "apiVersion");
    }
    schema
}

/// Reads a JSON schema into the typed form of a CustomResourceDefinition.
pub(crate) fn typed(schema: Value) -> JSONSchemaProps {
    serde_json::from_value(schema)
        .expect("derived schemas use OpenAPI v3 keywords only; the tests build every one of them")
}

/// Applies [`tidy`] to a schema that is typed already.
pub(crate) fn tidy_typed(schema: &JSONSchemaProps) -> JSONSchemaProps {
    let mut value = serde_json::to_value(schema).expect("a schema holds no map with keys other than strings");
    tidy(&mut value);
    typed(value)
}

/// Makes a schema structural: no `null` as a type, no titles, no formats that the API server does not know.
///
/// Nothing is `nullable`: an absent member is the one way to say nothing, and the API server refuses a `null` (or
/// puts the default in its place), as it does under upstream's schemas.
pub(crate) fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            unwrap_optional(object);
            drop_null(object);
            drop_foreign_keywords(object);
            for (keyword, value) in object.iter_mut() {
                tidy_member(keyword, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Descends where subschemas are; defaults, enums and names of properties are data and stay as they are.
fn tidy_member(keyword: &str, value: &mut Value) {
    match (keyword, value) {
        ("properties", Value::Object(properties)) => properties.values_mut().for_each(tidy),
        ("items" | "additionalProperties" | "not" | "anyOf" | "oneOf" | "allOf", value) => tidy(value),
        _ => {}
    }
}

/// `anyOf: [T, null]` becomes `T`; what the field itself says (its description) wins.
fn unwrap_optional(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    let before = choices.len();
    choices.retain(|choice| !is_null_schema(choice));
    if choices.len() == 1 && before == 2 {
        let inner = choices.remove(0);
        object.remove("anyOf");
        if let Value::Object(inner) = inner {
            for (keyword, value) in inner {
                object.entry(keyword).or_insert(value);
            }
        }
    }
}

/// Whether a schema admits `null` and nothing else.
fn is_null_schema(schema: &Value) -> bool {
    schema.get("type").is_some_and(|name| name == "null")
        || schema.get("enum").is_some_and(|values| values == &json!([null]))
}

/// `type: [T, null]` becomes `type: T`, and an enum loses its `null`.
fn drop_null(object: &mut Map<String, Value>) {
    object.remove("nullable");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
}

/// Removes titles, and the integer formats that OpenAPI does not define (the API server warns about them).
fn drop_foreign_keywords(object: &mut Map<String, Value>) {
    if object.get("title").is_some_and(Value::is_string) {
        object.remove("title");
    }
    if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        object.remove("format");
    }
}

/// Field hook: an integer of no particular width.
pub(crate) fn plain_integer(schema: &mut Schema) {
    schema.remove("format");
}

/// Field hook: an integer that is at least zero, of no particular width.
pub(crate) fn natural(schema: &mut Schema) {
    plain_integer(schema);
    schema.insert("minimum".into(), json!(0));
}

/// Field hook: a string that the API server checks as an address prefix.
pub(crate) fn cidr(schema: &mut Schema) {
    schema.insert("format".into(), json!("cidr"));
}

/// Field hook: a string that the API server checks as an RFC 3339 time.
pub(crate) fn date_time(schema: &mut Schema) {
    schema.insert("format".into(), json!("date-time"));
}

/// Field hook: a list of prefixes, each checked like [`cidr`].
pub(crate) fn cidr_list(schema: &mut Schema) {
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("format".into(), json!("cidr"));
    }
}

/// Field hook: a string that is an address of either family.
pub(crate) fn ip(schema: &mut Schema) {
    schema.insert("pattern".into(), json!(IP_PATTERN));
}

/// Field hook: a string that the API server checks as an IPv4 address.
pub(crate) fn ipv4(schema: &mut Schema) {
    schema.insert("format".into(), json!("ipv4"));
}

/// Field hook: a list of which each entry has its own name.
pub(crate) fn by_name(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["name"]));
}

/// Field hook: a list of conditions that are complete, within the bounds that Kubernetes sets (API, `metav1.Condition`).
pub(crate) fn meta_conditions(schema: &mut Schema) {
    let Some(item) = schema.get_mut("items").and_then(Value::as_object_mut) else { return };
    item.insert("required".into(), json!(["lastTransitionTime", "message", "reason", "status", "type"]));
    let Some(fields) = item.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let bounds = [
        ("message", json!({"maxLength": 32768})),
        ("observedGeneration", json!({"minimum": 0})),
        (
            "reason",
            json!({"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"}),
        ),
        ("status", json!({"enum": ["True", "False", "Unknown"]})),
        ("type", json!({"maxLength": 316, "pattern": CONDITION_TYPE})),
    ];
    for (field, bounds) in bounds {
        if let (Some(field), Value::Object(bounds)) =
            (fields.get_mut(field).and_then(Value::as_object_mut), bounds)
        {
            field.extend(bounds);
        }
    }
}

/// A qualified name (Kubernetes API, `metav1.Condition`).
const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// What upstream takes for an address; spaces around it, too.
const IP_PATTERN: &str = concat!(
    r"((^\s*((([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))\s*$)",
    r"|(^\s*((([0-9A-Fa-f]{1,4}:){7}([0-9A-Fa-f]{1,4}|:))",
    r"|(([0-9A-Fa-f]{1,4}:){6}(:[0-9A-Fa-f]{1,4}|((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3})|:))",
    r"|(([0-9A-Fa-f]{1,4}:){5}(((:[0-9A-Fa-f]{1,4}){1,2})|:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3})|:))",
    r"|(([0-9A-Fa-f]{1,4}:){4}(((:[0-9A-Fa-f]{1,4}){1,3})",
    r"|((:[0-9A-Fa-f]{1,4})?:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))|:))",
    r"|(([0-9A-Fa-f]{1,4}:){3}(((:[0-9A-Fa-f]{1,4}){1,4})",
    r"|((:[0-9A-Fa-f]{1,4}){0,2}:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))|:))",
    r"|(([0-9A-Fa-f]{1,4}:){2}(((:[0-9A-Fa-f]{1,4}){1,5})",
    r"|((:[0-9A-Fa-f]{1,4}){0,3}:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))|:))",
    r"|(([0-9A-Fa-f]{1,4}:){1}(((:[0-9A-Fa-f]{1,4}){1,6})",
    r"|((:[0-9A-Fa-f]{1,4}){0,4}:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))|:))",
    r"|(:(((:[0-9A-Fa-f]{1,4}){1,7})",
    r"|((:[0-9A-Fa-f]{1,4}){0,5}:((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))|:)))(%.+)?\s*$))",
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn optional_types_lose_their_null_and_keep_the_rest() {
        let mut schema = json!({
            "type": "object",
            "properties": {
                "a": {"type": ["string", "null"], "enum": ["x", null], "default": null},
                "b": {"description": "outer", "anyOf": [{"type": "object", "description": "inner", "oneOf": [{"required": ["c"]}]}, {"type": "null"}]},
                "nullable": {"type": "boolean", "title": "T"},
                "n": {"type": "integer", "format": "uint16", "default": 7}
            }
        });
        tidy(&mut schema);
        let expected = json!({
            "type": "object",
            "properties": {
                "a": {"type": "string", "enum": ["x"]},
                "b": {"description": "outer", "type": "object", "oneOf": [{"required": ["c"]}]},
                "nullable": {"type": "boolean"},
                "n": {"type": "integer", "default": 7}
            }
        });
        assert_eq!(schema, expected);
    }

    #[test]
    fn a_choice_of_two_real_types_stays_a_choice() {
        let mut schema =
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true});
        let before = schema.clone();
        tidy(&mut schema);
        assert_eq!(schema, before);
    }
}
