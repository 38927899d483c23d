//! Numbers by label: identities that have a label, or selectors that ask for one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cilium_core::{Label, Labels, Operator, Requirement, prefix};
use ipnet::IpNet;

/// Numbers filed under keys of labels, and under keys with values.
///
/// The source is left out: requirements of any source are found too, and whoever asks compares in full anyway.
///
/// Prefixes are filed by themselves: what asks for one concerns all that lie inside.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelMap {
    by_key: HashMap<Box<str>, Values>,
    by_prefix: BTreeMap<IpNet, BTreeSet<u32>>,
}

#[derive(Clone, Debug, Default)]
struct Values {
    /// Filed under the key alone.
    alone: BTreeSet<u32>,
    by_value: HashMap<Box<str>, BTreeSet<u32>>,
}

impl LabelMap {
    /// Files an identity under each of its labels, or takes it out.
    pub(crate) fn set_identity(&mut self, labels: &Labels, number: u32, present: bool) {
        for label in labels {
            self.set(&label.key, None, number, present);
            self.set(&label.key, Some(&label.value), number, present);
            if let Some(prefix) = prefix::of_label(label) {
                self.set_prefix(prefix, number, present);
            }
        }
    }

    /// Files a selector under what one requirement asks for, or takes it out. The requirement must be positive.
    pub(crate) fn set_requirement(&mut self, requirement: &Requirement, number: u32, present: bool) {
        match &requirement.operator {
            Operator::In(values) => {
                for value in values {
                    self.set(&requirement.key, Some(value), number, present);
                }
            }
            Operator::Within(prefix) => self.set_prefix(*prefix, number, present),
            _ => self.set(&requirement.key, None, number, present),
        }
    }

    /// Of filed selectors, those whose requirement the label could meet.
    pub(crate) fn selectors_for<'a>(&'a self, label: &Label) -> impl Iterator<Item = u32> + use<'a> {
        let values = self.by_key.get(&label.key);
        let with_value = values.and_then(|values| values.by_value.get(&label.value));
        let around = std::iter::successors(prefix::of_label(label), IpNet::supernet);
        let by_prefix = around.filter_map(|prefix| self.by_prefix.get(&prefix));
        values.map(|values| &values.alone).into_iter().chain(with_value).chain(by_prefix).flatten().copied()
    }

    /// How many identities could meet the requirement; for choosing, not exact.
    pub(crate) fn count_identities(&self, requirement: &Requirement) -> usize {
        self.sets_for(requirement).iter().map(|set| set.len()).sum()
    }

    /// Of filed identities, those that could meet the requirement. It must be positive.
    pub(crate) fn identities_for(&self, requirement: &Requirement) -> BTreeSet<u32> {
        self.sets_for(requirement).into_iter().flatten().copied().collect()
    }

    /// Whether nothing is filed.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.by_prefix.is_empty()
    }

    fn sets_for(&self, requirement: &Requirement) -> Vec<&BTreeSet<u32>> {
        if let Operator::Within(prefix) = &requirement.operator {
            // In this order, what lies inside a prefix comes right after it.
            let inside = self.by_prefix.range(*prefix..).take_while(|(found, _)| prefix.contains(*found));
            return inside.map(|(_, numbers)| numbers).collect();
        }
        let Some(values) = self.by_key.get(&requirement.key) else { return Vec::new() };
        match &requirement.operator {
            Operator::In(wanted) => wanted.iter().filter_map(|value| values.by_value.get(value)).collect(),
            _ => vec![&values.alone],
        }
    }

    fn set_prefix(&mut self, prefix: IpNet, number: u32, present: bool) {
        let numbers = self.by_prefix.entry(prefix).or_default();
        if present {
            numbers.insert(number);
        } else {
            numbers.remove(&number);
        }
        if numbers.is_empty() {
            self.by_prefix.remove(&prefix);
        }
    }

    fn set(&mut self, key: &str, value: Option<&str>, number: u32, present: bool) {
        if present {
            let values = self.by_key.entry(key.into()).or_default();
            match value {
                None => values.alone.insert(number),
                Some(value) => values.by_value.entry(value.into()).or_default().insert(number),
            };
        } else if let Some(values) = self.by_key.get_mut(key) {
            values.remove(value, number);
            if values.alone.is_empty() && values.by_value.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

impl Values {
    fn remove(&mut self, value: Option<&str>, number: u32) {
        let Some(value) = value else {
            self.alone.remove(&number);
            return;
        };
        if let Some(set) = self.by_value.get_mut(value) {
            set.remove(&number);
            if set.is_empty() {
                self.by_value.remove(value);
            }
        }
    }
}

/// The requirement that a selector is filed under: positive, and met by as few as can be said beforehand.
///
/// Labels that nearly every pod has come last. `None` when all requirements are negative: nothing can be said then.
pub(crate) fn anchor(requirements: &[Requirement]) -> Option<&Requirement> {
    requirements
        .iter()
        .filter_map(|requirement| Some((rank(requirement)?, requirement)))
        .min()
        .map(|(_, found)| found)
}

/// The namespace that labels must have to meet all requirements, if it is one.
pub(crate) fn namespace(requirements: &[Requirement]) -> Option<&str> {
    let of_namespace = requirements.iter().filter(|it| *it.key == *cilium_core::pod::NAMESPACE);
    of_namespace.into_iter().find_map(|requirement| match &requirement.operator {
        Operator::In(values) if values.len() == 1 => values.first().map(|value| &**value),
        _ => None,
    })
}

fn rank(requirement: &Requirement) -> Option<u8> {
    let widespread = match &*requirement.key {
        cilium_core::pod::CLUSTER => 6,
        cilium_core::pod::NAMESPACE | cilium_core::pod::SERVICE_ACCOUNT => 2,
        _ => 0,
    };
    match requirement.operator {
        Operator::In(_) => Some(widespread),
        Operator::Exists => Some(widespread + 3),
        Operator::Within(_) => Some(0),
        Operator::DoesNotExist | Operator::NotIn(_) | Operator::NotWithin(_) => None,
    }
}
