use cilium_api::condition::{Condition, VALID};
use cilium_api::l2_announcement_policy::{CiliumL2AnnouncementPolicy, L2AnnouncementStatus};
use cilium_core::condition;
use cilium_l2::{Field, Policy, Reach};

use super::{Announcements, is_of_all};
use crate::config::Config;
use crate::effect::{EFFECTIVE, shortened};
use crate::node::{State, Token};
use crate::object::ObjectKey;
use crate::output::Write;
use crate::planner::Planner;
use crate::status::ENFORCED;

/// Most nodes or addresses that a message names.
const MAX_NAMED: usize = 5;

impl Planner {
    pub(crate) fn report_announcements(&mut self, now: i64) -> Vec<Write<L2AnnouncementStatus>> {
        let due = self.announcements.statuses.take_due();
        due.iter().filter_map(|key| self.report_announcement(key, now)).collect()
    }

    fn report_announcement(&mut self, key: &ObjectKey, now: i64) -> Option<Write<L2AnnouncementStatus>> {
        let desired = self.announcement_status(key, now);
        if self.announcements.is_delayed(key, desired.as_ref(), now) {
            return None;
        }
        let content = desired.clone();
        let action = self.announcements.statuses.decide(key, desired, || content)?;
        Some(Write { key: key.clone(), action })
    }

    fn announcement_status(&self, key: &ObjectKey, now: i64) -> Option<L2AnnouncementStatus> {
        let Announcements { l2, statuses, generations, .. } = &self.announcements;
        let l2 = l2.as_ref()?;
        let (policy, reach) = (l2.policy(&key.name)?, l2.reach(&key.name)?);
        let mut status = statuses.stored(key).cloned().unwrap_or_default();
        let mut conditions = status.conditions.take().unwrap_or_default();
        let mut wanted = vec![valid(policy), self.announcement_enforced(&key.name, policy, &reach)];
        wanted.push(effective(policy, &reach));
        wanted.extend(Field::ALL.into_iter().filter_map(|field| of_field(field, policy, &conditions)));
        for new in wanted {
            let observed_generation = generations.get(key).copied();
            let message = new.message.map(shortened);
            condition::set(&mut conditions, Condition { observed_generation, message, ..new }, now);
        }
        status.conditions = Some(conditions);
        let mut addresses = l2.announced(&key.name);
        if self.config.l2_leases {
            addresses.iter_mut().for_each(|address| address.node = None);
        }
        status.addresses = (!addresses.is_empty()).then_some(addresses);
        status.address_count = Some(count(reach.addresses.len()));
        status.node_count = Some(count(reach.owners.len()));
        Some(status)
    }

    fn announcement_enforced(&self, name: &str, policy: &Policy, reach: &Reach<'_>) -> Condition {
        let token = Token::Announcements(name.into());
        let (mut enforcing, mut refusal) = (0, None);
        for node in &reach.owners {
            let state = self.nodes.get(node).map(|entry| &entry.state);
            let trouble = state.and_then(|state| trouble(state, reach));
            enforcing +=
                usize::from(trouble.is_none() && state.is_some_and(|state| state.is_confirmed(&token)));
            refusal = refusal.or_else(|| trouble.map(|message| format!("node {node}: {message}")));
        }
        let needed = reach.owners.len();
        let progress = format!("in force on {enforcing} of {needed} nodes");
        let (status, reason, message) = if !policy.faults().is_empty() {
            ("False", "NotValid", "nothing is announced".to_owned())
        } else if needed == 0 {
            ("True", "NoNodes", format!("no node announces anything; {progress}"))
        } else if let Some(refusal) = refusal {
            ("False", "NodeFailure", format!("{progress}; {refusal}"))
        } else if enforcing < needed {
            ("False", "Pending", progress)
        } else {
            ("True", "InForce", progress)
        };
        Condition::new(ENFORCED, status, reason, message)
    }

    /// Lets the next report write what has waited long enough.
    pub(crate) fn release_delayed_announcements(&mut self, now: i64) {
        let Announcements { delayed, statuses, .. } = &mut self.announcements;
        delayed.due(now).for_each(|object| statuses.touch(object.clone()));
    }

    /// When [`Planner::release_delayed_announcements`] has something to do.
    pub(crate) fn next_announcement_release(&self) -> Option<i64> {
        self.announcements.delayed.next()
    }
}

impl Announcements {
    /// Whether a status is to wait, as it tells of progress only.
    fn is_delayed(&mut self, key: &ObjectKey, desired: Option<&L2AnnouncementStatus>, now: i64) -> bool {
        let is_small = self.statuses.stored(key).zip(desired).is_some_and(|(stored, desired)| {
            stored != desired && without_progress(stored) == without_progress(desired)
        });
        self.delayed.waits(key, is_small, now)
    }
}

fn without_progress(status: &L2AnnouncementStatus) -> L2AnnouncementStatus {
    let mut status = status.clone();
    let enforced = status.conditions.iter_mut().flatten().filter(|it| it.type_ == ENFORCED);
    enforced.for_each(|condition| condition.message = None);
    status
}

/// What a node says of one of the addresses, if it cannot announce it.
fn trouble(state: &State, reach: &Reach<'_>) -> Option<String> {
    let is_ours = |object: &str| {
        let address = object.strip_prefix("announcement/").and_then(|text| text.parse().ok());
        is_of_all(object) || address.is_some_and(|address| reach.addresses.contains(&address))
    };
    let named = state.failures().find(|failure| is_ours(&failure.object));
    let unnamed = || "more parts are not in force than it can name: see its log".to_owned();
    named.map(|failure| failure.message.clone()).or_else(|| state.has_unnamed_failures().then(unnamed))
}

fn valid(policy: &Policy) -> Condition {
    let faults: Vec<String> = policy.faults().iter().map(ToString::to_string).collect();
    if faults.is_empty() {
        Condition::new(VALID, "True", "Valid", "Policy validation succeeded".to_owned())
    } else {
        Condition::new(VALID, "False", "Malformed", faults.join("; "))
    }
}

/// Upstream's condition for a field: it comes with the first error, and stays when that is mended.
fn of_field(field: Field, policy: &Policy, known: &[Condition]) -> Option<Condition> {
    let type_ = field.condition();
    let fault = policy.faults().iter().find(|fault| fault.field == field);
    match fault {
        Some(fault) => Some(Condition::new(type_, "True", "error", fault.to_string())),
        None if known.iter().any(|condition| condition.type_ == type_) => {
            Some(Condition::new(type_, "False", "error", String::new()))
        }
        None => None,
    }
}

/// Whether all that the policy asks for has an effect. The first thing that stands in the way counts.
fn effective(policy: &Policy, reach: &Reach<'_>) -> Condition {
    let Reach { services, addresses, taken, unowned, nodes, deviceless, owners } = reach;
    let (status, reason, message) = if !policy.faults().is_empty() {
        ("False", "NotValid", "nothing is announced".to_owned())
    } else if !policy.has_kind() {
        (
            "False",
            "NoAddressKind",
            "set spec.loadBalancerIPs or spec.externalIPs to true: otherwise, nothing is announced"
                .to_owned(),
        )
    } else if *services == 0 {
        ("False", "NoServices", NO_SERVICES.to_owned())
    } else if addresses.is_empty() {
        (
            "False",
            "NoAddresses",
            format!("{services} Services are selected, and none of them has such an address"),
        )
    } else if *nodes == 0 && deviceless.is_empty() {
        ("False", "NoNodes", "spec.nodeSelector selects no node".to_owned())
    } else if !deviceless.is_empty() {
        let message = format!("spec.interfaces matches no device on nodes {}", named(deviceless));
        ("False", "NoDevices", message)
    } else if !taken.is_empty() {
        ("False", "NodeAddress", format!("addresses of nodes are never announced: {}", named(taken)))
    } else if !unowned.is_empty() {
        let message = "externalTrafficPolicy: Local, and no selected node has a backend: nobody announces";
        ("False", "NoBackends", format!("{message} {}", named(unowned)))
    } else {
        let message = format!("{} addresses are announced by {} nodes", addresses.len(), owners.len());
        ("True", "Announcing", message)
    };
    Condition::new(EFFECTIVE, status, reason, message)
}

const NO_SERVICES: &str = "spec.serviceSelector selects no Service without loadBalancerClass or of the class io.cilium/l2-announcer";

/// The first few, and how many more there are.
fn named(all: &[impl ToString]) -> String {
    let mut text = all.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", all.len() - MAX_NAMED));
    }
    text
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Warnings for the author of a policy that is about to be stored.
pub(crate) fn advise(policy: &CiliumL2AnnouncementPolicy, config: &Config) -> Vec<String> {
    if config.l2_announcements || !Policy::reduce(policy).faults().is_empty() {
        return Vec::new();
    }
    vec![
        "it is not put in force: a CiliumL2AnnouncementPolicy needs enable-l2-announcements (l2announcements.enabled in the chart), \
         which is off"
            .to_owned(),
    ]
}
