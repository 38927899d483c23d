//! L2Advertisement to CiliumL2AnnouncementPolicy.
//!
//! A policy selects Services, where MetalLB selects pools. What a pool's selector says can be said in a policy, too; of a pool for
//! everybody, it cannot. Alternatives (several selectors of which one has to match) become several policies: a node announces what
//! any of them lets it announce.

use std::collections::BTreeSet;

use cilium_api::selector::LabelSelector;
use cilium_core::{Label, Labels, Selector};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Options;
use crate::document::{At, Error};
use crate::input::{Advertisement, Input};
use crate::output::Note;
use crate::pool::Pool;
use crate::selector::{all_of, any_of, is_empty, label, without};

/// Nodes with this label do not announce with MetalLB, since 0.14 (Kubernetes, "Well-Known Labels, Annotations and Taints").
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Most policies that one advertisement may become.
const MAX_POLICIES: usize = 100;

/// Content of a CiliumL2AnnouncementPolicy (cilium.io/v2alpha1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(skip_serializing_if = "is_empty")]
    service_selector: LabelSelector,
    #[serde(skip_serializing_if = "is_empty")]
    node_selector: LabelSelector,
    /// Regular expressions, of which one has to match the name; all interfaces if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<String>,
    #[serde(rename = "loadBalancerIPs")]
    load_balancer_ips: bool,
}

/// A policy of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    name: String,
    spec: Spec,
}

impl Policy {
    /// The object as it is printed.
    pub(crate) fn object(&self) -> Value {
        json!({
            "apiVersion": "cilium.io/v2alpha1",
            "kind": "CiliumL2AnnouncementPolicy",
            "metadata": {"name": self.name},
            "spec": self.spec,
        })
    }
}

/// All advertisements; notes also name pools that none is for.
///
/// # Errors
/// An advertisement would become too many policies.
pub(crate) fn convert(
    input: &Input,
    pools: &[Pool],
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Vec<Policy>, Error> {
    let mut policies: Vec<Policy> = Vec::new();
    let mut announced: BTreeSet<&str> = BTreeSet::new();
    for advertisement in &input.advertisements {
        let chosen = chosen(advertisement, input, pools, notes);
        let is_for_all = advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty();
        if chosen.is_empty() && !is_for_all {
            let advice = "give the pools to the converter together with it";
            notes.push(note(
                advertisement,
                "",
                "none of its pools is in what was given, so there is no policy for it",
                advice,
            ));
            continue;
        }
        announced.extend(chosen.iter().map(|pool| pool.name.as_str()));
        preferred(advertisement, notes);
        let services = services(advertisement, &chosen, pools, notes);
        let specs = specs(advertisement, &services, options)?;
        let is_one = specs.len() == 1;
        for spec in specs {
            let name = free_name(&advertisement.name, is_one, &policies);
            policies.push(Policy { name, spec });
        }
    }
    unannounced(input, pools, &announced, notes);
    Ok(policies)
}

fn note(
    advertisement: &Advertisement,
    field: &str,
    meaning: impl Into<String>,
    advice: impl Into<String>,
) -> Note {
    Note {
        object: advertisement.object.clone(),
        field: field.to_owned(),
        meaning: meaning.into(),
        advice: advice.into(),
    }
}

/// Pools that an advertisement is for: those that it names, and those that one of its selectors matches; without both, all.
fn chosen<'p>(
    advertisement: &Advertisement,
    input: &Input,
    pools: &'p [Pool],
    notes: &mut Vec<Note>,
) -> Vec<&'p Pool> {
    let selectors: Vec<Selector> =
        advertisement.pool_selectors.iter().filter_map(|selector| Selector::parse(selector).ok()).collect();
    if advertisement.pools.is_empty() && selectors.is_empty() {
        return pools.iter().collect();
    }
    for name in advertisement.pools.iter().filter(|name| !pools.iter().any(|pool| pool.name == **name)) {
        let meaning = format!("the pool {name:?} is not in what was given");
        notes.push(note(
            advertisement,
            "spec.ipAddressPools",
            meaning,
            "give it to the converter, too, or take its name out",
        ));
    }
    let is_selected = |name: &str| {
        let pool = input.pools.iter().find(|pool| pool.name == name);
        let labels = pool.into_iter().flat_map(|pool| &pool.labels);
        let labels: Labels = labels.map(|(key, value)| Label::k8s(key, value)).collect();
        selectors.iter().any(|selector| selector.matches(&labels))
    };
    let is_chosen = |pool: &&Pool| advertisement.pools.contains(&pool.name) || is_selected(&pool.name);
    pools.iter().filter(is_chosen).collect()
}

fn preferred(advertisement: &Advertisement, notes: &mut Vec<Note>) {
    if advertisement.prefers_nodes {
        let meaning = "no node is preferred: each address has its node by its name, and all that may announce are alike";
        let advice = "select only the preferred nodes in spec.nodeSelector, if the others are not needed";
        notes.push(note(advertisement, "spec.preferredNodeSelectors", meaning, advice));
    }
}

/// Selectors of Services of which one has to match.
fn services(
    advertisement: &Advertisement,
    chosen: &[&Pool],
    pools: &[Pool],
    notes: &mut Vec<Note>,
) -> Vec<LabelSelector> {
    let own = any_of(&advertisement.service_selectors);
    let others: Vec<&str> = pools
        .iter()
        .filter(|pool| !chosen.iter().any(|other| other.name == pool.name))
        .map(|pool| pool.name.as_str())
        .collect();
    if others.is_empty() {
        return own;
    }
    let of_pools: Vec<LabelSelector> = chosen.iter().map(|pool| pool.selector.clone()).collect();
    let of_pools = any_of(&of_pools);
    let others = others.join(", ");
    let (meaning, advice) = if of_pools.iter().any(is_empty) {
        (
            format!(
                "a policy selects Services, not pools; as one of these pools is for all Services, addresses of {others} are announced, too"
            ),
            "if that matters, give Services a label and write it into spec.serviceSelector",
        )
    } else {
        (
            format!(
                "a policy selects Services, not pools; Services of these pools that have an address of {others} are announced with it, too"
            ),
            "if that matters, see that no Service is selected by both",
        )
    };
    notes.push(note(advertisement, "spec.ipAddressPools", meaning, advice));
    let pairs = own.iter().flat_map(|one| of_pools.iter().map(move |other| all_of([other, one])));
    pairs.collect()
}

/// One policy for each pair of Services and nodes.
fn specs(
    advertisement: &Advertisement,
    services: &[LabelSelector],
    options: &Options,
) -> Result<Vec<Spec>, Error> {
    let nodes = any_of(&advertisement.node_selectors);
    if services.len().saturating_mul(nodes.len()) > MAX_POLICIES {
        let at = At::root("what was given", advertisement.object.clone()).field("spec");
        return Err(at.fail(format!(
            "its selectors would make more than {MAX_POLICIES} policies; use fewer, on one label each"
        )));
    }
    let moved = options.moved_label.as_ref().map(|(key, value)| label(key, value)).unwrap_or_default();
    let excluded = if options.ignore_exclude_lb { LabelSelector::default() } else { without(EXCLUDED) };
    let interfaces: Vec<String> = advertisement.interfaces.iter().map(|name| exactly(name)).collect();
    let spec = |service, node| Spec {
        service_selector: all_of([service, &moved]),
        node_selector: all_of([node, &excluded]),
        interfaces: interfaces.clone(),
        load_balancer_ips: true,
    };
    Ok(services
        .iter()
        .flat_map(|service| nodes.iter().map(move |node| (service, node)))
        .map(|(service, node)| spec(service, node))
        .collect())
}

/// A regular expression that matches this name and no other.
fn exactly(name: &str) -> String {
    let mut text = "^".to_owned();
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text + "$"
}

/// The advertisement's own name, or with the first number that is free.
fn free_name(wanted: &str, is_one: bool, policies: &[Policy]) -> String {
    let is_free = |name: &String| policies.iter().all(|policy| policy.name != *name);
    let own = Some(wanted.to_owned()).filter(|name| is_one && is_free(name));
    own.or_else(|| (1..).map(|number| format!("{wanted}-{number}")).find(is_free))
        .expect("numbers do not end")
}

/// Pools that no advertisement is for.
fn unannounced(input: &Input, pools: &[Pool], announced: &BTreeSet<&str>, notes: &mut Vec<Note>) {
    for pool in input.pools.iter().filter(|pool| pools.iter().any(|it| it.name == pool.name)) {
        if announced.contains(pool.name.as_str()) {
            continue;
        }
        let by_bgp = if input.has_bgp { ", unless by BGP" } else { "" };
        let meaning = format!(
            "no L2Advertisement in what was given is for this pool: MetalLB does not announce its addresses{by_bgp}"
        );
        let advice =
            "give the L2Advertisement to the converter, too, or see that other ways lead to these addresses";
        notes.push(Note { field: String::new(), ..Note::new(&pool.at, meaning, advice) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_are_no_patterns() {
        for (name, expected) in [("eth0", "^eth0$"), ("eth0.100", r"^eth0\.100$"), (r"a\b*", r"^a\\b\*$")] {
            assert_eq!(exactly(name), expected);
        }
    }
}
