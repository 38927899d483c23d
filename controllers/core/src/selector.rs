//! Selectors: requirements on labels, with a source.

use std::fmt;

use cilium_api::selector::{LabelSelector, MatchExpression, MatchOperator};

use ipnet::IpNet;

use crate::label::{Label, Labels, Source, split_source};
use crate::prefix;

/// What a requirement asks of a label's value. Value sets are sorted and not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is there with one of the values.
    In(Vec<Box<str>>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is absent or has none of the values.
    NotIn(Vec<Box<str>>),
    /// There is a label of a prefix that lies in this one. Key and source of the requirement play no role.
    Within(IpNet),
    /// There is no such label.
    NotWithin(IpNet),
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Source of the label; [`Source::ANY`] for every source.
    pub source: Source,
    /// Key without source.
    pub key: Box<str>,
    /// What is asked.
    pub operator: Operator,
}

impl Requirement {
    /// `key` of `source` has exactly this value.
    pub fn equals(source: Source, key: &str, value: &str) -> Self {
        Self { source, key: key.into(), operator: Operator::In(vec![value.into()]) }
    }

    /// There is a label `key` of `source`.
    pub fn exists(source: Source, key: &str) -> Self {
        Self { source, key: key.into(), operator: Operator::Exists }
    }

    /// The labels are those of a prefix inside of this one.
    pub fn within(prefix: IpNet) -> Self {
        Self { source: Source::CIDR, key: Box::default(), operator: Operator::Within(prefix) }
    }

    /// The labels are not those of a prefix inside of this one.
    pub fn not_within(prefix: IpNet) -> Self {
        Self { source: Source::CIDR, key: Box::default(), operator: Operator::NotWithin(prefix) }
    }

    /// Whether the labels meet the requirement.
    ///
    /// With [`Source::ANY`] one label of several sources with the key is enough for a positive operator; a negative
    /// one needs all of them to differ.
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut named = labels.named(&self.source, &self.key);
        let has_one_of = |label: &Label, values: &[Box<str>]| values.binary_search(&label.value).is_ok();
        match &self.operator {
            Operator::In(values) => named.any(|label| has_one_of(label, values)),
            Operator::Exists => named.next().is_some(),
            Operator::DoesNotExist => named.next().is_none(),
            Operator::Within(prefix) => lies_in(labels, *prefix),
            Operator::NotWithin(prefix) => !lies_in(labels, *prefix),
            Operator::NotIn(values) => !named.any(|label| has_one_of(label, values)),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, key, operator } = self;
        match operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{source}:{key}={}", values.concat()),
            Operator::In(values) => write!(f, "{source}:{key} in ({})", values.join(", ")),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{source}:{key}!={}", values.concat()),
            Operator::NotIn(values) => write!(f, "{source}:{key} not in ({})", values.join(", ")),
            Operator::Exists => write!(f, "{source}:{key}"),
            Operator::DoesNotExist => write!(f, "!{source}:{key}"),
            Operator::Within(prefix) => write!(f, "in {prefix}"),
            Operator::NotWithin(prefix) => write!(f, "not in {prefix}"),
        }
    }
}

fn lies_in(labels: &Labels, prefix: IpNet) -> bool {
    labels.iter().filter_map(prefix::of_label).any(|found| prefix.contains(&found))
}

/// A set of requirements, all of which must be met. Without any, it selects everything.
///
/// Sorted and without duplicates, so that selectors that were written differently compare as equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Vec<Requirement>);

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut sorted: Vec<Requirement> = requirements.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted)
    }
}

impl Selector {
    /// Selects what has the label `reserved:<name>`.
    pub fn reserved(name: &str) -> Self {
        Self(vec![Requirement::exists(Source::RESERVED, name)])
    }

    /// Reads a selector of a policy. A key without source is of any source.
    ///
    /// # Errors
    /// A key or value is not what Kubernetes takes as a label, or an operator and its values do not fit.
    pub fn parse(selector: &LabelSelector) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for (name, value) in selector.match_labels.iter().flatten() {
            requirements.push(label_requirement(name, value)?);
        }
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            requirements.push(expression_requirement(index, expression)?);
        }
        Ok(requirements.into_iter().collect())
    }

    /// The selector with one more requirement.
    #[must_use]
    pub fn and(self, requirement: Requirement) -> Self {
        self.0.into_iter().chain([requirement]).collect()
    }

    /// The selector with the requirements of another one, too.
    #[must_use]
    pub fn and_all(self, other: &Self) -> Self {
        self.0.into_iter().chain(other.0.iter().cloned()).collect()
    }

    /// The same requirements on labels of one source, whatever they were written with.
    #[must_use]
    pub fn on(self, source: &Source) -> Self {
        self.0.into_iter().map(|requirement| Requirement { source: source.clone(), ..requirement }).collect()
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether the labels meet all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

/// Why a selector is refused. Displayed without the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    /// Field inside the selector, such as `matchExpressions[0].operator`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

fn label_requirement(name: &str, value: &str) -> Result<Requirement, Error> {
    let fail = |reason| Error { path: format!("matchLabels[{name}]"), reason };
    let (source, key) = source_and_key(name).map_err(fail)?;
    check_value(value).map_err(fail)?;
    Ok(Requirement::equals(source, key, value))
}

fn expression_requirement(index: usize, expression: &MatchExpression) -> Result<Requirement, Error> {
    let fail = |field: &str, reason| Error { path: format!("matchExpressions[{index}].{field}"), reason };
    let (source, key) = source_and_key(&expression.key).map_err(|reason| fail("key", reason))?;
    let values = sorted_values(expression).map_err(|reason| fail("values", reason))?;
    let operator = match (&expression.operator, values.is_empty()) {
        (MatchOperator::In, false) => Operator::In(values),
        (MatchOperator::NotIn, false) => Operator::NotIn(values),
        (MatchOperator::Exists, true) => Operator::Exists,
        (MatchOperator::DoesNotExist, true) => Operator::DoesNotExist,
        (MatchOperator::In | MatchOperator::NotIn, true) => {
            return Err(fail("values", format!("{} needs at least one value", expression.operator)));
        }
        (MatchOperator::Exists | MatchOperator::DoesNotExist, false) => {
            return Err(fail("values", format!("{} takes no values", expression.operator)));
        }
        (MatchOperator::Other(other), _) => {
            return Err(fail("operator", format!("{other:?} is not an operator")));
        }
    };
    Ok(Requirement { source, key: key.into(), operator })
}

fn sorted_values(expression: &MatchExpression) -> Result<Vec<Box<str>>, String> {
    let mut values = Vec::new();
    for value in expression.values.iter().flatten() {
        check_value(value)?;
        values.push(value.as_str().into());
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

fn source_and_key(name: &str) -> Result<(Source, &str), String> {
    let (source, key) = split_source(name);
    check_key(key)?;
    Ok((source.unwrap_or(Source::ANY), key))
}

/// Kubernetes, "Labels and Selectors", syntax of keys: a name, or a DNS subdomain, a slash and a name.
///
/// The prefix is only bounded, not parsed: keys of ours hold whole keys of other objects behind a prefix of their own.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("x", key));
    let prefix_ok =
        !prefix.is_empty() && prefix.len() <= 253 && prefix.bytes().all(|b| is_name_byte(b) || b == b'/');
    // Keys of namespace labels put another 31 characters in front of a name of up to 63.
    let name_ok = is_name(name) && name.len() <= 63 + crate::pod::NAMESPACE_LABELS.len();
    if prefix_ok && name_ok { Ok(()) } else { Err(format!("{key:?} is not a label key")) }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || (value.len() <= 63 && is_name(value)) {
        Ok(())
    } else {
        Err(format!("{value:?} is not a label value"))
    }
}

fn is_name(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric())) && text.bytes().all(is_name_byte)
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])]) -> LabelSelector {
        LabelSelector {
            match_labels: Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
            match_expressions: Some(expressions.iter().map(expression).collect()),
        }
    }

    fn expression((key, operator, values): &(&str, &str, &[&str])) -> MatchExpression {
        let values = (!values.is_empty()).then(|| values.iter().map(|v| v.to_string()).collect());
        MatchExpression { key: key.to_string(), operator: (*operator).into(), values }
    }

    fn matches(labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])], on: &[&str]) -> bool {
        Selector::parse(&selector(labels, expressions)).unwrap().matches(&Labels::parse(on).unwrap())
    }

    #[test]
    fn match_labels_with_sources() {
        let on = ["k8s:app=web", "reserved:host", "node:zone=a"];
        assert!(matches(&[], &[], &on));
        assert!(matches(&[("app", "web")], &[], &on));
        assert!(matches(&[("any:zone", "a"), ("k8s:app", "web")], &[], &on));
        assert!(matches(&[("reserved:host", "")], &[], &on));
        assert!(!matches(&[("k8s:host", "")], &[], &on));
        assert!(!matches(&[("k8s:zone", "a")], &[], &on));
        assert!(!matches(&[("app", "web"), ("zone", "b")], &[], &on));
    }

    #[test]
    fn match_expressions() {
        let on = ["k8s:app=web", "k8s:tier=edge"];
        assert!(matches(&[], &[("app", "In", &["db", "web"])], &on));
        assert!(!matches(&[], &[("app", "In", &["db"])], &on));
        assert!(matches(&[], &[("app", "NotIn", &["db"]), ("none", "NotIn", &["db"])], &on));
        assert!(!matches(&[], &[("app", "NotIn", &["web"])], &on));
        assert!(matches(&[], &[("k8s:app", "Exists", &[]), ("none", "DoesNotExist", &[])], &on));
        assert!(!matches(&[], &[("reserved:app", "Exists", &[])], &on));
        assert!(!matches(&[], &[("app", "DoesNotExist", &[])], &on));
    }

    #[test]
    fn a_negative_requirement_on_any_source_needs_all_sources_to_differ() {
        let on = ["k8s:app=web", "node:app=edge"];
        assert!(!matches(&[], &[("app", "NotIn", &["edge"])], &on));
        assert!(!matches(&[], &[("app", "NotIn", &["web"])], &on));
        assert!(matches(&[], &[("k8s:app", "NotIn", &["edge"])], &on));
    }

    #[test]
    fn equal_selectors_compare_as_equal() {
        let one = Selector::parse(&selector(&[("a", "1")], &[("b", "In", &["y", "x", "y"])])).unwrap();
        let other =
            Selector::parse(&selector(&[], &[("b", "In", &["x", "y"]), ("any:a", "In", &["1"])])).unwrap();
        assert_eq!(one, other);
    }

    #[test]
    fn refusals_name_the_field() {
        let long = "x".repeat(64);
        for (labels, expressions, path, reason) in [
            (vec![("-a", "")], vec![], "matchLabels[-a]", "\"-a\" is not a label key"),
            (vec![("k8s:", "")], vec![], "matchLabels[k8s:]", "\"\" is not a label key"),
            (vec![("a", "x y")], vec![], "matchLabels[a]", "\"x y\" is not a label value"),
            (vec![], vec![("a", "In", &[][..])], "matchExpressions[0].values", "In needs at least one value"),
            (vec![], vec![("a", "Exists", &["x"])], "matchExpressions[0].values", "Exists takes no values"),
            (
                vec![],
                vec![("a", "Like", &["x"])],
                "matchExpressions[0].operator",
                "\"Like\" is not an operator",
            ),
            (vec![], vec![("/a", "Exists", &[])], "matchExpressions[0].key", "\"/a\" is not a label key"),
        ] {
            let error = Selector::parse(&selector(&labels, &expressions)).unwrap_err();
            assert_eq!((error.path.as_str(), error.reason.as_str()), (path, reason));
        }
        assert!(Selector::parse(&selector(&[("a", &long)], &[])).is_err());
        let namespace_label = "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";
        assert!(Selector::parse(&selector(&[(namespace_label, "default")], &[])).is_ok());
    }
}
