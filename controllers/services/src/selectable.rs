//! What selectors of pools and of announcements see of a Service.

use cilium_api::slim;
use cilium_core::{Label, Labels};

/// Value of `loadBalancerClass` of Services whose addresses nodes announce on their links.
pub const L2_CLASS: &str = "io.cilium/l2-announcer";
/// The same of those whose addresses go to routers by BGP.
pub const BGP_CLASS: &str = "io.cilium/bgp-control-plane";

/// Label that selectors may name beside those of the Service: its name.
const NAME_LABEL: &str = "io.kubernetes.service.name";
/// The same: its namespace.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.service.namespace";

/// Labels of a Service, and its name and namespace.
pub fn selectable_labels(service: &slim::Service) -> Labels {
    let meta = &service.metadata;
    let own = meta.labels.iter().flatten().map(|(key, value)| Label::k8s(key, value));
    let name = Label::k8s(NAME_LABEL, meta.name.as_deref().unwrap_or_default());
    let namespace = Label::k8s(NAMESPACE_LABEL, meta.namespace.as_deref().unwrap_or_default());
    own.chain([name, namespace]).collect()
}
