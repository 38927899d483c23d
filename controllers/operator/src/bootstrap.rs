//! Opens a node for pods once its agent has applied a first state: drops the taint that kept pods away, and says that
//! the network is there.

use std::collections::BTreeMap;

use cilium_api::node_state::CiliumNodeState;
use cilium_api::slim::Node;
use cilium_plan::Kind;
use cilium_runtime::writer::{Job, Lane, Request};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds;

/// What is done, and how it is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Key of the taint to remove; `None` leaves taints alone.
    pub taint: Option<String>,
    /// Whether to set condition NetworkUnavailable to False.
    pub condition: bool,
}

/// What is known of the nodes.
#[derive(Debug)]
pub struct Bootstrap {
    settings: Settings,
    nodes: BTreeMap<String, NodeInfo>,
}

#[derive(Debug, Default)]
struct NodeInfo {
    /// Index of the taint.
    taint: Option<usize>,
    needs_condition: bool,
    acked: bool,
    writing: bool,
}

impl Bootstrap {
    /// Nothing known yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, nodes: BTreeMap::new() }
    }

    /// Takes a node as it is.
    pub fn observe_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name).or_default();
        let taint = self.settings.taint.as_deref();
        info.taint = node.spec.taints.iter().position(|found| Some(found.key.as_str()) == taint);
        let available = node
            .status
            .conditions
            .iter()
            .any(|found| found.type_ == "NetworkUnavailable" && found.status == "False");
        info.needs_condition = self.settings.condition && !available;
    }

    /// Takes what the agent of a node says.
    pub fn observe_state(&mut self, state: &CiliumNodeState) {
        let name = state.metadata.name.clone().unwrap_or_default();
        let applied = state.status.as_ref().and_then(|status| status.applied.as_ref());
        self.nodes.entry(name).or_default().acked = applied.is_some_and(|applied| applied.revision > 0);
    }

    /// A node is gone.
    pub fn forget_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// The attempt to write a node is over; observe it first if it turned out to be different.
    pub fn written(&mut self, name: &str, done: bool) {
        let Some(info) = self.nodes.get_mut(name) else { return };
        info.writing = false;
        if done {
            info.taint = None;
            info.needs_condition = false;
        }
    }

    /// What is to be written now. Ask again after [`Bootstrap::written`].
    ///
    /// # Errors
    /// Never in practice: the patches are plain JSON.
    pub fn plan(&mut self, now: Timestamp) -> Result<Vec<Job>, serde_json::Error> {
        let due = self.nodes.iter_mut().filter(|(_, info)| info.acked && !info.writing && info.has_work());
        due.map(|(name, info)| {
            info.writing = true;
            mk_job(name, info, self.settings.taint.as_deref(), now)
        })
        .collect()
    }
}

impl NodeInfo {
    fn has_work(&self) -> bool {
        self.taint.is_some() || self.needs_condition
    }
}

fn mk_job(
    name: &str,
    info: &NodeInfo,
    taint: Option<&str>,
    now: Timestamp,
) -> Result<Job, serde_json::Error> {
    let mut requests = Vec::new();
    if info.needs_condition {
        requests.push(Request::strategic_patch(Some("status"), &mk_condition(now))?);
    }
    if let (Some(index), Some(key)) = (info.taint, taint) {
        requests.push(Request::json_patch(None, &mk_taint_removal(index, key))?);
    }
    let (resource, _) = kinds::describe(Kind::Node);
    let object = cilium_runtime::object::ObjectRef::cluster(resource, name);
    tracing::info!(node = name, "the agent has applied its first state; the node is open for pods");
    Ok(Job { object, lane: Lane::Normal, requests })
}

/// Taints have no names, so the one at `index` is tested before it is removed.
fn mk_taint_removal(index: usize, key: &str) -> Value {
    let path = format!("/spec/taints/{index}");
    json!([{"op": "test", "path": format!("{path}/key"), "value": key}, {"op": "remove", "path": path}])
}

fn mk_condition(now: Timestamp) -> Value {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"status": {"conditions": [{
        "type": "NetworkUnavailable", "status": "False", "reason": "CiliumIsUp",
        "message": "Cilium is running on this node", "lastHeartbeatTime": time, "lastTransitionTime": time,
    }]}})
}

#[cfg(test)]
mod tests {
    use cilium_api::node_state::{AppliedState, CiliumNodeStateStatus};
    use cilium_api::slim::{NodeCondition, Taint};

    use super::*;

    const TAINT: &str = "node.cilium.io/agent-not-ready";

    fn mk_bootstrap() -> Bootstrap {
        Bootstrap::new(Settings { taint: Some(TAINT.into()), condition: true })
    }

    fn mk_node(taints: &[&str], network_unavailable: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.spec.taints =
            taints.iter().map(|key| Taint { key: (*key).into(), ..Default::default() }).collect();
        node.status.conditions = network_unavailable
            .map(|status| NodeCondition { type_: "NetworkUnavailable".into(), status: status.into() })
            .into_iter()
            .collect();
        node
    }

    fn mk_state(revision: Option<i64>) -> CiliumNodeState {
        let mut state = CiliumNodeState::new("n1", cilium_api::node_state::CiliumNodeStateSpec {});
        let applied = revision.map(|revision| AppliedState { revision, ..Default::default() });
        state.status = Some(CiliumNodeStateStatus { applied, ..Default::default() });
        state
    }

    fn bodies(jobs: &[Job]) -> Vec<Value> {
        jobs.iter()
            .flat_map(|job| &job.requests)
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect()
    }

    fn plan(bootstrap: &mut Bootstrap) -> Vec<Value> {
        bodies(&bootstrap.plan(Timestamp::UNIX_EPOCH).unwrap())
    }

    #[test]
    fn a_node_stays_closed_until_its_agent_has_applied_something() {
        let mut bootstrap = mk_bootstrap();
        bootstrap.observe_node(&mk_node(&["other", TAINT], None));
        assert!(plan(&mut bootstrap).is_empty());
        bootstrap.observe_state(&mk_state(None));
        assert!(plan(&mut bootstrap).is_empty());
        bootstrap.observe_state(&mk_state(Some(0)));
        assert!(plan(&mut bootstrap).is_empty(), "an agent that cannot set its node up says revision 0");
        bootstrap.observe_state(&mk_state(Some(1)));
        let patches = plan(&mut bootstrap);
        let condition = &patches[0]["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["status"]), (&json!("CiliumIsUp"), &json!("False")));
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
        let removal = json!([
            {"op": "test", "path": "/spec/taints/1/key", "value": TAINT},
            {"op": "remove", "path": "/spec/taints/1"},
        ]);
        assert_eq!(patches[1], removal);
        assert!(plan(&mut bootstrap).is_empty(), "asked twice");
    }

    #[test]
    fn what_is_open_is_left_alone() {
        let mut bootstrap = mk_bootstrap();
        bootstrap.observe_state(&mk_state(Some(4)));
        bootstrap.observe_node(&mk_node(&["other"], Some("False")));
        assert!(plan(&mut bootstrap).is_empty());
    }

    #[test]
    fn a_failed_attempt_is_repeated_and_a_successful_one_is_not() {
        let mut bootstrap = mk_bootstrap();
        bootstrap.observe_state(&mk_state(Some(4)));
        bootstrap.observe_node(&mk_node(&[TAINT], Some("False")));
        assert_eq!(plan(&mut bootstrap).len(), 1);
        bootstrap.written("n1", false);
        assert_eq!(plan(&mut bootstrap).len(), 1);
        bootstrap.written("n1", true);
        assert!(plan(&mut bootstrap).is_empty());
    }

    #[test]
    fn both_steps_can_be_switched_off() {
        let mut bootstrap = Bootstrap::new(Settings { taint: None, condition: false });
        bootstrap.observe_state(&mk_state(Some(4)));
        bootstrap.observe_node(&mk_node(&[TAINT], Some("True")));
        assert!(plan(&mut bootstrap).is_empty());
    }
}
