//! Names of objects and of the resources that they belong to.

use std::fmt;

/// A resource of the API server: enough to build the path of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind, for people.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
}

impl Resource {
    /// Path of the collection, in `namespace` if it is not empty.
    fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            "" => format!("{root}/{}", self.plural),
            namespace => format!("{root}/namespaces/{namespace}/{}", self.plural),
        }
    }
}

/// Namespace (empty for cluster scope) and name of an object of a known kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for objects of cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Key of an object from its metadata.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object in the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its resource.
    pub resource: Resource,
    /// Its name.
    pub key: Key,
}

impl ObjectRef {
    /// An object of cluster scope.
    pub fn cluster(resource: Resource, name: impl Into<String>) -> Self {
        Self { resource, key: Key { namespace: String::new(), name: name.into() } }
    }

    /// An object in a namespace.
    pub fn namespaced(resource: Resource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource, key: Key { namespace: namespace.into(), name: name.into() } }
    }

    /// Path of the collection that a new object is posted to.
    pub fn collection_path(&self) -> String {
        self.resource.collection(&self.key.namespace)
    }

    /// Path of the object, or of one of its subresources.
    pub fn path(&self, subresource: Option<&str>) -> String {
        let object = format!("{}/{}", self.collection_path(), self.key.name);
        match subresource {
            Some(subresource) => format!("{object}/{subresource}"),
            None => object,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: Resource = Resource { group: "", version: "v1", kind: "Node", plural: "nodes" };
    const ENDPOINTS: Resource =
        Resource { group: "cilium.io", version: "v2", kind: "CiliumEndpoint", plural: "ciliumendpoints" };

    #[test]
    fn paths_follow_group_scope_and_subresource() {
        let node = ObjectRef::cluster(NODES, "n1");
        assert_eq!(node.collection_path(), "/api/v1/nodes");
        assert_eq!(node.path(Some("status")), "/api/v1/nodes/n1/status");
        let endpoint = ObjectRef::namespaced(ENDPOINTS, "default", "xwing");
        assert_eq!(endpoint.path(None), "/apis/cilium.io/v2/namespaces/default/ciliumendpoints/xwing");
        assert_eq!(endpoint.to_string(), "CiliumEndpoint default/xwing");
    }
}
