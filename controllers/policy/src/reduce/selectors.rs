//! Selectors of policies, completed with the namespace and cluster that they imply.

use cilium_api::rule::Rule as ApiRule;
use cilium_api::selector::EndpointSelector;
use cilium_core::pod::{CLUSTER, NAMESPACE, NAMESPACE_LABELS};
use cilium_core::{Peers, Requirement, Selector, Source, reserved};

use super::Settings;
use crate::invalid::{Invalid, Path};

/// Where a policy applies.
pub(super) struct Scope<'a> {
    /// Namespace of the policy; `None` for a policy of the whole cluster.
    pub(super) namespace: Option<&'a str>,
    pub(super) settings: Settings<'a>,
}

/// What peer selectors of a rule are completed from.
pub(super) struct PeerScope<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) subject: &'a Selector,
}

/// The selector of the endpoints that a rule is about.
pub(super) fn subject(scope: &Scope<'_>, path: &Path, api: &ApiRule) -> Result<Selector, Invalid> {
    match (&api.endpoint_selector, &api.node_selector) {
        (Some(selector), None) => endpoint_subject(scope, &path.field("endpointSelector"), selector),
        (None, Some(_)) if scope.namespace.is_some() => Err(path
            .field("nodeSelector")
            .malformed("nodes can only be selected by a CiliumClusterwideNetworkPolicy")),
        (None, Some(_)) if !scope.settings.host_firewall => {
            let path = path.field("nodeSelector");
            Err(path.disabled("a policy for nodes", "enable-host-firewall", "hostFirewall.enabled"))
        }
        (None, Some(selector)) => {
            let host = Requirement::exists(Source::RESERVED, "host");
            Ok(parse(&path.field("nodeSelector"), selector)?.and(host))
        }
        (Some(_), Some(_)) => Err(path.malformed("endpointSelector and nodeSelector exclude each other")),
        (None, None) => Err(path.malformed("endpointSelector or nodeSelector must be given")),
    }
}

/// A policy of a namespace selects there and nowhere else, even if its selector names another one.
fn endpoint_subject(
    scope: &Scope<'_>,
    path: &Path,
    selector: &EndpointSelector,
) -> Result<Selector, Invalid> {
    let Some(namespace) = scope.namespace else {
        return parse(path, selector);
    };
    let mut selector = selector.clone();
    if let Some(labels) = &mut selector.match_labels {
        labels.remove(&format!("{}:{NAMESPACE}", Source::K8S));
    }
    Ok(parse(path, &selector)?.and(Requirement::equals(Source::K8S, NAMESPACE, namespace)))
}

/// The selector of a peer.
pub(super) fn peer(
    peers: &PeerScope<'_>,
    path: &Path,
    selector: &EndpointSelector,
) -> Result<Selector, Invalid> {
    let parsed = parse(path, selector)?;
    if has(&parsed, |r| r.source == Source::RESERVED) {
        return Ok(parsed);
    }
    let in_namespace = match namespace_requirement(peers, &parsed) {
        Some(requirement) => parsed.and(requirement),
        None => parsed,
    };
    if has_kubernetes_key(&in_namespace, |key| key == CLUSTER) {
        return Ok(in_namespace);
    }
    Ok(in_namespace.and(Requirement::equals(Source::K8S, CLUSTER, peers.scope.settings.cluster)))
}

/// The selector of other nodes of the local cluster, by their labels. Never the node that a policy is in force on.
pub(super) fn node(
    peers: &PeerScope<'_>,
    path: &Path,
    selector: &EndpointSelector,
) -> Result<Selector, Invalid> {
    let cluster = Requirement::equals(Source::K8S, CLUSTER, peers.scope.settings.cluster);
    let remote = Requirement::exists(Source::RESERVED, "remote-node");
    Ok(parse(path, selector)?.and(cluster).and(remote))
}

/// The peers that a completed selector stands for: where it takes all pods of the cluster, their aggregate too.
pub(super) fn peers(scope: &PeerScope<'_>, selector: Selector) -> Peers {
    let cluster = Requirement::equals(Source::K8S, CLUSTER, scope.scope.settings.cluster);
    let all_pods: Selector = [Requirement::exists(Source::K8S, NAMESPACE), cluster].into_iter().collect();
    let aggregate = reserved::aggregate(reserved::AGGREGATE_CLUSTER).filter(|_| selector == all_pods);
    Peers::Selected([selector].into_iter().chain(aggregate).collect())
}

fn namespace_requirement(peers: &PeerScope<'_>, peer: &Selector) -> Option<Requirement> {
    if has_kubernetes_key(peer, |key| key == NAMESPACE) {
        return None;
    }
    match peers.scope.namespace {
        Some(_) if has_kubernetes_key(peer, |key| key.starts_with(NAMESPACE_LABELS)) => None,
        Some(namespace) => Some(Requirement::equals(Source::K8S, NAMESPACE, namespace)),
        // Endpoints without labels yet have no namespace: a rule about them may mean peers like them.
        None if has(peers.subject, |r| r.source == Source::RESERVED && &*r.key == "init") => None,
        None => Some(Requirement::exists(Source::K8S, NAMESPACE)),
    }
}

fn has_kubernetes_key(selector: &Selector, wanted: impl Fn(&str) -> bool) -> bool {
    has(selector, |r| r.source.covers(&Source::K8S) && wanted(&r.key))
}

fn has(selector: &Selector, wanted: impl Fn(&Requirement) -> bool) -> bool {
    selector.requirements().iter().any(wanted)
}

/// A selector as it was written.
pub(super) fn parse(path: &Path, selector: &EndpointSelector) -> Result<Selector, Invalid> {
    Selector::parse(selector).map_err(|error| path.field(&error.path).malformed(error.reason))
}
