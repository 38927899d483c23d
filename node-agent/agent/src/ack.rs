//! Tells the operator what is in force: a patch of `status.applied`, sent by a task of its own, so that nothing waits for it.

use cilium_api::node_state::{AppliedState, CiliumNodeState};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::watch::chain;

/// Field manager of everything that agents write.
const MANAGER: &str = "cilium-agent";

/// Sends the latest state whenever it differs from the last one that was sent, until the sender is dropped. States that are
/// overtaken while a request is under way are left out.
pub(crate) async fn run(client: Client, node: String, mut applied: watch::Receiver<Option<AppliedState>>) {
    let api: Api<CiliumNodeState> = Api::all(client);
    let mut backoff = Backoff::new();
    while applied.changed().await.is_ok() {
        let mut failed = false;
        loop {
            let latest = applied.borrow_and_update().clone();
            let Some(latest) = latest else { break };
            match send(&api, &node, &latest).await {
                Ok(()) => {
                    backoff.succeeded();
                    break;
                }
                Err(error) => {
                    let error = chain(&error);
                    if failed {
                        tracing::debug!(
                            error,
                            revision = latest.revision,
                            "status.applied still cannot be written"
                        );
                    } else {
                        tracing::warn!(
                            error,
                            revision = latest.revision,
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

async fn send(api: &Api<CiliumNodeState>, node: &str, applied: &AppliedState) -> kube::Result<()> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(node, &parameters, &Patch::Merge(body(applied))).await.map(drop)
}

/// A merge patch leaves out nothing: an absent list would stay as it was.
fn body(applied: &AppliedState) -> serde_json::Value {
    let mut applied_json = json!(applied);
    if applied.failures.is_empty() {
        applied_json["failures"] = serde_json::Value::Null;
    }
    json!({ "status": { "applied": applied_json } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_failures_replaces_the_old_one() {
        let applied = AppliedState { revision: 7, digest: "d".into(), ..AppliedState::default() };
        let body = body(&applied);
        assert_eq!(body["status"]["applied"]["revision"], 7);
        assert!(body["status"]["applied"].as_object().is_some_and(|map| map["failures"].is_null()));
    }
}
