//! CiliumIdentity objects: reading and building.

use std::collections::BTreeMap;

use cilium_api::CiliumIdentity;
use cilium_core::{Labels, Source, label, pod};

/// Annotation that marks an identity as without users; its value is the time of the mark, RFC 3339.
pub const MARK: &str = "io.cilium.heartbeat";

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Labels of the identity.
    pub labels: Labels,
    /// Whether it is marked as without users.
    pub marked: bool,
}

/// Why an object is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name is not a number.
    #[error("CiliumIdentity {name:?}: the name must be the number of the identity in decimal")]
    Name {
        /// The name.
        name: String,
    },
    /// A label has no key.
    #[error("CiliumIdentity {number}: a key of security-labels does not parse")]
    Labels {
        /// Number of the identity.
        number: u32,
        /// What is wrong with the key.
        source: label::Error,
    },
}

/// Number and content of an object.
///
/// # Errors
/// The name is not a number in its shortest form, or a label does not parse.
pub fn read(object: &CiliumIdentity) -> Result<(u32, Stored), Error> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let number: u32 = name
        .parse()
        .ok()
        .filter(|number: &u32| number.to_string() == name)
        .ok_or_else(|| Error::Name { name: name.to_owned() })?;
    let labels = Labels::from_security_labels(&object.security_labels)
        .map_err(|source| Error::Labels { number, source })?;
    let marked = object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MARK));
    Ok((number, Stored { labels, marked }))
}

/// The object of a number: without a mark, with the namespace as label for `kubectl get`.
pub fn build(number: u32, labels: &Labels) -> CiliumIdentity {
    let mut object =
        CiliumIdentity { security_labels: labels.to_security_labels(), ..CiliumIdentity::default() };
    object.metadata.name = Some(number.to_string());
    object.metadata.labels = labels
        .get(&Source::K8S, pod::NAMESPACE)
        .map(|namespace| BTreeMap::from([(pod::NAMESPACE.to_owned(), namespace.to_owned())]));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let labels = Labels::parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]).unwrap();
        let object = build(300, &labels);
        assert_eq!(object.metadata.name.as_deref(), Some("300"));
        assert_eq!(object.metadata.labels.as_ref().unwrap()[pod::NAMESPACE], "shop");
        assert_eq!(read(&object).unwrap(), (300, Stored { labels, marked: false }));
    }

    #[test]
    fn a_mark_is_seen() {
        let mut object = build(300, &Labels::default());
        object.metadata.annotations = Some(BTreeMap::from([(MARK.into(), "2026-01-01T00:00:00Z".into())]));
        assert!(read(&object).unwrap().1.marked);
        assert_eq!(object.metadata.labels, None);
    }

    #[test]
    fn what_is_no_identity_is_named() {
        for name in ["", "web", "007", "-1", "99999999999", "+256"] {
            let mut object = build(300, &Labels::default());
            object.metadata.name = Some(name.into());
            assert_eq!(read(&object).unwrap_err(), Error::Name { name: name.into() });
        }
        let mut object = build(300, &Labels::default());
        object.security_labels.insert("k8s:".into(), "x".into());
        assert!(matches!(read(&object).unwrap_err(), Error::Labels { number: 300, .. }));
    }
}
