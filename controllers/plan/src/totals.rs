//! Sizes, for metrics.

use crate::planner::Planner;

/// How much a planner has, and how much of it is not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Nodes with a Node object.
    pub nodes: usize,
    /// Endpoints that nodes know.
    pub endpoints: usize,
    /// Endpoints that lack an address or an identity.
    pub waiting: usize,
    /// Identities, those without endpoints included.
    pub identities: usize,
    /// Label sets that have more than one identity.
    pub duplicate_identities: usize,
    /// Policies of both kinds.
    pub policies: usize,
    /// Policies whose present version is refused.
    pub refused_policies: usize,
    /// Slices, identities and reports that are not written yet.
    pub unwritten: usize,
}

impl Planner {
    /// Counts; costs a pass over everything.
    pub fn totals(&self) -> Totals {
        let published = self.endpoints.all.values().filter(|endpoint| endpoint.published.is_some()).count();
        let unwritten = [
            self.slices.unsettled(),
            self.identities.ledger.unsettled(),
            self.reports.endpoints.unsettled(),
            self.reports.nodes.unsettled(),
            self.policies.statuses.unsettled(),
            self.redirects.statuses.unsettled(),
            self.announcements.statuses.unsettled(),
            self.routing.statuses.unsettled(),
            self.routing.node_configs.unsettled(),
        ];
        Totals {
            nodes: self.nodes.iter().filter(|(_, entry)| entry.object.is_some()).count(),
            endpoints: published,
            waiting: self.endpoints.all.len() - published,
            identities: self.identities.known().len(),
            duplicate_identities: self.identities.duplicates(),
            policies: self.policies.all.len(),
            refused_policies: self.policies.all.values().filter(|policy| policy.refusal.is_some()).count(),
            unwritten: unwritten.into_iter().sum(),
        }
    }
}
