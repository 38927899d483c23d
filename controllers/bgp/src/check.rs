//! What must hold after every plan.

use crate::bgp::{Bgp, RouterIds};

impl Bgp {
    /// What does not hold, as sentences; nothing after a plan.
    pub fn check(&self) -> Vec<String> {
        let mut fresh = Self::told_like(self);
        fresh.plan();
        let mut notes = Vec::new();
        let mut compare = |what: &str, is_same: bool| {
            if !is_same {
                notes.push(format!("{what} of BGP are not what would be planned now"));
            }
        };
        compare("sessions", fresh.members == self.members);
        compare("standings", fresh.standings == self.standings);
        compare("routes", fresh.routes == self.routes);
        compare("router ids", fresh.pool == self.pool);
        if let RouterIds::Pool(pool) = self.inputs.config.router_ids {
            notes.extend(self.pool.check(pool));
        }
        notes
    }
}
