//! CiliumLocalRedirectPolicies: which pods of each node stand in for an address or a Service.
//!
//! | module | what it decides |
//! |---|---|
//! | `frontends` | which addresses and ports a policy has, and who has them if several want them |
//! | `members` | which pods each policy has on each node |
//! | `status` | what its author is told |

mod frontends;
mod members;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cilium_api::local_redirect_policy::{CiliumLocalRedirectPolicy, LocalRedirectStatus};
use cilium_api::parts::{Part, PartKey, Redirect as RedirectPart, RedirectFrontend};
use cilium_services::redirect::{RedirectTarget, Rule};
use cilium_services::{Face, ServiceName};

use crate::ledger::Ledger;
use crate::names::PodName;
use crate::object::{Kind, ObjectKey};
use crate::planner::Planner;
use crate::policies::Refusal;

use frontends::{Hindrance, Mapping, check_settings};
use members::Member;
pub(crate) use status::advise;

/// All of these policies, and what they depend on.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    all: BTreeMap<ObjectKey, Redirect>,
    pub(crate) statuses: Ledger<LocalRedirectStatus>,
    /// Addresses and ports of Services.
    faces: BTreeMap<ServiceName, Face>,
    /// Who has an address.
    owners: BTreeMap<IpAddr, BTreeSet<ServiceName>>,
    /// Pods that may have come, gone or changed since the last plan.
    pods: BTreeSet<PodName>,
    /// Something that decides about frontends has changed.
    unresolved: bool,
}

/// A policy.
#[derive(Debug)]
pub(crate) struct Redirect {
    uid: String,
    /// 0 when the object has none.
    generation: i64,
    /// When it was made, in seconds since the epoch: the oldest of several has what they all want.
    created: i64,
    rule: Result<Rule, Refusal>,
    /// What leads where; decided anew whenever a policy or a Service changes.
    frontends: Result<Vec<Mapping>, Hindrance>,
    /// Pods that it selects, by node.
    nodes: BTreeMap<String, BTreeMap<PodName, Member>>,
    /// The node of each.
    places: BTreeMap<PodName, String>,
    /// Nodes whose part may have to change.
    dirty: BTreeSet<String>,
    /// No pod was looked at yet.
    is_new: bool,
}

/// Whether two versions are one, so that only metadata or status changed.
fn is_same(known: &Redirect, policy: &CiliumLocalRedirectPolicy) -> bool {
    let meta = &policy.metadata;
    meta.uid.as_ref() == Some(&known.uid) && meta.generation == Some(known.generation)
}

impl Redirect {
    /// The part of a node; `None` when the policy has nothing to say there.
    fn part(&self, node: &str) -> Option<RedirectPart> {
        let (Ok(rule), Ok(mappings)) = (&self.rule, &self.frontends) else { return None };
        let members = self.nodes.get(node)?;
        let frontends = mappings.iter().map(|mapping| frontend(mapping, members.values()));
        let mut frontends: Vec<_> = frontends.filter(|frontend| !frontend.backends.is_empty()).collect();
        if frontends.is_empty() {
            return None;
        }
        frontends.sort_unstable();
        let service = match &rule.target {
            RedirectTarget::Service(service) => service.name.clone(),
            RedirectTarget::Address(_) => String::new(),
        };
        let exempt = members.keys().filter(|_| rule.exempts_backends).map(|pod| pod.name.clone());
        Some(RedirectPart { matcher: rule.matcher(), service, frontends, exempt: exempt.collect() })
    }
}

fn frontend<'a>(mapping: &Mapping, members: impl Iterator<Item = &'a Member>) -> RedirectFrontend {
    let Mapping { address, protocol, port, backend_port } = *mapping;
    let addresses = members.filter(|member| member.is_ready).flat_map(|member| &member.addresses);
    let of_family = addresses.filter(|it| it.is_ipv4() == address.is_ipv4());
    let mut backends: Vec<_> = of_family.map(|it| (*it, backend_port)).collect();
    backends.sort_unstable();
    RedirectFrontend { address, protocol, port, backends }
}

fn part_key(object: &ObjectKey) -> PartKey {
    PartKey::redirect(&object.namespace, &object.name)
}

impl Planner {
    pub(crate) fn observe_redirect(&mut self, policy: &CiliumLocalRedirectPolicy) {
        let meta = &policy.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let object = ObjectKey::namespaced(Kind::LocalRedirectPolicy, namespace, name);
        let status = policy.status.clone().unwrap_or_default();
        let version = meta.resource_version.as_deref();
        let redirects = &mut self.redirects;
        if !redirects.statuses.observe(&object, status, version, None)
            || redirects.all.get(&object).is_some_and(|known| is_same(known, policy))
        {
            return;
        }
        let rule = Rule::reduce(policy).map_err(|invalid| frontends::malformed(&invalid));
        let rule = rule.and_then(|rule| check_settings(&rule, &self.config).map(|()| rule));
        let new = Redirect {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            created: meta.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            rule,
            frontends: Err(Hindrance::Undecided),
            nodes: BTreeMap::new(),
            places: BTreeMap::new(),
            dirty: BTreeSet::new(),
            is_new: true,
        };
        self.put_redirect(object, Some(new));
    }

    pub(crate) fn forget_redirect(&mut self, object: &ObjectKey) {
        self.redirects.statuses.forget(object);
        self.put_redirect(object.clone(), None);
    }

    fn put_redirect(&mut self, object: ObjectKey, new: Option<Redirect>) {
        let before = self.redirects.all.remove(&object);
        for node in before.iter().flat_map(|before| before.nodes.keys()) {
            self.node_mut(node).state.set(&part_key(&object), None);
        }
        self.redirects.unresolved = true;
        if let Some(new) = new {
            self.redirects.statuses.touch(object.clone());
            self.redirects.all.insert(object, new);
        }
    }

    /// A pod, or what its node knows of it, may have changed.
    pub(crate) fn touch_redirects_of(&mut self, pod: &PodName) {
        if self.config.local_redirects {
            self.redirects.pods.insert(pod.clone());
        }
    }

    /// Makes the parts of nodes follow policies, Services and pods.
    pub(crate) fn follow_redirects(&mut self) {
        self.follow_members();
        if std::mem::take(&mut self.redirects.unresolved) {
            self.resolve_frontends();
        }
        for (object, node, part) in self.redirects.take_parts() {
            self.redirects.statuses.touch(object.clone());
            self.node_mut(&node).state.set(&part_key(&object), part.map(Part::Redirect).as_ref());
        }
    }

    /// A node says something new about a part of such a policy.
    pub(crate) fn touch_redirect_report(&mut self, part: &str) {
        if let Some((namespace, name)) = part.strip_prefix("redirect/").and_then(|rest| rest.split_once('/'))
        {
            let object = ObjectKey::namespaced(Kind::LocalRedirectPolicy, namespace, name);
            self.redirects.statuses.touch(object);
        }
    }

    /// What every node is told of these policies, worked out without what is known from before.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn expected_redirects(&self, node: &str) -> BTreeMap<PartKey, RedirectPart> {
        let mut expected = BTreeMap::new();
        for (object, redirect) in &self.redirects.all {
            let members = self.members_on(node, redirect, &object.namespace);
            let fresh = Redirect {
                uid: String::new(),
                rule: redirect.rule.clone(),
                frontends: redirect.frontends.clone(),
                nodes: [(node.to_owned(), members)].into(),
                places: BTreeMap::new(),
                dirty: BTreeSet::new(),
                ..*redirect
            };
            expected.extend(fresh.part(node).map(|part| (part_key(object), part)));
        }
        expected
    }
}

impl Redirects {
    /// The policies of a namespace.
    fn of_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        let first = ObjectKey::namespaced(Kind::LocalRedirectPolicy, namespace, "");
        let all = self.all.range(first..).map(|(object, _)| object);
        all.take_while(|object| object.namespace == namespace).cloned().collect()
    }

    /// Parts that may have changed since the last call.
    fn take_parts(&mut self) -> Vec<(ObjectKey, String, Option<RedirectPart>)> {
        let mut parts = Vec::new();
        for (object, redirect) in &mut self.all {
            for node in std::mem::take(&mut redirect.dirty) {
                let part = redirect.part(&node);
                parts.push((object.clone(), node, part));
            }
        }
        parts
    }

    /// UID of a policy that is there.
    pub(crate) fn uid(&self, object: &ObjectKey) -> Option<&str> {
        Some(&self.all.get(object)?.uid)
    }
}
