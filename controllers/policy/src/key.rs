//! Names of policies.

use std::fmt;
use std::sync::Arc;

/// Name of a policy across kinds: `cnp/<namespace>/<name>`, `ccnp/<name>`, `netpol/<namespace>/<name>` or `clusternetpol/<name>`. Cheap
/// to clone.
///
/// It is what the origins of a compiled policy are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey(Arc<str>);

impl PolicyKey {
    /// Name of a CiliumNetworkPolicy.
    pub fn cnp(namespace: &str, name: &str) -> Self {
        Self(format!("cnp/{namespace}/{name}").into())
    }

    /// Name of a CiliumClusterwideNetworkPolicy.
    pub fn ccnp(name: &str) -> Self {
        Self(format!("ccnp/{name}").into())
    }

    /// Name of a Kubernetes NetworkPolicy.
    pub fn netpol(namespace: &str, name: &str) -> Self {
        Self(format!("netpol/{namespace}/{name}").into())
    }

    /// Name of a ClusterNetworkPolicy.
    pub fn clusternetpol(name: &str) -> Self {
        Self(format!("clusternetpol/{name}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
