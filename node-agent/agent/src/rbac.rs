//! What the agent may do at the API server. The manifests are generated from here.

/// Rules of a ClusterRole (rbac.authorization.k8s.io/v1 PolicyRule), as YAML.
pub(crate) const RULES: &str = "\
- apiGroups: [cilium.io]
  resources: [ciliumnodestates, ciliumnodestateslices]
  verbs: [list, watch]
- apiGroups: [cilium.io]
  resources: [ciliumnodestates/status]
  verbs: [patch]
";
