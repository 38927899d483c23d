//! Builders that the tests share.

use std::collections::BTreeMap;

use cilium_api::parts::Policy;
use cilium_api::rule::Rule;
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use cilium_core::{Families, Labels};
use cilium_policy::{
    Config, Flow, Host, Invalid, Mode, PolicyIndex, PolicyKey, PolicyRules, reduce, verdict,
};
use serde_json::Value;

pub(crate) const CLUSTER: &str = "kind";
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

pub(crate) fn mk_rule(spec: Value) -> Rule {
    serde_json::from_value(spec).unwrap()
}

pub(crate) fn mk_cnp(namespace: &str, rules: Vec<Rule>) -> CiliumNetworkPolicy {
    let mut policy = CiliumNetworkPolicy { specs: Some(rules), ..CiliumNetworkPolicy::default() };
    policy.metadata.namespace = Some(namespace.into());
    policy
}

pub(crate) fn mk_ccnp(rules: Vec<Rule>) -> CiliumClusterwideNetworkPolicy {
    CiliumClusterwideNetworkPolicy { specs: Some(rules), ..CiliumClusterwideNetworkPolicy::default() }
}

/// Reduces one `spec` of a CiliumNetworkPolicy in namespace `default`.
pub(crate) fn reduce_spec(spec: Value) -> Result<PolicyRules, Invalid> {
    let mut policy = mk_cnp("default", Vec::new());
    policy.specs = None;
    policy.spec = Some(mk_rule(spec));
    reduce::cnp(&policy, CLUSTER)
}

/// The same of a CiliumClusterwideNetworkPolicy.
pub(crate) fn reduce_clusterwide(spec: Value) -> Result<PolicyRules, Invalid> {
    reduce::ccnp(&mk_ccnp(vec![mk_rule(spec)]), CLUSTER)
}

/// Labels of a pod in `namespace` with labels of its own.
pub(crate) fn mk_labels(namespace: &str, own: &[&str]) -> Labels {
    let implied = [
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        format!("k8s:io.cilium.k8s.policy.cluster={CLUSTER}"),
    ];
    Labels::parse(own.iter().map(|label| format!("k8s:{label}")).chain(implied)).unwrap()
}

/// An index with pods in namespace `default` unless the name of the pod says `namespace/...`.
pub(crate) fn mk_index(identities: &[(u32, &str, &[&str])]) -> PolicyIndex {
    let mut index = PolicyIndex::new(Config { families: Families::Dual, mode: Mode::Default });
    for (number, namespace, own) in identities {
        index.set_identity(*number, Some(mk_labels(namespace, own)));
    }
    index.take_affected();
    index
}

pub(crate) fn mk_key(name: &str) -> PolicyKey {
    PolicyKey::cnp("default", name)
}

/// Every compiled policy of an index, for plain nodes.
pub(crate) fn compile_all(index: &PolicyIndex, numbers: &[u32]) -> BTreeMap<u32, Policy> {
    let compiled = numbers.iter().map(|number| (*number, index.compile(*number, Host::Plain)));
    compiled.filter_map(|(number, policy)| Some((number, policy?))).collect()
}

/// Whether a flow passes, by what the index compiles for both ends.
pub(crate) fn passes(index: &PolicyIndex, source: u32, destination: u32, protocol: u8, port: u16) -> bool {
    let policies = compile_all(index, &[source, destination]);
    verdict(&policies, &Flow { source, destination, protocol, destination_port: port, addresses: None })
        .allowed()
}

/// Ingress entries of an identity that policies allow, as `(peer, protocol, first, last)`; `None` without default deny.
pub(crate) fn ingress_of(index: &PolicyIndex, number: u32) -> Option<Vec<(u32, u8, u16, u16)>> {
    let ingress = index.compile(number, Host::Plain)?.ingress;
    let said = ingress.allow.iter().filter(|allow| !allow.origins.is_empty());
    let entries = said.map(|allow| (allow.peer, allow.protocol, allow.first, allow.last));
    ingress.enforced.then(|| entries.collect())
}
