//! What the API server asks of a definition (Kubernetes, "Custom Resources": structural schemas; apiextensions.k8s.io/v1).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cilium_api::{SCHEMA_VERSION, SCHEMA_VERSION_LABEL};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Formats that OpenAPI v3 defines or the API server checks. An unknown one costs whoever installs a warning;
/// `idn-hostname` is one, and stays because upstream has it.
const FORMATS: &[&str] = &["int32", "int64", "date-time", "ipv4", "cidr", "idn-hostname"];

/// Calls `visit` for a schema and everything below it, with paths.
fn walk(path: &str, schema: &JSONSchemaProps, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, child) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => walk(&format!("{path}[]"), items, visit),
        Some(JSONSchemaPropsOrArray::Schemas(_)) => {
            panic!("{path}: a list of item schemas is not structural")
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        walk(&format!("{path}{{}}"), values, visit);
    }
}

fn root(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
    crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap()
}

fn for_each(mut visit: impl FnMut(&str, &JSONSchemaProps)) {
    for crd in cilium_api::all() {
        walk(&crd.spec.names.kind, root(&crd), &mut visit);
    }
}

#[test]
fn every_value_has_a_type() {
    for_each(|path, schema| {
        let int_or_string = schema.x_kubernetes_int_or_string == Some(true);
        assert_eq!(schema.type_.is_none(), int_or_string, "{path}: type {:?}", schema.type_);
        assert_eq!(schema.items.is_some(), schema.type_.as_deref() == Some("array"), "{path}: items");
    });
}

#[test]
fn forbidden_keywords_are_absent() {
    for_each(|path, schema| {
        let absent = schema.ref_path.is_none()
            && schema.nullable.is_none()
            && schema.unique_items.is_none()
            && schema.definitions.is_none()
            && schema.dependencies.is_none()
            && schema.pattern_properties.is_none()
            && schema.additional_items.is_none()
            && schema.id.is_none()
            && schema.title.is_none();
        assert!(absent, "{path}: {schema:?}");
        assert!(!matches!(schema.additional_properties, Some(JSONSchemaPropsOrBool::Bool(_))), "{path}");
        assert!(schema.properties.is_none() || schema.additional_properties.is_none(), "{path}");
        assert!(!schema.enum_.iter().flatten().any(|value| value.0.is_null()), "{path}: null in an enum");
    });
}

#[test]
fn formats_are_known() {
    for_each(|path, schema| {
        assert!(
            schema.format.as_deref().is_none_or(|format| FORMATS.contains(&format)),
            "{path}: {:?}",
            schema.format
        );
    });
}

#[test]
fn branches_only_refer_to_fields_that_exist() {
    for_each(|path, schema| {
        for branch in schema.one_of.iter().chain(&schema.any_of).chain(&schema.all_of).flatten() {
            for name in branch.required.iter().flatten() {
                assert!(
                    schema.properties.as_ref().is_some_and(|all| all.contains_key(name)),
                    "{path}: {name}"
                );
            }
            let allowed = JSONSchemaProps {
                required: branch.required.clone(),
                // Types may stand in a branch only for int-or-string.
                type_: branch.type_.clone().filter(|_| schema.x_kubernetes_int_or_string == Some(true)),
                ..Default::default()
            };
            assert_eq!(branch, &allowed, "{path}");
        }
        for name in schema.required.iter().flatten() {
            assert!(
                schema.properties.as_ref().is_some_and(|all| all.contains_key(name)),
                "{path}: required {name}"
            );
        }
    });
}

#[test]
fn keys_of_list_maps_are_required_fields_of_the_items() {
    let mut seen = 0;
    for_each(|path, schema| {
        let Some(keys) = &schema.x_kubernetes_list_map_keys else { return };
        let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else { panic!("{path}: no items") };
        for key in keys {
            assert!(items.required.iter().flatten().any(|name| name == key), "{path}: {key}");
            seen += 1;
        }
    });
    assert!(seen >= 2, "both policy kinds have conditions");
}

#[test]
fn selectors_are_replaced_as_a_whole() {
    let mut seen = 0;
    for_each(|path, schema| {
        if schema.properties.as_ref().is_some_and(|all| all.contains_key("matchLabels")) {
            assert_eq!(schema.x_kubernetes_map_type.as_deref(), Some("atomic"), "{path}");
            seen += 1;
        }
    });
    assert!(seen > 20, "only {seen} selectors");
}

#[test]
fn every_field_is_described() {
    for_each(|path, schema| {
        let item = path.ends_with("[]") || path.ends_with("{}") || path.ends_with(".metadata");
        assert!(item || schema.description.as_deref().is_some_and(|text| text.len() > 3), "{path}");
    });
}

#[test]
fn definitions_carry_the_version_label_and_fit_into_an_annotation() {
    for crd in cilium_api::all() {
        assert_eq!(crd.metadata.labels.as_ref().unwrap()[SCHEMA_VERSION_LABEL], SCHEMA_VERSION);
        assert_eq!(
            crd.metadata.name.clone().unwrap(),
            format!("{}.{}", crd.spec.names.plural, crd.spec.group)
        );
        assert_eq!(crd.spec.names.list_kind.clone().unwrap(), format!("{}List", crd.spec.names.kind));
        // `kubectl apply` keeps the whole object in an annotation, and all annotations share 256 KiB.
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(size < 240 * 1024, "{} has {size} bytes", crd.spec.names.kind);
    }
}

#[test]
fn version_is_higher_than_upstream_and_in_the_same_minor() {
    let numbers: Vec<u32> = SCHEMA_VERSION.split('.').map(|number| number.parse().unwrap()).collect();
    let [1, 33, patch] = numbers[..] else { panic!("{SCHEMA_VERSION}") };
    assert_eq!(patch / 100, 12, "{SCHEMA_VERSION}: upstream v1.20.2 has 1.33.12");
}

#[test]
fn root_requires_what_upstream_requires() {
    let required = |kind: &str| {
        let crds = cilium_api::all();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let mut names = root(crd).required.clone().unwrap();
        names.sort();
        names
    };
    assert_eq!(required("CiliumNetworkPolicy"), ["metadata"]);
    assert_eq!(required("CiliumClusterwideNetworkPolicy"), ["metadata"]);
    assert_eq!(required("CiliumEndpoint"), ["metadata"]);
    assert_eq!(required("CiliumIdentity"), ["metadata", "security-labels"]);
    assert_eq!(required("CiliumNode"), ["metadata", "spec"]);
}

#[test]
fn a_policy_needs_a_rule() {
    for crd in cilium_api::all().iter().filter(|crd| crd.spec.names.kind.ends_with("NetworkPolicy")) {
        let rules: Vec<&str> =
            root(crd).x_kubernetes_validations.iter().flatten().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(rules[0], "has(self.spec) || has(self.specs)");
        // Nodes are not in a namespace.
        let about_nodes = rules[1..].iter().filter(|rule| rule.contains("nodeSelector")).count();
        assert_eq!(about_nodes, if crd.spec.names.kind == "CiliumNetworkPolicy" { 2 } else { 0 });
    }
}
