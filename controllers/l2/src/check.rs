//! What must hold after every plan.

use crate::l2::L2;
use crate::order::Order;

impl L2 {
    /// What does not hold, as sentences; nothing after a plan.
    pub fn check(&self) -> Vec<String> {
        let mut notes = self.check_addresses();
        notes.extend(self.check_policies());
        notes
    }

    /// Everything that was decided is what would be decided now, and owners are nodes that some policy lets announce.
    fn check_addresses(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut order = Order::default();
        for (address, known) in &self.addresses {
            if known.plan != self.decided(*address, &mut order) {
                notes.push(format!("{address} is not announced as it would be now"));
            }
            let policies = known.plan.policies.iter().filter_map(|policy| self.policies.get(policy));
            let may = |owner| policies.clone().any(|known| known.nodes.contains(owner));
            if !known.plan.owners.iter().all(may) {
                notes.push(format!("{address} has an owner that may not announce it"));
            }
            if known.plan.policies.is_empty() {
                notes.push(format!("{address} is announced, and no policy says so"));
            }
        }
        notes
    }

    /// What is known of a policy is what it makes of the objects that there are.
    fn check_policies(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, known) in &self.policies {
            let (services, nodes, deviceless) = self.reached(&known.policy);
            if (&services, &nodes, &deviceless) != (&known.services, &known.nodes, &known.deviceless) {
                notes.push(format!("policy {name} reaches other objects than it is thought to"));
            }
            let is_own = |at: &&std::net::IpAddr| {
                self.addresses.get(at).is_some_and(|it| it.plan.policies.contains(name))
            };
            let own = self.addresses.keys().filter(is_own);
            if !own.eq(&known.addresses) {
                notes.push(format!("policy {name} has other addresses than it is thought to"));
            }
        }
        notes
    }
}
