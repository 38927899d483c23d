//! Peers by Service.

use cilium_api::peer::ServiceSelector;
use cilium_core::Source;

use super::selectors;
use crate::invalid::{Invalid, Path};
use crate::reference::{Reference, Services, Which};

/// An item of `toServices`. Labels win over a name; `None` for an item that has neither, which means no Service.
pub(super) fn reference(path: &Path, item: &ServiceSelector) -> Result<Option<Reference>, Invalid> {
    let (which, namespace) = match (&item.k8s_service_selector, &item.k8s_service) {
        (Some(labelled), _) => {
            let path = path.field("k8sServiceSelector.selector");
            let selector = selectors::parse(&path, &labelled.selector)?.on(&Source::K8S);
            (Which::Labelled(selector), &labelled.namespace)
        }
        (None, Some(named)) => match &named.service_name {
            Some(name) => (Which::Named(name.clone()), &named.namespace),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let namespace = namespace.clone().filter(|namespace| !namespace.is_empty());
    Ok(Some(Reference::Services(Services { namespace, which })))
}
