//! The labels of a pod's identity.

use std::collections::BTreeMap;

use crate::filter::LabelFilter;
use crate::label::{Label, Labels};
use crate::named_port::{self, NamedPort};

/// Key of the label that holds the namespace of a pod.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Key of the label that holds the name of a pod's cluster.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Key of the label that holds the service account of a pod.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Start of the keys of labels that a pod has from its namespace; includes the dot before the namespace's own key.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Start of keys that belong to us. Pods cannot bring them along.
const OWN: &str = "io.cilium.k8s.";

/// What the identity of a pod is made of.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// Name of the namespace.
    pub namespace: &'a str,
    /// Labels of the pod.
    pub labels: &'a BTreeMap<String, String>,
    /// Labels of the namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Service account of the pod; `default` when the pod names none.
    pub service_account: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Ports of its containers that have names.
    pub named_ports: &'a [NamedPort],
}

/// Labels of the identity of a pod.
///
/// # Guarantees
/// What we say about a pod (namespace, cluster, service account, namespace labels) cannot be forged by labels of the
/// pod: keys of ours are dropped from those, and ours are set last.
pub fn identity_labels(pod: &Pod<'_>, filter: &LabelFilter) -> Labels {
    let own =
        pod.labels.iter().filter(|(key, _)| !key.starts_with(OWN)).map(|(key, value)| Label::k8s(key, value));
    let inherited = pod
        .namespace_labels
        .iter()
        .map(|(key, value)| Label::k8s(&format!("{NAMESPACE_LABELS}{key}"), value));
    let ours = [
        Label::k8s(NAMESPACE, pod.namespace),
        Label::k8s(CLUSTER, pod.cluster),
        Label::k8s(SERVICE_ACCOUNT, pod.service_account),
    ];
    let counted = own.chain(inherited).chain(ours).filter(|label| filter.counts(label));
    counted.chain(named_port::labels(pod.named_ports.iter().cloned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_pod_of_the_demo() {
        let labels = map(&[("org", "empire"), ("class", "deathstar"), ("pod-template-hash", "7c9")]);
        let namespace_labels = map(&[("kubernetes.io/metadata.name", "default")]);
        let pod = Pod {
            namespace: "default",
            labels: &labels,
            namespace_labels: &namespace_labels,
            service_account: "default",
            cluster: "kind",
            named_ports: &[NamedPort::new("http", "TCP", 80).unwrap()],
        };
        assert_eq!(
            identity_labels(&pod, &LabelFilter::default()).to_strings(),
            [
                "gen:io.cilium.k8s.named-ports=http.TCP.80",
                "k8s:class=deathstar",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
                "k8s:io.cilium.k8s.policy.cluster=kind",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=default",
                "k8s:org=empire",
            ]
        );
    }

    #[test]
    fn a_pod_cannot_claim_another_namespace() {
        let labels = map(&[
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.policy.serviceaccount", "admin"),
            ("io.cilium.k8s.namespace.labels.trusted", "yes"),
        ]);
        let pod = Pod {
            namespace: "default",
            labels: &labels,
            namespace_labels: &BTreeMap::new(),
            service_account: "default",
            cluster: "kind",
            named_ports: &[],
        };
        assert_eq!(
            identity_labels(&pod, &LabelFilter::default()).to_strings(),
            [
                "k8s:io.cilium.k8s.policy.cluster=kind",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=default",
            ]
        );
    }
}
