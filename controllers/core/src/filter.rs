//! Which labels count for identities.
//!
//! Every further label that counts splits identities; labels that differ for each pod must not count.

use crate::label::{Label, Source, split_source};
use crate::pattern::Pattern;

/// What is filtered when nothing is configured, in the form of [`LabelFilter::with`].
const DEFAULT: [&str; 21] = [
    r"reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
    r"!topology\.kubernetes\.io",
];

/// Decides for each label whether it counts for identities.
///
/// Of the items that match, the longest include is compared with the shortest exclude: the label counts when the include is
/// the longer one, or when nothing excludes it. Once an include was configured, a label that no include matches does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    items: Vec<Item>,
    /// Only what an include matches counts.
    whitelist: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// `None` is every source.
    source: Option<Source>,
    pattern: Pattern,
    include: bool,
}

/// Why a filter item is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The item is not a pattern that is understood.
    #[error("label filter item {item:?}: {reason}")]
    Item {
        /// The item as it was given.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for LabelFilter {
    fn default() -> Self {
        let mut items = Vec::new();
        for text in DEFAULT {
            items.push(Item::parse(text).expect("the default items are patterns, a test reads them all"));
        }
        Self { items, whitelist: false }
    }
}

impl LabelFilter {
    /// The default filter plus the items of the option `labels`: `[source:][!]pattern`, with `!` for exclusion.
    ///
    /// # Errors
    /// An item is empty or uses a form of regular expression other than literals, `.`, `*`, `+`, `?`, `^`, `$`.
    pub fn with<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut filter = Self::default();
        for text in items {
            let item = Item::parse(text).map_err(|reason| Error::Item { item: text.to_owned(), reason })?;
            filter.whitelist |= item.include;
            filter.items.push(item);
        }
        Ok(filter)
    }

    /// Whether the label counts for identities.
    pub fn counts(&self, label: &Label) -> bool {
        let included = self.lengths(label, true).max();
        match (included, self.lengths(label, false).min()) {
            (Some(included), Some(excluded)) => included > excluded,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (None, None) => !self.whitelist,
        }
    }

    fn lengths<'a>(&'a self, label: &'a Label, include: bool) -> impl Iterator<Item = usize> + 'a {
        self.items.iter().filter(move |item| item.include == include).filter_map(|item| item.matched(label))
    }
}

impl Item {
    fn parse(text: &str) -> Result<Self, String> {
        let (first, rest) = strip_not(text);
        let (source, rest) = split_source(rest);
        let (second, rest) = strip_not(rest);
        Ok(Self { source, pattern: Pattern::parse(rest)?, include: !(first || second) })
    }

    fn matched(&self, label: &Label) -> Option<usize> {
        let concerns = self.source.as_ref().is_none_or(|source| source.covers(&label.source));
        if concerns { self.pattern.matched(&label.key) } else { None }
    }
}

fn strip_not(text: &str) -> (bool, &str) {
    match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(filter: &LabelFilter, text: &str) -> bool {
        filter.counts(&Label::parse(text).unwrap())
    }

    #[test]
    fn default_filter() {
        let filter = LabelFilter::default();
        for text in [
            "reserved:host",
            "k8s:app=web",
            "k8s:job-name=backup",
            "k8s:app.kubernetes.io/name=web",
            "k8s:io.kubernetes.pod.namespace=default",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:node-role.kubernetes.io/control-plane",
        ] {
            assert!(counts(&filter, text), "{text}");
        }
        for text in [
            "k8s:io.kubernetes.container.name=x",
            "k8s:kubernetes.io/hostname=n1",
            "k8s:x.beta.kubernetes.io/arch=amd64",
            "k8s:k8s.io/x=1",
            "k8s:statefulset.kubernetes.io/pod-name=db-0",
            "k8s:apps.kubernetes.io/pod-index=0",
            "k8s:batch.kubernetes.io/job-completion-index=1",
            "k8s:batch.kubernetes.io/controller-uid=1",
            "k8s:pod-template-generation=1",
            "k8s:pod-template-hash=1",
            "k8s:controller-revision-hash=1",
            "k8s:controller-uid=1",
            "k8s:annotation.x=1",
            "k8s:etcd_node=1",
            "k8s:topology.kubernetes.io/zone=a",
        ] {
            assert!(!counts(&filter, text), "{text}");
        }
    }

    #[test]
    fn an_own_exclude_keeps_the_rest() {
        let filter = LabelFilter::with(["k8s:!job-name", r"!app\.kubernetes\.io"]).unwrap();
        assert!(!counts(&filter, "k8s:job-name=backup"));
        assert!(counts(&filter, "cni:job-name=backup"));
        assert!(!counts(&filter, "k8s:app.kubernetes.io/name=web"), "an exclude as long as the include wins");
        assert!(counts(&filter, "k8s:app=web"));
    }

    #[test]
    fn an_own_include_makes_a_whitelist() {
        let filter = LabelFilter::with(["k8s:team"]).unwrap();
        assert!(counts(&filter, "k8s:team=a"));
        assert!(counts(&filter, "k8s:io.kubernetes.pod.namespace=default"));
        assert!(counts(&filter, "reserved:init"));
        assert!(!counts(&filter, "k8s:app=web"));
    }

    #[test]
    fn a_bad_item_is_named() {
        let error = LabelFilter::with(["k8s:(a|b)"]).unwrap_err();
        assert_eq!(error.to_string(), "label filter item \"k8s:(a|b)\": ( is not supported");
    }
}
