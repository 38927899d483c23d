//! L2Advertisement to CiliumL2AnnouncementPolicy.
//!
//! A policy selects Services, where MetalLB selects pools. What a pool's selector says can be said in a policy, too; of a pool for
//! everybody, it cannot. Alternatives (several selectors of which one has to match) become several policies: a node announces what
//! any of them lets it announce.

use std::collections::BTreeSet;

use cilium_api::l2_announcement_policy::L2AnnouncementSpec;
use cilium_api::selector::LabelSelector;
use cilium_core::{Label, Labels, Selector};
use serde_json::{Value, json};

use crate::Options;
use crate::document::Error;
use crate::input::{self, Advertisement, Input};
use crate::output::Note;
use crate::pool::Pool;
use crate::selector::{all_of, any_of, is_empty, label, without};

/// Nodes with this label do not announce with MetalLB, since 0.14 (Kubernetes, "Well-Known Labels, Annotations and Taints").
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Most policies that one advertisement may become.
const MAX_POLICIES: usize = 100;

/// What a policy says here; an empty selector is none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    service_selector: LabelSelector,
    node_selector: LabelSelector,
    /// Regular expressions, of which one has to match the name; all interfaces if empty.
    interfaces: Vec<String>,
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
        let selector = |it: &LabelSelector| Some(it.clone()).filter(|it| !is_empty(it));
        let spec = L2AnnouncementSpec {
            node_selector: selector(&self.spec.node_selector),
            service_selector: selector(&self.spec.service_selector),
            load_balancer_ips: Some(self.spec.load_balancer_ips),
            external_ips: None,
            interfaces: Some(self.spec.interfaces.clone()).filter(|it| !it.is_empty()),
        };
        json!({
            "apiVersion": "cilium.io/v2alpha1",
            "kind": "CiliumL2AnnouncementPolicy",
            "metadata": {"name": self.name},
            "spec": spec,
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
            let meaning = "none of its pools is in what was given, so there is no policy for it";
            notes.push(Note::new(
                &advertisement.at,
                meaning,
                "give the pools to the converter together with it",
            ));
            continue;
        }
        announced.extend(chosen.iter().map(|pool| pool.name.as_str()));
        preferred(advertisement, notes);
        let of_pools = of_pools(advertisement, &chosen, pools, notes);
        let specs = specs(advertisement, &of_pools, options)?;
        let is_one = specs.len() == 1;
        for spec in specs {
            let name = free_name(&advertisement.name, is_one, &policies);
            policies.push(Policy { name, spec });
        }
    }
    unannounced(input, &announced, notes);
    Ok(policies)
}

/// Pools that an advertisement is for: those that it names, and those that one of its selectors matches; without both, all.
fn chosen<'p>(
    advertisement: &Advertisement,
    input: &Input,
    pools: &'p [Pool],
    notes: &mut Vec<Note>,
) -> Vec<&'p Pool> {
    let Advertisement { pools: names, pool_selectors, .. } = advertisement;
    if names.is_empty() && pool_selectors.is_empty() {
        return pools.iter().collect();
    }
    for name in names.iter().filter(|name| !pools.iter().any(|pool| pool.name == **name)) {
        let at = advertisement.at.field("spec.ipAddressPools");
        let meaning = format!("the pool {name:?} is not in what was given");
        notes.push(Note::new(&at, meaning, "give it to the converter, too, or take its name out"));
    }
    // They were checked when they were read.
    let selectors: Vec<Selector> = pool_selectors.iter().filter_map(|it| Selector::parse(it).ok()).collect();
    let is_selected = |pool: &input::Pool| {
        let labels: Labels = pool.labels.iter().map(|(key, value)| Label::k8s(key, value)).collect();
        names.contains(&pool.name) || selectors.iter().any(|selector| selector.matches(&labels))
    };
    let selected: BTreeSet<&str> =
        input.pools.iter().filter(|pool| is_selected(pool)).map(|pool| pool.name.as_str()).collect();
    pools.iter().filter(|pool| selected.contains(pool.name.as_str())).collect()
}

fn preferred(advertisement: &Advertisement, notes: &mut Vec<Note>) {
    if advertisement.prefers_nodes {
        let at = advertisement.at.field("spec.preferredNodeSelectors");
        let meaning = "no node is preferred: all that may announce an address are alike";
        let advice = "select only the preferred nodes in spec.nodeSelector, if the others are not needed";
        notes.push(Note::new(&at, meaning, advice));
    }
}

/// Services of the pools, as selectors of which one has to match.
fn of_pools(
    advertisement: &Advertisement,
    chosen: &[&Pool],
    pools: &[Pool],
    notes: &mut Vec<Note>,
) -> Vec<LabelSelector> {
    let is_chosen = |pool: &Pool| chosen.iter().any(|other| other.name == pool.name);
    let others: Vec<&str> =
        pools.iter().filter(|pool| !is_chosen(pool)).map(|pool| pool.name.as_str()).collect();
    if others.is_empty() {
        return vec![LabelSelector::default()];
    }
    let selectors: Vec<LabelSelector> = chosen.iter().map(|pool| pool.selector.clone()).collect();
    let selectors = any_of(&selectors);
    let others = others.join(", ");
    let (what, advice) = if selectors.iter().any(is_empty) {
        (
            format!("as one of these pools is for all Services, addresses of {others} are announced, too"),
            "if that matters, give Services a label and write it into spec.serviceSelector",
        )
    } else {
        (
            format!("Services of these pools that have an address of {others} are announced with it, too"),
            "if that matters, see that no Service is selected by both",
        )
    };
    let at = advertisement.at.field("spec.ipAddressPools");
    notes.push(Note::new(&at, format!("a policy selects Services, not pools; {what}"), advice));
    selectors
}

/// One policy for each combination of alternatives.
fn specs(
    advertisement: &Advertisement,
    of_pools: &[LabelSelector],
    options: &Options,
) -> Result<Vec<Spec>, Error> {
    let services = any_of(&advertisement.service_selectors);
    let nodes = any_of(&advertisement.node_selectors);
    if services.len().saturating_mul(of_pools.len()).saturating_mul(nodes.len()) > MAX_POLICIES {
        return Err(advertisement.at.field("spec").fail(format!(
            "its selectors would make more than {MAX_POLICIES} policies; use fewer, on one label each"
        )));
    }
    let moved = options.moved_label.as_ref().map(|(key, value)| label(key, value)).unwrap_or_default();
    let excluded = if options.ignore_exclude_lb { LabelSelector::default() } else { without(EXCLUDED) };
    let interfaces: Vec<String> = advertisement.interfaces.iter().map(|name| exactly(name)).collect();
    let mut specs = Vec::new();
    for service in &services {
        for of_pool in of_pools {
            specs.extend(nodes.iter().map(|node| Spec {
                service_selector: all_of([of_pool, service, &moved]),
                node_selector: all_of([node, &excluded]),
                interfaces: interfaces.clone(),
                load_balancer_ips: true,
            }));
        }
    }
    Ok(specs)
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
fn unannounced(input: &Input, announced: &BTreeSet<&str>, notes: &mut Vec<Note>) {
    for pool in input.pools.iter().filter(|pool| !announced.contains(pool.name.as_str())) {
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
