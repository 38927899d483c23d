//! What of policies has no effect: on the policy as a condition, and for its author before it is stored.

use std::collections::BTreeSet;

use cilium_api::condition::Condition;
use cilium_core::reserved;
use cilium_policy::{Ineffective, Mode, PolicyKey, reduce};

use crate::announcements;
use crate::object::Object;
use crate::planner::Planner;
use crate::policies::Policy;
use crate::redirects;

/// Type of the condition that says whether everything that the policy asks for has an effect.
pub(crate) const EFFECTIVE: &str = "Effective";

/// Most parts that are named.
const MAX_NAMED: usize = 3;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 512;

impl Planner {
    pub(crate) fn effective(&self, key: &PolicyKey, policy: &Policy) -> Condition {
        let (status, reason, message) = if policy.in_force.is_none() {
            ("False", "NotValid", "no valid version of this policy is known".to_owned())
        } else if self.config.mode == Mode::Never {
            let message = "policy enforcement is switched off (enable-policy=never)";
            ("False", "EnforcementDisabled", message.to_owned())
        } else {
            let idle = self.policies.index.ineffective(key, &|number| self.is_present(number));
            match idle.first() {
                None => {
                    ("True", "Effective", "all rules have endpoints and peers, none is denied".to_owned())
                }
                Some(first) => ("False", first.why.as_str(), told(&idle).join("; ")),
            }
        };
        Condition::new(EFFECTIVE, status, reason, shortened(message))
    }

    /// Warnings for the author of a policy that is about to be stored: what of it would have no effect now.
    pub fn advise(&self, object: &Object) -> Vec<String> {
        let settings = self.config.settings();
        let (key, rules) = match object {
            Object::NetworkPolicy(policy) => (reduce::cnp_key(policy), reduce::cnp(policy, settings)),
            Object::ClusterwideNetworkPolicy(policy) => {
                (reduce::ccnp_key(policy), reduce::ccnp(policy, settings))
            }
            Object::LocalRedirectPolicy(policy) => return redirects::advise(policy, &self.config),
            Object::L2AnnouncementPolicy(policy) => return announcements::advise(policy, &self.config),
            Object::LoadBalancerPool(pool) => return self.load_balancers.advise(pool),
            _ => return Vec::new(),
        };
        let Ok(rules) = rules.map(|rules| rules.resolved(self)) else { return Vec::new() };
        if self.config.mode == Mode::Never {
            return vec!["policy enforcement is switched off (enable-policy=never)".to_owned()];
        }
        let index = &self.policies.index;
        told(&index.would_be_ineffective(&key, &rules, &|number| self.is_present(number)))
    }

    /// Whether somebody has the identity now. Nodes, and what is outside, are always there.
    fn is_present(&self, number: u32) -> bool {
        let counted = (reserved::FIRST_ALLOCATED..=reserved::LAST_ALLOCATED).contains(&number);
        !counted || self.identities.get(number).is_some_and(|known| !known.nodes.is_empty())
    }

    /// An identity got its first endpoint, or lost its last: policies have somebody to speak of now, or nobody.
    pub(crate) fn touch_peers_of(&mut self, number: u32) {
        let is_other = |other: u32| other != number && self.is_present(other);
        let keys: BTreeSet<PolicyKey> = self.policies.index.hinging_on(number, &is_other);
        self.touch_statuses(&keys);
    }
}

/// Sentences for the first few, and how many more there are.
fn told(idle: &[Ineffective]) -> Vec<String> {
    let mut told: Vec<String> = idle.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if idle.len() > MAX_NAMED {
        told.push(format!("{} more parts have no effect", idle.len() - MAX_NAMED));
    }
    told
}

/// Within the bounds of a condition, and of patience.
pub(crate) fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    message
}
