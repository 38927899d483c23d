//! What policies mean by a Service: its pods, or where it leads outside of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::slim;

/// A Service as policies see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// `metadata.uid`, for what is said of it.
    pub uid: String,
    /// Labels of the Service.
    pub labels: BTreeMap<String, String>,
    /// Labels of its pods; `None` for a Service whose backends somebody else keeps.
    pub selector: Option<BTreeMap<String, String>>,
}

/// Where a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// To the pods of its namespace with these labels.
    Pods(&'a BTreeMap<String, String>),
    /// To these addresses, whatever the port.
    Addresses(BTreeSet<IpAddr>),
}

impl Described {
    /// Of an ExternalName, Kubernetes ignores the selector.
    pub(crate) fn reduce(service: &slim::Service) -> Self {
        let is_name = service.spec.type_.as_deref() == Some("ExternalName");
        let selector = service.spec.selector.clone().filter(|labels| !labels.is_empty() && !is_name);
        let uid = service.metadata.uid.clone().unwrap_or_default();
        Self { uid, labels: service.metadata.labels.clone().unwrap_or_default(), selector }
    }
}
