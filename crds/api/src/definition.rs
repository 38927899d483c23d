//! How a kind is registered: names, scope, columns, and the CustomResourceDefinition made of them.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
    CustomResourceSubresources, CustomResourceValidation,
};
use kube_core::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::schema;

/// API group of all kinds.
pub const GROUP: &str = "cilium.io";

/// Version of the kinds that users of upstream know.
pub const VERSION: &str = "v2";

/// Label on each CustomResourceDefinition that carries [`SCHEMA_VERSION`].
pub const SCHEMA_VERSION_LABEL: &str = "io.cilium.k8s.crd.schema.version";

/// Version of the schemas as a whole, a semantic version.
///
/// An operator replaces a CustomResourceDefinition only if the version on it is lower than its own, and upstream's
/// operator goes by the same label. Upstream v1.20.2 has 1.33.12. Ours stays in upstream's minor version and has a
/// patch number of upstream's times one hundred, plus a number of our own. So it is higher than upstream's
/// (without that, our status fields would be pruned in a cluster that upstream was installed in before), an upstream
/// operator of the same minor leaves our superset alone, and every change of a schema of ours has room for a new number.
pub const SCHEMA_VERSION: &str = "1.33.1209";

/// Version of kinds that upstream may still change.
pub(crate) const ALPHA: &str = "v2alpha1";

/// `apiVersion` of an object of [`GROUP`]: a constant that takes no space. That of [`VERSION`], unless it is said to be an alpha version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiVersion<const IS_ALPHA: bool = false>;

impl<const IS_ALPHA: bool> ApiVersion<IS_ALPHA> {
    /// The text that travels.
    pub const TEXT: &'static str = if IS_ALPHA { "cilium.io/v2alpha1" } else { "cilium.io/v2" };
}

impl<const IS_ALPHA: bool> Serialize for ApiVersion<IS_ALPHA> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::TEXT)
    }
}

impl<'de, const IS_ALPHA: bool> Deserialize<'de> for ApiVersion<IS_ALPHA> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const IS_ALPHA: bool>;
        impl<const IS_ALPHA: bool> de::Visitor<'_> for Text<IS_ALPHA> {
            type Value = ApiVersion<IS_ALPHA>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "apiVersion {}", Self::Value::TEXT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == Self::Value::TEXT {
                    Ok(ApiVersion)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_str(Text::<IS_ALPHA>)
    }
}

impl<const IS_ALPHA: bool> JsonSchema for ApiVersion<IS_ALPHA> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ApiVersion".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// A column that `kubectl get` prints.
pub(crate) struct Column {
    /// Head of the column.
    pub(crate) name: &'static str,
    /// OpenAPI type of the value.
    pub(crate) kind: &'static str,
    /// JSONPath from the root of the object.
    pub(crate) path: &'static str,
    /// 0 is always shown, others with `-o wide`.
    pub(crate) priority: i32,
}

impl Column {
    /// A column of text that is always shown.
    pub(crate) const fn text(name: &'static str, path: &'static str) -> Self {
        Self { name, kind: "string", path, priority: 0 }
    }
    /// A column of whole numbers that is always shown.
    pub(crate) const fn integer(name: &'static str, path: &'static str) -> Self {
        Self { name, kind: "integer", path, priority: 0 }
    }
    /// A column of yes and no that is always shown.
    pub(crate) const fn boolean(name: &'static str, path: &'static str) -> Self {
        Self { name, kind: "boolean", path, priority: 0 }
    }
    /// A column of text for `-o wide`.
    pub(crate) const fn wide(name: &'static str, path: &'static str) -> Self {
        Self { name, kind: "string", path, priority: 1 }
    }
    /// A column of whole numbers for `-o wide`.
    pub(crate) const fn wide_integer(name: &'static str, path: &'static str) -> Self {
        Self { name, kind: "integer", path, priority: 1 }
    }
    /// The usual last column.
    pub(crate) const fn age() -> Self {
        Self { name: "Age", kind: "date", path: ".metadata.creationTimestamp", priority: 0 }
    }

    fn to_crd(&self) -> CustomResourceColumnDefinition {
        CustomResourceColumnDefinition {
            name: self.name.into(),
            type_: self.kind.into(),
            json_path: self.path.into(),
            // Absent means 0, and is what the API server stores.
            priority: (self.priority != 0).then_some(self.priority),
            ..Default::default()
        }
    }
}

/// What a kind has beside its schema.
pub(crate) struct Definition {
    /// Kind, in CamelCase.
    pub(crate) kind: &'static str,
    /// The version that is stored.
    pub(crate) version: &'static str,
    /// Name of the REST resource.
    pub(crate) plural: &'static str,
    /// Lower-case name of one object.
    pub(crate) singular: &'static str,
    /// Names that `kubectl` takes instead of the plural.
    pub(crate) short_names: &'static [&'static str],
    /// Groups of kinds that `kubectl get` takes.
    pub(crate) categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether `status` is written through its own endpoint.
    pub(crate) status_subresource: bool,
    /// Columns in their order.
    pub(crate) columns: &'static [Column],
}

impl Definition {
    /// The CustomResourceDefinition of objects of type `T`.
    pub(crate) fn build<T: JsonSchema>(&self) -> CustomResourceDefinition {
        CustomResourceDefinition {
            metadata: ObjectMeta { name: Some(format!("{}.{GROUP}", self.plural)), ..Default::default() },
            spec: CustomResourceDefinitionSpec {
                group: GROUP.into(),
                names: self.names(),
                scope: if self.namespaced { "Namespaced" } else { "Cluster" }.into(),
                versions: vec![self.version::<T>()],
                ..Default::default()
            },
            status: None,
        }
    }

    fn names(&self) -> CustomResourceDefinitionNames {
        CustomResourceDefinitionNames {
            kind: self.kind.into(),
            list_kind: None,
            plural: self.plural.into(),
            singular: Some(self.singular.into()),
            short_names: owned(self.short_names),
            categories: owned(self.categories),
        }
    }

    fn version<T: JsonSchema>(&self) -> CustomResourceDefinitionVersion {
        CustomResourceDefinitionVersion {
            name: self.version.into(),
            served: true,
            storage: true,
            additional_printer_columns: (!self.columns.is_empty())
                .then(|| self.columns.iter().map(Column::to_crd).collect()),
            schema: Some(CustomResourceValidation {
                open_api_v3_schema: Some(schema::typed(schema::with_object_fields(schema::derived::<T>()))),
            }),
            subresources: self.status_subresource.then(|| CustomResourceSubresources {
                status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// The definition with its version under another, older name too: served, and deprecated.
pub(crate) fn also_served(mut crd: CustomResourceDefinition, old: &str) -> CustomResourceDefinition {
    let older = crd.spec.versions.first().map(|version| CustomResourceDefinitionVersion {
        name: old.into(),
        storage: false,
        deprecated: Some(true),
        ..version.clone()
    });
    crd.spec.versions.extend(older);
    crd
}

/// Strings of a definition as a list of the API type.
fn owned(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Last step for every definition, derived or built here: the version label, the name of lists, and a structural schema.
pub(crate) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let names = &mut crd.spec.names;
    names.list_kind.get_or_insert_with(|| format!("{}List", names.kind));
    crd.metadata.labels.get_or_insert_default().insert(SCHEMA_VERSION_LABEL.into(), SCHEMA_VERSION.into());
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            *root = schema::tidy_typed(root);
        }
    }
    crd
}

/// Implements `kube_core::Resource` and `crd()` for an object type from its [`Definition`].
///
/// The derive of kube wants a `spec` and nothing beside it; these kinds have no `spec`, or more than that.
macro_rules! resource {
    ($object:ident, $scope:ident, $definition:ident) => {
        impl kube_core::Resource for $object {
            type DynamicType = ();
            type Scope = kube_core::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $definition.kind.into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                crate::definition::GROUP.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $definition.version.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $definition.plural.into()
            }
            fn meta(&self) -> &kube_core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut kube_core::ObjectMeta {
                &mut self.metadata
            }
        }

        impl $object {
            /// The definition of this kind, without the version label that [`crate::all`] adds.
            pub fn crd()
            -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition
            {
                $definition.build::<Self>()
            }
        }
    };
}

pub(crate) use resource;
