//! Selectors: one of several, and all of several.

use std::collections::BTreeMap;

use cilium_api::selector::{LabelSelector, MatchExpression, MatchOperator};

/// Selects by one label.
pub(crate) fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), match_expressions: None }
}

/// Selects by one label that has one of some values; there is at least one.
pub(crate) fn one_of(key: &str, mut values: Vec<String>) -> LabelSelector {
    values.sort_unstable();
    values.dedup();
    match values.as_slice() {
        [value] => label(key, value),
        _ => expression(key, MatchOperator::In, Some(values)),
    }
}

/// Selects what does not have a label.
pub(crate) fn without(key: &str) -> LabelSelector {
    expression(key, MatchOperator::DoesNotExist, None)
}

fn expression(key: &str, operator: MatchOperator, values: Option<Vec<String>>) -> LabelSelector {
    let expression = MatchExpression { key: key.to_owned(), operator, values };
    LabelSelector { match_labels: None, match_expressions: Some(vec![expression]) }
}

/// Whether it selects everything.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}

/// Selects what all of them select.
pub(crate) fn all_of<'a>(selectors: impl IntoIterator<Item = &'a LabelSelector>) -> LabelSelector {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut expressions: Vec<MatchExpression> = Vec::new();
    for selector in selectors {
        for (key, value) in selector.match_labels.iter().flatten() {
            // A label with two values at once is nowhere, but that is what was asked for.
            if labels.get(key).is_some_and(|known| known != value) {
                expressions.extend(one_expression(key, value));
            } else {
                labels.insert(key.clone(), value.clone());
            }
        }
        expressions.extend(selector.match_expressions.iter().flatten().cloned());
    }
    let mut known: Vec<MatchExpression> = Vec::new();
    for expression in expressions {
        if !known.contains(&expression) {
            known.push(expression);
        }
    }
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!known.is_empty()).then_some(known),
    }
}

fn one_expression(key: &str, value: &str) -> Option<MatchExpression> {
    expression(key, MatchOperator::In, Some(vec![value.to_owned()])).match_expressions?.pop()
}

/// The fewest selectors that together select what any of them selects. Without any, everything is selected.
pub(crate) fn any_of(selectors: &[LabelSelector]) -> Vec<LabelSelector> {
    if selectors.iter().any(is_empty) || selectors.is_empty() {
        return vec![LabelSelector::default()];
    }
    let mut by_key: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut others: Vec<LabelSelector> = Vec::new();
    for selector in selectors {
        match values_of_one(selector) {
            Some((key, values)) => by_key.entry(key).or_default().extend(values),
            None if others.contains(selector) => {}
            None => others.push(selector.clone()),
        }
    }
    by_key.into_iter().map(|(key, values)| one_of(key, values)).chain(others).collect()
}

/// Key and values, if all that is asked for is that one label has one of them.
fn values_of_one(selector: &LabelSelector) -> Option<(&str, Vec<String>)> {
    let labels: Vec<_> = selector.match_labels.iter().flatten().collect();
    let expressions: Vec<_> = selector.match_expressions.iter().flatten().collect();
    match (labels.as_slice(), expressions.as_slice()) {
        ([(key, value)], []) => Some((key, vec![(*value).clone()])),
        ([], [one]) if one.operator == MatchOperator::In => {
            Some((&one.key, one.values.clone().unwrap_or_default()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(selectors: &[LabelSelector]) -> String {
        serde_json::to_string(selectors).unwrap()
    }

    #[test]
    fn selectors_of_one_label_become_one() {
        let host = |name: &str| label("host", name);
        assert_eq!(
            text(&any_of(&[host("b"), host("a"), host("b")])),
            text(&[one_of("host", vec!["a".into(), "b".into()])])
        );
        assert_eq!(text(&any_of(&[host("b"), host("b")])), r#"[{"matchLabels":{"host":"b"}}]"#);
        assert_eq!(text(&any_of(&[])), "[{}]");
        assert_eq!(text(&any_of(&[host("b"), LabelSelector::default()])), "[{}]");
        let both = all_of([&host("a"), &without("spot")]);
        assert_eq!(any_of(&[both.clone(), host("b"), both.clone()]), [host("b"), both]);
    }

    #[test]
    fn all_of_them_together() {
        let both = all_of([&label("a", "1"), &without("b"), &label("c", "2"), &without("b")]);
        let expected = r#"[{"matchLabels":{"a":"1","c":"2"},"matchExpressions":[{"key":"b","operator":"DoesNotExist"}]}]"#;
        assert_eq!(text(&[both]), expected);
        let never = all_of([&label("a", "1"), &label("a", "2")]);
        let expected =
            r#"[{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"a","operator":"In","values":["2"]}]}]"#;
        assert_eq!(text(&[never]), expected);
    }
}
