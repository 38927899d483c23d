//! Tells the operator what is in force: a patch of `status.applied`, sent by a task of its own, so that nothing waits for it.

use cilium_api::condition::Condition;
use cilium_api::node_state::{AppliedState, CiliumNodeState};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::watch::chain;

/// Field manager of everything that agents write.
const MANAGER: &str = "cilium-agent";

/// What the operator and users are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) applied: AppliedState,
    /// `None` leaves the condition as it is.
    pub(crate) condition: Option<Condition>,
}

/// Sends the latest state whenever it differs from the last one that was sent, until the sender is dropped. States that are
/// overtaken while a request is under way are left out.
pub(crate) async fn run(client: Client, node: String, mut told: watch::Receiver<Option<Told>>) {
    let api: Api<CiliumNodeState> = Api::all(client);
    let mut backoff = Backoff::new();
    // As the object has them: every answer says so. Nobody knows before the first one.
    let mut conditions = None;
    while told.changed().await.is_ok() {
        let mut failed = false;
        loop {
            let latest = told.borrow_and_update().clone();
            let Some(latest) = latest else { break };
            let revision = latest.applied.revision;
            match send(&api, &node, &latest, conditions.as_deref()).await {
                Ok(state) => {
                    let found = state.status.and_then(|status| status.conditions).unwrap_or_default();
                    backoff.succeeded();
                    if conditions.replace(found).is_some() || latest.condition.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    let error = chain(&error);
                    if failed {
                        tracing::debug!(error, revision, "status.applied still cannot be written");
                    } else {
                        tracing::warn!(
                            error,
                            revision,
                            "status.applied cannot be written; it is tried until it can"
                        );
                    }
                    failed = true;
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }
}

async fn send(
    api: &Api<CiliumNodeState>,
    node: &str,
    told: &Told,
    conditions: Option<&[Condition]>,
) -> kube::Result<CiliumNodeState> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    api.patch_status(node, &parameters, &Patch::Merge(body(told, conditions, now))).await
}

/// In a merge patch an absent list would stay as it was, as conditions do while it is not known which there are. `now`
/// is in seconds since 1970.
fn body(told: &Told, conditions: Option<&[Condition]>, now: i64) -> serde_json::Value {
    let mut applied = json!(told.applied);
    let AppliedState { failures, devices, silent, .. } = &told.applied;
    let lists =
        [("failures", failures.is_empty()), ("devices", devices.is_empty()), ("silent", silent.is_empty())];
    for (list, _) in lists.into_iter().filter(|(_, is_empty)| *is_empty) {
        applied[list] = serde_json::Value::Null;
    }
    let mut status = json!({ "applied": applied });
    if let (Some(condition), Some(conditions)) = (&told.condition, conditions) {
        let mut conditions = conditions.to_vec();
        cilium_core::condition::set(&mut conditions, condition.clone(), now);
        status["conditions"] = json!(conditions);
    }
    json!({ "status": status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_told(condition: Option<Condition>) -> Told {
        Told {
            applied: AppliedState { revision: 7, digest: "d".into(), ..AppliedState::default() },
            condition,
        }
    }

    #[test]
    fn empty_lists_replace_the_old_ones() {
        let body = body(&mk_told(None), Some(&[]), 0);
        assert_eq!(body["status"]["applied"]["revision"], 7);
        for list in ["failures", "devices", "silent"] {
            let said = body["status"]["applied"].get(list);
            assert!(said.is_some_and(serde_json::Value::is_null), "{list}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mk = |status: &str| Condition {
            type_: "MapPressure".into(),
            status: status.into(),
            ..Condition::default()
        };
        assert_eq!(
            body(&mk_told(None), Some(&[mk("True")]), 60)["status"].get("conditions"),
            None,
            "it stays as it is"
        );
        let stored = [Condition { last_transition_time: Some("1970-01-01T00:00:09Z".into()), ..mk("False") }];
        let time = |status: &str| {
            let body = body(&mk_told(Some(mk(status))), Some(&stored), 60);
            body["status"]["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(time("False"), "1970-01-01T00:00:09Z");
        assert_eq!(time("True"), "1970-01-01T00:01:00Z");
    }
}
