//! What must hold after every plan.

use cilium_services::ServiceName;

use crate::claim::Role;
use crate::lbipam::{Entry, Lbipam};
use crate::sharing::clash;

impl Lbipam {
    /// What does not hold, as sentences; nothing after a plan.
    pub fn check(&self) -> Vec<String> {
        let mut notes = self.check_sharing();
        notes.extend(self.check_places());
        notes.extend(self.check_users());
        notes.extend(self.check_count());
        notes
    }

    /// What is counted on the way is what there is.
    fn check_count(&self) -> Option<String> {
        let is_matching = |entry: &&Entry| entry.is_settled && entry.claim.role == Role::Ours;
        let found = self.services.values().filter(is_matching).count();
        (found != self.matching)
            .then(|| format!("{found} Services get addresses, {} are counted", self.matching))
    }

    /// Who has an address together may.
    fn check_sharing(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (address, users) in &self.users {
            let claims = users.iter().filter_map(|rank| Some((rank, &self.services.get(rank)?.claim)));
            let ours: Vec<_> = claims.filter(|(_, claim)| claim.role == Role::Ours).collect();
            for (index, (one, claim)) in ours.iter().enumerate() {
                for (other, known) in &ours[index + 1..] {
                    let namespaces = (one.name.namespace.as_str(), other.name.namespace.as_str());
                    if let Some(clash) = clash((namespaces.0, claim), (namespaces.1, known)) {
                        notes.push(format!(
                            "{address} belongs to {} and {}: {}",
                            text(&one.name),
                            text(&other.name),
                            clash.text()
                        ));
                    }
                }
            }
        }
        notes
    }

    /// What a Service of ours has is in a pool that selects it, and is what it asks for.
    fn check_places(&self) -> Vec<String> {
        let ours =
            self.services.iter().filter(|(_, entry)| entry.claim.role == Role::Ours && entry.is_settled);
        let held =
            ours.flat_map(|(rank, entry)| entry.held.iter().map(move |address| (rank, entry, *address)));
        let wrong = held.filter(|(_, entry, address)| {
            !self.pools.leaves(*address, &entry.claim.labels) || !entry.claim.wants(*address)
        });
        wrong
            .map(|(rank, _, address)| format!("{} has {address}, which is not for it", text(&rank.name)))
            .collect()
    }

    /// Both ways of saying who has what agree.
    fn check_users(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (rank, entry) in self.services.iter().filter(|(_, entry)| entry.is_settled) {
            for address in &entry.held {
                if !self.users.get(address).is_some_and(|users| users.contains(rank)) {
                    notes.push(format!("{} is not among the users of {address}", text(&rank.name)));
                }
            }
        }
        for (address, users) in &self.users {
            for rank in users {
                if !self.services.get(rank).is_some_and(|entry| entry.held.contains(address)) {
                    notes.push(format!("{} is a user of {address} and does not have it", text(&rank.name)));
                }
            }
            if self.pools.is_free(*address) {
                notes.push(format!("{address} has users and is free"));
            }
        }
        notes
    }
}

fn text(name: &ServiceName) -> String {
    format!("{}/{}", name.namespace, name.name)
}
