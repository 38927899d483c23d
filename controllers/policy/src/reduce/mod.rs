//! Reduction of policy objects to [`PolicyRules`]; the only place where policies are validated.
//!
//! # Guarantees
//! Of policies of our own kinds: whatever is not understood or cannot be enforced refuses the whole policy, with the path of the field. A rule never
//! grants more than the object says because a part of it was left out.
//!
//! # Errors
//! The first reason found, in the order of the object.

mod clusternetpol;
mod entry;
mod icmp;
mod names;
mod netpol;
mod ports;
mod prefixes;
mod selectors;
mod services;

use cilium_api::parts::Note;
use cilium_api::rule::{DefaultDeny, Rule as ApiRule, RuleLabel};
use cilium_api::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};

use crate::invalid::{Invalid, Path};
use crate::key::PolicyKey;
use crate::rules::{PolicyRules, Rule, Section, Traffic};
pub use clusternetpol::{clusternetpol, clusternetpol_key};
use entry::Entry;
pub use netpol::{netpol, netpol_key};
use selectors::Scope;

/// Namespace of an object whose metadata names none.
const DEFAULT_NAMESPACE: &str = "default";

/// What the meaning of a policy depends on beside the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings<'a> {
    /// Name of the local cluster.
    pub cluster: &'a str,
    /// Nodes have identities of their own, so that policies can name them by their labels.
    pub node_selector_labels: bool,
    /// Policies may select nodes, whose own traffic is enforced then.
    pub host_firewall: bool,
}

/// A cluster of this name, with all else as it is by default.
impl<'a> From<&'a str> for Settings<'a> {
    fn from(cluster: &'a str) -> Self {
        Self { cluster, ..Self::default() }
    }
}

/// A cluster of this name, with all else as it is by default.
impl<'a> From<&'a String> for Settings<'a> {
    fn from(cluster: &'a String) -> Self {
        cluster.as_str().into()
    }
}

/// Reduces a CiliumNetworkPolicy.
///
/// # Errors
/// The policy cannot be valid, or asks for something that this version does not enforce, or that the settings leave off.
pub fn cnp<'a>(
    policy: &'a CiliumNetworkPolicy,
    settings: impl Into<Settings<'a>>,
) -> Result<PolicyRules, Invalid> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let scope = Scope { namespace: Some(namespace), settings: settings.into() };
    policy_rules(&scope, policy.spec.as_ref(), policy.specs.as_deref())
}

/// Reduces a CiliumClusterwideNetworkPolicy.
///
/// # Errors
/// As [`cnp`].
pub fn ccnp<'a>(
    policy: &'a CiliumClusterwideNetworkPolicy,
    settings: impl Into<Settings<'a>>,
) -> Result<PolicyRules, Invalid> {
    let scope = Scope { namespace: None, settings: settings.into() };
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
    let DefaultDeny { ingress: close_ingress, egress: close_egress } =
        api.enable_default_deny.clone().unwrap_or_default();
    let peers = selectors::PeerScope { scope, subject: &subject };
    let ingress = section(
        traffic(&peers, &path.field("ingress"), &api.ingress)?,
        traffic(&peers, &path.field("ingressDeny"), &api.ingress_deny)?,
        close_ingress,
    );
    let egress = section(
        traffic(&peers, &path.field("egress"), &api.egress)?,
        traffic(&peers, &path.field("egressDeny"), &api.egress_deny)?,
        close_egress,
    );
    check_size(&path.field("ingress"), ingress.as_ref())?;
    check_size(&path.field("egress"), egress.as_ref())?;
    let nodes = api.node_selector.is_some();
    let asks = egress.iter().flat_map(|section| &section.allow).any(|traffic| traffic.questions.is_some());
    if nodes && asks {
        return Err(path.field("egress").unsupported("a rule for DNS questions of a node"));
    }
    Ok(Rule { path: path.clone().into(), note: note(api), subject, nodes, ingress, egress })
}

/// Most entries of a direction of a rule, peers by ports: an endpoint's whole policy travels to nodes in one object.
const MAX_ENTRIES: usize = 40_000;

fn check_size(path: &Path, section: Option<&Section>) -> Result<(), Invalid> {
    let all = section.into_iter().flat_map(|section| section.allow.iter().chain(&section.deny));
    let entries: usize = all
        .map(|it| it.peers.selectors().len().max(1) * (it.ports.len() + it.named.len()))
        .fold(0, usize::saturating_add);
    if entries > MAX_ENTRIES {
        let what =
            format!("a direction with {entries} entries (peers by ports) of {MAX_ENTRIES} that are possible");
        return Err(path.unsupported(what));
    }
    Ok(())
}

/// What a rule says of itself. The source of a label that names none is `unspec`.
fn note(api: &ApiRule) -> Note {
    let log = api.log.as_ref().and_then(|log| log.value.clone()).unwrap_or_default();
    let label = |label: &RuleLabel| {
        let source = label.source.as_deref().filter(|source| !source.is_empty()).unwrap_or("unspec");
        match label.value.as_deref().unwrap_or_default() {
            "" => format!("{source}:{}", label.key),
            value => format!("{source}:{}={value}", label.key),
        }
    };
    Note { log, labels: api.labels.iter().flatten().map(label).collect() }
}

/// What a list of entries is about; `None` for a list that is absent or empty.
fn traffic<'a, T>(
    peers: &selectors::PeerScope<'_>,
    path: &Path,
    list: &'a Option<Vec<T>>,
) -> Result<Option<Vec<Traffic>>, Invalid>
where
    Entry<'a>: From<&'a T>,
{
    let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { return Ok(None) };
    let mut all = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        all.extend(Entry::from(entry).traffic(peers, &path.index(index))?);
    }
    Ok(Some(all))
}

/// A direction without entries says nothing, whatever `enableDefaultDeny` says: that acts through entries, those that deny too.
fn section(
    allow: Option<Vec<Traffic>>,
    deny: Option<Vec<Traffic>>,
    default_deny: Option<bool>,
) -> Option<Section> {
    let says_something = allow.is_some() || deny.is_some();
    says_something.then(|| Section {
        default_deny: default_deny.unwrap_or(true),
        allow: allow.unwrap_or_default(),
        by_address: Vec::new(),
        deny: deny.unwrap_or_default(),
        ordered: None,
    })
}

fn check_sections(path: &Path, api: &ApiRule) -> Result<(), Invalid> {
    let entries =
        count(&api.ingress) + count(&api.egress) + count(&api.ingress_deny) + count(&api.egress_deny);
    if entries > 0 {
        return Ok(());
    }
    Err(path.malformed("at least one of ingress, ingressDeny, egress and egressDeny needs an entry"))
}

fn count<T>(list: &Option<Vec<T>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}
