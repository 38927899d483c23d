//! Labels with a source.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where a label comes from: the text before the `:` of its key.
///
/// Open, as new sources appear with new features; the known ones are constants and take no memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Cow<'static, str>);

impl Source {
    /// In selectors: every source. A selector key without source means this.
    pub const ANY: Self = Self(Cow::Borrowed("any"));
    /// Kubernetes: labels of pods and namespaces, service account, cluster.
    pub const K8S: Self = Self(Cow::Borrowed("k8s"));
    /// Prefixes of addresses outside the cluster.
    pub const CIDR: Self = Self(Cow::Borrowed("cidr"));
    /// Groups of prefixes: their names, in labels of the identities of prefixes, and their own labels.
    pub const CIDR_GROUP: Self = Self(Cow::Borrowed("cidrgroup"));
    /// Labels of Kubernetes nodes, in identities of nodes.
    pub const NODE: Self = Self(Cow::Borrowed("node"));
    /// What is derived from a pod beside its labels.
    pub const GEN: Self = Self(Cow::Borrowed("gen"));
    /// Reserved identities.
    pub const RESERVED: Self = Self(Cow::Borrowed("reserved"));
    /// A label that was written without a source.
    pub const UNSPEC: Self = Self(Cow::Borrowed("unspec"));

    /// The source of this name.
    pub fn new(name: &str) -> Self {
        let known = [
            Self::ANY,
            Self::K8S,
            Self::CIDR,
            Self::CIDR_GROUP,
            Self::NODE,
            Self::GEN,
            Self::RESERVED,
            Self::UNSPEC,
        ];
        known.into_iter().find(|known| known.0 == name).unwrap_or_else(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a requirement on this source concerns a label of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        *self == Self::ANY || self == other
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits `source:key`. Without a `:` there is no source.
pub fn split_source(text: &str) -> (Option<Source>, &str) {
    match text.split_once(':') {
        Some((source, key)) => (Some(Source::new(source)), key),
        None => (None, text),
    }
}

/// A label. Ordered by source, key, value. Displayed as `source:key=value`, or `source:key` when the value is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Where it comes from.
    pub source: Source,
    /// Key without source.
    pub key: Box<str>,
    /// Value, often empty.
    pub value: Box<str>,
}

impl Label {
    /// A label of any source.
    pub fn new(source: Source, key: &str, value: &str) -> Self {
        Self { source, key: key.into(), value: value.into() }
    }

    /// A label from Kubernetes.
    pub fn k8s(key: &str, value: &str) -> Self {
        Self::new(Source::K8S, key, value)
    }

    /// A label of a reserved identity, such as `reserved:host`.
    pub fn reserved(key: &str) -> Self {
        Self::new(Source::RESERVED, key, "")
    }

    /// Reads `source:key=value`. Source and value may be absent: then they are `unspec` and empty.
    ///
    /// # Errors
    /// The key is empty.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // A value may hold a colon, a source never holds an equals sign.
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Self::from_parts(name, value)
    }

    fn from_parts(name: &str, value: &str) -> Result<Self, Error> {
        let (source, key) = split_source(name);
        if key.is_empty() {
            return Err(Error::EmptyKey { label: format!("{name}={value}") });
        }
        Ok(Self::new(source.unwrap_or(Source::UNSPEC), key, value))
    }

    fn same_name(&self, other: &Self) -> bool {
        self.cmp_name(other) == Ordering::Equal
    }

    fn cmp_name(&self, other: &Self) -> Ordering {
        (&self.source, &self.key).cmp(&(&other.source, &other.key))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

/// Why a text is not a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing stands where the key should.
    #[error("label {label:?} has no key; write source:key=value")]
    EmptyKey {
        /// The text.
        label: String,
    },
}

/// A set of labels with at most one for each source and key: what makes an identity. Sorted; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl FromIterator<Label> for Labels {
    /// Of several labels with one source and key the last counts.
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut sorted: Vec<Label> = labels.into_iter().collect();
        sorted.reverse();
        sorted.sort_by(Label::cmp_name);
        sorted.dedup_by(|later, kept| kept.same_name(later));
        Self(sorted.into())
    }
}

impl Labels {
    /// The labels, sorted.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels of that key whose source `source` covers: at most one, or one for each source with [`Source::ANY`].
    pub fn named<'a, 'q>(
        &'a self,
        source: &'q Source,
        key: &'q str,
    ) -> impl Iterator<Item = &'a Label> + use<'a, 'q> {
        self.0.iter().filter(move |label| *label.key == *key && source.covers(&label.source))
    }

    /// The value of the label with this source and key.
    pub fn get(&self, source: &Source, key: &str) -> Option<&str> {
        self.named(source, key).next().map(|label| &*label.value)
    }

    /// Whether there is the label `reserved:<key>`.
    pub fn has_reserved(&self, key: &str) -> bool {
        self.get(&Source::RESERVED, key).is_some()
    }

    /// As texts `source:key=value`, sorted as texts.
    pub fn to_strings(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    }

    /// As `security-labels` of a CiliumIdentity: `source:key` to value.
    pub fn to_security_labels(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .map(|label| (format!("{}:{}", label.source, label.key), label.value.to_string()))
            .collect()
    }

    /// From `security-labels` of a CiliumIdentity.
    ///
    /// # Errors
    /// A key is empty.
    pub fn from_security_labels(labels: &BTreeMap<String, String>) -> Result<Self, Error> {
        labels.iter().map(|(name, value)| Label::from_parts(name, value)).collect()
    }

    /// From texts `source:key=value`.
    ///
    /// # Errors
    /// A key is empty.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        texts.into_iter().map(|text| Label::parse(text.as_ref())).collect()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_a_round_trip() {
        for text in ["k8s:app=web", "reserved:host", "cidr:10.0.0.0/8", "k8s:url=a:b=c"] {
            assert_eq!(Label::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Label::parse("app=web").unwrap(), Label::new(Source::UNSPEC, "app", "web"));
        assert_eq!(
            Label::parse("k8s:=x").unwrap_err().to_string(),
            "label \"k8s:=x\" has no key; write source:key=value"
        );
    }

    #[test]
    fn a_set_is_sorted_and_the_last_of_a_name_counts() {
        let labels = Labels::parse(["k8s:b=1", "reserved:x", "k8s:a=1", "k8s:b=2"]).unwrap();
        assert_eq!(labels.to_strings(), ["k8s:a=1", "k8s:b=2", "reserved:x"]);
        assert_eq!(labels, Labels::parse(["reserved:x", "k8s:b=2", "k8s:a=1"]).unwrap());
    }

    #[test]
    fn security_labels_survive_a_round_trip() {
        let labels =
            Labels::parse(["k8s:app=web", "reserved:init", "k8s:io.kubernetes.pod.namespace=default"])
                .unwrap();
        let written = labels.to_security_labels();
        assert_eq!(written["k8s:app"], "web");
        assert_eq!(written["reserved:init"], "");
        assert_eq!(Labels::from_security_labels(&written).unwrap(), labels);
        assert!(Labels::from_security_labels(&BTreeMap::from([("k8s:".into(), String::new())])).is_err());
    }

    #[test]
    fn any_source_finds_labels_of_every_source() {
        let labels = Labels::parse(["k8s:app=web", "node:app=edge"]).unwrap();
        let values: Vec<_> = labels.named(&Source::ANY, "app").map(|label| &*label.value).collect();
        assert_eq!(values, ["web", "edge"]);
        assert_eq!(labels.get(&Source::new("node"), "app"), Some("edge"));
        assert_eq!(labels.get(&Source::RESERVED, "app"), None);
    }
}
