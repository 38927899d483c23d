use std::net::IpAddr;

use cilium_core::{Label, Labels};
use cilium_services::redirect::Rule;

use crate::names::PodName;
use crate::object::ObjectKey;
use crate::planner::Planner;

/// A pod that a policy selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) addresses: Vec<IpAddr>,
    /// It takes connections.
    pub(super) is_ready: bool,
}

impl Planner {
    /// Makes the pods of policies follow those that changed. A new policy looks at all of its namespace.
    pub(super) fn follow_members(&mut self) {
        let changed = std::mem::take(&mut self.redirects.pods);
        let mut looks: Vec<(ObjectKey, PodName)> = Vec::new();
        for (object, redirect) in &mut self.redirects.all {
            if std::mem::take(&mut redirect.is_new) {
                let first = PodName::new(&object.namespace, "");
                let pods = self.pods.range(first..).map(|(name, _)| name);
                let pods = pods.take_while(|name| name.namespace == object.namespace);
                looks.extend(pods.map(|pod| (object.clone(), pod.clone())));
            }
        }
        for pod in changed {
            let policies = self.redirects.of_namespace(&pod.namespace);
            looks.extend(policies.into_iter().map(|object| (object, pod.clone())));
        }
        for (object, pod) in looks {
            self.look_at_member(&object, pod);
        }
    }

    fn look_at_member(&mut self, object: &ObjectKey, pod: PodName) {
        let Some(Ok(rule)) = self.redirects.all.get(object).map(|redirect| &redirect.rule) else { return };
        let found = self.member(rule, &pod);
        let Some(redirect) = self.redirects.all.get_mut(object) else { return };
        let old = redirect.places.get(&pod);
        let known = old.and_then(|node| Some((node, redirect.nodes.get(node)?.get(&pod)?)));
        if known == found.as_ref().map(|(node, member)| (node, member)) {
            return;
        }
        if let Some(node) = redirect.places.remove(&pod) {
            let members = redirect.nodes.entry(node.clone()).or_default();
            members.remove(&pod);
            if members.is_empty() {
                redirect.nodes.remove(&node);
            }
            redirect.dirty.insert(node);
        }
        if let Some((node, member)) = found {
            redirect.dirty.insert(node.clone());
            redirect.nodes.entry(node.clone()).or_default().insert(pod.clone(), member);
            redirect.places.insert(pod, node);
        }
    }

    /// The node of a pod that a policy selects, and what the policy has to know of it: only of pods that their node knows.
    fn member(&self, rule: &Rule, name: &PodName) -> Option<(String, Member)> {
        let pod = self.pods.get(name)?;
        let endpoint = self.endpoints.all.get(name).filter(|endpoint| endpoint.published.is_some())?;
        let labels: Labels = pod.labels.iter().map(|(key, value)| Label::k8s(key, value)).collect();
        let member = || Member { addresses: endpoint.addresses().collect(), is_ready: pod.is_ready };
        rule.selector.matches(&labels).then(|| (endpoint.node.clone(), member()))
    }

    /// The pods of a policy on a node, looked up one by one.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn members_on(
        &self,
        node: &str,
        redirect: &super::Redirect,
        namespace: &str,
    ) -> std::collections::BTreeMap<PodName, Member> {
        let Ok(rule) = &redirect.rule else { return std::collections::BTreeMap::new() };
        let pods = self.pods.keys().filter(|pod| pod.namespace == namespace);
        let found = pods.filter_map(|pod| Some((pod, self.member(rule, pod)?)));
        found.filter(|(_, (at, _))| at == node).map(|(pod, (_, member))| (pod.clone(), member)).collect()
    }
}
