//! Reduction of policy objects to [`PolicyRules`]; the only place where policies are validated.
//!
//! # Guarantees
//! Whatever is not understood or cannot be enforced refuses the whole policy, with the path of the field. A rule never
//! grants more than the object says because a part of it was left out.
//!
//! # Errors
//! The first reason found, in the order of the object.

mod entry;
mod ports;
mod selectors;

use cilium_api::rule::{DefaultDeny, Rule as ApiRule};
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};

use crate::invalid::{Invalid, Path};
use crate::key::PolicyKey;
use crate::rules::{PolicyRules, Rule, Section};
use entry::Entry;
use selectors::Scope;

/// Namespace of an object whose metadata names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Reduces a CiliumNetworkPolicy. `cluster` is the name of the local cluster.
///
/// # Errors
/// The policy cannot be valid, or asks for something that this version does not enforce.
pub fn cnp(policy: &CiliumNetworkPolicy, cluster: &str) -> Result<PolicyRules, Invalid> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let scope = Scope { namespace: Some(namespace), cluster };
    policy_rules(&scope, policy.spec.as_ref(), policy.specs.as_deref())
}

/// Reduces a CiliumClusterwideNetworkPolicy. `cluster` is the name of the local cluster.
///
/// # Errors
/// As [`cnp`].
pub fn ccnp(policy: &CiliumClusterwideNetworkPolicy, cluster: &str) -> Result<PolicyRules, Invalid> {
    let scope = Scope { namespace: None, cluster };
    policy_rules(&scope, policy.spec.as_ref(), policy.specs.as_deref())
}

/// Key of a CiliumNetworkPolicy.
pub fn cnp_key(policy: &CiliumNetworkPolicy) -> PolicyKey {
    let metadata = &policy.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    PolicyKey::cnp(namespace, metadata.name.as_deref().unwrap_or_default())
}

/// Key of a CiliumClusterwideNetworkPolicy.
pub fn ccnp_key(policy: &CiliumClusterwideNetworkPolicy) -> PolicyKey {
    PolicyKey::ccnp(policy.metadata.name.as_deref().unwrap_or_default())
}

fn policy_rules(
    scope: &Scope<'_>,
    spec: Option<&ApiRule>,
    specs: Option<&[ApiRule]>,
) -> Result<PolicyRules, Invalid> {
    let spec = spec.map(|rule| (Path::root("spec"), rule));
    let specs = specs.unwrap_or_default().iter().enumerate();
    let specs = specs.map(|(index, rule)| (Path::root("specs").index(index), rule));
    let rules = spec.into_iter().chain(specs);
    let rules = rules.map(|(path, api)| rule(scope, &path, api)).collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() {
        return Err(Path::root("spec").malformed("a policy needs spec, specs or both"));
    }
    Ok(PolicyRules { rules })
}

fn rule(scope: &Scope<'_>, path: &Path, api: &ApiRule) -> Result<Rule, Invalid> {
    let subject = selectors::subject(scope, path, api)?;
    check_sections(path, api)?;
    let (ingress_deny, egress_deny) = (count(&api.ingress_deny), count(&api.egress_deny));
    refuse_deny(path, "ingressDeny", ingress_deny)?;
    refuse_deny(path, "egressDeny", egress_deny)?;
    let ingress = api.ingress.iter().flatten().map(Entry::from).collect::<Vec<_>>();
    let egress = api.egress.iter().flatten().map(Entry::from).collect::<Vec<_>>();
    let default_deny = api.enable_default_deny.clone().unwrap_or_default();
    let DefaultDeny { ingress: deny_ingress, egress: deny_egress } = default_deny;
    let peers = selectors::PeerScope { scope, subject: &subject };
    let ingress = section(&peers, &path.field("ingress"), &ingress, deny_ingress)?;
    let egress = section(&peers, &path.field("egress"), &egress, deny_egress)?;
    Ok(Rule { subject, ingress, egress })
}

/// A direction without entries says nothing, whatever `enableDefaultDeny` says: that acts through entries.
fn section(
    peers: &selectors::PeerScope<'_>,
    path: &Path,
    entries: &[Entry<'_>],
    default_deny: Option<bool>,
) -> Result<Option<Section>, Invalid> {
    let mut allow = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        allow.extend(entry.grant(peers, &path.index(index))?);
    }
    let says_something = !entries.is_empty();
    Ok(says_something.then(|| Section { default_deny: default_deny.unwrap_or(true), allow }))
}

fn check_sections(path: &Path, api: &ApiRule) -> Result<(), Invalid> {
    let entries =
        count(&api.ingress) + count(&api.egress) + count(&api.ingress_deny) + count(&api.egress_deny);
    if entries > 0 {
        return Ok(());
    }
    Err(path.malformed("at least one of ingress, ingressDeny, egress and egressDeny needs an entry"))
}

fn refuse_deny(path: &Path, field: &str, entries: usize) -> Result<(), Invalid> {
    if entries == 0 { Ok(()) } else { Err(path.field(field).unsupported("a deny rule")) }
}

fn count<T>(list: &Option<Vec<T>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}
