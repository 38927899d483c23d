//! What people and other programs look at, and what of it may have changed.

use std::collections::BTreeSet;

use cilium_core::reserved::HOST;
use cilium_policy::PolicyKey;

use crate::endpoints::endpoint_key;
use crate::ledger::Ledger;
use crate::names::PodName;
use crate::node::Token;
use crate::object::Kind;
use crate::output::Report;
use crate::planner::Planner;
use crate::policies::object_key;
use crate::public_endpoint::Print;
use crate::status::Counts;

/// Books of what is reported, except of policies.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) endpoints: Ledger<Print>,
    pub(crate) nodes: Ledger<String>,
}

impl Planner {
    /// Everything that differs from what was reported.
    pub(crate) fn write_reports(&mut self, now: i64) -> Report {
        let endpoints = self.reports.endpoints.take_due();
        let nodes = self.reports.nodes.take_due();
        let policies = self.policies.statuses.take_due();
        let redirects = self.redirects.statuses.take_due();
        let mut counts = Counts::default();
        Report {
            endpoints: endpoints.iter().filter_map(|key| self.report_endpoint(key)).collect(),
            nodes: nodes.iter().filter_map(|key| self.report_node(key)).collect(),
            policies: policies.iter().filter_map(|key| self.report_policy(key, &mut counts, now)).collect(),
            redirects: redirects.iter().filter_map(|key| self.report_redirect(key, now)).collect(),
            pools: self.report_pools(now),
            announcements: self.report_announcements(now),
            bgp_nodes: self.report_node_configs(),
            bgp: self.report_bgp(now),
            slices: self.write_kept_slices(),
        }
    }

    pub(crate) fn is_report_due(&self) -> bool {
        let of_objects = self.reports.endpoints.is_due() || self.reports.nodes.is_due();
        let of_policies = self.policies.statuses.is_due() || self.redirects.statuses.is_due();
        let of_addresses = self.load_balancers.pools.is_due() || self.announcements.statuses.is_due();
        let of_bgp = self.routing.statuses.is_due() || self.routing.node_configs.is_due();
        of_objects || of_policies || of_addresses || of_bgp || self.is_kept_due()
    }

    pub(crate) fn touch_status(&mut self, key: &PolicyKey) {
        let object = object_key(key);
        // Kubernetes' own policies have no status of ours.
        if !matches!(object.kind, Kind::KubernetesNetworkPolicy | Kind::ClusterNetworkPolicy) {
            self.policies.statuses.touch(object);
        }
    }

    pub(crate) fn touch_statuses<'a>(&mut self, keys: impl IntoIterator<Item = &'a PolicyKey>) {
        keys.into_iter().for_each(|key| self.touch_status(key));
    }

    pub(crate) fn touch_token_reports(&mut self, token: &Token) {
        match token {
            Token::Policy(key) => self.touch_status(key),
            Token::Announcements(policy) => self.touch_announcement_status(policy),
            Token::Pod(name) => self.reports.endpoints.touch(endpoint_key(name)),
        }
    }

    /// A node says something new about one of its parts.
    pub(crate) fn touch_part_reports(&mut self, node: &str, part: &str) {
        let host = self.nodes.get(node).and_then(|entry| entry.host);
        let number = part.strip_prefix("policy/").and_then(|number| number.parse().ok());
        if let Some(number) = number.map(|number| if number == HOST { host.unwrap_or(HOST) } else { number })
        {
            let selecting = self.policies.index.selecting(number);
            self.touch_statuses(&selecting);
        } else if let Some((namespace, name)) =
            part.strip_prefix("endpoint/").and_then(|rest| rest.split_once('/'))
        {
            self.reports.endpoints.touch(endpoint_key(&PodName::new(namespace, name)));
        } else {
            self.touch_redirect_report(part);
            self.touch_announcement_report(node, part);
        }
    }

    /// A node says something new that may concern all of its parts.
    pub(crate) fn touch_node_reports(&mut self, node: &str) {
        let Some(entry) = self.nodes.get(node) else { return };
        let policies: BTreeSet<PolicyKey> = self.policies_on(entry);
        entry.pods.iter().for_each(|name| self.reports.endpoints.touch(endpoint_key(name)));
        self.touch_statuses(&policies);
        self.touch_announcements_of(node);
    }
}
