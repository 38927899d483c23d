//! What the operator may do. The manifests are generated from here, so a right that is not in this table does not exist.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cilium_api::l2_announcement_policy::HEARTBEAT_SECRET;
use cilium_runtime::object::Resource;

use crate::kinds::{self, Written};

/// Name of the Lease that operators compete for.
pub const LEASE: &str = "cilium-operator-resource-lock";

/// A rule of a Role or ClusterRole (rbac.authorization.k8s.io/v1 PolicyRule).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
    verbs: Vec<&'static str>,
}

impl Rule {
    fn new(group: &str, resource: &str, verbs: &[&'static str]) -> Self {
        Self {
            group: group.to_owned(),
            resources: vec![resource.to_owned()],
            names: Vec::new(),
            verbs: verbs.to_vec(),
        }
    }

    fn named(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }
}

/// Rules that hold in the whole cluster.
pub fn cluster_rules() -> Vec<Rule> {
    let mut rules = merge(kinds::ALL.into_iter().filter(|kind| !is_confined(*kind)).flat_map(rules_of));
    rules.push(Rule::new(kinds::EVENTS.group, kinds::EVENTS.plural, &["create"]));
    let (group, crds) = ("apiextensions.k8s.io", "customresourcedefinitions");
    let names = cilium_api::all().into_iter().filter_map(|crd| crd.metadata.name);
    rules.push(Rule::new(group, crds, &["create"]));
    rules.push(Rule::new(group, crds, &["get", "update"]).named(names));
    let webhooks =
        Rule::new("admissionregistration.k8s.io", "validatingwebhookconfigurations", &["get", "patch"]);
    rules.push(webhooks.named([cilium_admission::NAME.to_owned()]));
    rules
}

/// Rules that hold in the operator's own namespace.
pub fn namespace_rules() -> Vec<Rule> {
    let (group, leases) = ("coordination.k8s.io", "leases");
    let (discovery, slices) = ("discovery.k8s.io", "endpointslices");
    let of_webhook = cilium_admission::register::SLICES.map(str::to_owned);
    vec![
        Rule::new(group, leases, &["create"]),
        Rule::new(group, leases, &["get", "update"]).named([LEASE.to_owned()]),
        Rule::new(discovery, slices, &["create"]),
        Rule::new(discovery, slices, &["get", "patch"]).named(of_webhook),
    ]
}

/// Rules that hold there where agents need a key for heartbeats. A new object cannot be named in a rule, so any Secret may be created, but
/// only this one read.
pub fn heartbeat_rules() -> Vec<Rule> {
    let secrets = |verbs| Rule::new("", "secrets", verbs);
    vec![secrets(&["create"]), secrets(&["get", "watch"]).named([HEARTBEAT_SECRET.to_owned()])]
}

/// Rules that hold in the namespace for secrets of BGP: which there are. Kubernetes has no right to know that without what is in them; the
/// operator asks for metadata only.
pub fn bgp_secret_rules() -> Vec<Rule> {
    rules_of(cilium_plan::Kind::Secret)
}

/// Whether a kind is of interest in one namespace only.
fn is_confined(kind: cilium_plan::Kind) -> bool {
    kind == cilium_plan::Kind::Secret
}

fn rules_of(kind: cilium_plan::Kind) -> Vec<Rule> {
    let (Resource { group, plural, .. }, written) = kinds::describe(kind);
    let status = |verbs: &[&'static str]| Rule::new(group, &format!("{plural}/status"), verbs);
    let object = |verbs: &[&'static str]| Rule::new(group, plural, verbs);
    match written {
        Written::Nothing => vec![object(&["list", "watch"])],
        // get: an object that is not as expected is read again.
        Written::Status => vec![object(&["get", "list", "watch"]), status(&["patch"])],
        Written::Content => vec![object(&["get", "list", "watch", "patch"]), status(&["patch"])],
        Written::All => vec![object(&["get", "list", "watch", "create", "patch", "delete"])],
        Written::AllAndStatus => {
            vec![object(&["get", "list", "watch", "create", "patch", "delete"]), status(&["patch", "update"])]
        }
    }
}

/// Joins rules that differ only in their resource.
fn merge(rules: impl Iterator<Item = Rule>) -> Vec<Rule> {
    let mut merged: BTreeMap<(String, Vec<&'static str>), Rule> = BTreeMap::new();
    for rule in rules {
        let key = (rule.group.clone(), rule.verbs.clone());
        match merged.get_mut(&key) {
            Some(known) => known.resources.extend(rule.resources),
            None => drop(merged.insert(key, rule)),
        }
    }
    merged.into_values().collect()
}

/// The rules as the list that stands under `rules:` in YAML.
pub fn to_yaml(rules: &[Rule]) -> String {
    let mut text = String::new();
    for rule in rules {
        write_list(&mut text, "- apiGroups", [rule.group.as_str()]);
        write_list(&mut text, "  resources", rule.resources.iter().map(String::as_str));
        if !rule.names.is_empty() {
            write_list(&mut text, "  resourceNames", rule.names.iter().map(String::as_str));
        }
        write_list(&mut text, "  verbs", rule.verbs.iter().copied());
    }
    text
}

fn write_list<'a>(text: &mut String, key: &str, values: impl IntoIterator<Item = &'a str>) {
    let quoted: Vec<String> = values.into_iter().map(|value| format!("\"{value}\"")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key}: [{}]", quoted.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(rules: &[Rule], group: &str, resource: &str, verb: &str) -> bool {
        rules.iter().any(|rule| {
            rule.group == group
                && rule.resources.iter().any(|known| known == resource)
                && rule.verbs.contains(&verb)
        })
    }

    #[test]
    fn what_is_watched_may_be_listed_and_watched() {
        let rules = cluster_rules();
        for kind in kinds::ALL {
            let (resource, _) = kinds::describe(kind);
            for verb in ["list", "watch"] {
                let rules = if is_confined(kind) { &bgp_secret_rules() } else { &rules };
                assert!(allows(rules, resource.group, resource.plural, verb), "{kind:?} {verb}");
            }
        }
    }

    #[test]
    fn users_objects_are_read_only_but_for_their_status() {
        let rules = cluster_rules();
        for verb in ["create", "update", "patch", "delete", "deletecollection", "*"] {
            for (group, resource) in [
                ("", "pods"),
                ("", "namespaces"),
                ("", "services"),
                ("discovery.k8s.io", "endpointslices"),
                ("networking.k8s.io", "networkpolicies"),
                ("cilium.io", "ciliumnetworkpolicies"),
                ("cilium.io", "ciliumclusterwidenetworkpolicies"),
                ("cilium.io", "ciliuml2announcementpolicies"),
                ("cilium.io", "ciliumbgpclusterconfigs"),
                ("cilium.io", "ciliumbgppeerconfigs"),
                ("cilium.io", "ciliumbgpadvertisements"),
                ("cilium.io", "ciliumbgpnodeconfigoverrides"),
                ("cilium.io", "ciliumbgpnodeconfigs/status"),
            ] {
                assert!(!allows(&rules, group, resource, verb), "{resource} {verb}");
            }
        }
        assert!(allows(&rules, "cilium.io", "ciliumnetworkpolicies/status", "patch"));
        assert!(allows(&rules, "cilium.io", "ciliuml2announcementpolicies/status", "patch"));
        assert!(allows(&rules, "", "nodes/status", "patch"));
        assert!(allows(&rules, "", "services/status", "patch"));
    }

    #[test]
    fn nothing_is_wildcarded_and_no_secret_is_read() {
        for rule in cluster_rules().into_iter().chain(namespace_rules()) {
            let mut words = rule.resources.iter().map(String::as_str).chain([rule.group.as_str()]);
            assert!(words.all(|word| word != "*" && word != "secrets"), "{rule:?}");
        }
    }

    #[test]
    fn of_secrets_one_may_be_read_and_none_changed() {
        let expected = "- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  verbs: [\"create\"]\n\
            - apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  resourceNames: [\"cilium-l2-heartbeat\"]\n  \
            verbs: [\"get\", \"watch\"]\n";
        assert_eq!(to_yaml(&heartbeat_rules()), expected);
    }

    #[test]
    fn secrets_of_bgp_are_listed_and_watched() {
        let expected = "- apiGroups: [\"\"]\n  resources: [\"secrets\"]\n  verbs: [\"list\", \"watch\"]\n";
        assert_eq!(to_yaml(&bgp_secret_rules()), expected);
    }

    #[test]
    fn nothing_is_replaced_but_our_definitions_and_the_state_of_nodes() {
        let rules = cluster_rules();
        let update: Vec<_> = rules.iter().filter(|rule| rule.verbs.contains(&"update")).collect();
        let resources: Vec<_> = update.iter().flat_map(|rule| &rule.resources).collect();
        assert_eq!(resources, ["ciliumnodestates/status", "customresourcedefinitions"]);
        assert!(update[1].names.iter().all(|name| name.ends_with(".cilium.io")));
        assert_eq!(update[1].names.len(), cilium_api::all().len());
    }

    #[test]
    fn the_text_is_a_yaml_list_of_rules() {
        let text = to_yaml(&namespace_rules());
        let expected = "- apiGroups: [\"coordination.k8s.io\"]\n  resources: [\"leases\"]\n  verbs: [\"create\"]\n\
            - apiGroups: [\"coordination.k8s.io\"]\n  resources: [\"leases\"]\n  \
            resourceNames: [\"cilium-operator-resource-lock\"]\n  verbs: [\"get\", \"update\"]\n\
            - apiGroups: [\"discovery.k8s.io\"]\n  resources: [\"endpointslices\"]\n  verbs: [\"create\"]\n\
            - apiGroups: [\"discovery.k8s.io\"]\n  resources: [\"endpointslices\"]\n  \
            resourceNames: [\"cilium-webhook-ipv4\", \"cilium-webhook-ipv6\"]\n  verbs: [\"get\", \"patch\"]\n";
        assert_eq!(text, expected);
    }
}
