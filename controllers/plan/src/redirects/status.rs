use cilium_api::condition::{Condition, VALID};
use cilium_api::local_redirect_policy::{CiliumLocalRedirectPolicy, LocalRedirectStatus};
use cilium_core::condition;
use cilium_services::redirect::Rule;

use super::frontends::{Hindrance, check_settings};
use super::{Redirect, part_key};
use crate::config::Config;
use crate::effect::EFFECTIVE;
use crate::object::ObjectKey;
use crate::output::Write;
use crate::planner::Planner;

impl Planner {
    pub(crate) fn report_redirect(
        &mut self,
        object: &ObjectKey,
        now: i64,
    ) -> Option<Write<LocalRedirectStatus>> {
        let redirect = self.redirects.all.get(object);
        let desired = redirect.map(|redirect| self.redirect_status(object, redirect, now));
        let content = desired.clone();
        let action = self.redirects.statuses.decide(object, desired, || content)?;
        Some(Write { key: object.clone(), action })
    }

    fn redirect_status(&self, object: &ObjectKey, redirect: &Redirect, now: i64) -> LocalRedirectStatus {
        let generation = (redirect.generation != 0).then_some(redirect.generation);
        let mut status = self.redirects.statuses.stored(object).cloned().unwrap_or_default();
        let mut conditions = status.conditions.take().unwrap_or_default();
        let effective = self.redirect_effective(object, redirect);
        status.ok = Some(effective.status == "True");
        for new in [redirect_valid(redirect), effective] {
            condition::set(&mut conditions, Condition { observed_generation: generation, ..new }, now);
        }
        status.conditions = Some(conditions);
        status.observed_generation = generation;
        status
    }

    fn redirect_effective(&self, object: &ObjectKey, redirect: &Redirect) -> Condition {
        let (status, reason, message) = match (&redirect.rule, &redirect.frontends) {
            (Err(_), _) | (_, Err(Hindrance::Refused(_) | Hindrance::Undecided)) => {
                ("False", "NotValid", "nothing is redirected".to_owned())
            }
            (_, Err(Hindrance::Idle(refusal))) => ("False", refusal.reason, refusal.message.clone()),
            (_, Ok(_)) => self.reached(object, redirect),
        };
        Condition::new(EFFECTIVE, status, reason, message)
    }

    /// On which nodes a policy does something; and if on none, why.
    fn reached(&self, object: &ObjectKey, redirect: &Redirect) -> (&'static str, &'static str, String) {
        let mut nodes = redirect.nodes.keys().filter(|node| redirect.part(node).is_some()).peekable();
        if redirect.places.is_empty() {
            let message = format!(
                "spec.redirectBackend.localEndpointSelector selects no pod of namespace {} with an address of its own",
                object.namespace
            );
            return ("False", "NoPods", message);
        }
        if nodes.peek().is_none() {
            let pods = redirect.places.len();
            return ("False", "NoReadyPods", format!("{pods} pods are selected, and none of them is ready"));
        }
        let key = part_key(object);
        let failure = |node: &String| {
            let message = self.nodes.get(node)?.state.message(&key.0)?;
            Some(format!("node {node}: {message}"))
        };
        let nodes: Vec<_> = nodes.collect();
        match nodes.iter().find_map(|node| failure(node)) {
            Some(message) => ("False", "NodeFailure", message),
            None => ("True", "Redirecting", format!("clients on {} nodes are redirected", nodes.len())),
        }
    }
}

fn redirect_valid(redirect: &Redirect) -> Condition {
    match (&redirect.rule, &redirect.frontends) {
        (Err(refusal), _) | (_, Err(Hindrance::Refused(refusal))) => {
            Condition::new(VALID, "False", refusal.reason, refusal.message.clone())
        }
        _ => Condition::new(VALID, "True", "Valid", "Policy validation succeeded".to_owned()),
    }
}

/// What the settings of the cluster have against a policy that is about to be stored.
pub(crate) fn advise(policy: &CiliumLocalRedirectPolicy, config: &Config) -> Vec<String> {
    let refusal = Rule::reduce(policy).ok().and_then(|rule| check_settings(&rule, config).err());
    refusal.map(|refusal| format!("it is not put in force: {}", refusal.message)).into_iter().collect()
}
