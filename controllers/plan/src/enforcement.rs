//! Which node needs which policy.

use std::collections::BTreeSet;

use cilium_api::parts::PartKey;
use cilium_core::reserved;
use cilium_policy::PolicyKey;

use crate::compiled::{Compiled, host, place};
use crate::endpoints::endpoint_key;
use crate::names::PodName;
use crate::node::Token;
use crate::nodes::Entry;
use crate::planner::Planner;

/// Where a node finds the policy of an identity; its own is that of the host.
pub(crate) fn policy_part(number: u32) -> PartKey {
    PartKey::policy(if reserved::is_node_host(number) { reserved::HOST } else { number })
}

impl Planner {
    /// A node has one more endpoint with an identity.
    pub(crate) fn join(&mut self, number: u32, node: &str) {
        let Some(known) = self.identities.get_mut(number) else { return };
        let count = known.nodes.entry(node.to_owned()).or_default();
        *count += 1;
        let is_first = *count == 1;
        let is_first_of_all = is_first && known.nodes.len() == 1;
        let selecting = self.policies.index.selecting(number);
        if is_first {
            self.put_policy_part(number, node);
            for key in &selecting {
                self.node_mut(node).state.await_token(Token::Policy(key.clone()));
            }
        }
        self.touch_statuses(&selecting);
        if is_first_of_all {
            self.touch_peers_of(number);
        }
    }

    /// A node has one endpoint less with an identity.
    pub(crate) fn leave(&mut self, number: u32, node: &str) {
        let Some(known) = self.identities.get_mut(number) else { return };
        let count = known.nodes.entry(node.to_owned()).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            known.nodes.remove(node);
            let was_last_of_all = known.nodes.is_empty();
            if was_last_of_all {
                known.compiled = [None, None];
                self.touch_peers_of(number);
            }
            self.node_mut(node).state.set(&policy_part(number), None);
        }
        let selecting = self.policies.index.selecting(number);
        self.touch_statuses(&selecting);
    }

    /// Gives a node the policy of an identity that it has endpoints of. One that is about to be compiled comes with that.
    fn put_policy_part(&mut self, number: u32, node: &str) {
        if self.policies.index.is_affected(number) {
            return;
        }
        let host = host(self.nodes.get(node).is_some_and(|entry| entry.api_server));
        let Some(known) = self.identities.get_mut(number) else { return };
        let compiled = known.compiled[place(host)].get_or_insert_with(|| {
            self.policies.compilations += 1;
            Compiled::new(&self.policies.index, number, host)
        });
        let text = compiled.text.clone();
        self.node_mut(node).state.set_text(&policy_part(number), text);
    }

    /// Compiles what the changes since the last plan can have affected.
    pub(crate) fn follow_policies(&mut self) {
        for key in std::mem::take(&mut self.policies.changed) {
            let identities = self.policies.index.selected(&key);
            for node in self.nodes_with(&identities) {
                self.node_mut(&node).state.await_token(Token::Policy(key.clone()));
            }
            self.touch_status(&key);
        }
        for number in self.policies.index.take_affected() {
            self.recompile(number);
        }
    }

    /// Nodes that have endpoints of any of the identities.
    pub(crate) fn nodes_with(&self, identities: &BTreeSet<u32>) -> BTreeSet<String> {
        let known = identities.iter().filter_map(|number| self.identities.get(*number));
        known.flat_map(|known| known.nodes.keys().cloned()).collect()
    }

    fn recompile(&mut self, number: u32) {
        let Some(known) = self.identities.get(number) else { return };
        let nodes: Vec<String> = known.nodes.keys().cloned().collect();
        let (with, without): (Vec<&String>, Vec<&String>) =
            nodes.iter().partition(|name| self.is_api_server(name));
        self.recompile_for(number, false, &without);
        self.recompile_for(number, true, &with);
    }

    fn is_api_server(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|entry| entry.api_server)
    }

    fn recompile_for(&mut self, number: u32, api_server: bool, nodes: &[&String]) {
        let host = host(api_server);
        let Some(known) = self.identities.get_mut(number) else { return };
        let before = known.compiled[place(host)].take();
        if nodes.is_empty() {
            return;
        }
        self.policies.compilations += 1;
        let after = Compiled::new(&self.policies.index, number, host);
        let enforcement = |it: &Compiled| (it.ingress, it.egress);
        // Denials may cover what another policy allows, and questions make known what another one names.
        let for_others = |it: &Compiled| (it.denials, it.heard);
        let is_new_for_others = before.as_ref().map_or((0, false), for_others) != for_others(&after);
        let is_flipped = before.as_ref().map(enforcement) != Some(enforcement(&after));
        let (text, shares) = (after.text.clone(), after.changed_since(before.as_ref()));
        known.compiled[place(host)] = Some(after);
        self.touch_statuses(&shares);
        if is_new_for_others {
            let selecting = self.policies.index.selecting(number);
            self.touch_statuses(&selecting);
        }
        for node in nodes {
            let state = &mut self.node_mut(node).state;
            state.set_text(&policy_part(number), text.clone());
            shares.iter().for_each(|key| state.await_token(Token::Policy(key.clone())));
            if is_flipped {
                self.touch_endpoints_of(number, node);
            }
        }
    }

    /// A node began or ceased to run an API server.
    pub(crate) fn put_all_policy_parts(&mut self, node: &str) {
        let Some(entry) = self.nodes.get(node) else { return };
        for number in self.identities_on(entry) {
            self.put_policy_part(number, node);
            let selecting = self.policies.index.selecting(number);
            for key in &selecting {
                self.node_mut(node).state.await_token(Token::Policy(key.clone()));
            }
            self.touch_statuses(&selecting);
            self.touch_endpoints_of(number, node);
        }
    }

    /// Identities of the endpoints of a node, and that of the node itself where policies can select it.
    pub(crate) fn identities_on(&self, entry: &Entry) -> BTreeSet<u32> {
        let endpoints = entry.pods.iter().filter_map(|name| self.endpoints.all.get(name));
        endpoints.filter_map(|endpoint| endpoint.published).chain(entry.host).collect()
    }

    /// Policies that select endpoints of a node.
    pub(crate) fn policies_on(&self, entry: &Entry) -> BTreeSet<PolicyKey> {
        let identities = self.identities_on(entry).into_iter();
        identities.flat_map(|number| self.policies.index.selecting(number)).collect()
    }

    fn touch_endpoints_of(&mut self, number: u32, node: &str) {
        let Some(entry) = self.nodes.get(node) else { return };
        let has_identity =
            |name: &&PodName| self.endpoints.all.get(*name).is_some_and(|e| e.published == Some(number));
        for name in entry.pods.iter().filter(has_identity) {
            self.reports.endpoints.touch(endpoint_key(name));
        }
    }
}
